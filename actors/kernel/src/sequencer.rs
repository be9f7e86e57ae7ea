//! A sequencer: `visible` rises over commits in the order of their numbers, without gaps, whatever
//! the order in which their work ends.
//!
//! Guarantees (visible-without-gaps): commits are opened in order and finished in any order, share
//! by share. `visible` passes a commit only when all its shares and everything before it are
//! finished. A waiter is woken after the raise that covers it. Whoever loads a `visible` that
//! covers a share sees what the share did before `finish`.
//!
//! Nobody waits for another thread here: who finds a raise running leaves a note, which the raising
//! thread reads before it stops. A guard dropped unfinished fails the sequencer: nothing is raised
//! any more (a running raise may complete), and every waiter is told. Does not: allot numbers.
//!
//! ```
//! use sluicedb_kernel::sequencer::{Failed, Sequencer};
//! use sluicedb_kernel::sync::block_on;
//!
//! let sequencer = Sequencer::new(0, 8);
//! let slot = sequencer.try_reserve().expect("a slot"); // owned; for another thread
//! let mut first = sequencer.open(slot, 1, 2); // number 1, in two shares
//! let second = sequencer.open(sequencer.try_reserve_ref().expect("a slot"), 2, 1);
//! assert!(!second.finish()); // not visible yet: the first is not finished
//! first.share().finish();
//! assert!(first.finish());
//! assert_eq!((sequencer.visible(), block_on(sequencer.wait_visible(2))), (2, Ok(())));
//! drop(sequencer.open(block_on(sequencer.reserve()).expect("a slot"), 3, 1)); // as `fail()`
//! assert_eq!(block_on(sequencer.wait_visible(3)), Err(Failed));
//! ```

use crate::semaphore::{Amount, Core, Refused};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, Lane, Mutex, lock};
use crate::wake::wake_all;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

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

/// One commit in flight. The producer writes it before `opened` covers it.
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

struct Shared {
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
pub struct Sequencer(Arc<Shared>);

/// A reserved place in the ring. Dropping it gives the place back. `H` is the sequencer, owned or
/// borrowed.
#[must_use = "a dropped slot is given back"]
pub struct Slot<H: Borrow<Sequencer> = Sequencer> {
    /// `None` once opened.
    sequencer: Option<H>,
}

/// One commit's unfinished work, or a part of its shares. Finish it even if there was nothing to
/// do: dropping it unfinished fails the sequencer.
#[must_use = "a dropped guard fails the sequencer"]
pub struct CommitGuard<H: Borrow<Sequencer> = Sequencer> {
    sequencer: H,
    ordinal: u64,
    number: u64,
    /// Shares in this guard. 0 once finished.
    shares: u32,
    /// Is this the only guard of its commit?
    is_whole: bool,
}

/// See [`Sequencer::wait_visible`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct WaitVisible {
    sequencer: Sequencer,
    number: u64,
    id: Option<u64>,
}

opaque_debug!("Sequencer", [] Sequencer);
opaque_debug!("Slot", [H: Borrow<Sequencer>] Slot<H>);
opaque_debug!("CommitGuard", [H: Borrow<Sequencer>] CommitGuard<H>);
opaque_debug!("WaitVisible", [] WaitVisible);

