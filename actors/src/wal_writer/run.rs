//! The WAL writer's two threads: one syncs, one keeps spare segments ready and removes old ones.

use super::{After, LogState, SpareWanted, WalWriter, Way};
use crate::backoff::{Backoff, LONGEST_NO_SPACE};
use crate::failure::{Failure, Party, WriteFailure};
use crate::group_commit::GroupCommit;
use crate::group_commit::durable::Passed;
use crate::kernel::mailbox::Mailbox;
use crate::kernel::turn::Spent;
use crate::kernel::wake::Hold;
use crate::shared::{Counters, Shared};
use crate::space::RESERVE_BYTES_MIN;
use crate::version_manager::message::VersionMessage;
use futures::FutureExt;
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::wal::{
    LogIdentity, SealedSegment, allocate_spare, prepare_spare, recycle, remove,
    segment_bytes_needed,
};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Obsolete segments that are kept for recycling, if there is room for them, beside the spare that is
/// ready.
const RECYCLED_MIN: usize = 2;
/// Segments that are kept for recycling have at most so many write buffers of bytes.
const RECYCLED_WRITE_BUFFERS_MAX: u64 = 2;

/// Segments that nothing needs any more and that are kept to be recycled: as many as were used up
/// between the last two times that some became obsolete, because as many will be wanted until the next
/// time, and zeroing one writes all of it. Their bytes are bounded by the write buffer: who gives the
/// database little memory does not want it to keep much disk.
#[derive(Default)]
struct Recycling {
    obsolete: Vec<SealedSegment>,
    prepared_since: usize,
    kept_max: usize,
}

impl Recycling {
    fn add(&mut self, retired: Vec<SealedSegment>) {
        if !retired.is_empty() {
            self.kept_max = std::mem::take(&mut self.prepared_since);
            self.obsolete.extend(retired);
        }
    }

    /// One of this size, if there is one.
    fn take(&mut self, bytes: u64) -> Option<SealedSegment> {
        let index = self.obsolete.iter().position(|old| old.bytes == bytes)?;
        Some(self.obsolete.swap_remove(index))
    }

    /// What is too much, and what is not of the usual size. One segment may stay in any case.
    fn take_surplus(&mut self, usual_bytes: u64, bytes_max: u64) -> Vec<SealedSegment> {
        let (keep, mut surplus): (Vec<_>, Vec<_>) = std::mem::take(&mut self.obsolete)
            .into_iter()
            .partition(|old| old.bytes == usual_bytes);
        self.obsolete = keep;
        let fitting = (bytes_max / usual_bytes).max(1) as usize;
        let kept = self.kept_max.max(RECYCLED_MIN).min(fitting);
        let more = self.obsolete.len().saturating_sub(kept);
        surplus.extend(self.obsolete.drain(..more));
        surplus
    }
}

/// Writes and syncs what is staged, whenever somebody waits for it. One `fdatasync` answers
/// everybody who was appended before it began, while the next group forms behind it.
pub async fn sync_loop(shared: Arc<Shared>, wal: Arc<WalWriter>) {
    // Caught here, not above: those who wait for the disk have to be told, whatever ended this.
    let ended = AssertUnwindSafe(serve_syncs(&shared, &wal))
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(Failure::panicked("wal writer", &*panic)));
    if let Err(failure) = &ended {
        // Final for this incarnation: after a failed fsync nobody knows what is on disk, and asking
        // again would be answered wrongly.
        tracing::error!(%failure, "the log failed; writes have stopped");
        shared.fail(failure.clone());
    }
    let why = shared.why_stopped();
    wal.durable.fail(&why);
    if let Some(reply) = wal.take_closing() {
        reply.send(Err(why));
    }
}

async fn serve_syncs(shared: &Shared, wal: &WalWriter) -> Result<(), Failure> {
    let mut groups = GroupCommit::new(wal, &wal.durable);
    loop {
        shared.log_due.wait().await;
        loop {
            if shared.is_stopped() {
                return Ok(());
            }
            if wal.is_closing() {
                let ended = end_log(shared, wal, &mut groups).await;
                if let Some(reply) = wal.take_closing() {
                    reply.send(ended.clone());
                }
                return ended;
            }
            if !groups.take_due()? {
                break;
            }
            commit_group(shared, wal, &mut groups).await?;
        }
    }
}

