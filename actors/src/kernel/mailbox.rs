//! A mailbox bounded in messages and in bytes, for actors that run on a thread of their own.
//!
//! Guarantees: room first, then sending cannot fail or wait; messages of one sender arrive in order;
//! room comes back when a message is received (or a permit dropped) and is announced to the waiter at
//! the head of the line, never assigned (see `room`). After `close`, senders get `Closed` and what was
//! queued still comes out; the end (`None`) is reported only when no message can follow.
//!
//! Does not: run anything; an actor that its callers run has a `SeatMailbox`.

use super::line::{Driver, Line};
use super::room::{Amount, Place, Refused};
use super::sync::Arc;
use super::sync::atomic::{AtomicUsize, Ordering};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// How much a mailbox holds, in both measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Messages, 1 to 4 Mi.
    pub messages: usize,
    /// Bytes, up to 1 TiB.
    pub bytes: u64,
}

/// The sending end; clones send to the same inbox. Dropping the last one closes the inbox, also for
/// permits that are still out.
pub struct Mailbox<T> {
    line: Arc<Line<T>>,
    senders: Arc<AtomicUsize>,
}

/// The receiving end: one consumer.
pub struct Inbox<T> {
    line: Arc<Line<T>>,
}

/// Room for one message of the reserved size; given back when dropped.
#[must_use = "a dropped permit gives its room back"]
pub struct Permit<T> {
    line: Arc<Line<T>>,
    bytes: u64,
    used: bool,
}

/// Waits in line for room; see [`Mailbox::reserve`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Reserve<T> {
    /// `None` once the permit was handed out.
    line: Option<Arc<Line<T>>>,
    bytes: u64,
    place: Place,
}

opaque_debug!("Mailbox", [T] Mailbox<T>);
opaque_debug!("Inbox", [T] Inbox<T>);
opaque_debug!("Permit", [T] Permit<T>);
opaque_debug!("Reserve", [T] Reserve<T>);

impl<T> Mailbox<T> {
    /// Both ends of a new mailbox.
    pub fn new(capacity: Capacity) -> (Mailbox<T>, Inbox<T>) {
        let line = Arc::new(Line::new(capacity, Driver::Inbox));
        let senders = Arc::new(AtomicUsize::new(1));
        (Mailbox { line: Arc::clone(&line), senders }, Inbox { line })
    }

    /// Room for a message of `bytes` if there is some now and nobody waits for it.
    pub fn try_reserve(&self, bytes: u64) -> Result<Permit<T>, Refused> {
        Permit::try_new(Arc::clone(&self.line), bytes)
    }

    /// Room for a message of `bytes`, waiting in line for it.
    ///
    /// # Errors
    /// `TooLarge` at once if `bytes` is above the whole capacity, `Closed` when the mailbox closes.
    ///
    /// # Cancellation
    /// Dropped while waiting, nothing is taken and the next in line is woken.
    pub fn reserve(&self, bytes: u64) -> Reserve<T> {
        Reserve::new(Arc::clone(&self.line), bytes)
    }

    /// Messages queued.
    pub fn len(&self) -> usize {
        self.line.len()
    }

    /// Is nothing queued?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Refuses new messages, also from permits that are out; waiters get `Closed`. What was queued
    /// still comes out.
    pub fn close(&self) {
        self.line.close();
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        self.senders.fetch_add(1, Ordering::Relaxed);
        Self { line: Arc::clone(&self.line), senders: Arc::clone(&self.senders) }
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        if self.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.line.close();
        }
    }
}

impl<T> Permit<T> {
    pub(crate) fn try_new(line: Arc<Line<T>>, bytes: u64) -> Result<Self, Refused> {
        line.room.try_take(Amount::try_new(1, bytes)?)?;
        Ok(Self { line, bytes, used: false })
    }

    /// Room that is taken whether or not there is any, also after the mailbox was closed.
    pub(crate) fn anyway(line: Arc<Line<T>>, bytes: u64) -> Self {
        let need = Amount::try_new(1, bytes).expect("what fits into one mailbox fits into another");
        line.room.take_anyway(need);
        Self { line, bytes, used: false }
    }

    /// Sends. Never waits; hands the message back only if the inbox was closed meanwhile. Into a
    /// seat's mailbox this only queues: call `deliver` next.
    pub fn send(mut self, message: T) -> Result<(), T> {
        self.line.push(message, self.bytes)?;
        // The room travels with the message from here.
        self.used = true;
        Ok(())
    }
}

impl<T> Drop for Permit<T> {
    fn drop(&mut self) {
        if !self.used {
            self.line.room.release(Amount::taken(1, self.bytes));
        }
    }
}

impl<T> Reserve<T> {
    pub(crate) fn new(line: Arc<Line<T>>, bytes: u64) -> Self {
        Self { line: Some(line), bytes, place: Place::default() }
    }
}

impl<T> Future for Reserve<T> {
    type Output = Result<Permit<T>, Refused>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let line = this.line.as_ref().expect("a finished future is not polled again");
        let need = match Amount::try_new(1, this.bytes) {
            Ok(need) => need,
            Err(refused) => return Poll::Ready(Err(refused)),
        };
        match line.room.poll_take(&mut this.place, need, context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(refused)) => Poll::Ready(Err(refused)),
            Poll::Ready(Ok(())) => {
                let line = this.line.take().expect("checked above");
                Poll::Ready(Ok(Permit { line, bytes: this.bytes, used: false }))
            }
        }
    }
}

impl<T> Drop for Reserve<T> {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.room.leave(&mut self.place);
        }
    }
}

impl<T> Inbox<T> {
    /// The next message if one is there; its room comes back here.
    pub fn try_recv(&mut self) -> Option<T> {
        let (message, bytes) = self.line.pop()?;
        self.line.room.release(Amount::taken(1, bytes));
        Some(message)
    }

    /// The next message; `None` when the mailbox is closed and nothing can follow.
    ///
    /// # Cancellation
    /// Dropped, it has taken nothing.
    pub fn recv(&mut self) -> Recv<'_, T> {
        Recv { inbox: self }
    }

    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            // Read before the queue: if nothing was under way then, an empty queue stays empty.
            let ended = self.line.no_send_can_follow();
            if let Some(message) = self.try_recv() {
                return Poll::Ready(Some(message));
            }
            if ended {
                return Poll::Ready(None);
            }
            if self.line.poll_bell(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        self.line.abandon();
    }
}

/// See [`Inbox::recv`].
#[must_use = "a future does nothing unless it is awaited"]
#[derive(Debug)]
pub struct Recv<'a, T> {
    inbox: &'a mut Inbox<T>,
}

impl<T> Future for Recv<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.inbox.poll_recv(context)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
