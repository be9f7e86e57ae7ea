//! The write path, from an encoded batch to its acknowledgement: admit, commit, apply, wait.
//!
//! An uncontended write is done by its caller, on its caller's thread, without queueing and without
//! an allocation: admission is two compare-and-swaps, the log writer's turn a memory copy, the
//! range owner's turn an insertion. Under contention the write is sent instead, and whoever holds
//! the seat runs it.
//!
//! INVARIANT(admission-before-log): nothing is stamped before both accounts, the sequencer and the
//! mailboxes of the touched ranges have granted their room.

mod inline;
mod pending;
mod queued;
#[cfg(test)]
mod tests;
mod waiting;

pub use pending::{Pending, Submitted};

use self::inline::Seats;
use crate::admission::Accounts;
use crate::admission::gate::{Gate, Overloaded};
use crate::failure::{Failure, Failures, Scope, WriteFailure};
use crate::log_writer::message::{Committed, Durability};
use crate::log_writer::{Log, LogDue};
use crate::range_owner::message::is_heavy;
use crate::range_owner::route::{NoKeyspace, Reach, Route};
use crate::range_owner::{Superversion, Topology};
use crate::runtime::Environment;
use crate::runtime::pool::Pool;
use crate::version_manager::message::VersionMessage;
use bytes::Bytes;
use sluicedb_kernel::mailbox::Mailbox;
use sluicedb_kernel::semaphore::Refused;
use sluicedb_kernel::sequencer::Sequencer;
use sluicedb_storage::batch::{PointOperations, memory_bytes};
use sluicedb_storage::codec;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::Context;
use std::time::Instant;

/// How long to wait for room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitLimit {
    /// As long as it takes.
    #[default]
    Forever,
    /// Until then.
    Until(Instant),
    /// Not at all.
    Never,
}

/// An encoded batch that is not in the log yet.
#[derive(Clone, Debug)]
pub struct Write {
    payload: Bytes,
    payload_crc: u32,
    operations: u32,
    durability: Durability,
    /// Must its number be told before the acknowledgement, when that waits for the disk?
    in_stages: bool,
    /// `None` for a heavy batch whose ranges no engine thread has found yet.
    route: Option<Routed>,
}

impl Write {
    fn rejected(self, failure: WriteFailure) -> Rejected {
        Rejected { failure, payload: Some(self.payload) }
    }
}

/// A write that was refused.
#[derive(Debug)]
pub struct Rejected {
    /// Why. If the log's turn panicked, nobody knows whether the log holds the write.
    pub failure: WriteFailure,
    /// The encoded bytes, if the caller had given them away.
    pub payload: Option<Bytes>,
}

/// The ranges that a batch touches, and the epoch of the routes that say so.
#[derive(Clone, Debug)]
struct Routed {
    epoch: u64,
    route: Arc<Route>,
}

impl Routed {
    fn of(
        superversion: &Superversion,
        payload: &[u8],
        operations: u32,
    ) -> Result<Self, WriteFailure> {
        let route = Arc::new(Route::of(superversion, payload, operations)?);
        Ok(Self { epoch: superversion.epoch, route })
    }
}

impl From<NoKeyspace> for WriteFailure {
    #[cold]
    fn from(gone: NoKeyspace) -> Self {
        Self::not_applied(Failure::from(gone))
    }
}

/// The bytes of a batch. They are copied only if they must outlive the call.
enum Payload<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

impl Payload<'_> {
    fn into_bytes(self) -> Bytes {
        match self {
            Self::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Self::Owned(bytes) => bytes,
        }
    }

    #[cold]
    fn rejected(self, failure: impl Into<WriteFailure>) -> Rejected {
        let payload = match self {
            Self::Borrowed(_) => None,
            Self::Owned(bytes) => Some(bytes),
        };
        Rejected { failure: failure.into(), payload }
    }
}

impl AsRef<[u8]> for Payload<'_> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// The write path. There is one per engine. The fields that an uncontended write needs are stored
/// side by side.
#[derive(Debug)]
pub struct WritePath {
    topology: Arc<Topology>,
    wal: Arc<Log>,
    commits: Sequencer,
    gate: Gate,
    failures: Arc<Failures>,
    log_due: Arc<LogDue>,
    accounts: Arc<Accounts>,
    environment: Arc<Environment>,
    versions: Mailbox<VersionMessage>,
    reads: Pool,
}

impl WritePath {
    /// A write path into `wal`, by the routes of `topology`. It asks the version manager for room,
    /// and has heavy batches routed by the threads of `reads`.
    pub fn new(
        environment: Arc<Environment>,
        accounts: Arc<Accounts>,
        topology: Arc<Topology>,
        wal: Arc<Log>,
        versions: Mailbox<VersionMessage>,
        reads: Pool,
    ) -> Self {
        Self {
            commits: topology.commits.clone(),
            gate: Gate::new(accounts.global.clone()),
            failures: Arc::clone(&topology.failures),
            log_due: Arc::clone(&wal.due),
            topology,
            wal,
            accounts,
            environment,
            versions,
            reads,
        }
    }

    /// Commits one or few encoded operations on the caller's thread if nothing is in the way.
    ///
    /// # Errors
    /// When the engine has stopped, or the log has no room on a full disk. Nothing has happened
    /// then.
    #[inline]
    pub fn submit(
        &self,
        payload: &[u8],
        operations: u32,
        durability: Durability,
    ) -> Result<Submitted, WriteFailure> {
        let submitted =
            self.submit_payload(Payload::Borrowed(payload), operations, durability, false);
        submitted.map_err(|rejected| rejected.failure)
    }

