//! Checkpoints: a copy of the database that copies no tables, made while writes go on.

use crate::db::Db;
use crate::error::{Error, Result};
use crate::progress::{ProgressWatch, Shown};
use futures::future::BoxFuture;
use sluicedb_storage::Error as StorageError;
use sluicedb_storage::checkpoint::{Counts, Mode};
use std::future::IntoFuture;
use std::path::{Path, PathBuf};

/// What a checkpoint consists of.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// The number of the last write in it. It is between the last number at the call and that at
    /// the return.
    pub seqno: u64,
    /// Tables that are second names of the database's own files.
    pub tables_linked: u64,
    /// Their bytes. They take no space as long as the database has the files, too.
    pub bytes_linked: u64,
    /// Tables that had to be copied, because the directory is on another file system or the file
    /// system has no hard links.
    pub tables_copied: u64,
    /// Their bytes.
    pub bytes_copied: u64,
    /// Tables that an older checkpoint in the directory had already.
    pub tables_kept: u64,
    /// Their bytes.
    pub bytes_kept: u64,
    /// Tables that were written from memory.
    pub tables_written: u64,
    /// Their bytes.
    pub bytes_written: u64,
    /// Files of an older checkpoint that were removed because this one did not need them.
    pub files_removed: u64,
}

impl CheckpointInfo {
    fn of(seqno: u64, counts: &Counts) -> Self {
        Self {
            seqno,
            tables_linked: counts.linked.tables,
            bytes_linked: counts.linked.bytes,
            tables_copied: counts.copied.tables,
            bytes_copied: counts.copied.bytes,
            tables_kept: counts.kept.tables,
            bytes_kept: counts.kept.bytes,
            tables_written: counts.written.tables,
            bytes_written: counts.written.bytes,
            files_removed: counts.removed,
        }
    }
}

impl Db {
    /// Makes a checkpoint: a database in the directory `path` that holds one instant of this one.
    /// Await the returned value to have it made. Writes, flushes and compactions go on meanwhile
    /// and wait for nothing.
    ///
    /// * Everything that was acknowledged before the call is in it, synced or not, and each batch
    ///   as a whole. It may also contain writes made during the call, up to one of them.
    /// * It is durable when this returns. It survives a power cut even if the database's own last
    ///   `Buffered` writes do not.
    /// * Tables are not copied: they get a second name (a hard link). They are copied only where
    ///   that is impossible, as on another file system. What is in memory is written out. The
    ///   database itself is not flushed.
    /// * `path` must not exist, or be an empty directory; see [`Checkpoint::incremental`] for a
    ///   directory with an older checkpoint. Missing parts of the path are created, accessible to
    ///   this user only.
    /// * `CURRENT` is written last, so nobody takes a failed or interrupted checkpoint for a
    ///   database. A failed checkpoint removes what it made. An interrupted one leaves a directory
    ///   that should be removed.
    ///
    /// The checkpoint is *this database at an earlier time*, with the same identity. Open it for
    /// reading ([`ReadOnlyDb`](crate::ReadOnlyDb)) any number of times. Or open it for writing:
    /// from then on the two are databases with a common past. Files must not be exchanged between
    /// them.
    ///
    /// While it is made it holds what it shows, as a snapshot does; [`pins`](Self::pins) tells how
    /// much. One checkpoint is made at a time; others wait.
    ///
    /// # Errors
    /// `Exists` for a directory that is not empty; `Locked` for one that another process is using;
    /// `NoSpace` and `Io`; `Corrupt` for a table that is missing; `Closed`. The database is
    /// unharmed.
    ///
    /// # Cancellation
    /// If it is dropped, the checkpoint is cancelled and what was made is removed, unless it was
    /// about to be published.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let (path, backup) = (dir.path().join("my.db"), dir.path().join("backup.db"));
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, ReadOnlyDb};
    /// let db = Db::open(&path).await?;
    /// db.put("user:1", "Ada").await?;
    /// let made = db.checkpoint(&backup).await?;
    /// db.delete("user:1").await?;
    ///
    /// let then = ReadOnlyDb::open(&backup).await?;
    /// assert_eq!(then.get("user:1").await?.as_deref(), Some(&b"Ada"[..]));
    /// assert_eq!(then.seqno(), made.seqno);
    /// drop(then);
    ///
    /// // Later: only what is new.
    /// db.checkpoint(&backup).incremental().await?;
    /// let now = ReadOnlyDb::open(&backup).await?;
    /// assert_eq!(now.get("user:1").await?, None);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn checkpoint(&self, path: impl AsRef<Path>) -> Checkpoint {
        let path = path.as_ref().to_owned();
        Checkpoint { db: self.clone(), path, mode: Mode::Fresh, shown: Shown::new() }
    }
}

/// A checkpoint that was requested with [`Db::checkpoint`]. Await it to have it made.
///
/// # Errors
/// As [`Db::checkpoint`].
///
/// # Cancellation
/// As [`Db::checkpoint`].
#[must_use = "no checkpoint is made before it is awaited"]
pub struct Checkpoint {
    db: Db,
    path: PathBuf,
    mode: Mode,
    shown: Shown,
}

impl Checkpoint {
    /// Lets the directory hold an older checkpoint of the same database, which the new one
    /// replaces. Only tables that are not there are linked, and files that it does not need are
    /// removed once it is published. A crash at any moment leaves the old checkpoint or the new
    /// one.
    ///
    /// The older one must not have been opened for writing since, and must not be open now: that is
    /// `Exists`, or `Locked`. `Exists` is also the answer for a database of another identity, for a
    /// directory that an interrupted checkpoint left, and for a later history of the same database
    /// in which one of this database's table numbers belongs to another table. If no numbers clash,
    /// a checkpoint of another history is replaced as well.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path().join("my.db")).await?;
    /// let copy = dir.path().join("copy");
    /// db.put("user:1", "Ada").await?;
    /// db.checkpoint(&copy).await?;
    /// db.put("user:2", "Bob").await?;
    /// let info = db.checkpoint(&copy).incremental().await?;
    /// assert_eq!(info.seqno, 2);
    /// let copy = sluicedb::ReadOnlyDb::open(&copy).await?;
    /// assert!(copy.contains_key("user:2").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn incremental(mut self) -> Self {
        self.mode = Mode::Incremental;
        self
    }

    /// A watch on its progress. There may be any number of them. None keeps the checkpoint going.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let checkpoint = db.checkpoint(dir.path().join("backup"));
    /// let mut progress = checkpoint.progress();
    /// checkpoint.await?;
    /// let progress = progress.latest();
    /// assert_eq!(progress.done_bytes, progress.total_bytes);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn progress(&self) -> ProgressWatch {
        self.shown.watch()
    }

    async fn run(self) -> Result<CheckpointInfo> {
        let Self { db, path, mode, shown } = self;
        // Files are created later, and the process may have changed its working directory by then.
        let path = std::path::absolute(&path)
            .map_err(|error| Error::from(StorageError::io("make absolute", &path, error)))?;
        let (seqno, counts) = db.engine().checkpoint(path, mode, &shown.0).await?;
        Ok(CheckpointInfo::of(seqno.0, &counts))
    }
}

impl IntoFuture for Checkpoint {
    type Output = Result<CheckpointInfo>;
    type IntoFuture = BoxFuture<'static, Result<CheckpointInfo>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("path", &self.path)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
