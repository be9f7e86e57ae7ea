//! The syncer's loop: take, write, sync, answer.

use super::LogSyncer;
use crate::failure::backoff::{Backoff, LONGEST_NO_SPACE};
use crate::failure::{Failure, Party, WriteFailure};
use crate::group_commit::GroupCommit;
use crate::group_commit::durable::DueReplies;
use crate::log_writer::{AfterTurn, Log, LogState};
use futures::FutureExt;
use sluicedb_kernel::combining::Spent;
use sluicedb_kernel::wake::Hold;
use sluicedb_storage::wal::SealedSegment;
use std::panic::AssertUnwindSafe;

impl LogSyncer {
    /// The loop.
    pub async fn run(self) {
        // A panic is caught here because those who wait for the disk must be told, whatever ended
        // the loop.
        let ended = AssertUnwindSafe(self.serve())
            .catch_unwind()
            .await
            .unwrap_or_else(|panic| Err(Failure::panicked("wal writer", &*panic)));
        if let Err(failure) = &ended {
            // This is final until the next open. After a failed fsync nobody knows what is on the
            // disk, and a second fsync may report success without having written it.
            tracing::error!(%failure, "the log failed; writes have stopped");
            self.failures.fail(failure.clone());
        }
        let why = self.failures.why_stopped();
        self.wal.durable.fail(&why);
        if let Some(reply) = self.wal.take_closing() {
            reply.send(Err(why));
        }
    }

    async fn serve(&self) -> Result<(), Failure> {
        let wal = &*self.wal;
        let mut groups = GroupCommit::new(wal, &wal.durable);
        loop {
            self.wal.due.sync.wait().await;
            loop {
                if self.failures.is_stopped() {
                    return Ok(());
                }
                self.give_up(&mut groups).await;
                if self.wal.is_closing() {
                    let ended = self.end_log(&mut groups).await;
                    if let Some(reply) = self.wal.take_closing() {
                        reply.send(ended.clone());
                    }
                    return ended;
                }
                if !groups.take_due()? {
                    break;
                }
                self.commit_group(&mut groups).await?;
            }
        }
    }

    /// Handles one group: writes it and answers those who wait for that; then, if needed, syncs and
    /// answers the others.
    async fn commit_group(&self, groups: &mut GroupCommit<'_, Log>) -> Result<(), Failure> {
        let written = self.write_group(groups).await?;
        self.answer(written).await;
        if !groups.must_sync(self.put_off_bytes_max()) {
            return Ok(());
        }
        // Segments are retired before anybody learns that they are synced. Whoever then asks the
        // keeper to collect obsolete segments finds them there.
        let synced = groups.sync(|segments| self.retire(segments))?;
        self.wal.counts.log_syncs.add(1);
        self.answer(synced).await;
        Ok(())
    }

    /// With several ranges each flush syncs the log, so nothing would be gained by a delay.
    fn put_off_bytes_max(&self) -> u64 {
        let one_range = self.topology.superversion.load().ranges.len() == 1;
        if one_range { self.environment.config.log_unsynced_bytes_max } else { 0 }
    }

    /// Gives up what is durable in tables and was never synced.
    async fn give_up(&self, groups: &mut GroupCommit<'_, Log>) {
        let durable = groups.give_up_below(self.wal.floor(), |segments| {
            let bytes = segments.iter().map(|segment| segment.bytes).sum();
            self.wal.counts.log_given_up_bytes.add(bytes);
            self.retire(segments);
        });
        self.answer(durable).await;
    }

    /// Hands complete segments to the keeper.
    fn retire(&self, segments: &[SealedSegment]) {
        if !segments.is_empty() {
            self.wal.retire(segments);
            self.wal.due.keeping.set();
        }
    }

    /// Writes the group that was taken. While the disk is full, and the reserve does not help, it
    /// tries again and again. That is safe: nothing of the group was synced, so the same bytes may
    /// be written to the same places any number of times. Meanwhile new writes are refused. Writes
    /// that are in the log are answered: they are visible, but not as durable as was asked. Their
    /// bytes, in this group or appended since, are written and synced once there is room. Any other
    /// failure is final.
    async fn write_group(&self, groups: &mut GroupCommit<'_, Log>) -> Result<DueReplies, Failure> {
        let mut backoff = Backoff::default();
        loop {
            let releases = self.failures.reserve.releases();
            let failure = match groups.write() {
                Ok(written) => {
                    if !backoff.is_fresh() {
                        self.wal.with_log(LogState::resume)?;
                        self.failures.recover(Party::LogWrites);
                    }
                    return Ok(written);
                }
                Err(failure @ Failure::NoSpace(_)) => failure,
                Err(failure) => return Err(failure),
            };
            // A flush may have made room: obsolete segments.
            self.give_up(groups).await;
            // The reserve's space may let the next attempt succeed.
            if self.failures.use_reserve(&failure, releases) {
                continue;
            }
            tracing::warn!(%failure, "the log cannot be written");
            self.failures.attempts.retries.add(1);
            self.failures.degrade(Party::LogWrites, failure.clone());
            let mut after = AfterTurn::default();
            self.wal.with_log(|state| state.refuse_for_now(&failure, &mut after))?;
            after.run(&self.wal.due, &mut Spent::default());
            // Newcomers have been refused before this, so it takes everybody who can be waiting.
            groups.owe();
            self.turn_away(self.wal.durable.take_waiting(), &failure).await;
            let pause = backoff.after_failure_at_most(LONGEST_NO_SPACE);
            if self.wal.is_closing()
                || !self.environment.pause(pause, &self.failures).await
                || self.wal.is_closing()
            {
                return Err(failure);
            }
        }
    }

    /// Answers those who wait for the log that they wait in vain for now.
    async fn turn_away(&self, waiting: DueReplies, failure: &Failure) {
        let Some(last) = waiting.iter().map(|(seqno, _)| *seqno).max() else { return };
        let visible = self.topology.visible() >= last
            || self.topology.commits.wait_visible(last.0).await.is_ok();
        for (_, reply) in waiting {
            reply.send(Err(if visible {
                WriteFailure::applied(failure.clone())
            } else {
                WriteFailure::unknown(self.failures.why_stopped())
            }));
        }
    }

    /// Writes and syncs the last groups. The final one is a mark that nothing follows.
    async fn end_log(&self, groups: &mut GroupCommit<'_, Log>) -> Result<(), Failure> {
        groups.take_all()?;
        self.commit_group(groups).await?;
        self.wal.with_log(|state| state.log.append_close_mark())?;
        groups.take_all()?;
        self.commit_group(groups).await
    }

    /// INVARIANT(ack-after-visible): the disk may be ahead of a range owner. The answer waits for
    /// both.
    async fn answer(&self, passed: DueReplies) {
        let Some(last) = passed.last().map(|(last, _)| *last) else { return };
        let failed = self.topology.visible() < last
            && self.topology.commits.wait_visible(last.0).await.is_err();
        // All wakers of a group are called together.
        let _hold = Hold::new();
        if failed {
            let failure = self.failures.why_stopped();
            for (_, reply) in passed {
                reply.send(Err(WriteFailure::unknown(failure.clone())));
            }
            return;
        }
        for (seqno, reply) in passed {
            reply.send(Ok(seqno));
        }
    }
}
