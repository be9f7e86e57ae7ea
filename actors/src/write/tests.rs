//! Turns on a caller's thread. The engines of most tests here start no thread of their own, so the
//! test's thread does all the work.
//!
//! Long because every path of a write is driven here, step by step.

use super::inline::Seats;
use super::queued::{charges, owners};
use super::*;
use crate::engine::Engine;
use crate::failure::{Failure, Outcome, Scope};
use crate::log_writer::AfterTurn;
use crate::range_owner::RangeOwner;
use crate::runtime::{Runtime, Task, ThreadRuntime};
use crate::testing::{Stepped, config, renew_ranges};
use crate::version_manager::message::Change;
use futures::executor::block_on;
use futures::future::BoxFuture;
use sluicedb_kernel::combining::TURN_MESSAGES_MAX;
use sluicedb_kernel::wake::trust;
use sluicedb_storage::batch::WriteBatch;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::keyspace::KeyspaceId;
use sluicedb_storage::side_by_side::SideBySide;
use sluicedb_storage::vfs::MemVfs;
use sluicedb_storage::view::Value;
use std::fmt;
use std::future::Future;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// A runtime that runs the open, and never runs the other threads.
struct Still {
    threads: Arc<ThreadRuntime>,
    kept: Mutex<Vec<BoxFuture<'static, ()>>>,
}

impl fmt::Debug for Still {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Still")
    }
}

impl SideBySide for Still {}

impl Runtime for Still {
    fn spawn(&self, name: &str, body: BoxFuture<'static, ()>) -> std::io::Result<Task> {
        if name == "sluice-open" {
            return self.threads.spawn(name, body);
        }
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(body);
        Ok(Task::new().0)
    }

    fn now(&self) -> Instant {
        self.threads.now()
    }

    fn unix_ms(&self) -> u64 {
        self.threads.unix_ms()
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        self.threads.sleep_until(deadline)
    }
}

/// An engine with this many ranges; range `n` begins at the key `[n]`. Each test needs a directory
/// of its own, because no engine here ever releases its lock.
fn engine(dir: &str, ranges: u8) -> Engine {
    let runtime = Arc::new(Still { threads: ThreadRuntime::new(&[]), kept: Mutex::default() });
    let opened = Engine::open(config(dir, ranges), Arc::new(MemVfs::new()), runtime);
    block_on(opened).expect("an empty directory opens")
}

fn over(ranges: u8) -> (Bytes, u32) {
    let mut batch = WriteBatch::new();
    for byte in 0..ranges {
        batch.put([byte, 1], "value");
    }
    let operations = batch.len() as u32;
    (batch.take_encoded().into(), operations)
}

/// Queues more messages than one turn handles, either at each range, or at the log, where each
/// message leads to every range. One caller then reaches all of them. Planted: a fresh turn for
/// each range; a fresh turn for each message of the log.
#[test]
fn b13_a_callers_turn_is_bounded_over_all_the_ranges_that_it_comes_to() {
    for log_is_in_use in [false, true] {
        let engine = engine(&format!("/b13/{log_is_in_use}"), 8);
        let path = engine.write_path();
        let owners: Vec<_> =
            engine.superversion().ranges.iter().map(|range| Arc::clone(&range.owner)).collect();
        let submit = || {
            let (payload, operations) = over(8);
            let submitted = path.submit_owned(payload, operations, Durability::Buffered);
            assert!(matches!(submitted, Ok(Submitted::Waiting(_) | Submitted::Done(_))));
        };
        let handled = || owners.iter().map(|owner| owner.sizes.batches()).sum::<u64>() as usize;
        let log =
            log_is_in_use.then(|| engine.parts.wal.seat.enter_blocking().expect("nobody panicked"));
        let guards: Vec<_> = owners
            .iter()
            .map(|owner| owner.seat.enter_blocking().expect("nobody panicked"))
            .collect();
        let queued = if log_is_in_use { TURN_MESSAGES_MAX - 10 } else { 300 };
        for _ in 0..queued {
            submit();
        }
        assert_eq!(handled(), 0);
        guards.into_iter().for_each(sluicedb_kernel::combining::TurnGuard::release);
        log.into_iter().for_each(sluicedb_kernel::combining::TurnGuard::release);
        submit();
        let mine = handled();
        assert!((1..=TURN_MESSAGES_MAX).contains(&mine), "{mine} messages in one turn");
        // The rest is not lost.
        engine.parts.wal.seat.deliver_blocking();
        for owner in &owners {
            owner.seat.deliver_blocking();
        }
        assert_eq!(handled(), (queued + 1) * 8);
        assert_eq!(engine.visible(), Seqno((queued as u64 + 1) * 8));
    }
}

