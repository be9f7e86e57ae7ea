//! The guard of a caller that works on an actor's state itself.
//!
//! Guarantees: however the guard is dropped, messages that were sent meanwhile are handled after
//! the seat is free.
//! Does not: catch panics outside [`TurnGuard::attempt`]. Those fail the mailbox and unwind.

use super::lock::LockGuard;
use super::{CombiningMailbox, Handler, Spent, Turn};
use crate::wake::Hold;
use std::ops::{Deref, DerefMut};

opaque_debug!("TurnGuard", [A: Handler] TurnGuard<'_, A>);

/// The seat, taken for the caller's own work. Dropping the guard frees the seat and handles
/// messages that were sent meanwhile.
#[must_use = "the seat is free again once the guard is dropped"]
pub struct TurnGuard<'a, A: Handler> {
    mailbox: &'a CombiningMailbox<A>,
    /// `None` while dropping, and after an attempt that panicked.
    seat: Option<LockGuard<'a, A>>,
    on_own_thread: bool,
    /// Dropped last. No waker runs under the seat, or before the work that this guard owes others
    /// is done.
    _hold: Hold,
}

impl<'a, A: Handler> TurnGuard<'a, A> {
    #[inline]
    pub(super) fn new(
        mailbox: &'a CombiningMailbox<A>,
        seat: LockGuard<'a, A>,
        on_own_thread: bool,
    ) -> Self {
        Self { mailbox, seat: Some(seat), on_own_thread, _hold: Hold::new() }
    }

    /// Runs `f` and keeps the seat. `None` if `f` panicked: then the mailbox is failed and the seat
    /// free, so the guard may only be dropped. The panic was reported, and does not unwind.
    #[inline]
    pub fn attempt<R>(&mut self, f: impl FnOnce(&mut A) -> R) -> Option<R> {
        let mailbox = self.mailbox;
        match mailbox.catch(|| f(self)) {
            Ok(value) => Some(value),
            Err(message) => {
                self.seat = None;
                mailbox.fall(message);
                None
            }
        }
    }

    /// As [`TurnGuard::attempt`], then as [`TurnGuard::release`].
    #[inline]
    pub fn run_and_release<R>(mut self, f: impl FnOnce(&mut A) -> R) -> Option<R> {
        let value = self.attempt(f);
        drop(self.seat.take());
        value
    }

    /// Frees the seat and leaves what was queued meanwhile to the caller, who must call
    /// [`CombiningMailbox::settle`] soon. For a caller with something more urgent to do under the
    /// next seat.
    #[inline]
    pub fn release(mut self) {
        drop(self.seat.take());
    }
}

impl<A: Handler> Deref for TurnGuard<'_, A> {
    type Target = A;

    #[inline]
    fn deref(&self) -> &A {
        &self.seat.as_ref().expect("taken only by drop").state
    }
}

impl<A: Handler> DerefMut for TurnGuard<'_, A> {
    #[inline]
    fn deref_mut(&mut self) -> &mut A {
        &mut self.seat.as_mut().expect("taken only by drop").state
    }
}

impl<A: Handler> Drop for TurnGuard<'_, A> {
    #[inline]
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            drop(seat);
            if self.mailbox.seat.is_failed() {
                // The holder panicked outside `attempt`, or another party failed the mailbox
                // meanwhile.
                self.mailbox.queue.room.close();
                self.mailbox.discard();
                if std::thread::panicking() {
                    (self.mailbox.hooks.on_panic)("who held the seat panicked".to_owned());
                }
            } else if !self.mailbox.queue.is_settled() {
                self.mailbox.run(Turn::new(self.on_own_thread), &mut Spent::default());
            }
        }
    }
}
