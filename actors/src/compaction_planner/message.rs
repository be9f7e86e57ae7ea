//! The compaction planner's messages. A signal tells it that a version changed.

use crate::failure::Failure;
use crate::progress::ProgressWatch;
use sluicedb_kernel::reply::Reply;
use sluicedb_storage::compact::{ClaimedJob, ManualCompaction};
use std::sync::Weak;

/// Messages of callers.
#[derive(Debug)]
pub enum PlannerMessage {
    /// Asks for what `order` names to be merged.
    Compact {
        /// What to merge.
        order: ManualCompaction,
        /// Shows the progress. Once the caller has dropped it, the order is cancelled: its merges
        /// stop and change nothing.
        shown: Weak<ProgressWatch>,
        /// Told when the order is done.
        reply: Reply<Result<(), Failure>>,
    },
}

/// A job for a worker.
#[derive(Debug)]
pub struct Assignment {
    /// The job.
    pub job: ClaimedJob,
    /// How urgent the job is: 1.0 is just due, 2.0 urgent. The worker's pace follows it.
    pub debt: f64,
    /// Shows the progress of the caller's order, if the job is for one.
    pub shown: Option<Weak<ProgressWatch>>,
}

/// How a job ended.
#[derive(Debug)]
pub enum Ended {
    /// Installed, with so many new tables.
    Done {
        /// The number of tables that it added.
        tables: usize,
    },
    /// The version changed under it. The planner picks again.
    Conflict,
    /// It failed, and changed nothing.
    Failed(Failure),
    /// Nobody wants it any more. It changed nothing.
    Off,
}

/// A worker's report that a job is over. It brings the job and its claim back, so nobody picks the
/// job's tables before the planner has handled the outcome.
#[derive(Debug)]
pub struct Report {
    /// The worker's position.
    pub worker: usize,
    /// The job. It is over, and still claimed.
    pub job: ClaimedJob,
    /// How it ended.
    pub ended: Ended,
}
