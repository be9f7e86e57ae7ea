//! What is written through a database handle. Single keys, batches and pipelined batches take the
//! same path.

mod options;
mod ticket;

pub use options::WriteOptions;
pub use ticket::Ticket;

use crate::WriteBatch;
use crate::coop;
use crate::db::Db;
use crate::error::{Error, Outcome, Result};
use crate::options::Durability;
use bytes::Bytes;
use futures::future::BoxFuture;
use sluicedb_actors::bulk_worker::message::Content;
use sluicedb_actors::failure::WriteFailure;
use sluicedb_actors::range_owner::message::is_heavy;
use sluicedb_actors::write::{Submitted, WaitLimit, WritePath};
use sluicedb_storage::batch::{
    OPERATION_OVERHEAD_MAX, check_entry, encode_before_value, encode_operation,
};
use sluicedb_storage::key::{Kind, Seqno};
use sluicedb_storage::keyspace::KeyspaceId;
use tokio::task::yield_now;

/// Entries up to this size are encoded on the stack.
const STACK_ENTRY_BYTES: usize = 1024;
/// Most entries fit into this size, and then less of the stack must be cleared.
const SMALL_ENTRY_BYTES: usize = 192;
/// A longer value is copied in pieces of this length, and others have a turn in between. The memory
/// is new, so that a piece takes about 0.1 ms.
const PIECE_BYTES: usize = 256 << 10;

impl Db {
    /// Sets `key` to `value`. Returns the write's sequence number. When it returns, every later
    /// read by anyone sees the write, and it survives what the database's [`Durability`] says.
    ///
    /// Costs some hundred nanoseconds if nobody else writes and no sync is requested; then it runs
    /// on the calling thread. Waits while the key's range or the whole database has too much
    /// unflushed data. If it is `Synced`, it also waits for a sync of the log, which writers share.
    ///
    /// Sequence numbers rise in the order of writes, over all keyspaces: of two writes, one after
    /// the other, the later has the larger number. A [snapshot](crate::Snapshot::seqno) whose
    /// number is at least as large shows the write.
    ///
    /// # Errors
    /// `Invalid` for an empty or oversized key or value, before anything else happens. `NoSpace`,
    /// `Closed`, `Io`; [`Error::outcome`] says what became of the write.
    ///
    /// # Cancellation
    /// If it is dropped while it waits for room, nothing is written. If it is dropped later, the
    /// write completes.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let first = db.put("user:1", "Ada").await?;
    /// let second = db.put("user:1", "Grace").await?;
    /// assert!(first < second && db.snapshot().seqno() >= second);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    #[doc(alias = "insert")]
    #[doc(alias = "set")]
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64> {
        self.put_with(key, value, WriteOptions::new()).await
    }

    /// As [`put`](Self::put), with [`WriteOptions`]: a durability of its own, a deadline, or no
    /// waiting.
    ///
    /// # Errors
    /// As `put`. `Overloaded` if there is no room until the deadline, or none now and it must not
    /// wait. Nothing is written then.
    ///
    /// # Cancellation
    /// As `put`.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, Durability, WriteOptions};
    /// let db = Db::open(dir.path()).await?;
    /// let buffered = WriteOptions::durability(Durability::Buffered);
    /// db.put_with("seen:1", "now", buffered).await?;
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<u64> {
        coop::one().await;
        let length = value.as_ref().len();
        if length >= coop::WRITTEN_BYTES {
            coop::more_to_write(length).await;
            if length > PIECE_BYTES {
                return self.put_in_pieces(key.as_ref(), value.as_ref(), options).await;
            }
        }
        match self.submit_one(Kind::Put, key.as_ref(), value.as_ref(), options)? {
            Submitted::Done(seqno) => Ok(seqno.0),
            submitted => self.finish(submitted, options).await,
        }
    }

    /// Deletes `key`. It need not exist. Returns the write's sequence number.
    ///
    /// Costs and waits as [`put`](Self::put): it writes a tombstone, and reads nothing.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Cancellation
    /// As [`put`](Self::put).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "Ada").await?;
    /// db.delete("user:1").await?;
    /// assert_eq!(db.get("user:1").await?, None);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    #[doc(alias = "remove")]
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<u64> {
        self.delete_with(key, WriteOptions::new()).await
    }

