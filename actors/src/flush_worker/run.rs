//! The flush worker's loop: choose ranges, write their tables, sync the log, install. Also what it
//! does when that fails.

use super::state::{Due, ForL0};
use super::{FlushWorker, write};
use crate::admission::pressure::l0_has_room;
use crate::failure::backoff::{LASTING, LONGEST, LONGEST_NO_SPACE};
use crate::failure::{Failure, Party};
use crate::range_owner::{RangeEntry, RangeOwner};
use crate::version_manager::message::{Flushed, InstallFailure, VersionMessage, Work};
use crate::version_manager::outputs::Outputs;
use futures::future::select;
use sluicedb_storage::version::{RangeId, VersionEdit};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

type Next = super::state::Next<Arc<RangeOwner>>;

impl FlushWorker {
    /// The loop.
    pub async fn run(mut self) {
        while !self.failures.is_stopped() {
            let Due { group, until, for_l0 } = self.look();
            if !for_l0.is_empty() {
                // A full L0 reaches writers as full accounts.
                self.due.compaction.set();
            }
            self.see_to_stuck(for_l0).await;
            if group.is_empty() {
                self.wait(until).await;
            } else {
                self.flush(group).await;
            }
        }
    }

    fn look(&mut self) -> Due<Arc<RangeOwner>> {
        let superversion = self.topology.superversion.load_full();
        let now = self.environment.now();
        if self.failures.attempts.is_asked(&mut self.asked) {
            self.retries.try_now(now);
            // The caller who asked is told again.
            self.stuck.clear();
        }
        let config = &self.environment.config;
        let bytes_max = config.flush_group_bytes();
        self.retries.due(&superversion, now, |range| l0_has_room(range, config), bytes_max)
    }

    /// For each range that waits for room in L0: can room come? If the tables of a range without
    /// room cannot be merged, the ranges that wait for it cannot be flushed either, and the failure
    /// of the merge is the reason.
    async fn see_to_stuck(&mut self, for_l0: Vec<ForL0>) {
        let stuck = for_l0.into_iter().filter_map(|ForL0 { range, full, memtables }| {
            let mut full = full.into_iter();
            let why = full.find_map(|range| self.failures.trouble(Party::Compaction, range))?;
            Some((range, memtables, why))
        });
        let stuck: Vec<_> = stuck.collect();
        let now: BTreeSet<_> = stuck.iter().map(|(range, ..)| *range).collect();
        for range in self.stuck.difference(&now) {
            self.failures.recover(Party::Flush.of(*range));
        }
        let before = std::mem::replace(&mut self.stuck, now);
        for (range, memtables, failure) in stuck {
            if !before.contains(&range) {
                self.failures.degrade(Party::Flush.of(range), failure.clone());
                self.failed(range, memtables, failure).await;
            }
        }
    }

    /// Tells the version manager that `range` cannot be flushed for now. Otherwise those who wait
    /// for room would count on the flush.
    async fn failed(&self, range: RangeId, memtables: Vec<u64>, failure: Failure) {
        // Waits for a place in the mailbox.
        if let Ok(permit) = self.versions.reserve(1).await {
            // If the mailbox is closed, nobody waits for a flush any more.
            let _ = permit.send(VersionMessage::FlushFailed { range, memtables, failure });
        }
    }

    /// Waits until a memtable is frozen, a version changes, the engine stops, or `until`.
    async fn wait(&self, until: Option<Instant>) {
        select(self.due.flush.wait(), pin!(self.environment.until(until))).await;
    }

    /// Writes frozen memtables as L0 tables and installs them. What could not be written, or was
    /// not installed, is tried again.
    async fn flush(&mut self, group: Vec<Next>) {
        let releases = self.failures.reserve.releases();
        let (mut written, mut failed) = (Vec::with_capacity(group.len()), Vec::new());
        for next in group {
            match write::write(&self.files, &next.ranges, &next.frozen) {
                Ok(tables) => written.push((next, tables)),
                Err(failure) => {
                    // The others are due again. What is written may be installed before that.
                    failed.push((next, failure));
                    break;
                }
            }
        }
        failed.extend(self.install(written).await);
        // Counted once: one sync that failed may have failed all of them.
        let ends = failed.first().is_some_and(|(_, failure)| self.failures.job_failed(failure));
        if ends || self.failures.is_stopped() {
            return;
        }
        for (next, failure) in failed {
            self.try_again(&next, failure, releases).await;
        }
    }

