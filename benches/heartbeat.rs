//! How late a task is that wants to run every millisecond on the runtime of the clients, while the
//! engine works: that is what the rest of a service feels of its storage.
//!
//! Each row says how late the beats were, what the longest operation took, and how many there were.
//! `idle` and `busy` have no engine: they say what the runtime and the machine do by themselves.
//! `cargo bench --bench heartbeat -- WORD...` runs the rows whose names contain one of the words.
//! `WORKERS=1` sets the number of workers, which is 2.
//!
//! To see what ran instead, put a probe on `sluice_late`, which is called for each beat that is
//! more than two milliseconds late, and record it together with `sched:sched_switch`:
//! `perf probe -x BENCH 'sluice_late us=%di:u64'`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark spawns, looks at the clock and prints"
)]

#[allow(dead_code, unreachable_pub, reason = "shared by benchmarks")]
mod kit;

use kit::key;
use sluicedb::{Compression, Db, Durability, Options, WriteBatch};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::sleep_until;

const PERIOD: Duration = Duration::from_millis(1);
const MARKED: Duration = Duration::from_millis(2);
const SECONDS: f64 = 4.0;
const VALUE: [u8; 100] = [7; 100];

fn now() -> Instant {
    Instant::now()
}

/// A place for a probe.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sluice_late(us: u64) {
    std::hint::black_box(us);
}

#[derive(Default)]
struct Seen {
    late_ns: Mutex<Vec<u64>>,
    operations: AtomicU64,
    longest_ns: AtomicU64,
    ended: AtomicBool,
}

impl Seen {
    async fn beat(self: Arc<Self>) {
        while !self.ended.load(Ordering::Relaxed) {
            let due = now() + PERIOD;
            sleep_until(due.into()).await;
            let late = due.elapsed();
            if late > MARKED {
                sluice_late(late.as_micros() as u64);
            }
            self.late_ns.lock().expect("no panic").push(late.as_nanos() as u64);
        }
    }

    async fn timed<T>(&self, operation: impl Future<Output = T>) -> T {
        let begun = now();
        let result = operation.await;
        self.longest_ns.fetch_max(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
        self.operations.fetch_add(1, Ordering::Relaxed);
        tokio::task::consume_budget().await;
        result
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Work {
    Idle,
    Busy,
    Put,
    Sequential,
    Batch(u64),
    Overwrite,
    Get,
    ScanShort,
    ScanAll,
}

fn options() -> Options {
    let mut options = Options::default();
    options.cache_bytes = Some(64 << 20);
    options.memtable_bytes = Some(16 << 20);
    options.write_buffer_bytes = Some(64 << 20);
    options.compression = Compression::None;
    options.l0_compression = Compression::None;
    options.durability = Durability::Buffered;
    options
}

const LOADED: u64 = 1_000_000;

async fn client(db: Option<Db>, work: Work, client: u64, seen: Arc<Seen>) {
    let end = now() + Duration::from_secs_f64(SECONDS);
    let mut at = client << 40;
    while now() < end {
        at += 1;
        let random = u64::from_be_bytes(key(at)[..8].try_into().expect("eight bytes")) % LOADED;
        let Some(db) = &db else {
            if work == Work::Busy {
                seen.timed(async {
                    std::hint::black_box((0..300).fold(at, |a, b| key(a ^ b)[3].into()))
                })
                .await;
            } else {
                tokio::time::sleep(PERIOD).await;
            }
            continue;
        };
        let wrote = match work {
            Work::Put => seen.timed(db.put(key(at), VALUE)).await.map(drop),
            Work::Sequential => seen.timed(db.put(at.to_be_bytes(), VALUE)).await.map(drop),
            Work::Overwrite => {
                seen.timed(db.put(key(random * random / LOADED), VALUE)).await.map(drop)
            }
            Work::Batch(size) => {
                let mut batch = WriteBatch::new();
                for index in 0..size {
                    batch.put(key(at * size + index), VALUE);
                }
                seen.timed(db.write(batch)).await.map(drop)
            }
            Work::Get => seen.timed(db.get(key(random))).await.map(drop),
            Work::ScanShort | Work::ScanAll => {
                let limit = if work == Work::ScanAll { u64::MAX } else { 100 };
                let mut scan = db.scan(key(random).as_slice()..).limit(limit);
                while let Some(chunk) = seen.timed(scan.next_chunk()).await.expect("disk") {
                    std::hint::black_box(chunk.iter().count());
                    if now() > end {
                        break;
                    }
                }
                Ok(())
            }
            Work::Idle | Work::Busy => Ok(()),
        };
        wrote.expect("the disk works");
    }
}

async fn row(name: &str, work: Work, clients: u64, workers: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let db = if matches!(work, Work::Idle | Work::Busy) {
        None
    } else {
        Some(Db::builder(dir.path()).options(options()).open().await.expect("opens"))
    };
    if let Some(db) = db
        .as_ref()
        .filter(|_| matches!(work, Work::Overwrite | Work::Get | Work::ScanShort | Work::ScanAll))
    {
        for first in (0..LOADED).step_by(1000) {
            let mut batch = WriteBatch::new();
            for index in first..first + 1000 {
                batch.put(key(index), VALUE);
            }
            db.write(batch).await.expect("writes");
        }
        db.flush().await.expect("flushes");
    }
    let seen = Arc::new(Seen::default());
    let beat = tokio::spawn(Arc::clone(&seen).beat());
    let clients: Vec<_> = (0..clients)
        .map(|number| tokio::spawn(client(db.clone(), work, number, Arc::clone(&seen))))
        .collect();
    for client in clients {
        client.await.expect("no panic");
    }
    seen.ended.store(true, Ordering::Relaxed);
    beat.await.expect("no panic");
    let mut late = std::mem::take(&mut *seen.late_ns.lock().expect("no panic"));
    late.sort_unstable();
    let ms = |ns: u64| ns as f64 / 1e6;
    let at = |share: f64| ms(late[((late.len() - 1) as f64 * share) as usize]);
    let begun = now();
    if let Some(db) = db {
        db.close().await.expect("closes");
    }
    println!(
        "{name:16} {workers} {:6} beats  p50 {:6.2}  p99 {:6.2}  p99.9 {:6.2}  max {:6.2}  \
         longest {:7.2} ms  {:9.0}/s  close {:.0} ms",
        late.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        ms(seen.longest_ns.load(Ordering::Relaxed)),
        seen.operations.load(Ordering::Relaxed) as f64 / SECONDS,
        begun.elapsed().as_secs_f64() * 1e3,
    );
}

fn main() {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let rows = [
        ("idle", Work::Idle, 1),
        ("busy c1", Work::Busy, 1),
        ("busy c16", Work::Busy, 16),
        ("put c1", Work::Put, 1),
        ("put c16", Work::Put, 16),
        ("put c64", Work::Put, 64),
        ("sequential c1", Work::Sequential, 1),
        ("batch c1", Work::Batch(100), 1),
        ("load c1", Work::Batch(1000), 1),
        ("overwrite c16", Work::Overwrite, 16),
        ("get c16", Work::Get, 16),
        ("scan100 c16", Work::ScanShort, 16),
        ("scanall c1", Work::ScanAll, 1),
    ];
    let workers = std::env::var("WORKERS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    for (name, work, clients) in rows {
        if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_name("runtime")
            .enable_time()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            tokio::spawn(row(name, work, clients, workers)).await.expect("row");
        });
    }
}
