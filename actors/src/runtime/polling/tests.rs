//! The polls of one wait, counted by hand-made wakers, on a clock that the test moves.

#![allow(clippy::disallowed_methods, reason = "where the clock of a test begins")]

use super::*;
use crate::group_commit::durable::{Committed, Durability, Durable};
use sluicedb_kernel::reply::{Answer, reply};
use sluicedb_kernel::wake::trust;
use sluicedb_storage::key::Seqno;
use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Wake, Waker};

const LIMIT: Duration = Duration::from_micros(300);
const STEP: Duration = Duration::from_micros(1);

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A log without a disk: the test says when what is synced.
struct Bench {
    polling: Polling,
    durable: Durable,
    began: Instant,
    passed: Cell<Duration>,
    looks: Cell<usize>,
    last: Cell<u64>,
    wakes: Arc<Wakes>,
}

impl Bench {
    fn new(limit: Duration) -> Self {
        Self {
            polling: Polling::new(limit),
            durable: Durable::new(Seqno::ZERO),
            began: Instant::now(),
            passed: Cell::default(),
            looks: Cell::default(),
            last: Cell::default(),
            wakes: Arc::default(),
        }
    }

    fn now(&self) -> Instant {
        self.looks.set(self.looks.get() + 1);
        self.began + self.passed.get()
    }

    fn pass(&self, time: Duration) {
        self.passed.set(self.passed.get() + time);
    }

    /// One more who waits for a sync.
    fn register(&self) -> Answer<Committed> {
        let (reply, answer) = reply();
        self.last.set(self.last.get() + 1);
        let registered = self.durable.register(Durability::Synced, Seqno(self.last.get()), reply);
        assert!(registered.is_ok());
        answer
    }

    fn wait(&self) -> impl Future<Output = ()> {
        let mut answer = self.register();
        let now = || self.now();
        self.polling.along(
            || self.durable.awaited(),
            now,
            move |context| {
                Pin::new(&mut answer).poll(context).map(|answered| assert!(answered.is_ok()))
            },
        )
    }

    /// Everything is synced.
    fn sync(&self) {
        for (seqno, reply) in self.durable.raise_synced(Seqno(self.last.get())) {
            reply.send(Ok(seqno));
        }
    }

    /// Polls once. Returns whether it was ready, and how often it woke itself.
    fn poll(&self, future: Pin<&mut impl Future<Output = ()>>) -> (bool, usize) {
        let before = self.wakes();
        let waker = Waker::from(Arc::clone(&self.wakes));
        trust(&waker);
        let ready = future.poll(&mut Context::from_waker(&waker)).is_ready();
        (ready, self.wakes() - before)
    }

    fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::SeqCst)
    }

    /// A whole wait for a sync that takes `time`, with a poll each microsecond. Returns how often
    /// it woke itself.
    fn whole(&self, time: Duration) -> usize {
        let (mut wait, before) = (pin!(self.wait()), self.wakes());
        let mut left = time;
        while !left.is_zero() {
            let (ready, woken) = self.poll(wait.as_mut());
            assert!(!ready);
            let step = if woken > 0 { STEP.min(left) } else { left };
            self.pass(step);
            left -= step;
        }
        let polls = self.wakes() - before;
        self.sync();
        assert!(self.poll(wait.as_mut()).0);
        polls
    }

    /// How many of so many waits polled.
    fn polled(&self, waits: u32, time: Duration) -> u32 {
        (0..waits).map(|_| u32::from(self.whole(time) > 0)).sum()
    }
}

