//! An account of bytes and the claims on it.
//!
//! Guarantees: the sum of all leases never exceeds the limit (only [`Credits::take_anyway`] can put
//! it above); waiting is first come, first served, and may be dropped at any
//! point; freed bytes wake waiters but belong to nobody until one of them polls (see `room`).
//! Uncontended, taking is one compare-and-swap and giving back one subtraction.
//!
//! A [`Lease`] returns its bytes when dropped. On the hot path use the borrowed [`RawLease`] and
//! [`Lease::forget_into`]: the bytes stay taken, a memtable keeps the sum, and one
//! [`Account::release`] returns it when the memtable is published (lease-follows-bytes).
//!
//! Does not: know what the bytes are for, nor allocate them.

use super::room::{Amount, BYTES_MAX, Place, Refused, Room};
use super::sync::Arc;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A handle on an account; clones share it.
#[derive(Clone)]
pub struct Credits(Arc<Account>);

/// What the handles share: `&Account` is what the `_ref` forms borrow.
pub struct Account {
    room: Room,
}

opaque_debug!("Credits", [] Credits);
opaque_debug!("Account", [] Account);
opaque_debug!("Lease", [H: Deref<Target = Account>] Lease<H>);
opaque_debug!("Take", [] Take);

/// A claim on an account, returned when dropped. The default form owns a handle; [`RawLease`] borrows.
#[must_use = "a dropped lease returns its bytes at once"]
pub struct Lease<H: Deref<Target = Account> = Credits> {
    account: H,
    bytes: u64,
}

/// A lease that borrows its account: no reference count is touched.
pub type RawLease<'a> = Lease<&'a Account>;

impl Deref for Credits {
    type Target = Account;

    #[inline]
    fn deref(&self) -> &Account {
        &self.0
    }
}

#[inline]
fn bytes(n: u64) -> Result<Amount, Refused> {
    Amount::try_new(0, n)
}

impl Credits {
    /// An account of `limit` bytes (at most 1 TiB; more is taken as 1 TiB).
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Account { room: Room::new(Amount::new(0, limit.min(BYTES_MAX)), None) }))
    }

    /// As [`Credits::new`]; `on_wait` is called, outside all locks and on the waiter's thread,
    /// whenever somebody begins to wait. It must not block: set a [`super::Signal`] there.
    pub fn with_pressure(limit: u64, on_wait: Box<dyn Fn() + Send + Sync>) -> Self {
        let limit = Amount::new(0, limit.min(BYTES_MAX));
        Self(Arc::new(Account { room: Room::new(limit, Some(on_wait)) }))
    }

    /// Takes `n` bytes if they are there and nobody waits for them; never waits.
    pub fn try_take(&self, n: u64) -> Option<Lease> {
        self.room.try_take(bytes(n).ok()?).ok()?;
        Some(Lease { account: self.clone(), bytes: n })
    }

    /// Takes `n` bytes, waiting in line for them.
    ///
    /// # Errors
    /// `TooLarge` at once if `n` is above the limit, `Closed` when the account is closed.
    ///
    /// # Cancellation
    /// Dropped while waiting, nothing is taken and the next in line is woken.
    pub fn take(&self, n: u64) -> Take {
        Take::new(self.clone(), n)
    }

    /// Takes what is already there and only has to be counted; may exceed the limit.
    pub fn take_anyway(&self, n: u64) -> Lease {
        self.room.take_anyway(Amount::new(0, n));
        Lease { account: self.clone(), bytes: n }
    }
}

impl Account {
    /// As [`Credits::try_take`], borrowed, and says why not.
    #[inline]
    pub fn try_take_ref(&self, n: u64) -> Result<RawLease<'_>, Refused> {
        self.room.try_take(bytes(n)?)?;
        Ok(Lease { account: self, bytes: n })
    }

    /// Returns `n` bytes that were taken and forgotten. One subtraction while nobody waits.
    #[inline]
    pub fn release(&self, n: u64) {
        self.room.release(Amount::taken(0, n));
    }

    /// Bytes taken.
    pub fn used(&self) -> u64 {
        self.room.used().bytes()
    }

    /// Bytes that may be taken in all.
    pub fn limit(&self) -> u64 {
        self.room.limit().bytes()
    }

    /// Does somebody wait who has not been woken: is there less room than is wanted? One load.
    pub fn is_short(&self) -> bool {
        self.room.is_short()
    }

    /// How many futures stand in line (woken or not).
    pub fn waiters(&self) -> usize {
        self.room.waiters()
    }

    /// Refuses everybody from now on; waiters get `Closed`. Leases may still come back.
    pub fn close(&self) {
        self.room.close();
    }

    /// Has it been closed?
    pub fn is_closed(&self) -> bool {
        self.room.is_closed()
    }
}