/// One group: write, tell those who wait for that; if need be sync, and tell the others.
async fn commit_group(
    shared: &Shared,
    wal: &WalWriter,
    groups: &mut GroupCommit<'_, WalWriter>,
) -> Result<(), Failure> {
    let written = write_group(shared, wal, groups).await?;
    answer(shared, written).await;
    if !groups.must_sync() {
        return Ok(());
    }
    if groups.has_left_segment() {
        // Its successor is in use: time for another spare.
        shared.log_keeping_due.set();
    }
    // Retired before anybody learns that it is synced: who asks for obsolete segments to be collected
    // then finds these among them.
    let synced = groups.sync(|sealed| {
        if !sealed.is_empty() {
            wal.retire(sealed);
            shared.log_keeping_due.set();
        }
    })?;
    Counters::add(&shared.counters.log_syncs, 1);
    answer(shared, synced).await;
    Ok(())
}

/// Writes the group that was taken. While the disk is full, and the reserve does not make up for it, it is tried
/// again and again: nothing of it
/// was synced, so the same bytes may be written to the same places as often as it takes. Meanwhile new
/// writes are refused; those in the log are told that they are visible and not as durable as was asked,
/// and are written when there is room. Any other failure is final.
async fn write_group(
    shared: &Shared,
    wal: &WalWriter,
    groups: &mut GroupCommit<'_, WalWriter>,
) -> Result<Passed, Failure> {
    let mut backoff = Backoff::default();
    loop {
        let failure = match groups.write() {
            Ok(written) => {
                if !backoff.is_fresh() {
                    wal.with_log(LogState::resume)?;
                    shared.recover(Party::LogWrites);
                }
                return Ok(written);
            }
            Err(failure @ Failure::NoSpace(_)) => failure,
            Err(failure) => return Err(failure),
        };
        // With what that gives back the next attempt may succeed.
        if shared.use_reserve(&failure) {
            continue;
        }
        tracing::warn!(%failure, "the log cannot be written");
        Counters::add(&shared.counters.job_retries, 1);
        shared.degrade(Party::LogWrites, failure.clone());
        let mut after = After::default();
        wal.with_log(|state| state.refuse_for_now(&failure, &mut after))?;
        after.run(shared, &mut Spent::default());
        // Registered before newcomers were refused: everybody who can be waiting.
        turn_away(shared, wal.durable.take_waiting(), &failure).await;
        let pause = backoff.after_failure_at_most(LONGEST_NO_SPACE);
        if wal.is_closing() || !shared.pause(pause).await || wal.is_closing() {
            return Err(failure);
        }
    }
}

/// Tells those who waited for the log that they do so in vain for now.
async fn turn_away(shared: &Shared, waiting: Passed, failure: &Failure) {
    let Some(last) = waiting.iter().map(|(seqno, _)| *seqno).max() else { return };
    let visible = shared.visible() >= last || shared.commits.wait_visible(last).await.is_ok();
    for (_, reply) in waiting {
        reply.send(Err(if visible {
            WriteFailure::applied(failure.clone())
        } else {
            WriteFailure::unknown(shared.why_stopped())
        }));
    }
}

/// The last group: with a mark that says nothing follows.
async fn end_log(
    shared: &Shared,
    wal: &WalWriter,
    groups: &mut GroupCommit<'_, WalWriter>,
) -> Result<(), Failure> {
    groups.take_all()?;
    commit_group(shared, wal, groups).await?;
    wal.with_log(|state| state.log.append_close_mark())?;
    groups.take_all()?;
    commit_group(shared, wal, groups).await
}

