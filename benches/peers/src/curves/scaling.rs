//! Puts, gets and scans with more and more cores and ranges. Each number of cores and of ranges is
//! a process of its own, kept on so many cores from its start on, so that the engine's threads
//! share them with the clients.

use crate::args::{RowArgs, ScalingArgs};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};
use sluicedb_bench_peers::children::{listen, tell};
use sluicedb_bench_peers::disk::{self, Directory};
use sluicedb_bench_peers::drive::{Driven, Load, drive};
use sluicedb_bench_peers::engine::{Engine, SETTLE_MAX, settle};
use sluicedb_bench_peers::keys::mix;
use sluicedb_bench_peers::sluice::Sluice;
use sluicedb_bench_peers::work::{Data, On, Operation};
use sluicedb_bench_peers::{Result, sluice};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Clients for each worker of the runtime.
pub const CLIENTS_PER_WORKER: u64 = 4;
const LOAD_BATCH: u64 = 1000;
/// The database that is read has one run for each range.
const REST_AFTER_MS: u64 = 200;
/// Long enough for rows that have to be done.
const UNLIMITED_SECONDS: f64 = 3600.0;
/// A child may take so much longer than its rows.
const AROUND: Duration = Duration::from_secs(120);

/// The operations, in the order of the tables.
pub const OPERATIONS: [&str; 3] = ["put", "get", "scan of 100"];

/// One row of one process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Figure {
    pub operation: String,
    pub cores: u64,
    pub ranges: u64,
    /// Of operations; a scan is one.
    pub per_second: f64,
    pub cpu_us: f64,
    pub p99_us: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Scaling {
    pub settings: String,
    pub figures: Vec<Figure>,
}

/// Starts a process for each number of cores, of ranges, and round.
pub fn run(args: &ScalingArgs) -> Result<Scaling> {
    let mut configurations = Vec::new();
    for cores in &args.cores {
        configurations.extend(args.ranges.iter().map(|ranges| (*cores, *ranges)));
    }
    let mut figures = Vec::new();
    for round in 0..args.rounds {
        for (cores, ranges) in &configurations {
            eprintln!("round {}: {cores} cores, {ranges} ranges ...", round + 1);
            let dir = Directory::new(&args.output.dir, "curves")?;
            disk::sync_all()?;
            listen(
                &mut child(args.rows, *cores, *ranges, &dir.0)?,
                limit(args.rows),
                &mut figures,
            )?;
        }
        // What came first now comes last.
        configurations.reverse();
    }
    let RowArgs { seconds, entries, clients_only } = args.rows;
    let settings = format!(
        "Rounds: {}; {seconds} s a row, puts {} s; {entries} entries in the database that is read; \
         {CLIENTS_PER_WORKER} clients for each core; {} to so many cores; 512 MiB of memory",
        args.rounds,
        2.0 * seconds,
        if clients_only { "only the clients are kept" } else { "the whole process is kept" },
    );
    Ok(Scaling { settings, figures })
}

fn limit(rows: RowArgs) -> Duration {
    AROUND + SETTLE_MAX + Duration::from_secs_f64(10.0 * rows.seconds)
}

fn child(rows: RowArgs, cores: u64, ranges: u64, dir: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["child", &cores.to_string(), &ranges.to_string()]).arg(dir);
    command.args(["--seconds", &rows.seconds.to_string()]);
    command.args(["--entries", &rows.entries.to_string()]);
    if rows.clients_only {
        command.arg("--clients-only");
    }
    Ok(command)
}

/// Keeps the calling thread, and those that it starts, on the first so many of its cores.
fn keep_to(cores: u64) -> Result<()> {
    let may = sched_getaffinity(None)?;
    let mut set = CpuSet::new();
    let first = (0..CpuSet::MAX_CPU).filter(|cpu| may.is_set(*cpu)).take(cores as usize);
    first.for_each(|cpu| set.set(cpu));
    Ok(sched_setaffinity(None, &set)?)
}

