//! Threads and time for the engine, on the test's own thread. Every actor is a task, the next one
//! to run is drawn from a seed, and the clock moves only when no task can run.
//!
//! A preempting simulator also lets others run where there is no await: before a seat is taken,
//! after a seat is free, and before a disk operation that calls `preempt::point`. The preempted
//! task continues when those others have reached an await of theirs.
//!
//! So a run can be repeated exactly, an hour of back-off takes no time, and a hang is not a timeout
//! but a fact: no task can run and no timer is set.

use super::chance::Chance;
use futures::future::BoxFuture;
use sluicedb_actors::runtime::{Runtime, Task};
use sluicedb_kernel::combining::preempt;
use sluicedb_storage::side_by_side::SideBySide;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// After this many polls a run is taken for a livelock.
const STEPS_MAX: u64 = 5_000_000;

/// How deep preemptions may nest: a task that runs inside another's poll may be preempted itself.
const NESTED_MAX: usize = 3;

/// A handle on a simulator. Clones share it.
#[derive(Clone)]
pub struct Simulator {
    state: Arc<Mutex<State>>,
}

struct State {
    chance: Chance,
    tasks: Vec<Slot>,
    began: Instant,
    now: Instant,
    timers: BTreeMap<(Instant, u64), Waker>,
    next_timer: u64,
    steps: u64,
    steps_max: u64,
    killed: bool,
    preempts: bool,
    nested: usize,
    preemptions: u64,
}

struct Slot {
    name: String,
    flag: Arc<Flag>,
    /// `None` while the task is polled.
    body: Option<BoxFuture<'static, ()>>,
}

struct Flag(AtomicBool);

impl Flag {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator").field("tasks", &self.lock().tasks.len()).finish_non_exhaustive()
    }
}