impl Sequencer {
    /// A sequencer in which everything up to `visible` is visible. At most `capacity` commits may
    /// be in flight. Asserts that `capacity` is a power of two.
    pub fn new(visible: u64, capacity: usize) -> Self {
        assert!(capacity.is_power_of_two(), "a ring's capacity is a power of two");
        let cell = |_| Cell { pending: AtomicU32::new(0), last_number: AtomicU64::new(0) };
        Self(Arc::new(Shared {
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
    ///
    /// # Errors
    /// `Full`, or `Closed` once the sequencer has failed.
    pub fn try_reserve(&self) -> Result<Slot, Refused> {
        self.0.slots.try_take(Amount::taken(1, 0))?;
        Ok(Slot { sequencer: Some(self.clone()) })
    }

    /// As [`Sequencer::try_reserve`], borrowed. One compare-and-swap.
    #[inline]
    pub fn try_reserve_ref(&self) -> Result<Slot<&Self>, Refused> {
        self.0.slots.try_take(Amount::taken(1, 0))?;
        Ok(Slot { sequencer: Some(self) })
    }

    /// A place in the ring. Waits in line for it.
    ///
    /// # Errors
    /// `Closed` once the sequencer has failed.
    ///
    /// # Cancellation
    /// If it is dropped while waiting, nothing is taken and the next waiter is woken.
    pub fn reserve(&self) -> impl Future<Output = Result<Slot, Refused>> + use<> {
        let sequencer = self.clone();
        async move {
            sequencer.0.slots.take(1, 0).await?;
            Ok(Slot { sequencer: Some(sequencer) })
        }
    }

    /// Everything up to this number is applied completely. One load.
    #[inline]
    pub fn visible(&self) -> u64 {
        self.0.visible.0.load(Ordering::Acquire)
    }

    /// Resolves once `number` is visible.
    ///
    /// # Errors
    /// Once the sequencer has failed.
    ///
    /// # Cancellation
    /// Dropped at any point, it leaves nothing.
    pub fn wait_visible(&self, number: u64) -> WaitVisible {
        WaitVisible { sequencer: self.clone(), number, id: None }
    }

    /// Opens the next commit, with its last number and how many shares must be finished. There is
    /// one producer at a time: call it in the order of the numbers, behind a lock. Never waits.
    #[inline]
    pub fn open<H: Borrow<Self>>(
        &self,
        mut slot: Slot<H>,
        last_number: u64,
        shares: u32,
    ) -> CommitGuard<H> {
        let this = &*self.0;
        assert!(shares > 0, "somebody has to finish a commit");
        // A slot means that the commit one lap ago was raised, so its cell is free.
        let ordinal = this.opened.0.load(Ordering::Relaxed);
        assert!(
            last_number >= this.opened_number.load(Ordering::Relaxed),
            "commits are opened in the order of their numbers"
        );
        this.opened_number.store(last_number, Ordering::Relaxed);
        let cell = this.cell(ordinal);
        cell.last_number.store(last_number, Ordering::Relaxed);
        cell.pending.store(shares, Ordering::Relaxed);
        this.opened.0.store(ordinal + 1, Ordering::Release);
        let sequencer = slot.sequencer.take().expect("a slot is opened once");
        debug_assert!(Arc::ptr_eq(&sequencer.borrow().0, &self.0), "another sequencer's slot");
        CommitGuard { sequencer, ordinal, number: last_number, shares, is_whole: true }
    }

    /// Fails the sequencer. Nothing becomes visible any more, every waiter resolves with an error,
    /// and reservations are refused. Final.
    pub fn fail(&self) {
        self.0.state.0.fetch_or(FAILED, Ordering::AcqRel);
        self.0.slots.close();
        self.0.advance();
    }
}

impl Shared {
    #[inline]
    fn cell(&self, ordinal: u64) -> &Cell {
        &self.ring[ordinal as usize & (self.ring.len() - 1)]
    }

    /// Raises `visible` over what is finished, or leaves a note for the raising thread.
    #[inline]
    fn advance(&self) {
        // It writes in either case, so that the raising thread sees what this thread finished.
        let (Ok(before) | Err(before)) =
            self.state.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |state| {
                Some(if state & BUSY == 0 { state | BUSY } else { state | AGAIN })
            });
        if before & BUSY != 0 {
            return;
        }
        let mut state = before | BUSY;
        let mut freed = 0;
        let mut wakers = Vec::new();
        loop {
            if state & FAILED == 0 {
                freed += self.raise();
            }
            if state & WAITERS != 0 && self.collect(state & FAILED != 0, &mut wakers) {
                state &= !WAITERS;
            }
            match self.state.0.compare_exchange(
                state,
                state & !BUSY,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                // Another thread finished a commit, began to wait, or failed the sequencer
                // meanwhile.
                Err(_) => state = self.state.0.fetch_and(!AGAIN, Ordering::AcqRel) & !AGAIN,
            }
        }
        self.slots.release(Amount::taken(freed, 0));
        if !wakers.is_empty() {
            wake_all(wakers);
        }
    }

    /// Passes every finished commit at the head. Returns how many. Requires `BUSY`.
    #[inline]
    fn raise(&self) -> u64 {
        let opened = self.opened.0.load(Ordering::Acquire);
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
            self.visible.0.store(visible, Ordering::Release);
        }
        next - first
    }

    /// Takes out the waiters that can be told. Is none left?
    #[cold]
    fn collect(&self, all: bool, wakers: &mut Vec<Waker>) -> bool {
        let visible = self.visible.0.load(Ordering::Relaxed);
        let mut waiters = lock(&self.waiters);
        while let Some(entry) = waiters.list.first_entry() {
            if !all && entry.key().0 > visible {
                return false;
            }
            wakers.push(entry.remove());
        }
        self.state.0.fetch_and(!WAITERS, Ordering::AcqRel);
        true
    }
}

impl<H: Borrow<Sequencer>> Drop for Slot<H> {
    #[inline]
    fn drop(&mut self) {
        if let Some(sequencer) = &self.sequencer {
            sequencer.borrow().0.slots.release(Amount::taken(1, 0));
        }
    }
}

impl<H: Borrow<Sequencer>> CommitGuard<H> {
    /// Splits one share off. Asserts that one is left for this guard.
    pub fn share(&mut self) -> Self
    where
        H: Clone,
    {
        assert!(self.shares > 1, "a commit has as many shares as it was opened with");
        self.shares -= 1;
        self.is_whole = false;
        Self { sequencer: self.sequencer.clone(), shares: 1, ..*self }
    }

    /// Finishes all shares of this guard, and raises `visible` if that is possible. Returns true if
    /// `visible` covers this commit now. Otherwise another thread will raise it: await
    /// `wait_visible(number)`.
    #[inline]
    pub fn finish(mut self) -> bool {
        let shares = std::mem::take(&mut self.shares);
        let sequencer = self.sequencer.borrow();
        let cell = sequencer.0.cell(self.ordinal);
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
        sequencer.0.advance();
        sequencer.visible() >= self.number
    }
}

impl<H: Borrow<Sequencer>> Drop for CommitGuard<H> {
    #[inline]
    fn drop(&mut self) {
        if self.shares > 0 {
            self.sequencer.borrow().fail();
        }
    }
}

impl Future for WaitVisible {
    type Output = Result<(), Failed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let shared = &*this.sequencer.0;
        let mut has_failed = false;
        if this.sequencer.visible() < this.number {
            let waker = context.waker().clone();
            let mut waiters = lock(&shared.waiters);
            let id = *this.id.get_or_insert_with(|| {
                waiters.next_id += 1;
                waiters.next_id
            });
            let old = waiters.list.insert((this.number, id), waker);
            let state = shared.state.0.fetch_or(WAITERS, Ordering::AcqRel);
            drop(waiters);
            drop(old);
            has_failed = state & FAILED != 0;
        }
        // A raise before the flag was set did not see this waiter. This load sees that raise. The
        // raising thread looks at the flag before it stops, so a later one does see the waiter.
        if this.sequencer.visible() >= this.number {
            Poll::Ready(Ok(()))
        } else if has_failed {
            Poll::Ready(Err(Failed))
        } else {
            Poll::Pending
        }
    }
}

impl Drop for WaitVisible {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let old = lock(&self.sequencer.0.waiters).list.remove(&(self.number, id));
            drop(old);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