/// The keys between ranges that have equal shares of all hashed keys.
fn split_keys(ranges: u64) -> Vec<Vec<u8>> {
    let bound = |n: u64| ((u128::from(n) << 64) / u128::from(ranges)) as u64;
    (1..ranges).map(|n| bound(n).to_be_bytes().to_vec()).collect()
}

async fn open(dir: &Path, ranges: u64) -> Result<Sluice> {
    let mut options = sluice::plain_options();
    options.initial_split_keys = split_keys(ranges);
    options.rest_after_ms = REST_AFTER_MS;
    Sluice::open_with(dir, options).await
}

/// What a child does.
pub fn measure(cores: u64, ranges: u64, dir: &Path, rows: RowArgs) -> Result<()> {
    if !rows.clients_only {
        keep_to(cores)?;
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(cores as usize).enable_time();
    runtime.build()?.block_on(async {
        let measured = Measured { cores, ranges, rows };
        measured.puts(&dir.join("put")).await?;
        measured.reads(&dir.join("read")).await
    })
}

struct Measured {
    cores: u64,
    ranges: u64,
    rows: RowArgs,
}

impl Measured {
    async fn puts(&self, dir: &Path) -> Result<()> {
        let engine = open(dir, self.ranges).await?;
        let data = Arc::new(Data::new());
        let work = On { engine: engine.clone(), operation: Operation::Put, data, salt: 0 };
        let driven = drive(work, self.load(2.0 * self.rows.seconds)).await?;
        self.tell("put", &driven)?;
        engine.close().await?;
        Ok(std::fs::remove_dir_all(dir)?)
    }

    async fn reads(&self, dir: &Path) -> Result<()> {
        let engine = open(dir, self.ranges).await?;
        let batches = self.rows.entries / LOAD_BATCH;
        let data = Arc::new(Data::written(vec![batches * LOAD_BATCH]));
        let on = |operation, salt| {
            let (engine, data) = (engine.clone(), Arc::clone(&data));
            On { engine, operation, data, salt: mix(salt) }
        };
        let all = |clients, operations| Load { clients, operations, seconds: UNLIMITED_SECONDS };
        drive(on(Operation::Batch(LOAD_BATCH), 0), all(1, batches)).await?;
        if !settle(&engine, true).await? {
            eprintln!("{} ranges have not settled", self.ranges);
        }
        // Into the cache.
        drive(on(Operation::Get, 1), all(self.clients(), 2 * self.rows.entries)).await?;
        for (name, operation) in [("get", Operation::Get), ("scan of 100", Operation::Scan)] {
            let driven = drive(on(operation, 2), self.load(self.rows.seconds)).await?;
            self.tell(name, &driven)?;
        }
        engine.close().await
    }

    fn clients(&self) -> u64 {
        CLIENTS_PER_WORKER * self.cores
    }

    /// As much as is done in this time.
    fn load(&self, seconds: f64) -> Load {
        Load { clients: self.clients(), operations: u64::MAX, seconds }
    }

    fn tell(&self, operation: &str, driven: &Driven) -> Result<()> {
        let operations = driven.operations() as f64;
        tell(&Figure {
            operation: operation.into(),
            cores: self.cores,
            ranges: self.ranges,
            per_second: operations / driven.took.as_secs_f64(),
            cpu_us: driven.cpu.as_secs_f64() * 1e6 / operations,
            p99_us: driven.latencies.value_at_quantile(0.99) as f64 / 1e3,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_equal_shares() {
        assert!(split_keys(1).is_empty());
        let firsts: Vec<_> = split_keys(4).iter().map(|key| key[0]).collect();
        assert_eq!(firsts, [0x40, 0x80, 0xc0]);
        let keys = split_keys(16_384);
        assert_eq!(keys.len(), 16_383);
        assert!(keys.is_sorted_by(|one, next| one < next));
    }
}
