//! What scans cost: a hundred entries from a random key, and all entries, beside a `BTreeMap` that
//! is walked and copied from in the same run.
//!
//! * `flat`: a million entries in one level, all in the block cache.
//! * `levels`: two million as puts left them, in several runs.
//!
//! Each is taken in batches, lent entry by entry, and as a stream; by one task, and by 16 tasks on
//! two workers. Figures are entries per second. Keys are 16 random bytes, values 100 bytes.

#[allow(dead_code, unreachable_pub, reason = "shared by benchmarks")]
mod kit;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use futures::TryStreamExt;
use kit::key;
use sluicedb::{Compression, Db, Durability, Options, Scan};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const VALUE: [u8; 100] = [7; 100];
const SHORT: u64 = 100;
const TASKS: u64 = 16;

/// How the entries of a scan are taken.
#[derive(Clone, Copy)]
enum Taken {
    Chunks,
    Lent,
    Stream,
}

const WAYS: [(&str, Taken); 3] =
    [("chunks", Taken::Chunks), ("lent", Taken::Lent), ("stream", Taken::Stream)];

/// Numbers below `entries`, the same in every run.
fn random(seed: u64, entries: u64) -> impl FnMut() -> u64 {
    let mut at = seed;
    move || {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (at >> 33) % entries
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark has to look at the clock")]
fn now() -> Instant {
    Instant::now()
}

async fn take(mut scan: Scan, taken: Taken) -> u64 {
    let mut count = 0;
    match taken {
        Taken::Chunks => {
            while let Some(batch) = scan.next_chunk().await.expect("the disk works") {
                count += batch.iter().map(black_box).count() as u64;
            }
        }
        Taken::Lent => {
            while let Some(entry) = scan.next_entry().await.expect("the disk works") {
                black_box(entry);
                count += 1;
            }
        }
        Taken::Stream => {
            while let Some(entry) = scan.try_next().await.expect("the disk works") {
                black_box(entry);
                count += 1;
            }
        }
    }
    count
}

async fn short_scans(db: Db, seed: u64, scans: u64, entries: u64, taken: Taken) {
    let mut random = random(seed, entries);
    for _ in 0..scans {
        black_box(take(db.scan(&key(random())[..]..).limit(SHORT), taken).await);
    }
}

/// `tasks` tasks share so many scans.
async fn shared(db: Db, tasks: u64, scans: u64, entries: u64, taken: Taken) -> Duration {
    let start = now();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let work = short_scans(db.clone(), task, scans.div_ceil(tasks), entries, taken);
            #[expect(clippy::disallowed_methods, reason = "these are the users' tasks")]
            tokio::spawn(work)
        })
        .collect();
    for task in tasks {
        task.await.expect("readers do not panic");
    }
    start.elapsed()
}

struct Loaded {
    db: Db,
    runtime: Runtime,
    entries: u64,
    _dir: tempfile::TempDir,
}

impl Loaded {
    fn new(entries: u64, compacted: bool) -> Self {
        let dir = tempfile::tempdir_in(".").expect("the working directory is writable");
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().expect("threads start");
        let mut options = Options::default();
        options.durability = Durability::Buffered;
        options.compression = Compression::None;
        options.cache_bytes = Some(512 << 20);
        let db = runtime.block_on(async {
            let db = Db::builder(dir.path()).options(options).open().await;
            let db = db.expect("a fresh directory opens");
            for index in 0..entries {
                db.put(key(index), VALUE).await.expect("the disk works");
            }
            db.flush().await.expect("the disk works");
            if compacted {
                db.compact().await.expect("the disk works");
            }
            take(db.scan(..), Taken::Chunks).await;
            db
        });
        Self { db, runtime, entries, _dir: dir }
    }

    fn measure(&self, group: &mut BenchmarkGroup<'_, WallTime>) {
        let Self { db, runtime, entries, .. } = self;
        let entries = *entries;
        for (way, taken) in WAYS {
            group.throughput(Throughput::Elements(SHORT));
            for tasks in [1, TASKS] {
                group.bench_function(format!("short_{way}_{tasks}_tasks"), |bencher| {
                    bencher.iter_custom(|scans| {
                        runtime.block_on(shared(db.clone(), tasks, scans, entries, taken))
                    });
                });
            }
            group.throughput(Throughput::Elements(entries));
            group.bench_function(format!("all_{way}"), |bencher| {
                bencher.iter_custom(|scans| {
                    runtime.block_on(async {
                        let start = now();
                        for _ in 0..scans {
                            assert_eq!(take(db.scan(..), taken).await, entries);
                        }
                        start.elapsed()
                    })
                });
            });
        }
    }
}

fn btreemap(criterion: &mut Criterion, entries: u64) {
    let map: BTreeMap<_, _> = (0..entries).map(|index| (key(index), VALUE.to_vec())).collect();
    let mut group = criterion.benchmark_group("scan/btreemap");
    group.throughput(Throughput::Elements(SHORT)).sample_size(10);
    group.bench_function("short_copied", |bencher| {
        let mut random = random(1, entries);
        bencher.iter(|| {
            let from = key(random());
            let entries = map.range(from..).take(SHORT as usize);
            entries.map(|(key, value)| (*key, value.clone())).collect::<Vec<_>>()
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500))
        .configure_from_args();
    btreemap(&mut criterion, 1_000_000);
    for (name, entries, compacted) in [("flat", 1_000_000, true), ("levels", 2_000_000, false)] {
        let loaded = Loaded::new(entries, compacted);
        let mut group = criterion.benchmark_group(format!("scan/{name}"));
        group.sample_size(10);
        loaded.measure(&mut group);
        group.finish();
    }
    criterion.final_summary();
}
