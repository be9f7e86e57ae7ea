//! The memtable beside crossbeam-skiplist, in one run on one machine.
//!
//! Keys are 16 bytes (random, rising, or `user:0000001234`), values 100 bytes, tables 500,000
//! entries. Inserts are measured with one reader thread that runs gets all the time. The skip list
//! gets the easier task: one version per key, plain byte vectors, its own comparison.
//!
//! `cargo bench --bench memtable` ends with a floor: insert and get at least four times the skip
//! list's rate, both measured in alternation; it fails below that.
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![allow(clippy::print_stdout, reason = "a bench reports")]
#![allow(missing_docs, reason = "not a library")]

#[allow(dead_code, unreachable_pub, reason = "shared by benchmarks")]
mod kit;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use crossbeam_skiplist::SkipMap;
use kit::mixed;
use sluicedb_storage::buffer::BufferOptions;
use sluicedb_storage::iter::Cursor;
use sluicedb_storage::key::{Kind, Seqno};
use sluicedb_storage::memtable::{
    ChunkPool, Memtable, MemtableOptions, MemtableWriter, PoolLimits, Reclaim, memtable,
    memtable_with,
};
use sluicedb_storage::points::ReadPoints;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const VALUE: [u8; 100] = [7; 100];
/// What insert and get must at least be, times the skip list.
const FLOOR: f64 = 4.0;

/// Entries of a table; few in `--test` mode, which only asks whether everything runs.
fn entries() -> usize {
    if std::env::args().any(|argument| argument == "--test") { 5_000 } else { 500_000 }
}

type Key = [u8; 16];

fn key(kind: &str, number: u64) -> Key {
    let mut key = [0; 16];
    match kind {
        "random" => {
            key[..8].copy_from_slice(&mixed(number).to_be_bytes());
            key[8..].copy_from_slice(&mixed(!number).to_be_bytes());
        }
        "rising" => key[8..].copy_from_slice(&number.to_be_bytes()),
        _ => {
            let text = format!("user:{:011}", mixed(number) % 10_000_000);
            key.copy_from_slice(text.as_bytes());
        }
    }
    key
}

fn keys(kind: &str, count: usize) -> Vec<Key> {
    (0..count as u64).map(|number| key(kind, number)).collect()
}

/// The same keys in another order.
fn shuffled(keys: &[Key]) -> Vec<Key> {
    let mut keys = keys.to_vec();
    for at in (1..keys.len()).rev() {
        keys.swap(at, (mixed(at as u64 ^ 0x5EED) % (at as u64 + 1)) as usize);
    }
    keys
}

/// `count` draws from `keys` keys with zipf's law, exponent 0.99.
fn zipf(keys: usize, count: usize) -> Vec<usize> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=keys)
        .map(|rank| {
            sum += (rank as f64).powf(-0.99);
            sum
        })
        .collect();
    let draw = |number: u64| (mixed(number) >> 11) as f64 / (1u64 << 53) as f64 * sum;
    (0..count as u64).map(|number| sums.partition_point(|&sum| sum < draw(number))).collect()
}

fn fill(writer: &mut MemtableWriter, keys: &[Key], value: &[u8]) {
    for (seqno, key) in (1..).zip(keys) {
        writer.insert(key, Seqno(seqno), Kind::Put, value);
    }
}

/// Runs `write` while another thread runs `read(key)` over and over; the time is `write`'s.
fn beside_a_reader(keys: &[Key], read: impl Fn(&Key) + Sync, write: impl FnOnce()) -> Duration {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for key in keys.iter().cycle() {
                read(key);
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let start = Instant::now();
        write();
        let taken = start.elapsed();
        done.store(true, Ordering::Relaxed);
        taken
    })
}

/// As the engine makes them.
fn reclaiming(pool: &Arc<ChunkPool>) -> (Arc<Memtable>, MemtableWriter) {
    let reclaim = Some(Reclaim { points: ReadPoints::new(), options: BufferOptions::default() });
    memtable_with(0, MemtableOptions { pool: Some(Arc::clone(pool)), reclaim, full_bytes: None })
}