/// A waker that notes whether the log's seat is free when it is called.
struct Look {
    wal: Arc<Log>,
    free: Mutex<Vec<bool>>,
}

impl Look {
    fn new(engine: &Engine) -> Arc<Self> {
        Arc::new(Self { wal: Arc::clone(&engine.write_path().wal), free: Mutex::default() })
    }

    fn seen(&self) -> Vec<bool> {
        self.free.lock().expect("nothing panics under it").clone()
    }
}

impl Wake for Look {
    fn wake(self: Arc<Self>) {
        let free = self.wal.seat.try_enter_idle().is_some();
        self.free.lock().expect("nothing panics under it").push(free);
    }
}

/// A write that is queued because the log's seat is taken.
fn queued(engine: &Engine, durability: Durability) -> Submitted {
    let (payload, operations) = over(1);
    let submitted = engine.write_path().submit_owned(payload, operations, durability);
    submitted.expect("there is room")
}

#[test]
fn b12_a_write_into_a_log_that_has_failed_is_answered_when_the_seat_is_free() {
    let engine = engine("/b12a", 1);
    let (wal, look) = (&engine.write_path().wal, Look::new(&engine));
    let guard = wal.seat.enter_blocking().expect("nobody panicked");
    let mut write = queued(&engine, Durability::Synced);
    let waker = Waker::from(Arc::clone(&look));
    assert!(write.poll(&mut Context::from_waker(&waker)).is_pending());
    wal.durable.fail(&Failure::Closed);
    drop(guard);
    assert_eq!(look.seen(), [true]);
    let answer = write.poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(answer, Poll::Ready(Err(_))));
}

#[test]
fn b12_what_a_refused_write_gives_back_wakes_nobody_before_the_seat_is_free() {
    let engine = engine("/b12b", 1);
    let (wal, look) = (&engine.write_path().wal, Look::new(&engine));
    let mut guard = wal.seat.enter_blocking().expect("nobody panicked");
    let mut write = queued(&engine, Durability::Buffered);
    let global = engine.parts.accounts.global.clone();
    let mut all = Box::pin(global.acquire(global.limit()));
    let waker = Waker::from(Arc::clone(&look));
    assert!(all.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let mut after = AfterTurn::default();
    guard.attempt(|log| log.state.close(Failure::Closed, &mut after)).expect("nothing panics");
    drop(guard);
    assert_eq!(look.seen(), [true], "all of the account is there again");
    let answer = write.poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(answer, Poll::Ready(Err(_))));
}

/// Goal: a write that waits for a log segment is answered when the log's actor panics. Nobody but
/// that actor knows of it.
///
/// Planted: the seat keeps its actor after a panic.
#[test]
fn what_waits_for_a_segment_is_answered_when_the_log_panics() {
    let engine = engine("/parked", 1);
    let wal = &engine.write_path().wal;
    let mut batch = WriteBatch::new();
    batch.put([0], vec![1; 60 << 10]);
    let payload = Bytes::from(batch.take_encoded());
    // Nobody prepares a second segment here.
    let mut parked = loop {
        let sent = engine.write_path().submit_owned(payload.clone(), 1, Durability::Buffered);
        let sent = sent.expect("there is room");
        if !wal.with_log(|log| log.is_idle()).expect("nobody panicked") {
            break sent;
        }
    };
    let mut context = Context::from_waker(Waker::noop());
    assert!(parked.poll(&mut context).is_pending());
    assert!(wal.with_log(|_| -> () { panic!("on purpose") }).is_err());
    let answer = parked.poll(&mut context);
    let Poll::Ready(Err(failed)) = answer else { panic!("{answer:?}") };
    assert_eq!(failed.outcome, Outcome::Unknown);
    assert!(matches!(failed.failure, Failure::Panicked { .. }), "{failed:?}");
}

