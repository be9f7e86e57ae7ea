//! The costs of the kernel beside those of tokio and flume: single operations without contention,
//! and a question to an actor by one caller and by sixteen. Compare ratios within one run only.

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sluicedb_kernel::combining::{CombiningMailbox, Handler, Hooks, Turn};
use sluicedb_kernel::mailbox::{Capacity, Mailbox};
use sluicedb_kernel::published::Published;
use sluicedb_kernel::reply::{Reply, reply};
use sluicedb_kernel::semaphore::Semaphore;
use sluicedb_kernel::sequencer::Sequencer;
use sluicedb_kernel::signal::Signal;
use sluicedb_kernel::sync::block_on;
use sluicedb_kernel::watch::Watch;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

const CAPACITY: Capacity = Capacity { messages: 64, bytes: 1 << 20 };

struct Sum(u64);

enum Message {
    Add(u64),
    Ask(Reply<u64>),
}

impl Handler for Sum {
    type Message = Message;

    fn handle(&mut self, message: Message, _: &mut Turn) {
        match message {
            Message::Add(n) => self.0 = self.0.wrapping_add(n),
            Message::Ask(reply) => {
                self.0 = self.0.wrapping_add(1);
                reply.send(self.0);
            }
        }
    }

    fn weight(_: &Message) -> usize {
        1
    }
}

/// An actor that its callers run, and the signal that its kick sets.
fn combining() -> (Arc<CombiningMailbox<Sum>>, Arc<Signal>) {
    let kicked = Arc::new(Signal::new());
    let kick = Arc::clone(&kicked);
    let hooks =
        Hooks { kick: Box::new(move || kick.set()), on_panic: Box::new(|told| panic!("{told}")) };
    let mailbox = CombiningMailbox::new(Sum(0), CAPACITY, hooks);
    (Arc::new(mailbox), kicked)
}

fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("nobody contends"),
    }
}

fn alone(c: &mut Criterion) {
    let mut group = c.benchmark_group("alone");
    let (mailbox, _) = combining();
    group.bench_function("combining: enter + leave", |b| {
        b.iter(|| mailbox.try_enter_idle().expect("idle").attempt(|sum| sum.0 += 1));
    });
    group.bench_function("combining: reserve + send + handle", |b| {
        b.iter(|| {
            let permit = mailbox.try_reserve(100).expect("room");
            mailbox.send(permit, Message::Add(black_box(1)));
        });
    });
    group.bench_function("std: lock + unlock", |b| {
        let lock = std::sync::Mutex::new(0_u64);
        b.iter(|| *lock.lock().expect("no panic") += black_box(1));
    });
    let (mailbox, mut inbox) = Mailbox::new(CAPACITY);
    group.bench_function("mailbox: reserve + send + receive", |b| {
        b.iter(|| {
            let permit = mailbox.try_reserve(100).expect("room");
            permit.send(black_box(1_u64)).expect("open");
            inbox.try_recv()
        });
    });
    let (sender, mut receiver) = mpsc::channel(64);
    group.bench_function("tokio mpsc: reserve + send + receive", |b| {
        b.iter(|| {
            sender.try_reserve().expect("room").send(black_box(1_u64));
            receiver.try_recv()
        });
    });
    let (sender, receiver) = flume::bounded(64);
    group.bench_function("flume: send + receive", |b| {
        b.iter(|| {
            sender.try_send(black_box(1_u64)).expect("room");
            receiver.try_recv()
        });
    });
    let semaphore = Semaphore::new(1 << 30);
    group.bench_function("semaphore: take + release", |b| {
        b.iter(|| {
            semaphore.try_take(black_box(116)).expect("room");
            semaphore.release(116);
        });
    });
    group.bench_function("semaphore: acquire + drop", |b| {
        b.iter(|| drop(semaphore.try_acquire(black_box(116)).expect("room")));
    });
    let theirs = tokio::sync::Semaphore::new(1 << 30);
    group.bench_function("tokio semaphore: acquire + drop", |b| {
        b.iter(|| drop(theirs.try_acquire_many(black_box(116)).expect("room")));
    });
    let (watch, theirs) = (Watch::new(0_u64), tokio::sync::watch::channel(0_u64).0);
    let (mut watcher, mut their_watcher) = (watch.watcher(), theirs.subscribe());
    group.bench_function("watch: set + changed", |b| {
        b.iter(|| {
            watch.set(black_box(1));
            now(watcher.changed())
        });
    });
    group.bench_function("tokio watch: set + changed", |b| {
        b.iter(|| {
            theirs.send_replace(black_box(1));
            now(their_watcher.changed()).expect("open");
            *their_watcher.borrow_and_update()
        });
    });
    group.bench_function("reply: ask + send + answer", |b| {
        let pair = reply::<u64>;
        b.iter_batched(pair, |(reply, answer)| (reply.send(1), now(answer)), BatchSize::SmallInput);
    });
    group.bench_function("tokio oneshot: ask + send + answer", |b| {
        let pair = oneshot::channel::<u64>;
        b.iter_batched(pair, |(tx, answer)| (tx.send(1), now(answer)), BatchSize::SmallInput);
    });
    let sequencer = Sequencer::new(0, 4096);
    let mut number = 0;
    group.bench_function("sequencer: reserve + open + finish", |b| {
        b.iter(|| {
            number += 1;
            let slot = sequencer.try_reserve_ref().expect("a slot");
            assert!(sequencer.open(slot, number, 1).finish());
        });
    });
    let cell = Published::new(Arc::new(1_u64));
    group.bench_function("published: load", |b| b.iter(|| **cell.load()));
    let signal = Signal::new();
    group.bench_function("signal: set", |b| b.iter(|| signal.set()));
    group.finish();
}

