//! The version manager: it makes every change of what readers see, one at a time.
//!
//! Owns:      the manifest, the current superversion, file numbers, the deletion of tables.
//! Receives:  Install (flush worker, compaction workers), Seal (range owners), Relieve (admission),
//!            LogGrown (log keeper), KeepNumbers (checkpointer), Flush, FlushFailed, Change,
//!            DeleteObsolete, Close.
//! Sends:     nothing; wakes the flush worker, the compaction planner, the range planner and the
//!            log keeper, and enters range owners' seats.
//! Publishes: `Superversion`, the log floor, the tables that are obsolete and held.
//! Stops:     after Close, or when its mailbox is closed and empty.

mod change;
mod cooldown;
mod entries;
mod files;
mod install;
mod manifest;
mod memory_pressure;
pub mod message;
mod obsolete;
mod outcomes;
pub(crate) mod outputs;
mod requests;
mod run;
mod seal;
mod seal_policy;
mod state;
#[cfg(test)]
mod tests;

use crate::admission::Accounts;
use crate::counter::Counter;
use crate::failure::Failures;
use crate::failure::backoff::Retry;
use crate::failure::space::ReserveWatch;
use crate::log_writer::Log;
use crate::range_owner::{Owners, Topology};
use crate::runtime::Environment;
pub(crate) use change::flushed_together;
use change::{StampedChange, Wanted};
pub use files::{FileNumbers, Files};
pub(crate) use install::GROUP_INSTALLS_MAX;
use message::VersionMessage;
pub use obsolete::{ObsoleteTable, ObsoleteTables};
use outcomes::Outcomes;
pub use requests::ask_for_room;
use seal_policy::SealPolicy;
use sluicedb_kernel::mailbox::Inbox;
use sluicedb_kernel::signal::Signal;
use sluicedb_storage::manifest::ManifestWriter;
use sluicedb_storage::version::RangeId;
use state::FlushWaiters;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Counts since the database was opened.
#[derive(Debug, Default)]
pub struct VersionCounts {
    /// Manifest edits.
    pub edits: Counter,
    /// How often edits were made durable.
    pub manifest_syncs: Counter,
    /// Tables deleted.
    pub tables_deleted: Counter,
    /// Memtables sealed because they were full.
    pub seals_size: Counter,
    /// Memtables sealed because writers waited for room.
    pub seals_pressure: Counter,
    /// Memtables sealed because they pinned too much of the log.
    pub seals_log: Counter,
    /// Memtables sealed because nobody wrote to them and they pinned log or memory.
    pub seals_idle: Counter,
    /// Memtables sealed by callers of `flush`.
    pub seals_flush: Counter,
    /// Memtables flushed.
    pub flushes: Counter,
    /// Bytes of tables written by flushes.
    pub flush_bytes: Counter,
}

/// The signals that a new superversion may set.
#[derive(Debug, Default)]
pub struct TablesDue {
    /// A memtable was frozen, or a version changed and L0 may have room again. Wakes the flush
    /// worker.
    pub flush: Signal,
    /// A version changed. Wakes the compaction planner.
    pub compaction: Signal,
    /// The version manager has handled a message. Wakes the range planner.
    pub ranges: Signal,
}

/// The actor. A thread of its own drives it, because it syncs the manifest.
#[derive(Debug)]
pub struct VersionManager {
    environment: Arc<Environment>,
    failures: Arc<Failures>,
    accounts: Arc<Accounts>,
    topology: Arc<Topology>,
    /// Makes owners for new ranges, and gives memory to new memtables.
    owners: Owners,
    wal: Arc<Log>,
    files: Arc<Files>,
    due: Arc<TablesDue>,
    counts: Arc<VersionCounts>,
    inbox: Inbox<VersionMessage>,
    manifest: ManifestWriter,
    /// Set while the manifest cannot be written.
    manifest_retry: Option<Retry>,
    waiters: FlushWaiters,
    /// Ranges whose last flush failed, or that cannot be flushed.
    failing: BTreeSet<RangeId>,
    /// Is it shown that writers wait for room in the engine, and nothing that holds it can be
    /// flushed?
    hopeless: bool,
    /// Bytes of all tables.
    table_bytes: u64,
    reserve: ReserveWatch,
    seal_policy: SealPolicy,
    next_memtable_id: u64,
    next_range_id: u32,
    /// Changes that wait for their turn.
    changes: VecDeque<Wanted>,
    /// Changes that have had their turn, oldest first.
    stamped: VecDeque<StampedChange>,
    outcomes: Outcomes,
}

impl VersionManager {
    /// A manager of what `owners.topology` shows, with `files` and `manifest`. It sets the signals
    /// of `due`.
    pub fn new(
        owners: Owners,
        wal: Arc<Log>,
        files: Arc<Files>,
        due: Arc<TablesDue>,
        inbox: Inbox<VersionMessage>,
        manifest: ManifestWriter,
        next_memtable_id: u64,
    ) -> Self {
        let ids = manifest.image().ranges.keys();
        let next_range_id = ids.last().map_or(RangeId::FIRST.0, |last| last.0 + 1);
        Self {
            environment: Arc::clone(&owners.environment),
            failures: Arc::clone(&owners.topology.failures),
            accounts: Arc::clone(&owners.accounts),
            topology: Arc::clone(&owners.topology),
            owners,
            wal,
            files,
            due,
            counts: Arc::default(),
            inbox,
            manifest,
            manifest_retry: None,
            waiters: FlushWaiters::default(),
            failing: BTreeSet::new(),
            hopeless: false,
            table_bytes: 0,
            reserve: ReserveWatch::default(),
            seal_policy: SealPolicy::default(),
            next_memtable_id,
            next_range_id,
            changes: VecDeque::new(),
            stamped: VecDeque::new(),
            outcomes: Outcomes::default(),
        }
    }

    /// Its counters.
    pub fn counts(&self) -> Arc<VersionCounts> {
        Arc::clone(&self.counts)
    }
}
