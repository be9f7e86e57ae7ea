//! Snapshots: one instant, kept for as long as needed.

use crate::WriteBatch;
use crate::coop;
use crate::error::{Error, Result};
use crate::keyspaces::another_database;
use crate::reader::Reader;
use crate::scan::Scan;
use bytes::Bytes;
use sluicedb_storage::key::{Seqno, Span};
use sluicedb_storage::key_range::KeyRange;
use sluicedb_storage::limits::VALUE_BYTES_CAP;
use sluicedb_storage::view::{Exists, LastSeqno, Value, ValueLen};

/// One instant of the database. Later writes, flushes and compactions do not change what it shows.
///
/// Cheap to take and to clone: a few reference counts. It holds the memtables and files that it
/// reads, so a snapshot kept for hours keeps memory and disk space of that age.
/// [`Db::pins`](crate::Db::pins) tells how much of the disk, and which snapshot it is if that has a
/// [label](crate::Db::snapshot_labelled).
///
/// Every read that a [`Db`](crate::Db) has is here under the same name. What it promises, what it
/// costs and what it waits for is said there.
#[derive(Clone, Debug)]
pub struct Snapshot {
    reader: Reader,
}

impl Snapshot {
    pub(crate) fn new(reader: Reader) -> Self {
        Self { reader }
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The same instant with the writes of `batch` over it: what the database would show if the
    /// batch were written right then. For a transaction that reads its own writes.
    ///
    /// Every read of a snapshot works on it: gets, and scans in both directions, in every
    /// [keyspace](Self::of). What the batch puts is there. What it deletes, by key or by range, is
    /// not. Everything else is as in the snapshot. Operations that name no keyspace belong to this
    /// snapshot's. The snapshot itself does not change, and operations that are added to the batch
    /// later are not seen. A batch that is over the snapshot already is replaced.
    ///
    /// Copies and sorts the batch once. Waits for nothing. Each read then costs one more binary
    /// search; a scan merges one more layer, and seeks once for each deleted range that it passes.
    ///
    /// # Errors
    /// `Invalid` for a batch with keyspaces of another database, for one that writes to a keyspace
    /// which the snapshot does not have, and for keys that [`Db::write`](crate::Db::write) would
    /// refuse.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use futures::TryStreamExt;
    /// use sluicedb::{Db, WriteBatch};
    /// let db = Db::open(dir.path()).await?;
    /// db.put("a", "1").await?;
    /// db.put("b", "2").await?;
    ///
    /// let snapshot = db.snapshot();
    /// let mut batch = WriteBatch::new();
    /// batch.delete("a").put("c", "3");
    /// let mine = snapshot.with_batch(&batch)?;
    /// assert_eq!(mine.get("a").await?, None);
    /// let entries: Vec<_> = mine.scan(..).try_collect().await?;
    /// assert_eq!(entries.len(), 2);
    /// assert_eq!((&entries[0].0[..], &entries[1].0[..]), (&b"b"[..], &b"c"[..]));
    /// assert!(snapshot.contains_key("a").await?, "nothing was written");
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn with_batch(&self, batch: &WriteBatch) -> Result<Self> {
        // The limit on values belongs to the database, which checks it when the batch is written.
        batch.check(VALUE_BYTES_CAP).map_err(Error::invalid)?;
        let mine = self.reader.keyspace().database();
        if batch.database().is_some_and(|database| database != mine) {
            return Err(another_database());
        }
        Ok(Self::new(self.reader.with(batch.clone())?))
    }

    /// The value of `key` at this instant: see [`Db::get`](crate::Db::get).
    ///
    /// # Errors
    /// As [`Db::get`](crate::Db::get).
    ///
    /// # Cancellation
    /// No effect.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let before = db.snapshot();
    /// db.put("user:1", "Ada").await?;
    /// assert_eq!(before.get("user:1").await?, None);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        coop::one().await;
        self.reader.look_up::<Value>(key.as_ref()).await
    }

