//! What changes of spans and routes cost, and what they cost the puts beside them.
//!
//! - A replacement of a million records against deleting and putting them in batches of 1,000: of a
//!   source that was filled in key order, of one in another order, whose tables all overlap, and of
//!   that one compacted.
//! - Puts of one client a millisecond apart, alone and while spans are replaced without a pause, or
//!   a range splits every 20 milliseconds.
//! - Puts of several clients into one range that is split because it is hot, against ranges that
//!   were there from the start: the rate after ten seconds.
//! - Ten thousand ranges: splitting, closing, opening, the memory of a range that does nothing, and
//!   a batch over 256 of them against one of the same size in one range.
//!
//! Not a criterion benchmark: percentiles of single operations are wanted, and a process's memory.
//! `cargo bench --bench changes`, followed by `-- ranges`, `-- replacement`, `-- beside`
//! or `-- hot` for a part of it; times are printed for orientation, the ratios are the result.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_debug_implementations,
    reason = "a benchmark looks at the clock, sleeps, spawns and prints"
)]

use sluicedb::{Compression, Db, Durability, OnEmpty, Options, Snapshot, WriteBatch};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const RECORDS: u32 = 1_000_000;
const PUTS: usize = 4_000;
const PERIOD: Duration = Duration::from_millis(1);
const SPLIT_EVERY: Duration = Duration::from_millis(20);
const RANGES: u32 = 10_000;

fn options() -> Options {
    let mut options = Options::default();
    options.memory_budget_bytes = 256 * MIB;
    options.durability = Durability::Buffered;
    options.compression = Compression::None;
    options
}

async fn open(path: &Path) -> Db {
    Db::builder(path).options(options()).open().await.expect("it opens")
}

fn key(prefix: u8, n: u32) -> [u8; 16] {
    let mut key = [prefix; 16];
    key[1..5].copy_from_slice(&n.to_be_bytes());
    key
}

async fn fill(db: &Db, prefix: u8, records: u32, value: u8) {
    for from in (0..records).step_by(1000) {
        let mut batch = WriteBatch::new();
        for n in from..(from + 1000).min(records) {
            batch.put(key(prefix, n), [value; 100]);
        }
        db.write(batch).await.expect("it is healthy");
    }
}

fn verdict(what: &str, value: f64, bar: f64, more_is_better: bool) {
    let reached = if more_is_better { value >= bar } else { value <= bar };
    println!("{what}: {value:.2}, bar {bar:.2}: {}", if reached { "reached" } else { "MISSED" });
}

/// All records of the span deleted and put again, which is what there is without a replacement.
async fn by_batches(db: &Db, source: &Snapshot) {
    let mut batch = WriteBatch::new();
    for n in 0..RECORDS {
        batch.delete(key(b'r', n));
        if batch.len() == 1000 {
            db.write(std::mem::take(&mut batch)).await.expect("it is healthy");
        }
    }
    let mut scan = source.scan(b"r".to_vec()..b"s".to_vec());
    while let Some(found) = scan.next_chunk().await.expect("it is healthy") {
        for (key, value) in found.iter() {
            batch.put(key, value);
            if batch.len() >= 1000 {
                db.write(std::mem::take(&mut batch)).await.expect("it is healthy");
            }
        }
    }
    db.write(batch).await.expect("it is healthy");
}

/// All records, far from key order.
async fn fill_shuffled(db: &Db) {
    for from in (0..RECORDS).step_by(1000) {
        let mut batch = WriteBatch::new();
        for n in from..from + 1000 {
            // It has no divisor in common with a million, so each record comes once.
            batch
                .put(key(b'r', (u64::from(n) * 777_777_777 % u64::from(RECORDS)) as u32), [2; 100]);
        }
        db.write(batch).await.expect("it is healthy");
    }
}

async fn replacement(dir: &Path) {
    let db = open(&dir.join("target")).await;
    fill(&db, b'r', RECORDS, 1).await;
    fill(&db, b'x', 100_000, 1).await;
    let source = open(&dir.join("source")).await;
    fill(&source, b'r', RECORDS, 2).await;
    source.flush().await.expect("it is healthy");
    replaced("a source in key order", &db, &source).await;
    source.close().await.expect("it is healthy");
    let source = open(&dir.join("shuffled")).await;
    fill_shuffled(&source).await;
    source.flush().await.expect("it is healthy");
    replaced("a shuffled source", &db, &source).await;
    source.compact().await.expect("it is healthy");
    replaced("a compacted source", &db, &source).await;
    source.close().await.expect("it is healthy");
    db.close().await.expect("it is healthy");
}

