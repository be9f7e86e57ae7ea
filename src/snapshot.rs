//! Snapshots: one instant, for as long as it is wanted.

use crate::WriteBatch;
use crate::error::{Error, Result};
use crate::keyspaces::another_database;
use crate::reader::Reader;
use crate::scan::Scan;
use bytes::Bytes;
use sluicedb_storage::key::{Seqno, Span};
use sluicedb_storage::key_range::KeyRange;
use sluicedb_storage::limits::VALUE_BYTES_CAP;

/// One instant of the database: later writes, flushes and compactions do not change what it shows.
///
/// Cheap to take and to clone (a few reference counts). It holds the memtables and files it reads:
/// a snapshot kept for hours keeps memory and disk space of that age. [`Db::pins`](crate::Db::pins)
/// tells how much of the disk, and whose it is if it was [labelled](crate::Db::snapshot_labelled).
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
    /// batch were written right then. For a transaction that reads what it will write.
    ///
    /// Every read of a snapshot works on it, as on any: gets, scans in both directions, in every
    /// [keyspace](Self::of). What the batch puts is there, what it deletes, by key or by range, is
    /// not, and everything else is as the snapshot has it. What names no keyspace is of this
    /// snapshot's. The snapshot itself stays as it is, and what is added to the batch later is not
    /// seen. If it has a batch over it already this one takes its place.
    ///
    /// Copies and sorts the batch, once; waits for nothing. A read then costs a binary search more,
    /// a scan one more layer to merge, and a seek for each deleted range that it passes.
    ///
    /// # Errors
    /// `Invalid` for a batch with keyspaces of another database, or that writes to one which the
    /// snapshot does not have; for what [`Db::write`](crate::Db::write) would refuse of keys.
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
        // The length of values is the database's business, when the batch is written.
        batch.check(VALUE_BYTES_CAP).map_err(Error::invalid)?;
        let mine = self.reader.keyspace().database();
        if batch.database().is_some_and(|database| database != mine) {
            return Err(another_database());
        }
        Ok(Self::new(self.reader.with(batch.clone())?))
    }

    /// The value of `key` at this instant; see [`Db::get`](crate::Db::get).
    ///
    /// # Errors
    /// `Corrupt` or `Io` when a block cannot be read.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        tokio::task::coop::consume_budget().await;
        self.reader.get(key.as_ref()).await
    }

    /// Is `key` there at this instant?
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        tokio::task::coop::consume_budget().await;
        self.reader.contains_key(key.as_ref()).await
    }

    /// The values of `keys`, in their order.
    ///
    /// # Errors
    /// As [`get`](Self::get); one failure fails all.
    pub async fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>> {
        tokio::task::coop::consume_budget().await;
        self.reader.multi_get(self.reader.of_mine(keys)).await
    }

    /// The length of the value of `key`, or `None`: as [`get`](Self::get), without copying the
    /// value. It reads the block that the value is in, if that is not in memory.
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
        tokio::task::coop::consume_budget().await;
        self.reader.value_len(key.as_ref()).await
    }

    /// The first entry in `range`; `None` if there is none. It costs what a scan's first entry
    /// costs.
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

    /// The last entry in `range`; see [`first`](Self::first).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Cancellation
    /// No effect.
    pub async fn last(&self, range: impl KeyRange) -> Result<Option<(Bytes, Bytes)>> {
        self.scan(range).rev().only_first().await
    }

    /// The entries in `range` at this instant; see [`Db::scan`](crate::Db::scan).
    #[allow(
        clippy::needless_pass_by_value,
        reason = "`scan(a..b)` reads better than `scan(&(a..b))`"
    )]
    pub fn scan(&self, range: impl KeyRange) -> Scan {
        Scan::new(self.reader.clone(), range.span())
    }

    /// The entries whose keys start with `prefix`, at this instant.
    pub fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        Scan::new(self.reader.clone(), Span::prefix(prefix.as_ref()))
    }

    /// The sequence number of the last write that this snapshot shows.
    pub fn seqno(&self) -> u64 {
        let Seqno(number) = self.reader.view().upto;
        number
    }
}