    /// As `submit`, for owned bytes, which are kept without a copy.
    ///
    /// # Errors
    /// As `submit`, with the bytes.
    pub fn submit_owned(
        &self,
        payload: Bytes,
        operations: u32,
        durability: Durability,
    ) -> Result<Submitted, Rejected> {
        self.submit_payload(Payload::Owned(payload), operations, durability, false)
    }

    /// As `submit_owned`, for a caller who wants to learn when the write is visible even if the
    /// acknowledgement comes later. Costs an allocation if the write is queued.
    ///
    /// # Errors
    /// As `submit_owned`.
    pub fn submit_in_stages(
        &self,
        payload: Bytes,
        operations: u32,
        durability: Durability,
    ) -> Result<Submitted, Rejected> {
        self.submit_payload(
            Payload::Owned(payload),
            operations,
            durability,
            durability == Durability::Synced,
        )
    }

    fn submit_payload(
        &self,
        payload: Payload<'_>,
        operations: u32,
        durability: Durability,
        in_stages: bool,
    ) -> Result<Submitted, Rejected> {
        let bytes = payload.as_ref();
        if let Some(failure) = self.why_not_running(bytes, operations) {
            return Err(payload.rejected(failure));
        }
        if is_heavy(bytes.len(), operations) {
            return self.submit_heavy(payload, operations, durability, in_stages);
        }
        let mut crc = None;
        loop {
            let superversion = self.topology.superversion.load();
            // The insert would wait for this memory under the seat, and others would wait for the
            // insert.
            if let Some(first) = PointOperations::new(bytes).next()
                && let Some(range) = superversion.route(first.keyspace, first.key)
            {
                range.active.prefetch(first.key);
            }
            // The checksum is computed while that memory is being fetched.
            let crc = *crc.get_or_insert_with(|| codec::crc(bytes));
            let epoch = superversion.epoch;
            let reach = match Reach::of(&superversion, bytes) {
                Ok(reach) => reach,
                Err(gone) => return Err(payload.rejected(gone)),
            };
            let write = |payload: Payload<'_>, route| {
                let (payload, route) = (payload.into_bytes(), Some(Routed { epoch, route }));
                Write { payload, payload_crc: crc, operations, durability, in_stages, route }
            };
            if let Reach::One(range) = reach {
                let owner = &superversion.ranges[range].owner;
                let charge = memory_bytes(bytes.len(), operations);
                let local = owner.budget.local_charge(charge);
                let admission = match self.gate.try_admit_to_one(&owner.local, local, charge) {
                    Ok(admission) => admission,
                    Err(refused) if self.is_gone(refused, epoch) => continue,
                    Err(refused) => {
                        let route = Arc::new(Route::whole(range, bytes.len(), operations));
                        return self.refused(&superversion, write(payload, route), refused);
                    }
                };
                match self.try_seats((epoch, owner), bytes, crc, operations, durability, charge) {
                    Seats::Done(stamp) => {
                        // The memtable holds the charge now.
                        admission.forget();
                        return Ok(self.submitted(stamp));
                    }
                    Seats::Refused(failure) => {
                        return Err(payload.rejected(WriteFailure::not_applied(failure)));
                    }
                    Seats::Lost => {
                        let why = self.failures.why_stopped();
                        return Err(payload.rejected(WriteFailure::unknown(why)));
                    }
                    Seats::Stale => continue,
                    Seats::Busy => {}
                }
            }
            let route = match Route::from_reach(&superversion, bytes, operations, reach) {
                Ok(route) => Arc::new(route),
                Err(gone) => return Err(payload.rejected(gone)),
            };
            return self.try_send(&superversion, write(payload, route));
        }
    }

    /// Resolves to the acknowledgement of a write that was admitted with this durability.
    ///
    /// # Cancellation
    /// The write completes.
    pub async fn acknowledged(
        &self,
        mut submitted: Submitted,
        durability: Durability,
    ) -> Committed {
        let poll = |context: &mut Context<'_>| submitted.poll(context);
        if durability != Durability::Synced {
            // What it waits for is no sync, so it does not poll.
            return poll_fn(poll).await;
        }
        let awaited = || self.wal.durable.awaited();
        self.wal.polling.along(awaited, || self.environment.now(), poll).await
    }

    /// Sends a batch that is too heavy for this thread. The engine thread that handles it computes
    /// the checksum, and the route if there are several ranges.
    #[cold]
    fn submit_heavy(
        &self,
        payload: Payload<'_>,
        operations: u32,
        durability: Durability,
        in_stages: bool,
    ) -> Result<Submitted, Rejected> {
        let superversion = self.topology.superversion.load();
        let payload = payload.into_bytes();
        let route = superversion.is_one().then(|| {
            let route = Arc::new(Route::whole(0, payload.len(), operations));
            Routed { epoch: superversion.epoch, route }
        });
        let write = Write { payload, payload_crc: 0, operations, durability, in_stages, route };
        self.try_send(&superversion, write)
    }

    /// Was a write by the routes of `epoch` refused because its range is gone? Routes change before
    /// the old range is closed, so newer routes then name another range for the keys. Under
    /// unchanged routes the write would be refused again.
    #[cold]
    fn is_gone(&self, refused: Overloaded, epoch: u64) -> bool {
        let closed = refused.scope == Scope::Local && refused.why == Refused::Closed;
        if !closed {
            return false;
        }
        // `is_closed` is read without an order. The fence makes the routes visible that were
        // published before the account was closed.
        fence(Ordering::Acquire);
        self.topology.superversion.load().epoch != epoch
    }

    #[inline]
    fn why_not_running(&self, payload: &[u8], operations: u32) -> Option<WriteFailure> {
        if self.failures.health.is_running() {
            return None;
        }
        let heavy = is_heavy(payload.len(), operations);
        let why = self.failures.stopped_by().or_else(|| self.failures.refuses(payload, heavy));
        why.map(WriteFailure::not_applied)
    }
}
