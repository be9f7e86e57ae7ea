//! What the compaction planner is told, beside the signal that a version changed.

use crate::failure::Failure;
use sluicedb_kernel::reply::Reply;
use sluicedb_kernel::watch::Watch;
use sluicedb_storage::compact::{ClaimedJob, Order};
use std::sync::Weak;

/// Messages of callers.
#[derive(Debug)]
pub enum PlannerMessage {
    /// Merge what is ordered.
    Compact {
        /// What.
        order: Order,
        /// Where it is shown how far it has come. Once the caller has let go of it the order is
        /// off: what is merged for it stops, and changes nothing.
        shown: Weak<ProgressWatch>,
        /// Answered when it is done.
        reply: Reply<Result<(), Failure>>,
    },
}

/// How far an order has come, in bytes of the tables that are merged for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Of tables that are merged, and the share of those that are being merged.
    pub done_bytes: u64,
    /// Those, and of all that are to be merged yet. Writes that come meanwhile may add some.
    pub total_bytes: u64,
    /// There will be no more: it is done, or off.
    pub is_over: bool,
}

/// Shows the progress of an order.
pub type ProgressWatch = Watch<Progress>;

/// A job for a worker.
#[derive(Debug)]
pub struct Assignment {
    /// The job.
    pub job: ClaimedJob,
    /// How much is due: 1.0 is just due, 2.0 urgent. Its worker goes the faster.
    pub debt: f64,
    /// If it is for an order: where it is shown how far that has come.
    pub shown: Option<Weak<ProgressWatch>>,
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
    /// Nobody wants it any more; it changed nothing.
    Off,
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
