//! A sequencer: `visible` rises over commits in the order of their numbers, without gaps, whatever
//! the order in which their work ends.
//!
//! Guarantees (visible-without-gaps): commits are opened in order and finished in any order, share
//! by share. `visible` passes a commit only when all its shares and everything before it are
//! finished. A waiter is woken after the raise that covers it. Whoever loads a `visible` that
//! covers a share sees what the share did before `finish`.
//!
//! Nobody waits for another thread here. A thread that finds a raise running leaves a note and goes
//! on. The raising thread looks at the notes before it stops. A guard dropped unfinished fails the
//! sequencer: then nothing is raised or acknowledged any more (a running raise may complete), and
//! every waiter is told.
//!
//! Without contention, a commit costs four read-modify-writes with `try_reserve_ref` and six with
//! an owned slot. Does not: allot numbers. Whoever opens commits does.

use crate::semaphore::{Amount, Core, Limited, Refused, Take};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, Lane, Mutex, lock};
use crate::wake::wake_all;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::Pin;
use std::task::Waker;

mod wait;

pub use wait::WaitVisible;

/// The sequencer has failed: this commit will never become visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("commits have failed")]
pub struct Failed;

/// A thread is raising.
const BUSY: u64 = 1;
/// A thread finished a commit while `BUSY` was set. The raising thread must look again.
const AGAIN: u64 = 2;
/// The list of waiters is not empty.
const WAITERS: u64 = 4;
/// Nothing is raised any more.
const FAILED: u64 = 8;

/// One commit in flight. The producer writes it before `opened` covers it. The raising thread reads
/// it.
struct Cell {
    /// Shares that are not finished.
    pending: AtomicU32,
    last_number: AtomicU64,
}

#[derive(Default)]
struct Waiters {
    next_id: u64,
    list: BTreeMap<(u64, u64), Waker>,
}

/// What the handles share, and the borrowed forms borrow.
pub struct Commits {
    visible: Lane<AtomicU64>,
    /// Commits opened. Only the producer writes it.
    opened: Lane<AtomicU64>,
    /// The number of the last opened commit. Only the producer writes it.
    opened_number: AtomicU64,
    state: Lane<AtomicU64>,
    /// Commits raised. Only the holder of `BUSY` writes it.
    raised: AtomicU64,
    ring: Box<[Cell]>,
    slots: Core,
    waiters: Mutex<Waiters>,
}

/// A handle on a sequencer. Clones share it.
#[derive(Clone)]
pub struct Sequencer(Arc<Commits>);

opaque_debug!("Commits", [] Commits);
opaque_debug!("Sequencer", [] Sequencer);
opaque_debug!("Slot", [H: Deref<Target = Commits>] Slot<H>);
opaque_debug!("CommitGuard", [H: Deref<Target = Commits>] CommitGuard<H>);

impl Deref for Sequencer {
    type Target = Commits;

    #[inline]
    fn deref(&self) -> &Commits {
        &self.0
    }
}

/// A reserved place in the ring. Dropping it gives the place back.
#[must_use = "a dropped slot is given back"]
pub struct Slot<H: Deref<Target = Commits> = Sequencer> {
    /// `None` once opened.
    queue: Option<H>,
}

/// One commit's unfinished work, or a part of its shares. Finish it even if there was nothing to
/// do: dropping it unfinished fails the sequencer.
#[must_use = "a dropped guard fails the sequencer"]
pub struct CommitGuard<H: Deref<Target = Commits> = Sequencer> {
    queue: H,
    ordinal: u64,
    number: u64,
    /// Shares in this guard. 0 once finished.
    shares: u32,
    /// Is this the only guard of its commit?
    is_whole: bool,
}

impl Limited for Sequencer {
    #[inline]
    fn core(&self) -> &Core {
        &self.slots
    }
}

