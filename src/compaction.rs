//! Compactions that callers request: which keys, down to which level, and how to watch one.

use crate::db::Db;
use crate::error::{Error, Result};
use crate::progress::{ProgressWatch, Shown};
use futures::future::BoxFuture;
use sluicedb_storage::compact::ManualCompaction;
use sluicedb_storage::key::Span;
use sluicedb_storage::limits::LEVELS_MAX;
use std::future::IntoFuture;

/// A compaction that was requested with [`Db::compact_range`]. Await it to have it done.
///
/// # Errors
/// As [`Db::compact`]; `Invalid` for a level that does not exist.
///
/// # Cancellation
/// If it is dropped, the running merge stops and changes nothing. Earlier merges stay.
#[must_use = "nothing is compacted before it is awaited"]
pub struct Compaction {
    db: Db,
    span: Span,
    level: Option<u8>,
    shown: Shown,
}

impl Compaction {
    pub(crate) fn new(db: Db, span: Span) -> Self {
        Self { db, span, level: None, shown: Shown::new() }
    }

    /// Merges into this level, 1 to 7, and leaves deeper levels alone. By default it merges into
    /// the deepest level that has some of the keys; tombstones have nothing left to hide there and
    /// are dropped.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// db.compact_range(..).to_level(1).await?;
    /// assert!(db.level_info().iter().any(|level| level.level == 1 && level.tables == 1));
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn to_level(mut self, level: u8) -> Self {
        self.level = Some(level);
        self
    }

    /// A watch on its progress. There may be any number of them. None keeps the compaction going.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// let compaction = db.compact_range(sluicedb::prefix("user:"));
    /// let mut progress = compaction.progress();
    /// compaction.await?;
    /// let progress = progress.latest();
    /// assert_eq!(progress.done_bytes, progress.total_bytes);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn progress(&self) -> ProgressWatch {
        self.shown.watch()
    }

    async fn run(self) -> Result<()> {
        let Self { db, span, level, shown } = self;
        if let Some(level) = level
            && !(1..=LEVELS_MAX).contains(&usize::from(level))
        {
            let what = format!("level is {level}; it must be 1..={LEVELS_MAX}");
            return Err(Error::invalid(what));
        }
        if span.is_empty() {
            return Ok(());
        }
        db.check_keyspace()?;
        let order = ManualCompaction { level, ..ManualCompaction::whole(db.keyspace_id(), span) };
        Ok(db.engine().compact(order, &shown.0).await?)
    }
}

impl IntoFuture for Compaction {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'static, Result<()>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl std::fmt::Debug for Compaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compaction")
            .field("span", &self.span)
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}
