//! A compaction worker: merges what the planner chose, and has the result installed.
//!
//! Owns:      the tables it is writing, and the claim of the job that it runs.
//! Receives:  jobs, one at a time.
//! Sends:     Install to the version manager; a Report to the planner, with the job.
//! Publishes: nothing.
//! Stops:     when its mailbox is closed, or the engine has failed.
//!
//! There may be several: claims keep their jobs apart.

mod merge;

use crate::compaction_planner::message::{Ended, Report};
use crate::kernel::mailbox::{Capacity, Inbox, Mailbox};
use crate::shared::{Counters, Shared};
use crate::version_manager::message::{InstallFailure, VersionMessage};
use futures::future::{Either, select};
use sluicedb_storage::compact::{ClaimedJob, Job};
use sluicedb_storage::version::SliceMeta;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;

/// The actor. Driven by a thread of its own: it reads and writes tables.
#[derive(Debug)]
pub struct CompactionWorker {
    shared: Arc<Shared>,
    index: usize,
    jobs: Inbox<ClaimedJob>,
    versions: Mailbox<VersionMessage>,
    reports: Mailbox<Report>,
}

/// Mailboxes of so many workers, and one with room for a report from each.
#[derive(Debug)]
pub struct Channels {
    /// Into the workers, for one job each.
    pub jobs: Vec<Mailbox<ClaimedJob>>,
    inboxes: Vec<Inbox<ClaimedJob>>,
    reports: Mailbox<Report>,
}

impl Channels {
    /// For `workers` of them; and where their reports come out.
    pub fn new(workers: NonZeroUsize) -> (Self, Inbox<Report>) {
        let workers = workers.get();
        let one = Capacity { messages: 1, bytes: 1 };
        let (jobs, inboxes) = (0..workers).map(|_| Mailbox::new(one)).unzip();
        let (reports, inbox) = Mailbox::new(Capacity { messages: workers, bytes: workers as u64 });
        (Self { jobs, inboxes, reports }, inbox)
    }

    /// The workers, who install through `versions`.
    pub fn workers(
        self,
        shared: &Arc<Shared>,
        versions: &Mailbox<VersionMessage>,
    ) -> impl Iterator<Item = CompactionWorker> {
        let Self { inboxes, reports, .. } = self;
        inboxes.into_iter().enumerate().map(move |(index, jobs)| CompactionWorker {
            shared: Arc::clone(shared),
            index,
            jobs,
            versions: versions.clone(),
            reports: reports.clone(),
        })
    }
}

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
        let down = pin!(self.shared.health.until_down());
        match select(self.jobs.recv(), down).await {
            Either::Left((job, _)) => job,
            Either::Right(_) => None,
        }
    }

    /// Runs one job; once more if it finds no space and there is a reserve.
    async fn execute(&self, job: &Job) -> Ended {
        let ended = self.try_once(job).await;
        match &ended {
            Ended::Failed(failure) if self.shared.use_reserve(failure) => self.try_once(job).await,
            _ => ended,
        }
    }

    async fn try_once(&self, job: &Job) -> Ended {
        let written = match merge::merge(&self.shared, job) {
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
        let counters = &self.shared.counters;
        Counters::add(&counters.compactions, 1);
        if job.is_move {
            Counters::add(&counters.trivial_moves, 1);
        } else {
            Counters::add(&counters.compaction_bytes_read, job.input_bytes());
            Counters::add(&counters.compaction_bytes_written, bytes_written);
        }
    }
}
