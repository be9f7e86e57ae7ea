//! `bench`: rates and percentiles of one workload, with everything that explains them.
//!
//! Keys and values are drawn before the clock starts. A heartbeat task in the same runtime shows
//! how the work affects its neighbours: how late a timer of one millisecond fires.

pub mod args;
mod report;
mod workload;

use crate::machine::Machine;
use crate::outcome::{Exit, Failure, Result};
use crate::output;
use crate::progress::Progress;
use crate::store;
use args::{BenchArgs, Order, Workload};
use hdrhistogram::Histogram;
use sluicedb::Db;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use workload::Plan;

/// Tasks that prepare the data.
const FILLERS: u64 = 4;
/// How long the heartbeat is measured before the work begins, for comparison.
const IDLE: Duration = Duration::from_millis(200);

pub async fn run(args: BenchArgs) -> Result {
    check(&args)?;
    let (_guard, path) = place(&args)?;
    let db = store::open(&path, store::options(Some(args.memory)), true).await?;
    let measured = measure(&db, &args, &path).await;
    let closed = db.close().await;
    if args.path.is_some() {
        output::message(&format!("the database is still in {}", path.display()));
    }
    let report = measured?;
    closed?;
    if args.json { output::json(&report.json()) } else { output::line(&report.text()) }?;
    if report.missing > 0 {
        let message = format!("{} keys that were written are missing", report.missing);
        return Err(Failure::new(Exit::Corrupt, message));
    }
    Ok(())
}

fn check(args: &BenchArgs) -> Result {
    if args.key_bytes == 0 || args.key_bytes > 65_535 {
        return Err(Failure::usage("--key-bytes must be 1 to 65535"));
    }
    if args.value_bytes > store::options(Some(args.memory)).effective_value_bytes_max() {
        return Err(Failure::usage("--value-bytes is larger than a value may be; raise --memory"));
    }
    if args.entries == 0 {
        return Err(Failure::usage("--entries must be at least 1"));
    }
    if args.key_bytes < 8 && args.entries >= 1 << (8 * args.key_bytes) {
        return Err(Failure::usage("--key-bytes is too short for that many --entries"));
    }
    if args.key_bytes < 8 && args.order != Order::Sequential {
        return Err(Failure::usage("--order random and zipf need --key-bytes 8 or more"));
    }
    if !(args.theta > 0.0 && args.theta < 1.0) {
        return Err(Failure::usage("--theta must be between 0 and 1"));
    }
    Ok(())
}

/// A directory for the database, and the guard that removes it.
fn place(args: &BenchArgs) -> Result<(Option<tempfile::TempDir>, PathBuf)> {
    if let Some(path) = &args.path {
        if path.exists() {
            let path = path.display();
            return Err(Failure::usage(format!(
                "{path}: exists; a benchmark makes its own database"
            )));
        }
        return Ok((None, path.clone()));
    }
    let dir = tempfile::Builder::new().prefix("sluice-bench-").tempdir();
    let dir = dir.map_err(|error| Failure::io("temporary directory", &error))?;
    let path = dir.path().join("db");
    Ok((Some(dir), path))
}

async fn measure(db: &Db, args: &BenchArgs, path: &Path) -> Result<report::Report> {
    let done = Arc::new(AtomicU64::new(0));
    let mut plan = Plan::new(args.clone(), &done);
    if args.workload != Workload::Fill || args.order == Order::Zipf {
        plan = prepare(db, plan).await?;
    }
    if args.settle {
        db.compact().await?;
    }
    done.store(0, Ordering::Relaxed);
    let idle = Heartbeat::start();
    tokio::time::sleep(IDLE).await;
    let idle = idle.stop().await;
    let before = db.stats();
    let begun = Instant::now();
    plan.deadline = args.count.is_none().then(|| begun + args.duration);
    let plan = Arc::new(plan);
    let bar = Progress::items(args.count, &done);
    let heartbeat = Heartbeat::start();
    let mut tasks = JoinSet::new();
    for number in 0..u64::from(args.tasks) {
        tasks.spawn(workload::task(db.clone(), Arc::clone(&plan), number));
    }
    let (mut latencies, mut entries, mut bytes, mut missing) = (workload::histogram(), 0, 0, 0);
    while let Some(ended) = tasks.join_next().await {
        let tally =
            ended.map_err(|error| Failure::failed(format!("a task stopped: {error}")))??;
        latencies.add(&tally.latencies).expect("all histograms have the same bounds");
        entries += tally.entries;
        bytes += tally.bytes;
        missing += tally.missing;
    }
    let elapsed = begun.elapsed();
    drop(bar);
    let heartbeat = heartbeat.stop().await;
    Ok(report::Report {
        args: args.clone(),
        machine: Machine::look(path),
        disk_bytes: store::bytes_on_disk(path),
        latencies,
        idle,
        heartbeat,
        entries,
        bytes,
        missing,
        elapsed,
        before,
        after: db.stats(),
    })
}

/// Writes the entries that reads and overwrites will find, and flushes them.
async fn prepare(db: &Db, plan: Plan) -> Result<Plan> {
    let entries = plan.args.entries;
    let plan = Arc::new(plan);
    let bar = Progress::items(Some(entries), &plan.done);
    let mut tasks = JoinSet::new();
    for filler in 0..FILLERS {
        let share = entries * filler / FILLERS..entries * (filler + 1) / FILLERS;
        tasks.spawn(workload::fill(db.clone(), Arc::clone(&plan), share));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| Failure::failed(format!("a task stopped: {error}")))??;
    }
    drop(bar);
    db.flush().await?;
    Ok(Arc::into_inner(plan).expect("all fillers have ended"))
}

/// How late a timer of one millisecond fires while the work goes on.
struct Heartbeat {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Histogram<u64>>,
}

impl Heartbeat {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let period = Duration::from_millis(1);
            let mut lateness = workload::histogram();
            while !seen.load(Ordering::Relaxed) {
                let due = Instant::now() + period;
                tokio::time::sleep_until(due.into()).await;
                let late = Instant::now().saturating_duration_since(due);
                lateness.saturating_record(late.as_nanos() as u64);
            }
            lateness
        });
        Self { stop, task }
    }

    async fn stop(self) -> Histogram<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap_or_else(|_| workload::histogram())
    }
}
