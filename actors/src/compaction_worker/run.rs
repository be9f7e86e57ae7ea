//! The worker's loop: take a job, merge, install, report.

use super::CompactionWorker;
use super::progress::Share;
use crate::compaction_planner::message::{Assignment, Ended, Report};
use crate::progress::ProgressWatch;
use crate::version_manager::message::{InstallFailure, Work};
use futures::future::{Either, select};
use sluicedb_storage::compact::Job;
use std::pin::pin;
use std::sync::Weak;

impl CompactionWorker {
    /// The loop.
    pub async fn run(mut self) {
        while let Some(Assignment { mut job, debt, shown }) = self.next_job().await {
            let ended = self.execute(&mut job, debt, shown.as_ref()).await;
            let report = Report { worker: self.index, job, ended };
            let Ok(permit) = self.reports.reserve(1).await else { return };
            if permit.send(report).is_err() {
                return;
            }
        }
    }

    async fn next_job(&mut self) -> Option<Assignment> {
        let down = pin!(self.files.failures.health.until_down());
        match select(self.jobs.recv(), down).await {
            Either::Left((job, _)) => job,
            Either::Right(_) => None,
        }
    }

    /// Runs a job. Runs it once more if it found no space and the reserve gave some back.
    async fn execute(
        &mut self,
        job: &mut Job,
        debt: f64,
        shown: Option<&Weak<ProgressWatch>>,
    ) -> Ended {
        let releases = self.files.failures.reserve.releases();
        let ended = self.try_once(job, debt, shown).await;
        match &ended {
            Ended::Failed(failure) if self.files.failures.use_reserve(failure, releases) => {
                self.try_once(job, debt, shown).await
            }
            _ => ended,
        }
    }

    async fn try_once(
        &mut self,
        job: &mut Job,
        debt: f64,
        shown: Option<&Weak<ProgressWatch>>,
    ) -> Ended {
        let began = self.files.environment.now();
        let mut share = shown.map(|shown| Share::new(job, shown));
        let goes_on = |entries| share.as_mut().is_none_or(|share| share.show(entries));
        let written = match self.merge(job, debt, goes_on).await {
            Ok(Some(written)) => written,
            Ok(None) => return Ended::Off,
            Err(failure) => return Ended::Failed(failure),
        };
        let added = if job.is_metadata_only() {
            match job.pieces() {
                Ok(pieces) => pieces,
                Err(error) => return Ended::Failed(error.into()),
            }
        } else {
            job.outputs(written.slices())
        };
        let edit = job.edit(added.clone());
        let gone = job.gone().map(|(place, slice)| (job.range, place, slice.meta().clone()));
        let work = Work::Merged(gone.collect());
        let tables = written.slices().len();
        match written.install(&self.versions, edit, work).await {
            Ok(()) => {
                let now = self.files.environment.now();
                self.counts.done(job, &added, now.saturating_duration_since(began));
                if let Some(share) = share {
                    share.done();
                }
                Ended::Done { tables }
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
}
