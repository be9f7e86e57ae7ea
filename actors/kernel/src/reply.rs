//! One answer to one question.
//!
//! Guarantees: exactly one outcome, the sent value or [`Lost`], whichever side acts first. That
//! includes an actor that panics while it holds the `Reply`. The value is dropped once. The waker
//! is called at most once per registration, and never under a lock. Sending never waits. Costs one
//! allocation. Does not: carry errors; the value may be a `Result`.
//!
//! ```
//! use sluicedb_kernel::reply::{Lost, reply};
//! use sluicedb_kernel::sync::block_on;
//!
//! let (question, answer) = reply();
//! assert!(!question.is_abandoned());
//! question.send(7);
//! assert_eq!(block_on(answer), Ok(7));
//! let (question, answer) = reply::<u32>();
//! drop(question); // its actor panicked
//! assert_eq!(block_on(answer), Err(Lost));
//! ```

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
        self.settle(Outcome::Sent(value));
    }

    /// Does nobody wait for the answer any more? (A hint: true is final, false may be out of date.)
    pub fn is_abandoned(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| Arc::strong_count(shared) == 1)
    }

    /// Stores the outcome, if it is the first. Wakes whoever waits, after the lock is released.
    fn settle(&mut self, outcome: Outcome<T>) {
        let Some(shared) = self.shared.take() else { return };
        let before = mem::replace(&mut *lock(&shared), outcome);
        if let Outcome::Awaited(waker) = before {
            wake(waker);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.settle(Outcome::Lost);
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, Lost>;

    /// After the outcome, later polls are `Lost`.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The first look needs no waker. It is cloned and dropped outside the lock: both may run
        // foreign code.
        let mut waker = None;
        loop {
            let mut outcome = lock(&self.shared);
            match mem::replace(&mut *outcome, Outcome::Taken) {
                Outcome::Sent(value) => return Poll::Ready(Ok(value)),
                Outcome::Lost | Outcome::Taken => return Poll::Ready(Err(Lost)),
                Outcome::Awaited(known) if known.will_wake(context.waker()) => {
                    *outcome = Outcome::Awaited(known);
                    return Poll::Pending;
                }
                former => match waker.take() {
                    None => *outcome = former,
                    Some(waker) => {
                        *outcome = Outcome::Awaited(waker);
                        drop(outcome);
                        drop(former);
                        return Poll::Pending;
                    }
                },
            }
            drop(outcome);
            waker = Some(context.waker().clone());
        }
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
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut answer).poll(&mut context).is_pending());
        reply.send(7);
        assert_eq!(Pin::new(&mut answer).poll(&mut context), Poll::Ready(Ok(7)));
        assert_eq!(Pin::new(&mut answer).poll(&mut context), Poll::Ready(Err(Lost)));
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
