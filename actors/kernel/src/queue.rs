//! The queue inside both kinds of mailbox: room, messages, and the count of unhandled messages.
//!
//! Guarantees: whoever pushes holds room. A push into a closed queue returns the message. A message
//! is counted under the lock under which it is added. So whoever finds the count at zero overtakes
//! nobody, and whoever finds it above zero finds a message. Does not: wait. The two ends do.

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
    /// Messages that are pushed and not yet handled. Rises under the lock of `messages`.
    unhandled: AtomicUsize,
    /// Wakes the owner of the inbox. A combining mailbox has none, because its senders try the
    /// lock.
    bell: Option<Signal>,
}

struct Messages<T> {
    /// The oldest first. Each has the bytes of its room.
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

    /// Takes the oldest message and its bytes. The caller gives the room back and counts the
    /// message as handled.
    pub(crate) fn pop(&self) -> Option<(T, u64)> {
        lock(&self.messages).list.pop_front()
    }

    /// Puts back a popped message as the oldest.
    pub(crate) fn put_back(&self, message: T, bytes: u64) {
        lock(&self.messages).list.push_front((message, bytes));
    }

    /// Messages that are pushed and not yet handled. Zero means that every message this thread can
    /// know of was handled.
    #[inline]
    pub(crate) fn unhandled(&self) -> usize {
        self.unhandled.load(Ordering::Acquire)
    }

    /// Is [`Queue::unhandled`] zero? Asked after the combining lock was released. This is a
    /// read-modify-write, as the sender's is before it tries the lock, so one of the two sees what
    /// the other did.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        self.unhandled.fetch_add(0, Ordering::AcqRel) == 0
    }

    /// Counts `n` messages as handled. Called before the combining lock is released.
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

    /// Is it closed and empty? Final.
    pub(crate) fn has_ended(&self) -> bool {
        let messages = lock(&self.messages);
        messages.closed && messages.list.is_empty()
    }

    /// Ready once a message was pushed, or the queue was closed, since the last call. For an inbox.
    pub(crate) fn poll_bell(&self, context: &mut Context<'_>) -> Poll<()> {
        self.bell.as_ref().expect("an inbox has a bell").poll_wait(context)
    }

    /// Refuses later pushes. What is queued stays.
    pub(crate) fn close(&self) {
        self.room.close();
        lock(&self.messages).closed = true;
        if let Some(bell) = &self.bell {
            bell.set();
        }
    }
}
