//! The worker's loop: a job, its merge, its installation, the report.

use super::{CompactionWorker, merge};
use crate::compaction_planner::message::{Ended, Report};
use crate::version_manager::message::InstallFailure;
use futures::future::{Either, select};
use sluicedb_storage::compact::{ClaimedJob, Job};
use sluicedb_storage::version::SliceMeta;
use std::pin::pin;

impl CompactionWorker {
    /// The loop.
    pub async fn run(mut self) {
        while let Some(job) = self.next_job().await {
            let ended = self.execute(&job).await;
            let report = Report { worker: self.index, job, ended };
            let Ok(permit) = self.reports.reserve(1).await else { return };
            if permit.send(report).is_err() {
                return;
            }
        }
    }

    async fn next_job(&mut self) -> Option<ClaimedJob> {
        let down = pin!(self.files.failures.health.until_down());
        match select(self.jobs.recv(), down).await {
            Either::Left((job, _)) => job,
            Either::Right(_) => None,
        }
    }

    /// Runs one job; once more if it finds no space and there is a reserve.
    async fn execute(&self, job: &Job) -> Ended {
        let ended = self.try_once(job).await;
        match &ended {
            Ended::Failed(failure) if self.files.failures.use_reserve(failure) => {
                self.try_once(job).await
            }
            _ => ended,
        }
    }

    async fn try_once(&self, job: &Job) -> Ended {
        let written = match merge::merge(&self.files, job) {
            Ok(written) => written,
            Err(failure) => return Ended::Failed(failure),
        };
        let edit = job.edit(written.slices().to_vec());
        let bytes_written = written.slices().iter().map(SliceMeta::file_bytes).sum();
        match written.install(&self.versions, edit, None).await {
            Ok(()) => {
                self.count(job, bytes_written);
                Ended::Done
            }
            Err(InstallFailure::Conflict(what)) => {
                tracing::debug!(%what, "a compaction lost its inputs");
                Ended::Conflict
            }
            Err(InstallFailure::NotInstalled(failure) | InstallFailure::Failed(failure)) => {
                Ended::Failed(failure)
            }
        }
    }

    fn count(&self, job: &Job, bytes_written: u64) {
        let counts = &self.counts;
        counts.compactions.add(1);
        if job.is_move {
            counts.trivial_moves.add(1);
        } else {
            counts.compaction_bytes_read.add(job.input_bytes());
            counts.compaction_bytes_written.add(bytes_written);
        }
    }
}
