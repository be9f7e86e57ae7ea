//! Memory stays within its budget while producers are faster than the disk, and while memtables and
//! chunks of all sizes are allocated and freed.
//!
//! This is a binary of its own with one test, so that the process's memory is the engine's. The
//! work is bounded, not the time: a slow machine takes longer and sees the same. Nobody sleeps. The
//! producers measure memory themselves, between their puts.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test may panic, print, spawn and look at the clock"
)]

#[path = "kit/mod.rs"]
mod kit;

use kit::chance::Chance;
use sluicedb::{Compression, Db, Durability, Options};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// The rate of table and log writers. A `put` copies memory, some hundred MiB a second.
const DISK_BYTES_PER_SECOND: u64 = 48 * MIB;
const BUDGET_BYTES: u64 = 16 * MIB;
const VALUE_BYTES: usize = 4000;
/// How far process memory may exceed the budget.
const SLACK_BYTES: u64 = 96 * MIB;
/// Long enough for any machine; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(300);

/// Each producer: the lowest and the highest first byte of its keys, and its number of entries.
/// Together they write nine times the budget, and more than budget and slack together.
const PRODUCERS: [(u8, u8, u64); 8] = [
    // One hot range,
    (b'a', b'a', 6_000),
    (b'a', b'a', 6_000),
    (b'a', b'a', 6_000),
    (b'a', b'a', 6_000),
    // two warm ones,
    (b'h', b'h', 4_000),
    (b'p', b'p', 4_000),
    // a cold one,
    (b'z', b'z', 500),
    // and one that writes everywhere.
    (0, 0xFF, 6_000),
];

fn options() -> Options {
    let mut options = Options::default();
    options.memory_budget_bytes = BUDGET_BYTES;
    options.memtable_bytes = Some(MIB);
    options.log_segment_bytes = 4 * MIB;
    options.durability = Durability::Buffered;
    options.compression = Compression::None;
    options.initial_split_keys = vec![b"h".to_vec(), b"p".to_vec(), b"z".to_vec()];
    options
}

/// Resident memory of this process, if the system reports it. Without pages of files: those that
/// are mapped, the log's among them, are the system's cache and can be dropped at any time.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

#[derive(Default)]
struct Seen {
    /// Entries written, by producer.
    done: [AtomicU64; PRODUCERS.len()],
    accounted_max: AtomicU64,
    resident_max: AtomicU64,
}

impl Seen {
    fn look(&self, db: &Db) {
        self.accounted_max.fetch_max(db.stats().write_buffer_used_bytes, Ordering::Relaxed);
        if let Some(resident) = resident_bytes() {
            self.resident_max.fetch_max(resident, Ordering::Relaxed);
        }
    }
}

/// Returns how far the other producers were when this one finished.
async fn produce(db: Db, index: usize, seen: Arc<Seen>) -> Vec<u64> {
    let (first, last, entries) = PRODUCERS[index];
    let mut chance = Chance::new(index as u64);
    let noise = chance.bytes(32 << 10);
    for n in 0..entries {
        let mut key = [0; 16];
        key[0] = chance.between(first.into(), last.into()) as u8;
        key[1..9].copy_from_slice(&chance.next().to_be_bytes());
        let at = chance.below(noise.len() - VALUE_BYTES);
        db.put(key, &noise[at..at + VALUE_BYTES]).await.unwrap();
        seen.done[index].store(n + 1, Ordering::Relaxed);
        if n % 32 == 0 {
            seen.look(&db);
        }
    }
    seen.done.iter().map(|done| done.load(Ordering::Relaxed)).collect()
}

#[test]
fn memory_stays_within_the_budget() {
    let before = resident_bytes();
    producers_faster_than_the_disk(before);
    b16_chunks_that_come_and_go(before);
}

fn check_resident(before: Option<u64>, most: u64) {
    match before {
        Some(before) => {
            let grown = most.saturating_sub(before);
            eprintln!("process memory grew by {} MiB at most", grown / MIB);
            assert!(grown <= BUDGET_BYTES + SLACK_BYTES, "{} MiB", grown / MIB);
        }
        None => eprintln!("SKIPPED: this system has no /proc/self/status, memory was not measured"),
    }
}

/// Rounds of the second test. Together they write this many times the budget.
const OVERWRITE_ROUNDS: u64 = 12;

