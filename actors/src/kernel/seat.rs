//! The seat: an actor's state, one occupant at a time, never a queue of threads.
//!
//! Guarantees: trying never waits; a panic while the seat is taken fails it for good, so nobody ever
//! enters a state that was left half done. The lock is a `std` mutex used through `try_lock`, so the
//! kernel needs no unsafe code.
//!
//! Does not: remember who was refused. A state that receives messages belongs into a
//! [`super::SeatMailbox`], which re-checks its queue after every occupant. Who holds a seat never awaits
//! and never does disk I/O (no-await-under-seat).

use super::preempt::{self, Occupied};
use super::sync::atomic::{AtomicBool, Ordering};
use super::sync::{Mutex, MutexGuard};
use std::ops::{Deref, DerefMut};

/// A state behind a seat.
pub struct Seat<S> {
    /// Besides the mutex's own poison: failed without unwinding.
    failed: AtomicBool,
    state: Mutex<S>,
}

/// The seat is taken; dropping the guard frees it. A panic meanwhile fails the seat.
#[must_use = "the seat is free again once the guard is dropped"]
pub struct SeatGuard<'a, S> {
    seat: &'a Seat<S>,
    state: MutexGuard<'a, S>,
    /// After `state`: the seat is free when this is dropped.
    _occupied: Occupied,
}

opaque_debug!("Seat", [S] Seat<S>);
opaque_debug!("SeatGuard", [S] SeatGuard<'_, S>);

impl<S> Seat<S> {
    /// A free seat in front of `state`.
    pub fn new(state: S) -> Self {
        Self { failed: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Takes the seat if it is free; `None` if it is taken or failed. Never waits.
    #[inline]
    pub fn try_enter(&self) -> Option<SeatGuard<'_, S>> {
        preempt::point();
        match self.state.try_lock() {
            Ok(state) if !self.failed.load(Ordering::Relaxed) => {
                Some(SeatGuard { seat: self, state, _occupied: Occupied::new() })
            }
            _ => None,
        }
    }

    /// Takes the seat, waiting for the occupant to leave; `None` if it is failed. For engine threads.
    pub fn enter_blocking(&self) -> Option<SeatGuard<'_, S>> {
        preempt::point();
        match self.state.lock() {
            Ok(state) if !self.failed.load(Ordering::Relaxed) => {
                Some(SeatGuard { seat: self, state, _occupied: Occupied::new() })
            }
            _ => None,
        }
    }

    /// Did an occupant panic, or was the seat failed? Final.
    #[inline]
    pub fn is_failed(&self) -> bool {
        #[cfg(not(loom))]
        let poisoned = self.state.is_poisoned();
        #[cfg(loom)]
        let poisoned = false;
        poisoned || self.failed.load(Ordering::Acquire)
    }

    /// Fails the seat from outside: nobody enters any more; who is in it may finish.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }
}

impl<S> SeatGuard<'_, S> {
    /// Fails the seat: nobody enters it after this guard is dropped.
    pub fn fail(&mut self) {
        self.seat.fail();
    }
}

impl<S> Deref for SeatGuard<'_, S> {
    type Target = S;

    #[inline]
    fn deref(&self) -> &S {
        &self.state
    }
}

impl<S> DerefMut for SeatGuard<'_, S> {
    #[inline]
    fn deref_mut(&mut self) -> &mut S {
        &mut self.state
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_occupant_at_a_time() {
        let seat = Seat::new(1);
        let mut guard = seat.try_enter().expect("free");
        *guard += 1;
        assert!(seat.try_enter().is_none());
        drop(guard);
        assert_eq!(*seat.enter_blocking().expect("free"), 2);
        assert!(!seat.is_failed());
    }

    #[test]
    fn a_panic_fails_the_seat() {
        let seat = std::sync::Arc::new(Seat::new(1));
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
        let seat = Seat::new(());
        seat.try_enter().expect("free").fail();
        assert!(seat.is_failed() && seat.try_enter().is_none() && seat.enter_blocking().is_none());
    }
}
