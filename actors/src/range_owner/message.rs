//! What a range owner is told: entries to apply, in log order.

use crate::config::{EXECUTOR_BATCH_BYTES_MAX, EXECUTOR_OPERATIONS_MAX};
use crate::kernel::commit::Ticket;
use bytes::Bytes;
use sluicedb_storage::key::Seqno;

/// Entries of one batch, already in the log (INVARIANT(log-before-apply)).
#[derive(Debug)]
pub struct Apply {
    /// The encoded batch. Of a batch over several ranges, each owner gets the whole and applies what
    /// lies in its span.
    pub payload: Bytes,
    /// Sequence number of the batch's first operation.
    pub first_seqno: Seqno,
    /// How many operations the batch has.
    pub operations: u32,
    /// What these entries were charged for at the gate.
    pub charge_bytes: usize,
    /// Does the batch touch other ranges too?
    pub shared_batch: bool,
    /// This range's share of the commit.
    pub ticket: Ticket,
}

/// Is a batch too much for a turn on a caller's thread?
pub fn is_heavy(payload_bytes: usize, operations: u32) -> bool {
    payload_bytes > EXECUTOR_BATCH_BYTES_MAX || operations as usize > EXECUTOR_OPERATIONS_MAX
}
