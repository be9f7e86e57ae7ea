//! The version manager: every change of what readers see goes through here, one at a time.
//!
//! Owns:      the manifest, the current superversion, file numbers, the deletion of tables.
//! Receives:  Install (flush worker, compaction workers), Seal (range owners), Relieve (the gate),
//!            LogGrown (the log's keeper), KeepNumbers (the checkpointer), Flush, FlushFailed,
//!            Change, DeleteObsolete, Close.
//! Sends:     nothing; wakes the flush worker, the compaction planner and the range planner, and
//!            runs range owners' seats as their caller.
//! Publishes: `Superversion`, the log floor, the tables that are obsolete and held.
//! Stops:     after Close, or when its mailbox is closed and empty.

mod change;
mod entries;
mod files;
mod install;
mod manifest;
mod memory_pressure;
pub mod message;
mod obsolete;
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
use crate::failure::space::ReserveWatch;
use crate::log_writer::Log;
use crate::range_owner::{Owners, Topology};
use crate::runtime::Environment;
pub(crate) use change::flushed_together;
use change::{Outcomes, Stamped, Wanted};
pub use files::{FileNumbers, Files};
use message::VersionMessage;
pub use obsolete::{ObsoleteTable, ObsoleteTables};
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

/// What a new superversion may bring to do.
#[derive(Debug, Default)]
pub struct TablesDue {
    /// A memtable was frozen, or a version changed and L0 may have room again. The flush worker
    /// waits for it.
    pub flush: Signal,
    /// A version changed: the compaction planner may have work, and waits for it.
    pub compaction: Signal,
    /// The version manager has done something: the range planner may have work, and waits for it.
    pub ranges: Signal,
}

/// The actor. Driven by a thread of its own: it syncs the manifest.
#[derive(Debug)]
pub struct VersionManager {
    environment: Arc<Environment>,
    failures: Arc<Failures>,
    accounts: Arc<Accounts>,
    topology: Arc<Topology>,
    /// For new ranges, and memory for new memtables.
    owners: Owners,
    wal: Arc<Log>,
    files: Arc<Files>,
    due: Arc<TablesDue>,
    counts: Arc<VersionCounts>,
    inbox: Inbox<VersionMessage>,
    manifest: ManifestWriter,
    waiters: FlushWaiters,
    /// Ranges whose last flush failed, or that cannot be flushed.
    failing: BTreeSet<RangeId>,
    /// Writers wait for room in the engine, and none of what holds it can be flushed: is that
    /// shown?
    hopeless: bool,
    /// Bytes of all tables.
    table_bytes: u64,
    reserve: ReserveWatch,
    seal_policy: SealPolicy,
    next_memtable_id: u64,
    next_range_id: u32,
    /// Changes that wait for their turn.
    changes: VecDeque<Wanted>,
    /// Those that have had it, oldest first.
    stamped: VecDeque<Stamped>,
    outcomes: Outcomes,
}

impl VersionManager {
    /// The manager of what `owners.topology` shows, in `files` and `manifest`. Wakes those who wait
    /// for `due`.
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

    /// What it counts.
    pub fn counts(&self) -> Arc<VersionCounts> {
        Arc::clone(&self.counts)
    }
}
