//! Who may write now: the accounts that writes are charged to, what waiting for them costs, how
//! near it is.
//!
//! Guarantees: what is charged to an account is bounded by it; who waits is counted, timed and
//! shown. The gate in front of the accounts is `gate`. Does not: know a range's owner, nor
//! give room: flushes do.

mod budget;
pub mod gate;
pub mod pressure;
pub mod waits;

pub use budget::RangeBudget;

use crate::counter::Counter;
use pressure::{Board, Stall};
use sluicedb_kernel::semaphore::Semaphore;
use waits::WaitCounts;

/// The engine's account, and what is counted and shown of all accounts.
#[derive(Debug)]
pub struct Accounts {
    /// The account of the engine: all that is in memory and not yet in tables.
    pub global: Semaphore,
    /// Waits for room in a range.
    pub local_waits: WaitCounts,
    /// Waits for room in the engine.
    pub global_waits: WaitCounts,
    /// All of these once more, in the order of [`Stall::ALL`]: by what they were for when they
    /// began.
    pub stalls: [WaitCounts; Stall::ALL.len()],
    /// Writes refused, at once or at their deadline, because a range had no room.
    pub overloaded_local: Counter,
    /// Writes refused, at once or at their deadline, because the engine had no room.
    pub overloaded_global: Counter,
    /// What watchers see of the pressure.
    pub board: Board,
}

impl Accounts {
    /// An account of so many bytes. `on_wait` is called when somebody begins to wait for it.
    pub fn new(bytes: u64, on_wait: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            global: Semaphore::with_wait_hook(bytes, on_wait),
            local_waits: WaitCounts::default(),
            global_waits: WaitCounts::default(),
            stalls: Default::default(),
            overloaded_local: Counter::default(),
            overloaded_global: Counter::default(),
            board: Board::default(),
        }
    }
}
