//! What the kernel costs when nobody contends: the budget of a whole put is about 600 ns.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sluicedb_actors::admission::gate::{Claim, Gate};
use sluicedb_actors::failure::health::Health;
use sluicedb_actors::kernel::{
    Answer, Capacity, CommitQueue, Credits, Handler, Hooks, Lost, Mailbox, Published, Reply, Seat,
    SeatMailbox, Signal, Turn, TurnLimits, reply,
};
use sluicedb_storage::key::Seqno;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

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
            Message::Ask(reply) => reply.send(self.0),
        }
    }

    fn weight(_: &Message) -> usize {
        1
    }
}

const CAPACITY: Capacity = Capacity { messages: 64, bytes: 1 << 20 };

fn now<T>(answer: &mut Answer<T>) -> Poll<Result<T, Lost>> {
    Pin::new(answer).poll(&mut Context::from_waker(Waker::noop()))
}

fn seats(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernel/seat");
    let seat = Seat::new(0_u64);
    group.bench_function("enter+leave", |b| {
        b.iter(|| *seat.try_enter().expect("free") += 1);
    });
    let hooks = Hooks { kick: Box::new(|| ()), on_panic: Box::new(|_| ()) };
    let mailbox = SeatMailbox::new(Sum(0), CAPACITY, TurnLimits::default(), hooks);
    group.bench_function("mailbox: enter_idle+attempt", |b| {
        b.iter(|| mailbox.try_enter_idle().expect("idle").attempt(|sum| sum.0 += 1));
    });
    group.bench_function("mailbox: enter_idle+leave", |b| {
        b.iter(|| mailbox.try_enter_idle().expect("idle").0 += 1);
    });
    group.bench_function("mailbox: reserve+send+deliver", |b| {
        b.iter(|| {
            let permit = mailbox.try_reserve(100).expect("room");
            mailbox.send(permit, Message::Add(black_box(1)));
        });
    });
    group.bench_function("mailbox: reserve+ask+deliver+answer", |b| {
        b.iter(|| {
            let (reply, mut answer) = reply();
            mailbox.send(mailbox.try_reserve(100).expect("room"), Message::Ask(reply));
            now(&mut answer)
        });
    });
    group.finish();
}

fn mailboxes(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernel/mailbox");
    let (mailbox, mut inbox) = Mailbox::new(CAPACITY);
    group.bench_function("reserve+send+recv", |b| {
        b.iter(|| {
            let permit = mailbox.try_reserve(100).expect("room");
            permit.send(black_box(1_u64)).expect("open");
            inbox.try_recv()
        });
    });
    group.finish();
}

fn commits(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernel/commit");
    let queue = CommitQueue::new(Seqno::ZERO, 4096);
    let mut seqno = Seqno::ZERO;
    group.bench_function("reserve_ref+open+finish", |b| {
        b.iter(|| {
            seqno = seqno.next();
            let slot = queue.try_reserve_ref().expect("a slot");
            assert!(queue.open(slot, seqno, 1).finish());
        });
    });
    group.bench_function("reserve+open+finish", |b| {
        b.iter(|| {
            seqno = seqno.next();
            let slot = queue.try_reserve().expect("a slot");
            assert!(queue.open(slot, seqno, 1).finish());
        });
    });
    group.bench_function("visible", |b| b.iter(|| queue.visible()));
    group.finish();
}

fn accounts(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernel/gate");
    let gate = Gate::new(Credits::new(1 << 30));
    let local = Credits::new(1 << 30);
    group.bench_function("try_admit_ref+release", |b| {
        b.iter(|| drop(gate.try_admit_ref(&local, black_box(116), black_box(116)).expect("room")));
    });
    group.bench_function("try_admit_many of one+release", |b| {
        b.iter(|| {
            let bytes = black_box(116);
            let claim = Claim { range: 0, account: local.clone(), bytes, local_bytes: bytes };
            drop(gate.try_admit_many(vec![claim]).expect("room"));
        });
    });
    group.bench_function("try_admit_ref+forget, released per 1024", |b| {
        let mut n = 0;
        b.iter(|| {
            n += gate
                .try_admit_ref(&local, black_box(116), black_box(116))
                .expect("room")
                .forget_into();
            if n >= 1024 * 116 {
                local.release(n);
                gate.global().release(n);
                n = 0;
            }
        });
        local.release(n);
        gate.global().release(n);
    });
    group.bench_function("credits: try_take_ref+drop", |b| {
        b.iter(|| drop(local.try_take_ref(black_box(116)).expect("room")));
    });
    group.finish();
}

fn cells(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernel/cell");
    let cell = Published::new(Arc::new(1_u64));
    group.bench_function("published: load", |b| b.iter(|| **cell.load()));
    group.bench_function("published: load_full", |b| b.iter(|| *cell.load_full()));
    let health = Health::<(), Arc<str>>::new();
    group.bench_function("health: check", |b| b.iter(|| health.check().is_ok()));
    let signal = Signal::new();
    group.bench_function("signal: set", |b| b.iter(|| signal.set()));
    group.bench_function("reply: send+take", |b| {
        b.iter_batched(
            reply::<u64>,
            |(reply, mut answer)| {
                reply.send(1);
                now(&mut answer)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, seats, mailboxes, commits, accounts, cells);
criterion_main!(benches);
