//! A compaction worker: it merges what the planner chose and has the result installed.
//!
//! Owns:      the tables it is writing, and the claim of the job that it runs.
//! Receives:  jobs, one at a time.
//! Sends:     Install to the version manager; a Report to the planner, with the job.
//! Publishes: nothing.
//! Stops:     when its mailbox is closed, or the engine has failed.
//!
//! There may be several. Claims keep their jobs apart. A job is merged in slices. Between two
//! slices the worker lets others run, keeps its pace (`pace.rs`), and looks whether the job is
//! still wanted.

mod merge;
mod pace;
mod progress;
mod run;

use crate::compaction_planner::CompactionCounts;
use crate::compaction_planner::message::{Assignment, Report};
use crate::version_manager::Files;
use crate::version_manager::message::VersionMessage;
use pace::Pacer;
use sluicedb_kernel::mailbox::{Capacity, Inbox, Mailbox};
use std::num::NonZeroUsize;
use std::sync::Arc;

pub use pace::Pace;

/// The actor. A thread of its own drives it, because it reads and writes tables.
#[derive(Debug)]
pub struct CompactionWorker {
    files: Arc<Files>,
    counts: Arc<CompactionCounts>,
    index: usize,
    jobs: Inbox<Assignment>,
    versions: Mailbox<VersionMessage>,
    reports: Mailbox<Report>,
    pacer: Pacer,
}

/// A mailbox for each worker, and one with room for a report from each.
#[derive(Debug)]
pub struct Channels {
    /// Into the workers. Each has room for one job.
    pub jobs: Vec<Mailbox<Assignment>>,
    inboxes: Vec<Inbox<Assignment>>,
    reports: Mailbox<Report>,
}

impl Channels {
    /// Mailboxes for `merging` workers and for a last one that gets only jobs that need no merge.
    /// Also returns where their reports arrive.
    pub fn new(merging: NonZeroUsize) -> (Self, Inbox<Report>) {
        let workers = merging.get() + 1;
        let one = Capacity { messages: 1, bytes: 1 };
        let (jobs, inboxes) = (0..workers).map(|_| Mailbox::new(one)).unzip();
        let (reports, inbox) = Mailbox::new(Capacity { messages: workers, bytes: workers as u64 });
        (Self { jobs, inboxes, reports }, inbox)
    }

    /// The workers. They write to `files` and install through `versions`.
    pub fn workers(
        self,
        files: &Arc<Files>,
        counts: &Arc<CompactionCounts>,
        versions: &Mailbox<VersionMessage>,
        pace: &Arc<Pace>,
    ) -> impl Iterator<Item = CompactionWorker> {
        let Self { inboxes, reports, .. } = self;
        inboxes.into_iter().enumerate().map(move |(index, jobs)| CompactionWorker {
            files: Arc::clone(files),
            counts: Arc::clone(counts),
            index,
            jobs,
            versions: versions.clone(),
            reports: reports.clone(),
            pacer: Pacer::new(Arc::clone(pace), Arc::clone(counts)),
        })
    }
}
