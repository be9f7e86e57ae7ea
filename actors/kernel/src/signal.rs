//! A wake-up without a payload: many setters, one waiter.
//!
//! Guarantees: the waiter sees that a [`Signal`] was set, however often and by whomever. Sets
//! coalesce. What a setter did before `set` is visible to the waiter after its wait. Setting never
//! waits. Does not: queue; use a mailbox for that. It does not hold its waker back either: the
//! waiter is a thread or task of yours.
//!
//! ```
//! use sluicedb_kernel::{signal::Signal, sync::block_on};
//!
//! let signal = Signal::new();
//! signal.set();
//! signal.set();
//! block_on(signal.wait()); // clears both
//! ```

use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Mutex, lock};
use crate::wake::call;
use std::future::{Future, poll_fn};
use std::task::{Poll, Waker};

const QUIET: u8 = 0;
const SET: u8 = 1;
/// Not set, and a waker is stored.
const AWAITED: u8 = 2;

/// A coalescing wake-up: many setters, one waiter.
#[derive(Default)]
pub struct Signal {
    state: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

opaque_debug!("Signal", [] Signal);

impl Signal {
    /// A signal that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the signal and wakes the waiter. One swap while nobody waits.
    #[inline]
    pub fn set(&self) {
        // It swaps even if the signal is set already, because the waiter's next swap must see what
        // this thread did before.
        if self.state.swap(SET, Ordering::AcqRel) == AWAITED {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        let waker = lock(&self.waker).take();
        // It is the waiter's own waker and not foreign code, so it need not wait for the end of
        // this thread's turn.
        waker.into_iter().for_each(call);
    }

    /// Resolves when the signal is set, and clears it. For the one waiter.
    ///
    /// # Cancellation
    /// If it is dropped, it has cleared nothing.
    pub fn wait(&self) -> impl Future<Output = ()> {
        let change =
            |from, to| self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        poll_fn(move |context| {
            if change(SET, QUIET).is_ok() {
                return Poll::Ready(());
            }
            let waker = context.waker().clone();
            let old = lock(&self.waker).replace(waker);
            // The waker is stored before the state says so. The exchange sees a set in between.
            let armed = change(QUIET, AWAITED);
            drop(old);
            if armed != Err(SET) {
                return Poll::Pending;
            }
            // A swap and not a store: what the last setter did must be seen.
            self.state.swap(QUIET, Ordering::AcqRel);
            Poll::Ready(())
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::Context;

    #[test]
    fn sets_coalesce_and_are_cleared_by_the_waiter() {
        let signal = Signal::new();
        let poll = || Pin::new(&mut signal.wait()).poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll().is_pending());
        signal.set();
        signal.set();
        assert!(poll().is_ready());
        assert!(poll().is_pending());
    }
}
