//! A mailbox bounded in messages and in bytes, for actors that run on a thread or task of their
//! own.
//!
//! Guarantees: room is taken first; after that sending cannot fail for lack of room, and cannot
//! wait. Messages of one sender arrive in order. Room becomes free when a message is received or a
//! permit is dropped. It is announced to the waiter at the head of the line, never assigned (see
//! [`semaphore`](crate::semaphore)). After `close`, senders get `Closed`, and queued messages are
//! still received. The end (`None`) is reported only when no message can follow.
//!
//! Does not: run anything. An actor that its callers run has a
//! [`CombiningMailbox`](crate::combining::CombiningMailbox).

use crate::queue::Queue;
pub use crate::semaphore::Refused;
use crate::semaphore::{Amount, Take};
use crate::signal::Signal;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicUsize, Ordering};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

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
pub struct Mailbox<T> {
    queue: Arc<Queue<T>>,
    senders: Arc<AtomicUsize>,
}

/// The receiving end. One consumer.
pub struct Inbox<T> {
    queue: Arc<Queue<T>>,
}

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
    pub fn new(capacity: Capacity) -> (Mailbox<T>, Inbox<T>) {
        let queue = Arc::new(Queue::new(capacity, Some(Signal::new())));
        let senders = Arc::new(AtomicUsize::new(1));
        (Mailbox { queue: Arc::clone(&queue), senders }, Inbox { queue })
    }

    /// Room for a message of `bytes`, if there is room now and nobody waits for it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn try_reserve(&self, bytes: u64) -> Result<Permit<T>, Refused> {
        Permit::try_new(Arc::clone(&self.queue), bytes)
    }

    /// Room for a message of `bytes`. Waits in line for it.
    ///
    /// # Errors
    /// `TooLarge` at once if `bytes` is above the whole capacity, `Closed` when the mailbox closes.
    ///
    /// # Cancellation
    /// If it is dropped while waiting, nothing is taken and the next waiter is woken.
    pub fn reserve(&self, bytes: u64) -> impl Future<Output = Result<Permit<T>, Refused>> + use<T> {
        Permit::reserve(Arc::clone(&self.queue), bytes)
    }

    /// Messages in the queue.
    pub fn len(&self) -> usize {
        self.queue.unhandled()
    }

    /// Is the queue empty?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Refuses new messages, even from existing permits. Waiters get `Closed`. Queued messages are
    /// still received.
    pub fn close(&self) {
        self.queue.close();
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        self.senders.fetch_add(1, Ordering::Relaxed);
        Self { queue: Arc::clone(&self.queue), senders: Arc::clone(&self.senders) }
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        if self.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.queue.close();
        }
    }
}

impl<T> Permit<T> {
    pub(crate) fn try_new(queue: Arc<Queue<T>>, bytes: u64) -> Result<Self, Refused> {
        queue.room.try_take(Amount::try_new(1, bytes)?)?;
        Ok(Self { queue, bytes, used: false })
    }

    pub(crate) fn reserve(
        queue: Arc<Queue<T>>,
        bytes: u64,
    ) -> impl Future<Output = Result<Self, Refused>> + use<T> {
        let mut take = Take::new(queue, Amount::try_new(1, bytes));
        poll_fn(move |context| {
            let taken = Pin::new(&mut take).poll(context);
            taken.map_ok(|queue| Self { queue, bytes, used: false })
        })
    }

    /// Takes room whether or not there is any, even after the mailbox was closed.
    pub(crate) fn anyway(queue: Arc<Queue<T>>, bytes: u64) -> Self {
        let need = Amount::try_new(1, bytes).expect("what fits into one mailbox fits into another");
        queue.room.take_anyway(need);
        Self { queue, bytes, used: false }
    }

    /// Sends. Never waits. Into a combining mailbox this only queues: call
    /// [`deliver`](crate::combining::CombiningMailbox::deliver) next.
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
        let (message, bytes) = self.queue.pop()?;
        self.queue.handled(1);
        self.queue.room.release(Amount::taken(1, bytes));
        Some(message)
    }

    /// The next message. `None` when the mailbox is closed and no message can follow.
    ///
    /// # Cancellation
    /// If it is dropped, it has taken nothing.
    pub fn recv(&mut self) -> impl Future<Output = Option<T>> {
        poll_fn(|context| self.poll_recv(context))
    }

    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            if let Some(message) = self.try_recv() {
                return Poll::Ready(Some(message));
            }
            if self.queue.has_ended() {
                return Poll::Ready(None);
            }
            if self.queue.poll_bell(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        // Messages carry replies. Dropping them answers whoever waits.
        self.queue.close();
        self.queue.discard();
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
