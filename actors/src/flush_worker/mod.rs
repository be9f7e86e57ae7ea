//! The flush worker: frozen memtables become L0 tables.
//!
//! Owns:      the tables it is writing, and the choice of the range that comes next.
//! Receives:  the signal that a memtable was frozen, or that a version changed.
//! Sends:     Install and FlushFailed to the version manager.
//! Publishes: nothing.
//! Stops:     when the engine has been shut or has failed.
//!
//! What is due is read off the published overlays, so no request can be lost or queue up: the oldest
//! frozen memtable says which range is next (`state.rs`). One thread serves all ranges, one flush at
//! a time: a flush is bounded by its memtables and by the disk, which a second thread would share,
//! and nothing in here waits for one range while another could be served.

mod run;
mod state;

use crate::backoff::LONGEST_NO_SPACE;
use crate::config::EngineConfig;
use crate::failure::{Failure, Party};
use crate::kernel::mailbox::Mailbox;
use crate::kernel::reply::reply;
use crate::pressure::l0_fullness;
use crate::shared::{Counters, Shared};
use crate::version_manager::message::{Flushed, InstallFailure, VersionMessage};
use crate::wal_writer::WalWriter;
use futures::future::select;
use sluicedb_storage::memtable::Memtable;
use sluicedb_storage::version::{RangeId, Version, VersionEdit};
use state::{Next, Retries};
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

/// The actor. Driven by a thread of its own: it writes tables.
#[derive(Debug)]
pub struct FlushWorker {
    shared: Arc<Shared>,
    wal: Arc<WalWriter>,
    versions: Mailbox<VersionMessage>,
    retries: Retries,
}

impl FlushWorker {
    /// A worker that installs through `versions` what is in `wal`'s log.
    pub fn new(
        shared: Arc<Shared>,
        wal: Arc<WalWriter>,
        versions: Mailbox<VersionMessage>,
    ) -> Self {
        Self { shared, wal, versions, retries: Retries::default() }
    }

    /// The loop.
    pub async fn run(mut self) {
        while !self.shared.is_stopped() {
            match self.next() {
                Next::Flush { range, frozen } => self.flush(range, &frozen).await,
                Next::Wait { until, for_l0 } => {
                    if for_l0 {
                        // Felt upstream as full accounts.
                        self.shared.compaction_due.set();
                    }
                    self.wait(until).await;
                }
            }
        }
    }

    fn next(&self) -> Next {
        let superversion = Arc::clone(&self.shared.catalog.load_full().superversion);
        let version = &superversion.version;
        let now = self.shared.runtime.now();
        self.retries
            .next(&superversion, now, |range| l0_has_room(version, range, &self.shared.config))
    }

    /// Waits until a memtable is frozen, a version changes, the engine stops, or it is `until`.
    async fn wait(&self, until: Option<Instant>) {
        let due = self.shared.flush_due.wait();
        match until {
            None => due.await,
            Some(until) => {
                select(due, pin!(self.shared.runtime.sleep_until(until))).await;
            }
        }
    }

    /// Writes `frozen` as L0 tables and installs them, or arranges for another attempt: the
    /// memtables stay readable, and accounted, until their tables are published.
    async fn flush(&mut self, range: RangeId, frozen: &[Arc<Memtable>]) {
        let Err(failure) = self.try_flush(range, frozen).await else {
            self.retries.succeeded(range);
            return;
        };
        if self.shared.is_stopped() {
            return;
        }
        let full = matches!(failure, Failure::NoSpace(_));
        if full {
            self.shared.degrade(Party::Flush, failure.clone());
        }
        let now = self.shared.runtime.now();
        let pause = self.retries.failed(range, now, full.then_some(LONGEST_NO_SPACE));
        // Sound to repeat, unlike a log sync: the source of the data is still in memory, and fresh
        // file numbers are used (INVARIANT(never-reuse-a-file-number)).
        tracing::warn!(%range, %failure, ?pause, "a flush failed and will be tried again");
        Counters::add(&self.shared.counters.job_retries, 1);
        // Waits for its place: until the version manager knows, those who wait for room would count on
        // this flush.
        if let Ok(permit) = self.versions.reserve(1).await {
            // Closed: nobody waits for a flush any more.
            let _ = permit.send(VersionMessage::FlushFailed { range, failure });
        }
    }

    async fn try_flush(&self, range: RangeId, frozen: &[Arc<Memtable>]) -> Result<(), Failure> {
        let mut written = run::write(&self.shared, range, frozen)?;
        let last = frozen.iter().filter_map(|table| table.last_seqno()).max();
        let last = last.expect("empty memtables are never sealed");
        // Tables hold only what is visible, so that readers need no filter on them.
        if self.shared.commits.wait_visible(last).await.is_err() {
            return Err(self.shared.why_stopped());
        }
        // INVARIANT(log-before-table): the tables of one range hold parts of batches whose other
        // parts, and older batches of other ranges, are only in the log. Were the tables durable
        // and the log not, a power cut would leave half a batch, or a later write without an
        // earlier one. With one range its tables are a prefix of everything by themselves.
        if self.shared.catalog.load_full().owners.len() > 1 {
            self.wal.sync(&self.shared).await?;
        }
        let mut edit = VersionEdit::default();
        for meta in written.metas() {
            edit.added.push((range, 0, meta.clone()));
        }
        edit.flushed.push((range, last));
        let flushed = Flushed { range, memtables: frozen.iter().map(|table| table.id()).collect() };
        let (reply, answer) = reply();
        let permit = self.versions.reserve(1).await.map_err(|_| self.shared.why_stopped())?;
        let tables = written.handles();
        let edit = Box::new(edit);
        let message = VersionMessage::Install { edit, tables, flushed: Some(flushed), reply };
        written.hand_over();
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
}

/// May `range` get the tables of another flush?
pub(crate) fn l0_has_room(version: &Version, range: RangeId, config: &EngineConfig) -> bool {
    version.range(range).is_none_or(|range| l0_fullness(range, config) < 1.0)
}
