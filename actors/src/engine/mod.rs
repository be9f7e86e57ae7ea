//! The running engine as the facade sees it: where to write, what to read, how to stop.
//!
//! Supervision is fail-stop: an actor that broke its rules is not restarted on state that may be
//! broken; the engine stops and the next open recovers.

mod close;
mod counters;
mod listener;
mod open;
mod pins;
mod read_only;
mod registry;
mod start;
mod topology;

use crate::admission::Accounts;
use crate::bulk_worker::message::{BulkMessage, Content};
use crate::checkpointer::message::{CheckpointOrder, CopyWatch};
use crate::compaction_planner::message::{Assignment, PlannerMessage, Progress, ProgressWatch};
use crate::compaction_worker::Pace;
use crate::config::EngineConfig;
use crate::failure::damage::Damage;
use crate::failure::{Failure, Failures};
use crate::log_writer::{Log, SyncRequest};
use crate::range_owner::{Memory, Superversion, Topology};
use crate::runtime::pool::Pool;
use crate::runtime::{Environment, Runtime, Turns};
use crate::version_manager::Files;
use crate::version_manager::message::{Change, VersionMessage};
use crate::write::WritePath;
use bytes::Bytes;
use close::{Closer, DirectoryLock};
pub use counters::Counters;
use futures::future::{Either, select};
pub use pins::Pin;
pub use read_only::ReadOnlyEngine;
use sluicedb_kernel::mailbox::Mailbox;
use sluicedb_kernel::watch::Watch;
use sluicedb_storage::Error;
use sluicedb_storage::Result as StorageResult;
use sluicedb_storage::checkpoint::{Counts as CheckpointCounts, Mode};
use sluicedb_storage::compact::Order;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::keyspace::{KeyspaceId, KeyspaceSpan, no_keyspace};
use sluicedb_storage::points::{Holder, ReadPoint};
use sluicedb_storage::recover::RecoveryReport;
use sluicedb_storage::table::ReadTier;
use sluicedb_storage::version::{KeyspaceOptions, TableCache};
use sluicedb_storage::vfs::Vfs;
use sluicedb_storage::view::{self, ReadAt, View};
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
pub use topology::MailboxInfo;

/// Why a database was not opened.
#[derive(Debug)]
pub enum OpenFailure {
    /// There is none, and creating one was not asked for.
    NoDatabase(PathBuf),
    /// There is one, and a new one was asked for.
    Exists(PathBuf),
    /// Anything else.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for OpenFailure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// What an engine consists of, but for its threads: what it needs to end.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) environment: Arc<Environment>,
    pub(crate) failures: Arc<Failures>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) topology: Arc<Topology>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) wal: Arc<Log>,
    pub(crate) files: Arc<Files>,
    pub(crate) directory: Arc<DirectoryLock>,
    pub(crate) versions: Mailbox<VersionMessage>,
    pub(crate) planner: Mailbox<PlannerMessage>,
    pub(crate) bulk: Mailbox<BulkMessage>,
    pub(crate) checkpoints: Mailbox<CheckpointOrder>,
    /// Into the compaction workers, one each.
    pub(crate) compaction_jobs: Vec<Mailbox<Assignment>>,
    pub(crate) compaction_pace: Arc<Pace>,
}

impl Parts {
    /// See [`Engine::flush`].
    async fn flush(&self) -> Result<(), Failure> {
        self.failures.check()?;
        let flushed = self.failures.ask(&self.versions, |reply| VersionMessage::Flush { reply });
        // An engine that has stopped flushes nothing more, and nobody would answer.
        let (flushed, down) = (pin!(flushed), pin!(self.failures.health.until_down()));
        let stamped = match select(flushed, down).await {
            Either::Left((stamped, _)) => stamped?,
            Either::Right(_) => return Err(self.failures.why_stopped()),
        };
        // A segment is taken out of the log only when it is synced: a later one may say so of it.
        self.wal.sync_upto(stamped).await?;
        self.wal.collect().await
    }
}

