//! A range owner: the only writer of one range's overlay.
//!
//! Owns:      the active memtable of the range and the charges of the sealed ones. Overwritten
//!            entries are reclaimed with each batch, and by the reclaimer when none comes.
//! Receives:  Apply, from the log writer, in log order.
//! Sends:     what it asks for room (`Requests`), to the version manager, after the seat is free.
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
use crate::admission::pressure::{RangeMemory, range_fullness};
use crate::admission::waits::{Place, WaitCounts};
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

/// A range as its senders see it.
#[derive(Debug)]
pub struct RangeOwner {
    /// Its id.
    pub id: RangeId,
    /// The local account: bytes in this range's active memtable, and on their way there. Sealing
    /// gives them back, publishing gives back those of the global account.
    pub local: Semaphore,
    /// The overlay behind its seat.
    pub seat: CombiningMailbox<RangeActor>,
    /// How much there is in it.
    pub sizes: Arc<OverlaySizes>,
    /// How much that may be.
    pub budget: RangeBudget,
    /// Active memtables that were replaced by a fresh one.
    pub rotations: Counter,
    /// Flushes published.
    pub flushes: Counter,
    /// Waits for room in this range.
    pub waits: Arc<WaitCounts>,
    memory: Arc<Memory>,
    global: Semaphore,
    requests: Arc<dyn Requests>,
    /// Lets the next write ask for a seal again.
    seal_refused: Kick,
}

impl RangeOwner {
    /// Charge that no entry of this range needs any more goes back to the accounts.
    pub fn give_back(&self, freed: Freed) {
        if freed != Freed::default() {
            self.local.release(freed.local_bytes);
            self.global.release(freed.global_bytes);
        }
    }

    /// The range has gone: whoever waits for room in it is told so, and finds another one for its
    /// keys.
    pub fn leave(&self) {
        self.local.close();
        self.seat.close();
    }

    /// Runs `f` on the overlay, for engine threads: waits for the seat's occupant, whose turn is
    /// bounded. A failed seat has failed the engine; its state is then looked at no more.
    pub fn with_state<R: Default>(&self, f: impl FnOnce(&mut OverlayState) -> R) -> R {
        match self.seat.enter_blocking() {
            Some(mut guard) => f(&mut guard.state),
            None => R::default(),
        }
    }

    /// Where a write waits that finds no room in this range.
    pub(crate) fn place(&self) -> Place {
        Place::Range(self.id, Arc::clone(&self.waits))
    }
}

impl RangeMemory for RangeOwner {
    fn fullness(&self) -> f64 {
        let held = self.sizes.active_bytes() + self.sizes.sealed_bytes();
        range_fullness(&self.local, held, &self.budget)
    }
}
