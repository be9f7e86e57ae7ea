//! The core of a semaphore. It counts one number, or two at once: messages and bytes.
//!
//! Guarantees: what is taken never exceeds the limit. Waiters are served first come, first served.
//! Without contention, taking is one compare-and-swap, and giving back one subtraction. A newcomer
//! overtakes only waiters that have been woken.
//!
//! Liveness (nothing-held-while-waiting): a future that was woken and is never polled delays
//! nobody. While more than a quarter of the limit is free, everybody who fits alone is woken, in
//! order, up to the first who does not fit. Those woken earlier who have not polled do not count.
//! While less is free, a return wakes as many as the free room suffices for, counting those woken
//! earlier, plus one spare. That is enough, because what is taken then comes back without anybody's
//! poll, as long as every holder gives back, or asks for help (`on_wait`), by itself. The same rule
//! is applied when a waiter arrives, takes, or is dropped.
//!
//! A crowd is woken at most once per quarter of the limit that was taken in between. A large
//! request is overtaken only by what arrives between its wake and its poll. A poll that finds too
//! little room bars newcomers, and everybody behind it, again until there is room for it. A future
//! that may never be polled again cannot be promised more.

use super::Refused;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Lane, Mutex, lock};
use crate::wake::wake_all;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Called outside all locks whenever somebody begins to wait.
pub(crate) type WaitHook = Box<dyn Fn() + Send + Sync>;

const BYTES_BITS: u32 = 40;
/// Largest number of bytes: 1 TiB - 1.
pub(crate) const BYTES_MAX: u64 = (1 << BYTES_BITS) - 1;
/// Largest number of messages.
pub(crate) const COUNT_MAX: u64 = (1 << 22) - 1;
/// Somebody waits who has not been woken. Newcomers must queue, and returns must look at the list.
const WAITING: u64 = 1 << 62;
/// Nothing is given any more.
const CLOSED: u64 = 1 << 63;

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
    pub(crate) fn of_state(state: u64) -> Self {
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

#[derive(Default)]
struct WaitList {
    next_id: u64,
    /// Ids ascend, so an entry is found by bisection.
    waiting: VecDeque<Waiter>,
    /// How many of them have not been woken.
    asleep: usize,
}

impl WaitList {
    fn find(&self, id: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&id, |waiter| waiter.id).ok()
    }

    fn push(&mut self, need: Amount, waker: Option<Waker>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.asleep += usize::from(waker.is_some());
        self.waiting.push_back(Waiter { id, need, waker });
        id
    }

    fn remove(&mut self, at: usize) -> Option<Waiter> {
        let gone = self.waiting.remove(at)?;
        self.asleep -= usize::from(gone.waker.is_some());
        Some(gone)
    }

    /// Has everybody ahead of this position been woken?
    fn is_turn_of(&self, at: usize) -> bool {
        self.asleep == 0 || self.waiting.iter().take(at).all(|waiter| waiter.waker.is_none())
    }
}

/// A future's id in the wait list. `None` while it never had to wait. When the future is dropped,
/// it must be given to [`Core::leave`].
type Entry = Option<u64>;

/// See the module.
pub(crate) struct Core {
    state: Lane<AtomicU64>,
    limit: Amount,
    list: Mutex<WaitList>,
    on_wait: Option<WaitHook>,
}

impl Core {
    pub(crate) fn new(limit: Amount, on_wait: Option<WaitHook>) -> Self {
        Self {
            state: Lane(AtomicU64::new(0)),
            limit,
            list: Mutex::new(WaitList::default()),
            on_wait,
        }
    }

    pub(crate) fn used(&self) -> Amount {
        Amount::of_state(self.state.load(Ordering::Acquire))
    }

    pub(crate) fn limit(&self) -> Amount {
        self.limit
    }