/// How long `clients` tasks take for `count` questions in total. Each task asks the next question
/// when it has its answer.
fn ask<A, F>(runtime: &Runtime, clients: u64, count: u64, asks: A) -> Duration
where
    A: Fn() -> F + Clone + Send + 'static,
    F: Future<Output = u64> + Send,
{
    let each = count.div_ceil(clients);
    runtime.block_on(async {
        let begun = Instant::now();
        let tasks: Vec<_> = (0..clients)
            .map(|_| {
                let asks = asks.clone();
                tokio::spawn(async move {
                    for _ in 0..each {
                        black_box(asks().await);
                        tokio::task::coop::consume_budget().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        begun.elapsed()
    })
}

fn asked(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    let runtime = runtime.expect("threads start");

    let (mailbox, kicked) = combining();
    let behind = Arc::clone(&mailbox);
    thread::spawn(move || {
        loop {
            block_on(kicked.wait());
            behind.deliver_blocking();
        }
    });
    let by_callers = move || {
        let mailbox = Arc::clone(&mailbox);
        async move {
            let permit = mailbox.reserve(1).await.expect("open");
            let (reply, answer) = reply();
            mailbox.send(permit, Message::Ask(reply));
            answer.await.expect("answered")
        }
    };

    let (sender, mut questions) = mpsc::channel::<oneshot::Sender<u64>>(64);
    runtime.spawn(async move {
        let mut sum = 0_u64;
        while let Some(reply) = questions.recv().await {
            sum = sum.wrapping_add(1);
            let _gone = reply.send(sum);
        }
    });
    let by_a_task = move || {
        let sender = sender.clone();
        async move {
            let (reply, answer) = oneshot::channel();
            sender.send(reply).await.expect("open");
            answer.await.expect("answered")
        }
    };

    let (sender, questions) = flume::bounded::<Reply<u64>>(64);
    thread::spawn(move || {
        let mut sum = 0_u64;
        while let Ok(reply) = questions.recv() {
            sum = sum.wrapping_add(1);
            reply.send(sum);
        }
    });
    let by_flume = move || {
        let sender = sender.clone();
        async move {
            let (reply, answer) = reply();
            sender.send_async(reply).await.expect("open");
            answer.await.expect("answered")
        }
    };

    let (mailbox, mut inbox) = Mailbox::<Reply<u64>>::new(CAPACITY);
    thread::spawn(move || {
        let mut sum = 0_u64;
        while let Some(reply) = block_on(inbox.recv()) {
            sum = sum.wrapping_add(1);
            reply.send(sum);
        }
    });
    let by_a_thread = move || {
        let mailbox = mailbox.clone();
        async move {
            let permit = mailbox.reserve(1).await.expect("open");
            let (reply, answer) = reply();
            permit.send(reply).expect("open");
            answer.await.expect("answered")
        }
    };

    for clients in [1, 16] {
        let mut group = c.benchmark_group(format!("asked by {clients}"));
        group.bench_function("combining mailbox, no hop", |b| {
            b.iter_custom(|count| ask(&runtime, clients, count, by_callers.clone()));
        });
        group.bench_function("tokio mpsc + oneshot, a task", |b| {
            b.iter_custom(|count| ask(&runtime, clients, count, by_a_task.clone()));
        });
        group.bench_function("mailbox + reply, a thread", |b| {
            b.iter_custom(|count| ask(&runtime, clients, count, by_a_thread.clone()));
        });
        group.bench_function("flume + reply, a thread", |b| {
            b.iter_custom(|count| ask(&runtime, clients, count, by_flume.clone()));
        });
        group.finish();
    }
    runtime.shutdown_background();
}

criterion_group!(benches, alone, asked);
criterion_main!(benches);
