//! A wake-up without a payload: many setters, one waiter.
//!
//! Guarantees: the waiter sees that a [`Signal`] was set, however often and by whomever. Sets
//! coalesce. What a setter did before `set` is visible to the waiter after its wait. Setting never
//! waits, and wakes outside locks. Does not: queue; use a mailbox for that. It does not hold its
//! waker back either: the waiter is a thread or task of yours, whose waker is called at once.

use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Mutex, lock};
use crate::wake::call;
use std::future::{Future, poll_fn};
use std::task::{Context, Poll, Waker};

const QUIET: u8 = 0;
const SET: u8 = 1;
/// Not set, and a waker is stored.
const AWAITED: u8 = 2;

/// A coalescing wake-up: many setters, one waiter.
pub struct Signal {
    state: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

opaque_debug!("Signal", [] Signal);

impl Default for Signal {
    fn default() -> Self {
        Self::new()
    }
}

impl Signal {
    /// A signal that is not set.
    pub fn new() -> Self {
        Self { state: AtomicU8::new(QUIET), waker: Mutex::new(None) }
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
        if let Some(waker) = waker {
            // It is the waiter's own waker and not foreign code, so it need not wait for the end of
            // this thread's turn.
            call(waker);
        }
    }

    /// Clears the signal. Was it set? For the one waiter.
    pub fn take(&self) -> bool {
        self.state.compare_exchange(SET, QUIET, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Ready when the signal is set, and clears it.
    pub(crate) fn poll_wait(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.take() {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        let old = lock(&self.waker).replace(waker);
        // The waker is stored before the state says so. The exchange sees a set in between.
        let armed =
            self.state.compare_exchange(QUIET, AWAITED, Ordering::AcqRel, Ordering::Acquire);
        drop(old);
        match armed {
            Ok(_) | Err(AWAITED) => Poll::Pending,
            Err(_) => {
                // A swap and not a store: another set may have come, and what its setter did must
                // be seen.
                self.state.swap(QUIET, Ordering::AcqRel);
                Poll::Ready(())
            }
        }
    }

    /// Resolves when the signal is set, and clears it. For the one waiter.
    ///
    /// # Cancellation
    /// If it is dropped, it has cleared nothing.
    pub fn wait(&self) -> impl Future<Output = ()> {
        poll_fn(|context| self.poll_wait(context))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn sets_coalesce_and_are_cleared_by_the_waiter() {
        let signal = Signal::new();
        assert!(signal.poll_wait(&mut context()).is_pending());
        signal.set();
        signal.set();
        assert!(signal.poll_wait(&mut context()).is_ready());
        assert!(signal.poll_wait(&mut context()).is_pending());
        assert!(!signal.take());
        signal.set();
        assert!(signal.take() && !signal.take());
    }
}
