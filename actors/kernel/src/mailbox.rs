//! A mailbox bounded in messages and in bytes, for actors with a thread or task of their own.
//!
//! Guarantees: room is taken first; after that sending cannot fail for lack of room, and cannot
//! wait. Messages of one sender arrive in order. Room becomes free when a message is received or a
//! permit is dropped, and waiting for it is as for a [`semaphore`](crate::semaphore). After
//! `close`, senders get `Closed`, and queued messages are still received. The end (`None`) is
//! reported only when no message can follow.
//! Does not: run anything; see [`CombiningMailbox`](crate::combining::CombiningMailbox).
//!
//! ```
//! use sluicedb_kernel::mailbox::{Capacity, Mailbox, Refused};
//! use sluicedb_kernel::sync::block_on;
//!
//! let (mailbox, mut inbox) = Mailbox::new(Capacity { messages: 2, bytes: 100 });
//! let permit = block_on(mailbox.reserve(60)).expect("open"); // waits for room, in line
//! assert_eq!(mailbox.try_reserve(60).unwrap_err(), Refused::Full);
//! permit.send("hello").expect("open"); // never waits
//! assert!(mailbox.len() == 1 && !mailbox.is_empty());
//! assert_eq!(inbox.try_recv_if(|message| message.is_empty()), None); // it stays
//! assert_eq!((block_on(inbox.recv()), inbox.try_recv()), (Some("hello"), None));
//! mailbox.close();
//! assert_eq!(block_on(inbox.recv()), None);
//! ```

pub use crate::semaphore::Refused;
use crate::semaphore::{Amount, Core};
use crate::signal::Signal;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, lock};
use crate::wake::contain;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, ready};

/// The capacity of a mailbox, in both measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Messages, 1 to 4 Mi.
    pub messages: usize,
    /// Bytes, up to 1 TiB.
    pub bytes: u64,
}

/// The sending end. Clones send to the same inbox. Dropping the last one closes the inbox, even for
/// permits that still exist.
pub struct Mailbox<T>(Arc<Queue<T>>);

/// The receiving end. One consumer.
pub struct Inbox<T>(Arc<Queue<T>>);

/// Room for one message of the reserved size. Dropping it gives the room back.
#[must_use = "a dropped permit gives its room back"]
pub struct Permit<T> {
    queue: Arc<Queue<T>>,
    bytes: u64,
    used: bool,
}

opaque_debug!("Mailbox", [T] Mailbox<T>);
opaque_debug!("Inbox", [T] Inbox<T>);
opaque_debug!("Permit", [T] Permit<T>);

impl<T> Mailbox<T> {
    /// Both ends of a new mailbox.
    pub fn new(capacity: Capacity) -> (Self, Inbox<T>) {
        let queue = Arc::new(Queue::new(capacity, Some(Signal::new())));
        (Self(Arc::clone(&queue)), Inbox(queue))
    }

    /// Room for a message of `bytes`, if there is room now and nobody waits for it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn try_reserve(&self, bytes: u64) -> Result<Permit<T>, Refused> {
        Permit::try_new(&self.0, bytes)
    }

    /// Room for a message of `bytes`. Waits in line for it.
    ///
    /// # Errors
    /// `TooLarge` at once if `bytes` is above the whole capacity, `Closed` when the mailbox closes.
    ///
    /// # Cancellation
    /// If it is dropped while waiting, nothing is taken and the next waiter is woken.
    pub fn reserve(&self, bytes: u64) -> impl Future<Output = Result<Permit<T>, Refused>> + use<T> {
        Permit::reserve(Arc::clone(&self.0), bytes)
    }

    /// Messages in the queue.
    pub fn len(&self) -> usize {
        self.0.unhandled()
    }

    /// Is the queue empty?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Refuses new messages, even from existing permits. Waiters get `Closed`. Queued messages are
    /// still received.
    pub fn close(&self) {
        self.0.close();
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.close();
        }
    }
}

impl<T> Permit<T> {
    pub(crate) fn try_new(queue: &Arc<Queue<T>>, bytes: u64) -> Result<Self, Refused> {
        queue.room.try_take(Amount::try_new(1, bytes)?)?;
        Ok(Self { queue: Arc::clone(queue), bytes, used: false })
    }

    pub(crate) async fn reserve(queue: Arc<Queue<T>>, bytes: u64) -> Result<Self, Refused> {
        queue.room.take(1, bytes).await?;
        Ok(Self { queue, bytes, used: false })
    }

    /// Takes room whether or not there is any, even after the mailbox was closed.
    pub(crate) fn anyway(queue: &Arc<Queue<T>>, bytes: u64) -> Self {
        queue.room.take_anyway(Amount::new(1, bytes));
        Self { queue: Arc::clone(queue), bytes, used: false }
    }