async fn replaced(name: &str, db: &Db, source: &Db) {
    db.flush().await.expect("it is healthy");
    let snapshot = source.snapshot();
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        let spans = [b"r".to_vec()..b"s".to_vec()];
        db.replace_from(&snapshot, spans, OnEmpty::Wipe).await.expect("it is healthy");
        let replaced = began.elapsed();
        let began = Instant::now();
        by_batches(db, &snapshot).await;
        let batches = began.elapsed();
        // As durable as the replacement.
        db.flush().await.expect("it is healthy");
        let durable = began.elapsed();
        ratios.push(batches.as_secs_f64() / replaced.as_secs_f64());
        println!(
            "{name}: replaced in {replaced:.2?}, by batches in {batches:.2?}, \
             in tables in {durable:.2?}"
        );
    }
    ratios.sort_by(f64::total_cmp);
    verdict(&format!("{name}: replacing 1 M records, rate of batches"), ratios[1], 5.0, true);
}

/// Nanoseconds of each put, sorted.
async fn client(db: Db) -> Vec<u64> {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut nanos = Vec::with_capacity(PUTS);
    for n in 0..PUTS {
        ticks.tick().await;
        let began = Instant::now();
        db.put(key(b'p', n as u32), [3; 100]).await.expect("it is healthy");
        nanos.push(began.elapsed().as_nanos() as u64);
    }
    nanos.sort_unstable();
    nanos
}

fn micros(nanos: &[u64], per_mille: usize) -> f64 {
    nanos[(nanos.len() * per_mille / 1000).min(nanos.len() - 1)] as f64 / 1000.0
}

fn print(name: &str, nanos: &[u64]) {
    let [p50, p99, p999, max] = [500, 990, 999, 1000].map(|at| micros(nanos, at));
    println!("{name:20} p50 {p50:8.1} us  p99 {p99:8.1}  p99.9 {p999:8.1}  max {max:8.1}");
}

/// What goes on beside the puts.
#[derive(Clone, Copy, PartialEq)]
enum Beside {
    Nothing,
    Replacements,
    Splits,
}

async fn beside(db: Db, source: Snapshot, what: Beside, stop: Arc<AtomicBool>) -> u32 {
    let mut done = 0;
    while what != Beside::Nothing && !stop.load(Ordering::Relaxed) {
        match what {
            Beside::Replacements => {
                let spans = [b"r".to_vec()..b"s".to_vec()];
                db.replace_from(&source, spans, OnEmpty::Wipe).await.expect("it is healthy");
            }
            Beside::Splits if done < PUTS as u32 => {
                tokio::time::sleep(SPLIT_EVERY).await;
                db.split_at(key(b'p', PUTS as u32 - done)).await.expect("it is healthy");
            }
            _ => break,
        }
        done += 1;
    }
    done
}

async fn puts_beside(dir: &Path) {
    let source = open(&dir.join("records")).await;
    fill(&source, b'r', RECORDS, 2).await;
    for (what, name) in [(Beside::Replacements, "replacements"), (Beside::Splits, "splits")] {
        let mut best = [f64::INFINITY; 3];
        for round in 0..2 {
            let mut runs = Vec::new();
            for what in [Beside::Nothing, what] {
                let db = open(&dir.join(format!("beside-{name}-{round}-{}", runs.len()))).await;
                let stop = Arc::new(AtomicBool::new(false));
                let other = beside(db.clone(), source.snapshot(), what, Arc::clone(&stop));
                let other = tokio::spawn(other);
                let nanos = tokio::spawn(client(db.clone())).await.expect("it does not panic");
                stop.store(true, Ordering::Relaxed);
                let done = other.await.expect("it does not panic");
                print(if what == Beside::Nothing { "alone" } else { name }, &nanos);
                if what != Beside::Nothing {
                    println!("{done} {name} meanwhile");
                }
                db.close().await.expect("it is healthy");
                runs.push(nanos);
            }
            let ratio = |per_mille| micros(&runs[1], per_mille) / micros(&runs[0], per_mille);
            best[0] = best[0].min(ratio(990));
            best[1] = best[1].min(ratio(999));
            best[2] = best[2].min(micros(&runs[1], 1000) / 1000.0);
        }
        verdict(&format!("puts beside {name}, p99"), best[0], 2.0, false);
        verdict(&format!("puts beside {name}, p99.9"), best[1], 2.0, false);
        verdict(&format!("puts beside {name}, longest in ms"), best[2], 5.0, false);
    }
    source.close().await.expect("it is healthy");
}

