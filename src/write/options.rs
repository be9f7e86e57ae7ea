//! How one write is done.

use crate::options::Durability;
use sluicedb_actors::write::WaitLimit;
use std::time::Instant;

/// How one write is done: what its acknowledgement means, and how long it waits for room.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use sluicedb::{Db, Durability, ErrorKind, WriteOptions};
/// use std::time::{Duration, Instant};
/// let db = Db::open(dir.path()).await?;
/// let cheap = WriteOptions::durability(Durability::Buffered);
/// db.put_with("seen:1", "now", cheap).await?;
///
/// let soon = Instant::now() + Duration::from_millis(50);
/// db.put_with("seen:2", "now", cheap.by(soon)).await?;
///
/// match db.put_with("seen:3", "now", WriteOptions::new().no_wait()).await {
///     Err(error) if error.kind() == ErrorKind::Overloaded => { /* shed the load */ }
///     written => { written?; }
/// }
/// # Ok::<_, sluicedb::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    pub(super) durability: Option<Durability>,
    pub(super) limit: WaitLimit,
}

impl WriteOptions {
    /// The database's settings: its [`Durability`], and waiting for room as long as it takes.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put_with("a", "1", sluicedb::WriteOptions::new()).await?; // the same as `put`
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub const fn new() -> Self {
        Self { durability: None, limit: WaitLimit::Forever }
    }

    /// Acknowledged at this durability, whatever the database's setting.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// use sluicedb::{Durability, WriteOptions};
    /// db.put_with("a", "1", WriteOptions::durability(Durability::Buffered)).await?;
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub const fn durability(durability: Durability) -> Self {
        Self { durability: Some(durability), ..Self::new() }
    }

    /// The same, with a deadline. If there is no room by `deadline`, the write is refused as
    /// [`Overloaded`](crate::ErrorKind::Overloaded) and nothing is written.
    ///
    /// The deadline bounds only the wait for room, and for an engine thread that prepares a large
    /// batch ([`no_wait`](Self::no_wait)). Once there is room a write is never given up,
    /// however long the disk takes to sync it or to read a page of the log. A deadline in the past
    /// means the same as [`no_wait`](Self::no_wait). A batch that deletes ranges takes no deadline:
    /// it waits for the disk, and is refused as `Invalid`.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// use std::time::{Duration, Instant};
    /// let soon = Instant::now() + Duration::from_secs(1);
    /// db.put_with("a", "1", sluicedb::WriteOptions::new().by(soon)).await?;
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub const fn by(self, deadline: Instant) -> Self {
        Self { limit: WaitLimit::Until(deadline), ..self }
    }

    /// The same, without waiting for room. If there is no room now, the write is refused at once as
    /// [`Overloaded`](crate::ErrorKind::Overloaded) and nothing is written. Its acknowledgement is
    /// waited for as usual.
    ///
    /// (For a large batch an engine thread finds the ranges that it touches, and copies it where it
    /// must name its keyspace. That work is waited for, as the acknowledgement is. A place in that
    /// thread's queue is not.)
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// use sluicedb::{ErrorKind, WriteOptions};
    /// match db.put_with("a", "1", WriteOptions::new().no_wait()).await {
    ///     Err(error) if error.kind() == ErrorKind::Overloaded => { /* shed the load */ }
    ///     written => assert!(written? > 0),
    /// }
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub const fn no_wait(self) -> Self {
        Self { limit: WaitLimit::Never, ..self }
    }
}