/// INVARIANT(ack-after-visible): the disk may be ahead of a range owner; the answer waits for both.
async fn answer(shared: &Shared, passed: Passed) {
    let Some(last) = passed.last().map(|(last, _)| *last) else { return };
    let failed = shared.visible() < last && shared.commits.wait_visible(last).await.is_err();
    // All wakers of a group at once.
    let _hold = Hold::new();
    if failed {
        let failure = shared.why_stopped();
        for (_, reply) in passed {
            reply.send(Err(WriteFailure::unknown(failure.clone())));
        }
        return;
    }
    for (seqno, reply) in passed {
        reply.send(Ok(seqno));
    }
}

/// Keeps a spare segment ready and recycles or removes segments that nothing needs.
/// `obsolete` are segments of the log before the last open. Tells the version manager when the log
/// has grown.
pub async fn keep_loop(
    shared: Arc<Shared>,
    wal: Arc<WalWriter>,
    versions: Mailbox<VersionMessage>,
    obsolete: Vec<SealedSegment>,
) {
    // Caught here, not above: whatever ended this, no segment comes any more, and those who wait for
    // one, or will, have to be told.
    let kept = keep_segments(&shared, &wal, &versions, obsolete);
    let ended = AssertUnwindSafe(kept).catch_unwind().await;
    if let Err(panic) = ended {
        shared.fail(Failure::panicked("log keeper", &*panic));
    }
    let mut after = After::default();
    // A failed seat has dropped what was queued, and that was an answer.
    let _ = wal.with_log(|state| state.close(shared.why_stopped(), &mut after));
    after.run(&shared, &mut Spent::default());
}

async fn keep_segments(
    shared: &Shared,
    wal: &WalWriter,
    versions: &Mailbox<VersionMessage>,
    obsolete: Vec<SealedSegment>,
) {
    let mut recycling = Recycling { obsolete, ..Recycling::default() };
    let mut told = 0;
    let mut backoff = Backoff::default();
    while !shared.is_stopped() {
        // A failed seat has failed the engine; the next round ends the loop.
        let Ok(wanted) = wal.with_log(|state| state.spare_wanted()) else { return };
        let waiting = wal.take_collecting();
        let retained = collect(shared, wal, &mut recycling);
        for reply in waiting {
            reply.send(());
        }
        // More is retained, or a good part of a segment was written since the last one. Not if the
        // mailbox is full: then the manager is about to look by itself.
        if (retained > told || wanted.is_some())
            && let Ok(permit) = versions.try_reserve(1)
        {
            // Closed: nobody seals anything any more.
            let _ = permit.send(VersionMessage::LogGrown);
        }
        told = retained;
        let Some(wanted) = wanted else {
            shared.log_keeping_due.wait().await;
            continue;
        };
        match prepare(shared, wal, &mut recycling, wanted) {
            Ok(()) => backoff.reset(),
            // With what that gives back the next attempt may succeed.
            Err(failure) if shared.use_reserve(&failure) => {}
            Err(failure) => {
                tracing::warn!(%failure, "no log segment can be prepared");
                Counters::add(&shared.counters.job_retries, 1);
                shared.degrade(Party::Log, failure.clone());
                let mut after = After::default();
                let refused = wal.with_log(|state| state.refuse_room(&failure, &mut after));
                after.run(shared, &mut Spent::default());
                let pause = backoff.after_failure_at_most(LONGEST_NO_SPACE);
                if refused.is_err() || !shared.pause(pause).await {
                    return;
                }
            }
        }
    }
}

/// Makes one spare segment and gives it to the log.
fn prepare(
    shared: &Shared,
    wal: &WalWriter,
    recycling: &mut Recycling,
    wanted: SpareWanted,
) -> Result<(), Failure> {
    let config = &shared.config;
    let needed = segment_bytes_needed(wanted.payload_bytes);
    let bytes = config.log_segment_bytes.max(needed);
    let number = shared.file_numbers.take();
    let identity = LogIdentity { db_id: shared.db_id };
    let spare = if let Some(old) = recycling.take(bytes) {
        recycle(&shared.vfs, &config.dir, &identity, &old, number, config.log_mapped)?
    } else {
        // While the reserve is in use there are deletes to log, and no room to waste.
        let spent = shared.reserve.is_spent();
        let bytes = if spent { needed.max(RESERVE_BYTES_MIN) } else { bytes };
        let make = if wanted.soon { allocate_spare } else { prepare_spare };
        make(&shared.vfs, &config.dir, &identity, number, bytes, config.log_mapped)?
    };
    recycling.prepared_since += 1;
    let mut after = After::default();
    let (commits, superversion) = (&shared.commits, &shared.superversion);
    let way = Way { commits, superversion, durable: &wal.durable };
    wal.with_log(|state| state.add_spare(spare, way, &mut after))?;
    shared.recover(Party::Log);
    after.run(shared, &mut Spent::default());
    Ok(())
}