    /// Does somebody wait who has not been woken?
    pub(crate) fn is_short(&self) -> bool {
        self.state.load(Ordering::Acquire) & WAITING != 0
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Takes `need` if that much is free and nobody has an older claim.
    #[inline]
    pub(crate) fn try_take(&self, need: Amount) -> Result<(), Refused> {
        self.try_take_unless(WAITING | CLOSED, need)
    }

    /// Takes `need` if that much is free, even when others wait. For a caller who has waited in
    /// another line.
    pub(crate) fn try_take_passing(&self, need: Amount) -> Result<(), Refused> {
        self.try_take_unless(CLOSED, need)
    }

    #[inline]
    fn try_take_unless(&self, barred: u64, need: Amount) -> Result<(), Refused> {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            if state & barred != 0 || !need.fits(Amount::of_state(state), self.limit()) {
                return Err(self.why_not(state, need));
            }
            match self.state.compare_exchange_weak(
                state,
                state + need.0,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(now) => state = now,
            }
        }
    }

    #[cold]
    fn why_not(&self, state: u64, need: Amount) -> Refused {
        if state & CLOSED != 0 {
            Refused::Closed
        } else if need.within(self.limit()) {
            Refused::Full
        } else {
            Refused::TooLarge
        }
    }

    /// Takes `need` whatever the limit says: for something that exists already and must only be
    /// counted.
    pub(crate) fn take_anyway(&self, need: Amount) {
        let state = self.state.fetch_add(need.0, Ordering::Acquire);
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
        let before = self.state.fetch_sub(amount.0, Ordering::Release);
        debug_assert!(amount.within(Amount::of_state(before)), "more came back than was out");
        if before & WAITING != 0 {
            self.announce();
        }
    }

    #[cold]
    fn announce(&self) {
        let mut wakes = Vec::new();
        self.pump(&mut lock(&self.list), &mut wakes);
        wake_all(wakes);
    }

    /// Refuses everybody from now on, including those who wait. What is taken may still be given
    /// back.
    pub(crate) fn close(&self) {
        let mut wakes = Vec::new();
        {
            let mut list = lock(&self.list);
            self.state.fetch_or(CLOSED, Ordering::AcqRel);
            self.pump(&mut list, &mut wakes);
        }
        wake_all(wakes);
    }

    /// Takes `need`, or joins the line and is woken when another poll may succeed.
    #[inline]
    fn poll_take(
        &self,
        entry: &mut Entry,
        need: Amount,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Refused>> {
        if entry.is_none() {
            match self.try_take(need) {
                Err(Refused::Full) => {}
                settled => return Poll::Ready(settled),
            }
        }
        self.poll_in_list(entry, need, context)
    }

    #[cold]
    fn poll_in_list(
        &self,
        entry: &mut Entry,
        need: Amount,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Refused>> {
        // Wakers are cloned before the lock is taken and dropped after it is released: both may run
        // foreign code.
        let mut waker = Some(context.waker().clone());
        let mut wakes = Vec::new();
        let mut begins = false;
        // Dropped after the lock is released, because its waker is foreign code.
        let mut gone = None;
        let outcome = {
            let mut list = lock(&self.list);
            let at = entry.map(|id| list.find(id).expect("an entry is kept until it is left"));
            let my_turn = list.is_turn_of(at.unwrap_or(list.waiting.len()));
            let was_short = self.is_short();
            let outcome = self.take_or_flag(need, my_turn);
            match (outcome, at) {
                (None, None) => {
                    *entry = Some(list.push(need, waker.take()));
                    begins = true;
                    // Room may be unused although waiters sleep, because those woken for it never
                    // polled.
                    self.pump(&mut list, &mut wakes);
                }
                (None, Some(at)) => {
                    list.asleep += usize::from(list.waiting[at].waker.is_none());
                    std::mem::swap(&mut list.waiting[at].waker, &mut waker);
                    begins = !was_short;
                }
                (Some(_), None) => {}
                (Some(_), Some(at)) => {
                    *entry = None;
                    gone = list.remove(at);
                    // There may be room for the next waiter, too, or only this one was in its way.
                    self.pump(&mut list, &mut wakes);
                }
            }
            outcome
        };
        drop(gone);
        wake_all(wakes);
        if begins && let Some(hook) = &self.on_wait {
            hook();
        }
        outcome.map_or(Poll::Pending, Poll::Ready)
    }

    /// Runs under the list's lock. Takes, refuses, or (`None`) leaves `WAITING` set on a state
    /// without enough room. Room and flag share a word, so a later return sees the flag.
    fn take_or_flag(&self, need: Amount, my_turn: bool) -> Option<Result<(), Refused>> {
        let limit = self.limit();
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            if state & CLOSED != 0 {
                return Some(Err(Refused::Closed));
            }
            if !need.within(limit) {
                return Some(Err(Refused::TooLarge));
            }
            let takes = my_turn && need.fits(Amount::of_state(state), limit);
            let next = if takes { state + need.0 } else { state | WAITING };
            if next == state && !takes {
                return None;
            }
            match self.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if takes => return Some(Ok(())),
                Ok(_) => return None,
                Err(now) => state = now,
            }
        }
    }

