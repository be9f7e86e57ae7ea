//! The flush worker's loop: which range, write, sync the log, install; and what is done when that
//! fails.

use super::state::{Due, Next};
use super::{FlushWorker, write};
use crate::admission::pressure::l0_has_room;
use crate::failure::backoff::{LASTING, LONGEST_NO_SPACE};
use crate::failure::{Failure, Party};
use crate::range_owner::RangeOwner;
use crate::version_manager::message::{Flushed, InstallFailure, VersionMessage, Work};
use futures::future::select;
use sluicedb_storage::version::{RangeId, VersionEdit};
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

impl FlushWorker {
    /// The loop.
    pub async fn run(mut self) {
        while !self.failures.is_stopped() {
            let Due { next, until, for_l0 } = self.look();
            if !for_l0.is_empty() {
                // Felt upstream as full accounts.
                self.due.compaction.set();
            }
            self.see_to_stuck(for_l0).await;
            match next {
                Some(next) => self.flush(&next).await,
                None => self.wait(until).await,
            }
        }
    }

    fn look(&mut self) -> Due<Arc<RangeOwner>> {
        let superversion = self.topology.superversion.load_full();
        let now = self.environment.now();
        if self.failures.attempts.is_asked(&mut self.asked) {
            self.retries.try_now(now);
            // Who asked is to be told once more.
            self.stuck.clear();
        }
        self.retries.due(&superversion, now, |range| l0_has_room(range, &self.environment.config))
    }

    /// Says of ranges that wait for room in L0 whether it can come. If it cannot, because their
    /// tables cannot be merged, that is why they cannot be flushed either.
    async fn see_to_stuck(&mut self, for_l0: Vec<(RangeId, Vec<u64>)>) {
        for range in std::mem::take(&mut self.stuck) {
            let waits = for_l0.iter().any(|(waiting, _)| *waiting == range);
            if waits && self.failures.trouble(Party::Compaction, range).is_some() {
                self.stuck.insert(range);
            } else {
                self.failures.recover(Party::Flush.of(range));
            }
        }
        for (range, memtables) in for_l0 {
            if !self.stuck.contains(&range)
                && let Some(failure) = self.failures.trouble(Party::Compaction, range)
            {
                self.stuck.insert(range);
                self.failures.degrade(Party::Flush.of(range), failure.clone());
                self.failed(range, memtables, failure).await;
            }
        }
    }

    /// Tells the version manager that `range` cannot be flushed for now: until it knows, those who
    /// wait for room would count on the flush.
    async fn failed(&self, range: RangeId, memtables: Vec<u64>, failure: Failure) {
        // Waits for its place.
        if let Ok(permit) = self.versions.reserve(1).await {
            // Closed: nobody waits for a flush any more.
            let _ = permit.send(VersionMessage::FlushFailed { range, memtables, failure });
        }
    }

    /// Waits until a memtable is frozen, a version changes, the engine stops, or it is `until`.
    async fn wait(&self, until: Option<Instant>) {
        select(self.due.flush.wait(), pin!(self.environment.until(until))).await;
    }

    /// Writes what is frozen as L0 tables and installs them, or arranges for another attempt: the
    /// memtables stay readable, and accounted, until their tables are published.
    async fn flush(&mut self, next: &Next<Arc<RangeOwner>>) {
        let (range, frozen) = (next.range, &next.frozen);
        let Err(failure) = self.try_flush(next).await else {
            self.retries.succeeded(range);
            self.failures.attempts.job_succeeded();
            return;
        };
        if self.failures.is_stopped() || self.failures.job_failed(&failure) {
            return;
        }
        if self.failures.use_reserve(&failure) {
            // Due still, and with more room.
            return;
        }
        let now = self.environment.now();
        let longest = failure.is_no_space().then_some(LONGEST_NO_SPACE);
        let pause = self.retries.failed(range, now, longest);
        // Sound to repeat, unlike a log sync: the source of the data is still in memory, and fresh
        // file numbers are used (INVARIANT(never-reuse-a-file-number)).
        tracing::warn!(%range, %failure, ?pause, "a flush failed and will be tried again");
        self.failures.attempts.retries.add(1);
        // Writers who wait are not turned away because of something that may be over in a moment.
        if failure.is_no_space() || pause >= LASTING {
            self.failures.degrade(Party::Flush.of(range), failure.clone());
            if self.topology.superversion.load().range(range).is_none() {
                // It has gone meanwhile; whoever has its memtables now is due.
                self.failures.recover(Party::Flush.of(range));
            }
        }
        self.failed(range, frozen.iter().map(|table| table.id()).collect(), failure).await;
    }

    async fn try_flush(
        &self,
        Next { ranges, frozen, .. }: &Next<Arc<RangeOwner>>,
    ) -> Result<(), Failure> {
        let written = write::write(&self.files, ranges, frozen)?;
        let last = frozen.iter().filter_map(|table| table.last_seqno()).max();
        let last = last.expect("empty memtables are never sealed");
        // Tables hold only what is visible, so that readers need no filter on them.
        if self.topology.commits.wait_visible(last.0).await.is_err() {
            return Err(self.failures.why_stopped());
        }
        // INVARIANT(log-before-table): the tables of one range hold parts of batches whose other
        // parts, and older batches of other ranges, are only in the log. Were the tables durable
        // and the log not, a power cut would leave half a batch, or a later write without an
        // earlier one. With one range its tables are a prefix of everything by themselves.
        if self.topology.superversion.load_full().ranges.len() > 1 {
            self.wal.sync().await?;
        }
        let memtables = frozen.iter().map(|table| table.id()).collect();
        // A memtable is of ranges of one keyspace.
        let flushed = Flushed { keyspace: ranges[0].stable.keyspace, memtables };
        let work = Work::Flushed(flushed);
        match written.install(&self.versions, VersionEdit::default(), work).await {
            Ok(()) => Ok(()),
            Err(InstallFailure::NotInstalled(failure) | InstallFailure::Failed(failure)) => {
                Err(failure)
            }
            Err(InstallFailure::Conflict(what)) => {
                unreachable!("a flush adds to L0 and removes nothing, yet: {what}")
            }
        }
    }
}