    /// As [`delete`](Self::delete), with [`WriteOptions`].
    ///
    /// # Errors
    /// As [`put_with`](Self::put_with).
    ///
    /// # Cancellation
    /// As [`put`](Self::put).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// use sluicedb::{Durability, WriteOptions};
    /// db.delete_with("seen:1", WriteOptions::durability(Durability::Buffered)).await?;
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn delete_with(&self, key: impl AsRef<[u8]>, options: WriteOptions) -> Result<u64> {
        coop::one().await;
        match self.submit_one(Kind::Delete, key.as_ref(), &[], options)? {
            Submitted::Done(seqno) => Ok(seqno.0),
            submitted => self.finish(submitted, options).await,
        }
    }

    /// Writes a batch: all of it becomes visible, durable and recoverable together, or nothing
    /// does. Returns the sequence number of its last operation. An empty batch does nothing, and
    /// returns the number of the last visible write.
    ///
    /// Costs no copy of the batch. Waits as [`put`](Self::put) does, for room in all ranges that it
    /// touches. A batch that deletes ranges is a change of the database's tables, and waits for two
    /// syncs of the disk.
    ///
    /// # Errors
    /// As [`put`](Self::put). Also `Invalid` for a batch larger than `batch_bytes_max`. A refused
    /// batch is returned in the error: [`Error::take_batch`].
    ///
    /// # Cancellation
    /// As [`put`](Self::put).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, WriteBatch};
    /// let db = Db::open(dir.path()).await?;
    /// let mut batch = WriteBatch::new();
    /// batch.put("user:1", "Ada").put("user:2", "Bob").delete("user:3");
    /// db.write(batch).await?;
    /// assert!(db.contains_key("user:2").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn write(&self, batch: WriteBatch) -> Result<u64> {
        self.write_with(batch, WriteOptions::new()).await
    }

    /// As [`write`](Self::write), with [`WriteOptions`].
    ///
    /// # Errors
    /// As `write`. `Overloaded` if there is no room until the deadline, or none now and it must not
    /// wait. `Invalid` for a batch that deletes ranges and must not wait.
    ///
    /// # Cancellation
    /// As [`put`](Self::put).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// use sluicedb::{ErrorKind, WriteBatch, WriteOptions};
    /// let mut batch = WriteBatch::new();
    /// batch.put("a", "1").put("b", "2");
    /// match db.write_with(batch, WriteOptions::new().no_wait()).await {
    ///     Err(error) if error.kind() == ErrorKind::Overloaded => { /* shed the load */ }
    ///     written => assert!(written? > 0),
    /// }
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn write_with(&self, batch: WriteBatch, options: WriteOptions) -> Result<u64> {
        coop::to_write(batch.memory_bytes() as usize).await;
        if let Some(seqno) = self.without_the_log(&batch) {
            return Ok(seqno.0);
        }
        if batch.deletes_ranges() {
            return Ok(self.write_as_change(batch, options).await?.0);
        }
        let submitted = self.submit_batch(batch, options, false).await?;
        Ok(self.acknowledged(submitted, options).await?)
    }

    /// Submits a batch. Returns once its place in the order of writes is fixed; the [`Ticket`]
    /// tells what becomes of it. For pipelining: submit many, then await them.
    ///
    /// On return this holds, and no more:
    /// * Whatever is submitted or written afterwards comes after it, and has a larger sequence
    ///   number.
    /// * It is written, whether the ticket is awaited or dropped, unless one of these comes first:
    ///   the engine stops, the disk has no room for another log segment, or a keyspace that it
    ///   names is dropped.
    /// * Reads may or may not see it already: [`Ticket::visible`] waits for that. If it needs a
    ///   sync, that has been requested.
    ///
    /// A batch that deletes ranges is visible and durable when this returns.
    ///
    /// # Errors
    /// As [`write`](Self::write), for what is known before its place is fixed. The error then
    /// returns the batch.
    ///
    /// # Cancellation
    /// If it is dropped while it waits for room, nothing is written. The ticket may be dropped: the
    /// write completes.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, WriteBatch};
    /// let db = Db::open(dir.path()).await?;
    /// let mut tickets = Vec::new();
    /// for n in 0..100_u32 {
    ///     let mut batch = WriteBatch::new();
    ///     batch.put(n.to_be_bytes(), "an order");
    ///     tickets.push(db.submit(batch).await?);
    /// }
    /// for ticket in tickets {
    ///     ticket.await?;
    /// }
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn submit(&self, batch: WriteBatch) -> Result<Ticket> {
        self.submit_with(batch, WriteOptions::new()).await
    }

    /// As [`submit`](Self::submit), with [`WriteOptions`].
    ///
    /// # Errors
    /// As `submit` and [`write_with`](Self::write_with).
    ///
    /// # Cancellation
    /// As `submit`.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// use sluicedb::{Durability, WriteBatch, WriteOptions};
    /// let mut batch = WriteBatch::new();
    /// batch.put("a", "1");
    /// let ticket = db.submit_with(batch, WriteOptions::durability(Durability::Buffered)).await?;
    /// ticket.await?;
    /// assert!(db.contains_key("a").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn submit_with(&self, batch: WriteBatch, options: WriteOptions) -> Result<Ticket> {
        coop::to_write(batch.memory_bytes() as usize).await;
        let sync = || self.engine().sync_request();
        if let Some(seqno) = self.without_the_log(&batch) {
            return Ok(Ticket::done(seqno, sync()));
        }
        if batch.deletes_ranges() {
            return Ok(Ticket::done(self.write_as_change(batch, options).await?, sync()));
        }
        let sync = (self.durability(options) == Durability::Buffered).then(sync);
        Ok(Ticket::new(self.submit_batch(batch, options, true).await?, sync))
    }

    /// The result for an empty batch, which never reaches the log.
    fn without_the_log(&self, batch: &WriteBatch) -> Option<Seqno> {
        batch.is_empty().then(|| self.engine().visible())
    }

    fn durability(&self, options: WriteOptions) -> Durability {
        options.durability.unwrap_or(self.default_durability())
    }

    #[inline]
    fn submit_one(
        &self,
        kind: Kind,
        key: &[u8],
        value: &[u8],
        options: WriteOptions,
    ) -> Result<Submitted> {
        check_entry(key.len(), value.len(), self.value_bytes_max()).map_err(Error::invalid)?;
        let durability = self.durability(options);
        let path = self.engine().write_path();
        let bytes = key.len() + value.len() + OPERATION_OVERHEAD_MAX;
        let entry = (self.keyspace_id(), kind, key, value);
        if bytes <= SMALL_ENTRY_BYTES {
            return submit_on_stack::<SMALL_ENTRY_BYTES>(path, entry, durability);
        }
        if bytes <= STACK_ENTRY_BYTES {
            return submit_on_stack::<STACK_ENTRY_BYTES>(path, entry, durability);
        }
        let mut encoded = vec![0; bytes];
        let length = encode_operation(&mut encoded, self.keyspace_id(), kind, key, value);
        encoded.truncate(length);
        let submitted = path.submit_owned(Bytes::from(encoded), 1, durability);
        Ok(submitted.map_err(|rejected| rejected.failure)?)
    }

    /// Puts one entry with a long value. The future is boxed, since few puts need it.
    #[cold]
    fn put_in_pieces<'a>(
        &'a self,
        key: &'a [u8],
        value: &'a [u8],
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let (keys, values) = (key.len(), value.len());
            check_entry(keys, values, self.value_bytes_max()).map_err(Error::invalid)?;
            let mut encoded = Vec::with_capacity(keys + values + OPERATION_OVERHEAD_MAX);
            encoded.resize(keys + OPERATION_OVERHEAD_MAX, 0);
            let keyspace = self.keyspace_id();
            let before = encode_before_value(&mut encoded, keyspace, Kind::Put, key, values);
            encoded.truncate(before);
            for piece in value.chunks(PIECE_BYTES) {
                encoded.extend_from_slice(piece);
                yield_now().await;
            }
            let (path, durability) = (self.engine().write_path(), self.durability(options));
            let submitted = path.submit_owned(Bytes::from(encoded), 1, durability);
            match submitted.map_err(|rejected| rejected.failure)? {
                Submitted::Done(seqno) => Ok(seqno.0),
                submitted => self.finish(submitted, options).await,
            }
        })
    }

    /// `batch` as it goes into the log, or why it cannot, with the batch. A heavy batch is copied
    /// by an engine thread, within `limit`.
    async fn checked(&self, batch: WriteBatch, limit: WaitLimit) -> Result<WriteBatch> {
        if let Err(what) = self.check(&batch) {
            return Err(Error::invalid(what).with_batch(batch));
        }
        let keyspace = self.keyspace_ref();
        if batch.is_within(keyspace.id()) {
            return Ok(batch);
        }
        let batch = if is_heavy(batch.encoded_len(), batch.len() as u32) {
            let copy = move |batch: &WriteBatch| batch.copied_within(keyspace);
            let copied = self.engine().write_path().work_elsewhere(batch, copy, limit).await;
            copied.map_err(|(batch, failure)| Error::from(failure).with_batch(batch))?
        } else {
            batch.within(keyspace)
        };
        // It may have become longer.
        match self.check_size(&batch) {
            Ok(()) => Ok(batch),
            Err(what) => Err(Error::invalid(what).with_batch(batch)),
        }
    }

    fn check(&self, batch: &WriteBatch) -> Result<(), String> {
        batch.check(self.value_bytes_max())?;
        if batch.database().is_some_and(|database| database != self.keyspace_ref().database()) {
            let what = "the batch names keyspaces of another database, or of one that was closed";
            return Err(what.to_owned());
        }
        self.check_size(batch)
    }

    fn check_size(&self, batch: &WriteBatch) -> Result<(), String> {
        let (bytes, limit) = (batch.encoded_len(), self.engine().batch_bytes_max());
        if bytes > limit {
            return Err(format!(
                "the batch has {bytes} bytes; the limit is {limit} (option batch_bytes_max)"
            ));
        }
        // A batch that deletes ranges goes into tables, and not through memory.
        let room = self.engine().config().write_buffer_bytes as u64;
        if batch.memory_bytes() > room && batch.deleted_ranges().is_empty() {
            return Err(format!(
                "the {} operations of the batch take {} bytes of memory; the write buffer has \
                 {room}; write them in several batches",
                batch.len(),
                batch.memory_bytes()
            ));
        }
        Ok(())
    }

    /// Writes a batch that deletes ranges, in one change. Returns the change's number.
    async fn write_as_change(&self, batch: WriteBatch, options: WriteOptions) -> Result<Seqno> {
        if options.limit != WaitLimit::Forever {
            let what = "a batch that deletes ranges waits for the disk; write it without `no_wait` \
                        and without a deadline";
            return Err(Error::invalid(what).with_batch(batch));
        }
        let batch = self.checked(batch, options.limit).await?;
        let spans = batch.deleted_ranges();
        let (seqno, _) = self.engine().replace(spans, Content::Batch(batch)).await?;
        Ok(seqno)
    }

    /// Waits until the batch is in the log, or queued for it in its final order.
    async fn submit_batch(
        &self,
        batch: WriteBatch,
        options: WriteOptions,
        in_stages: bool,
    ) -> Result<Submitted> {
        let mut batch = self.checked(batch, options.limit).await?;
        let (operations, durability) = (batch.len() as u32, self.durability(options));
        let (path, payload) = (self.engine().write_path(), Bytes::from(batch.take_encoded()));
        let submitted = if in_stages {
            path.submit_in_stages(payload, operations, durability)
        } else {
            path.submit_owned(payload, operations, durability)
        };
        let rejected = match submitted {
            Ok(Submitted::Done(seqno)) => return Ok(Submitted::Done(seqno)),
            Ok(submitted) => match path.admitted(submitted, options.limit).await {
                Ok(admitted) => return Ok(admitted),
                Err(rejected) => rejected,
            },
            Err(rejected) => rejected,
        };
        let error = Error::from(rejected.failure);
        match rejected.payload {
            Some(payload) if error.outcome() == Outcome::NotApplied => {
                batch.put_back(payload.into());
                Err(error.with_batch(batch))
            }
            _ => Err(error),
        }
    }

    /// Completes a write of one entry that was not done at once.
    #[cold]
    async fn finish(&self, submitted: Submitted, options: WriteOptions) -> Result<u64> {
        let admitted = self.engine().write_path().admitted(submitted, options.limit).await;
        let admitted = admitted.map_err(|rejected| rejected.failure)?;
        Ok(self.acknowledged(admitted, options).await?)
    }

    async fn acknowledged(
        &self,
        submitted: Submitted,
        options: WriteOptions,
    ) -> Result<u64, WriteFailure> {
        let durability = self.durability(options);
        Ok(self.engine().write_path().acknowledged(submitted, durability).await?.0)
    }
}

/// Encodes into `BYTES` bytes of stack, which suffice, and submits.
#[inline]
fn submit_on_stack<const BYTES: usize>(
    path: &WritePath,
    (keyspace, kind, key, value): (KeyspaceId, Kind, &[u8], &[u8]),
    durability: Durability,
) -> Result<Submitted> {
    let mut scratch = [0; BYTES];
    let length = encode_operation(&mut scratch, keyspace, kind, key, value);
    Ok(path.submit(&scratch[..length], 1, durability)?)
}

#[cfg(test)]
mod tests;