/// A batch so heavy that an engine thread finds its ranges.
fn heavy() -> (Bytes, u32) {
    let mut batch = WriteBatch::new();
    batch.put([0], vec![1; 700 << 10]);
    batch.put([1], vec![1; 700 << 10]);
    let operations = batch.len() as u32;
    (batch.take_encoded().into(), operations)
}

/// Planted: every refusal of a place is taken for a full queue.
#[test]
fn a_queue_that_is_closed_is_not_called_full() {
    let engine = engine("/closed-queue", 2);
    let path = engine.write_path();
    engine.parts.wal.seat.close();
    let (payload, operations) = over(2);
    let told = path
        .submit_owned(payload, operations, Durability::Buffered)
        .map_err(|told| told.failure.failure);
    assert!(matches!(told, Err(Failure::Closed)), "{told:?}");
}

/// No thread reads here, so the queue stays full. Planted: a wait for every limit; for a deadline
/// that has passed.
#[test]
fn who_does_not_wait_for_room_does_not_wait_for_a_place_in_the_read_threads_queue() {
    let engine = engine("/no-place", 2);
    let path = engine.write_path();
    let reads = engine.read_pool();
    let mut queued = Vec::new();
    let context = &mut Context::from_waker(Waker::noop());
    let not_routed = || match path.submit_owned(heavy().0, heavy().1, Durability::Buffered) {
        Ok(Submitted::NotRouted(write)) => write,
        other => panic!("{other:?}"),
    };
    let mut in_time = Box::pin(path.route_and_submit(not_routed(), WaitLimit::Never));
    assert!(in_time.as_mut().poll(context).is_pending(), "there is a place");
    for _ in 0..reads.capacity() {
        let mut read = Box::pin(reads.run(|| ()));
        assert!(read.as_mut().poll(context).is_pending());
        queued.push(read);
    }
    for limit in [WaitLimit::Never, WaitLimit::Until(engine.parts.environment.now())] {
        let refused = pin!(path.route_and_submit(not_routed(), limit)).poll(context);
        let Poll::Ready(Err(refused)) = refused else { panic!("{refused:?}") };
        let why = refused.failure.failure;
        let Failure::Overloaded { scope: Scope::Global, waited } = why else { panic!("{why:?}") };
        assert_eq!(waited, Duration::ZERO);
    }
    let mut waits = pin!(path.route_and_submit(not_routed(), WaitLimit::Forever));
    assert!(waits.as_mut().poll(context).is_pending());
}

