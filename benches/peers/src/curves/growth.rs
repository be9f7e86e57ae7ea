//! One database that grows. At each size it settles, is closed and opened again, and then read: so
//! all of its data is in tables.

use crate::args::GrowthArgs;
use serde::{Deserialize, Serialize};
use sluicedb::{Db, Options};
use sluicedb_bench_peers::disk::{self, Directory};
use sluicedb_bench_peers::drive::{Driven, Load, Work, drive};
use sluicedb_bench_peers::engine::{Engine, settle_within};
use sluicedb_bench_peers::keys::{ENTRY_BYTES, mix};
use sluicedb_bench_peers::sluice::{Sluice, plain_options};
use sluicedb_bench_peers::work::{Data, On, Operation, SCAN_MAX};
use sluicedb_bench_peers::{Result, process};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Clients that fill.
const CLIENTS: u64 = 16;
/// After so many puts the time is looked at. They end in between, so that the keys that are there
/// are the first so many.
const SLICE: u64 = 250_000;
const UNLIMITED_SECONDS: f64 = 3600.0;
/// Gets before those that count take so many times as long.
const WARM_TIMES: f64 = 3.0;

/// What was measured at one size.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Point {
    /// Keys and values in the database.
    pub bytes: u64,
    /// Of the puts since the size before.
    pub put_ns: f64,
    pub put_cpu_ns: f64,
    pub settle_s: f64,
    /// Was nothing due any more?
    pub is_settled: bool,
    /// By this process since the first put, for each byte put.
    pub written: f64,
    /// Of the closed database, for each byte put.
    pub space: f64,
    pub open_ms: f64,
    /// Sorted runs that a get may have to look into.
    pub runs: u64,
    pub tables: u64,
    pub get_c1_ns: f64,
    pub get_c16_ns: f64,
    pub get_c16_cpu_ns: f64,
    /// Blocks that were not in the cache, for each get of 16 clients.
    pub misses: f64,
    /// Reads from the disk for each of these gets.
    #[serde(default)]
    pub cold: f64,
    /// The same for each scan of one client.
    #[serde(default)]
    pub scan_misses: f64,
    #[serde(default)]
    pub scan_cold: f64,
    /// Of each entry, one client.
    pub scan_c1_ns: f64,
    pub scan_c16_ns: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Growth {
    pub settings: String,
    pub points: Vec<Point>,
}

/// Operation `n` of another work is this one's `first + n`.
#[derive(Clone)]
struct From<W> {
    first: u64,
    work: W,
}

impl<W: Work + Sync> Work for From<W> {
    async fn run(&self, n: u64) -> Result<u64> {
        self.work.run(self.first + n).await
    }
}

pub fn run(args: &GrowthArgs) -> Result<Growth> {
    let cores = std::thread::available_parallelism()?.get();
    let dir = Directory::new(&args.output.dir, "curves")?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(cores).enable_time().build()?;
    let points = runtime.block_on(grow(args, &dir.0))?;
    let settings = format!(
        "{CLIENTS} clients put, {cores} workers; {} s a row that reads; at most {} s to fill and \
         settle at each size; {} MiB of memory; {}",
        args.seconds,
        args.point_seconds,
        args.memory >> 20,
        if args.at_rest {
            "landings merged at each size, as in a pause without writes"
        } else {
            "landings as the puts left them"
        },
    );
    Ok(Growth { settings, points })
}

fn options(args: &GrowthArgs) -> Options {
    let mut options = plain_options();
    options.memory_budget_bytes = args.memory;
    if !args.at_rest {
        // Else merges would begin while the reads are measured.
        options.rest_after_ms = 0;
    }
    options
}

