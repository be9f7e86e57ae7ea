//! The middle of a mailbox: room, queue, and the counts that keep a message from being forgotten.
//!
//! Guarantees: who pushes holds room; a push into a closed inbox hands the message back, one into an
//! inbox that is going away is dropped by one side or the other, so the replies in it resolve; a push
//! into a seat's line is counted in such a way that the pusher or the seat's occupant handles it.
//! Does not: wait; the ends do.

use super::mailbox::Capacity;
use super::room::{Amount, Room};
use super::signal::Signal;
use super::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use super::sync::{Mutex, Queue, lock};
use std::task::{Context, Poll};

opaque_debug!("Line", [T] Line<T>);

/// Who takes messages out of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// One thread with an [`Inbox`], woken by the bell.
    Inbox,
    /// Whoever gets the seat; a sender tries it after sending.
    Seat,
}

/// No new sends; those under way are counted in the low bits.
const CLOSED: u64 = 1 << 63;
/// The inbox is gone: whoever sends last empties the queue.
const GONE: u64 = 1 << 62;

/// One send begun, in [`Line::counts`].
const BEGUN: u64 = 1;
/// One message pushed. In the high half, which may wrap below zero without touching the low one.
const PUSHED: u64 = 1 << 32;

fn pushed(counts: u64) -> u32 {
    ((counts >> 32) as u32).cast_signed().max(0) as u32
}

/// What both ends of a mailbox share.
pub(crate) struct Line<T> {
    pub(crate) room: Room,
    queue: Queue<(T, u64)>,
    /// The oldest message, taken out by a seat's occupant and found too much for its turn. Still
    /// counted. The flag spares everybody else the lock.
    held: Mutex<Option<(T, u64)>>,
    has_held: AtomicBool,
    /// For seats only: sends begun and not handled in the low half, messages pushed and not handled
    /// in the high half. The first is never too low, so who finds it zero passes nobody; the second
    /// is never too high, so who finds it above zero finds a message. It is too low while a push is
    /// under way, even below zero, but who pushes tries the seat afterwards.
    counts: AtomicU64,
    /// `CLOSED`, `GONE` and the number of sends under way; for inboxes only.
    sends: AtomicU64,
    bell: Signal,
    driver: Driver,
}

impl<T> Line<T> {
    pub(crate) fn new(capacity: Capacity, driver: Driver) -> Self {
        assert!(capacity.messages > 0, "a mailbox without room never receives anything");
        Self {
            room: Room::new(Amount::new(capacity.messages as u64, capacity.bytes), None),
            queue: Queue::new(capacity.messages),
            held: Mutex::new(None),
            has_held: AtomicBool::new(false),
            counts: AtomicU64::new(0),
            sends: AtomicU64::new(0),
            bell: Signal::new(),
            driver,
        }
    }

    pub(crate) fn push(&self, message: T, bytes: u64) -> Result<(), T> {
        if self.driver == Driver::Seat {
            // No bell: the sender tries the seat next.
            self.counts.fetch_add(BEGUN, Ordering::AcqRel);
            self.queue.push((message, bytes));
            self.counts.fetch_add(PUSHED, Ordering::AcqRel);
            return Ok(());
        }
        if self.sends.fetch_add(1, Ordering::AcqRel) & CLOSED != 0 {
            self.end_send();
            return Err(message);
        }
        self.queue.push((message, bytes));
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
        self.queue.pop()
    }

    /// Puts back what the occupant of the seat popped, as the oldest.
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

    /// As [`Line::pushed`] is zero, asked after the seat was freed. A read-modify-write, as the
    /// sender's count before it tries the seat: one of the two sees what the other did.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        pushed(self.counts.fetch_add(0, Ordering::AcqRel)) == 0
    }

    /// Counts `n` messages as handled, before the seat is freed.
    pub(crate) fn handled(&self, n: u32) {
        self.counts.fetch_sub(u64::from(n) * (PUSHED + BEGUN), Ordering::AcqRel);
    }

    /// Drops everything queued and gives its room back.
    pub(crate) fn discard(&self) {
        // The held one by its lock: an occupant that holds one after this sees that the seat failed.
        let held = lock(&self.held).take();
        for (message, bytes) in held.into_iter().chain(std::iter::from_fn(|| self.queue.pop())) {
            if self.driver == Driver::Seat {
                self.handled(1);
            }
            drop(message);
            self.room.release(Amount::taken(1, bytes));
        }
    }
}

impl<T> Line<T> {
    /// Messages in the queue.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// For inboxes: closed, and no send under way. An empty queue stays empty after that.
    pub(crate) fn no_send_can_follow(&self) -> bool {
        self.sends.load(Ordering::Acquire) == CLOSED
    }

    /// For inboxes: ready once something was sent or closed since the last time.
    pub(crate) fn poll_bell(&self, context: &mut Context<'_>) -> Poll<()> {
        self.bell.poll_wait(context)
    }

    /// The inbox goes away. Messages carry replies: dropping them answers whoever waits. A send that
    /// is under way sees `GONE` when it ends and does the same.
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
