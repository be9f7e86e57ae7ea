//! Tables that a job has written and that no manifest names yet.

use super::Files;
use super::message::{Install, InstallFailure, Installed, VersionMessage, Work};
use sluicedb_kernel::mailbox::Mailbox;
use sluicedb_storage::table::TableMeta;
use sluicedb_storage::version::{SliceMeta, TableHandle, VersionEdit};
use std::sync::Arc;

/// Finished tables, durable under their names. Dropping them removes the files, unless a manifest
/// may name them. So a failed job leaves nothing behind, however often it is tried again.
#[derive(Debug)]
pub(crate) struct Outputs {
    files: Arc<Files>,
    slices: Vec<SliceMeta>,
    may_be_named: bool,
}

impl Outputs {
    /// The tables that a job wrote.
    pub(crate) fn new(files: &Arc<Files>, metas: Vec<TableMeta>) -> Self {
        let slices = metas.into_iter().map(SliceMeta::whole).collect();
        Self { files: Arc::clone(files), slices, may_be_named: false }
    }

    /// The tables as an edit names them: each as a whole.
    pub(crate) fn slices(&self) -> &[SliceMeta] {
        &self.slices
    }

    /// Handles for the version that will name the tables. The tables are opened here, if the table
    /// cache has room, because this thread may wait; so no reader has to. If that fails, a reader
    /// opens them.
    pub(super) fn handles(&self) -> Vec<Arc<TableHandle>> {
        let tables = self.slices.iter().map(|slice| Arc::clone(&slice.table));
        let handles = tables.map(|table| self.files.tables.handle(table));
        handles.inspect(TableHandle::open_early).collect()
    }

    /// A manifest names the tables, or may, so they stay.
    pub(super) fn keep(&mut self) {
        self.may_be_named = true;
    }

    /// Has the version manager install `edit`, which names the tables. `work` is what they replace.
    /// Removes the tables if no manifest can have the edit.
    pub(crate) async fn install(
        mut self,
        versions: &Mailbox<VersionMessage>,
        edit: VersionEdit,
        work: Work,
    ) -> Installed {
        let failures = Arc::clone(&self.files.failures);
        let installed = failures.ask(versions, |reply| {
            let (edit, tables) = (Box::new(edit), self.handles());
            self.may_be_named = true;
            VersionMessage::Install(Install { edit, tables, work, reply })
        });
        let installed = installed.await;
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
            if let Err(error) = self.files.remove(slice.number()) {
                tracing::warn!(%error, "an unused table was left behind; the next open removes it");
            }
        }
    }
}