/// Takes segments below the durable floor out of the log: some are kept for recycling, the rest is
/// removed (INVARIANT(watermark-at-seal): the floor is the version manager's). Returns the bytes of
/// closed segments that stay.
fn collect(shared: &Shared, wal: &WalWriter, recycling: &mut Recycling) -> u64 {
    let floor = FileNumber(shared.log_floor.load(Ordering::Acquire));
    recycling.add(wal.take_retired_below(floor));
    // A failed seat has failed the engine; nobody asks for segments any more.
    let segments = wal.with_log(|state| {
        state.forget_segments_below(floor);
        (state.segment_count() as u64, state.retained_bytes(floor))
    });
    let (segments, retained) = segments.unwrap_or_default();
    shared.counters.log_segments.store(segments, Ordering::Relaxed);
    shared.counters.log_retained_bytes.store(retained, Ordering::Relaxed);
    // Oversized ones, and the small first one, are of no further use.
    let bytes_max = RECYCLED_WRITE_BUFFERS_MAX * shared.config.write_buffer_bytes as u64;
    for old in recycling.take_surplus(shared.config.log_segment_bytes, bytes_max) {
        if let Err(error) = remove(&shared.vfs, &old) {
            // The next open removes it.
            tracing::warn!(%error, "an old log segment was left behind");
        }
    }
    retained
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicedb_storage::key::Seqno;

    const MANY: u64 = u64::MAX;

    fn segments(numbers: std::ops::Range<u64>, bytes: u64) -> Vec<SealedSegment> {
        let seqno = Seqno::ZERO;
        let segment = |number| SealedSegment {
            number: FileNumber(number),
            path: format!("{number}.wal").into(),
            first_seqno: seqno,
            last_seqno: seqno,
            bytes,
        };
        numbers.map(segment).collect()
    }

    /// Planted: `kept_max` that only rises; one that is not kept at all.
    #[test]
    fn as_many_segments_are_kept_as_were_used_up_before() {
        let mut recycling = Recycling { prepared_since: 5, ..Recycling::default() };
        recycling.add(segments(1..7, 64));
        assert_eq!(recycling.take_surplus(64, MANY).len(), 1);
        recycling.add(Vec::new());
        assert_eq!(
            recycling.take_surplus(64, MANY).len(),
            0,
            "nothing became obsolete: the rule stays"
        );
        assert!(recycling.take(64).is_some() && recycling.take(32).is_none());
        recycling.prepared_since += 1;
        recycling.add(segments(7..8, 64));
        assert_eq!(recycling.take_surplus(64, MANY).len(), 3, "two stay in any case");
        recycling.add(segments(8..9, 32));
        assert_eq!(recycling.take_surplus(64, MANY).len(), 1, "the wrong size is of no use");
        assert_eq!(recycling.obsolete.len(), RECYCLED_MIN);
    }

    /// Planted: no bound in bytes; one in segments of any size.
    #[test]
    fn o6_segments_kept_for_recycling_are_bounded_in_bytes() {
        let mut recycling = Recycling { prepared_since: 100, ..Recycling::default() };
        recycling.add(segments(1..101, 64));
        assert_eq!(recycling.take_surplus(64, MANY).len(), 0, "as many as were used up");
        assert_eq!(recycling.take_surplus(64, 64 * 12 + 63).len(), 88);
        assert_eq!(recycling.take_surplus(64, 64).len(), 11);
        assert_eq!(recycling.take_surplus(64, 1).len(), 0, "one stays");
    }
}
