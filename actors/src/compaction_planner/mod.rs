//! The compaction planner: it chooses what is merged next, so that levels stay within their limits
//! and read paths stay short. Workers do the merging.
//!
//! Owns:      the claims and the choice, what is set aside, the request of a caller.
//! Receives:  Compact, from callers; a Report, from a worker; and the signal that a version
//!            changed.
//! Sends:     jobs, each with its claim, to workers that are idle.
//! Publishes: nothing.
//! Stops:     when its mailbox is closed, or the engine has failed.
//!
//! A failed job changes nothing: its outputs are removed, its inputs stay. Whatever is to blame is
//! set aside for a while (`state.rs`). Jobs that do not need it go on at once.

mod bursts;
pub mod counts;
pub mod decisions;
pub mod message;
mod run;
mod state;
#[cfg(test)]
mod tests;

use crate::failure::attempts::Asked;
use crate::failure::{Failure, Failures};
use crate::progress::ProgressWatch;
use crate::range_owner::Topology;
use crate::runtime::Environment;
use crate::version_manager::{Files, TablesDue};
use bursts::Bursts;
use message::{Assignment, PlannerMessage, Report};
use sluicedb_kernel::mailbox::{Inbox, Mailbox};
use sluicedb_kernel::reply::Reply;
use sluicedb_storage::compact::{Agenda, Claims, ManualCompaction, Rounds};
use sluicedb_storage::version::RangeId;
use state::Setbacks;
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

pub use counts::CompactionCounts;

/// The actor. A thread of its own drives it, because choosing among many tables takes time.
#[derive(Debug)]
pub struct CompactionPlanner {
    environment: Arc<Environment>,
    failures: Arc<Failures>,
    topology: Arc<Topology>,
    files: Arc<Files>,
    due: Arc<TablesDue>,
    counts: Arc<CompactionCounts>,
    inbox: Inbox<PlannerMessage>,
    workers: Vec<Worker>,
    reports: Inbox<Report>,
    claims: Claims,
    agenda: Agenda,
    bursts: Bursts,
    rounds: Rounds,
    /// The request that is being served. Others wait in the mailbox.
    request: Option<Request>,
    /// How many requests have been accepted.
    requests: u64,
    setbacks: Setbacks,
    /// The ranges for which a compaction trouble is shown; `None` for all.
    shown: BTreeSet<Option<RangeId>>,
    asked: Asked,
}

/// A worker as the planner sees it. It runs at most one job.
#[derive(Debug)]
struct Worker {
    jobs: Mailbox<Assignment>,
    /// Does it run only jobs that need no merge? Then a flood of flushes always finds room to land,
    /// even while all other workers are busy with long merges.
    moves_only: bool,
    runs: Option<Purpose>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// It is due by the policy.
    Due,
    /// The request with this number asked for it.
    Request(u64),
}

/// What a caller wants merged, except in ranges where that fails.
#[derive(Debug)]
struct Request {
    /// Counted from 1.
    number: u64,
    order: ManualCompaction,
    shown: Weak<ProgressWatch>,
    reply: Reply<Result<(), Failure>>,
    first: Result<(), Failure>,
    /// Bytes of the tables merged for it.
    done_bytes: u64,
}

impl Request {
    fn purpose(&self) -> Purpose {
        Purpose::Request(self.number)
    }
}

impl CompactionPlanner {
    /// A planner for what `topology` shows and `files` holds, woken by `due`. Each worker's mailbox
    /// has room for one job. The last worker gets only jobs that need no merge.
    pub fn new(
        files: Arc<Files>,
        topology: Arc<Topology>,
        due: Arc<TablesDue>,
        inbox: Inbox<PlannerMessage>,
        workers: Vec<Mailbox<Assignment>>,
        reports: Inbox<Report>,
    ) -> Self {
        let merging = workers.len() - 1;
        let workers = workers.into_iter().enumerate();
        let workers =
            workers.map(|(at, jobs)| Worker { jobs, moves_only: at == merging, runs: None });
        let workers = workers.collect();
        Self {
            environment: Arc::clone(&files.environment),
            failures: Arc::clone(&files.failures),
            topology,
            files,
            due,
            counts: Arc::default(),
            inbox,
            workers,
            reports,
            claims: Claims::new(),
            agenda: Agenda::default(),
            bursts: Bursts::default(),
            rounds: Rounds::default(),
            request: None,
            requests: 0,
            setbacks: Setbacks::default(),
            shown: BTreeSet::new(),
            asked: Asked::default(),
        }
    }

    /// The counters of the planner and its workers.
    pub fn counts(&self) -> Arc<CompactionCounts> {
        Arc::clone(&self.counts)
    }
}
