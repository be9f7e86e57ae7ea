//! How ranges get their owners: at the start, and in a change of routes.

use super::message::Requests;
use super::run::RangeActor;
use super::sizes::OverlaySizes;
use super::state::OverlayState;
use super::topology::{RangeEntry, Topology};
use super::{Memory, RangeOwner};
use crate::admission::waits::WaitCounts;
use crate::admission::{Accounts, RangeBudget};
use crate::counter::Counter;
use crate::failure::Failure;
use crate::runtime::{Environment, Turns};
use sluicedb_kernel::combining::{CombiningMailbox, Hooks};
use sluicedb_kernel::mailbox::Capacity;
use sluicedb_kernel::semaphore::Semaphore;
use sluicedb_storage::memtable::MemtableWriter;
use sluicedb_storage::version::{RangeId, RangeVersion};
use std::sync::{Arc, Weak};

/// What is needed to make range owners.
#[derive(Debug)]
pub struct Owners {
    /// Capacities.
    pub environment: Arc<Environment>,
    /// The published superversion, and the sequencer.
    pub topology: Arc<Topology>,
    /// The account of the engine.
    pub accounts: Arc<Accounts>,
    /// Memory of memtables.
    pub memory: Arc<Memory>,
    /// Where turns are left to the turn thread.
    pub turns: Turns,
    /// Asked for room by the owners.
    pub requests: Arc<dyn Requests>,
}

impl Owners {
    /// An entry of `stable`, with a new owner and an empty memtable.
    pub fn entry(
        &self,
        stable: Arc<RangeVersion>,
        memtable: u64,
        budget: RangeBudget,
    ) -> RangeEntry {
        let (active, writer) = self.memory.memtable(memtable, budget);
        let owner = self.owner(stable.id, writer, budget);
        RangeEntry::new(active, stable, owner)
    }

    fn owner(&self, id: RangeId, writer: MemtableWriter, budget: RangeBudget) -> Arc<RangeOwner> {
        let config = &self.environment.config;
        let capacity = Capacity {
            messages: config.commits_in_flight_max,
            bytes: config.write_buffer_bytes as u64,
        };
        let sizes = Arc::<OverlaySizes>::default();
        Arc::new_cyclic(|owner: &Weak<RangeOwner>| {
            let actor = RangeActor::new(
                OverlayState::new(writer, budget, Arc::clone(&sizes)),
                self.topology.commits.clone(),
                Weak::clone(owner),
            );
            let kicked = Weak::clone(owner);
            let refused = Weak::clone(owner);
            let seal_refused = self.turns.kick(move || {
                if let Some(owner) = refused.upgrade() {
                    owner.with_state(OverlayState::seal_not_requested);
                }
            });
            let failures = Arc::clone(&self.topology.failures);
            let hooks = Hooks {
                kick: self.turns.hand_on(move || {
                    if let Some(owner) = kicked.upgrade() {
                        owner.seat.deliver_blocking();
                    }
                }),
                on_panic: Box::new(move |message| {
                    failures.fail(Failure::Panicked { actor: "range owner", message });
                }),
            };
            let requests = Arc::clone(&self.requests);
            let on_wait = Box::new(move || requests.somebody_waits());
            RangeOwner {
                id,
                local: Semaphore::with_wait_hook(budget.active_bytes_max() as u64, on_wait),
                seat: CombiningMailbox::new(actor, capacity, hooks),
                sizes,
                budget,
                rotations: Counter::default(),
                flushes: Counter::default(),
                waits: Arc::<WaitCounts>::default(),
                memory: Arc::clone(&self.memory),
                global: self.accounts.global.clone(),
                requests: Arc::clone(&self.requests),
                seal_refused,
            }
        })
    }
}