    /// Installs the tables of these flushes. Returns those that were not installed. One sync of the
    /// log is enough for all of them, and a few of the manifest.
    async fn install(&mut self, written: Vec<(Next, Outputs)>) -> Vec<(Next, Failure)> {
        if let Err(failure) = self.before_install(&written).await {
            let all = written.into_iter();
            return all.map(|(next, _)| (next, failure.clone())).collect();
        }
        let mut begun = Vec::with_capacity(written.len());
        for (next, tables) in written {
            let memtables = next.frozen.iter().map(|table| table.id()).collect();
            // All ranges of a memtable belong to one keyspace.
            let flushed = Flushed { keyspace: next.ranges[0].stable.keyspace, memtables };
            let (edit, work) = (VersionEdit::default(), Work::Flushed(flushed));
            begun.push((next, tables.begin_install(&self.versions, edit, work).await));
        }
        let mut failed = Vec::new();
        for (next, begun) in begun {
            let installed = match begun {
                Ok(begun) => begun.ended().await,
                Err(failure) => Err(failure),
            };
            match installed {
                Ok(()) => {
                    for range in &next.ranges {
                        self.retries.succeeded(range.id());
                    }
                    self.failures.attempts.job_succeeded();
                }
                Err(InstallFailure::NotInstalled(failure) | InstallFailure::Failed(failure)) => {
                    failed.push((next, failure));
                }
                Err(InstallFailure::Conflict(what)) => {
                    unreachable!("a flush adds to L0 and removes nothing, yet: {what}")
                }
            }
        }
        failed
    }

    /// Waits until the entries of these tables are visible, and the log is durable up to them.
    async fn before_install(&self, written: &[(Next, Outputs)]) -> Result<(), Failure> {
        let frozen = written.iter().flat_map(|(next, _)| &next.frozen);
        let Some(last) = frozen.filter_map(|table| table.last_seqno()).max() else {
            return Ok(());
        };
        // Tables hold only visible entries, so readers need no filter on them.
        if self.topology.commits.wait_visible(last.0).await.is_err() {
            return Err(self.failures.why_stopped());
        }
        // INVARIANT(log-before-table): the tables of one range hold parts of batches. Other parts
        // of these batches, and older batches of other ranges, are only in the log. If the tables
        // were durable and the log were not, a power cut would leave half a batch, or a later write
        // without an earlier one. The tables of a single range are a prefix of all writes by
        // themselves.
        if self.topology.superversion.load_full().ranges.len() > 1 {
            self.wal.sync().await?;
        }
        Ok(())
    }

    /// Arranges another attempt: the memtables stay readable, and keep their charge, until their
    /// tables are published. All ranges that share the memtables have failed, so that whoever waits
    /// for any of them is told. `releases` is the count of the reserve's releases before the
    /// attempt.
    async fn try_again(&mut self, next: &Next, failure: Failure, releases: u64) {
        if self.failures.use_reserve(&failure, releases) {
            // The flush is still due, and has more space now.
            return;
        }
        let ranges: Vec<_> = next.ranges.iter().map(RangeEntry::id).collect();
        let now = self.environment.now();
        let longest = if failure.is_no_space() { LONGEST_NO_SPACE } else { LONGEST };
        let pauses = ranges.iter().map(|range| self.retries.failed(*range, now, longest));
        let pause = pauses.max().expect("a memtable is of a range");
        // Unlike a log sync, this is sound to repeat: the data is still in memory, and the next
        // attempt uses fresh file numbers (INVARIANT(never-reuse-a-file-number)).
        tracing::warn!(range = %next.range, %failure, ?pause, "a flush failed; it is tried again");
        self.failures.attempts.retries.add(1);
        // Waiting writers are not refused because of a failure that may be over in a moment.
        let lasting = failure.is_no_space() || pause >= LASTING;
        if lasting {
            // L0 need not wait for this flush any longer.
            self.due.compaction.set();
        }
        for range in ranges {
            if lasting {
                self.failures.degrade(Party::Flush.of(range), failure.clone());
                if self.topology.superversion.load().range(range).is_none() {
                    // The range is gone. Whichever range has its memtables now is due.
                    self.failures.recover(Party::Flush.of(range));
                }
            }
            let memtables = next.frozen.iter().map(|table| table.id()).collect();
            self.failed(range, memtables, failure.clone()).await;
        }
    }
}
