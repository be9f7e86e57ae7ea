//! What the log writer is told: batches to commit, admitted and routed.

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

/// One touched range: a reserved place in its mailbox and what its entries take of its account. The
/// place is reserved at the gate, so handing on what is already in the log cannot block or fail.
#[derive(Debug)]
pub struct Target {
    /// The range's owner.
    pub owner: Arc<RangeOwner>,
    /// The place in its mailbox.
    pub permit: Permit<Apply>,
    /// What it takes of the range's account.
    pub local: SemaphorePermit,
}

/// An admitted batch.
#[derive(Debug)]
pub struct Commit {
    /// The encoded operations.
    pub payload: Bytes,
    /// Their checksum, computed by the caller outside the seat; `None` for a heavy batch, which an
    /// engine thread handles.
    pub payload_crc: Option<u32>,
    /// How many they are.
    pub operations: u32,
    /// When to answer.
    pub durability: Durability,
    /// The routes by which it was admitted.
    pub epoch: u64,
    /// Which ranges they touch, and which of them each.
    pub route: Arc<Route>,
    /// Those ranges, in the order of the route's parts.
    pub targets: Vec<Target>,
    /// The sum of the charges, in the global account.
    pub global: SemaphorePermit,
    /// The reserved place in the sequencer.
    pub slot: Slot,
    /// Where its number is told when it has one, if that is wanted before the acknowledgement.
    pub stamped: Option<Reply<Seqno>>,
    /// The way back. `Ok` means stamped and in the log; who asked for more than that waits for it.
    pub reply: Reply<Committed>,
}
