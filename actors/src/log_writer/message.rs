//! The log writer's message: a batch to commit, admitted and routed.

use crate::range_owner::RangeOwner;
use crate::range_owner::message::Apply;
use crate::range_owner::route::Route;
use bytes::Bytes;
use sluicedb_kernel::mailbox::Permit;
use sluicedb_kernel::reply::Reply;
use sluicedb_kernel::semaphore::SemaphorePermit;
use sluicedb_kernel::sequencer::Slot;
use sluicedb_storage::key::Seqno;
use std::sync::Arc;

pub use crate::group_commit::durable::{Committed, Durability};

/// One touched range: a reserved place in its mailbox, and the batch's share of its account. The
/// place is reserved at admission, so enqueueing an `Apply` for a batch that is in the log can
/// neither block nor fail.
#[derive(Debug)]
pub struct Target {
    /// The range's owner.
    pub owner: Arc<RangeOwner>,
    /// The place in its mailbox.
    pub permit: Permit<Apply>,
    /// The batch's share of the range's account.
    pub local: SemaphorePermit,
}

/// An admitted batch.
#[derive(Debug)]
pub struct Commit {
    /// The encoded operations.
    pub payload: Bytes,
    /// Their checksum, computed by the caller outside the seat. `None` for a heavy batch: the
    /// engine thread that handles it computes the checksum.
    pub payload_crc: Option<u32>,
    /// How many operations there are.
    pub operations: u32,
    /// When to answer.
    pub durability: Durability,
    /// The epoch of the routes by which it was admitted.
    pub epoch: u64,
    /// Which ranges the batch touches, and which operations belong to each.
    pub route: Arc<Route>,
    /// The touched ranges, in the order of the route's parts.
    pub targets: Vec<Target>,
    /// The batch's share of the engine's account: the sum of its charges.
    pub global: SemaphorePermit,
    /// The reserved place in the sequencer.
    pub slot: Slot,
    /// Told the batch's number once it is stamped. `None` if the acknowledgement is soon enough.
    pub stamped: Option<Reply<Seqno>>,
    /// Told the result. For `Buffered`, `Ok` means stamped and in the log file; otherwise it waits
    /// for the sync.
    pub reply: Reply<Committed>,
}
