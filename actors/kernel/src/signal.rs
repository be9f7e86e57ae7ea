//! A wake-up without a payload: many setters, one waiter.
//!
//! Guarantees: a [`Signal`] that was set is seen by the waiter, however often and by whomever it
//! was set; sets coalesce; what a setter did before `set` is visible to the waiter after its wait.
//! Setting never waits and wakes outside locks. Does not: queue; use a mailbox for that. Nor wait
//! for foreign wakers: the waiter is a thread or task of yours, whose waker is called at once.

use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Mutex, lock};
use crate::wake::call;
use std::future::{Future, poll_fn};
use std::task::{Context, Poll, Waker};

const QUIET: u8 = 0;
const SET: u8 = 1;
/// Quiet, and a waker is stored.
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
        // Always a swap, also when it is set already: the waiter's next swap must see what this
        // thread did before.
        if self.state.swap(SET, Ordering::AcqRel) == AWAITED {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        let waker = lock(&self.waker).take();
        if let Some(waker) = waker {
            // The waiter's own, not foreign code: it need not wait for this thread's turn.
            call(waker);
        }
    }

    /// Clears the signal; was it set? For the one waiter.
    pub fn take(&self) -> bool {
        self.state.compare_exchange(SET, QUIET, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Ready, and cleared, when the signal is set.
    pub(crate) fn poll_wait(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.take() {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        let old = lock(&self.waker).replace(waker);
        // The waker is in place before the state says so; a set in between is seen by the exchange.
        let armed =
            self.state.compare_exchange(QUIET, AWAITED, Ordering::AcqRel, Ordering::Acquire);
        drop(old);
        match armed {
            Ok(_) | Err(AWAITED) => Poll::Pending,
            Err(_) => {
                // A swap, not a store: one more set may have come, and what it tells must be seen.
                self.state.swap(QUIET, Ordering::AcqRel);
                Poll::Ready(())
            }
        }
    }

    /// Resolves when the signal is set, and clears it. For the one waiter.
    ///
    /// # Cancellation
    /// Dropped, it has cleared nothing.
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
