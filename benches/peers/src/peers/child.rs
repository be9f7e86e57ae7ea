//! One step of one group with one engine: what a child process does. It prints a line of JSON for
//! each row.

use crate::drive::{Driven, Load, Work, drive};
use crate::engines::Engine;
use crate::figures::{Figures, name};
use crate::groups;
use crate::heartbeat::Heartbeat;
use crate::profile::Profile;
use sluicedb_bench_peers::{Result, disk, process};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Threads of the runtime.
const WORKERS: usize = 2;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// With nothing due, nothing written and a processor time of at most a tenth for so many looks,
/// it has settled.
const LOOKS_QUIET: u32 = 6;
const SETTLE_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Job {
    pub engine: &'static str,
    pub group: groups::Group,
    pub step: usize,
    pub dir: PathBuf,
    pub profile: Profile,
}

pub fn run<E: Engine>(job: &Job) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let bench = Bench { job, heartbeat: Heartbeat::start() };
        groups::run::<E>(&bench).await
    })
}

pub struct Bench<'a> {
    pub job: &'a Job,
    heartbeat: Heartbeat,
}

impl Bench<'_> {
    pub fn figures(&self, row: &str) -> Figures {
        Figures::new(self.job.engine, row)
    }

    /// Measures a row.
    pub async fn row(&self, row: &str, work: impl Work, load: Load) -> Result<(Figures, Driven)> {
        process::forget_peak()?;
        self.heartbeat.reset();
        let driven = drive(work, load).await?;
        let mut figures = self.figures(row);
        figures
            .set_driven(&driven)
            .set_lateness(&self.heartbeat.lateness().await)
            .set_mib(name::PEAK, process::peak_bytes())
            .set_mib(name::ANONYMOUS, process::anonymous_bytes());
        Ok((figures, driven))
    }

    /// Measures the heartbeat alone.
    pub async fn idle(&self, row: &str) -> Result<()> {
        self.heartbeat.reset();
        tokio::time::sleep(Duration::from_secs_f64(self.job.profile.seconds)).await;
        let mut figures = self.figures(row);
        tell(figures.set_lateness(&self.heartbeat.lateness().await))
    }
}

/// Hands them to the parent.
pub fn tell(figures: &Figures) -> Result<()> {
    println!("{}", serde_json::to_string(figures)?);
    Ok(())
}

/// Waits until what was written is where it stays and nothing moves any more.
pub async fn settle<E: Engine>(engine: &E, at_rest: bool) -> Result<()> {
    engine.settle().await?;
    let begun = Instant::now();
    let mut quiet = 0;
    let mut before = (process::cpu_time(), disk::bytes_written());
    while quiet < LOOKS_QUIET && begun.elapsed() < SETTLE_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = (process::cpu_time(), disk::bytes_written());
        let moves = now.0.saturating_sub(before.0) > LOOK_EVERY / 10 || now.1 != before.1;
        quiet = if moves || engine.is_due(at_rest) { 0 } else { quiet + 1 };
        before = now;
    }
    Ok(())
}
