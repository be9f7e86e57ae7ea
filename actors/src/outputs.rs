//! Tables that a flush or a compaction has written and that no manifest names yet.

use crate::shared::Shared;
use sluicedb_storage::Error;
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::table::TableMeta;
use sluicedb_storage::version::{SliceMeta, TableHandle};
use std::sync::Arc;

/// Finished tables, durable under their names. Removed when dropped, unless a manifest may name them: a
/// job that fails leaves nothing behind, however often it is tried again.
#[derive(Debug)]
pub(crate) struct Outputs {
    shared: Arc<Shared>,
    slices: Vec<SliceMeta>,
    may_be_named: bool,
}

impl Outputs {
    /// What a job wrote.
    pub(crate) fn new(shared: &Arc<Shared>, metas: Vec<TableMeta>) -> Self {
        let slices = metas.into_iter().map(SliceMeta::whole).collect();
        Self { shared: Arc::clone(shared), slices, may_be_named: false }
    }

    /// The tables as an edit names them: all of each.
    pub(crate) fn slices(&self) -> &[SliceMeta] {
        &self.slices
    }

    /// Handles for the version that will name the tables. Opened while this thread may wait, if there
    /// is room, so that no reader has to; that fails without consequence.
    pub(crate) fn handles(&self) -> Vec<Arc<TableHandle>> {
        let tables = self.slices.iter().map(|slice| Arc::clone(&slice.table));
        let handles = tables.map(|table| self.shared.tables.handle(table));
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
        for slice in &self.slices {
            let path = FileKind::Table(slice.number()).path(&self.shared.config.dir);
            if let Err(error) = self.shared.vfs.remove(&path) {
                let error = Error::io("remove", &path, error);
                tracing::warn!(%error, "an unused table was left behind; the next open removes it");
            }
        }
    }
}
