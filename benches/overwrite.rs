//! Hot keys: what compacting the write buffer saves, and what it costs.
//!
//! The bars, printed with what was reached, both sides in alternation in one run:
//! * zipf 0.99 over a million keys of 16 bytes with 100-byte values: at least 2x fewer flushed
//!   bytes with `buffer_compaction` than without, at no more than 15 % of the put rate;
//! * the longest step of a buffer compaction, with 1 MiB values in the mix: below 100 us.
//!
//! What a run reaches depends on who else uses the machine's caches and memory, for ten seconds and
//! more at a time; therefore nine pairs of runs, of which the median counts. Beside it the fastest
//! run of each side is compared. The bytes are those of one longer pair, because a short one ends
//! with much that is not flushed yet, and more of it on the side that flushes less.
//!
//! `cargo bench --bench overwrite`; `PUTS`, `BYTES_PUTS` (of the longer pair), `TASKS`, `ROUNDS`
//! and `MEMTABLE_MIB` change the run.

#![allow(clippy::print_stdout, reason = "what it measures is what it prints")]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a benchmark has to look at the clock")]

#[allow(dead_code, unreachable_pub, reason = "shared by benchmarks")]
mod kit;

use kit::mixed;
use sluicedb::{Db, Durability, Options};
use sluicedb_storage::buffer::BufferOptions;
use sluicedb_storage::key::{Kind, Seqno};
use sluicedb_storage::memtable::{
    ChunkPool, MemtableOptions, PoolLimits, Reclaim, ReclaimStats, memtable_with,
};
use sluicedb_storage::points::ReadPoints;
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEYS: usize = 1_000_000;
/// The same steps are timed so often; the fastest counts.
const STEP_RUNS: usize = 4;

/// Ranks drawn by Zipf's law with exponent 0.99, as YCSB does (Cooper et al., SoCC 2010), by
/// inverting the sums; key number = mixed rank, so that hot keys are spread.
fn draws(count: usize) -> Vec<u32> {
    let mut sum = 0.0;
    let mut sums = Vec::with_capacity(KEYS);
    for rank in 1..=KEYS {
        sum += (rank as f64).powf(-0.99);
        sums.push(sum);
    }
    (0..count as u64)
        .map(|number| {
            let at = (mixed(number) >> 11) as f64 / (1_u64 << 53) as f64 * sum;
            sums.partition_point(|&sum| sum < at) as u32
        })
        .collect()
}

fn key(rank: u32) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mixed(u64::from(rank)).to_be_bytes());
    key[8..].copy_from_slice(&u64::from(rank).to_le_bytes());
    key
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// How much is saved depends on how much of the key space a memtable holds: a key that was flushed
/// since it was written saves nothing.
fn memtable_mib() -> u64 {
    number("MEMTABLE_MIB", 64)
}

struct Run {
    puts_per_second: f64,
    flushed_bytes: u64,
    flushes: u64,
}

