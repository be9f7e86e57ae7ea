//! A range owner: the only writer of one range's overlay.
//!
//! Owns:      the active memtable of the range and the charges of the sealed ones.
//!            Overwritten entries are seen to with each batch, and by the tender when none comes.
//! Receives:  Apply, from the WAL writer, in log order.
//! Sends:     Seal to the version manager, after the seat is free.
//! Publishes: entries, through the commit queue's `visible`.
//! Stops:     never by itself; it has no thread. Its callers run it.

pub mod message;
pub mod route;
pub mod state;

use crate::admission::RangeBudget;
use crate::admission::waits::WaitCounts;
use crate::failure::{Failure, Scope};
use crate::kernel::commit::CommitQueue;
use crate::kernel::credits::Credits;
use crate::kernel::jobs::{Jobs, Kick};
use crate::kernel::mailbox::{Capacity, Mailbox};
use crate::kernel::turn::{Handler, Hooks, SeatMailbox, Turn};
use crate::range_owner::route::Lot;
use crate::shared::{Counters, Shared};
use crate::version_manager::message::VersionMessage;
use crate::version_manager::relief;
use message::{Apply, is_heavy};
use sluicedb_storage::memtable::MemtableWriter;
use sluicedb_storage::version::RangeId;
use state::{Applied, Freed, OverlaySizes, OverlayState};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

/// A range as its senders see it.
#[derive(Debug)]
pub struct RangeOwner {
    /// Its id.
    pub id: RangeId,
    /// The local account: bytes in this range's active memtable, and on their way there. Sealing
    /// gives them back, publishing gives back those of the global account.
    pub local: Credits,
    /// The overlay behind its seat.
    pub seat: SeatMailbox<RangeActor>,
    /// How much there is in it.
    pub sizes: Arc<OverlaySizes>,
    /// How much that may be.
    pub budget: RangeBudget,
    /// Active memtables that were replaced by a fresh one.
    pub rotations: AtomicU64,
    /// Flushes published.
    pub flushes: AtomicU64,
    /// Waits for room in this range.
    pub waits: WaitCounts,
    shared: Weak<Shared>,
    versions: Mailbox<VersionMessage>,
    /// Lets the next write ask for a seal again.
    seal_refused: Kick,
}

/// What the seat guards.
#[derive(Debug)]
pub struct RangeActor {
    state: OverlayState,
    commits: CommitQueue,
    owner: Weak<RangeOwner>,
}

impl RangeOwner {
    /// The owner of the range `id`, writing through `writer`.
    pub fn new(
        id: RangeId,
        writer: MemtableWriter,
        budget: RangeBudget,
        shared: &Arc<Shared>,
        versions: Mailbox<VersionMessage>,
        turns: &Jobs,
    ) -> Arc<Self> {
        let config = &shared.config;
        let capacity = Capacity {
            messages: config.commits_in_flight_max,
            bytes: config.write_buffer_bytes as u64,
        };
        let failing = Arc::downgrade(shared);
        let sizes = Arc::<OverlaySizes>::default();
        Arc::new_cyclic(|owner: &Weak<Self>| {
            let actor = RangeActor {
                state: OverlayState::new(writer, budget, Arc::clone(&sizes)),
                commits: shared.commits.clone(),
                owner: Weak::clone(owner),
            };
            let kicked = Weak::clone(owner);
            let kick = Kick::new(turns, move || {
                if let Some(owner) = kicked.upgrade() {
                    owner.seat.deliver_blocking();
                }
            });
            let refused = Weak::clone(owner);
            let seal_refused = Kick::new(turns, move || {
                if let Some(owner) = refused.upgrade() {
                    owner.with_state(OverlayState::seal_not_requested);
                }
            });
            let counters = Arc::clone(&shared.counters);
            let hooks = Hooks {
                kick: Box::new(move || {
                    Counters::add(&counters.turns_handed_on, kick.ring().into());
                }),
                on_panic: Box::new(move |message| {
                    if let Some(shared) = failing.upgrade() {
                        shared.fail(Failure::Panicked { actor: "range owner", message });
                    }
                }),
            };
            Self {
                id,
                local: Credits::with_pressure(
                    budget.active_bytes_max() as u64,
                    relief::on_wait(&versions, Scope::Local),
                ),
                seat: SeatMailbox::new(actor, capacity, hooks),
                sizes,
                budget,
                rotations: AtomicU64::new(0),
                flushes: AtomicU64::new(0),
                waits: WaitCounts::default(),
                shared: Arc::downgrade(shared),
                versions,
                seal_refused,
            }
        })
    }

    /// What a turn leaves to do once the seat is free.
    #[inline]
    pub fn after(self: &Arc<Self>, applied: Applied) {
        if applied != Applied::default() {
            self.follow_up(applied);
        }
    }

    #[cold]
    fn follow_up(self: &Arc<Self>, applied: Applied) {
        let Applied { seal, freed, untidy, upkeep_due } = applied;
        self.give_back(freed);
        if untidy && let Some(shared) = self.shared.upgrade() {
            shared.tending_due.set();
        }
        if upkeep_due && let Some(shared) = self.shared.upgrade() {
            shared.upkeep_due.set();
        }
        if let Some(memtable) = seal {
            self.request_seal(memtable);
        }
    }

    /// Charge that no entry of this range needs any more goes back to the accounts.
    pub(crate) fn give_back(&self, freed: Freed) {
        if freed == Freed::default() {
            return;
        }
        self.local.release(freed.local_bytes);
        if let Some(shared) = self.shared.upgrade() {
            shared.global.release(freed.global_bytes);
        }
    }

    /// Asks for a fresh active memtable in place of `memtable`.
    fn request_seal(self: &Arc<Self>, memtable: u64) {
        if let Ok(permit) = self.versions.try_reserve(1) {
            // Closed: the engine is ending and nothing needs sealing any more.
            let _ = permit.send(VersionMessage::Seal { range: self.id, memtable });
            return;
        }
        // Full: let the next write ask again. Not on this thread, which may not wait for the seat.
        self.seal_refused.ring();
    }

    /// The range has gone: whoever waits for room in it is told so, and finds another one for its keys.
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
}

impl RangeActor {
    /// The overlay.
    pub fn state(&mut self) -> &mut OverlayState {
        &mut self.state
    }

    /// Applies a batch, or this range's part of it, of so many encoded bytes; says what is to be done
    /// once the seat is free.
    #[inline]
    pub fn apply(&mut self, lot: Lot<'_>, bytes: usize, charge_bytes: usize) -> Applied {
        let visible = self.commits.visible();
        self.state.apply(lot, charge_bytes);
        self.state.tidy(visible, bytes)
    }
}

impl Handler for RangeActor {
    type Message = Apply;

    fn handle(&mut self, message: Apply, turn: &mut Turn) {
        let part = message.part();
        let (bytes, charge) = (part.bytes, part.charge());
        let lot = message.route.lot(message.part, &message.payload, message.first_seqno);
        let applied = self.apply(lot, bytes, charge as usize);
        let ticket = message.ticket;
        let owner = (applied != Applied::default()).then(|| self.owner.upgrade()).flatten();
        turn.defer(move |_| {
            // INVARIANT(ack-after-visible): whoever waits for this batch is woken from in here.
            ticket.finish();
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
