//! What a range owner is told, entries to apply in log order; and what it asks for.

use super::route::{Part, Route};
use crate::config::{EXECUTOR_BATCH_BYTES_MAX, EXECUTOR_OPERATIONS_MAX};
use bytes::Bytes;
use sluicedb_kernel::sequencer::CommitGuard;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::version::RangeId;
use std::fmt::Debug;
use std::sync::Arc;

/// Entries of one batch, already in the log (log-before-apply).
#[derive(Debug)]
pub struct Apply {
    /// The encoded batch, all of it.
    pub payload: Bytes,
    /// Sequence number of the batch's first operation.
    pub first_seqno: Seqno,
    /// Where the operations of each range lie in it.
    pub route: Arc<Route>,
    /// Which of the route's parts is this range's.
    pub part: usize,
    /// This range's share of the commit.
    pub guard: CommitGuard,
}

impl Apply {
    /// What this range gets of the batch.
    pub fn part(&self) -> &Part {
        &self.route.parts()[self.part]
    }
}

/// Is a batch too much for a turn on a caller's thread?
pub fn is_heavy(payload_bytes: usize, operations: u32) -> bool {
    payload_bytes > EXECUTOR_BATCH_BYTES_MAX || operations as usize > EXECUTOR_OPERATIONS_MAX
}

/// Whom a range owner asks for room: the version manager. Called on callers' threads; does not
/// wait.
pub trait Requests: Debug + Send + Sync {
    /// Asks for a fresh active memtable in place of `memtable`; false if there is no room for the
    /// request.
    fn seal(&self, range: RangeId, memtable: u64) -> bool;
    /// Somebody has begun to wait for the account of a range.
    fn somebody_waits(&self);
}
