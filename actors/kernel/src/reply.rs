//! One answer to one question.
//!
//! Guarantees: exactly one outcome, the sent value or [`Lost`], whichever side acts first. That
//! includes an actor that panics while it holds the `Reply`. The value is dropped once. The waker
//! is called at most once per registration, and never under a lock. Sending never waits. Costs one
//! allocation. Does not: carry errors; the value may be a `Result`.

use crate::sync::{Arc, Mutex, lock};
use crate::wake::wake;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// The `Reply` was dropped without an answer, because its actor stopped or panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the actor stopped before it answered")]
pub struct Lost;

enum Outcome<T> {
    /// No outcome, and nobody has asked.
    Open,
    /// No outcome, and this task waits for it.
    Awaited(Waker),
    /// The value is sent and not yet fetched.
    Sent(T),
    /// There will be no value.
    Lost,
    /// The outcome was fetched.
    Taken,
}

/// The end that answers.
pub struct Reply<T> {
    /// `None` once used. So dropping says `Lost` only if nothing was sent.
    shared: Option<Arc<Mutex<Outcome<T>>>>,
}

/// The end that asked. A future.
#[must_use = "an answer does nothing unless it is awaited"]
pub struct Answer<T> {
    shared: Arc<Mutex<Outcome<T>>>,
}

opaque_debug!("Reply", [T] Reply<T>);
opaque_debug!("Answer", [T] Answer<T>);

/// The two ends of a question. Costs one allocation.
pub fn reply<T>() -> (Reply<T>, Answer<T>) {
    let shared = Arc::new(Mutex::new(Outcome::Open));
    (Reply { shared: Some(Arc::clone(&shared)) }, Answer { shared })
}

impl<T> Reply<T> {
    /// Answers, and wakes whoever waits. Never waits. If nobody asks any more, the value is
    /// dropped.
    pub fn send(mut self, value: T) {
        if let Some(shared) = self.shared.take() {
            settle(&shared, Outcome::Sent(value));
        }
    }

    /// Does nobody wait for the answer any more? (A hint: true is final, false may be out of date.)
    pub fn is_abandoned(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| Arc::strong_count(shared) == 1)
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            settle(&shared, Outcome::Lost);
        }
    }
}

/// Stores the one outcome. Wakes whoever waits for it, after the lock is released.
fn settle<T>(shared: &Mutex<Outcome<T>>, outcome: Outcome<T>) {
    let before = mem::replace(&mut *lock(shared), outcome);
    if let Outcome::Awaited(waker) = before {
        wake(waker);
    }
}

impl<T> Answer<T> {
    /// The outcome, if there is one. After `Some`, later calls return `Err(Lost)`.
    fn try_take(&mut self) -> Option<Result<T, Lost>> {
        let mut outcome = lock(&self.shared);
        match mem::replace(&mut *outcome, Outcome::Taken) {
            Outcome::Sent(value) => Some(Ok(value)),
            Outcome::Lost | Outcome::Taken => Some(Err(Lost)),
            waiting => {
                *outcome = waiting;
                None
            }
        }
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, Lost>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(answer) = self.try_take() {
            return Poll::Ready(answer);
        }
        // Cloned before the lock is taken and dropped after it is released: both may run foreign
        // code.
        let mut waker = Outcome::Awaited(context.waker().clone());
        {
            let mut outcome = lock(&self.shared);
            if matches!(*outcome, Outcome::Open | Outcome::Awaited(_)) {
                mem::swap(&mut *outcome, &mut waker);
                drop(outcome);
                return Poll::Pending;
            }
        }
        // The outcome was stored between the two looks.
        self.try_take().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_sent_value_arrives_once() {
        let (reply, mut answer) = reply();
        assert!(answer.try_take().is_none());
        reply.send(7);
        assert_eq!(answer.try_take(), Some(Ok(7)));
        assert_eq!(answer.try_take(), Some(Err(Lost)));
    }

    #[test]
    fn dropping_the_reply_resolves_and_wakes_once() {
        let (reply, mut answer) = reply::<u32>();
        let counter = std::sync::Arc::new(Counter(AtomicUsize::new(0)));
        let waker = Waker::from(counter.clone());
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut answer).poll(&mut context).is_pending());
        assert!(Pin::new(&mut answer).poll(&mut context).is_pending());
        drop(reply);
        assert_eq!(counter.0.load(Ordering::SeqCst), 1);
        assert_eq!(Pin::new(&mut answer).poll(&mut context), Poll::Ready(Err(Lost)));
    }

    #[test]
    fn an_abandoned_answer_drops_the_value_once() {
        let value = std::sync::Arc::new(());
        let (reply, answer) = reply();
        assert!(!reply.is_abandoned());
        drop(answer);
        assert!(reply.is_abandoned());
        reply.send(value.clone());
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
    }

    #[test]
    fn a_thread_waits_for_its_answer() {
        let (reply, answer) = reply();
        let thread = std::thread::spawn(move || crate::sync::block_on(answer));
        reply.send("done");
        assert_eq!(thread.join().expect("the thread returns"), Ok("done"));
    }
}
