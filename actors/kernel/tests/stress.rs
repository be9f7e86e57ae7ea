//! The kernel under real threads: many operations in a seeded random order, and nothing sleeps.
//! Loom tries every order of a few steps; this tries a few orders of very many steps.

#![cfg(not(loom))]

use proptest::prelude::*;
use sluicedb_kernel::combining::{CombiningMailbox, Handler, Hooks, Spent, TURN_BYTES_MAX, Turn};
use sluicedb_kernel::mailbox::{Capacity, Inbox, Mailbox};
use sluicedb_kernel::reply::{Reply, reply};
use sluicedb_kernel::semaphore::Semaphore;
use sluicedb_kernel::sequencer::{CommitGuard, Sequencer};
use sluicedb_kernel::signal::Signal;
use sluicedb_kernel::sync::block_on;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

/// xorshift64*: good enough to mix operations. Every failure prints the seed.
struct Random(u64);

impl Random {
    fn new(seed: u64, thread: u64) -> Self {
        Self(seed ^ (thread + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
}

const THREADS: u64 = 4;
const SEEDS: [u64; 3] = [1, 0xDEAD_BEEF, 0x5_1DE5];

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs `f` on all threads, each with its own generator. A failure tells the seed.
fn on_threads(seed: u64, f: impl Fn(&mut Random, u64) + Send + Sync) {
    thread::scope(|scope| {
        let f = &f;
        let threads: Vec<_> =
            (0..THREADS).map(|t| scope.spawn(move || f(&mut Random::new(seed, t), t))).collect();
        for thread in threads {
            assert!(thread.join().is_ok(), "seed {seed:#x}");
        }
    });
}

#[test]
fn permits_are_conserved() {
    for seed in SEEDS {
        let semaphore = Semaphore::new(100);
        on_threads(seed, |random, _| {
            let mut held = VecDeque::new();
            for _ in 0..20_000 {
                match random.below(8) {
                    0 | 1 => held.extend(semaphore.try_acquire(random.below(30))),
                    2 => {
                        // A waiter holds nothing, as the gate's order of accounts demands.
                        held.clear();
                        held.extend(block_on(semaphore.acquire(random.below(101))));
                    }
                    3 => {
                        let mut leaves = Box::pin(semaphore.acquire(random.below(101)));
                        if let Poll::Ready(permit) = poll_once(&mut leaves) {
                            held.extend(permit);
                        }
                    }
                    4 => {
                        if let Some(permit) = held.pop_front() {
                            semaphore.release(permit.forget());
                        }
                    }
                    _ => drop(held.pop_front()),
                }
                assert!(semaphore.used() <= 100);
            }
        });
        assert_eq!((semaphore.used(), semaphore.is_short()), (0, false), "seed {seed:#x}");
    }
}

#[test]
fn a_mailbox_loses_nothing_and_keeps_each_senders_order() {
    for seed in SEEDS {
        let (mailbox, mut inbox): (_, Inbox<(u64, u64)>) =
            Mailbox::new(Capacity { messages: 3, bytes: 10 });
        let receiver = thread::spawn(move || {
            let mut next = [0; THREADS as usize];
            while let Some((thread, n)) = block_on(inbox.recv()) {
                assert_eq!(n, next[thread as usize], "out of order");
                next[thread as usize] += 1;
            }
            next
        });
        let sent = [const { AtomicU64::new(0) }; THREADS as usize];
        on_threads(seed, |random, thread| {
            let mut n = 0;
            for _ in 0..10_000 {
                let bytes = random.below(11);
                let permit = match random.below(4) {
                    0 => mailbox.try_reserve(bytes).ok(),
                    1 => match poll_once(&mut Box::pin(mailbox.reserve(bytes))) {
                        Poll::Ready(permit) => permit.ok(),
                        Poll::Pending => None,
                    },
                    _ => Some(block_on(mailbox.reserve(bytes)).expect("open")),
                };
                if let Some(permit) = permit
                    && random.below(8) > 0
                {
                    permit.send((thread, n)).expect("open");
                    n += 1;
                }
            }
            sent[thread as usize].store(n, Ordering::Relaxed);
        });
        // Everything was received or is queued, so all room becomes free.
        drop(block_on(mailbox.reserve(10)).expect("open"));
        drop(mailbox);
        let received = receiver.join().expect("the receiver returns");
        assert_eq!(received, sent.map(AtomicU64::into_inner), "seed {seed:#x}");
    }
}

/// Remembers the last number of each thread.
struct Ledger {
    last: [u64; THREADS as usize],
    occupied: AtomicBool,
}

struct Entry {
    thread: u64,
    n: u64,
    heavy: bool,
    reply: Option<Reply<u64>>,
}

impl Ledger {
    fn note(&mut self, thread: u64, n: u64) {
        assert!(!self.occupied.swap(true, Ordering::AcqRel), "two in one seat");
        let last = &mut self.last[thread as usize];
        assert_eq!(n, *last + 1, "a message was passed or lost");
        *last = n;
        self.occupied.store(false, Ordering::Release);
    }
}

impl Handler for Ledger {
    type Message = Entry;

    fn handle(&mut self, entry: Entry, _: &mut Turn) {
        let name = thread::current();
        assert!(!entry.heavy || name.name() == Some("engine"), "an engine thread's work");
        self.note(entry.thread, entry.n);
        if let Some(reply) = entry.reply {
            reply.send(entry.n);
        }
    }

    /// Three fill a turn.
    fn weight(_: &Entry) -> usize {
        TURN_BYTES_MAX / 3
    }

    fn is_heavy(entry: &Entry) -> bool {
        entry.heavy
    }
}

fn inline<R>(mailbox: &CombiningMailbox<Ledger>, f: impl FnOnce(&mut Ledger) -> R) -> Option<R> {
    mailbox.try_enter_idle()?.attempt(f)
}

#[test]
fn a_seat_handles_every_message_in_order() {
    for seed in SEEDS {
        let kick = Arc::new(Signal::new());
        let rung = kick.clone();
        let hooks = Hooks {
            kick: Box::new(move || rung.set()),
            on_panic: Box::new(|words| panic!("{words}")),
        };
        let mailbox = Arc::new(CombiningMailbox::new(
            Ledger { last: [0; THREADS as usize], occupied: AtomicBool::new(false) },
            Capacity { messages: 8, bytes: 8 },
            hooks,
        ));
        let stop = Arc::new(AtomicBool::new(false));
        let engine = thread::Builder::new().name("engine".into()).spawn({
            let (mailbox, stop, kick) = (mailbox.clone(), stop.clone(), kick.clone());
            move || {
                while !stop.load(Ordering::Acquire) {
                    block_on(kick.wait());
                    mailbox.deliver_blocking();
                }
            }
        });
        let engine = engine.expect("a thread starts");
        let sent = AtomicU64::new(0);
        on_threads(seed, |random, thread| {
            let mut n = 0;
            for _ in 0..10_000 {
                let mut pending = None;
                if random.below(3) == 0
                    && inline(&mailbox, |ledger| ledger.note(thread, n + 1)).is_some()
                {
                    n += 1;
                    continue;
                }
                let permit = block_on(mailbox.reserve(1)).expect("open");
                n += 1;
                let mut entry = Entry { thread, n, heavy: random.below(64) == 0, reply: None };
                if random.below(4) == 0 {
                    let (reply, answer) = reply();
                    entry.reply = Some(reply);
                    pending = Some(answer);
                }
                mailbox.send(permit, entry);
                if let Some(answer) = pending {
                    assert_eq!(block_on(answer), Ok(n));
                }
            }
            sent.fetch_add(n, Ordering::Relaxed);
        });
        stop.store(true, Ordering::Release);
        kick.set();
        engine.join().expect("the engine thread returns");
        mailbox.settle(&mut Spent::default());
        assert!(mailbox.is_empty(), "seed {seed:#x}");
        let total = inline(&mailbox, |ledger| ledger.last.iter().sum::<u64>());
        assert_eq!(total, Some(sent.into_inner()), "seed {seed:#x}");
    }
}

#[test]
fn visible_never_shows_a_gap() {
    const COMMITS: usize = 20_000;
    for seed in SEEDS {
        let queue = Sequencer::new(0, 8);
        let log = Mutex::new(0);
        let applied: Vec<_> = (0..=COMMITS).map(|_| AtomicUsize::new(0)).collect();
        let shares_of = |seqno: usize| 1 + seqno % 3;
        let handed = Mutex::new(VecDeque::new());
        on_threads(seed, |random, thread| {
            if thread == 0 {
                // A reader: everything up to `visible` is applied completely.
                let mut seen = 0;
                while seen < COMMITS {
                    let visible = queue.visible() as usize;
                    assert!(visible >= seen, "visible went back");
                    for (seqno, applied) in applied.iter().enumerate().take(visible + 1).skip(1) {
                        assert!(
                            seqno <= seen || applied.load(Ordering::Relaxed) == shares_of(seqno)
                        );
                    }
                    seen = visible;
                    thread::yield_now();
                }
                return;
            }
            loop {
                // Shares handed over by others are finished before waiting for an own slot.
                let share = handed.lock().expect("no panic").pop_front();
                if let Some(share) = share {
                    finish(&applied, share);
                    continue;
                }
                let Ok(slot) = queue.try_reserve() else {
                    thread::yield_now();
                    continue;
                };
                let (mut ticket, seqno) = {
                    let mut last = log.lock().expect("no panic");
                    if *last == COMMITS {
                        return;
                    }
                    *last += 1;
                    let (seqno, shares) = (*last as u64, shares_of(*last) as u32);
                    (queue.open(slot, seqno, shares), seqno)
                };
                for _ in 1..shares_of(seqno as usize) {
                    let share = ticket.share();
                    if random.below(2) == 0 {
                        handed.lock().expect("no panic").push_back((share, seqno));
                    } else {
                        finish(&applied, (share, seqno));
                    }
                }
                if finish(&applied, (ticket, seqno)) {
                    assert!(queue.visible() >= seqno);
                }
            }
        });
        assert_eq!(block_on(queue.wait_visible(COMMITS as u64)), Ok(()));
        let slots: Vec<_> = (0..8).map(|_| queue.try_reserve().is_ok()).collect();
        assert_eq!(slots, [true; 8], "seed {seed:#x}");
    }
}

fn finish(applied: &[AtomicUsize], (ticket, seqno): (CommitGuard, u64)) -> bool {
    applied[seqno as usize].fetch_add(1, Ordering::Relaxed);
    ticket.finish()
}

/// Counts wakes.
#[derive(Default)]
struct Flag(AtomicUsize);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A new future asks for this much, and is polled.
    Ask(u64),
    /// The i-th waiting future is polled, whether or not it was woken.
    Poll(usize),
    /// The i-th waiting future is dropped.
    Leave(usize),
    /// The i-th permit is given back.
    Return(usize),
    /// Somebody asks without waiting.
    Try(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u64..12).prop_map(Step::Ask),
        4 => (0_usize..8).prop_map(Step::Poll),
        1 => (0_usize..8).prop_map(Step::Leave),
        4 => (0_usize..8).prop_map(Step::Return),
        2 => (0_u64..12).prop_map(Step::Try),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    /// The rule itself: the limit is never exceeded. While there is room that the oldest sleeper
    /// could take, somebody has been woken who has not polled yet.
    #[test]
    fn no_wake_is_lost(steps in steps()) {
        let semaphore = Semaphore::new(10);
        let mut permits = Vec::new();
        let mut waiting = Vec::new();
        for step in steps {
            match step {
                Step::Ask(n) => {
                    let flag = Arc::new(Flag::default());
                    let mut acquire = Box::pin(semaphore.acquire(n));
                    let waker = Waker::from(flag.clone());
                    match acquire.as_mut().poll(&mut Context::from_waker(&waker)) {
                        Poll::Ready(permit) => permits.extend(permit.map(|permit| (n, permit))),
                        Poll::Pending => waiting.push((n, flag, acquire)),
                    }
                }
                Step::Poll(i) if i < waiting.len() => {
                    let (n, flag, acquire) = &mut waiting[i];
                    flag.0.store(0, Ordering::Relaxed);
                    let waker = Waker::from(flag.clone());
                    let polled = acquire.as_mut().poll(&mut Context::from_waker(&waker));
                    if let Poll::Ready(permit) = polled {
                        permits.extend(permit.map(|permit| (*n, permit)));
                        drop(waiting.remove(i));
                    }
                }
                Step::Leave(i) if i < waiting.len() => drop(waiting.remove(i)),
                Step::Return(i) if i < permits.len() => drop(permits.swap_remove(i)),
                Step::Try(n) => {
                    permits.extend(semaphore.try_acquire(n).map(|permit| (n, permit)));
                }
                _ => {}
            }
            let used: u64 = permits.iter().map(|(n, _)| n).sum();
            prop_assert_eq!(semaphore.used(), used);
            let free = semaphore.limit().saturating_sub(used);
            let asleep = |flag: &Flag| flag.0.load(Ordering::Relaxed) == 0;
            let sleeps = waiting.iter().any(|(_, flag, _)| asleep(flag));
            prop_assert_eq!(semaphore.is_short(), sleeps);
            if used <= semaphore.limit()
                && let Some((need, ..)) = waiting.iter().find(|(_, flag, _)| asleep(flag))
            {
                let woken = waiting.iter().any(|(_, flag, _)| !asleep(flag));
                prop_assert!(*need > free || woken, "{} sleeps while {} are free", need, free);
                let few = waiting.len() <= 16;
                prop_assert!(*need > free || used > 0 || !few, "nobody will wake it");
            }
        }
    }
}
