//! Who may write now: the accounts that writes are charged to, the time spent waiting for them, and
//! how close writers are to waiting.
//!
//! Guarantees: an account bounds what is charged to it; every wait is counted, timed and shown.
//! `gate` admits writes to the accounts. Does not: know a range's owner, or free room; flushes do
//! that.

mod budget;
pub mod gate;
pub mod pressure;
pub mod waits;

pub use budget::RangeBudget;

use crate::counter::Counter;
use pressure::{Board, Stall};
use sluicedb_kernel::semaphore::Semaphore;
use waits::WaitCounts;

/// The engine's account, and the counters and the pressure of all accounts.
#[derive(Debug)]
pub struct Accounts {
    /// The engine's account: everything in memory that is not yet in tables.
    pub global: Semaphore,
    /// Waits for room in a range.
    pub local_waits: WaitCounts,
    /// Waits for room in the engine.
    pub global_waits: WaitCounts,
    /// All waits once more, by what they were for when they began, in the order of [`Stall::ALL`].
    pub stalls: [WaitCounts; Stall::ALL.len()],
    /// Writes refused, at once or at their deadline, because a range had no room.
    pub overloaded_local: Counter,
    /// Writes refused, at once or at their deadline, because the engine had no room.
    pub overloaded_global: Counter,
    /// The pressure, as watchers see it.
    pub board: Board,
}

impl Accounts {
    /// An engine account of this many bytes. `on_wait` is called when somebody begins to wait for
    /// it.
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
