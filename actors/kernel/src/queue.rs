//! The middle of both mailboxes: room, messages, and the counts that keep one from being forgotten.
//!
//! Guarantees: who pushes holds room; a push into a closed inbox hands the message back, one into
//! an inbox that is going away is dropped by one side or the other, so the replies in it resolve; a
//! push for a combining lock is counted in such a way that the pusher or the lock's holder handles
//! it. Does not: wait; the ends do.

use crate::mailbox::Capacity;
use crate::semaphore::{Amount, Core, Limited};
use crate::signal::Signal;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Fifo, Mutex, lock};
use std::task::{Context, Poll};

/// Who takes messages out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// The one who has the inbox, woken by the bell.
    Inbox,
    /// Whoever gets the combining lock; a sender tries it after sending.
    Combiner,
}

/// No new sends; those under way are counted in the low bits.
const CLOSED: u64 = 1 << 63;
/// The inbox is gone: whoever sends last empties the queue.
const GONE: u64 = 1 << 62;

/// One send begun, in [`Queue::counts`].
const BEGUN: u64 = 1;
/// One message pushed. In the high half, which may wrap below zero without touching the low one.
const PUSHED: u64 = 1 << 32;

fn pushed(counts: u64) -> u32 {
    ((counts >> 32) as u32).cast_signed().max(0) as u32
}

impl<T> Limited for Arc<Queue<T>> {
    #[inline]
    fn core(&self) -> &Core {
        &self.room
    }
}

/// What both ends of a mailbox share.
pub(crate) struct Queue<T> {
    pub(crate) room: Core,
    messages: Fifo<(T, u64)>,
    /// The oldest message, taken out by the lock's holder and found too much for its turn. Still
    /// counted. The flag spares everybody else the lock.
    held: Mutex<Option<(T, u64)>>,
    has_held: AtomicBool,
    /// For combining locks only: sends begun and not handled in the low half, messages pushed and
    /// not handled in the high half. The first is never too low, so who finds it zero passes
    /// nobody; the second is never too high, so who finds it above zero finds a message. It is too
    /// low while a push is under way, even below zero, but who pushes tries the lock afterwards.
    counts: AtomicU64,
    /// `CLOSED`, `GONE` and the number of sends under way; for inboxes only.
    sends: AtomicU64,
    bell: Signal,
    driver: Driver,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: Capacity, driver: Driver) -> Self {
        assert!(capacity.messages > 0, "a mailbox without room never receives anything");
        Self {
            room: Core::new(Amount::new(capacity.messages as u64, capacity.bytes), None),
            messages: Fifo::new(capacity.messages),
            held: Mutex::new(None),
            has_held: AtomicBool::new(false),
            counts: AtomicU64::new(0),
            sends: AtomicU64::new(0),
            bell: Signal::new(),
            driver,
        }
    }

    pub(crate) fn push(&self, message: T, bytes: u64) -> Result<(), T> {
        if self.driver == Driver::Combiner {
            // No bell: the sender tries the lock next.
            self.counts.fetch_add(BEGUN, Ordering::AcqRel);
            self.messages.push((message, bytes));
            self.counts.fetch_add(PUSHED, Ordering::AcqRel);
            return Ok(());
        }
        if self.sends.fetch_add(1, Ordering::AcqRel) & CLOSED != 0 {
            self.end_send();
            return Err(message);
        }
        self.messages.push((message, bytes));
        self.end_send();
        Ok(())
    }

    fn end_send(&self) {
        if self.sends.fetch_sub(1, Ordering::AcqRel) & GONE != 0 {
            self.discard();
        }
        self.bell.set();
    }

    /// The oldest message and its bytes. The caller gives their room back.
    pub(crate) fn pop(&self) -> Option<(T, u64)> {
        if self.has_held.load(Ordering::Acquire) {
            self.has_held.store(false, Ordering::Relaxed);
            return lock(&self.held).take();
        }
        self.messages.pop()
    }

    /// Puts back what the holder of the lock popped, as the oldest.
    pub(crate) fn hold(&self, message: T, bytes: u64) {
        *lock(&self.held) = Some((message, bytes));
        self.has_held.store(true, Ordering::Release);
    }

    /// Sends begun and not handled yet. Zero: whatever this thread knows of was handled.
    #[inline]
    pub(crate) fn unhandled(&self) -> u32 {
        self.counts.load(Ordering::Acquire) as u32
    }

    /// Messages that are surely in the queue, or taken out and not yet counted as handled.
    pub(crate) fn pushed(&self) -> u32 {
        pushed(self.counts.load(Ordering::Acquire))
    }

    /// As [`Queue::pushed`] is zero, asked after the lock was released. A read-modify-write, as the
    /// sender's count before it tries the lock: one of the two sees what the other did.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        pushed(self.counts.fetch_add(0, Ordering::AcqRel)) == 0
    }

    /// Counts `n` messages as handled, before the lock is released.
    pub(crate) fn handled(&self, n: u32) {
        self.counts.fetch_sub(u64::from(n) * (PUSHED + BEGUN), Ordering::AcqRel);
    }

    /// Drops everything queued and gives its room back.
    pub(crate) fn discard(&self) {
        // The held one by its lock: a holder that puts one back after this sees that the lock
        // failed.
        let held = lock(&self.held).take();
        for (message, bytes) in held.into_iter().chain(std::iter::from_fn(|| self.messages.pop())) {
            if self.driver == Driver::Combiner {
                self.handled(1);
            }
            drop(message);
            self.room.release(Amount::taken(1, bytes));
        }
    }
}

impl<T> Queue<T> {
    /// Messages in the queue.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// For inboxes: closed, and no send under way. An empty queue stays empty after that.
    pub(crate) fn no_send_can_follow(&self) -> bool {
        self.sends.load(Ordering::Acquire) == CLOSED
    }

    /// For inboxes: ready once something was sent or closed since the last time.
    pub(crate) fn poll_bell(&self, context: &mut Context<'_>) -> Poll<()> {
        self.bell.poll_wait(context)
    }

    /// The inbox goes away. Messages carry replies: dropping them answers whoever waits. A send
    /// that is under way sees `GONE` when it ends and does the same.
    pub(crate) fn abandon(&self) {
        self.room.close();
        self.sends.fetch_or(CLOSED | GONE, Ordering::AcqRel);
        self.discard();
    }

    pub(crate) fn close(&self) {
        self.room.close();
        self.sends.fetch_or(CLOSED, Ordering::AcqRel);
        self.bell.set();
    }
}
