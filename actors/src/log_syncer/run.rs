//! The syncer's loop.

use crate::failure::backoff::{Backoff, LONGEST_NO_SPACE};
use crate::failure::{Failure, Party, WriteFailure};
use crate::group_commit::GroupCommit;
use crate::group_commit::durable::Passed;
use crate::kernel::turn::Spent;
use crate::kernel::wake::Hold;
use crate::log_writer::{After, LogState, WalWriter};
use crate::shared::{Counters, Shared};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

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