impl Sequencer {
    /// A sequencer in which everything up to `visible` is visible. At most `capacity` commits may
    /// be in flight. Asserts that `capacity` is a power of two.
    pub fn new(visible: u64, capacity: usize) -> Self {
        assert!(capacity.is_power_of_two(), "a ring's capacity is a power of two");
        let cell = |_| Cell { pending: AtomicU32::new(0), last_number: AtomicU64::new(0) };
        Self(Arc::new(Commits {
            visible: Lane(AtomicU64::new(visible)),
            opened: Lane(AtomicU64::new(0)),
            opened_number: AtomicU64::new(visible),
            state: Lane(AtomicU64::new(0)),
            raised: AtomicU64::new(0),
            ring: (0..capacity).map(cell).collect(),
            slots: Core::new(Amount::new(capacity as u64, 0), None),
            waiters: Mutex::new(Waiters::default()),
        }))
    }

    /// A place in the ring, if one is free now.
    pub fn try_reserve(&self) -> Result<Slot, Refused> {
        self.slots.try_take(Amount::taken(1, 0))?;
        Ok(Slot { queue: Some(self.clone()) })
    }

    /// A place in the ring. Waits in line for it. `Closed` once the sequencer has failed.
    ///
    /// # Cancellation
    /// If it is dropped while waiting, nothing is taken and the next waiter is woken.
    pub fn reserve(&self) -> impl Future<Output = Result<Slot, Refused>> + use<> {
        let mut take = Take::new(self.clone(), Amount::try_new(1, 0));
        poll_fn(move |context| {
            let taken = Pin::new(&mut take).poll(context);
            taken.map_ok(|queue| Slot { queue: Some(queue) })
        })
    }

    /// Resolves once `number` is visible, or with an error once the sequencer has failed.
    pub fn wait_visible(&self, number: u64) -> WaitVisible {
        WaitVisible::new(self.clone(), number)
    }
}

impl Commits {
    /// Everything up to this number is applied completely. One load.
    #[inline]
    pub fn visible(&self) -> u64 {
        self.visible.load(Ordering::Acquire)
    }

    /// As [`Sequencer::try_reserve`], borrowed. One compare-and-swap.
    #[inline]
    pub fn try_reserve_ref(&self) -> Result<Slot<&Commits>, Refused> {
        self.slots.try_take(Amount::taken(1, 0))?;
        Ok(Slot { queue: Some(self) })
    }

    /// Opens the next commit, with its last number and how many shares must be finished. There is
    /// one producer at a time: call it in the order of the numbers, behind a lock. Never waits.
    #[inline]
    pub fn open<H: Deref<Target = Commits>>(
        &self,
        mut slot: Slot<H>,
        last_number: u64,
        shares: u32,
    ) -> CommitGuard<H> {
        let queue = slot.queue.take().expect("a slot is opened once");
        debug_assert!(
            std::ptr::eq::<Commits>(&raw const *queue, self),
            "the slot is another sequencer's"
        );
        assert!(shares > 0, "somebody has to finish a commit");
        // A slot means that the commit one lap ago was raised, so its cell is free.
        let ordinal = self.opened.load(Ordering::Relaxed);
        assert!(
            last_number >= self.opened_number.load(Ordering::Relaxed),
            "commits are opened in the order of their numbers"
        );
        self.opened_number.store(last_number, Ordering::Relaxed);
        let cell = self.cell(ordinal);
        cell.last_number.store(last_number, Ordering::Relaxed);
        cell.pending.store(shares, Ordering::Relaxed);
        self.opened.store(ordinal + 1, Ordering::Release);
        CommitGuard { queue, ordinal, number: last_number, shares, is_whole: true }
    }

    #[inline]
    fn cell(&self, ordinal: u64) -> &Cell {
        &self.ring[ordinal as usize & (self.ring.len() - 1)]
    }

    /// Fails the sequencer. Nothing becomes visible any more, every waiter resolves with an error,
    /// and reservations are refused. Final.
    pub fn fail(&self) {
        self.state.fetch_or(FAILED, Ordering::AcqRel);
        self.slots.close();
        self.advance();
    }

