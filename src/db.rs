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
use crate::stats::Stats;
use sluicedb_actors::engine::Engine;
use sluicedb_storage::batch::KeyspaceRef;
use sluicedb_storage::key_range::KeyRange;
use sluicedb_storage::keyspace::KeyspaceId;
use sluicedb_storage::limits::KEY_BYTES_MAX;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// An open database, seen from one of its keyspaces. Cheap to clone; all clones are the same
/// database.
///
/// [`open`](Self::open) gives a handle on the default keyspace, and [`keyspace`](Self::keyspace)
/// gives others. What has to do with keys is about the keys of that keyspace, everything else about
/// the whole database.
///
/// No method blocks the calling thread on the disk, on another writer or on compaction; what can
/// wait is `async`, works in any executor, and completes on its first poll when nothing has to be
/// waited for.
///
/// Wakers of tasks may do what they like, but for one kind: those of tasks on a tokio `LocalSet`
/// call whatever polls the set, on threads of the engine, so that must not wait for the database.
///
/// Dropping the last handle never blocks and loses nothing that was acknowledged;
/// [`close`](Self::close) also flushes, so that the next open is quick.
#[derive(Clone)]
pub struct Db {
    engine: Arc<Engine>,
    keyspace: KeyspaceRef,
    /// Who opened it.
    #[cfg(debug_assertions)]
    process: u32,
    durability: Durability,
    value_bytes_max: usize,
}

impl Db {
    /// Opens the database in `path`, creating it if there is none, with default [`Options`].
    ///
    /// # Errors
    /// [`Locked`](crate::ErrorKind::Locked) at once when it is open elsewhere, with the holder's
    /// process id; `Corrupt`, `Unsupported`, `Io` as the files demand. A refused open changes
    /// nothing.
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

    /// Opens with settings of one's own.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path)
    }

    pub(crate) fn new(engine: Engine, options: &Options) -> Self {
        Self {
            engine: Arc::new(engine),
            keyspace: KeyspaceRef::new(next_database(), KeyspaceId::DEFAULT),
            #[cfg(debug_assertions)]
            process: std::process::id(),
            durability: options.durability,
            value_bytes_max: options.effective_value_bytes_max() as usize,
        }
    }

    /// The engine. Its threads and its lock stay with the process that opened it: a child made by
    /// `fork` has neither, and would write into files that its parent is writing.
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

    /// Of writes that do not say it themselves.
    #[inline]
    pub(crate) fn default_durability(&self) -> Durability {
        self.durability
    }

    #[inline]
    pub(crate) fn value_bytes_max(&self) -> usize {
        self.value_bytes_max
    }

    /// The same database, seen from another keyspace of it.
    pub(crate) fn seen_from(&self, id: KeyspaceId) -> Self {
        Self { keyspace: KeyspaceRef::new(self.keyspace.database(), id), ..self.clone() }
    }

    /// Why the disk does not shrink: the snapshots and scans that are open, the oldest first, and
    /// for each the files that are there only because somebody reads what compactions have replaced
    /// since.
    ///
    /// Every such file is counted once, so the bytes add up to `pinned_obsolete_bytes` of
    /// [`Stats`]. Memory that snapshots and scans hold is not told: see [`Pin`].
    ///
    /// It never fails and waits for no disk. It takes time for each snapshot and scan that is open
    /// and for each file that is held; a part of that time nobody opens a snapshot or a scan, gets
    /// and writes go on. It works after [`close`](Self::close) as well: what is held then is
    /// removed by the next open.
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

    /// Writes everything that was written before the call into tables, and lets go of the log: no
    /// recovery will apply any of it again, and log segments that were closed before the call are
    /// deleted or kept aside for recycling. Syncs the log and waits for the disk.
    ///
    /// # Errors
    /// `NoSpace` or `Io`; the data stays in memory and in the log, and is tried again.
    ///
    /// # Cancellation
    /// The flush goes on.
    pub async fn flush(&self) -> Result<()> {
        Ok(self.engine().flush().await?)
    }

    /// Makes everything that was visible before the call survive a power cut.
    ///
    /// # Errors
    /// `Io` when the log cannot be synced; writes stop then. `Closed` after [`close`](Self::close),
    /// which has synced everything.
    ///
    /// # Cancellation
    /// The sync goes on.
    pub async fn sync(&self) -> Result<()> {
        Ok(self.engine().sync().await?)
    }

    /// Flushes, then merges all tables down to one sorted run without tombstones. Writes go on
    /// meanwhile. The same as [`compact_range`](Self::compact_range) of everything.
    ///
    /// # Errors
    /// As [`flush`](Self::flush), and `Corrupt` when a table cannot be read.
    ///
    /// # Cancellation
    /// The merge that is under way stops and changes nothing. What was merged before stays so.
    pub async fn compact(&self) -> Result<()> {
        self.compact_range(..).await
    }

    /// Flushes, then merges the tables with keys in `range`, as a whole and with all that overlaps
    /// them. Writes go on meanwhile, other compactions wait. It says how far it has come, can stop
    /// at a level, and ends when it is dropped: see [`Compaction`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// db.put("user:2", "Bob").await?;
    /// db.delete("user:1").await?;
    /// let compaction = db.compact_range("user:".."user;");
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

    /// The longest key and value and the largest batch that this database takes, as it was opened.
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
        }
    }

    /// Counters, sizes and the actors' mailboxes. Cheap enough to call every second.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.engine)
    }

    /// The levels of every range: tables, bytes, limits.
    pub fn level_info(&self) -> Vec<LevelInfo> {
        LevelInfo::of(&self.engine)
    }

    /// The database's health, to look at or to wait on.
    pub fn health(&self) -> Health {
        Health::new(self.engine().failures().health.watcher())
    }

    /// How near the database is to making writers wait, at this moment. A few loads per range.
    pub fn pressure(&self) -> Pressure {
        self.engine().accounts().board.measure().into()
    }

    /// The pressure to wait on: shed load, slow a producer down or raise an alarm before writers
    /// wait.
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

    /// The sequence number of the last write that survives a power cut. Never overstates.
    pub fn durable_seqno(&self) -> u64 {
        self.engine().durable_seqno().0
    }

    /// Stops writes, flushes, marks the database as cleanly closed and ends the engine's threads.
    /// Handles, clones and snapshots stay valid values; writes through them then fail as `Closed`,
    /// reads go on. A second call waits for the first.
    ///
    /// # Errors
    /// The first failure met on the way; everything acknowledged is in the log all the same.
    ///
    /// # Cancellation
    /// The shutdown goes on.
    pub async fn close(&self) -> Result<()> {
        Ok(self.engine().close().await?)
    }
}

/// What an open database takes: see [`Db::limits`].
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
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("dir", &self.engine().dir()).finish_non_exhaustive()
    }
}
