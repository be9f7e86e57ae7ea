//! The switch between std and loom, the queue inside every mailbox, and waiting on a thread.
//!
//! Guarantees: everything in the kernel that two threads share is made of the types named here, so
//! a loom model sees all of it. The queue is flume in production and a plain locked deque under
//! loom (flume knows nothing of loom, so it must never be inside a model). Does not: bound
//! anything; the room in front of a queue does that.

use crate::wake::trust;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc as StdArc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

#[cfg(loom)]
pub use loom::sync::{Arc, Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub use std::sync::{Arc, Condvar, Mutex, MutexGuard, atomic};

/// Locks a mutex under which no foreign code runs: what a panic left behind is never half done, and
/// poison means nothing.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A value on cache lines of its own: two threads that write neighbours do not slow each other.
/// 128 because x86 fetches lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Lane<T>(pub(crate) T);

impl<T> std::ops::Deref for Lane<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// First in, first out, many producers, many consumers, never waits. Whoever pushes holds room for
/// the message, so the queue is never longer than `capacity`.
#[cfg(not(loom))]
pub(crate) struct Fifo<T> {
    sender: flume::Sender<T>,
    receiver: flume::Receiver<T>,
}

#[cfg(not(loom))]
impl<T> Fifo<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let (sender, receiver) = flume::bounded(capacity);
        Self { sender, receiver }
    }

    pub(crate) fn push(&self, value: T) {
        assert!(
            self.sender.try_send(value).is_ok(),
            "room was reserved before the message was sent"
        );
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.receiver.len()
    }
}

/// First in, first out, as the model sees it.
#[cfg(loom)]
pub(crate) struct Fifo<T> {
    capacity: usize,
    messages: Mutex<std::collections::VecDeque<T>>,
}

#[cfg(loom)]
impl<T> Fifo<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, messages: Mutex::new(std::collections::VecDeque::new()) }
    }

    pub(crate) fn push(&self, value: T) {
        let mut messages = lock(&self.messages);
        assert!(messages.len() < self.capacity, "room was reserved before the message was sent");
        messages.push_back(value);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        lock(&self.messages).pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.messages).len()
    }
}

/// Wakes one parked thread.
struct Parker {
    rung: Mutex<bool>,
    bell: Condvar,
}

impl Parker {
    fn new() -> (StdArc<Self>, Waker) {
        let parker = StdArc::new(Self { rung: Mutex::new(false), bell: Condvar::new() });
        let waker = Waker::from(StdArc::clone(&parker));
        trust(&waker);
        (parker, waker)
    }

    fn park(&self) {
        let mut rung = lock(&self.rung);
        while !*rung {
            rung = self.bell.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
        *rung = false;
    }
}

impl Wake for Parker {
    fn wake(self: StdArc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &StdArc<Self>) {
        if !std::mem::replace(&mut *lock(&self.rung), true) {
            self.bell.notify_one();
        }
    }
}

/// Runs `future` to its end on this thread, parking it between polls. For threads of your own,
/// never on an executor.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let (parker, waker) = Parker::new();
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        parker.park();
    }
}