/// Several threads overwrite keys with values of all sizes, snapshots are taken and dropped, and
/// readers allocate meanwhile: chunks of every size class are taken and returned in every order.
/// Planted: chunks that stay mapped. (The chunks' own tests check that they do not come from the
/// allocator; here that would show too late.)
fn b16_chunks_that_come_and_go(before: Option<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    let mut options = options();
    options.memtable_bytes = Some(4 * MIB);
    options.initial_split_keys = vec![b"h".to_vec()];
    let most = Arc::new(AtomicU64::new(0));
    runtime.block_on(async {
        let db = Db::builder(dir.path().join("db")).options(options).open().await.unwrap();
        let work = |index: u64| {
            let (db, most) = (db.clone(), Arc::clone(&most));
            async move {
                let mut chance = Chance::new(0xB16 + index);
                let noise = chance.bytes(64 << 10);
                let mut written = 0;
                let mut kept = Vec::new();
                while written < OVERWRITE_ROUNDS * BUDGET_BYTES / 8 {
                    let (first, hot) = (chance.pick(b"am"), chance.one_in(2));
                    let key =
                        [&[first][..], &chance.below(if hot { 200 } else { 20_000 }).to_be_bytes()];
                    let len = if chance.one_in(200) { 40_000 } else { chance.below(3_000) };
                    let at = chance.below(noise.len() - len);
                    db.put(key.concat(), &noise[at..at + len]).await.unwrap();
                    written += len as u64;
                    if chance.one_in(300) {
                        kept.push(db.snapshot());
                    }
                    if kept.len() > 2 || chance.one_in(1_000) {
                        kept.clear();
                    }
                    if chance.one_in(20) {
                        db.get(key.concat()).await.unwrap().expect("it was just written");
                    }
                    if chance.one_in(50) {
                        most.fetch_max(resident_bytes().unwrap_or(0), Ordering::Relaxed);
                    }
                }
            }
        };
        let tasks: Vec<_> = (0..8).map(|index| tokio::spawn(work(index))).collect();
        let all = tokio::time::timeout(PATIENCE, futures::future::try_join_all(tasks)).await;
        all.unwrap_or_else(|_| panic!("it hangs: {:#?}", db.stats())).unwrap();
        eprintln!("{} flushes, {:?}", db.stats().flushes, db.stats().spare_chunk_bytes);
        db.close().await.unwrap();
    });
    check_resident(before, most.load(Ordering::Relaxed));
}

fn producers_faster_than_the_disk(before: Option<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let (disk, control) = kit::slow::slow_disk(DISK_BYTES_PER_SECOND);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let seen = Arc::new(Seen::default());
    let stats = runtime.block_on(async {
        let builder = Db::builder(dir.path().join("db")).options(options()).vfs(disk);
        let db = builder.open().await.unwrap();
        let producers = (0..PRODUCERS.len())
            .map(|index| tokio::spawn(produce(db.clone(), index, Arc::clone(&seen))))
            .collect::<Vec<_>>();
        let all = futures::future::join_all(producers);
        let all = tokio::time::timeout(PATIENCE, all).await;
        let all = all.unwrap_or_else(|_| panic!("it hangs: {:?}, {:#?}", seen.done, db.stats()));
        let first =
            all.into_iter().map(Result::unwrap).min_by_key(|others| others.iter().sum::<u64>());
        let first = first.expect("there are producers");
        assert!(first.iter().all(|&done| done > 0), "somebody was kept out: {first:?}");
        eprintln!("when the first of {PRODUCERS:?} was done: {first:?}");
        let stats = db.stats();
        db.close().await.unwrap();
        stats
    });
    eprintln!(
        "{} MiB to disk; {} waits in ranges, {} in the engine",
        control.passed_bytes() / MIB,
        stats.waits_local,
        stats.waits_global
    );
    let waits = stats.waits_local + stats.waits_global;
    assert!(waits > 0, "the producers were not faster than the disk: the test tests nothing");
    let accounted = seen.accounted_max.load(Ordering::Relaxed);
    let limit = options().effective_write_buffer_bytes();
    eprintln!("accounted at most {} KiB of {}", accounted >> 10, limit >> 10);
    assert!(accounted <= limit, "{accounted} of {limit} bytes");
    assert!(accounted > limit / 2, "memory was never short");
    check_resident(before, seen.resident_max.load(Ordering::Relaxed));
}
