//! The engine never stalls the runtime of its host: not while it is filled, flushes, compacts,
//! splits ranges, holds writers back, is scanned, reads from the disk, and is closed.
//!
//! Two things are looked at, on a runtime with one thread and on one with two:
//! * Each turn of a client's task: does its thread go to sleep within it, for a disk, a lock, or a
//!   page? The kernel counts that for each thread, so neither a clock nor the speed of the machine
//!   matters.
//! * A task that wants to run every millisecond: how late is it? The bound comes from the same task
//!   in the same process beside as many busy threads as the engine has, and no engine.
//!
//! This is a binary of its own with one test, so that nothing else keeps the machine busy.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test may panic, print, spawn and look at the clock"
)]

use sluicedb::{Compression, Db, Durability, Options, WriteBatch};
use std::cell::RefCell;
use std::fs::File;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_millis(1);
const CLIENTS: u64 = 8;
/// A percentile of fewer beats would say little.
const BEATS_MIN: usize = 300;
/// Operations of each client in a phase.
const OPERATIONS: u64 = 6_000;
const VALUE: [u8; 100] = [7; 100];
/// Engine threads that may be busy at the same time: a flush, two compactions and the log's.
const BUSY_THREADS: usize = 4;
/// So many turns in a hundred may put their thread to sleep. A turn has up to a hundred operations,
/// so whatever an operation waits for shows in all of them. What is left is not the engine's: the
/// locks of the allocator, where two threads free what the other one allocated, and the kernel's
/// lock of the address space.
const SLEEPS_PER_CENT: u64 = 50;
/// The 99th percentile of lateness, beside what the busy threads alone make of it.
const LATENESS_FACTOR: u32 = 4;
const LATENESS_SLACK: Duration = Duration::from_millis(20);

/// How often the kernel has put this thread to sleep because it had to wait for something.
fn sleeps() -> Option<u64> {
    thread_local! {
        static STATUS: RefCell<Option<File>> =
            RefCell::new(File::open("/proc/thread-self/status").ok());
    }
    STATUS.with(|status| {
        let mut text = [0; 4096];
        let length = status.borrow().as_ref()?.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..length]).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse().ok()
    })
}

#[derive(Default)]
struct Seen {
    turns: AtomicU64,
    sleeps: AtomicU64,
    late: Mutex<Vec<Duration>>,
    ended: AtomicBool,
}

/// A client's task, each turn of which is looked at.
struct Client<F>(Pin<Box<F>>, Arc<Seen>);

impl<F: Future> Future for Client<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let before = sleeps();
        let polled = self.0.as_mut().poll(context);
        if let Some((before, after)) = before.zip(sleeps()) {
            self.1.sleeps.fetch_add(u64::from(after > before), Ordering::Relaxed);
        }
        self.1.turns.fetch_add(1, Ordering::Relaxed);
        polled
    }
}

async fn beat(seen: Arc<Seen>) {
    let beats = || seen.late.lock().unwrap().len();
    while !seen.ended.load(Ordering::Relaxed) || beats() < BEATS_MIN {
        let due = Instant::now() + PERIOD;
        tokio::time::sleep_until(due.into()).await;
        seen.late.lock().unwrap().push(due.elapsed());
    }
}

/// What a phase looked like.
struct Phase {
    turns: u64,
    sleeps: u64,
    /// Of a hundred beats one was later.
    late: Duration,
    latest: Duration,
}

/// Runs the clients of a phase to their end, beside a heartbeat.
async fn phase<F>(client: impl Fn(u64) -> F) -> Phase
where
    F: Future<Output = ()> + Send + 'static,
{
    let seen = Arc::new(Seen::default());
    let beat = tokio::spawn(beat(Arc::clone(&seen)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(Client(Box::pin(client(number)), Arc::clone(&seen))))
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    seen.ended.store(true, Ordering::Relaxed);
    beat.await.unwrap();
    let mut late = std::mem::take(&mut *seen.late.lock().unwrap());
    late.sort_unstable();
    let at = |per_mille: usize| late[(late.len() - 1) * per_mille / 1000];
    let [turns, sleeps] =
        [&seen.turns, &seen.sleeps].map(|counter| counter.load(Ordering::Relaxed));
    Phase { turns, sleeps, late: at(990), latest: at(1000) }
}

fn key(client: u64, index: u64) -> [u8; 16] {
    let mixed = (client << 32 | index).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&(mixed ^ (mixed >> 29)).to_be_bytes());
    key[8..].copy_from_slice(&(client << 32 | index).to_be_bytes());
    key
}

/// Small in all that makes the engine work: memtables, levels, ranges, caches.
fn options() -> Options {
    let mut options = Options::default();
    options.memory_budget_bytes = 16 << 20;
    options.cache_bytes = Some(1 << 20);
    options.memtable_bytes = Some(1 << 20);
    options.level_base_bytes = 1 << 20;
    options.table_bytes_max = 1 << 20;
    options.range_bytes_max = 4 << 20;
    options.range_cooldown_ms = 10;
    options.ranges_max = Some(4);
    options.compression = Compression::None;
    options.durability = Durability::Buffered;
    options
}

