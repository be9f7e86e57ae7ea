//! The combining lock, called the seat: an actor's state with one occupant at a time. It has no
//! queue of threads.
//!
//! Guarantees: trying never waits. A panic while the seat is taken fails it for good, so nobody
//! ever enters a state that was left half changed. It is a `std` mutex used through `try_lock`, so
//! it needs no unsafe code.
//!
//! Does not: remember who was refused. The mailbox looks at its queue after every occupant.

use super::preempt::{self, Occupied};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// A state behind a seat.
pub(super) struct Lock<S> {
    /// Failed without unwinding. A panic that unwinds poisons the mutex.
    failed: AtomicBool,
    state: Mutex<S>,
}

/// The guard of a taken seat. Dropping it frees the seat. A panic while it exists fails the seat.
#[must_use = "the seat is free again once the guard is dropped"]
pub(super) struct LockGuard<'a, S> {
    pub(super) state: MutexGuard<'a, S>,
    /// Dropped after `state`, so the seat is free then.
    _occupied: Occupied,
}

impl<S> Lock<S> {
    /// A free seat that guards `state`.
    pub(super) fn new(state: S) -> Self {
        Self { failed: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Takes the seat if it is free. `None` if it is taken or failed. Never waits.
    #[inline]
    pub(super) fn try_enter(&self) -> Option<LockGuard<'_, S>> {
        preempt::point();
        self.enter(self.state.try_lock().ok()?)
    }

    /// Takes the seat, waiting for the occupant to leave. `None` if it has failed.
    pub(super) fn enter_blocking(&self) -> Option<LockGuard<'_, S>> {
        preempt::point();
        self.enter(self.state.lock().ok()?)
    }

    #[inline]
    fn enter<'a>(&'a self, state: MutexGuard<'a, S>) -> Option<LockGuard<'a, S>> {
        let may = !self.failed.load(Ordering::Relaxed);
        may.then(|| LockGuard { state, _occupied: Occupied::new() })
    }

    /// Did an occupant panic, or was the seat failed? Final.
    #[inline]
    pub(super) fn is_failed(&self) -> bool {
        #[cfg(not(loom))]
        let poisoned = self.state.is_poisoned();
        #[cfg(loom)]
        let poisoned = false;
        poisoned || self.failed.load(Ordering::Acquire)
    }

    /// Fails the seat. Nobody enters any more; the occupant may finish.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_occupant_at_a_time() {
        let seat = Lock::new(1);
        let mut guard = seat.try_enter().expect("free");
        *guard.state += 1;
        assert!(seat.try_enter().is_none());
        drop(guard);
        assert_eq!(*seat.enter_blocking().expect("free").state, 2);
        assert!(!seat.is_failed());
    }

    #[test]
    fn a_panic_fails_the_seat() {
        let seat = std::sync::Arc::new(Lock::new(1));
        let other = seat.clone();
        let thread = std::thread::spawn(move || {
            let _guard = other.try_enter().expect("free");
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert!(seat.is_failed());
        assert!(seat.try_enter().is_none());
        assert!(seat.enter_blocking().is_none());
    }

    #[test]
    fn a_failed_seat_stays_empty() {
        let seat = Lock::new(());
        seat.fail();
        assert!(seat.is_failed() && seat.try_enter().is_none() && seat.enter_blocking().is_none());
    }
}