    /// Gives up waiting. What it was woken for goes to the next waiter.
    fn leave(&self, entry: &mut Entry) {
        let Some(id) = entry.take() else { return };
        let mut wakes = Vec::new();
        let gone = {
            let mut list = lock(&self.list);
            let at = list.find(id).expect("an entry is kept until it is left");
            let gone = list.remove(at);
            self.pump(&mut list, &mut wakes);
            gone
        };
        drop(gone);
        wake_all(wakes);
    }

    /// Runs under the list's lock. Collects the wakers of everybody who may go on (see the module's
    /// liveness rule). Clears `WAITING` when everybody has been woken.
    fn pump(&self, list: &mut WaitList, wakes: &mut Vec<Waker>) {
        let state = self.state.load(Ordering::Acquire);
        let (used, limit) = (Amount::of_state(state), self.limit());
        let free = limit.minus_saturating(used);
        // INVARIANT(nothing-held-while-waiting): with this much free, nothing may come back before
        // somebody takes. So everybody who could take is woken.
        let plenty = used.within(limit.three_quarters());
        // The room that is left once everybody woken has taken.
        let mut left = free;
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
            let hopeless = state & CLOSED != 0 || !waiter.need.within(limit);
            if hopeless {
                // Woken to be refused.
            } else if waiter.need.within(left) || plenty && waiter.need.within(free) {
                left = left.minus_saturating(waiter.need);
            } else if waiter.need.within(free) && spare > 0 {
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
            self.state.fetch_and(!WAITING, Ordering::AcqRel);
        }
    }
}

/// Has a core.
pub(crate) trait Limited {
    fn core(&self) -> &Core;
}

/// Waits in line for a part of what its owner limits. Returns the owner when it has taken it.
pub(crate) struct Take<H: Limited> {
    /// `None` once it has taken.
    owner: Option<H>,
    need: Result<Amount, Refused>,
    entry: Entry,
}

impl<H: Limited> Take<H> {
    pub(crate) fn new(owner: H, need: Result<Amount, Refused>) -> Self {
        Self { owner: Some(owner), need, entry: None }
    }
}

impl<H: Limited + Unpin> Future for Take<H> {
    type Output = Result<H, Refused>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let owner = this.owner.as_ref().expect("a finished future is not polled again");
        let need = match this.need {
            Ok(need) => need,
            Err(refused) => return Poll::Ready(Err(refused)),
        };
        owner
            .core()
            .poll_take(&mut this.entry, need, context)
            .map_ok(|()| this.owner.take().expect("checked above"))
    }
}

impl<H: Limited> Drop for Take<H> {
    fn drop(&mut self) {
        if let Some(owner) = &self.owner {
            owner.core().leave(&mut self.entry);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
