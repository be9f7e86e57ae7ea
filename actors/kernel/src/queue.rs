//! The middle of both mailboxes: room, messages, and the count that keeps one from being forgotten.
//!
//! Guarantees: who pushes holds room; a push into a closed queue hands the message back; a push is
//! counted in the same moment, so who finds the count at zero passes nobody, and who finds it above
//! zero finds a message. Does not: wait; the ends do.

use crate::mailbox::Capacity;
use crate::semaphore::{Amount, Core, Limited};
use crate::signal::Signal;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, lock};
use std::collections::VecDeque;
use std::task::{Context, Poll};

/// What both ends of a mailbox share.
pub(crate) struct Queue<T> {
    pub(crate) room: Core,
    messages: Mutex<Messages<T>>,
    /// Messages pushed and not handled yet; rises under the lock of `messages`.
    unhandled: AtomicUsize,
    /// Wakes the one who has the inbox. A combining mailbox has none: its senders try the lock.
    bell: Option<Signal>,
}

struct Messages<T> {
    /// The oldest first, each with the bytes of its room.
    list: VecDeque<(T, u64)>,
    closed: bool,
}

impl<T> Limited for Arc<Queue<T>> {
    #[inline]
    fn core(&self) -> &Core {
        &self.room
    }
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: Capacity, bell: Option<Signal>) -> Self {
        assert!(capacity.messages > 0, "a mailbox without room never receives anything");
        Self {
            room: Core::new(Amount::new(capacity.messages as u64, capacity.bytes), None),
            messages: Mutex::new(Messages { list: VecDeque::new(), closed: false }),
            unhandled: AtomicUsize::new(0),
            bell,
        }
    }

    pub(crate) fn push(&self, message: T, bytes: u64) -> Result<(), T> {
        {
            let mut messages = lock(&self.messages);
            if messages.closed {
                return Err(message);
            }
            messages.list.push_back((message, bytes));
            self.unhandled.fetch_add(1, Ordering::AcqRel);
        }
        if let Some(bell) = &self.bell {
            bell.set();
        }
        Ok(())
    }

    /// The oldest message and its bytes. The caller gives their room back, and counts it as
    /// handled.
    pub(crate) fn pop(&self) -> Option<(T, u64)> {
        lock(&self.messages).list.pop_front()
    }

    /// Puts back what was popped, as the oldest.
    pub(crate) fn put_back(&self, message: T, bytes: u64) {
        lock(&self.messages).list.push_front((message, bytes));
    }

    /// Messages pushed and not handled yet. Zero: whatever this thread knows of was handled.
    #[inline]
    pub(crate) fn unhandled(&self) -> usize {
        self.unhandled.load(Ordering::Acquire)
    }

    /// As [`Queue::unhandled`] is zero, asked after the combining lock was released. A
    /// read-modify-write, as the sender's before it tries the lock: one of the two sees what the
    /// other did.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        self.unhandled.fetch_add(0, Ordering::AcqRel) == 0
    }

    /// Counts `n` messages as handled, before the combining lock is released.
    pub(crate) fn handled(&self, n: usize) {
        self.unhandled.fetch_sub(n, Ordering::AcqRel);
    }

    /// Drops everything queued and gives its room back.
    pub(crate) fn discard(&self) {
        while let Some((message, bytes)) = self.pop() {
            self.handled(1);
            drop(message);
            self.room.release(Amount::taken(1, bytes));
        }
    }

    /// Closed and empty: it stays so.
    pub(crate) fn has_ended(&self) -> bool {
        let messages = lock(&self.messages);
        messages.closed && messages.list.is_empty()
    }

    /// Ready once something was pushed, or it was closed, since the last time. For an inbox.
    pub(crate) fn poll_bell(&self, context: &mut Context<'_>) -> Poll<()> {
        self.bell.as_ref().expect("an inbox has a bell").poll_wait(context)
    }

    /// Refuses what is pushed from now on. What is queued stays.
    pub(crate) fn close(&self) {
        self.room.close();
        lock(&self.messages).closed = true;
        if let Some(bell) = &self.bell {
            bell.set();
        }
    }
}
