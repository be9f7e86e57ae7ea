//! Tables that a job has written and that no manifest names yet.

use super::Files;
use super::message::{Install, InstallFailure, Installed, VersionMessage, Work};
use sluicedb_kernel::mailbox::Mailbox;
use sluicedb_kernel::reply::Answer;
use sluicedb_storage::table::TableMeta;
use sluicedb_storage::version::{SliceMeta, TableHandle, VersionEdit};
use std::sync::Arc;

/// Finished tables, durable under their names. Dropping them removes the files, unless a manifest
/// may name them. So a failed job leaves nothing behind, however often it is tried again.
#[derive(Debug)]
pub(crate) struct Outputs {
    files: Arc<Files>,
    slices: Vec<SliceMeta>,
    handles: Vec<Arc<TableHandle>>,
    may_be_named: bool,
}

impl Outputs {
    /// The tables that a job wrote. They are opened here, if the table cache has room, because this
    /// thread may wait; so no reader has to. If that fails, a reader opens them.
    pub(crate) fn new(files: &Arc<Files>, metas: Vec<TableMeta>) -> Self {
        let slices: Vec<_> = metas.into_iter().map(SliceMeta::whole).collect();
        let tables = slices.iter().map(|slice| Arc::clone(&slice.table));
        let handles = tables.map(|table| files.tables.handle(table));
        let handles = handles.inspect(TableHandle::open_early).collect();
        Self { files: Arc::clone(files), slices, handles, may_be_named: false }
    }

    /// The tables as an edit names them: each as a whole.
    pub(crate) fn slices(&self) -> &[SliceMeta] {
        &self.slices
    }

    /// Handles for the version that will name the tables.
    pub(super) fn handles(&self) -> Vec<Arc<TableHandle>> {
        self.handles.clone()
    }

    /// A manifest names the tables, or may, so they stay.
    pub(super) fn keep(&mut self) {
        self.may_be_named = true;
    }

    /// Has the version manager install `edit`, which names the tables. `work` is what they replace.
    /// Removes the tables if no manifest can have the edit.
    pub(crate) async fn install(
        self,
        versions: &Mailbox<VersionMessage>,
        edit: VersionEdit,
        work: Work,
    ) -> Installed {
        self.begin_install(versions, edit, work).await?.ended().await
    }

    /// As `install`, but does not wait for the end. Installs that are begun together share a sync.
    pub(crate) async fn begin_install(
        mut self,
        versions: &Mailbox<VersionMessage>,
        edit: VersionEdit,
        work: Work,
    ) -> Result<Begun, InstallFailure> {
        let failures = Arc::clone(&self.files.failures);
        let answer = failures.begin_to_ask(versions, |reply| {
            let (edit, tables) = (Box::new(edit), self.handles());
            self.may_be_named = true;
            VersionMessage::Install(Install { edit, tables, work, reply })
        });
        Ok(Begun { answer: answer.await?, outputs: self })
    }
}

/// An install that the version manager was asked for.
#[derive(Debug)]
pub(crate) struct Begun {
    answer: Answer<Installed>,
    outputs: Outputs,
}

impl Begun {
    /// Waits for the end.
    pub(crate) async fn ended(mut self) -> Installed {
        let installed = self.outputs.files.failures.answered(self.answer).await;
        if let Err(InstallFailure::Conflict(_) | InstallFailure::NotInstalled(_)) = &installed {
            self.outputs.may_be_named = false;
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
