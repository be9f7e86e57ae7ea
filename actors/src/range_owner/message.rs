//! What a range owner is told: entries to apply, in log order.

use crate::config::{EXECUTOR_BATCH_BYTES_MAX, EXECUTOR_OPERATIONS_MAX};
use crate::kernel::commit::Ticket;
use crate::range_owner::route::{Part, Route};
use bytes::Bytes;
use sluicedb_storage::key::Seqno;
use std::sync::Arc;

/// Entries of one batch, already in the log (INVARIANT(log-before-apply)).
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
    pub ticket: Ticket,
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
