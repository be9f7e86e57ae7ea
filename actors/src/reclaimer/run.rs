//! The reclaimer's two loops.

use super::Reclaimer;
use crate::range_owner::state::OverlayState;
use crate::range_owner::{RangeEntry, RangeOwner};
use futures::future::{Either, join, select};
use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// The pause between two rounds over the ranges. It grows while nothing can be done, for example
/// because a scan holds the memory.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Turns that one range gets per round. Each copies about 64 KiB.
const TURNS_PER_ROUND: usize = 32;

/// The result of a look at a range.
#[derive(PartialEq, Eq)]
enum Visit {
    Clean,
    /// It is being written to.
    Busy,
    Stuck,
    Progress,
}

impl Reclaimer {
    /// Runs both loops.
    pub async fn run(self) {
        join(self.reclaim_idle(), self.keep_chunks()).await;
    }

    /// The first touch of a chunk takes milliseconds, and so does freeing it. This loop spares both
    /// to whoever takes a chunk or gives it back (`ChunkPool`), including whoever drops the last
    /// view of memtables that were flushed long ago. When the writes end, the pool gives back what
    /// it kept for them.
    async fn keep_chunks(&self) {
        let memory = &self.memory;
        let called = Arc::downgrade(memory);
        let _attendant = memory.chunks.attend(move || {
            if let Some(memory) = called.upgrade() {
                memory.restock_due.set();
            }
        });
        // Bytes in use when it last looked whether writes go on.
        let mut lent = None;
        while !self.failures.is_stopped() {
            let pause = self.environment.config.rest_after();
            let pause = pause.filter(|_| memory.chunks.is_ample());
            let until = pause.map(|pause| self.environment.now() + pause);
            let idle = pin!(self.environment.until(until));
            if let Either::Left(_) = select(memory.restock_due.wait(), idle).await {
                memory.chunks.restock();
                continue;
            }
            let lent_now = memory.chunks.lent_bytes();
            if lent.replace(lent_now) == Some(lent_now) {
                memory.chunks.trim();
            }
        }
    }

    /// Reclaims in ranges that nobody writes to.
    async fn reclaim_idle(&self) {
        let mut seen = HashMap::new();
        while !self.failures.is_stopped() {
            self.memory.reclaim_due.wait().await;
            let mut pause = PAUSE_MIN;
            loop {
                if !self.environment.pause(pause, &self.failures).await {
                    return;
                }
                let superversion = self.topology.superversion.load_full();
                let looks: Vec<_> = superversion
                    .ranges
                    .iter()
                    .map(|range| {
                        self.look(&range.owner, seen.entry(range.id()).or_insert(u64::MAX))
                    })
                    .collect();
                if seen.len() > superversion.ranges.len() {
                    let live: BTreeSet<_> =
                        superversion.ranges.iter().map(RangeEntry::id).collect();
                    seen.retain(|range, _| live.contains(range));
                }
                // Its memtables may be flushed during the pause.
                drop(superversion);
                if looks.iter().all(|look| *look == Visit::Clean) {
                    break;
                }
                let stuck = !looks.contains(&Visit::Progress);
                pause = if stuck { (pause * 2).min(PAUSE_MAX) } else { PAUSE_MIN };
            }
        }
    }

    fn look(&self, owner: &RangeOwner, seen: &mut u64) -> Visit {
        let batches = owner.sizes.batches();
        if std::mem::replace(seen, batches) != batches {
            return if owner.sizes.has_garbage() { Visit::Busy } else { Visit::Clean };
        }
        let mut look = Visit::Clean;
        for _ in 0..TURNS_PER_ROUND {
            if !owner.sizes.has_garbage() {
                break;
            }
            let visible = self.topology.visible();
            let idle = owner.with_state(|state: &mut OverlayState| state.reclaim_idle(visible));
            owner.give_back(idle.freed);
            if self.memory.chunks.take_restock_due() {
                self.memory.restock_due.set();
            }
            if !idle.progress {
                return Visit::Stuck;
            }
            look = Visit::Progress;
        }
        look
    }
}