    /// Raises `visible` over what is finished, or leaves a note for the raising thread.
    #[inline]
    fn advance(&self) {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            // It writes in either case, so that the raising thread sees what this thread finished.
            let next = if state & BUSY == 0 { state | BUSY } else { state | AGAIN };
            match self.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) if state & BUSY == 0 => break,
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
        state |= BUSY;
        let mut freed = 0;
        let mut wakers = Vec::new();
        loop {
            if state & FAILED == 0 {
                freed += self.raise();
            }
            if state & WAITERS != 0 && self.collect(state & FAILED != 0, &mut wakers) {
                state &= !WAITERS;
            }
            match self.state.compare_exchange(
                state,
                state & !BUSY,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                // Another thread finished a commit, began to wait, or failed the sequencer
                // meanwhile.
                Err(_) => state = self.state.fetch_and(!AGAIN, Ordering::AcqRel) & !AGAIN,
            }
        }
        if freed > 0 {
            self.slots.release(Amount::taken(freed, 0));
        }
        if !wakers.is_empty() {
            wake_all(wakers);
        }
    }

    /// Passes every finished commit at the head. Returns how many. Requires `BUSY`.
    #[inline]
    fn raise(&self) -> u64 {
        let opened = self.opened.load(Ordering::Acquire);
        let first = self.raised.load(Ordering::Relaxed);
        let mut next = first;
        let mut visible = 0;
        while next != opened {
            let cell = self.cell(next);
            if cell.pending.load(Ordering::Acquire) != 0 {
                break;
            }
            visible = cell.last_number.load(Ordering::Relaxed);
            next += 1;
        }
        if next != first {
            self.raised.store(next, Ordering::Release);
            // INVARIANT(visible-without-gaps): everything before `next` is finished.
            self.visible.store(visible, Ordering::Release);
        }
        next - first
    }

    /// Takes out the waiters that can be told. Is none left?
    #[cold]
    fn collect(&self, all: bool, wakers: &mut Vec<Waker>) -> bool {
        let visible = self.visible.load(Ordering::Relaxed);
        let mut waiters = lock(&self.waiters);
        while let Some(entry) = waiters.list.first_entry() {
            if !all && entry.key().0 > visible {
                return false;
            }
            wakers.push(entry.remove());
        }
        self.state.fetch_and(!WAITERS, Ordering::AcqRel);
        true
    }
}

impl<H: Deref<Target = Commits>> Drop for Slot<H> {
    #[inline]
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.slots.release(Amount::taken(1, 0));
        }
    }
}

impl<H: Deref<Target = Commits>> CommitGuard<H> {
    /// Splits one share off. Asserts that one is left for this guard.
    pub fn share(&mut self) -> Self
    where
        H: Clone,
    {
        assert!(self.shares > 1, "a commit has as many shares as it was opened with");
        self.shares -= 1;
        self.is_whole = false;
        let queue = self.queue.clone();
        Self { queue, ordinal: self.ordinal, number: self.number, shares: 1, is_whole: false }
    }

    /// Finishes all shares of this guard, and raises `visible` if that is possible. Returns true if
    /// `visible` covers this commit now. Otherwise another thread will raise it: await
    /// `wait_visible(number)`.
    #[inline]
    pub fn finish(mut self) -> bool {
        let shares = std::mem::take(&mut self.shares);
        let cell = self.queue.cell(self.ordinal);
        if self.is_whole {
            cell.pending.store(0, Ordering::Release);
        } else {
            // The raising thread must see the work of every share, so each one extends the release
            // sequence.
            let before = cell.pending.fetch_sub(shares, Ordering::AcqRel);
            debug_assert!(before >= shares, "shares are finished once");
            if before != shares {
                return false;
            }
        }
        self.queue.advance();
        self.queue.visible() >= self.number
    }
}

impl<H: Deref<Target = Commits>> Drop for CommitGuard<H> {
    #[inline]
    fn drop(&mut self) {
        if self.shares > 0 {
            self.queue.fail();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