/// A running engine. Dropping it stops the actors without waiting for them; what was acknowledged
/// is in the log.
pub struct Engine {
    pub(crate) write_path: WritePath,
    pub(crate) parts: Parts,
    pub(crate) reads: Pool,
    turns: Turns,
    counters: Counters,
    recovery: RecoveryReport,
    /// The last to be dropped.
    closer: Closer,
}

impl Engine {
    /// Opens the directory, recovers it and starts the actors. The disk work happens on a thread of
    /// the runtime.
    ///
    /// # Errors
    /// See `OpenFailure`.
    pub async fn open(
        config: EngineConfig,
        vfs: Arc<dyn Vfs>,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, OpenFailure> {
        open::open(config, vfs, runtime).await
    }

    /// The way in for writes.
    #[inline]
    pub fn write_path(&self) -> &WritePath {
        &self.write_path
    }

    /// The newest visible value of `key` of `keyspace`. One load of the superversion, one of
    /// `visible`, no mailbox.
    ///
    /// # Errors
    /// `WouldBlock` with `ReadTier::Memory` when a cold block is needed; `Corrupt` and `Io`;
    /// `Invalid` if there is no such keyspace.
    #[inline]
    pub fn get(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        tier: ReadTier,
    ) -> StorageResult<Option<Bytes>> {
        let superversion = self.parts.topology.superversion.load();
        let range = superversion.route(keyspace, key).ok_or_else(no_keyspace)?;
        view::get(range, superversion.born, key, &self.now(), tier)
            .inspect_err(|error| self.parts.failures.damage.note_read(error))
    }

    /// Has `key` a value? As `get`, without copying it.
    ///
    /// # Errors
    /// As `get`.
    #[inline]
    pub fn contains_key(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        tier: ReadTier,
    ) -> StorageResult<bool> {
        let superversion = self.parts.topology.superversion.load();
        let range = superversion.route(keyspace, key).ok_or_else(no_keyspace)?;
        let found = view::contains_key(range, superversion.born, key, &self.now(), tier);
        found.inspect_err(|error| self.parts.failures.damage.note_read(error))
    }

    /// For a lookup. Asked after the superversion was loaded: what became visible since is newer
    /// than the lookup.
    #[inline]
    fn now(&self) -> ReadAt<impl Fn() -> Seqno> {
        ReadAt::Newest(|| self.visible())
    }

    /// Pins this instant: a superversion and the last sequence number to read in it.
    #[inline]
    pub fn view(&self, holder: Holder) -> View {
        let (superversion, point) = self.pin(holder);
        View::at(Arc::clone(superversion.without_owners()), point)
    }

    #[inline]
    fn pin(&self, holder: Holder) -> (Arc<Superversion>, ReadPoint) {
        loop {
            let before = self.parts.topology.superversion.load_full();
            let visible = || self.visible().max(before.born);
            let point = self.parts.memory.points.hold(holder, before.number, visible);
            let after = self.parts.topology.superversion.load();
            // Unchanged: every entry up to the point was applied to a memtable of `before`, or is
            // in one of its tables (published-before-used). Changed: a newer memtable
            // may hold some of them; a swap is rare, so the next round succeeds.
            if Arc::ptr_eq(&before, &after) {
                return (before, point);
            }
        }
    }

    /// The last sequence number that readers may see.
    #[inline]
    pub fn visible(&self) -> Seqno {
        self.parts.topology.visible()
    }

    /// The last sequence number that survives a power cut.
    pub fn durable_seqno(&self) -> Seqno {
        self.parts.wal.durable.synced()
    }

    /// Threads for cold reads.
    pub fn read_pool(&self) -> Pool {
        self.reads.clone()
    }

    /// Counts since the database was opened.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Who cannot do its work, and why the engine has stopped, if it has.
    pub fn failures(&self) -> &Failures {
        &self.parts.failures
    }

    /// Where reads that outlive this handle report damage.
    pub fn damage(&self) -> Arc<Damage> {
        Arc::clone(&self.parts.failures.damage)
    }

    /// The accounts that writes are charged to, and the pressure on them.
    pub fn accounts(&self) -> &Accounts {
        &self.parts.accounts
    }

    /// Memory of memtables.
    pub fn memory(&self) -> &Memory {
        &self.parts.memory
    }

    /// Which tables are open, and their cached blocks.
    pub fn tables(&self) -> &TableCache {
        &self.parts.files.tables
    }

    /// The time of day, in milliseconds since 1970.
    pub fn unix_ms(&self) -> u64 {
        self.parts.environment.unix_ms()
    }

    /// What it was started with, and what followed from that.
    pub fn config(&self) -> &EngineConfig {
        &self.parts.environment.config
    }

    /// What can be read right now.
    pub fn superversion(&self) -> Arc<Superversion> {
        self.parts.topology.superversion.load_full()
    }

    /// What opening had to do.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.recovery
    }