async fn puts(db: Db, client: u64, value_bytes: usize) {
    let value = vec![7; value_bytes];
    for index in 0..OPERATIONS * 100 / value_bytes as u64 {
        db.put(key(client, index), &value).await.unwrap();
    }
}

async fn batches(db: Db, client: u64) {
    for first in (0..OPERATIONS).step_by(500) {
        let mut batch = WriteBatch::new();
        for index in first..first + 500 {
            batch.put(key(client, index), VALUE);
        }
        db.write(batch).await.unwrap();
    }
}

async fn synced_puts(db: Db, client: u64) {
    use sluicedb::WriteOptions;
    for index in 0..OPERATIONS / 100 {
        let how = WriteOptions::durability(Durability::Synced);
        db.put_with(key(client, index), VALUE, how).await.unwrap();
    }
}

async fn gets(db: Db, client: u64) {
    for index in 0..OPERATIONS / 4 {
        assert!(db.get(key(client, index)).await.unwrap().is_some());
    }
}

async fn scans(db: Db, client: u64) {
    let mut scan = db.scan(&key(client, 0)[..1]..);
    while scan.next_entry().await.unwrap().is_some() {}
    for index in 0..OPERATIONS / 50 {
        let mut scan = db.scan(key(client, index).as_slice()..).limit(100);
        while scan.next_chunk().await.unwrap().is_some() {}
    }
}

/// As much on the runtime's threads as a put, and nothing else.
async fn nothing(client: u64) {
    for index in 0..OPERATIONS * 4 {
        std::hint::black_box((0..100).fold(0, |sum, at| sum ^ key(client, index + at)[3]));
        tokio::task::consume_budget().await;
    }
}

/// As many busy threads as the engine has, and no engine.
async fn calibrated() -> Phase {
    let ended = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..BUSY_THREADS)
        .map(|_| {
            let ended = Arc::clone(&ended);
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    std::hint::black_box((0..1000).fold(0, |sum, at| sum ^ key(sum, at)[3] as u64));
                }
            })
        })
        .collect();
    let phase = phase(nothing).await;
    ended.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    phase
}

async fn contract(threads: usize) {
    let without = calibrated().await;
    let bound = without.late * LATENESS_FACTOR + LATENESS_SLACK;
    let check = |name: &str, phase: Phase| {
        let Phase { turns, sleeps, late, latest } = phase;
        eprintln!(
            "{threads} threads, {name}: {sleeps} of {turns} turns slept; \
             99 of 100 beats at most {late:?} late, all {latest:?}"
        );
        assert!(turns >= CLIENTS, "{name}: nobody worked");
        let sleeps_max = 8 + turns * SLEEPS_PER_CENT / 100;
        assert!(sleeps <= sleeps_max, "{name}: {sleeps} of {turns} turns slept");
        assert!(late <= bound, "{name}: one beat in a hundred is {late:?} late; {bound:?} allowed");
    };
    eprintln!("{threads} threads, no engine: 99 of 100 beats at most {:?} late", without.late);

    let dir = tempfile::tempdir().unwrap();
    let db = Db::builder(dir.path()).options(options()).open().await.unwrap();
    let of = |db: &Db| db.clone();
    check("filling", phase(|client| puts(of(&db), client, 100)).await);
    check("held back", phase(|client| puts(of(&db), client, 10_000)).await);
    check("batches", phase(|client| batches(of(&db), client)).await);
    check("synced", phase(|client| synced_puts(of(&db), client)).await);
    check("scanning", phase(|client| scans(of(&db), client)).await);
    check("reading", phase(|client| gets(of(&db), client)).await);
    let compacting = of(&db);
    let compaction = tokio::spawn(async move { compacting.compact().await });
    check("compacting", phase(|client| puts(of(&db), client, 200)).await);
    compaction.await.unwrap().unwrap();
    let stats = db.stats();
    eprintln!(
        "{} flushes, {} compactions, {} ranges, writers waited {} us",
        stats.flushes,
        stats.compactions,
        stats.ranges.len(),
        stats.wait_micros_local + stats.wait_micros_global,
    );
    assert!(stats.flushes > 5 && stats.compactions > 5 && stats.ranges.len() > 1, "{stats:?}");
    let closing = of(&db);
    drop(db);
    check(
        "closing",
        phase(move |client| {
            let db = (client == 0).then(|| closing.clone());
            async move {
                match db {
                    Some(db) => db.close().await.unwrap(),
                    None => nothing(client).await,
                }
            }
        })
        .await,
    );
}

/// INVARIANT(no-block-on-executor), as the kernel sees it.
///
/// Planted: a put that goes to sleep for an instant, as one that waits for a disk does.
#[test]
fn the_runtime_never_stalls() {
    if sleeps().is_none() {
        eprintln!("SKIPPED in part: this system does not say when a thread slept");
    }
    let current = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    current.block_on(async { tokio::spawn(contract(1)).await.unwrap() });
    let two = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    two.block_on(async { tokio::spawn(contract(2)).await.unwrap() });
}
