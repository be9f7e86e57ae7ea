//! The keeper's loop, and its disk work.

use super::state::{RECYCLED_WRITE_BUFFERS_MAX, Recycling};
use crate::failure::backoff::{Backoff, LONGEST_NO_SPACE};
use crate::failure::space::RESERVE_BYTES_MIN;
use crate::failure::{Failure, Party};
use crate::kernel::mailbox::Mailbox;
use crate::kernel::turn::Spent;
use crate::log_writer::{After, SpareWanted, WalWriter, Way};
use crate::shared::{Counters, Shared};
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
    let mut recycling = Recycling::of(obsolete);
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