async fn grow(args: &GrowthArgs, dir: &Path) -> Result<Vec<Point>> {
    disk::sync_all()?;
    let mut engine = Sluice::open_with(dir, options(args)).await?;
    let before = disk::bytes_written();
    let (mut points, mut there) = (Vec::new(), 0);
    for size in &args.sizes {
        eprintln!("{} MB ...", size / 1_000_000);
        let deadline = Instant::now() + Duration::from_secs_f64(args.point_seconds);
        let count = size / ENTRY_BYTES;
        let filled = fill(&engine, there, count, deadline).await?;
        if filled.puts == 0 {
            return Err(format!("--point-seconds {}: too few to put", args.point_seconds).into());
        }
        there += filled.puts;
        let begun = Instant::now();
        let is_settled = settle_within(&engine, args.at_rest, deadline - begun).await?;
        let settle_s = begun.elapsed().as_secs_f64();
        engine.close().await?;
        let bytes = there * ENTRY_BYTES;
        let written = disk::bytes_written().zip(before).map_or(0, |(now, before)| now - before);
        let space = disk::size(dir)?;
        let begun = Instant::now();
        engine = Sluice::open_with(dir, options(args)).await?;
        let open = begun.elapsed();
        let stats = engine.0.stats();
        let mut point = Point {
            bytes,
            put_ns: filled.took.as_secs_f64() * 1e9 / filled.puts as f64,
            put_cpu_ns: filled.cpu.as_secs_f64() * 1e9 / filled.puts as f64,
            settle_s,
            is_settled,
            written: written as f64 / bytes as f64,
            space: space as f64 / bytes as f64,
            open_ms: open.as_secs_f64() * 1e3,
            runs: stats.read_runs_max,
            tables: stats.tables,
            get_c1_ns: 0.0,
            get_c16_ns: 0.0,
            get_c16_cpu_ns: 0.0,
            misses: 0.0,
            cold: 0.0,
            scan_misses: 0.0,
            scan_cold: 0.0,
            scan_c1_ns: 0.0,
            scan_c16_ns: 0.0,
        };
        read(&engine, args.seconds, there, &mut point).await?;
        points.push(point);
        if there < count {
            eprintln!("--point-seconds {}: it ends at {bytes} bytes", args.point_seconds);
            break;
        }
    }
    engine.close().await?;
    Ok(points)
}

struct Filled {
    puts: u64,
    took: Duration,
    cpu: Duration,
}

/// Puts keys from number `from` up to number `to`, or until `deadline`.
async fn fill(engine: &Sluice, from: u64, to: u64, deadline: Instant) -> Result<Filled> {
    let data = Arc::new(Data::new());
    let (begun, cpu) = (Instant::now(), process::cpu_time());
    let mut next = from;
    while next < to && Instant::now() < deadline {
        let operations = SLICE.min(to - next);
        let (engine, data) = (engine.clone(), Arc::clone(&data));
        let work = On { engine, operation: Operation::Put, data, salt: 0 };
        let load = Load { clients: CLIENTS, operations, seconds: UNLIMITED_SECONDS };
        drive(From { first: next, work }, load).await?;
        next += operations;
    }
    let cpu = process::cpu_time().saturating_sub(cpu);
    Ok(Filled { puts: next - from, took: begun.elapsed(), cpu })
}

/// Gets and scans of the first `there` keys.
async fn read(engine: &Sluice, seconds: f64, there: u64, point: &mut Point) -> Result<()> {
    let data = Arc::new(Data::written(vec![there]));
    let row = async |operation, clients, operations, seconds| -> Result<Driven> {
        let (engine, data) = (engine.clone(), Arc::clone(&data));
        // Unmixed, salts would only change the order of the keys that are asked for.
        let work = On { engine, operation, data, salt: mix(clients) };
        drive(work, Load { clients, operations, seconds }).await
    };
    let each = |driven: &Driven, time: Duration, per: u64| {
        time.as_secs_f64() * 1e9 / (driven.operations() * per) as f64
    };
    // Opens the tables, and fills the cache.
    row(Operation::Get, CLIENTS - 1, 2 * there, WARM_TIMES * seconds).await?;
    let c1 = row(Operation::Get, 1, u64::MAX, seconds).await?;
    point.get_c1_ns = each(&c1, c1.took, 1);
    let before = Missed::of(&engine.0);
    let c16 = row(Operation::Get, CLIENTS, u64::MAX, seconds).await?;
    (point.misses, point.cold) = before.since(&engine.0, &c16);
    point.get_c16_ns = each(&c16, c16.took, 1);
    point.get_c16_cpu_ns = each(&c16, c16.cpu, 1);
    let before = Missed::of(&engine.0);
    let scans = row(Operation::Scan, 1, u64::MAX, seconds).await?;
    (point.scan_misses, point.scan_cold) = before.since(&engine.0, &scans);
    point.scan_c1_ns = each(&scans, scans.took, SCAN_MAX);
    let scans = row(Operation::Scan, CLIENTS, u64::MAX, seconds).await?;
    point.scan_c16_ns = each(&scans, scans.took, SCAN_MAX);
    Ok(())
}

/// Reads that the cache did not answer.
struct Missed {
    blocks: u64,
    cold: u64,
}

impl Missed {
    fn of(db: &Db) -> Self {
        let stats = db.stats();
        Self { blocks: stats.cache_misses, cold: stats.cold_reads }
    }

    /// Blocks that were not in the cache, and reads from the disk, of each operation since then.
    fn since(&self, db: &Db, driven: &Driven) -> (f64, f64) {
        let (now, operations) = (Self::of(db), driven.operations() as f64);
        let each = |now: u64, before: u64| (now - before) as f64 / operations;
        (each(now.blocks, self.blocks), each(now.cold, self.cold))
    }
}
