//! The combining lock, called the seat: an actor's state with one occupant at a time.
//!
//! Guarantees: nobody enters once it has failed, so nobody meets a state that was left half
//! changed; it is only dropped. It is a `std` mutex used through `try_lock`, so it needs no unsafe
//! code. Its poison is ignored: the state is touched only inside of `CombiningMailbox::catch`,
//! which fails the lock before anybody else can enter.
//!
//! Does not: remember who was refused. The mailbox looks at its queue after every occupant.

use super::preempt::{self, Occupied};
use super::{CombiningMailbox, Handler, Spent};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard, lock};
use crate::wake::Hold;
use std::sync::TryLockError;

/// A state behind a seat.
pub(super) struct Lock<S> {
    failed: AtomicBool,
    /// There until the seat has failed.
    state: Mutex<Option<S>>,
}

/// The guard of a taken seat. Dropping it frees the seat.
pub(super) struct LockGuard<'a, S> {
    state: MutexGuard<'a, Option<S>>,
    /// Dropped after `state`, so the seat is free then.
    _occupied: Occupied,
}

impl<S> Lock<S> {
    pub(super) fn new(state: S) -> Self {
        Self { failed: AtomicBool::new(false), state: Mutex::new(Some(state)) }
    }

    /// Takes the seat. `None` if it has failed, or is taken and the caller does not wait.
    #[inline]
    pub(super) fn enter(&self, waits: bool) -> Option<LockGuard<'_, S>> {
        preempt::point();
        let state = self.lock(waits)?;
        (!self.is_failed()).then(|| LockGuard { state, _occupied: Occupied::new() })
    }

    /// Did an occupant panic? Final.
    #[inline]
    pub(super) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Fails the seat. Nobody enters any more; the occupant may finish.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Drops the state of a failed seat. False while an occupant is about to leave.
    pub(super) fn clear(&self) -> bool {
        let state = self.lock(false).map(|mut state| state.take());
        // Dropped with the seat free: the state may hold what leads to the seat.
        state.is_some()
    }

    #[inline]
    fn lock(&self, waits: bool) -> Option<MutexGuard<'_, Option<S>>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => waits.then(|| lock(&self.state)),
        }
    }
}

impl<S> LockGuard<'_, S> {
    #[inline]
    pub(super) fn state(&mut self) -> &mut S {
        self.state
            .as_mut()
            .expect("nobody enters once the seat has failed, and it stays until then")
    }
}

/// The seat, taken for the caller's own work. Dropping the guard frees the seat and handles
/// messages that were sent meanwhile.
#[must_use = "the seat is free again once the guard is dropped"]
pub struct TurnGuard<'a, A: Handler> {
    mailbox: &'a CombiningMailbox<A>,
    /// `None` while dropping, and after an attempt that panicked.
    seat: Option<LockGuard<'a, A>>,
    /// Dropped last. No waker runs under the seat, or before the work that this guard owes others
    /// is done.
    _hold: Hold,
}

opaque_debug!("TurnGuard", [A: Handler] TurnGuard<'_, A>);

impl<'a, A: Handler> TurnGuard<'a, A> {
    #[inline]
    pub(super) fn new(mailbox: &'a CombiningMailbox<A>, seat: LockGuard<'a, A>) -> Self {
        Self { mailbox, seat: Some(seat), _hold: Hold::new() }
    }

    /// Runs `f` and keeps the seat. `None` if `f` panicked: then the mailbox is failed and the seat
    /// free, so the guard may only be dropped. The panic was reported, and does not unwind.
    #[inline]
    pub fn attempt<R>(&mut self, f: impl FnOnce(&mut A) -> R) -> Option<R> {
        let seat = self.seat.as_mut().expect("nothing is attempted after a panic");
        let done = self.mailbox.catch(|| f(seat.state()));
        if done.is_none() {
            self.seat = None;
            self.mailbox.fall();
        }
        done
    }

    /// Frees the seat and leaves what was queued meanwhile to the caller, who must call
    /// [`CombiningMailbox::settle`] soon. For a caller with something more urgent to do under the
    /// next seat.
    #[inline]
    pub fn release(mut self) {
        drop(self.seat.take());
    }
}

impl<A: Handler> Drop for TurnGuard<'_, A> {
    #[inline]
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            drop(seat);
            self.mailbox.settle(&mut Spent::default());
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_occupant_at_a_time() {
        let seat = Lock::new(1);
        let mut guard = seat.enter(false).expect("free");
        *guard.state() += 1;
        assert!(seat.enter(false).is_none());
        drop(guard);
        assert_eq!(*seat.enter(true).expect("free").state(), 2);
        assert!(!seat.is_failed());
    }

    #[test]
    fn a_failed_seat_stays_empty() {
        let seat = Lock::new(());
        let guard = seat.enter(false);
        seat.fail();
        drop(guard);
        assert!(seat.is_failed() && seat.enter(false).is_none() && seat.enter(true).is_none());
    }

    /// A caller panics beside the state and leaves it whole.
    #[test]
    fn an_occupant_that_unwinds_only_leaves() {
        let seat = std::sync::Arc::new(Lock::new(1));
        let other = seat.clone();
        let thread = std::thread::spawn(move || {
            let _guard = other.enter(false).expect("free");
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert!(seat.enter(false).is_some() && seat.enter(true).is_some());
    }
}
