//! Does a hot range slow a cold one down? The bar: beside a hot range, the cold range's
//! p99 put latency is at most 2x what it is alone.
//!
//! One database of two ranges on a disk of 32 MiB/s. A client puts 1 KiB into the cold range once a
//! millisecond; alone first, then beside eight tasks that put into the hot range as fast as they
//! are let: the disk paces them, in the hot range's own account. Then both again, because a machine
//! has moods; the smaller ratio of the two pairs counts.
//!
//! Not a criterion benchmark: percentiles of single operations are wanted, and both sides at the
//! same time. `cargo bench --bench ranges`; times are printed for orientation, the ratio is the
//! result.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_debug_implementations,
    reason = "a benchmark looks at the clock, sleeps, spawns and prints"
)]

use sluicedb::{Compression, Db, Durability, Options, Stats};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[path = "../cli/src/random.rs"]
#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the command line's generators, not all of them needed"
)]
mod random;
#[path = "../tests/kit/slow.rs"]
#[allow(missing_docs, unreachable_pub, reason = "shared with the tests")]
mod slow;

const MIB: u64 = 1 << 20;
const DISK_BYTES_PER_SECOND: u64 = 32 * MIB;
const HOT_TASKS: u64 = 8;
const COLD_PUTS: usize = 4_000;
const PERIOD: Duration = Duration::from_millis(1);
const VALUE_BYTES: usize = 1024;
const BAR: f64 = 2.0;

fn options() -> Options {
    let mut options = Options::default();
    options.memory_budget_bytes = 64 * MIB;
    options.log_segment_bytes = 8 * MIB;
    options.durability = Durability::Buffered;
    options.compression = Compression::None;
    options.initial_split_keys = vec![b"h".to_vec()];
    options
}

fn key(prefix: u8, random: &mut random::Random) -> [u8; 16] {
    let mut key = [prefix; 16];
    key[1..9].copy_from_slice(&random.next().to_be_bytes());
    key
}

/// Nanoseconds of each put into the cold range.
async fn cold_client(db: Db) -> Vec<u64> {
    let mut random = random::Random::new(1);
    let mut value = vec![0; VALUE_BYTES];
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut nanos = Vec::with_capacity(COLD_PUTS);
    for _ in 0..COLD_PUTS {
        ticks.tick().await;
        random.fill(&mut value);
        let key = key(b'c', &mut random);
        let started = Instant::now();
        db.put(key, &value).await.expect("the database is healthy");
        nanos.push(started.elapsed().as_nanos() as u64);
    }
    nanos.sort_unstable();
    nanos
}

async fn hot_client(db: Db, seed: u64, stop: Arc<AtomicBool>, puts: Arc<AtomicU64>) {
    let mut random = random::Random::new(100 + seed);
    let mut value = vec![0; VALUE_BYTES];
    while !stop.load(Ordering::Relaxed) {
        random.fill(&mut value);
        db.put(key(b'h', &mut random), &value).await.expect("the database is healthy");
        puts.fetch_add(1, Ordering::Relaxed);
    }
}

struct Run {
    nanos: Vec<u64>,
    hot_puts: u64,
    stats: Stats,
}

impl Run {
    fn percentile(&self, per_mille: usize) -> f64 {
        self.nanos[(self.nanos.len() * per_mille / 1000).min(self.nanos.len() - 1)] as f64
    }

    fn print(&self, name: &str) {
        let micros = |per_mille| self.percentile(per_mille) / 1000.0;
        println!(
            "{name:12} p50 {:8.1} us  p90 {:8.1}  p99 {:8.1}  p99.9 {:8.1}  max {:8.1}",
            micros(500),
            micros(900),
            micros(990),
            micros(999),
            micros(1000),
        );
        if self.hot_puts > 0 {
            let waits = |range: usize| {
                let range = &self.stats.ranges[range];
                format!("{} ({} ms)", range.waits, range.wait_micros / 1000)
            };
            println!(
                "             hot puts {}, waits: cold range {}, hot range {}, engine {} ({} ms)",
                self.hot_puts,
                waits(0),
                waits(1),
                self.stats.waits_global,
                self.stats.wait_micros_global / 1000,
            );
        }
    }
}

fn run(hot_tasks: u64) -> Run {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (disk, _control) = slow::slow_disk(DISK_BYTES_PER_SECOND);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().expect("threads can be started");
    runtime.block_on(async {
        let builder = Db::builder(dir.path().join("db")).options(options()).vfs(disk);
        let db = builder.open().await.expect("an empty directory");
        let stop = Arc::new(AtomicBool::new(false));
        let puts = Arc::new(AtomicU64::new(0));
        let hot: Vec<_> = (0..hot_tasks)
            .map(|seed| {
                tokio::spawn(hot_client(db.clone(), seed, Arc::clone(&stop), Arc::clone(&puts)))
            })
            .collect();
        // Not before the hot range is paced by the disk.
        while hot_tasks > 0 && db.stats().waits_local + db.stats().waits_global == 0 {
            tokio::time::sleep(PERIOD).await;
        }
        let nanos = tokio::spawn(cold_client(db.clone())).await.expect("it does not panic");
        stop.store(true, Ordering::Relaxed);
        let stats = db.stats();
        for task in hot {
            task.await.expect("it does not panic");
        }
        db.close().await.expect("the database is healthy");
        Run { nanos, hot_puts: puts.load(Ordering::Relaxed), stats }
    })
}

fn main() {
    let ratio = (0..2)
        .map(|_| {
            let alone = run(0);
            alone.print("alone");
            let beside = run(HOT_TASKS);
            beside.print("beside hot");
            let ratio = beside.percentile(990) / alone.percentile(990);
            println!("             p99 x{ratio:.2}");
            ratio
        })
        .fold(f64::INFINITY, f64::min);
    let verdict = if ratio <= BAR { "reached" } else { "MISSED" };
    println!("cold range beside a hot one: p99 x{ratio:.2} of alone, bar x{BAR:.1}: {verdict}");
}
