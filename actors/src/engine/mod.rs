//! The running engine, as the facade sees it: where to write, what to read, how to stop.
//!
//! Supervision is fail-stop. An actor that broke its rules is not restarted on state that may be
//! broken: the engine stops, and the next open recovers.

mod close;
mod counters;
mod listener;
mod open;
mod opening;
mod pins;
mod read_only;
mod registry;
mod start;
mod topology;

use crate::admission::Accounts;
use crate::bulk_worker::message::{BulkMessage, Content};
use crate::checkpointer::message::CheckpointOrder;
use crate::compaction_planner::message::{Assignment, PlannerMessage};
use crate::compaction_worker::Pace;
use crate::config::EngineConfig;
use crate::failure::damage::Damage;
use crate::failure::{Failure, Failures, WriteFailure};
use crate::log_writer::{Log, SyncRequest};
use crate::progress::{Progress, ProgressWatch};
use crate::range_owner::{Memory, Superversion, Topology};
use crate::runtime::pool::Pool;
use crate::runtime::{Environment, Runtime, Turns};
use crate::version_manager::Files;
use crate::version_manager::message::{Change, Changed, VersionMessage};
use crate::write::WritePath;
use close::{Closer, DirectoryLock};
pub use counters::Counters;
use futures::future::{Either, select};
pub use pins::Pin;
pub use read_only::{Kept, ReadOnlyEngine};
use sluicedb_kernel::mailbox::Mailbox;
use sluicedb_kernel::watch::Watch;
use sluicedb_storage::Error;
use sluicedb_storage::Result as StorageResult;
use sluicedb_storage::checkpoint::{Counts as CheckpointCounts, Mode};
use sluicedb_storage::compact::ManualCompaction;
use sluicedb_storage::key::{Seqno, Span};
use sluicedb_storage::keyspace::{KeyspaceId, KeyspaceSpan, no_keyspace};
use sluicedb_storage::points::{Holder, ReadPoint};
use sluicedb_storage::recover::RecoveryReport;
use sluicedb_storage::table::ReadTier;
use sluicedb_storage::version::{KeyspaceOptions, TableCache};
use sluicedb_storage::vfs::Vfs;
use sluicedb_storage::view::{self, ReadAt, View, Want};
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
pub use topology::MailboxInfo;

/// The parts of an engine, without its threads: everything that is needed to end it.
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
    /// Into the compaction workers, one for each.
    pub(crate) compaction_jobs: Vec<Mailbox<Assignment>>,
    pub(crate) compaction_pace: Arc<Pace>,
}

impl Parts {
    /// See [`Engine::flush`].
    async fn flush(&self) -> Result<(), Failure> {
        self.failures.check()?;
        let flushed = self.failures.ask(&self.versions, |reply| VersionMessage::Flush { reply });
        // A stopped engine flushes nothing more, and nobody would answer.
        let (flushed, down) = (pin!(flushed), pin!(self.failures.health.until_down()));
        let stamped = match select(flushed, down).await {
            Either::Left((stamped, _)) => stamped?,
            Either::Right(_) => return Err(self.failures.why_stopped()),
        };
        // The syncer gives up the segments that are not needed any more, and syncs the rest.
        self.wal.sync_upto(stamped).await.map_err(|failed| failed.failure)?;
        self.wal.collect().await
    }
}

/// A running engine. Dropping it stops the actors without waiting for them. Acknowledged writes are
/// in the log.
pub struct Engine {
    pub(crate) write_path: WritePath,
    pub(crate) parts: Parts,
    pub(crate) reads: Pool,
    turns: Turns,
    counters: Counters,
    recovery: RecoveryReport,
    /// Dropped last.
    closer: Closer,
}

