//! The range owner's turn: the work on one message under the seat, and the work after it.

use super::RangeOwner;
use super::message::{Apply, is_heavy};
use super::route::Lot;
use super::state::{Applied, OverlayState};
use sluicedb_kernel::combining::{Handler, Turn};
use sluicedb_kernel::sequencer::Sequencer;
use sluicedb_storage::key::Seqno;
use std::sync::{Arc, Weak};

/// The state behind the range owner's seat.
#[derive(Debug)]
pub struct RangeActor {
    pub(super) state: OverlayState,
    commits: Sequencer,
    owner: Weak<RangeOwner>,
}

impl RangeActor {
    pub(super) fn new(state: OverlayState, commits: Sequencer, owner: Weak<RangeOwner>) -> Self {
        Self { state, commits, owner }
    }

    /// The overlay.
    pub fn state(&mut self) -> &mut OverlayState {
        &mut self.state
    }

    /// Applies a batch, or this range's part of it. `bytes` is its encoded size. Returns what to do
    /// once the seat is free.
    #[inline]
    pub fn apply(&mut self, lot: Lot<'_>, bytes: usize, charge_bytes: usize) -> Applied {
        let visible = Seqno(self.commits.visible());
        self.state.apply(lot, charge_bytes);
        self.state.reclaim(visible, bytes)
    }
}

impl Handler for RangeActor {
    type Message = Apply;

    fn handle(&mut self, message: Apply, turn: &mut Turn) {
        let part = message.part();
        let (bytes, charge) = (part.bytes, part.charge());
        let lot = message.route.lot(message.part, &message.payload, message.first_seqno);
        let applied = self.apply(lot, bytes, charge as usize);
        let guard = message.guard;
        let owner = (applied != Applied::default()).then(|| self.owner.upgrade()).flatten();
        turn.defer(move |_| {
            // INVARIANT(ack-after-visible): `finish` wakes whoever waits for this batch.
            guard.finish();
            if let Some(owner) = owner {
                owner.after(applied);
            }
        });
    }

    fn weight(message: &Apply) -> usize {
        let part = message.part();
        part.bytes + part.operations as usize * 64
    }

    fn is_heavy(message: &Apply) -> bool {
        let part = message.part();
        is_heavy(part.bytes, part.operations)
    }
}

impl RangeOwner {
    /// Does what a turn leaves to do once the seat is free.
    #[inline]
    pub fn after(self: &Arc<Self>, applied: Applied) {
        if applied != Applied::default() {
            self.follow_up(applied);
        }
    }

    #[cold]
    fn follow_up(self: &Arc<Self>, applied: Applied) {
        let Applied { seal, freed, garbage, restock_due } = applied;
        self.give_back(freed);
        if garbage {
            self.memory.reclaim_due.set();
        }
        if restock_due {
            self.memory.restock_due.set();
        }
        if let Some(memtable) = seal
            && !self.requests.seal(self.id, memtable)
        {
            // The request had no room. The turn thread lets the next write ask again; this thread
            // must not wait for the seat.
            self.seal_refused.ring();
        }
    }
}