/// Puts per second of 16 clients, over random keys, in each of these seconds.
async fn rates(db: &Db, seconds: usize) -> Vec<f64> {
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..16_u32)
        .map(|client| {
            let (db, stop, count) = (db.clone(), Arc::clone(&stop), Arc::clone(&count));
            tokio::spawn(async move {
                let mut n = client.wrapping_mul(0x9E37_79B9);
                while !stop.load(Ordering::Relaxed) {
                    n = n.wrapping_mul(0x915F_77F5).wrapping_add(0x3C6E_F35F);
                    let mut key = [0; 16];
                    key[..4].copy_from_slice(&n.to_be_bytes());
                    db.put(key, [1; 100]).await.expect("it is healthy");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut rates = Vec::with_capacity(seconds);
    for _ in 0..seconds {
        let (before, began) = (count.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let puts = count.load(Ordering::Relaxed) - before;
        rates.push(puts as f64 / began.elapsed().as_secs_f64());
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("it does not panic");
    }
    rates
}

async fn hot_range(dir: &Path) {
    let mut best: f64 = 0.0;
    for round in 0..2 {
        let mut runs = Vec::new();
        for split in [false, true] {
            let mut options = options();
            options.ranges_max = Some(4);
            if split {
                options.range_heat_max = 1000;
                options.range_cooldown_ms = 500;
            } else {
                options.initial_split_keys = [64, 128, 192].map(|first| vec![first]).to_vec();
            }
            let path = dir.join(format!("hot-{round}-{split}"));
            let db = Db::builder(&path).options(options).open().await.expect("it opens");
            let rates = rates(&db, 20).await;
            let ranges = db.ranges().len();
            db.close().await.expect("it is healthy");
            drop(db);
            let _ = std::fs::remove_dir_all(&path);
            let late = rates[10..].iter().sum::<f64>() / 10.0;
            println!("{ranges} ranges at the end, {late:.0} puts per second after ten seconds");
            runs.push(late);
        }
        best = best.max(runs[1] / runs[0]);
    }
    verdict("rate of a hot range that splits, of that of ranges made before", best, 1.0, true);
}

/// Bytes of memory of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}

async fn many_ranges(dir: &Path) {
    let path = dir.join("ranges");
    let before = resident();
    let mut options = options();
    options.initial_split_keys = (1..RANGES).map(|n| key(b'k', n * 100).to_vec()).collect();
    let began = Instant::now();
    let db = Db::builder(&path).options(options).open().await.expect("it opens");
    println!("a database of {RANGES} ranges is made in {:.2?}", began.elapsed());
    let per_range = |before: u64| resident().saturating_sub(before) as f64 / f64::from(RANGES);
    println!("{:.0} bytes of memory for each", per_range(before));
    let began = Instant::now();
    for n in 0..100 {
        db.split_at(key(b'k', n * 10_000 + 50)).await.expect("it is healthy");
    }
    println!("one more range takes {:.1?}", began.elapsed() / 100);
    let batch = |step: u32| {
        let mut batch = WriteBatch::new();
        for n in 0..256 {
            batch.put(key(b'k', n * step), [1; 100]);
        }
        batch
    };
    for (step, name) in [(1, "1 to 3 ranges"), (3900, "256 ranges")] {
        let began = Instant::now();
        for _ in 0..200 {
            db.write(batch(step)).await.expect("it is healthy");
        }
        println!("a batch of 256 puts into {name}: {:.1?}", began.elapsed() / 200);
    }
    let began = Instant::now();
    db.close().await.expect("it is healthy");
    println!("closed in {:.2?}", began.elapsed());
    drop(db);
    let before = resident();
    let began = Instant::now();
    let db = open(&path).await;
    let took = began.elapsed();
    assert_eq!(db.ranges().len(), RANGES as usize + 100);
    verdict("opening 10,000 ranges, seconds", took.as_secs_f64(), 2.0, false);
    verdict("memory of an idle range, KiB", per_range(before) / 1024.0, 4.0, false);
    db.close().await.expect("it is healthy");
}

fn main() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().expect("threads can be started");
    runtime.block_on(async {
        let wanted: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
        let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|arg| arg == name);
        if is_wanted("ranges") {
            many_ranges(dir.path()).await;
        }
        if is_wanted("replacement") {
            replacement(dir.path()).await;
        }
        if is_wanted("beside") {
            puts_beside(dir.path()).await;
        }
        if is_wanted("hot") {
            hot_range(dir.path()).await;
        }
    });
}
