//! The core of a semaphore. It counts one number, or two at once: messages and bytes.
//!
//! Liveness (nothing-held-while-waiting): a future that was woken and is never polled delays
//! nobody. While more than a quarter of the limit is free, everybody who fits alone is woken, in
//! order, up to the first who does not fit. Those woken earlier who have not polled do not count.
//! While less is free, a return wakes as many as the free room suffices for, counting those woken
//! earlier, plus one spare. That is enough, because what is taken then comes back without anybody's
//! poll, as long as every holder gives back, or asks for help (`on_wait`), by itself. The rule is
//! applied whenever room comes back, and whenever a waiter is polled or dropped.
//!
//! A crowd is woken at most once per quarter of the limit that was taken in between. A large
//! request is overtaken only by what arrives between its wake and its poll.

use super::Refused;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Lane, Mutex, lock};
use crate::wake::wake_all;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

const BYTES_BITS: u32 = 40;
/// Largest number of bytes: 1 TiB - 1.
pub(crate) const BYTES_MAX: u64 = (1 << BYTES_BITS) - 1;
/// Largest number of messages.
pub(crate) const COUNT_MAX: u64 = (1 << 22) - 1;
/// Somebody waits who has not been woken. Newcomers must queue, and returns must look at the list.
pub(super) const WAITING: u64 = 1 << 62;
/// Nothing is given any more.
pub(super) const CLOSED: u64 = 1 << 63;

/// A number of messages and a number of bytes in one word: `flags:2 | count:22 | bytes:40`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amount(u64);

impl Amount {
    pub(crate) const NOTHING: Self = Self(0);

    /// Asserts that both numbers fit. [`Amount::try_new`] refuses requests that do not.
    pub(crate) fn new(count: u64, bytes: u64) -> Self {
        Self::try_new(count, bytes).expect("capacities are below 4 Mi messages and 1 TiB")
    }

    #[inline]
    pub(crate) fn try_new(count: u64, bytes: u64) -> Result<Self, Refused> {
        if count > COUNT_MAX || bytes > BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        Ok(Self(count << BYTES_BITS | bytes))
    }

    /// The amount of something that was taken before, so it is known to fit.
    #[inline]
    pub(crate) fn taken(count: u64, bytes: u64) -> Self {
        debug_assert!(count <= COUNT_MAX && bytes <= BYTES_MAX, "more than was ever taken");
        Self(count << BYTES_BITS | bytes)
    }

    #[inline]
    fn of_state(state: u64) -> Self {
        Self(state & !(WAITING | CLOSED))
    }

    #[inline]
    pub(crate) fn bytes(self) -> u64 {
        self.0 & BYTES_MAX
    }

    #[inline]
    pub(crate) fn count(self) -> u64 {
        self.0 >> BYTES_BITS
    }

    fn minus_saturating(self, other: Self) -> Self {
        Self::new(
            self.count().saturating_sub(other.count()),
            self.bytes().saturating_sub(other.bytes()),
        )
    }

    /// How much may be taken while a quarter of this limit is free.
    fn three_quarters(self) -> Self {
        Self::new(self.count() - self.count() / 4, self.bytes() - self.bytes() / 4)
    }

    #[inline]
    fn within(self, limit: Self) -> bool {
        self.bytes() <= limit.bytes() && self.count() <= limit.count()
    }

    /// Would `self` be within `limit` on top of `used`? The sums cannot overflow: each number is
    /// below half of `u64`.
    #[inline]
    fn fits(self, used: Self, limit: Self) -> bool {
        self.bytes() + used.bytes() <= limit.bytes() && self.count() + used.count() <= limit.count()
    }
}

struct Waiter {
    id: u64,
    need: Amount,
    /// `None` while it has been woken and not polled since.
    waker: Option<Waker>,
}

/// A future's id in the wait list. `None` while it never had to wait. When the future is dropped,
/// it must be given to [`Core::leave`].
type Entry = Option<u64>;

#[derive(Default)]
struct WaitList {
    next_id: u64,
    /// Ids ascend, so an entry is found by bisection.
    waiting: VecDeque<Waiter>,
    /// How many of them have not been woken.
    asleep: usize,
}