    /// Sends. Never waits. Into a combining mailbox this only queues:
    /// [`settle`](crate::combining::CombiningMailbox::settle) next.
    ///
    /// # Errors
    /// If the mailbox was closed meanwhile. Returns the message.
    pub fn send(mut self, message: T) -> Result<(), T> {
        self.queue.push(message, self.bytes)?;
        // From here on the room belongs to the message.
        self.used = true;
        Ok(())
    }
}

impl<T> Drop for Permit<T> {
    fn drop(&mut self) {
        if !self.used {
            self.queue.room.release(Amount::taken(1, self.bytes));
        }
    }
}

impl<T> Inbox<T> {
    /// The next message, if there is one. Its room becomes free here.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.receive()
    }

    /// The next message, if there is one and `wanted` says so. Otherwise it stays the next one.
    /// `wanted` runs under the queue's lock: it should only look.
    pub fn try_recv_if(&mut self, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        self.0.receive_if(wanted)
    }

    /// The next message. `None` when the mailbox is closed and no message can follow.
    ///
    /// # Cancellation
    /// If it is dropped, it has taken nothing.
    pub fn recv(&mut self) -> impl Future<Output = Option<T>> {
        let queue = &*self.0;
        let bell = queue.bell.as_ref().expect("an inbox has a bell");
        poll_fn(move |context| {
            loop {
                let message = queue.receive();
                if message.is_some() || queue.has_ended() {
                    return Poll::Ready(message);
                }
                ready!(pin!(bell.wait()).poll(context));
            }
        })
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        // Messages carry replies. Dropping them answers whoever waits.
        self.0.close();
        self.0.discard();
    }
}

/// What both ends of a mailbox share, of either kind. Whoever pushes holds room.
pub(crate) struct Queue<T> {
    pub(crate) room: Core,
    messages: Mutex<Messages<T>>,
    /// Messages that are pushed and not yet handled. Rises under the lock of `messages`. So whoever
    /// finds zero overtakes nobody, and whoever finds more finds a message.
    unhandled: AtomicUsize,
    /// Wakes the owner of the inbox. A combining mailbox has none, because its senders try the
    /// lock.
    bell: Option<Signal>,
    senders: AtomicUsize,
}

struct Messages<T> {
    /// The oldest first. Each has the bytes of its room.
    list: VecDeque<(T, u64)>,
    closed: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: Capacity, bell: Option<Signal>) -> Self {
        assert!(capacity.messages > 0, "a mailbox without room never receives anything");
        Self {
            room: Core::new(Amount::new(capacity.messages as u64, capacity.bytes), None),
            messages: Mutex::new(Messages { list: VecDeque::new(), closed: false }),
            unhandled: AtomicUsize::new(0),
            bell,
            senders: AtomicUsize::new(1),
        }
    }

    fn push(&self, message: T, bytes: u64) -> Result<(), T> {
        {
            let mut messages = lock(&self.messages);
            if messages.closed {
                return Err(message);
            }
            messages.list.push_back((message, bytes));
            self.unhandled.fetch_add(1, Ordering::AcqRel);
        }
        self.ring();
        Ok(())
    }

    /// Takes the oldest message and its bytes. The caller gives the room back and counts it.
    pub(crate) fn pop(&self) -> Option<(T, u64)> {
        lock(&self.messages).list.pop_front()
    }

    /// Puts back a popped message as the oldest.
    pub(crate) fn put_back(&self, message: T, bytes: u64) {
        lock(&self.messages).list.push_front((message, bytes));
    }

    /// Takes the oldest message, and gives its room back.
    fn receive(&self) -> Option<T> {
        self.receive_if(|_| true)
    }

    /// Takes the oldest message if it is wanted, and gives its room back.
    fn receive_if(&self, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let (message, bytes) = {
            let mut messages = lock(&self.messages);
            let is_wanted = messages.list.front().is_some_and(|(message, _)| wanted(message));
            if is_wanted { messages.list.pop_front() } else { None }
        }?;
        self.handled(1);
        self.room.release(Amount::taken(1, bytes));
        Some(message)
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

    /// Drops everything queued and gives its room back, so replies say `Lost`.
    pub(crate) fn discard(&self) {
        while let Some(message) = self.receive() {
            // Its panic must not keep the others. The mailbox has ended, so nobody can be told.
            let _ = contain(|| drop(message));
        }
    }

    /// Is it closed and empty? Final.
    fn has_ended(&self) -> bool {
        let messages = lock(&self.messages);
        messages.closed && messages.list.is_empty()
    }

    /// Refuses later pushes. What is queued stays.
    pub(crate) fn close(&self) {
        self.room.close();
        lock(&self.messages).closed = true;
        self.ring();
    }

    fn ring(&self) {
        self.bell.iter().for_each(Signal::set);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
