//! Room for messages and bytes: the account inside mailboxes, credits and the commit queue.
//!
//! Guarantees: never more is out than the limit; who waits is served first come, first served; taking
//! uncontended is one compare-and-swap, giving back one subtraction. Freed room is announced, never
//! assigned: the waiter at the head is woken, but anybody who polls meanwhile may take it, so a waiter
//! that is never polled again keeps nothing. A newcomer passes only waiters that were woken already.
//!
//! Liveness (nothing-held-while-waiting): a future that was woken and is never polled delays nobody.
//! While more than a quarter of the room is free, everybody who fits alone is woken, in order, up to
//! the first who does not, whoever was woken before and has not come. While less is free, a return
//! wakes as many as the room is enough for, counting those woken earlier, and one spare; for then more
//! is on its way back without anybody's poll: a message is handled, a commit becomes visible, a
//! memtable at half of its account is sealed, one at less is when somebody waits for the engine's.
//! The same look is taken when a waiter comes, takes, or is dropped.
//!
//! A crowd is woken at most once per quarter of the room that was taken in between. A large request is
//! passed only by what comes between its wake and its poll; a poll that finds too little bars newcomers
//! and everybody behind it again until there is room for it. More cannot be promised to a future that
//! might never be polled again.
//!
//! Does not: know what the room is for.

use super::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use super::sync::{Lane, Mutex, lock};
use super::wake::wake_all;
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// Why room was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not now: the room is out, or others wait for it.
    #[error("full")]
    Full,
    /// Not any more.
    #[error("closed")]
    Closed,
    /// Never: the request alone is larger than the whole room.
    #[error("larger than the whole capacity")]
    TooLarge,
}

/// Called, outside all locks, whenever somebody begins to wait.
pub(crate) type WaitHook = Box<dyn Fn() + Send + Sync>;

const BYTES_BITS: u32 = 40;
/// Largest number of bytes a room can hold: 1 TiB - 1.
pub(crate) const BYTES_MAX: u64 = (1 << BYTES_BITS) - 1;
/// Largest number of messages a room can hold.
pub(crate) const COUNT_MAX: u64 = (1 << 22) - 1;
/// Somebody waits who has not been woken: newcomers queue up, returns must look at the line.
const WAITING: u64 = 1 << 62;
/// Nothing is given any more.
const CLOSED: u64 = 1 << 63;

/// A number of messages and of bytes in one word: `flags:2 | count:22 | bytes:40`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amount(u64);

impl Amount {
    pub(crate) const NOTHING: Self = Self(0);

    /// Asserts that both numbers fit; requests are capped by [`Amount::try_new`] instead.
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

    /// Of something that was taken before, so known to fit.
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

    /// What may be out while a quarter of this limit is free.
    fn three_quarters(self) -> Self {
        Self::new(self.count() - self.count() / 4, self.bytes() - self.bytes() / 4)
    }

    #[inline]
    fn within(self, limit: Self) -> bool {
        self.bytes() <= limit.bytes() && self.count() <= limit.count()
    }

    /// Would `self` more still be within `limit` when `used` is out? Sums of two fields cannot leave
    /// their bits far enough to wrap: each is below half of `u64`.
    #[inline]
    fn fits(self, used: Self, limit: Self) -> bool {
        self.bytes() + used.bytes() <= limit.bytes() && self.count() + used.count() <= limit.count()
    }
}

struct Waiter {
    id: u64,
    need: Amount,
    /// `None` once woken and not polled since.
    waker: Option<Waker>,
}

#[derive(Default)]
struct Line {
    next_id: u64,
    /// Ids ascend, so a place is found by bisection.
    waiting: VecDeque<Waiter>,
    /// How many of them have not been woken.
    asleep: usize,
}

impl Line {
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

    /// Does nobody ahead of this position sleep?
    fn is_turn_of(&self, at: usize) -> bool {
        self.asleep == 0 || self.waiting.iter().take(at).all(|waiter| waiter.waker.is_none())
    }
}

/// A future's place in the line, `None` while it never had to wait. Must be given to [`Room::leave`]
/// when the future is dropped.
#[derive(Debug, Default)]
pub(crate) struct Place(Option<u64>);

/// See the module.
pub(crate) struct Room {
    state: Lane<AtomicU64>,
    limit: Amount,
    /// Length of the line, for those who only want to know.
    waiters: AtomicUsize,
    line: Mutex<Line>,
    on_wait: Option<WaitHook>,
}

impl Room {
    pub(crate) fn new(limit: Amount, on_wait: Option<WaitHook>) -> Self {
        Self {
            state: Lane(AtomicU64::new(0)),
            limit,
            waiters: AtomicUsize::new(0),
            line: Mutex::new(Line::default()),
            on_wait,
        }
    }

    pub(crate) fn used(&self) -> Amount {
        Amount::of_state(self.state.load(Ordering::Acquire))
    }

    pub(crate) fn limit(&self) -> Amount {
        self.limit
    }

    pub(crate) fn waiters(&self) -> usize {
        self.waiters.load(Ordering::Relaxed)
    }