    /// The database directory.
    pub fn dir(&self) -> &Path {
        self.parts.environment.dir()
    }

    /// Largest encoded batch.
    pub fn batch_bytes_max(&self) -> usize {
        self.config().batch_bytes_max
    }

    /// Everything visible now is in published tables when this returns, for good: no recovery
    /// applies an entry of it, or reads a segment that was closed before the call. Those are
    /// deleted, or kept aside for recycling.
    ///
    /// # Errors
    /// When flushing fails, or the engine has stopped.
    pub async fn flush(&self) -> Result<(), Failure> {
        self.parts.flush().await
    }

    /// Everything visible now is synced when this returns.
    ///
    /// # Errors
    /// When the log cannot be synced, or the engine has stopped.
    pub async fn sync(&self) -> Result<(), Failure> {
        self.parts.wal.sync().await
    }

    /// For who wants the log synced later, and is not to keep the engine.
    pub fn sync_request(&self) -> SyncRequest {
        self.parts.wal.sync_request()
    }

    /// Flushes, then merges what is ordered. If the flush fails what is in tables is merged all the
    /// same: that may be what it wants for, room in L0 or on the disk. Once nobody has `shown` any
    /// more, which shows how far it has come, no more is merged.
    ///
    /// # Errors
    /// When a flush or a merge fails, or the engine has stopped.
    pub async fn compact(&self, order: Order, shown: &Arc<ProgressWatch>) -> Result<(), Failure> {
        let flushed = self.flush().await;
        let merged = self.merge(order.clone(), shown).await;
        if flushed.is_err() && merged.is_ok() {
            self.flush().await?;
            return self.merge(order, shown).await;
        }
        flushed.and(merged)
    }

    async fn merge(&self, order: Order, shown: &Arc<ProgressWatch>) -> Result<(), Failure> {
        let Parts { failures, planner, .. } = &self.parts;
        failures.check()?;
        // Of an earlier attempt.
        shown.set(Progress::default());
        let shown = Arc::downgrade(shown);
        failures.ask(planner, |reply| PlannerMessage::Compact { order, shown, reply }).await
    }

    /// Makes a checkpoint of what is visible now, or a little later, in `dir`; returns up to which
    /// number. Nobody waits for it but the caller.
    ///
    /// # Errors
    /// Why there is none. The engine goes on as before, unless it has stopped.
    ///
    /// # Cancellation
    /// Dropped, it is off and leaves nothing, unless it is about to count.
    pub async fn checkpoint(
        &self,
        dir: PathBuf,
        mode: Mode,
        shown: &Arc<CopyWatch>,
    ) -> Result<(Seqno, CheckpointCounts), Failure> {
        let Parts { failures, checkpoints, .. } = &self.parts;
        failures.check()?;
        let (mut upto, shown) = (Seqno::ZERO, Arc::clone(shown));
        let made = failures.ask(checkpoints, |reply| {
            let view = self.view(Holder::Checkpoint);
            upto = view.upto;
            CheckpointOrder { view, dir, mode, shown, reply }
        });
        let made = made.await?;
        Ok((upto, made))
    }

