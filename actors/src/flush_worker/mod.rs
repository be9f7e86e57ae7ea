//! The flush worker: frozen memtables become L0 tables.
//!
//! Owns:      the tables it is writing.
//! Receives:  Flush, from the version manager.
//! Sends:     Install and FlushFailed to the version manager.
//! Publishes: nothing.
//! Stops:     when its mailbox is closed, or the engine has failed.

pub mod message;
mod run;

use crate::failure::Failure;
use crate::kernel::mailbox::{Inbox, Mailbox};
use crate::kernel::reply::reply;
use crate::shared::{Counters, Shared};
use crate::version_manager::message::{Flushed, InstallFailure, VersionMessage};
use message::FlushMessage;
use sluicedb_storage::memtable::Memtable;
use sluicedb_storage::version::{RangeId, VersionEdit};
use std::sync::Arc;
use std::time::Duration;

/// First pause after a failure, and the longest one.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// On a full disk: writers wait for it to be seen that there is room again.
const BACKOFF_NO_SPACE_MAX: Duration = Duration::from_millis(500);

/// The actor. Driven by a thread of its own: it writes tables.
#[derive(Debug)]
pub struct FlushWorker {
    shared: Arc<Shared>,
    inbox: Inbox<FlushMessage>,
    versions: Mailbox<VersionMessage>,
}

impl FlushWorker {
    /// A worker that installs through `versions`.
    pub fn new(
        shared: Arc<Shared>,
        inbox: Inbox<FlushMessage>,
        versions: Mailbox<VersionMessage>,
    ) -> Self {
        Self { shared, inbox, versions }
    }

    /// The loop.
    pub async fn run(mut self) {
        while let Some(FlushMessage::Flush { range }) = self.inbox.recv().await {
            while let Some(sealed) = self.frozen(range) {
                if !self.flush(range, &sealed).await {
                    return;
                }
            }
        }
    }

    /// All frozen memtables of the range, newest first. They are flushed together: entries that a
    /// newer one overwrites are never written.
    fn frozen(&self, range: RangeId) -> Option<Vec<Arc<Memtable>>> {
        let catalog = self.shared.catalog.load_full();
        let overlay =
            catalog.superversion.overlays.iter().find(|overlay| overlay.range == range)?;
        let frozen: Vec<_> =
            overlay.sealed.iter().filter(|table| table.is_frozen()).map(Arc::clone).collect();
        if frozen.is_empty() { None } else { Some(frozen) }
    }

    /// Writes `sealed` as L0 tables and installs them, however often it takes. False: stop.
    async fn flush(&self, range: RangeId, sealed: &[Arc<Memtable>]) -> bool {
        let mut backoff = BACKOFF_MIN;
        loop {
            if !self.l0_room(range).await {
                return false;
            }
            let Err(failure) = self.try_flush(range, sealed).await else {
                return true;
            };
            if self.shared.is_stopped() {
                return false;
            }
            // Sound to repeat, unlike a log sync: the source of the data is still in memory, and a
            // fresh file number is used.
            tracing::warn!(%failure, ?backoff, "a flush failed and will be tried again");
            Counters::add(&self.shared.counters.job_retries, 1);
            let mut longest = BACKOFF_MAX;
            if matches!(failure, Failure::NoSpace(_)) {
                longest = BACKOFF_NO_SPACE_MAX;
                self.shared.health.degrade(failure.clone());
            }
            if let Ok(permit) = self.versions.try_reserve(1) {
                // Closed: nobody waits for a flush any more.
                let _ = permit.send(VersionMessage::FlushFailed { failure });
            }
            backoff = backoff.min(longest);
            let until = self.shared.runtime.now() + backoff;
            if !self.shared.pause(until).await {
                return false;
            }
            backoff *= 2;
        }
    }

    async fn try_flush(&self, range: RangeId, sealed: &[Arc<Memtable>]) -> Result<(), Failure> {
        let written = run::write(&self.shared, sealed)?;
        let last = sealed.iter().filter_map(|table| table.last_seqno()).max();
        let last = last.expect("empty memtables are never sealed");
        // Tables hold only what is visible, so that readers need no filter on them.
        if self.shared.commits.wait_visible(last).await.is_err() {
            return Err(self.shared.why_stopped());
        }
        let mut edit = VersionEdit::default();
        for table in &written {
            edit.added.push((range, 0, table.meta().clone()));
        }
        edit.flushed.push((range, last));
        let flushed = Flushed { range, memtables: sealed.iter().map(|table| table.id()).collect() };
        let (reply, answer) = reply();
        let permit = self.versions.reserve(1).await.map_err(|_| self.shared.why_stopped())?;
        let tables = written;
        let message = VersionMessage::Install { edit, tables, flushed: Some(flushed), reply };
        permit.send(message).map_err(|_| self.shared.why_stopped())?;
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(InstallFailure::Failed(failure))) => Err(failure),
            Ok(Err(InstallFailure::Conflict(what))) => {
                unreachable!("a flush adds to L0 and removes nothing, yet: {what}")
            }
            Err(_) => Err(self.shared.why_stopped()),
        }
    }

    /// Waits until L0 has room for another table. The wait is felt upstream as full accounts.
    async fn l0_room(&self, range: RangeId) -> bool {
        loop {
            if self.shared.is_stopped() {
                return false;
            }
            let catalog = self.shared.catalog.load_full();
            let version = &catalog.superversion.version;
            let tables = version.range(range).map_or(0, |range| range.l0.len());
            if tables < self.shared.config.l0_tables_max {
                return true;
            }
            drop(catalog);
            self.shared.compaction_due.set();
            self.shared.l0_changed.wait().await;
        }
    }
}