impl WaitList {
    fn find(&self, id: u64) -> usize {
        let found = self.waiting.binary_search_by_key(&id, |waiter| waiter.id);
        found.expect("an entry is kept until it is left")
    }

    /// Enters at the end, or sleeps again in its place. Returns the former waker.
    fn sleep(&mut self, entry: &mut Entry, need: Amount, waker: Waker) -> Option<Waker> {
        let id = *entry.get_or_insert_with(|| {
            self.next_id += 1;
            self.waiting.push_back(Waiter { id: self.next_id, need, waker: None });
            self.next_id
        });
        let at = self.find(id);
        let former = self.waiting[at].waker.replace(waker);
        self.asleep += usize::from(former.is_none());
        former
    }

    /// Returns its waker, if it has not been woken.
    fn remove(&mut self, entry: &mut Entry) -> Option<Waker> {
        let at = self.find(entry.take()?);
        let waker = self.waiting.remove(at)?.waker;
        self.asleep -= usize::from(waker.is_some());
        waker
    }

    /// Has everybody ahead of this entry been woken?
    fn is_turn_of(&self, entry: Entry) -> bool {
        let ahead = entry.map_or(self.waiting.len(), |id| self.find(id));
        self.asleep == 0 || self.waiting.iter().take(ahead).all(|waiter| waiter.waker.is_none())
    }
}

