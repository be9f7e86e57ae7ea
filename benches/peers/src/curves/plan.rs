//! The plan of docs/tuning.md, run: every key once, then overwrites of random keys at full speed,
//! then at a pace. After each phase it says what was written for each byte put, and what the levels
//! look like.

use crate::args::PlanArgs;
use serde::{Deserialize, Serialize};
use sluicedb::{Db, Stats};
use sluicedb_bench_peers::Result;
use sluicedb_bench_peers::disk::{self, Directory};
use sluicedb_bench_peers::drive::{Driven, Load, Work, drive};
use sluicedb_bench_peers::engine::{Engine, settle};
use sluicedb_bench_peers::keys::{ENTRY_BYTES, Noise, VALUE_BYTES, hashed, mix, scale};
use sluicedb_bench_peers::sluice::{Sluice, plain_options};
use sluicedb_bench_peers::work::{Data, On, Operation};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const CLIENTS: u64 = 4;
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A client that is early by less does not wait: timers are no finer.
const EARLY: Duration = Duration::from_millis(1);
/// Enough to open every table.
const GETS: u64 = 300_000;
const UNLIMITED_SECONDS: f64 = 3600.0;

/// A level and its landing, in bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Level {
    pub bytes: u64,
    pub landing_bytes: u64,
}

/// What one phase did, and how it left the database.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Phase {
    pub name: String,
    pub seconds: f64,
    pub puts: u64,
    /// For each byte put.
    pub log: f64,
    pub flush: f64,
    pub compaction: f64,
    /// Of that: merges of landings into themselves, by what they read.
    pub kept: f64,
    /// Written into each level and its landing, for each byte put; L0 first.
    pub by_level: Vec<f64>,
    /// Seconds that puts waited for room, of all clients together.
    pub waited: f64,
    pub runs_max: u64,
    pub tables_max: u64,
    /// The largest size of all files.
    pub space_max: u64,
    /// The largest that each level was.
    pub levels_max: Vec<Level>,
    /// As it was left.
    pub levels: Vec<Level>,
    pub runs: u64,
    pub tables: u64,
    pub table_entries: u64,
    /// With all tables open, after the phase.
    pub open_tables: u64,
    pub index_and_filter_bytes: u64,
    pub index_and_filter_per_entry: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Planned {
    pub settings: String,
    pub phases: Vec<Phase>,
}

/// Puts to random keys of those that are there; every so often, where there is a pace.
#[derive(Clone)]
struct Overwrites {
    engine: Sluice,
    noise: Arc<Noise>,
    keys: u64,
    salt: u64,
    begun: Instant,
    per_second: Option<f64>,
}

impl Work for Overwrites {
    async fn run(&self, n: u64) -> Result<u64> {
        if let Some(rate) = self.per_second {
            let due = self.begun + Duration::from_secs_f64(n as f64 / rate);
            if due > Instant::now() + EARLY {
                tokio::time::sleep_until(due.into()).await;
            }
        }
        let random = mix(n ^ self.salt);
        let key = hashed(scale(random, self.keys));
        self.engine.put(&key, self.noise.value(random, VALUE_BYTES)).await?;
        Ok(1)
    }
}