    /// Stops admission, flushes, marks the database as cleanly closed, ends the actors. The work is
    /// done by a thread of its own, so a dropped future does not stop it; a second call joins it.
    ///
    /// # Errors
    /// The first failure met on the way.
    pub async fn close(&self) -> Result<(), Failure> {
        self.closer.close(self).await
    }

    /// Nothing is left in `spans` but `content`: in one change for all of them, which readers see
    /// wholly or not at all. Outside of the spans what tables have is newer than all that was
    /// there. Returns the change's number and the entries it brought.
    ///
    /// # Errors
    /// As [`change`](Self::change); `Invalid` for spans or tables that overlap; what reading
    /// `content` finds.
    ///
    /// # Cancellation
    /// Before the tables are written nothing happens; afterwards it happens all the same.
    pub async fn replace(
        &self,
        mut spans: Vec<KeyspaceSpan>,
        content: Content,
    ) -> Result<(Seqno, u64), Failure> {
        for KeyspaceSpan { span, .. } in &mut spans {
            *span = span.on_disk();
        }
        spans.retain(|one| !one.span.is_empty());
        spans.sort_by(|a, b| (a.keyspace, &a.span.lo).cmp(&(b.keyspace, &b.span.lo)));
        let meets = |pair: &[KeyspaceSpan]| {
            let [a, b] = pair else { return false };
            a.keyspace == b.keyspace && a.span.hi.as_ref().is_none_or(|hi| *hi > b.span.lo)
        };
        if spans.windows(2).any(meets) {
            return Err(Failure::storage(Error::invalid(
                "two of the spans overlap; give each key once",
            )));
        }
        let Parts { failures, bulk, .. } = &self.parts;
        failures.check()?;
        let shown = Watch::new(0);
        let seqno = failures.ask(bulk, |reply| {
            let shown = shown.clone();
            BulkMessage::Replace { spans, content, shown, reply }
        });
        let seqno = seqno.await?.expect("it is never nothing");
        Ok((seqno, shown.get()))
    }

    /// The keyspace of this name, made if there is none. It gets these options, if any are given.
    ///
    /// # Errors
    /// As [`change`](Self::change).
    ///
    /// # Cancellation
    /// As [`change`](Self::change).
    pub async fn keyspace(
        &self,
        name: &str,
        options: Option<Arc<KeyspaceOptions>>,
    ) -> Result<KeyspaceId, Failure> {
        loop {
            let superversion = self.superversion();
            let (keyspaces, born) = (Arc::clone(&superversion.keyspaces), superversion.born);
            drop(superversion);
            let has = |id| options.as_ref().is_none_or(|options| options == keyspaces.options(id));
            if let Some(id) = keyspaces.find(name).filter(|id| has(*id)) {
                // Somebody else may have made it just now.
                self.parts.wal.sync_upto(born).await?;
                return Ok(id);
            }
            let options = options.clone();
            self.change(Change::SetKeyspace { name: name.into(), options }).await?;
        }
    }

    /// Changes contents or routes, in the order of writes; returns the change's number when it has
    /// happened for good, and none if there was nothing to do. Writers do not wait for it, and
    /// readers see all of it or nothing.
    ///
    /// # Errors
    /// Why it could not be prepared or stamped: it has not happened. Why the log could not be
    /// synced: the engine has failed, and the next open tells whether it has.
    ///
    /// # Cancellation
    /// Dropped, it happens all the same.
    pub async fn change(&self, change: Change) -> Result<Option<Seqno>, Failure> {
        let Parts { failures, versions, .. } = &self.parts;
        failures.check()?;
        failures.ask(versions, |reply| VersionMessage::Change { change, reply }).await
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.closer.abandon(self);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("dir", &self.dir()).finish_non_exhaustive()
    }
}
