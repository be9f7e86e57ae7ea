//! Tables that a flush or a compaction has written and that no manifest names yet.

use crate::kernel::mailbox::Mailbox;
use crate::kernel::reply::reply;
use crate::shared::Shared;
use crate::version_manager::message::{Flushed, InstallFailure, VersionMessage};
use sluicedb_storage::Error;
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::table::TableMeta;
use sluicedb_storage::version::{SliceMeta, TableHandle, VersionEdit};
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
    fn handles(&self) -> Vec<Arc<TableHandle>> {
        let tables = self.slices.iter().map(|slice| Arc::clone(&slice.table));
        let handles = tables.map(|table| self.shared.tables.handle(table));
        handles.inspect(TableHandle::open_early).collect()
    }

    /// Has the version manager install `edit`, which names them; `flushed` is what readers need no longer
    /// find in memory then. Removes them if no manifest can have the edit.
    pub(crate) async fn install(
        mut self,
        versions: &Mailbox<VersionMessage>,
        edit: VersionEdit,
        flushed: Option<Flushed>,
    ) -> Result<(), InstallFailure> {
        let stopped = |shared: &Shared| InstallFailure::Failed(shared.why_stopped());
        let Ok(permit) = versions.reserve(1).await else { return Err(stopped(&self.shared)) };
        let (reply, answer) = reply();
        let (edit, tables) = (Box::new(edit), self.handles());
        self.may_be_named = true;
        if permit.send(VersionMessage::Install { edit, tables, flushed, reply }).is_err() {
            return Err(stopped(&self.shared));
        }
        let installed = answer.await.unwrap_or_else(|_| Err(stopped(&self.shared)));
        if let Err(InstallFailure::Conflict(_) | InstallFailure::NotInstalled(_)) = &installed {
            self.may_be_named = false;
        }
        installed
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
