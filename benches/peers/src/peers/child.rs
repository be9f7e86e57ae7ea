//! One step of one group with one engine: what a child process does. It prints a line of JSON for
//! each row.

use crate::engines::Engine;
use crate::figures::{Figures, name};
use crate::groups;
use crate::heartbeat::Heartbeat;
use crate::profile::Profile;
use sluicedb_bench_peers::children::tell;
use sluicedb_bench_peers::drive::{Driven, Load, Work, drive};
use sluicedb_bench_peers::{Result, process};
use std::path::PathBuf;
use std::time::Duration;

/// Threads of the runtime.
const WORKERS: usize = 2;

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