/// Bytes that say how many of their kind are alive.
struct Counted(Bytes, #[expect(dead_code, reason = "its references are counted")] Arc<()>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// No thread reads here, so the jobs stay queued.
///
/// Planted: a job that owns the bytes of the write.
#[test]
fn what_is_given_up_in_the_read_threads_queue_keeps_no_payload() {
    let runtime = Stepped::new();
    let opening =
        Engine::open(config("/given-up", 2), Arc::new(MemVfs::new()), Arc::new(runtime.clone()));
    let engine = runtime.run("none", opening).expect("an empty directory opens");
    let path = engine.write_path();
    let context = &mut Context::from_waker(Waker::noop());
    let alive = Arc::new(());
    let (plain, operations) = heavy();
    let counted = || Bytes::from_owner(Counted(plain.clone(), Arc::clone(&alive)));
    let not_routed = |payload| match path.submit_owned(payload, operations, Durability::Buffered) {
        Ok(Submitted::NotRouted(write)) => write,
        other => panic!("{other:?}"),
    };
    for _ in 0..50 {
        let mut dropped =
            Box::pin(path.route_and_submit(not_routed(counted()), WaitLimit::Forever));
        assert!(dropped.as_mut().poll(context).is_pending());
        drop(dropped);
        let soon = WaitLimit::Until(runtime.now() + Duration::from_millis(1));
        let mut late = Box::pin(path.route_and_submit(not_routed(heavy().0), soon));
        assert!(late.as_mut().poll(context).is_pending());
        runtime.advance(Duration::from_millis(2));
        let Poll::Ready(Err(refused)) = late.as_mut().poll(context) else { panic!("it is late") };
        let payload = refused.payload.expect("it comes back");
        assert!(payload.is_unique(), "the caller gets it back without a copy");
    }
    assert_eq!(engine.read_pool().queued(), 100);
    assert_eq!(Arc::strong_count(&alive), 1, "the queue keeps payloads");
    let mut waits = Box::pin(path.route_and_submit(not_routed(counted()), WaitLimit::Forever));
    assert!(waits.as_mut().poll(context).is_pending());
    runtime.run_all_but(&[]);
    assert!(waits.as_mut().poll(context).is_ready(), "the thread passes over what was given up");
}

/// As `engine`, with running threads.
fn running(dir: &str, ranges: u8) -> Engine {
    let opened =
        Engine::open(config(dir, ranges), Arc::new(MemVfs::new()), ThreadRuntime::new(&[]));
    block_on(opened).expect("an empty directory opens")
}

fn put(key: &'static [u8]) -> (Bytes, u32) {
    let mut batch = WriteBatch::new();
    batch.put(key, "value");
    (batch.take_encoded().into(), 1)
}

/// Goal: a commit that was admitted by old routes, and handled after they changed, is written once,
/// by the new routes. It leaves no charge in the accounts of ranges that are gone.
///
/// Planted: `hand_on` does not look at the epoch; `route_again` keeps only the first target.
#[test]
fn a_commit_that_meets_a_change_on_its_way_is_routed_again() {
    let engine = running("/stale", 4);
    let path = engine.write_path();
    let before = engine.superversion();
    let (payload, operations) = over(4);
    let routed = Routed::of(&before, &payload, operations);
    let Routed { epoch, route } = routed.expect("the keyspace is there");
    let payload_crc = codec::crc(&payload);
    let admission = path.gate.try_admit_many(charges(&before, &route)).expect("there is room");
    let bytes = payload.len() as u64;
    let Ok(places) = path.try_places(&owners(&before, &route), &route, bytes) else {
        panic!("there are places")
    };
    let changed = block_on(renew_ranges(&engine));
    let changed = changed.expect("the disk works");
    let durability = Durability::Synced;
    let write =
        Write { payload, payload_crc, operations, durability, in_stages: true, route: None };
    let routed = Routed { epoch, route };
    let mut sent = path.send(write, routed, admission, places);
    let seen = block_on(sent.visible()).expect("it is stamped");
    let last = block_on(poll_fn(|context| sent.poll(context))).expect("it is written");
    assert_eq!(last, seen);
    assert_eq!(last.0, changed.0 + 4, "after the change, once");
    assert_eq!(engine.counters().log.routed_again.get(), 1);
    let after = engine.superversion();
    for byte in 0..4 {
        let value = engine.look_up::<Value>(
            KeyspaceId::DEFAULT,
            &[byte, 1],
            sluicedb_storage::table::ReadTier::Disk,
        );
        assert_eq!(value.expect("nothing is damaged").as_deref(), Some(&b"value"[..]));
        let (old, new) = (&before.ranges[usize::from(byte)], &after.ranges[usize::from(byte)]);
        assert_eq!((old.active.entries(), new.active.entries()), (0, 1), "range {byte}");
        assert_eq!(old.owner.local.used(), 0, "range {byte}");
        assert_eq!(new.owner.local.used(), new.owner.sizes.active_bytes() as u64, "range {byte}");
    }
    block_on(engine.flush()).expect("the disk works");
    assert_eq!(engine.parts.accounts.global.used(), 0);
    block_on(engine.close()).expect("the disk works");
}

/// Goal: a caller's own write that finds changed routes at the seat is written by the new ones.
///
/// Planted: `log_turn` does not look at the epoch (the entry is in a memtable that nobody reads).
#[test]
fn a_write_that_finds_the_routes_changed_at_the_seat_goes_by_the_new_ones() {
    let engine = running("/stale-seat", 2);
    let path = engine.write_path();
    let before = engine.superversion();
    block_on(renew_ranges(&engine)).expect("the disk works");
    let (payload, operations) = put(&[0, 7]);
    let owner = &before.ranges[0].owner;
    let crc = codec::crc(&payload);
    let routed = (before.epoch, owner);
    let seats = path.try_seats(routed, &payload, crc, operations, Durability::Buffered, 100);
    assert!(matches!(seats, Seats::Stale));
    assert!(matches!(
        path.submit(&payload, operations, Durability::Buffered),
        Ok(Submitted::Done(_) | Submitted::Waiting(_))
    ));
    block_on(engine.close()).expect("the disk works");
}

/// Goal: a writer that waits for room in a range that goes away is woken, and finds room in the
/// range that replaces it.
///
/// Planted: a change does not close the accounts of replaced ranges (the writer waits until the
/// range is flushed, which never happens here).
#[test]
fn x_10_who_waits_for_room_in_a_range_that_goes_is_routed_again() {
    let engine = running("/stale-waiter", 2);
    let path = engine.write_path();
    let before = engine.superversion();
    let owner = Arc::clone(&before.ranges[0].owner);
    // This permit is held until the end.
    let all = owner.local.try_acquire(owner.local.limit()).expect("the range is empty");
    let (payload, operations) = put(&[0, 7]);
    let Ok(Submitted::NotAdmitted(write, Scope::Local)) =
        path.submit_owned(payload, operations, Durability::Buffered)
    else {
        panic!("there is no room")
    };
    let mut waiting = Box::pin(path.admit_and_submit(write, WaitLimit::Forever));
    let mut context = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    assert!(owner.local.is_short());
    block_on(renew_ranges(&engine)).expect("the disk works");
    let mut sent = block_on(waiting).expect("there is room");
    block_on(poll_fn(|context| sent.poll(context))).expect("the disk works");
    let after = engine.superversion();
    assert_eq!((before.ranges[0].active.entries(), after.ranges[0].active.entries()), (0, 1));
    drop(all);
    block_on(engine.close()).expect("the disk works");
}

/// Goal: a writer that does not wait is not told `Overloaded` when its range was replaced. The
/// routes change after the caller has looked at them.
///
/// Planted: `NotAdmitted` for a write by old routes, and for one whose range is closed.
#[test]
fn a_write_that_does_not_wait_goes_by_the_new_routes() {
    let engine = running("/stale-try", 2);
    let path = engine.write_path();
    let write = |superversion: &Superversion, (payload, operations): (Bytes, u32)| Write {
        payload_crc: codec::crc(&payload),
        route: Some(Routed::of(superversion, &payload, operations).expect("it is there")),
        durability: Durability::Buffered,
        in_stages: false,
        payload,
        operations,
    };
    let change = || {
        block_on(renew_ranges(&engine)).expect("the disk works");
    };
    let before = engine.superversion();
    change();
    // First the caller still holds the old superversion. Then it holds the new one, and the write
    // was routed by the old one.
    for superversion in [Arc::clone(&before), engine.superversion()] {
        let sent = path.try_send(&superversion, write(&before, over(2)));
        let Ok(mut sent @ Submitted::Waiting(_)) = sent else { panic!("{sent:?}") };
        block_on(poll_fn(|context| sent.poll(context))).expect("the disk works");
    }
    // A heavy batch is routed by an engine thread the second time, too.
    let sent = path.try_send(&before, write(&before, heavy()));
    let Ok(Submitted::NotRouted(again)) = sent else { panic!("{sent:?}") };
    let sent = block_on(path.route_and_submit(again, WaitLimit::Never));
    let Ok(mut sent @ Submitted::Waiting(_)) = sent else { panic!("{sent:?}") };
    block_on(poll_fn(|context| sent.poll(context))).expect("the disk works");
    let after = engine.superversion();
    for at in 0..2 {
        assert_eq!(before.ranges[at].active.entries(), 0);
        assert_eq!(after.ranges[at].active.entries(), 3);
    }
    block_on(engine.close()).expect("the disk works");
}

/// Goal: nobody waits for room in a range that is created after admission was closed, because the
/// engine fails or is being closed: after a failure that range will not be flushed. The change has
/// begun before; the test holds the log's seat meanwhile.
///
/// Planted: a change does not look whether admission was closed.
#[test]
fn a_range_that_is_born_after_admission_was_closed_takes_nobody_in() {
    let engine = running("/born-late", 2);
    let before = engine.superversion();
    let commits = &engine.parts.topology.commits;
    let mut slots: Vec<_> = std::iter::from_fn(|| commits.try_reserve().ok()).collect();
    drop(slots.pop());
    let log = engine.parts.wal.seat.enter_blocking().expect("nobody panicked");
    let split = Change::Split { keyspace: KeyspaceId::DEFAULT, at: Bytes::from_static(&[0, 9]) };
    let mut change = Box::pin(engine.change(split));
    let mut context = Context::from_waker(Waker::noop());
    assert!(change.as_mut().poll(&mut context).is_pending());
    // The change holds the last place among the commits. From here on it waits only for the seat.
    while commits.try_reserve().is_ok() {
        std::thread::yield_now();
    }
    engine.parts.topology.close_admission(&engine.parts.accounts);
    drop(log);
    block_on(change).expect("the log is not closed yet");
    let after = engine.superversion();
    assert!(after.epoch > before.epoch);
    for range in &after.ranges {
        assert!(range.owner.local.is_closed(), "it takes claims that nobody may ever serve");
    }
    drop(slots);
    block_on(engine.close()).expect("the disk works");
}

/// Goal: a closed range refuses a write if no other range has its keys. Its owner has failed, and
/// nobody has told the engine yet.
///
/// Planted: a closed range is taken for a replaced one, whatever the routes say (the caller looks
/// at the same routes again and again).
#[test]
fn a_write_into_a_range_that_has_fallen_does_not_look_for_another_one() {
    let account: fn(&RangeOwner) = |owner| owner.local.close();
    let mailbox: fn(&RangeOwner) = |owner| owner.seat.close();
    for (dir, close) in [("/fallen/account", account), ("/fallen/mailbox", mailbox)] {
        for ranges in [1, 2] {
            let engine = engine(&format!("{dir}/{ranges}"), ranges);
            let owner = Arc::clone(&engine.superversion().ranges[0].owner);
            let (told, answers) = mpsc::channel();
            thread::spawn(move || {
                let path = engine.write_path();
                // A first caller finds the seat taken, so its write is sent.
                let guard = owner.seat.enter_blocking().expect("nobody panicked");
                close(&owner);
                assert!(!engine.parts.accounts.global.is_closed());
                let (payload, operations) = over(ranges);
                let write = |payload: &Bytes| Write {
                    payload: payload.clone(),
                    payload_crc: codec::crc(payload),
                    operations,
                    durability: Durability::Buffered,
                    in_stages: false,
                    route: Routed::of(&engine.superversion(), payload, operations).ok(),
                };
                let submitted = path.submit(&payload, operations, Durability::Buffered);
                told.send(submitted.map(drop)).expect("the test waits");
                let waited = block_on(path.admit_and_submit(write(&payload), WaitLimit::Forever));
                let waited = waited.map(drop).map_err(|rejected| rejected.failure);
                told.send(waited).expect("the test waits");
                drop(guard);
            });
            for _ in 0..2 {
                let answer = answers.recv_timeout(Duration::from_secs(20)).expect("it is refused");
                let refused = answer.map_err(|told| (told.failure, told.outcome));
                assert!(
                    matches!(refused, Err((Failure::Closed, Outcome::NotApplied))),
                    "{dir}, {ranges} ranges: {refused:?}"
                );
            }
        }
    }
}

/// Goal: a write on its way keeps nothing of the engine in memory but the sequencer that it waits
/// in, and not even that once it is answered.
///
/// Planted: `Pending` holds the topology; a finished `Pending` is kept as it is.
#[test]
fn a_write_on_its_way_keeps_no_memtable_and_no_file() {
    let engine = running("/light-ticket", 1);
    let topology = Arc::downgrade(&engine.parts.topology);
    let failures = Arc::downgrade(&engine.parts.failures);
    let runtime = Arc::clone(&engine.parts.environment.runtime);
    let queued = || {
        let (payload, operations) = put(b"key");
        let owner = Arc::clone(&engine.superversion().ranges[0].owner);
        // The seat is taken, so the write is queued.
        let guard = owner.seat.enter_blocking().expect("nobody panicked");
        let sent = engine.write_path().submit_owned(payload, operations, Durability::Synced);
        drop(guard);
        let Ok(sent @ Submitted::Waiting(_)) = sent else { panic!("{sent:?}") };
        sent
    };
    let mut finished = queued();
    block_on(poll_fn(|context| finished.poll(context))).expect("the disk works");
    let mut unfinished = queued();
    block_on(engine.close()).expect("the disk works");
    drop(engine);
    // Another thread drops what the engine held.
    let deadline = runtime.now() + Duration::from_secs(20);
    while topology.strong_count() > 0 || failures.strong_count() > 0 {
        assert!(runtime.now() < deadline, "they are kept");
        thread::yield_now();
    }
    let last = unfinished.poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(last, Poll::Ready(Ok(_))), "{last:?}");
    for answered in [finished, unfinished] {
        assert!(matches!(answered, Submitted::Done(_)), "{answered:?}");
    }
}

