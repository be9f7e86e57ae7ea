//! The one seam for threads and time.
//!
//! An actor that does disk work is an `async` loop over kernel primitives, and names no executor.
//! `ThreadRuntime` runs each one on an OS thread of its own, which may block on the disk. A
//! simulator runs all of them on one thread, in an order drawn from a seed, with a clock that it
//! sets. Nothing in the engine starts a thread or reads a clock in any other way. Nothing needs a
//! tokio runtime to make progress.

pub mod cores;
mod environment;
pub mod jobs;
pub mod polling;
pub mod pool;
mod side_by_side;
mod turns;
mod waking;

pub use environment::Environment;
pub use turns::Turns;

use futures::future::BoxFuture;
use sluicedb_kernel::reply::{Answer, reply};
use sluicedb_kernel::sync::{block_on, lock};
use sluicedb_kernel::wake;
use sluicedb_storage::give_way;
use sluicedb_storage::side_by_side::SideBySide;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Instant, SystemTime};
use waking::WakingThreads;

/// Threads and time.
pub trait Runtime: SideBySide + Send + Sync + Debug + 'static {
    /// Runs `body` to its end on a thread that may block. `name` shows up in `top -H` and in
    /// traces.
    ///
    /// # Errors
    /// When the operating system cannot start a thread.
    fn spawn(&self, name: &str, body: BoxFuture<'static, ()>) -> std::io::Result<Task>;
    /// The current time. Used for waiting and reporting, never for correctness.
    fn now(&self) -> Instant;
    /// The time of day, in milliseconds since 1970. Used to record when something happened. It may
    /// be set back.
    fn unix_ms(&self) -> u64;
    /// Resolves at or after `deadline`.
    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()>;
}

/// A running actor.
#[derive(Debug)]
pub struct Task {
    ended: Answer<()>,
}

impl Task {
    /// Makes a task, and the token whose drop says that it ended.
    pub fn new() -> (Self, impl Send + 'static) {
        let (token, ended) = reply();
        (Self { ended }, token)
    }

    /// Waits until the actor's body has returned or panicked.
    pub async fn join(self) {
        // The token is dropped and never sent, so the only outcome is `Lost`, which means "ended".
        let _ = self.ended.await;
    }
}

/// Runs each actor on a named OS thread of its own. One more thread serves timers, and one more
/// calls the wakers of those who wait for an actor or a timer. Both are there before the first
/// actor.
#[derive(Debug)]
pub struct ThreadRuntime {
    /// Where the threads stay; empty: anywhere.
    cores: Arc<[usize]>,
    timers: Arc<Timers>,
    waking: WakingThreads,
}

impl ThreadRuntime {
    /// A runtime without threads yet. They will stay on these cores; anywhere, if there are none.
    pub fn new(cores: &[usize]) -> Arc<Self> {
        let cores: Arc<[usize]> = cores.into();
        let waking = WakingThreads::new(&cores);
        Arc::new(Self { cores, timers: Arc::default(), waking })
    }

    /// Starts the thread that serves timers.
    fn start_timers(&self) -> std::io::Result<()> {
        let courier = self.waking.courier()?;
        let (weak, cores) = (Arc::downgrade(&self.timers), Arc::clone(&self.cores));
        thread::Builder::new().name("sluice-timer".to_owned()).spawn(move || {
            cores::stay_on(&cores);
            wake::hand_on_to(courier);
            Timers::serve(&weak);
        })?;
        Ok(())
    }
}

impl Runtime for ThreadRuntime {
    fn spawn(&self, name: &str, body: BoxFuture<'static, ()>) -> std::io::Result<Task> {
        let (task, token) = Task::new();
        let courier = self.waking.courier()?;
        // An actor that sleeps would otherwise never wake up.
        self.timers.serve_by(|| self.start_timers())?;
        let cores = Arc::clone(&self.cores);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            cores::stay_on(&cores);
            wake::hand_on_to(courier);
            give_way::from_now_on();
            let _ended = token;
            // `wake` knows the wakers that this executor makes as those of an engine thread.
            block_on(body);
        })?;
        Ok(task)
    }

    #[allow(clippy::disallowed_methods, reason = "this is the clock the others are told to ask")]
    fn now(&self) -> Instant {
        Instant::now()
    }

    #[allow(clippy::disallowed_methods, reason = "this is the clock the others are told to ask")]
    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        if let Err(error) = self.timers.serve_by(|| self.start_timers()) {
            // No actor is there yet. Until the thread is, a deadline takes effect only when the
            // future is polled for another reason.
            tracing::error!(%error, "no thread for timers");
        }
        Box::pin(Sleep { deadline, timers: Arc::clone(&self.timers), entry: None })
    }
}