impl Lease {
    /// Takes `n` bytes if they are there now; `passing` those who wait for more, if need be.
    pub fn try_take(account: &Credits, n: u64, passing: bool) -> Result<Self, Refused> {
        let need = bytes(n)?;
        if passing {
            account.room.try_take_passing(need)?;
        } else {
            account.room.try_take(need)?;
        }
        Ok(Self { account: account.clone(), bytes: n })
    }
}

impl<H: Deref<Target = Account>> Lease<H> {
    /// Bytes this lease holds.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the lease without returning its bytes: they are accounted elsewhere from now on, and
    /// whoever does so calls [`Account::release`] with this number one day.
    #[inline]
    pub fn forget_into(mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }
}

impl<H: Deref<Target = Account>> Drop for Lease<H> {
    #[inline]
    fn drop(&mut self) {
        self.account.release(self.bytes);
    }
}

/// Waits in line for bytes; see [`Credits::take`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Take {
    /// `None` once the lease was handed out.
    account: Option<Credits>,
    bytes: u64,
    place: Place,
}

impl Take {
    pub(super) fn new(account: Credits, bytes: u64) -> Self {
        Self { account: Some(account), bytes, place: Place::default() }
    }
}

impl Future for Take {
    type Output = Result<Lease, Refused>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let account = this.account.as_ref().expect("a finished future is not polled again");
        let need = match bytes(this.bytes) {
            Ok(need) => need,
            Err(refused) => return Poll::Ready(Err(refused)),
        };
        match account.room.poll_take(&mut this.place, need, context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(refused)) => Poll::Ready(Err(refused)),
            Poll::Ready(Ok(())) => {
                let account = this.account.take().expect("checked above");
                Poll::Ready(Ok(Lease { account, bytes: this.bytes }))
            }
        }
    }
}

impl Drop for Take {
    #[inline]
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            account.room.leave(&mut self.place);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_lease_returns_what_it_holds() {
        let credits = Credits::new(100);
        let lease = credits.try_take(60).expect("there is room");
        assert!(credits.try_take(41).is_none());
        assert_eq!((lease.bytes(), credits.used()), (60, 60));
        drop(credits.try_take(40).expect("there is room"));
        let kept = lease.forget_into();
        assert_eq!((kept, credits.used()), (60, 60));
        credits.release(kept);
        assert_eq!(credits.used(), 0);
    }

    #[test]
    fn a_borrowed_lease_counts_the_same() {
        let credits = Credits::new(10);
        let lease = credits.try_take_ref(10).expect("there is room");
        assert_eq!(credits.try_take_ref(1).map(|l| l.bytes()), Err(Refused::Full));
        assert_eq!(credits.try_take_ref(11).map(|l| l.bytes()), Err(Refused::TooLarge));
        drop(lease);
        assert_eq!(credits.try_take_ref(u64::MAX).map(|l| l.bytes()), Err(Refused::TooLarge));
        assert_eq!(credits.used(), 0);
    }

    #[test]
    fn pressure_is_reported_once_per_waiter() {
        let rung = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let bell = rung.clone();
        let credits = Credits::with_pressure(
            1,
            Box::new(move || {
                bell.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }),
        );
        let held = credits.try_take(1);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut waiting = credits.take(1);
        assert!(Pin::new(&mut waiting).poll(&mut context).is_pending());
        assert!(Pin::new(&mut waiting).poll(&mut context).is_pending());
        assert_eq!((rung.load(std::sync::atomic::Ordering::SeqCst), credits.waiters()), (1, 1));
        drop(held);
        assert!(Pin::new(&mut waiting).poll(&mut context).is_ready());
        assert_eq!((credits.used(), credits.waiters()), (0, 0), "the lease was dropped at once");
    }

    #[test]
    fn counted_bytes_may_exceed_the_limit() {
        let credits = Credits::new(10);
        let over = credits.take_anyway(25);
        assert_eq!(credits.used(), 25);
        assert!(credits.try_take(0).is_none(), "nothing goes while the account is overdrawn");
        drop(over);
        assert!(credits.try_take(10).is_some());
    }
}