impl Simulator {
    pub fn new(seed: u64) -> Self {
        let now = Instant::now();
        let state = State {
            chance: Chance::new(seed),
            tasks: Vec::new(),
            began: now,
            now,
            timers: BTreeMap::new(),
            next_timer: 0,
            steps: 0,
            steps_max: STEPS_MAX,
            killed: false,
            preempts: false,
            nested: 0,
            preemptions: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// A preempting simulator.
    pub fn preempting(seed: u64) -> Self {
        let simulator = Self::new(seed);
        simulator.lock().preempts = true;
        simulator
    }

    /// How often a task ran inside another's poll.
    pub fn preemptions(&self) -> u64 {
        self.lock().preemptions
    }

    pub fn handle(&self) -> Arc<dyn Runtime> {
        Arc::new(self.clone())
    }

    /// Panics, as a hang would, after this many polls in total.
    pub fn limit_steps(&self, steps: u64) {
        self.lock().steps_max = steps;
    }

    /// Polls so far.
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the actors until `future` is done. Panics on a hang.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let flag = Flag::new();
        let waker = Waker::from(Arc::clone(&flag));
        loop {
            match self.choose(Some(&flag)) {
                Choice::Main => {
                    flag.0.store(false, Ordering::Release);
                    let mut context = Context::from_waker(&waker);
                    let polled = self.preemptible(|| future.as_mut().poll(&mut context));
                    if let Poll::Ready(value) = polled {
                        return value;
                    }
                }
                Choice::Task(index) => self.poll_task(index),
                Choice::Nobody => {
                    if !self.advance_clock() {
                        let waiting = self.names();
                        panic!("hang: nobody can run and no timer is set; waiting: {waiting:?}");
                    }
                }
            }
        }
    }

    /// Runs the actors until none of them can run unless the clock moves.
    pub fn settle(&self) {
        while let Choice::Task(index) = self.choose(None) {
            self.poll_task(index);
        }
    }

    /// Drops every actor at its current await, as the death of the process does.
    pub fn kill(&self) {
        loop {
            let (tasks, timers) = {
                let mut state = self.lock();
                state.killed = true;
                (std::mem::take(&mut state.tasks), std::mem::take(&mut state.timers))
            };
            if tasks.is_empty() && timers.is_empty() {
                return;
            }
            // They are dropped without the lock: their drops may call back.
            drop((tasks, timers));
        }
    }

    /// The names of the actors that have not ended.
    pub fn names(&self) -> Vec<String> {
        self.lock().tasks.iter().map(|slot| slot.name.clone()).collect()
    }

    fn choose(&self, main: Option<&Arc<Flag>>) -> Choice {
        let mut state = self.lock();
        // A task without a body is being polled, and was preempted.
        let ready = |slot: &Slot| slot.flag.is_set() && slot.body.is_some();
        let ready = state.tasks.iter().enumerate().filter(|(_, slot)| ready(slot));
        let ready: Vec<usize> = ready.map(|(index, _)| index).collect();
        let main = usize::from(main.is_some_and(|flag| flag.is_set()));
        let count = ready.len() + main;
        if count == 0 {
            return Choice::Nobody;
        }
        state.steps += 1;
        assert!(state.steps <= state.steps_max, "going in circles: {} polls", state.steps);
        let choice = state.chance.below(count);
        if choice < ready.len() { Choice::Task(ready[choice]) } else { Choice::Main }
    }

    fn poll_task(&self, index: usize) {
        let (mut body, flag) = {
            let mut state = self.lock();
            let slot = &mut state.tasks[index];
            (slot.body.take().expect("a task is polled by one thread"), Arc::clone(&slot.flag))
        };
        flag.0.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&flag));
        let mut context = Context::from_waker(&waker);
        let polled = self.preemptible(|| body.as_mut().poll(&mut context));
        let mut state = self.lock();
        let at = state.tasks.iter().position(|slot| Arc::ptr_eq(&slot.flag, &flag));
        match (at, polled) {
            (Some(at), Poll::Pending) => state.tasks[at].body = Some(body),
            (Some(at), Poll::Ready(())) => {
                let ended = state.tasks.remove(at);
                drop(state);
                drop((ended, body));
            }
            (None, _) => {
                drop(state);
                drop(body);
            }
        }
    }

    /// Runs `poll` so that it can be preempted.
    fn preemptible<T>(&self, poll: impl FnOnce() -> T) -> T {
        if !self.lock().preempts {
            return poll();
        }
        let this = self.clone();
        let before = preempt::install(Some(Rc::new(move || this.preempt())));
        let value = poll();
        preempt::install(before);
        value
    }

    /// Perhaps runs some other tasks, from within the poll of one.
    fn preempt(&self) {
        let polls = {
            let mut state = self.lock();
            if state.nested == NESTED_MAX || !state.chance.one_in(3) {
                return;
            }
            state.nested += 1;
            state.chance.between(1, 4)
        };
        for _ in 0..polls {
            let Choice::Task(index) = self.choose(None) else { break };
            self.lock().preemptions += 1;
            self.poll_task(index);
        }
        self.lock().nested -= 1;
    }

    fn advance_clock(&self) -> bool {
        let mut state = self.lock();
        let Some(((deadline, _), waker)) = state.timers.pop_first() else { return false };
        state.now = state.now.max(deadline);
        drop(state);
        waker.wake();
        true
    }

    /// Moves the clock; timers that are due by then fire.
    pub fn advance(&self, by: Duration) {
        let mut due = Vec::new();
        {
            let mut state = self.lock();
            state.now += by;
            let now = state.now;
            while state.timers.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
                due.extend(state.timers.pop_first().map(|(_, waker)| waker));
            }
        }
        due.into_iter().for_each(Waker::wake);
    }
}

enum Choice {
    Main,
    Task(usize),
    Nobody,
}

/// On the one thread that it has.
impl SideBySide for Simulator {}

impl Runtime for Simulator {
    fn spawn(&self, name: &str, body: BoxFuture<'static, ()>) -> std::io::Result<Task> {
        let (task, token) = Task::new();
        let mut state = self.lock();
        if state.killed {
            drop(state);
            drop((body, token));
            return Ok(task);
        }
        let body: BoxFuture<'static, ()> = Box::pin(async move {
            let _ended = token;
            body.await;
        });
        state.tasks.push(Slot { name: name.to_owned(), flag: Flag::new(), body: Some(body) });
        Ok(task)
    }

    fn now(&self) -> Instant {
        self.lock().now
    }

    fn unix_ms(&self) -> u64 {
        let state = self.lock();
        let passed = state.now.saturating_duration_since(state.began);
        1_790_000_000_000 + passed.as_millis() as u64
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        Box::pin(Sleep { simulator: self.clone(), deadline, entry: None })
    }
}

struct Sleep {
    simulator: Simulator,
    deadline: Instant,
    entry: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let simulator = self.simulator.clone();
        let mut state = simulator.lock();
        if state.now >= self.deadline {
            return Poll::Ready(());
        }
        let entry = *self.entry.get_or_insert_with(|| {
            state.next_timer += 1;
            state.next_timer
        });
        let replaced = state.timers.insert((self.deadline, entry), context.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            let waker = self.simulator.lock().timers.remove(&(self.deadline, entry));
            drop(waker);
        }
    }
}

/// Lets others run.
pub async fn pause() {
    let mut waited = false;
    std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