/// Looks at the database while a phase runs.
struct Watch {
    peaks: Arc<Mutex<Phase>>,
    is_over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn start(db: Db, dir: &Path) -> Self {
        let (peaks, is_over) = (Arc::<Mutex<Phase>>::default(), Arc::<AtomicBool>::default());
        let (noted, ends, dir) = (Arc::clone(&peaks), Arc::clone(&is_over), dir.to_owned());
        let task = tokio::spawn(async move {
            while !ends.load(Ordering::Relaxed) {
                let (stats, levels) = (db.stats(), levels(&db));
                let space = disk::size(&dir).unwrap_or_default();
                note(
                    &mut noted.lock().unwrap_or_else(PoisonError::into_inner),
                    &stats,
                    &levels,
                    space,
                );
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Self { peaks, is_over, task }
    }

    async fn stop(self) -> Result<Phase> {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.await?;
        let peaks = self.peaks.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(peaks.clone())
    }
}

fn note(peaks: &mut Phase, stats: &Stats, levels: &[Level], space: u64) {
    peaks.runs_max = peaks.runs_max.max(stats.read_runs_max);
    peaks.tables_max = peaks.tables_max.max(stats.tables);
    peaks.space_max = peaks.space_max.max(space);
    peaks.levels_max.resize(levels.len().max(peaks.levels_max.len()), Level::default());
    for (most, now) in peaks.levels_max.iter_mut().zip(levels) {
        most.bytes = most.bytes.max(now.bytes);
        most.landing_bytes = most.landing_bytes.max(now.landing_bytes);
    }
}

fn levels(db: &Db) -> Vec<Level> {
    let mut levels = Vec::new();
    for info in db.level_info() {
        let at = usize::from(info.level);
        levels.resize(levels.len().max(at + 1), Level::default());
        levels[at].bytes += info.bytes - info.landing_bytes;
        levels[at].landing_bytes += info.landing_bytes;
    }
    levels
}

pub fn run(args: &PlanArgs) -> Result<Planned> {
    let cores = std::thread::available_parallelism()?.get();
    let dir = Directory::new(&args.output.dir, "curves")?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(cores).enable_time().build()?;
    let phases = runtime.block_on(phases(args, &dir.0))?;
    let settings = format!(
        "{CLIENTS} clients, {cores} workers; {} MiB of memory; pace {:.1} MB/s",
        args.memory >> 20,
        args.pace as f64 / 1e6,
    );
    Ok(Planned { settings, phases })
}

async fn phases(args: &PlanArgs, dir: &Path) -> Result<Vec<Phase>> {
    let mut options = plain_options();
    options.memory_budget_bytes = args.memory;
    disk::sync_all()?;
    let engine = Sluice::open_with(dir, options).await?;
    let count = args.size / ENTRY_BYTES;
    let (load, keys) = loaded(&engine, dir, count, args.load_seconds).await?;
    let mut phases = vec![load];
    let per_second = args.pace as f64 / ENTRY_BYTES as f64;
    for (name, seconds, pace) in [
        ("flat out", args.flat_out_seconds, None),
        ("at the pace", args.paced_seconds, Some(per_second)),
    ] {
        // What the phase before has left over is not this one's.
        if !settle(&engine, false).await? {
            eprintln!("before the phase {name}: it has not settled");
        }
        let overwrites = Overwrites {
            engine: engine.clone(),
            noise: Arc::new(Noise::new()),
            keys,
            salt: mix(phases.len() as u64),
            begun: Instant::now(),
            per_second: pace,
        };
        let load = Load { clients: CLIENTS, operations: u64::MAX, seconds };
        let (mut phase, _) = measured(&engine, dir, name, overwrites, load).await?;
        open_all(&engine, keys, &mut phase).await?;
        phases.push(phase);
    }
    engine.close().await?;
    Ok(phases)
}

/// Puts each key once; returns up to which number they are there.
async fn loaded(engine: &Sluice, dir: &Path, keys: u64, seconds: f64) -> Result<(Phase, u64)> {
    let data = Arc::new(Data::new());
    let work = On { engine: engine.clone(), operation: Operation::Put, data, salt: 0 };
    let load = Load { clients: CLIENTS, operations: keys, seconds };
    let (mut phase, driven) = measured(engine, dir, "load", work, load).await?;
    // Client `c` of `k` has put `c`, `c + k` ...
    let complete = driven.done.iter().min().copied().unwrap_or_default() * CLIENTS;
    if complete == 0 {
        return Err("--load-seconds: too few to put anything".into());
    }
    open_all(engine, complete, &mut phase).await?;
    Ok((phase, complete))
}

/// Runs a phase.
async fn measured(
    engine: &Sluice,
    dir: &Path,
    name: &str,
    work: impl Work,
    load: Load,
) -> Result<(Phase, Driven)> {
    eprintln!("{name} ...");
    let before = engine.0.stats();
    let watch = Watch::start(engine.0.clone(), dir);
    let driven = drive(work, load).await?;
    let after = engine.0.stats();
    let peaks = watch.stop().await?;
    let user_bytes = (driven.operations() * ENTRY_BYTES) as f64;
    let per_byte = |of: fn(&Stats) -> u64| (of(&after) - of(&before)) as f64 / user_bytes;
    let into = |stats: &Stats, at: usize| stats.by_level.get(at).map_or(0, |l| l.bytes_written);
    let waited = |stats: &Stats| stats.wait_micros_local + stats.wait_micros_global;
    let phase = Phase {
        name: name.into(),
        seconds: driven.took.as_secs_f64(),
        puts: driven.operations(),
        log: per_byte(|stats| stats.log_bytes),
        flush: per_byte(|stats| stats.flush_bytes),
        compaction: per_byte(|stats| stats.compaction_bytes_written),
        kept: per_byte(|stats| stats.keeps.bytes),
        by_level: (0..after.by_level.len())
            .map(|at| (into(&after, at) - into(&before, at)) as f64 / user_bytes)
            .collect(),
        waited: (waited(&after) - waited(&before)) as f64 / 1e6,
        levels: levels(&engine.0),
        runs: after.read_runs_max,
        tables: after.tables,
        ..peaks
    };
    Ok((phase, driven))
}

/// Reads until every table is open, and notes what their indexes and filters take.
async fn open_all(engine: &Sluice, keys: u64, phase: &mut Phase) -> Result<()> {
    let data = Arc::new(Data::written(vec![keys]));
    let work = On { engine: engine.clone(), operation: Operation::Get, data, salt: mix(1) };
    let load = Load { clients: CLIENTS, operations: GETS, seconds: UNLIMITED_SECONDS };
    drive(work, load).await?;
    let stats = engine.0.stats();
    phase.open_tables = stats.open_tables;
    phase.table_entries = stats.table_entries;
    phase.index_and_filter_bytes = stats.index_bytes + stats.filter_bytes;
    phase.index_and_filter_per_entry =
        phase.index_and_filter_bytes as f64 / stats.table_entries as f64;
    Ok(())
}
