//! Waiting for `visible` to reach a number.
//!
//! Guarantees: a waiter registers before it looks again, and the raising thread looks at the flag
//! before it stops. So no raise and no failure is missed. Dropped at any point, it leaves nothing.

use super::{FAILED, Failed, Sequencer, WAITERS};
use crate::sync::atomic::Ordering;
use crate::sync::lock;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

opaque_debug!("WaitVisible", [] WaitVisible);

/// See [`Sequencer::wait_visible`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct WaitVisible {
    sequencer: Sequencer,
    number: u64,
    id: Option<u64>,
}

impl WaitVisible {
    pub(super) fn new(sequencer: Sequencer, number: u64) -> Self {
        Self { sequencer, number, id: None }
    }

    fn strike(&mut self) {
        if let Some(id) = self.id.take() {
            let old = lock(&self.sequencer.waiters).list.remove(&(self.number, id));
            drop(old);
        }
    }
}

impl Future for WaitVisible {
    type Output = Result<(), Failed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.sequencer.visible() >= this.number {
            this.strike();
            return Poll::Ready(Ok(()));
        }
        let waker = context.waker().clone();
        let (old, failed) = {
            let mut waiters = lock(&this.sequencer.waiters);
            let id = *this.id.get_or_insert_with(|| {
                waiters.next_id += 1;
                waiters.next_id
            });
            let old = waiters.list.insert((this.number, id), waker);
            let state = this.sequencer.state.fetch_or(WAITERS, Ordering::AcqRel);
            (old, state & FAILED != 0)
        };
        drop(old);
        // A raise before the flag was set did not see this waiter. This load sees that raise.
        if this.sequencer.visible() >= this.number {
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
