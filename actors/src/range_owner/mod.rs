//! A range owner: the only writer of one range's overlay.
//!
//! Owns:      the active memtable of the range, and the charges of the sealed ones. Each batch
//!            reclaims overwritten entries; the reclaimer does it when no batch comes.
//! Receives:  Apply, from the log writer, in log order.
//! Sends:     requests for room (`Requests`), to the version manager, after the seat is free.
//! Publishes: entries, through the sequencer's `visible`.
//! Stops:     never by itself; it has no thread. Its callers run it.

mod memory;
pub mod message;
mod owners;
pub mod route;
mod run;
mod sizes;
pub mod state;
mod topology;

use crate::admission::RangeBudget;
use crate::admission::pressure::{At, RangeMemory, range_fullness};
use crate::admission::waits::{WaitCounts, WaitPlace};
use crate::counter::Counter;
use crate::runtime::jobs::Kick;
pub use memory::Memory;
use message::Requests;
pub use owners::Owners;
pub use run::RangeActor;
pub use sizes::OverlaySizes;
use sluicedb_kernel::combining::CombiningMailbox;
use sluicedb_kernel::semaphore::Semaphore;
use sluicedb_storage::version::RangeId;
use state::{Freed, OverlayState};
use std::sync::Arc;
pub use topology::{RangeEntry, Superversion, Topology};

/// A range owner, as its senders share it.
#[derive(Debug)]
pub struct RangeOwner {
    /// Its id.
    pub id: RangeId,
    /// The local account: bytes in this range's active memtable, and on their way there. A seal
    /// gives them back; a published flush gives back those of the global account.
    pub local: Semaphore,
    /// The overlay behind its seat.
    pub seat: CombiningMailbox<RangeActor>,
    /// Sizes of the overlay.
    pub sizes: Arc<OverlaySizes>,
    /// Limits of the overlay.
    pub budget: RangeBudget,
    /// How often a fresh memtable replaced the active one.
    pub rotations: Counter,
    /// Flushes that were published.
    pub flushes: Counter,
    /// Waits for room in this range.
    pub waits: Arc<WaitCounts>,
    memory: Arc<Memory>,
    global: Semaphore,
    requests: Arc<dyn Requests>,
    /// Wakes the turn thread, which lets the next write ask for a seal again.
    seal_refused: Kick,
}

impl RangeOwner {
    /// Returns charge to the accounts that no entry of this range needs any more.
    pub fn give_back(&self, freed: Freed) {
        if freed != Freed::default() {
            self.local.release(freed.local_bytes);
            self.global.release(freed.global_bytes);
        }
    }

    /// Closes the range, which is gone. Whoever waits for its room is refused, and routes its keys
    /// again.
    pub fn leave(&self) {
        self.local.close();
        self.seat.close();
    }

    /// Runs `f` on the overlay, for engine threads. Waits for the holder of the seat, whose turn is
    /// bounded. If the seat has failed, the engine has failed, and the default is returned.
    pub fn with_state<R: Default>(&self, f: impl FnOnce(&mut OverlayState) -> R) -> R {
        let mut guard = self.seat.enter_blocking();
        let done = guard.as_mut().and_then(|guard| guard.attempt(|actor| f(&mut actor.state)));
        done.unwrap_or_default()
    }

    /// Where a write waits that finds no room in this range, which is at this position of the
    /// routes.
    pub(crate) fn place(&self, position: u32) -> WaitPlace {
        let at = At { id: self.id, position: position as usize };
        WaitPlace::Range(at, Arc::clone(&self.waits))
    }
}

impl RangeMemory for RangeOwner {
    fn fullness(&self) -> f64 {
        let held = self.sizes.active_bytes() + self.sizes.sealed_bytes();
        range_fullness(&self.local, held, &self.budget)
    }
}
