//! The database handle.

use crate::Builder;
use crate::compaction::Compaction;
use crate::error::Result;
use crate::health::Health;
use crate::keyspaces::next_database;
use crate::levels::LevelInfo;
use crate::options::{Durability, Options};
use crate::pins::Pin;
use crate::pressure::{Pressure, PressureWatch};
use crate::reader::Cold;
use crate::stats::Stats;
use sluicedb_actors::engine::Engine;
use sluicedb_storage::batch::KeyspaceRef;
use sluicedb_storage::key_range::KeyRange;
use sluicedb_storage::keyspace::KeyspaceId;
use sluicedb_storage::limits::KEY_BYTES_MAX;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// An open database, seen from one of its keyspaces. Cheap to clone. All clones are the same
/// database.
///
/// [`open`](Self::open) returns a handle on the default keyspace, and [`keyspace`](Self::keyspace)
/// returns handles on others. Methods that take keys work on that keyspace. All others concern the
/// whole database.
///
/// No method blocks the calling thread on the disk, on another writer or on compaction. A method
/// that may wait is `async`, works in any executor, and completes on its first poll if nothing must
/// be waited for.
///
/// Wakers of tasks may do anything, with one exception. Threads of the engine call the waker of a
/// task on a tokio `LocalSet` themselves, and that calls the waker of whatever polls the set. So
/// whatever polls the set must not wait for the database.
///
/// Dropping the last handle never blocks, and loses nothing that was acknowledged.
/// [`close`](Self::close) also flushes, so that the next open is quick.
#[derive(Clone)]
pub struct Db {
    engine: Arc<Engine>,
    /// For readers, which may outlive the engine.
    cold: Cold,
    keyspace: KeyspaceRef,
    /// The process that opened it.
    #[cfg(debug_assertions)]
    process: u32,
    durability: Durability,
    value_bytes_max: usize,
}