/// See the module.
pub(crate) struct Core {
    state: Lane<AtomicU64>,
    pub(super) limit: Amount,
    list: Mutex<WaitList>,
    /// Called outside all locks whenever somebody begins to wait.
    on_wait: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Core {
    pub(crate) fn new(limit: Amount, on_wait: Option<Box<dyn Fn() + Send + Sync>>) -> Self {
        let list = Mutex::new(WaitList::default());
        Self { state: Lane(AtomicU64::new(0)), limit, list, on_wait }
    }

    pub(crate) fn used(&self) -> Amount {
        Amount::of_state(self.state.0.load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn has(&self, flag: u64) -> bool {
        self.state.0.load(Ordering::Acquire) & flag != 0
    }

    /// Takes `need` if that much is free and nobody has an older claim.
    #[inline]
    pub(crate) fn try_take(&self, need: Amount) -> Result<(), Refused> {
        self.try_take_unless(WAITING | CLOSED, need)
    }

    /// As `try_take`, but barred by these flags only.
    #[inline]
    pub(super) fn try_take_unless(&self, barred: u64, need: Amount) -> Result<(), Refused> {
        let taken = self.state.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
            let goes = state & barred == 0 && need.fits(Amount::of_state(state), self.limit);
            goes.then(|| state + need.0)
        });
        taken.map(|_| ()).map_err(|state| self.why_not(state, need))
    }

    #[cold]
    fn why_not(&self, state: u64, need: Amount) -> Refused {
        if state & CLOSED != 0 {
            Refused::Closed
        } else if need.within(self.limit) {
            Refused::Full
        } else {
            Refused::TooLarge
        }
    }

    /// Takes `need` whatever the limit says.
    pub(crate) fn take_anyway(&self, need: Amount) {
        let state = self.state.0.fetch_add(need.0, Ordering::Acquire);
        assert!(
            need.fits(Amount::of_state(state), Amount::new(COUNT_MAX, BYTES_MAX)),
            "1 TiB is out"
        );
    }

    /// Gives back. Wakes those who can go on now, after the lock is released.
    #[inline]
    pub(crate) fn release(&self, amount: Amount) {
        if amount == Amount::NOTHING {
            return;
        }
        let before = self.state.0.fetch_sub(amount.0, Ordering::Release);
        debug_assert!(amount.within(Amount::of_state(before)), "more came back than was out");
        if before & WAITING != 0 {
            self.change_list(|_| ());
        }
    }

    /// Refuses everybody from now on, including those who wait.
    pub(crate) fn close(&self) {
        self.change_list(|_| self.state.0.fetch_or(CLOSED, Ordering::AcqRel));
    }

    /// Changes the list, or what decides about those in it. Then wakes whoever may go on, and
    /// returns what was taken out, outside the lock: wakers are foreign code.
    #[cold]
    fn change_list<R>(&self, change: impl FnOnce(&mut WaitList) -> R) -> R {
        let mut wakes = Vec::new();
        let out = {
            let mut list = lock(&self.list);
            let out = change(&mut list);
            self.pump(&mut list, &mut wakes);
            out
        };
        wake_all(wakes);
        out
    }

    /// Takes so much, and waits in line for it. If it is dropped, it leaves the line.
    pub(crate) async fn take(&self, count: u64, bytes: u64) -> Result<(), Refused> {
        struct Waiting<'a>(&'a Core, Entry);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.leave(&mut self.1);
            }
        }
        let need = Amount::try_new(count, bytes)?;
        let taken = self.try_take(need);
        if taken != Err(Refused::Full) {
            return taken;
        }
        let mut waiting = Waiting(self, None);
        poll_fn(|context| self.poll_take(&mut waiting.1, need, context)).await
    }

    /// Takes `need`, or joins the line and is woken when another poll may succeed.
    #[cold]
    fn poll_take(
        &self,
        entry: &mut Entry,
        need: Amount,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Refused>> {
        // Cloned before the lock is taken and dropped after it is released: both may run foreign
        // code. So is what it replaces.
        let mut waker = Some(context.waker().clone());
        let mut begins = false;
        let (outcome, _former) = self.change_list(|list| {
            let was_asleep = entry.is_some() && self.has(WAITING);
            let outcome = self.take_or_flag(need, list.is_turn_of(*entry));
            if outcome.is_some() {
                return (outcome, list.remove(entry));
            }
            begins = !was_asleep;
            (None, waker.take().and_then(|waker| list.sleep(entry, need, waker)))
        });
        if begins && let Some(hook) = &self.on_wait {
            hook();
        }
        outcome.map_or(Poll::Pending, Poll::Ready)
    }

    /// Runs under the list's lock. Takes, refuses, or (`None`) leaves `WAITING` set on a state
    /// without enough room. Room and flag share a word, so a later return sees the flag.
    fn take_or_flag(&self, need: Amount, my_turn: bool) -> Option<Result<(), Refused>> {
        let takes = |state| my_turn && need.fits(Amount::of_state(state), self.limit);
        let before = self.state.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |state| {
            let next = if takes(state) { state + need.0 } else { state | WAITING };
            (state & CLOSED == 0).then_some(next)
        });
        match before {
            Ok(state) => takes(state).then_some(Ok(())),
            Err(_) => Some(Err(Refused::Closed)),
        }
    }

    /// Gives up waiting. What it was woken for goes to the next waiter.
    fn leave(&self, entry: &mut Entry) {
        if entry.is_some() {
            drop(self.change_list(|list| list.remove(entry)));
        }
    }

    /// Runs under the list's lock. Collects the wakers of everybody who may go on (see the module's
    /// liveness rule). Clears `WAITING` when everybody has been woken.
    fn pump(&self, list: &mut WaitList, wakes: &mut Vec<Waker>) {
        let state = self.state.0.load(Ordering::Acquire);
        let (used, limit) = (Amount::of_state(state), self.limit);
        // INVARIANT(nothing-held-while-waiting): with this much free, nothing may come back before
        // somebody takes. So everybody who could take is woken.
        let plenty = used.within(limit.three_quarters());
        // The room that is left once everybody woken has taken.
        let mut left = limit.minus_saturating(used);
        let mut spare = 1;
        let WaitList { waiting, asleep, .. } = list;
        for waiter in waiting {
            if *asleep == 0 {
                break;
            }
            if waiter.waker.is_none() {
                left = left.minus_saturating(waiter.need);
                continue;
            }
            if state & CLOSED != 0 {
                // Woken to be refused.
            } else if !waiter.need.fits(used, limit) {
                break;
            } else if plenty || waiter.need.within(left) {
                left = left.minus_saturating(waiter.need);
            } else if spare > 0 {
                // One of those woken before may never poll.
                spare -= 1;
                left = Amount::NOTHING;
            } else {
                break;
            }
            wakes.extend(waiter.waker.take());
            *asleep -= 1;
        }
        if *asleep == 0 {
            self.state.0.fetch_and(!WAITING, Ordering::AcqRel);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