/// Counts how often it is called.
#[derive(Default)]
struct Calls(AtomicUsize);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Goal: a synced write that waits alone gives its thread back at each poll, and asks for the next
/// one. Two do not.
///
/// Planted: the acknowledgement is awaited without `Polling`; a buffered write that polls.
#[test]
fn one_synced_write_polls_for_its_sync_and_two_do_not() {
    let mut config = config("/polls", 1);
    config.sync_polling = Duration::from_micros(200);
    let runtime = Stepped::new();
    let opening = Engine::open(config, Arc::new(MemVfs::new()), Arc::new(runtime.clone()));
    let engine = runtime.run("none", opening).expect("an empty directory opens");
    runtime.run_all_but(&[]);
    let calls = Arc::new(Calls::default());
    let waker = Waker::from(Arc::clone(&calls));
    trust(&waker);
    let write = |durability| -> Pin<Box<dyn Future<Output = Committed> + '_>> {
        let (payload, operations) = over(1);
        let submitted = engine.write_path().submit_owned(payload, operations, durability);
        let submitted = submitted.expect("there is room");
        Box::pin(engine.write_path().acknowledged(submitted, durability))
    };
    // Polls once. Returns whether it was ready, and how often it woke its task.
    let poll = |write: &mut Pin<Box<dyn Future<Output = Committed> + '_>>| {
        let before = calls.0.load(Ordering::SeqCst);
        let ready = write.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        (ready, calls.0.load(Ordering::SeqCst) - before)
    };
    let sync = || runtime.run_all_but(&[]);
    let mut one = write(Durability::Synced);
    for _ in 0..100 {
        assert_eq!(poll(&mut one), (false, 1));
        runtime.advance(Duration::from_micros(1));
    }
    sync();
    assert_eq!(poll(&mut one), (true, 0));
    let (mut one, mut other) = (write(Durability::Synced), write(Durability::Synced));
    assert_eq!((poll(&mut one), poll(&mut other)), ((false, 0), (false, 0)));
    sync();
    assert_eq!((poll(&mut one), poll(&mut other)), ((true, 0), (true, 0)));
    assert_eq!(poll(&mut write(Durability::Buffered)), (true, 0));
    // Whoever waits for something else than a sync does not poll.
    let (payload, operations) = over(1);
    let submitted = engine.write_path().submit_owned(payload, operations, Durability::Synced);
    let submitted = submitted.expect("there is room");
    let acknowledged = engine.write_path().acknowledged(submitted, Durability::Buffered);
    let mut other: Pin<Box<dyn Future<Output = Committed> + '_>> = Box::pin(acknowledged);
    assert_eq!(poll(&mut other), (false, 0));
}