fn insert_memtable(
    keys: &[Key],
    probes: &[Key],
    new: impl FnOnce() -> (Arc<Memtable>, MemtableWriter),
) -> (Duration, Arc<Memtable>) {
    let (table, mut writer) = new();
    let read = |key: &Key| {
        black_box(table.pin().get(key, Seqno::MAX).version.is_some());
    };
    let taken = beside_a_reader(probes, read, || fill(&mut writer, keys, &VALUE));
    (taken, table)
}

type SkipList = SkipMap<Vec<u8>, Vec<u8>>;

fn insert_skiplist(keys: &[Key], probes: &[Key]) -> (Duration, SkipList) {
    let list = SkipList::new();
    let read = |key: &Key| {
        black_box(list.get(&key[..]));
    };
    let taken = beside_a_reader(probes, read, || {
        for key in keys {
            list.insert(key.to_vec(), VALUE.to_vec());
        }
    });
    (taken, list)
}

fn get_memtable(table: &Memtable, probes: &[Key]) -> Duration {
    let start = Instant::now();
    for key in probes {
        let pin = table.pin();
        let found = pin.get(key, Seqno::MAX).version.expect("every probe was inserted");
        black_box(found.value(usize::MAX).ok());
    }
    start.elapsed()
}

fn get_skiplist(list: &SkipList, probes: &[Key]) -> Duration {
    let start = Instant::now();
    for key in probes {
        let found = list.get(&key[..]).expect("every probe was inserted");
        black_box(Bytes::copy_from_slice(found.value()));
    }
    start.elapsed()
}

fn scan_memtable(table: &Arc<Memtable>) -> u64 {
    let mut cursor = table.cursor(Seqno::MAX);
    let mut sum = 0;
    cursor.seek_first().expect("a memtable cursor does not fail");
    while cursor.valid() {
        sum += u64::from(cursor.key()[0]) + u64::from(cursor.value()[VALUE.len() - 1]);
        cursor.next().expect("a memtable cursor does not fail");
    }
    sum
}

fn scan_skiplist(list: &SkipList) -> u64 {
    list.iter()
        .map(|entry| u64::from(entry.key()[0]) + u64::from(entry.value()[VALUE.len() - 1]))
        .sum()
}

/// Repeats a measurement that times itself.
fn repeat(times: u64, mut measure: impl FnMut() -> Duration) -> Duration {
    (0..times).map(|_| measure()).sum()
}

/// One that keeps all of a dropped memtable. The warm-up fills it.
fn ample_pool() -> Arc<ChunkPool> {
    ChunkPool::new(PoolLimits { kept_bytes: 256 << 20, all_bytes: 256 << 20 })
}

fn tables(criterion: &mut Criterion) {
    let count = entries();
    let pool = ample_pool();
    for kind in ["random", "rising", "user"] {
        let keys = keys(kind, count);
        let probes = shuffled(&keys);
        let mut group = criterion.benchmark_group(format!("memtable/{kind}"));
        group.sampling_mode(SamplingMode::Flat).sample_size(10);
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(2));
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("insert", "sluicedb"), |bencher| {
            bencher.iter_custom(|times| {
                repeat(times, || insert_memtable(&keys, &probes, || memtable(0)).0)
            });
        });
        group.bench_function(BenchmarkId::new("insert", "sluicedb-pooled"), |bencher| {
            bencher.iter_custom(|times| {
                repeat(times, || insert_memtable(&keys, &probes, || reclaiming(&pool)).0)
            });
        });
        group.bench_function(BenchmarkId::new("insert", "skiplist"), |bencher| {
            bencher.iter_custom(|times| repeat(times, || insert_skiplist(&keys, &probes).0));
        });
        let (_, table) = insert_memtable(&keys, &probes, || memtable(0));
        let (_, list) = insert_skiplist(&keys, &probes);
        group.bench_function(BenchmarkId::new("get", "sluicedb"), |bencher| {
            bencher.iter_custom(|times| repeat(times, || get_memtable(&table, &probes)));
        });
        group.bench_function(BenchmarkId::new("get", "skiplist"), |bencher| {
            bencher.iter_custom(|times| repeat(times, || get_skiplist(&list, &probes)));
        });
        group.bench_function(BenchmarkId::new("scan", "sluicedb"), |bencher| {
            bencher.iter(|| scan_memtable(&table));
        });
        group.bench_function(BenchmarkId::new("scan", "skiplist"), |bencher| {
            bencher.iter(|| scan_skiplist(&list));
        });
        group.finish();
    }
}

