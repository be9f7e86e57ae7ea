//! What a range owner receives: entries to apply, in log order. What it asks for: room.

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
    /// Where each range's operations are in the payload.
    pub route: Arc<Route>,
    /// The position of this range's part in the route.
    pub part: usize,
    /// This range's share of the commit.
    pub guard: CommitGuard,
}

impl Apply {
    /// This range's part of the batch.
    pub fn part(&self) -> &Part {
        &self.route.parts()[self.part]
    }
}

/// Is a batch too heavy for a turn on a caller's thread?
pub fn is_heavy(payload_bytes: usize, operations: u32) -> bool {
    payload_bytes > EXECUTOR_BATCH_BYTES_MAX || operations as usize > EXECUTOR_OPERATIONS_MAX
}

/// Asks the version manager for room. Called on callers' threads, so it does not wait.
pub trait Requests: Debug + Send + Sync {
    /// Asks for a fresh active memtable in place of `memtable`. Returns false if the request could
    /// not be sent because there is no room for it.
    fn seal(&self, range: RangeId, memtable: u64) -> bool;
    /// Somebody has begun to wait for a range's account.
    fn somebody_waits(&self);
}
