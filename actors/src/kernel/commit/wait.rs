//! The futures of the commit queue: for a place in the ring, and for `visible` to get somewhere.
//!
//! Guarantees: a waiter registers before it looks again, and who raises looks at the flag before it
//! leaves, so no raise and no failure is missed; both may be dropped at any point and leave nothing.

use super::{CommitQueue, FAILED, Failed, Slot, WAITERS};
use crate::kernel::room::{Amount, Place, Refused};
use crate::kernel::sync::atomic::Ordering;
use crate::kernel::sync::lock;
use sluicedb_storage::key::Seqno;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

opaque_debug!("ReserveSlot", [] ReserveSlot);
opaque_debug!("WaitVisible", [] WaitVisible);

/// See [`CommitQueue::reserve`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct ReserveSlot {
    /// `None` once the slot was handed out.
    queue: Option<CommitQueue>,
    place: Place,
}

impl ReserveSlot {
    pub(super) fn new(queue: CommitQueue) -> Self {
        Self { queue: Some(queue), place: Place::default() }
    }
}

impl Future for ReserveSlot {
    type Output = Result<Slot, Refused>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let queue = this.queue.as_ref().expect("a finished future is not polled again");
        match queue.slots.poll_take(&mut this.place, Amount::new(1, 0), context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(refused)) => Poll::Ready(Err(refused)),
            Poll::Ready(Ok(())) => Poll::Ready(Ok(Slot { queue: this.queue.take() })),
        }
    }
}

impl Drop for ReserveSlot {
    #[inline]
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.slots.leave(&mut self.place);
        }
    }
}

/// See [`CommitQueue::wait_visible`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct WaitVisible {
    queue: CommitQueue,
    seqno: Seqno,
    id: Option<u64>,
}

impl WaitVisible {
    pub(super) fn new(queue: CommitQueue, seqno: Seqno) -> Self {
        Self { queue, seqno, id: None }
    }

    fn strike(&mut self) {
        if let Some(id) = self.id.take() {
            let old = lock(&self.queue.waiters).list.remove(&(self.seqno.0, id));
            drop(old);
        }
    }
}

impl Future for WaitVisible {
    type Output = Result<(), Failed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.queue.visible() >= this.seqno {
            this.strike();
            return Poll::Ready(Ok(()));
        }
        let waker = context.waker().clone();
        let (old, failed) = {
            let mut waiters = lock(&this.queue.waiters);
            let id = *this.id.get_or_insert_with(|| {
                waiters.next_id += 1;
                waiters.next_id
            });
            let old = waiters.list.insert((this.seqno.0, id), waker);
            let state = this.queue.state.fetch_or(WAITERS, Ordering::AcqRel);
            (old, state & FAILED != 0)
        };
        drop(old);
        // Who raised before the flag was set did not see this waiter; this load sees that raise.
        if this.queue.visible() >= this.seqno {
            this.strike();
            return Poll::Ready(Ok(()));
        }
        if failed {
            this.strike();
            return Poll::Ready(Err(Failed));
        }
        Poll::Pending
    }
}

impl Drop for WaitVisible {
    fn drop(&mut self) {
        self.strike();
    }
}