impl Engine {
    /// Opens the directory, recovers it and starts the actors. A thread of the runtime does the
    /// disk work.
    ///
    /// # Errors
    /// `NoDatabase`, `Exists` and the others of a refused open.
    pub async fn open(
        config: EngineConfig,
        vfs: Arc<dyn Vfs>,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, Failure> {
        open::open(config, vfs, runtime).await
    }

    /// The write path.
    #[inline]
    pub fn write_path(&self) -> &WritePath {
        &self.write_path
    }

    /// What `W` wants to know of `key` in `keyspace`, as of now. Costs one load of the superversion
    /// and one of `visible`. Uses no mailbox.
    ///
    /// # Errors
    /// `WouldBlock` with `ReadTier::Memory` if a cold block is needed; `Corrupt` and `Io`;
    /// `Invalid` if there is no such keyspace.
    #[inline]
    pub fn look_up<W: Want>(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        tier: ReadTier,
    ) -> StorageResult<W::Answer> {
        let superversion = self.parts.topology.superversion.load();
        let range = superversion.route(keyspace, key).ok_or_else(no_keyspace)?;
        view::look_up::<W, _, _>(range, superversion.born, key, &self.now(), tier)
            .inspect_err(|error| self.parts.failures.damage.note_read(error))
    }

    /// The read point of a lookup. It is asked for after the superversion was loaded, so whatever
    /// became visible since is newer than the lookup.
    #[inline]
    fn now(&self) -> ReadAt<impl Fn() -> Seqno> {
        ReadAt::Newest(|| self.visible())
    }

    /// Pins this instant: a superversion, and the last sequence number to read in it.
    #[inline]
    pub fn view(&self, holder: Holder) -> View {
        let (superversion, point) = self.pin(holder);
        View::at(superversion, point)
    }

    #[inline]
    fn pin(&self, holder: Holder) -> (Arc<view::Superversion<()>>, ReadPoint) {
        loop {
            // Borrowed: to count one more holder is a store that all readers would share.
            let before = self.parts.topology.superversion.load();
            let visible = || self.visible().max(before.born);
            let point = self.parts.memory.points.hold(holder, before.number, visible);
            let after = self.parts.topology.superversion.load();
            // If it is unchanged, every entry up to the point was applied to a memtable of
            // `before`, or is in one of its tables (published-before-used). If it has changed, a
            // newer memtable may hold some of them. Swaps are rare, so the next round succeeds.
            if Arc::ptr_eq(&before, &after) {
                return (Arc::clone(before.without_owners()), point);
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

    /// The health: which party cannot work, and why the engine has stopped, if it has.
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

    /// The memory of memtables.
    pub fn memory(&self) -> &Memory {
        &self.parts.memory
    }

    /// The open tables and their cached blocks.
    pub fn tables(&self) -> &TableCache {
        &self.parts.files.tables
    }

    /// The time of day, in milliseconds since 1970.
    pub fn unix_ms(&self) -> u64 {
        self.parts.environment.unix_ms()
    }

    /// The configuration, with all derived values.
    pub fn config(&self) -> &EngineConfig {
        &self.parts.environment.config
    }

    /// The current superversion.
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

    /// Size of the largest encoded batch.
    pub fn batch_bytes_max(&self) -> usize {
        self.config().batch_bytes_max
    }

    /// When this returns, everything that was visible at the call is in published tables and
    /// durable. No recovery applies an entry of it, or reads a segment that was closed before the
    /// call. Those segments are deleted, or kept aside for recycling.
    ///
    /// # Errors
    /// When flushing fails, or the engine has stopped.
    pub async fn flush(&self) -> Result<(), Failure> {
        self.parts.flush().await
    }

    /// When this returns, everything that was visible at the call is synced.
    ///
    /// # Errors
    /// When the log cannot be synced, or the engine has stopped.
    pub async fn sync(&self) -> Result<(), Failure> {
        let wal = &self.parts.wal;
        let mut synced = pin!(wal.sync());
        let poll = |context: &mut Context<'_>| synced.as_mut().poll(context);
        let now = || self.parts.environment.now();
        wal.polling.along(|| wal.durable.awaited(), now, poll).await
    }

    /// A request to sync the log later. It does not keep the engine alive.
    pub fn sync_request(&self) -> SyncRequest {
        self.parts.wal.sync_request()
    }

    /// Flushes, then merges what is ordered. If the flush fails, the tables are merged anyway: the
    /// flush may lack what merging frees, such as room in L0 or on the disk. `shown` shows the
    /// progress. Once it is dropped, no more is merged.
    ///
    /// # Errors
    /// When a flush or a merge fails, or the engine has stopped.
    pub async fn compact(
        &self,
        order: ManualCompaction,
        shown: &Arc<ProgressWatch>,
    ) -> Result<(), Failure> {
        let flushed = self.flush().await;
        let merged = self.merge(order.clone(), shown).await;
        if flushed.is_err() && merged.is_ok() {
            self.flush().await?;
            return self.merge(order, shown).await;
        }
        flushed.and(merged)
    }

    async fn merge(
        &self,
        order: ManualCompaction,
        shown: &Arc<ProgressWatch>,
    ) -> Result<(), Failure> {
        let Parts { failures, planner, .. } = &self.parts;
        failures.check()?;
        // Clears the progress of an earlier attempt.
        shown.set(Progress::default());
        let shown = Arc::downgrade(shown);
        failures.ask(planner, |reply| PlannerMessage::Compact { order, shown, reply }).await
    }

    /// Makes a checkpoint in `dir` of what is visible now, or a little later. Returns the last
    /// number in it. Only the caller waits for it.
    ///
    /// # Errors
    /// Why no checkpoint was made. The engine goes on as before, unless it has stopped.
    ///
    /// # Cancellation
    /// If it is dropped, the checkpoint is cancelled and leaves nothing, unless it is about to be
    /// published.
    pub async fn checkpoint(
        &self,
        dir: PathBuf,
        mode: Mode,
        shown: &Arc<ProgressWatch>,
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

    /// Stops admission, flushes, marks the database as cleanly closed, and ends the actors. A
    /// thread of its own does the work, so a dropped future does not stop it. A second call joins
    /// it.
    ///
    /// # Errors
    /// The first failure on the way.
    pub async fn close(&self) -> Result<(), Failure> {
        self.closer.close(self).await
    }

    /// Replaces what is in `spans` by `content`, in one change for all spans: readers see all of it
    /// or nothing. Entries of tables outside the spans are newer than everything there. Returns the
    /// change's number, and how many entries it brought.
    ///
    /// # Errors
    /// As [`change`](Self::change); `Invalid` for spans or tables that overlap; the errors of
    /// reading `content`.
    ///
    /// # Cancellation
    /// If it is dropped before the tables are written, nothing happens. Afterwards it happens all
    /// the same.
    pub async fn replace(
        &self,
        mut spans: Vec<KeyspaceSpan>,
        content: Content,
    ) -> Result<(Seqno, u64), WriteFailure> {
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
            let what = Error::invalid("two of the spans overlap; give each key once");
            return Err(WriteFailure::not_applied(Failure::storage(what)));
        }
        Span::check_size(spans.iter().map(|one| &one.span))
            .map_err(|what| WriteFailure::not_applied(Failure::storage(Error::invalid(what))))?;
        let Parts { failures, bulk, .. } = &self.parts;
        failures.check().map_err(WriteFailure::not_applied)?;
        let shown = Watch::new(0);
        let seqno = failures.ask(bulk, |reply| {
            let shown = shown.clone();
            BulkMessage::Replace { spans, content, shown, reply }
        });
        let seqno = seqno.await?.expect("it is never nothing");
        Ok((seqno, shown.get()))
    }

    /// Returns the keyspace of this name, and creates it if there is none. Sets these options, if
    /// any are given.
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
    ) -> Result<KeyspaceId, WriteFailure> {
        loop {
            let superversion = self.superversion();
            let (keyspaces, born) = (Arc::clone(&superversion.keyspaces), superversion.born);
            drop(superversion);
            let has = |id| options.as_ref().is_none_or(|options| options == keyspaces.options(id));
            if let Some(id) = keyspaces.find(name).filter(|id| has(*id)) {
                // Another caller may have created it just now.
                self.parts.wal.sync_upto(born).await?;
                return Ok(id);
            }
            let options = options.clone();
            self.change(Change::SetKeyspace { name: name.into(), options }).await?;
        }
    }

    /// Changes contents or routes, in the order of writes. Returns the change's number when it is
    /// durable, and `None` if there was nothing to do. Writers do not wait for it. Readers see all
    /// of it or nothing.
    ///
    /// # Errors
    /// Why it could not be prepared or stamped: then it has not happened. Why the log could not be
    /// synced: without space it is in force, and durable once there is space; otherwise the engine
    /// has failed, and the next open tells whether it has happened. The outcome says which.
    ///
    /// # Cancellation
    /// If it is dropped, the change happens all the same.
    pub async fn change(&self, change: Change) -> Changed {
        let Parts { failures, versions, .. } = &self.parts;
        failures.check().map_err(WriteFailure::not_applied)?;
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
