//! A semaphore: a limit, permits that hold a part of it, and a line of waiters.
//!
//! Guarantees: the sum of all permits never exceeds the limit; only [`Semaphore::acquire_anyway`]
//! goes above it. Waiting is first come, first served, and may be given up at any point. Freed room
//! is announced, never assigned: waiters are woken, but the room belongs to nobody until somebody
//! polls. So a waiter that is never polled again keeps nothing. Without contention, taking is one
//! compare-and-swap, and giving back one subtraction. Does not: know what it counts.
//!
//! ```
//! use sluicedb_kernel::semaphore::{Refused, Semaphore};
//! use sluicedb_kernel::sync::block_on;
//!
//! let semaphore = Semaphore::new(10);
//! let permit = block_on(semaphore.acquire(7)).expect("open");
//! assert_eq!(semaphore.try_acquire(4).unwrap_err(), Refused::Full);
//! let kept = permit.forget(); // something else accounts for it now
//! semaphore.try_take(2).expect("10 - 7 are free"); // as a permit, without its reference count
//! semaphore.release(kept + 2);
//! let over = semaphore.acquire_anyway(25); // it exists already, so it counts
//! assert_eq!((semaphore.used(), semaphore.limit(), semaphore.is_short()), (25, 10, false));
//! drop(over);
//! semaphore.close();
//! assert!(semaphore.is_closed() && semaphore.try_acquire_passing(1).is_err());
//! ```

use crate::sync::Arc;
use std::future::Future;

mod core;

pub(crate) use core::{Amount, Core};

/// The largest limit: 1 Ti - 1.
pub const LIMIT_MAX: u64 = core::BYTES_MAX;

/// Why there was no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not now: too much is taken, or others wait.
    #[error("full")]
    Full,
    /// The semaphore was closed.
    #[error("closed")]
    Closed,
    /// Never: the request is larger than the limit.
    #[error("larger than the whole capacity")]
    TooLarge,
}

/// A handle on a semaphore. Clones share it.
#[derive(Clone)]
pub struct Semaphore(Arc<Core>);

/// A part of a semaphore's limit. Dropping it gives the part back.
#[derive(Debug)]
#[must_use = "a dropped permit gives back what it holds at once"]
pub struct SemaphorePermit {
    semaphore: Semaphore,
    n: u64,
}

impl std::fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Semaphore({} of {})", self.used(), self.limit())
    }
}

impl Semaphore {
    /// A semaphore with this limit, at most [`LIMIT_MAX`].
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Core::new(Amount::new(0, limit.min(LIMIT_MAX)), None)))
    }

    /// As [`Semaphore::new`]. `on_wait` is called whenever somebody begins to wait, outside all
    /// locks and on the waiter's thread. It must not block: set a
    /// [`Signal`](crate::signal::Signal).
    pub fn with_wait_hook(limit: u64, on_wait: Box<dyn Fn() + Send + Sync>) -> Self {
        Self(Arc::new(Core::new(Amount::new(0, limit.min(LIMIT_MAX)), Some(on_wait))))
    }

    /// Takes `n` if that much is free and nobody waits for it. Never waits.
    ///
    /// # Errors
    /// Why not.
    pub fn try_acquire(&self, n: u64) -> Result<SemaphorePermit, Refused> {
        self.try_take(n)?;
        Ok(SemaphorePermit { semaphore: self.clone(), n })
    }

    /// As [`Semaphore::try_acquire`], but it also overtakes those who wait. For a caller at the
    /// head of another semaphore's line, who would otherwise wait in two lines at once.
    ///
    /// # Errors
    /// Why not.
    pub fn try_acquire_passing(&self, n: u64) -> Result<SemaphorePermit, Refused> {
        self.0.try_take_unless(core::CLOSED, Amount::try_new(0, n)?)?;
        Ok(SemaphorePermit { semaphore: self.clone(), n })
    }

    /// Takes `n`. Waits in line for it.
    ///
    /// # Errors
    /// `TooLarge` at once if `n` is above the limit, `Closed` when the semaphore is closed.
    ///
    /// # Cancellation
    /// If it is dropped while waiting, nothing is taken and the next waiter is woken.
    pub fn acquire(
        &self,
        n: u64,
    ) -> impl Future<Output = Result<SemaphorePermit, Refused>> + use<> {
        let semaphore = self.clone();
        async move {
            semaphore.0.take(0, n).await?;
            Ok(SemaphorePermit { semaphore, n })
        }
    }

    /// Takes `n` for something that exists already and must only be counted. May exceed the limit.
    pub fn acquire_anyway(&self, n: u64) -> SemaphorePermit {
        self.0.take_anyway(Amount::new(0, n));
        SemaphorePermit { semaphore: self.clone(), n }
    }

    /// As [`Semaphore::try_acquire`] without a permit, which would cost a reference count. The
    /// caller gives it back with [`Semaphore::release`].
    ///
    /// # Errors
    /// Why not.
    #[inline]
    pub fn try_take(&self, n: u64) -> Result<(), Refused> {
        self.0.try_take(Amount::try_new(0, n)?)
    }

    /// Gives back `n` of what was taken without a permit, or forgotten. One subtraction while
    /// nobody waits.
    #[inline]
    pub fn release(&self, n: u64) {
        self.0.release(Amount::taken(0, n));
    }

    /// How much is taken.
    pub fn used(&self) -> u64 {
        self.0.used().bytes()
    }

    /// How much may be taken in total.
    #[inline]
    pub fn limit(&self) -> u64 {
        self.0.limit.bytes()
    }

    /// Does somebody wait who has not been woken, because less is free than is wanted? One load.
    pub fn is_short(&self) -> bool {
        self.0.has(core::WAITING)
    }

    /// Refuses everybody from now on. Waiters get `Closed`. Permits may still be given back.
    pub fn close(&self) {
        self.0.close();
    }

    /// Has it been closed?
    pub fn is_closed(&self) -> bool {
        self.0.has(core::CLOSED)
    }
}

impl SemaphorePermit {
    /// Ends the permit and gives nothing back. From now on something else accounts for it, and
    /// calls [`Semaphore::release`] with this number in the end.
    #[inline]
    pub fn forget(mut self) -> u64 {
        std::mem::take(&mut self.n)
    }
}

impl Drop for SemaphorePermit {
    #[inline]
    fn drop(&mut self) {
        self.semaphore.release(self.n);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