/// Overwrites keep every version in the first, none in the skip list, which replaces the value, and
/// those that are not retired yet in the second, which does what the engine does with each write.
fn overwrites(criterion: &mut Criterion) {
    let count = entries();
    let keys = keys("random", count / 5);
    let draws = zipf(keys.len(), count);
    let mut group = criterion.benchmark_group("memtable/zipf");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function(BenchmarkId::new("overwrite", "sluicedb"), |bencher| {
        bencher.iter(|| {
            let (table, mut writer) = memtable(0);
            for (seqno, &at) in (1..).zip(&draws) {
                writer.insert(&keys[at], Seqno(seqno), Kind::Put, &VALUE);
            }
            table
        });
    });
    let pool = ample_pool();
    group.bench_function(BenchmarkId::new("overwrite", "sluicedb-reclaiming"), |bencher| {
        bencher.iter(|| {
            let (table, mut writer) = reclaiming(&pool);
            for (seqno, &at) in (1..).zip(&draws) {
                writer.insert(&keys[at], Seqno(seqno), Kind::Put, &VALUE);
                if writer.wants_reclaim() {
                    writer.reclaim(Seqno(seqno), 2 * VALUE.len(), true);
                }
            }
            table
        });
    });
    group.bench_function(BenchmarkId::new("overwrite", "skiplist"), |bencher| {
        bencher.iter(|| {
            let list = SkipList::new();
            for &at in &draws {
                list.insert(keys[at].to_vec(), VALUE.to_vec());
            }
            list
        });
    });
    group.finish();
}

fn large_values(criterion: &mut Criterion) {
    let value = vec![7; 64 << 10];
    let keys = keys("random", 1_000);
    let mut group = criterion.benchmark_group("memtable/64KiB");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Bytes((keys.len() * value.len()) as u64));
    group.bench_function(BenchmarkId::new("insert", "sluicedb"), |bencher| {
        bencher.iter(|| {
            let (table, mut writer) = memtable(0);
            fill(&mut writer, &keys, &value);
            table
        });
    });
    group.bench_function(BenchmarkId::new("insert", "skiplist"), |bencher| {
        bencher.iter(|| {
            let list = SkipList::new();
            for key in &keys {
                list.insert(key.to_vec(), value.clone());
            }
            list
        });
    });
    group.finish();
}

/// Both in alternation, so that whatever else the machine does meets both; medians.
fn floor() {
    const ROUNDS: usize = 7;
    let count = entries();
    let keys = keys("random", count);
    let probes = shuffled(&keys);
    let mut taken: [Vec<Duration>; 4] = Default::default();
    let mut index_bytes = 0;
    for _ in 0..ROUNDS {
        let (insert, table) = insert_memtable(&keys, &probes, || memtable(0));
        taken[0].push(insert);
        taken[1].push(get_memtable(&table, &probes));
        index_bytes = table.index_bytes();
        let (insert, list) = insert_skiplist(&keys, &probes);
        taken[2].push(insert);
        taken[3].push(get_skiplist(&list, &probes));
    }
    let rates = taken.map(|mut taken| {
        taken.sort_unstable();
        count as f64 / taken[ROUNDS / 2].as_secs_f64() / 1e6
    });
    let (insert, get) = (rates[0] / rates[2], rates[1] / rates[3]);
    println!(
        "insert beside a reader: {:.2} M/s, skip list {:.2} M/s, ratio {insert:.1}\n\
         get:                    {:.2} M/s, skip list {:.2} M/s, ratio {get:.1}\n\
         index:                  {:.1} bytes per entry",
        rates[0],
        rates[2],
        rates[1],
        rates[3],
        index_bytes as f64 / count as f64,
    );
    assert!(count < 500_000 || insert >= FLOOR, "insert is below {FLOOR} x the skip list");
    assert!(count < 500_000 || get >= FLOOR, "get is below {FLOOR} x the skip list");
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    tables(&mut criterion);
    overwrites(&mut criterion);
    large_values(&mut criterion);
    criterion.final_summary();
    floor();
}
