//! What is read through a database handle: by key, in order, and at an instant that is kept.

use crate::coop;
use crate::db::Db;
use crate::error::Result;
use crate::reader::Reader;
use crate::scan::Scan;
use crate::snapshot::Snapshot;
use bytes::Bytes;
use sluicedb_storage::key::{Seqno, Span};
use sluicedb_storage::key_range::KeyRange;
use sluicedb_storage::points::Holder;
use sluicedb_storage::table::ReadTier;
use sluicedb_storage::view::{Exists, LastSeqno, Value, ValueLen, View, Want};
use sluicedb_storage::{Error as StorageError, Lacks};
use std::ops::ControlFlow::{self, Break, Continue};

impl Db {
    /// The value of `key`, or `None`.
    ///
    /// Completes on its first poll when the value, or the proof of its absence, is in memory or in
    /// the page cache. Otherwise it waits for the block: see
    /// [`Options::read_polling_us`](crate::Options::read_polling_us). A small value is copied. A
    /// value that is a good part of its block shares the block's memory. An engine thread copies a
    /// value of more than 256 KiB that is not in a table yet.
    ///
    /// # Errors
    /// `Corrupt` or `Io` when a block cannot be read. The error names file and offset. Other keys
    /// are not affected.
    ///
    /// # Cancellation
    /// No effect.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// assert_eq!(db.get("user:1").await?.as_deref(), Some(&b"Ada"[..]));
    /// assert_eq!(db.get("user:2").await?, None);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        coop::one().await;
        match self.look_up_now::<Value>(key.as_ref()) {
            Break(answer) => answer,
            Continue(lacks) => self.look_up_late::<Value>(key.as_ref(), lacks).await,
        }
    }

    /// Does `key` have a value? As [`get`](Self::get), without copying the value.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Cancellation
    /// No effect.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// assert!(db.contains_key("user:1").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        coop::one().await;
        match self.look_up_now::<Exists>(key.as_ref()) {
            Break(answer) => answer,
            Continue(lacks) => self.look_up_late::<Exists>(key.as_ref(), lacks).await,
        }
    }

    /// The values of `keys`, in their order and all at one instant. Values in memory are read at
    /// once; the others are read by engine threads, side by side.
    ///
    /// # Errors
    /// As [`get`](Self::get). One failure fails all.
    ///
    /// # Cancellation
    /// No effect.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// let values = db.multi_get(&["user:1", "user:2"]).await?;
    /// assert_eq!(values[0].as_deref(), Some(&b"Ada"[..]));
    /// assert_eq!(values[1], None);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>> {
        coop::one().await;
        let reader = self.reader(Holder::Lookup);
        reader.multi_get(reader.of_mine(keys)).await
    }

    /// The length of the value of `key`, or `None`. As [`get`](Self::get), without copying the
    /// value. If the value's block is not in memory, it is read.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Cancellation
    /// No effect.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("photo", vec![0; 5000]).await?;
    /// assert_eq!(db.value_len("photo").await?, Some(5000));
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn value_len(&self, key: impl AsRef<[u8]>) -> Result<Option<u64>> {
        coop::one().await;
        match self.look_up_now::<ValueLen>(key.as_ref()) {
            Break(answer) => answer,
            Continue(lacks) => self.look_up_late::<ValueLen>(key.as_ref(), lacks).await,
        }
    }

    /// The sequence number of the last write of `key`: the one that [`put`](Self::put) returned, or
    /// that of the ingest that brought the key in. The operations of a batch have consecutive
    /// numbers; [`write`](Self::write) returns that of the last one. `None` if the key has no
    /// value.
    ///
    /// A later write of the key has a larger number, also after a delete. So a caller who kept the
    /// number can tell whether the key was written since. Flushes, compactions, splits, reopening
    /// and checkpoints keep it. Costs as much as [`contains_key`](Self::contains_key).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Cancellation
    /// No effect.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let seen = db.put("page:1", "<h1>").await?;
    /// assert_eq!(db.last_seqno("page:1").await?, Some(seen), "nobody has written it since");
    /// db.put("page:1", "<h2>").await?;
    /// assert!(db.last_seqno("page:1").await? > Some(seen));
    /// db.delete("page:1").await?;
    /// assert_eq!(db.last_seqno("page:1").await?, None);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn last_seqno(&self, key: impl AsRef<[u8]>) -> Result<Option<u64>> {
        coop::one().await;
        let seqno = match self.look_up_now::<LastSeqno>(key.as_ref()) {
            Break(seqno) => seqno,
            Continue(lacks) => self.look_up_late::<LastSeqno>(key.as_ref(), lacks).await,
        };
        Ok(seqno?.map(|Seqno(number)| number))
    }

    /// The first entry in `range`, or `None`. Costs as much as the first entry of a scan.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Cancellation
    /// No effect.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// for key in ["job:1", "job:2", "log:1"] {
    ///     db.put(key, "").await?;
    /// }
    /// let jobs = "job:".."job;";
    /// assert_eq!(db.first(&jobs).await?.unwrap().0, "job:1");
    /// assert_eq!(db.last(&jobs).await?.unwrap().0, "job:2");
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn first(&self, range: impl KeyRange) -> Result<Option<(Bytes, Bytes)>> {
        self.scan(range).only_first().await
    }

    /// The last entry in `range`, or `None`: see [`first`](Self::first).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Cancellation
    /// No effect.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// for key in ["user:1", "user:2", "word:1"] {
    ///     db.put(key, "x").await?;
    /// }
    /// let (key, _) = db.last(sluicedb::prefix("user:")).await?.expect("there are users");
    /// assert_eq!(key, "user:2");
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn last(&self, range: impl KeyRange) -> Result<Option<(Bytes, Bytes)>> {
        self.scan(range).rev().only_first().await
    }

    /// The entries in `range`, in key order, at this instant: a [`Stream`](futures::Stream).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use futures::TryStreamExt;
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// for key in ["a", "b", "c"] {
    ///     db.put(key, "1").await?;
    /// }
    /// let last: Vec<_> = db.scan("a".."c").rev().limit(1).try_collect().await?;
    /// assert_eq!(last[0].0, "b");
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    #[allow(
        clippy::needless_pass_by_value,
        reason = "`scan(a..b)` reads better than `scan(&(a..b))`"
    )]
    pub fn scan(&self, range: impl KeyRange) -> Scan {
        Scan::new(self.reader(Holder::Scan), range.span())
    }

    /// The entries whose keys start with `prefix`, in key order, at this instant.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// use futures::TryStreamExt;
    /// db.put("user:1", "Ada").await?;
    /// db.put("word:1", "ant").await?;
    /// let users: Vec<_> = db.scan_prefix("user:").try_collect().await?;
    /// assert_eq!(users.len(), 1);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        Scan::new(self.reader(Holder::Scan), Span::prefix(prefix.as_ref()))
    }

    /// A snapshot of this instant. Waits for nobody; a lock is held for a few instructions.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// let before = db.snapshot();
    /// db.delete("user:1").await?;
    /// assert!(before.contains_key("user:1").await?);
    /// assert!(!db.contains_key("user:1").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.reader(Holder::Snapshot))
    }

    /// As [`snapshot`](Self::snapshot), with a label that [`pins`](Self::pins) shows. The label has
    /// no other effect, and several snapshots may share one. Costs a copy of the label, a look at
    /// the clock, and a look at whatever else is open.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// let backup = db.snapshot_labelled("nightly backup");
    /// assert!(backup.contains_key("user:1").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn snapshot_labelled(&self, label: impl AsRef<str>) -> Snapshot {
        Snapshot::new(self.reader_of(self.engine().labelled_view(label.as_ref())))
    }

    /// What `W` wants to know of `key`, or what that lacks. Apart from `look_up_late`, because a
    /// future costs more than a call.
    #[inline]
    fn look_up_now<W: Want>(&self, key: &[u8]) -> ControlFlow<Result<W::Answer>, Lacks> {
        match self.engine().look_up::<W>(self.keyspace_id(), key, ReadTier::Memory) {
            Err(StorageError::WouldBlock(lacks)) => Continue(lacks),
            // The engine has taken note of damage.
            read => Break(self.cold().counted::<W>(read.map_err(Into::into))),
        }
    }

    /// The same, after it lacked something. Pins a view only for a read thread.
    async fn look_up_late<W: Want>(&self, key: &[u8], lacks: Lacks) -> Result<W::Answer> {
        let look_up = || self.engine().look_up::<W>(self.keyspace_id(), key, ReadTier::Memory);
        match self.cold().soon(lacks, look_up).await {
            Some(read) => self.cold().counted::<W>(read.map_err(Into::into)),
            None => self.reader(Holder::Lookup).look_up_cold::<W>(key).await,
        }
    }

    pub(crate) fn reader(&self, holder: Holder) -> Reader {
        self.reader_of(self.engine().view(holder))
    }

    fn reader_of(&self, view: View) -> Reader {
        Reader::new(view, self.keyspace_ref(), self.cold().clone())
    }
}