/// Planted: a bound that is looked at once; a wait that sleeps after the first poll.
#[test]
fn a_poll_returns_at_once_and_asks_for_the_next_one_until_the_limit() {
    let bench = Bench::new(LIMIT);
    let mut wait = pin!(bench.wait());
    for _ in 0..LIMIT.as_micros() {
        assert_eq!(bench.poll(wait.as_mut()), (false, 1));
        bench.pass(STEP);
    }
    for _ in 0..3 {
        let looks = bench.looks.get();
        assert_eq!(bench.poll(wait.as_mut()), (false, 0), "it waits as any other");
        assert!(bench.looks.get() <= looks + 1);
    }
    // Whoever answers wakes it.
    let before = bench.wakes();
    bench.sync();
    assert_eq!(bench.wakes(), before + 1);
    assert_eq!(bench.poll(wait.as_mut()), (true, 0));
}

/// Planted: no backoff; one that does not grow, or does not end; one slow sync makes many waits
/// sleep.
#[test]
fn attempts_in_vain_become_rare_and_successes_bring_them_back() {
    let bench = Bench::new(LIMIT);
    let (quick, slow) = (LIMIT / 2, LIMIT * 2);
    assert_eq!(bench.polled(1_000, quick), 1_000);
    for pause in [9, 18, 36, 72, 144, 288, 576, 1024, 1024] {
        assert_eq!(bench.polled(1, slow), 1);
        assert_eq!(bench.polled(pause, quick), 0, "so many sleep");
    }
    // The disk is quick again.
    assert_eq!(bench.polled(1_000, quick), 1_000);
    assert_eq!(bench.polled(1, slow), 1);
    assert_eq!(bench.polled(10, quick), 1, "what was long ago is forgotten");
}

/// Planted: as many waits sleep whatever was lost.
#[test]
fn who_has_polled_long_in_vain_sleeps_long() {
    for (lost_micros, pause) in [(201, 6), (4_000, 129), (60_000, 1024)] {
        let bench = Bench::new(LIMIT);
        let mut wait = pin!(bench.wait());
        assert_eq!(bench.poll(wait.as_mut()), (false, 1));
        bench.pass(Duration::from_micros(lost_micros));
        assert_eq!(bench.poll(wait.as_mut()), (false, 0));
        bench.sync();
        assert_eq!(bench.poll(wait.as_mut()), (true, 0));
        assert_eq!(bench.polled(pause, STEP), 0, "{lost_micros}");
        assert_eq!(bench.polled(1, STEP), 1, "{lost_micros}");
    }
}

/// Planted: only the limit is looked at.
#[test]
fn who_wants_the_core_gets_it() {
    let bench = Bench::new(LIMIT);
    let mut wait = pin!(bench.wait());
    assert_eq!(bench.poll(wait.as_mut()), (false, 1));
    bench.pass(GAP_MAX);
    assert_eq!(bench.poll(wait.as_mut()), (false, 1));
    bench.pass(GAP_MAX + STEP);
    assert_eq!(bench.poll(wait.as_mut()), (false, 0));
    bench.sync();
    assert_eq!(bench.poll(wait.as_mut()), (true, 0));
    assert_eq!(bench.polled(12, STEP), 0);
    // The answer may have come while somebody else had it.
    let mut wait = pin!(bench.wait());
    assert_eq!(bench.poll(wait.as_mut()), (false, 1));
    bench.pass(GAP_MAX + STEP);
    bench.sync();
    assert_eq!(bench.poll(wait.as_mut()), (true, 0));
    assert_eq!(bench.polled(24, STEP), 0);
}

/// Planted: no look at whether time passes at all.
#[test]
fn nobody_polls_where_the_clock_stands_still() {
    let bench = Bench::new(LIMIT);
    let mut wait = pin!(bench.wait());
    assert_eq!(bench.poll(wait.as_mut()), (false, 1));
    assert_eq!(bench.poll(wait.as_mut()), (false, 0));
}

