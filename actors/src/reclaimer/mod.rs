//! The tender: sees to overwritten entries of ranges that nobody writes to any more, and to it that those
//! who are written to find memory. Frees what nobody needs any more.
//!
//! Owns:      nothing.
//! Receives:  `tending_due` and `upkeep_due`, from range owners; the latter also from whoever drops a
//!            memtable.
//! Sends:     nothing; runs range owners' seats as their caller.
//! Publishes: nothing.
//! Stops:     when the engine has stopped.
//!
//! While a range is written to, its writers do this work by the way, a little with each batch; without
//! the tender a compaction that is under way when they stop would keep up to twice its memory for ever.

use crate::range_owner::RangeOwner;
use crate::range_owner::state::OverlayState;
use crate::shared::Shared;
use futures::future::join;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Between two rounds over the ranges; longer while nothing can be done (a scan holds the memory).
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Turns that one range gets in a round, each about 64 KiB of copying.
const TURNS_PER_ROUND: usize = 32;

/// What a look at a range has shown.
#[derive(PartialEq, Eq)]
enum Look {
    Tidy,
    /// Its writers are at work.
    Busy,
    Stuck,
    Progress,
}

/// Both loops.
pub async fn tend(shared: Arc<Shared>) {
    join(tend_idle(Arc::clone(&shared)), keep_chunks(shared)).await;
}

/// The first touch of a chunk takes milliseconds, and so does freeing it. Whoever takes one or puts it
/// back is spared that (`ChunkPool`), also who drops the last view of memtables that were flushed long ago.
async fn keep_chunks(shared: Arc<Shared>) {
    let called = Arc::downgrade(&shared);
    let _attendant = shared.chunks.attend(move || {
        if let Some(shared) = called.upgrade() {
            shared.upkeep_due.set();
        }
    });
    while !shared.is_stopped() {
        shared.upkeep_due.wait().await;
        shared.chunks.upkeep();
    }
}

async fn tend_idle(shared: Arc<Shared>) {
    let mut seen = HashMap::new();
    while !shared.is_stopped() {
        shared.tending_due.wait().await;
        let mut pause = PAUSE_MIN;
        loop {
            if !shared.pause(pause).await {
                return;
            }
            let superversion = shared.superversion.load_full();
            let looks: Vec<_> = superversion
                .ranges
                .iter()
                .map(|range| {
                    look(&shared, &range.owner, seen.entry(range.id()).or_insert(u64::MAX))
                })
                .collect();
            seen.retain(|range, _| superversion.range(*range).is_some());
            // Its memtables may be flushed meanwhile.
            drop(superversion);
            if looks.iter().all(|look| *look == Look::Tidy) {
                break;
            }
            let stuck = !looks.contains(&Look::Progress);
            pause = if stuck { (pause * 2).min(PAUSE_MAX) } else { PAUSE_MIN };
        }
    }
}

fn look(shared: &Shared, owner: &RangeOwner, seen: &mut u64) -> Look {
    let batches = owner.sizes.batches();
    if std::mem::replace(seen, batches) != batches {
        return if owner.sizes.is_untidy() { Look::Busy } else { Look::Tidy };
    }
    let mut look = Look::Tidy;
    for _ in 0..TURNS_PER_ROUND {
        if !owner.sizes.is_untidy() {
            break;
        }
        let visible = shared.visible();
        let idle = owner.with_state(|state: &mut OverlayState| state.tidy_idle(visible));
        owner.give_back(idle.freed);
        if shared.chunks.take_upkeep_due() {
            shared.upkeep_due.set();
        }
        if !idle.progress {
            return Look::Stuck;
        }
        look = Look::Progress;
    }
    look
}