fn run(draws: &[u32], buffer_compaction: bool) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let mut options = Options::default();
    options.durability = Durability::Buffered;
    options.compression = sluicedb::Compression::None;
    options.buffer_compaction = buffer_compaction;
    options.memory_budget_bytes = 2 << 30;
    options.memtable_bytes = Some(memtable_mib() << 20);
    runtime.block_on(async {
        let db = Db::builder(dir.path()).options(options).open().await.unwrap();
        let started = Instant::now();
        let count = number("TASKS", 4);
        let tasks: Vec<_> = (0..count)
            .map(|task| {
                let db = db.clone();
                let mine: Vec<u32> =
                    draws.iter().skip(task as usize).step_by(count as usize).copied().collect();
                tokio::spawn(async move {
                    for rank in mine {
                        db.put(key(rank), [7; 100]).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let took = started.elapsed();
        let stats = db.stats();
        db.close().await.unwrap();
        Run {
            puts_per_second: draws.len() as f64 / took.as_secs_f64(),
            flushed_bytes: stats.flush_bytes,
            flushes: stats.flushes,
        }
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Both sides, printed: with `buffer_compaction` and without.
fn pair(draws: &[u32], first_on: bool) -> (Run, Run) {
    let (first, second) = (run(draws, first_on), run(draws, !first_on));
    let (on, off) = if first_on { (first, second) } else { (second, first) };
    println!(
        "on:  {:>9.0} puts/s, {:>5} MiB flushed in {} flushes\n\
         off: {:>9.0} puts/s, {:>5} MiB flushed in {} flushes",
        on.puts_per_second,
        on.flushed_bytes >> 20,
        on.flushes,
        off.puts_per_second,
        off.flushed_bytes >> 20,
        off.flushes,
    );
    (on, off)
}

fn flushed_bytes() {
    let draws = draws(number("BYTES_PUTS", 40_000_000) as usize);
    let (on, off) = pair(&draws, true);
    let saved = off.flushed_bytes as f64 / on.flushed_bytes.max(1) as f64;
    println!("{} M puts, flushed bytes: {saved:.2}x fewer (bar 2x)\n", draws.len() / 1_000_000);
}

fn put_rate() {
    let draws = draws(number("PUTS", 8_000_000) as usize);
    let mut cost = Vec::new();
    let (mut fastest_on, mut fastest_off) = (0.0_f64, 0.0_f64);
    for round in 0..number("ROUNDS", 9).max(1) {
        // The second of two runs finds a busier disk; take turns.
        let (on, off) = pair(&draws, round % 2 == 0);
        cost.push(1.0 - on.puts_per_second / off.puts_per_second);
        fastest_on = fastest_on.max(on.puts_per_second);
        fastest_off = fastest_off.max(off.puts_per_second);
    }
    println!(
        "{} M puts, rate: {:+.0} % cost (bar 15 %), of the fastest runs {:+.0} %",
        draws.len() / 1_000_000,
        100.0 * median(cost),
        100.0 * (1.0 - fastest_on / fastest_off)
    );
}

/// The time of each step, and what was done in all. Every call does the same steps.
fn steps() -> (Vec<Duration>, ReclaimStats) {
    let points = ReadPoints::new();
    let reclaim = Some(Reclaim { points, options: BufferOptions::default() });
    let pool = ChunkPool::new(PoolLimits { kept_bytes: 256 << 20, all_bytes: 256 << 20 });
    let options = MemtableOptions { pool: Some(Arc::clone(&pool)), reclaim, full_bytes: None };
    let (table, mut writer) = memtable_with(0, options);
    let large = vec![7; 1 << 20];
    let mut steps = Vec::new();
    for number in 0..400_000_u64 {
        let rank = mixed(number);
        let (key, value) = if rank.is_multiple_of(500) {
            (key((rank >> 20) as u32 % 16), &large[..])
        } else {
            (key(1_000 + (rank >> 20) as u32 % 50_000), &large[..100])
        };
        writer.insert(&key, Seqno(number + 1), Kind::Put, value);
        // As the reclaimer does.
        if pool.take_restock_due() {
            pool.restock();
        }
        let started = Instant::now();
        writer.reclaim(Seqno(number + 1), 1, true);
        steps.push(started.elapsed());
    }
    (steps, table.reclaim_stats())
}

fn longest_step() {
    let (mut fastest, stats) = steps();
    let mut longest_seen = fastest.iter().max().copied().unwrap_or_default();
    // A step that an interrupt has made longer is not the same one every time.
    for _ in 1..STEP_RUNS {
        let (again, same) = steps();
        assert_eq!(stats, same, "the same steps");
        longest_seen = again.iter().fold(longest_seen, |longest, step| longest.max(*step));
        fastest = fastest.into_iter().zip(again).map(|(one, other)| one.min(other)).collect();
    }
    fastest.sort_unstable();
    let at = |part: f64| fastest[((fastest.len() - 1) as f64 * part) as usize];
    println!(
        "one step: p50 {:?}, p99 {:?}, p99.99 {:?}, longest {:?} \
         (bar 100 us; with interrupts {longest_seen:?}); {} compactions, {} MiB copied",
        at(0.5),
        at(0.99),
        at(0.9999),
        fastest.last().copied().unwrap_or_default(),
        stats.compactions,
        stats.copied_bytes >> 20,
    );
}

fn main() {
    longest_step();
    flushed_bytes();
    put_rate();
}