/// Pending timers. One thread serves them. It ends with the last handle.
#[derive(Debug, Default)]
struct Timers {
    state: Mutex<TimerState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct TimerState {
    /// The wakers of sleeps that somebody still waits for, the earliest deadline first.
    pending: BTreeMap<(Instant, u64), Waker>,
    next: u64,
    /// Is the thread there?
    served: bool,
    closed: bool,
}

impl Timers {
    /// Has `start` start the thread, unless it is there.
    ///
    /// # Errors
    /// That of `start`. The next call tries again.
    fn serve_by(&self, start: impl FnOnce() -> std::io::Result<()>) -> std::io::Result<()> {
        let mut state = self.lock();
        if !state.served {
            start()?;
            state.served = true;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, TimerState> {
        // Nothing under this lock panics halfway.
        lock(&self.state)
    }

    #[allow(clippy::disallowed_methods, reason = "the timer thread compares deadlines to now")]
    fn serve(timers: &Weak<Self>) {
        loop {
            let Some(this) = timers.upgrade() else { return };
            let mut due = Vec::new();
            let mut state = this.lock();
            if state.closed {
                return;
            }
            let now = Instant::now();
            let mut until = None;
            while let Some(first) = state.pending.first_entry() {
                let (deadline, _) = *first.key();
                if deadline > now {
                    until = Some(deadline - now);
                    break;
                }
                due.push(first.remove());
            }
            if due.is_empty() {
                // Whoever adds an earlier deadline, or ends the runtime, notifies.
                drop(match until {
                    Some(until) => {
                        let waited = this.changed.wait_timeout(state, until);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                    None => this.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                });
            } else {
                drop(state);
                wake::wake_all(due);
            }
        }
    }
}

impl Drop for ThreadRuntime {
    fn drop(&mut self) {
        self.timers.lock().closed = true;
        self.timers.changed.notify_all();
    }
}

struct Sleep {
    deadline: Instant,
    timers: Arc<Timers>,
    entry: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    #[allow(clippy::disallowed_methods, reason = "a timer compares its deadline to now")]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        let timers = Arc::clone(&self.timers);
        let waker = context.waker().clone();
        let mut state = timers.lock();
        let id = *self.entry.get_or_insert_with(|| {
            state.next += 1;
            state.next
        });
        let key = (self.deadline, id);
        let replaced = state.pending.insert(key, waker);
        let is_first = state.pending.first_key_value().is_some_and(|(first, _)| *first == key);
        drop(state);
        drop(replaced);
        if is_first {
            timers.changed.notify_all();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.entry {
            let waker = self.timers.lock().pending.remove(&(self.deadline, id));
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_task_is_joined_after_its_body() {
        let runtime = ThreadRuntime::new(&[]);
        let (done, answer) = reply();
        let task = runtime.spawn("test", Box::pin(async move { done.send(7) })).unwrap();
        futures::executor::block_on(task.join());
        assert_eq!(futures::executor::block_on(answer), Ok(7));
    }

    #[test]
    fn timers_fire_in_order_and_cancelled_ones_do_not() {
        let runtime = ThreadRuntime::new(&[]);
        let now = runtime.now();
        let mut late = runtime.sleep_until(now + Duration::from_millis(20));
        let cancelled = runtime.sleep_until(now + Duration::from_millis(1));
        futures::executor::block_on(async {
            let early = runtime.sleep_until(now + Duration::from_millis(5));
            let first = futures::future::select(&mut late, early).await;
            assert!(matches!(first, futures::future::Either::Right(_)));
        });
        drop(cancelled);
        futures::executor::block_on(late);
        assert!(runtime.now() >= now + Duration::from_millis(20));
    }

    /// Planted: an entry stays in the list until its deadline.
    #[test]
    fn b9_a_cancelled_sleep_leaves_nothing_behind() {
        let runtime = ThreadRuntime::new(&[]);
        let far = runtime.now() + Duration::from_secs(3600);
        let mut context = Context::from_waker(Waker::noop());
        let mut kept = runtime.sleep_until(far);
        assert!(kept.as_mut().poll(&mut context).is_pending());
        for _ in 0..1_000 {
            let mut cancelled = runtime.sleep_until(far);
            assert!(cancelled.as_mut().poll(&mut context).is_pending());
            assert!(cancelled.as_mut().poll(&mut context).is_pending());
        }
        assert_eq!(runtime.timers.lock().pending.len(), 1);
    }

    /// Goal: an engine has timers, or is not started.
    ///
    /// Planted: a thread that could not be started is not asked for again; `spawn` that leaves it
    /// to the first sleep.
    #[test]
    fn a_thread_for_timers_is_there_before_the_first_actor_or_asked_for_again() {
        let runtime = ThreadRuntime::new(&[]);
        let refused = runtime.timers.serve_by(|| Err(std::io::ErrorKind::WouldBlock.into()));
        refused.expect_err("as if there were too many threads");
        let task = runtime.spawn("test", Box::pin(async {})).unwrap();
        runtime.timers.serve_by(|| panic!("it is there")).unwrap();
        futures::executor::block_on(task.join());
        // The list is served, though it was asked in vain before.
        futures::executor::block_on(runtime.sleep_until(runtime.now() + Duration::from_millis(1)));
    }
}