    /// Does somebody wait who has not been woken?
    pub(crate) fn is_short(&self) -> bool {
        self.state.load(Ordering::Acquire) & WAITING != 0
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Takes `need` if it is there and nobody has an older claim.
    #[inline]
    pub(crate) fn try_take(&self, need: Amount) -> Result<(), Refused> {
        self.try_take_unless(WAITING | CLOSED, need)
    }

    /// Takes `need` if it is there, also when others wait for more: for who has stood in line before.
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

    /// Takes `need` whatever the limit says: for what is already there and only has to be counted.
    pub(crate) fn take_anyway(&self, need: Amount) {
        let state = self.state.fetch_add(need.0, Ordering::Acquire);
        assert!(
            need.fits(Amount::of_state(state), Amount::new(COUNT_MAX, BYTES_MAX)),
            "1 TiB is out"
        );
    }

    /// Gives back; wakes who can go on now, after the lock is released.
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
        self.pump(&mut lock(&self.line), &mut wakes);
        wake_all(wakes);
    }

    /// Refuses everybody from now on, and those who wait. What is out may still come back.
    pub(crate) fn close(&self) {
        let mut wakes = Vec::new();
        {
            let mut line = lock(&self.line);
            self.state.fetch_or(CLOSED, Ordering::AcqRel);
            self.pump(&mut line, &mut wakes);
        }
        wake_all(wakes);
    }

    /// Takes `need`, or gets in line and is woken when it may be worth another poll.
    #[inline]
    pub(crate) fn poll_take(
        &self,
        place: &mut Place,
        need: Amount,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Refused>> {
        if place.0.is_none() {
            match self.try_take(need) {
                Err(Refused::Full) => {}
                settled => return Poll::Ready(settled),
            }
        }
        self.poll_in_line(place, need, context)
    }

    #[cold]
    fn poll_in_line(
        &self,
        place: &mut Place,
        need: Amount,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Refused>> {
        // Wakers are cloned before the lock and dropped after it: both may run foreign code.
        let mut waker = Some(context.waker().clone());
        let mut wakes = Vec::new();
        let mut begins = false;
        let outcome = {
            let mut line = lock(&self.line);
            let at = place.0.map(|id| line.find(id).expect("a place is kept until it is left"));
            let my_turn = line.is_turn_of(at.unwrap_or(line.waiting.len()));
            let was_short = self.is_short();
            let outcome = self.take_or_flag(need, my_turn);
            match (outcome, at) {
                (None, None) => {
                    place.0 = Some(line.push(need, waker.take()));
                    begins = true;
                    // Room may lie idle in front of sleepers because those woken for it never came.
                    self.pump(&mut line, &mut wakes);
                }
                (None, Some(at)) => {
                    line.asleep += usize::from(line.waiting[at].waker.is_none());
                    std::mem::swap(&mut line.waiting[at].waker, &mut waker);
                    begins = !was_short;
                }
                (Some(_), None) => {}
                (Some(_), Some(at)) => {
                    place.0 = None;
                    line.remove(at);
                    // There may be room for the next one too, or only this one stood in its way.
                    self.pump(&mut line, &mut wakes);
                }
            }
            self.waiters.store(line.waiting.len(), Ordering::Relaxed);
            outcome
        };
        wake_all(wakes);
        if begins && let Some(hook) = &self.on_wait {
            hook();
        }
        outcome.map_or(Poll::Pending, Poll::Ready)
    }

    /// Under the line's lock: takes, refuses, or (`None`) leaves `WAITING` set on a state in which
    /// there was not enough room. Room and flag share a word, so whoever gives back later sees it.
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

    /// Gives up a place; what it was woken for goes to the next in line.
    pub(crate) fn leave(&self, place: &mut Place) {
        let Some(id) = place.0.take() else { return };
        let mut wakes = Vec::new();
        let gone = {
            let mut line = lock(&self.line);
            let at = line.find(id).expect("a place is kept until it is left");
            let gone = line.remove(at);
            self.pump(&mut line, &mut wakes);
            self.waiters.store(line.waiting.len(), Ordering::Relaxed);
            gone
        };
        drop(gone);
        wake_all(wakes);
    }

    /// Under the line's lock: collects the wakers of everybody who may go on (see the module's
    /// liveness rule) and clears `WAITING` when nobody unwoken is left.
    fn pump(&self, line: &mut Line, wakes: &mut Vec<Waker>) {
        let state = self.state.load(Ordering::Acquire);
        let (used, limit) = (Amount::of_state(state), self.limit());
        let free = limit.minus_saturating(used);
        // INVARIANT(nothing-held-while-waiting): with so much free, nothing may come back before
        // somebody takes; so everybody who could is woken.
        let plenty = used.within(limit.three_quarters());
        // What the room is still enough for after everybody woken has come and taken.
        let mut left = free;
        let mut spare = 1;
        let Line { waiting, asleep, .. } = line;
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
                // Woken to be told.
            } else if waiter.need.within(left) || plenty && waiter.need.within(free) {
                left = left.minus_saturating(waiter.need);
            } else if waiter.need.within(free) && spare > 0 {
                // One of those woken before may never come.
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

#[cfg(all(test, not(loom)))]
mod tests;