impl Db {
    /// Opens the database in `path` with default [`Options`], and creates it if there is none. A
    /// thread of the engine does the disk work.
    ///
    /// # Errors
    /// [`Locked`](crate::ErrorKind::Locked) at once, with the holder's process id, when it is open
    /// elsewhere; `Corrupt`, `Unsupported` and `Io`, depending on the files. A refused open changes
    /// nothing.
    ///
    /// # Cancellation
    /// The open goes on, and the database is closed again at once.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("my.db");
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(&path).await?;
    /// db.put("user:1", "Ada").await?;
    /// assert_eq!(db.get("user:1").await?.as_deref(), Some(&b"Ada"[..]));
    /// db.close().await?;
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open().await
    }

    /// Opens a database with settings of your own: see [`Builder`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::builder(dir.path()).memory_budget(64 << 20).open().await?;
    /// db.put("user:1", "Ada").await?;
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path)
    }

    pub(crate) fn new(engine: Engine, options: &Options) -> Self {
        Self {
            cold: Cold::new(engine.read_pool(), engine.damage(), None),
            engine: Arc::new(engine),
            keyspace: KeyspaceRef::new(next_database(), KeyspaceId::DEFAULT),
            #[cfg(debug_assertions)]
            process: std::process::id(),
            durability: options.durability,
            value_bytes_max: options.effective_value_bytes_max() as usize,
        }
    }

    /// The engine. Its threads and its lock belong to the process that opened it. A child made by
    /// `fork` has neither, and would write into files that its parent writes.
    #[inline]
    pub(crate) fn engine(&self) -> &Engine {
        #[cfg(debug_assertions)]
        assert_eq!(self.process, std::process::id(), "a database was used in a forked child");
        &self.engine
    }

    #[inline]
    pub(crate) fn keyspace_id(&self) -> KeyspaceId {
        self.keyspace.id()
    }

    #[inline]
    pub(crate) fn keyspace_ref(&self) -> KeyspaceRef {
        self.keyspace
    }

    /// The way of readers to the read threads.
    #[inline]
    pub(crate) fn cold(&self) -> &Cold {
        &self.cold
    }

    /// The durability of writes that do not name one.
    #[inline]
    pub(crate) fn default_durability(&self) -> Durability {
        self.durability
    }

    #[inline]
    pub(crate) fn value_bytes_max(&self) -> usize {
        self.value_bytes_max
    }

    /// The same database, seen from another of its keyspaces.
    pub(crate) fn seen_from(&self, id: KeyspaceId) -> Self {
        Self { keyspace: KeyspaceRef::new(self.keyspace.database(), id), ..self.clone() }
    }

    /// Why the disk does not shrink: the open snapshots and scans, the oldest first. For each it
    /// tells the files that exist only because somebody reads what compactions have replaced since.
    ///
    /// Every such file is counted once, so the bytes add up to `pinned_obsolete_bytes` of
    /// [`Stats`]. The memory that snapshots and scans hold is not included: see [`Pin`].
    ///
    /// It never fails and waits for no disk. It takes time for each open snapshot and scan, and for
    /// each file that is held. For part of that time no snapshot or scan can be opened; gets and
    /// writes go on. It works after [`close`](Self::close) as well: the next open removes the files
    /// that are held then.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let backup = db.snapshot_labelled("backup");
    /// for pin in db.pins() {
    ///     println!("{pin}");
    /// }
    /// assert_eq!(db.pins()[0].label.as_deref(), Some("backup"));
    /// drop(backup);
    /// assert_eq!(db.pins(), []);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn pins(&self) -> Vec<Pin> {
        self.engine().pins().into_iter().map(Pin::from).collect()
    }

    /// Writes everything that was written before the call into tables, and releases the log: no
    /// recovery will apply any of it again, and log segments that were closed before the call are
    /// deleted or kept aside for recycling. Syncs the log and waits for the disk.
    ///
    /// # Errors
    /// `NoSpace` or `Io`. The data stays in memory and in the log, and the flush is tried again.
    ///
    /// # Cancellation
    /// The flush goes on.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// db.flush().await?;
    /// assert_eq!(db.stats().flushes, 1);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn flush(&self) -> Result<()> {
        Ok(self.engine().flush().await?)
    }

    /// Makes everything that was visible before the call survive a power cut. Waits for a sync of
    /// the log, which it shares with writers.
    ///
    /// # Errors
    /// `Io` when the log cannot be synced; then writes stop. `Closed` after [`close`](Self::close),
    /// which has synced everything.
    ///
    /// # Cancellation
    /// The sync goes on.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, Durability};
    /// let db = Db::builder(dir.path()).durability(Durability::Buffered).open().await?;
    /// let last = db.put("seen:1", "now").await?;
    /// db.sync().await?;
    /// assert!(db.durable_seqno() >= last);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn sync(&self) -> Result<()> {
        Ok(self.engine().sync().await?)
    }

    /// Flushes, then merges all tables down to one sorted run without tombstones. The same as
    /// [`compact_range`](Self::compact_range) for all keys.
    ///
    /// # Errors
    /// As [`flush`](Self::flush); `Corrupt` when a table cannot be read.
    ///
    /// # Cancellation
    /// The running merge stops and changes nothing. Earlier merges stay.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// db.delete("user:1").await?;
    /// db.compact().await?;
    /// assert!(db.level_info().iter().all(|level| level.tables == 0), "nothing is left");
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn compact(&self) -> Result<()> {
        self.compact_range(..).await
    }

    /// Flushes, then merges the tables with keys in `range`, each as a whole, with everything that
    /// overlaps them. Other compactions wait. The returned [`Compaction`] shows its progress, can
    /// stop at a level, and ends when it is dropped.
    ///
    /// Writes go on meanwhile, as long as what they flush has room in L0: it stays there until the
    /// merge ends. One merge takes one of the database's ranges at most. So in a database of one
    /// large range, writes may have to wait once they have flushed
    /// [`l0_tables_max`](crate::Options::l0_tables_max) tables.
    /// [`range_bytes_max`](crate::Options::range_bytes_max) makes smaller ranges.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// db.put("user:2", "Bob").await?;
    /// db.delete("user:1").await?;
    /// let compaction = db.compact_range(sluicedb::prefix("user:"));
    /// let mut progress = compaction.progress();
    /// compaction.await?;
    /// let progress = progress.latest();
    /// assert_eq!(progress.done_bytes, progress.total_bytes);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    #[allow(
        clippy::needless_pass_by_value,
        reason = "`compact_range(a..b)` reads better than `compact_range(&(a..b))`"
    )]
    pub fn compact_range(&self, range: impl KeyRange) -> Compaction {
        Compaction::new(self.clone(), range.span())
    }

    /// The longest key, the longest value and the largest batch that this open database accepts.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let limits = db.limits();
    /// assert!(db.put("k", vec![0; limits.value_bytes_max as usize + 1]).await.is_err());
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn limits(&self) -> Limits {
        Limits {
            key_bytes_max: KEY_BYTES_MAX as u64,
            value_bytes_max: self.value_bytes_max as u64,
            batch_bytes_max: self.engine().batch_bytes_max() as u64,
            batch_memory_bytes_max: self.engine().config().write_buffer_bytes as u64,
        }
    }

    /// Counters, sizes and the actors' mailboxes. Waits for no disk. Takes time for each range and
    /// each table, as [`level_info`](Self::level_info) does: call it every few seconds.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// assert_eq!(db.stats().commits, 1);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn stats(&self) -> Stats {
        Stats::of(&self.engine, self.cold.counts().sum())
    }

    /// The levels of every range: tables, bytes, limits. Waits for no disk. Takes time for each
    /// table.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// db.flush().await?;
    /// assert_eq!(db.level_info().iter().map(|level| level.tables).sum::<u64>(), 1);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn level_info(&self) -> Vec<LevelInfo> {
        LevelInfo::of(&self.engine)
    }

    /// The database's health, to look at or to wait for.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// assert!(db.health().state().is_running());
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn health(&self) -> Health {
        Health::new(self.engine().failures().health.watcher())
    }

    /// How close the database is to making writers wait, at this moment. Costs a few loads per
    /// range.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// assert!(db.pressure().level < 0.5, "it is empty");
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn pressure(&self) -> Pressure {
        self.engine().accounts().board.measure().into()
    }

    /// A watch on the pressure. Use it to shed load, to slow a producer down or to raise an alarm
    /// before writers wait.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let mut watch = db.pressure_watch();
    /// let alarm = tokio::spawn(async move {
    ///     while let Some(pressure) = watch.changed().await {
    ///         if let Some(cause) = pressure.cause && pressure.level > 0.9 {
    ///             eprintln!("writers will wait soon: {cause}");
    ///         }
    ///     }
    /// });
    /// db.put("user:1", "Ada").await?;
    /// db.close().await?;
    /// alarm.await.unwrap();
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn pressure_watch(&self) -> PressureWatch {
        PressureWatch::new(self.engine().accounts().board.watcher())
    }

    /// The sequence number of the last write that survives a power cut. Never overstates. One load.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// use sluicedb::{Durability, WriteOptions};
    /// let seqno = db.put_with("a", "1", WriteOptions::durability(Durability::Buffered)).await?;
    /// db.sync().await?;
    /// assert!(db.durable_seqno() >= seqno);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn durable_seqno(&self) -> u64 {
        self.engine().durable_seqno().0
    }

    /// Stops writes, flushes, marks the database as cleanly closed, and ends the engine's threads.
    /// Handles, clones and snapshots stay valid: writes through them fail as `Closed`, reads go on.
    /// Once somebody else opens the directory, only snapshots and scans from before the close can
    /// be relied on: their files stay, and others may be merged away. A second call waits for the
    /// first.
    ///
    /// # Errors
    /// The first failure on the way. Everything acknowledged is in the log all the same.
    ///
    /// # Cancellation
    /// The shutdown goes on.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// db.close().await?;
    /// assert!(db.put("user:2", "Bob").await.is_err());
    /// assert!(db.contains_key("user:1").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn close(&self) -> Result<()> {
        Ok(self.engine().close().await?)
    }
}

/// The limits of an open database: see [`Db::limits`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest key, in bytes. The same for all databases.
    pub key_bytes_max: u64,
    /// The longest value, in bytes: [`Options::value_bytes_max`].
    pub value_bytes_max: u64,
    /// The largest batch, in [encoded](crate::WriteBatch::encoded_len) bytes:
    /// [`Options::batch_bytes_max`].
    pub batch_bytes_max: u64,
    /// The most that a batch may take of the write buffer, in
    /// [bytes](crate::WriteBatch::memory_bytes): all of it, if the batch deletes no range. Of
    /// entries with fewer than 72 bytes, fewer fit into a batch than `batch_bytes_max` says.
    pub batch_memory_bytes_max: u64,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("dir", &self.engine().dir()).finish_non_exhaustive()
    }
}
