//! A database that is open for reading only.
//!
//! A [`Db`](crate::Db) whose writes fail would not do: what cannot work is not there to be called,
//! and a function that takes a `ReadOnlyDb` says that it does not write.

use crate::error::Result;
use crate::keyspaces::{names, next_database};
use crate::levels::{LevelInfo, situation};
use crate::open::Builder;
use crate::ranges::RangeInfo;
use crate::reader::{Cold, Reader};
use crate::snapshot::Snapshot;
use crate::stats::Stats;
use sluicedb_actors::compaction_planner::CompactionCounts;
use sluicedb_actors::engine::ReadOnlyEngine;
use sluicedb_storage::batch::KeyspaceRef;
use sluicedb_storage::compact::Claims;
use sluicedb_storage::keyspace::KeyspaceId;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

/// A closed database, or a [checkpoint](crate::Db::checkpoint), open for reading only. Cheap to
/// clone. All clones are the same one.
///
/// * *Any number of processes* may have it open at once. Nobody can open it for writing meanwhile,
///   and it cannot be opened while somebody has it open for writing: both are
///   [`Locked`](crate::ErrorKind::Locked). The lock is held until the last handle, snapshot and
///   scan is dropped. If the directory has no `LOCK` file, because it was copied without one, none
///   is created and none is held.
/// * *Not one byte changes* in the directory, which may be on a read-only file system.
/// * A database that was *not closed* is recovered as by every open, but into memory. What is only
///   in its log may take [`read_only_log_bytes_max`](crate::Options::read_only_log_bytes_max), and
///   up to twice as much while it is opened. A checkpoint has no log.
/// * It always shows the same instant. There are no writes, so there is nothing to close: drop it.
///
/// Reads work as those of [`Db`](crate::Db): they complete at once if everything is in memory, and
/// wait for a read thread otherwise.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("my.db");
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use sluicedb::{Db, ErrorKind, ReadOnlyDb};
/// let db = Db::open(&path).await?;
/// db.put("user:1", "Ada").await?;
/// db.close().await?;
///
/// let one = ReadOnlyDb::open(&path).await?;
/// let two = ReadOnlyDb::open(&path).await?;
/// assert_eq!(one.get("user:1").await?, two.get("user:1").await?);
/// assert_eq!(Db::open(&path).await.unwrap_err().kind(), ErrorKind::Locked);
/// # Ok::<_, sluicedb::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct ReadOnlyDb {
    engine: Arc<ReadOnlyEngine>,
    snapshot: Snapshot,
}

/// It reads as a [`Snapshot`] does, because it shows one instant.
impl Deref for ReadOnlyDb {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl ReadOnlyDb {
    /// Opens the database in `path` with default [`Options`](crate::Options):
    /// [`Builder::open_read_only`].
    ///
    /// # Errors
    /// As [`Builder::open_read_only`].
    ///
    /// # Cancellation
    /// As [`Builder::open_read_only`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, ReadOnlyDb};
    /// let db = Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// db.close().await?;
    /// let db = ReadOnlyDb::open(dir.path()).await?;
    /// assert!(db.contains_key("user:1").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open_read_only().await
    }

    /// Opens a database with settings of your own. Finish with [`Builder::open_read_only`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, ReadOnlyDb};
    /// Db::open(dir.path()).await?.close().await?;
    /// let db = ReadOnlyDb::builder(dir.path()).memory_budget(64 << 20).open_read_only().await?;
    /// assert_eq!(db.get("user:1").await?, None);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path)
    }

    pub(crate) fn new(engine: ReadOnlyEngine) -> Self {
        let keyspace = KeyspaceRef::new(next_database(), KeyspaceId::DEFAULT);
        let cold = Cold::new(engine.read_pool(), engine.damage(), Some(engine.kept()));
        let snapshot = Snapshot::new(Reader::new(engine.view().clone(), keyspace, cold));
        Self { snapshot, engine: Arc::new(engine) }
    }

    /// The same database, seen from the keyspace of this name. `None` if there is none.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, ReadOnlyDb};
    /// let db = Db::open(dir.path()).await?;
    /// db.keyspace("emails").await?.put("ada@example.org", "user:1").await?;
    /// db.close().await?;
    /// let db = ReadOnlyDb::open(dir.path()).await?;
    /// let emails = db.keyspace("emails").expect("it was created");
    /// assert!(emails.contains_key("ada@example.org").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn keyspace(&self, name: &str) -> Option<Self> {
        let id = self.engine.view().superversion.keyspaces.find(name)?;
        let reader = self.snapshot.reader();
        let reader = reader.of(KeyspaceRef::new(reader.keyspace().database(), id));
        let snapshot = Snapshot::new(reader);
        Some(Self { engine: Arc::clone(&self.engine), snapshot })
    }

    pub(crate) fn keyspace_ref(&self) -> KeyspaceRef {
        self.snapshot.reader().keyspace()
    }

    /// The names of the keyspaces, the default one first.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, ReadOnlyDb};
    /// let db = Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// db.close().await?;
    /// let db = ReadOnlyDb::open(dir.path()).await?;
    /// assert_eq!(db.keyspaces(), ["default"]);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn keyspaces(&self) -> Vec<String> {
        names(&self.engine.view().superversion.keyspaces)
    }

    /// The same instant as a separate [`Snapshot`], which keeps writers out as this handle does.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, ReadOnlyDb};
    /// let db = Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// db.close().await?;
    /// let db = ReadOnlyDb::open(dir.path()).await?;
    /// let snapshot = db.snapshot();
    /// drop(db);
    /// assert!(snapshot.contains_key("user:1").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// Sizes and counters: of those in [`Db::stats`](crate::Db::stats), the ones about tables,
    /// reads, and what the open found. All numbers about writes are 0, and there are no actors.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, ReadOnlyDb};
    /// let db = Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// db.close().await?;
    /// let db = ReadOnlyDb::open(dir.path()).await?;
    /// assert_eq!(db.stats().tables, 1);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn stats(&self) -> Stats {
        Stats::of_read_only(&self.engine, self.snapshot.reader().counts())
    }

    /// The ranges of this handle's keyspace, in key order: see [`Db::ranges`](crate::Db::ranges).
    /// What was only in the log counts as tables, and nothing is written.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, ReadOnlyDb};
    /// let db = Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// db.close().await?;
    /// let db = ReadOnlyDb::open(dir.path()).await?;
    /// assert_eq!(db.ranges().len(), 1);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn ranges(&self) -> Vec<RangeInfo> {
        let version = self.engine.version();
        let mine = self.snapshot.reader().keyspace().id();
        let theirs = version.ranges().iter().filter(|range| range.keyspace == mine);
        theirs.map(|range| RangeInfo::of_stable(range, version.keyspaces())).collect()
    }

    /// The levels of every range: tables, bytes, limits. What was only in the log counts as tables
    /// of L0.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, ReadOnlyDb};
    /// let db = Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// db.close().await?;
    /// let db = ReadOnlyDb::open(dir.path()).await?;
    /// assert_eq!(db.level_info()[0].tables, 1, "L0 has the flushed entry");
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn level_info(&self) -> Vec<LevelInfo> {
        let version = self.engine.version();
        let (claims, set_aside) = (Claims::new(), BTreeSet::new());
        let told = (&self.engine.config().compaction, self.engine.unix_ms());
        let situation = situation(told, &version, &claims, &set_aside);
        LevelInfo::of_version(&situation, &CompactionCounts::default())
    }
}

impl fmt::Debug for ReadOnlyDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadOnlyDb").field("dir", &self.engine.dir()).finish_non_exhaustive()
    }
}