    /// Does `key` have a value at this instant? See [`Db::contains_key`](crate::Db::contains_key).
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
    /// let before = db.snapshot();
    /// db.put("user:1", "Ada").await?;
    /// assert!(!before.contains_key("user:1").await?);
    /// assert!(db.snapshot().contains_key("user:1").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        coop::one().await;
        self.reader.look_up::<Exists>(key.as_ref()).await
    }

    /// The values of `keys` at this instant: see [`Db::multi_get`](crate::Db::multi_get).
    ///
    /// # Errors
    /// As [`Db::multi_get`](crate::Db::multi_get).
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
    /// let values = db.snapshot().multi_get(&["user:1", "user:2"]).await?;
    /// assert_eq!(values[0].as_deref(), Some(&b"Ada"[..]));
    /// assert_eq!(values[1], None);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>> {
        coop::one().await;
        self.reader.multi_get(self.reader.of_mine(keys)).await
    }

    /// The length of the value of `key` at this instant: see
    /// [`Db::value_len`](crate::Db::value_len).
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
    /// assert_eq!(db.snapshot().value_len("photo").await?, Some(5000));
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn value_len(&self, key: impl AsRef<[u8]>) -> Result<Option<u64>> {
        coop::one().await;
        self.reader.look_up::<ValueLen>(key.as_ref()).await
    }

    /// The sequence number of the last write of `key` that this snapshot shows: see
    /// [`Db::last_seqno`](crate::Db::last_seqno). `None` if the key has no value. Writes that were
    /// laid over the snapshot have no number yet, so for their keys it is `None` as well.
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
    /// let seqno = db.put("page:1", "<h1>").await?;
    /// let before = db.snapshot();
    /// db.put("page:1", "<h2>").await?;
    /// assert_eq!(before.last_seqno("page:1").await?, Some(seqno));
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn last_seqno(&self, key: impl AsRef<[u8]>) -> Result<Option<u64>> {
        coop::one().await;
        let seqno = self.reader.look_up::<LastSeqno>(key.as_ref()).await?;
        Ok(seqno.map(|Seqno(number)| number))
    }

    /// The first entry in `range` at this instant: see [`Db::first`](crate::Db::first).
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
    /// let snapshot = db.snapshot();
    /// assert_eq!(snapshot.first(&jobs).await?.unwrap().0, "job:1");
    /// assert_eq!(snapshot.last(&jobs).await?.unwrap().0, "job:2");
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn first(&self, range: impl KeyRange) -> Result<Option<(Bytes, Bytes)>> {
        self.scan(range).only_first().await
    }

    /// The last entry in `range` at this instant: see [`Db::last`](crate::Db::last).
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
    /// let before = db.snapshot();
    /// db.put("user:2", "Bob").await?;
    /// let (key, _) = before.last(..).await?.expect("it had one entry");
    /// assert_eq!(key, "user:1");
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn last(&self, range: impl KeyRange) -> Result<Option<(Bytes, Bytes)>> {
        self.scan(range).rev().only_first().await
    }

    /// The entries in `range` at this instant: see [`Db::scan`](crate::Db::scan).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("a", "1").await?;
    /// let mut scan = db.snapshot().scan("a".."c");
    /// db.put("b", "2").await?;
    /// let batch = scan.next_chunk().await?.expect("there is an entry");
    /// assert_eq!(batch.iter().count(), 1);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    #[allow(
        clippy::needless_pass_by_value,
        reason = "`scan(a..b)` reads better than `scan(&(a..b))`"
    )]
    pub fn scan(&self, range: impl KeyRange) -> Scan {
        Scan::new(self.reader.clone(), range.span())
    }

    /// The entries whose keys start with `prefix`, at this instant: see
    /// [`Db::scan_prefix`](crate::Db::scan_prefix).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// db.put("word:1", "ant").await?;
    /// let mut scan = db.snapshot().scan_prefix("user:");
    /// let batch = scan.next_chunk().await?.expect("there is a user");
    /// assert_eq!(batch.iter().count(), 1);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        Scan::new(self.reader.clone(), Span::prefix(prefix.as_ref()))
    }

    /// The sequence number of the last write that this snapshot shows.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let seqno = db.put("user:1", "Ada").await?;
    /// assert_eq!(db.snapshot().seqno(), seqno);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn seqno(&self) -> u64 {
        let Seqno(number) = self.reader.view().upto;
        number
    }
}
