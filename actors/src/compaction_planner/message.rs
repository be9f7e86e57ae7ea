//! What the compaction planner is told, beside the signal that a version changed.

use crate::failure::Failure;
use crate::kernel::reply::Reply;
use sluicedb_storage::compact::ClaimedJob;
use sluicedb_storage::key::Span;

/// Messages of callers.
#[derive(Debug)]
pub enum PlannerMessage {
    /// Merge everything in `span` down to the bottom.
    Compact {
        /// Which keys.
        span: Span,
        /// Answered when it is done.
        reply: Reply<Result<(), Failure>>,
    },
}

/// How a job ended.
#[derive(Debug)]
pub enum Ended {
    /// Installed.
    Done,
    /// The version moved on under it; pick again.
    Conflict,
    /// Failed, and changed nothing.
    Failed(Failure),
}

/// What a worker says when a job is over. It brings the job back, so that nobody picks its tables
/// before the planner knows what to think of them.
#[derive(Debug)]
pub struct Report {
    /// Whose.
    pub worker: usize,
    /// Over, and claimed still.
    pub job: ClaimedJob,
    /// How.
    pub ended: Ended,
}
