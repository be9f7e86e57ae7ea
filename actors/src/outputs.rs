//! Tables that a flush or a compaction has written and that no manifest names yet.

use crate::shared::Shared;
use sluicedb_storage::Error;
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::table::TableMeta;
use sluicedb_storage::version::TableHandle;
use std::sync::Arc;

/// Finished tables, durable under their names. Removed when dropped, unless a manifest may name them: a
/// job that fails leaves nothing behind, however often it is tried again.
#[derive(Debug)]
pub(crate) struct Outputs {
    shared: Arc<Shared>,
    metas: Vec<TableMeta>,
    may_be_named: bool,
}

impl Outputs {
    /// What a job wrote.
    pub(crate) fn new(shared: &Arc<Shared>, metas: Vec<TableMeta>) -> Self {
        Self { shared: Arc::clone(shared), metas, may_be_named: false }
    }

    /// What is in them.
    pub(crate) fn metas(&self) -> &[TableMeta] {
        &self.metas
    }

    /// Handles for the version that will name the tables. Opened while this thread may wait, if there
    /// is room, so that no reader has to; that fails without consequence.
    pub(crate) fn handles(&self) -> Vec<Arc<TableHandle>> {
        let handles = self.metas.iter().map(|meta| self.shared.tables.handle(meta.clone()));
        handles.inspect(TableHandle::open_early).collect()
    }

    /// The version manager gets the edit that names them.
    pub(crate) fn hand_over(&mut self) {
        self.may_be_named = true;
    }

    /// It has refused the edit, and no manifest has it.
    pub(crate) fn take_back(&mut self) {
        self.may_be_named = false;
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        if self.may_be_named {
            return;
        }
        for meta in &self.metas {
            let path = FileKind::Table(meta.number).path(&self.shared.config.dir);
            if let Err(error) = self.shared.vfs.remove(&path) {
                let error = Error::io("remove", &path, error);
                tracing::warn!(%error, "an unused table was left behind; the next open removes it");
            }
        }
    }
}