/// Planted: `awaited` that is always one; one that is asked for once.
#[test]
fn nobody_polls_while_two_wait_and_nobody_looks_at_the_clock() {
    let bench = Bench::new(LIMIT);
    let mut first = pin!(bench.wait());
    assert_eq!(bench.poll(first.as_mut()), (false, 1), "it is alone");
    let mut second = pin!(bench.wait());
    let looks = bench.looks.get();
    for _ in 0..3 {
        assert_eq!(bench.poll(first.as_mut()), (false, 0));
        assert_eq!(bench.poll(second.as_mut()), (false, 0));
    }
    bench.sync();
    assert_eq!(bench.poll(first.as_mut()), (true, 0));
    assert_eq!(bench.poll(second.as_mut()), (true, 0));
    assert_eq!(bench.looks.get(), looks);
    assert_eq!(bench.polled(1, STEP), 1, "the next one is alone again");
}

/// Planted: a waker that may wait for the database is called at each poll.
#[test]
fn nobody_polls_with_a_foreign_waker() {
    let bench = Bench::new(LIMIT);
    let mut wait = pin!(bench.wait());
    assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!((bench.poll(wait.as_mut()), bench.looks.get()), ((false, 0), 0));
    bench.sync();
    // Another task may go on with it.
    let mut wait = pin!(bench.wait());
    assert_eq!(bench.poll(wait.as_mut()), (false, 1));
    bench.pass(STEP);
    assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(bench.poll(wait.as_mut()), (false, 0));
}

#[test]
fn nobody_polls_if_it_is_switched_off() {
    let bench = Bench::new(Duration::ZERO);
    assert_eq!((bench.polled(100, STEP), bench.looks.get()), (0, 0));
}

/// Planted: a wait that counts as one after it is dropped.
#[test]
fn a_wait_may_be_dropped_at_any_poll() {
    let bench = Bench::new(LIMIT);
    for polls in 0..5 {
        let mut wait = Box::pin(bench.wait());
        for _ in 0..polls {
            assert_eq!(bench.poll(wait.as_mut()), (false, 1));
            bench.pass(STEP);
        }
        drop(wait);
        // Its answer still comes, to nobody.
        bench.sync();
        assert_eq!(bench.polled(1, STEP), 1);
    }
}

/// Planted: an attempt at the first poll; attempts that go on beyond the limit; one in vain that is
/// not remembered.
#[test]
fn attempts_are_made_at_each_poll_but_the_first_until_the_limit() {
    let bench = Bench::new(LIMIT);
    let (made, ready) = (Cell::new(0), Cell::new(false));
    let attempts = || {
        bench.polling.attempts(
            || 1,
            || bench.now(),
            || {
                made.set(made.get() + 1);
                if ready.get() { Poll::Ready(Some(())) } else { Poll::Pending }
            },
        )
    };
    let waker = Waker::from(Arc::clone(&bench.wakes));
    trust(&waker);
    let context = &mut Context::from_waker(&waker);
    let mut soon = pin!(attempts());
    for polls in 0..10 {
        assert_eq!((soon.as_mut().poll(context), made.get()), (Poll::Pending, polls));
        assert_eq!(bench.wakes(), polls + 1);
        bench.pass(STEP);
    }
    ready.set(true);
    assert_eq!((soon.as_mut().poll(context), bench.wakes()), (Poll::Ready(Some(())), 10));
    ready.set(false);
    let mut never = pin!(attempts());
    assert_eq!(never.as_mut().poll(context), Poll::Pending);
    bench.pass(LIMIT);
    assert_eq!(never.as_mut().poll(context), Poll::Ready(None));
    made.set(0);
    let mut next = pin!(attempts());
    assert_eq!((next.as_mut().poll(context), made.get()), (Poll::Ready(None), 0));
}

/// Planted: one wait sleeps after a slow one.
#[test]
fn a_disk_that_is_slow_every_second_time_costs_little() {
    let bench = Bench::new(LIMIT);
    let waits = 4_000;
    let in_vain: u32 = (0..waits / 2)
        .map(|_| {
            bench.whole(LIMIT / 2);
            u32::from(bench.whole(LIMIT * 2) > 0)
        })
        .sum();
    assert!(LIMIT * in_vain <= IN_VAIN_PER_WAIT * waits, "{in_vain}");
}
