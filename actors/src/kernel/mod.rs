//! Caller-runs actors: the loom-checked primitives. Nothing here names tokio, an actor or a file.
//!
//! Guarantees that hold for every primitive: no method waits for another thread longer than a very
//! short internal lock, except those named `*_blocking`; wakers and user code never run under such a
//! lock, nor under a seat (see `wake`); the uncontended path allocates nothing; every waiting future may be dropped at any point.
//!
//! Three words used throughout: an *owned* form holds a reference count and is `'static`; a `_ref`
//! form borrows instead and costs two atomic operations less; *wake, not assign* means that freed
//! room belongs to nobody until somebody polls, so a future that is never polled again cannot keep it.

/// A `Debug` that prints only the type's name: the inside is locks and wakers.
macro_rules! opaque_debug {
    ($name:literal, [$($generics:tt)*] $type:ty) => {
        impl<$($generics)*> std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct($name).finish_non_exhaustive()
            }
        }
    };
}

pub mod commit;
pub mod credits;
mod line;
pub mod mailbox;
pub mod preempt;
pub mod published;
pub mod reply;
mod room;
pub mod seat;
pub mod signal;
pub mod sync;
pub mod turn;
pub mod wake;

pub use commit::{CommitQueue, Commits, Failed, Ticket};
pub use credits::{Account, Credits, Lease, RawLease};
pub use mailbox::{Capacity, Inbox, Mailbox, Permit};
pub use published::Published;
pub use reply::{Answer, Lost, Reply, reply};
pub use room::Refused;
pub use seat::{Seat, SeatGuard};
pub use signal::{Signal, Watch, Watcher};
pub use turn::{Handler, Hooks, SeatMailbox, Turn, TurnGuard, TurnLimits};
