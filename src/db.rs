//! The database handle.
//!
//! Long because the methods of the handle, with their documentation, are what users read.

use crate::compaction::Compaction;
use crate::error::{Error, Result};
use crate::health::Health;
use crate::keyspaces::next_database;
use crate::levels::LevelInfo;
use crate::options::{Durability, Options};
use crate::pins::Pin;
use crate::pressure::{Pressure, PressureWatch};
use crate::reader::Reader;
use crate::scan::Scan;
use crate::snapshot::Snapshot;
use crate::stats::Stats;
use crate::{Builder, WriteBatch};
use bytes::Bytes;
use sluicedb_actors::bulk_worker::message::Content;
use sluicedb_actors::engine::Engine;
use sluicedb_actors::log_writer::message::{Committed, Level};
use sluicedb_actors::range_owner::message::is_heavy;
use sluicedb_actors::write::{Patience, Submitted, WritePath};
use sluicedb_storage::Error as StorageError;
use sluicedb_storage::batch::{KeyspaceRef, OPERATION_OVERHEAD_MAX, check_entry, encode_operation};
use sluicedb_storage::key::{Kind, Seqno, Span};
use sluicedb_storage::key_range::KeyRange;
use sluicedb_storage::keyspace::KeyspaceId;
use sluicedb_storage::points::Holder;
use sluicedb_storage::table::ReadTier;
use sluicedb_storage::view::View;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Entries up to this size are encoded on the stack.
const STACK_ENTRY_BYTES: usize = 1024;
/// Most entries: for them less stack is cleared.
const SMALL_ENTRY_BYTES: usize = 192;

/// How one write is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// What its acknowledgement means; `None` takes the database's setting.
    pub durability: Option<Durability>,
    /// When to give up waiting for room with [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded);
    /// `None` waits as long as it takes. It bounds that wait only: once there is room a write is never
    /// given up, however long the disk takes to sync it or to bring in a page of the log.
    pub deadline: Option<Instant>,
}

impl WriteOptions {
    /// Acknowledged at this durability.
    pub fn durability(durability: Durability) -> Self {
        Self { durability: Some(durability), deadline: None }
    }

    /// The same, giving up at `deadline`.
    pub fn by(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }
}

/// An open database, seen from one of its keyspaces. Cheap to clone; all clones are the same database.
///
/// [`open`](Self::open) gives a handle on the default keyspace, and [`keyspace`](Self::keyspace) gives others. What
/// has to do with keys is about the keys of that keyspace, everything else about the whole database.
///
/// No method blocks the calling thread on the disk, on another writer or on compaction; what can
/// wait is `async`, works in any executor, and completes on its first poll when nothing has to be
/// waited for.
///
/// Wakers of tasks may do what they like, but for one kind: those of tasks on a tokio `LocalSet` call
/// whatever polls the set, on threads of the engine, so that must not wait for the database.
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

    pub(crate) fn keyspace_id(&self) -> KeyspaceId {
        self.keyspace.id()
    }

    pub(crate) fn keyspace_ref(&self) -> KeyspaceRef {
        self.keyspace
    }

    /// The same database, seen from another keyspace of it.
    pub(crate) fn seen_from(&self, id: KeyspaceId) -> Self {
        Self { keyspace: KeyspaceRef::new(self.keyspace.database(), id), ..self.clone() }
    }

    /// Sets `key` to `value`. When it returns, every later read by anyone sees it, and it survives
    /// what the database's [`Durability`] says.
    ///
    /// Waits while the key's range or the whole database has too much unflushed data.
    ///
    /// # Errors
    /// `Invalid` for an empty or oversized key or value, before anything else happens; `NoSpace`,
    /// `Closed`, `Io` with [`Error::outcome`].
    ///
    /// # Cancellation
    /// Dropped while it waits for room, nothing is written. Dropped later, the write completes.
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_with(key, value, WriteOptions::default()).await
    }

    /// [`put`](Self::put) with [`WriteOptions`].
    ///
    /// # Errors
    /// As `put`, and `Overloaded` when the deadline passes before there is room.
    pub async fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<()> {
        tokio::task::coop::consume_budget().await;
        let submitted = self.submit_one(Kind::Put, key.as_ref(), value.as_ref(), options)?;
        self.finish(submitted, options).await
    }

    /// Removes `key`; fine if it is not there.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Cancellation
    /// As [`put`](Self::put).
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.delete_with(key, WriteOptions::default()).await
    }

    /// [`delete`](Self::delete) with [`WriteOptions`].
    ///
    /// # Errors
    /// As [`put_with`](Self::put_with).
    pub async fn delete_with(&self, key: impl AsRef<[u8]>, options: WriteOptions) -> Result<()> {
        tokio::task::coop::consume_budget().await;
        let submitted = self.submit_one(Kind::Delete, key.as_ref(), &[], options)?;
        self.finish(submitted, options).await
    }

    /// Writes a batch: all of it becomes visible, durable and recoverable together, or none.
    /// An empty batch does nothing.
    ///
    /// # Errors
    /// As [`put`](Self::put); `Invalid` also for a batch larger than `batch_bytes_max`.
    ///
    /// # Cancellation
    /// As [`put`](Self::put).
    pub async fn write(&self, batch: WriteBatch) -> Result<()> {
        self.write_with(batch, WriteOptions::default()).await
    }

    /// [`write`](Self::write) with [`WriteOptions`].
    ///
    /// # Errors
    /// As `write`, and `Overloaded` when the deadline passes before there is room.
    pub async fn write_with(&self, batch: WriteBatch, options: WriteOptions) -> Result<()> {
        tokio::task::coop::consume_budget().await;
        if batch.is_empty() {
            return Ok(());
        }
        if batch.deletes_ranges() {
            return self.write_as_change(batch).await.map(drop);
        }
        let submitted = self.submit_batch(batch, options).await?;
        self.finish(submitted, options).await
    }

    /// [`put`](Self::put) that never waits for room.
    ///
    /// # Errors
    /// As `put`; `Overloaded` at once when there is no room. Nothing is written then.
    pub async fn try_put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        tokio::task::coop::consume_budget().await;
        let options = WriteOptions::default();
        let submitted = self.submit_one(Kind::Put, key.as_ref(), value.as_ref(), options)?;
        self.finish_or_refuse(submitted).await
    }

    /// [`delete`](Self::delete) that never waits for room.
    ///
    /// # Errors
    /// As [`try_put`](Self::try_put).
    pub async fn try_delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        tokio::task::coop::consume_budget().await;
        let submitted =
            self.submit_one(Kind::Delete, key.as_ref(), &[], WriteOptions::default())?;
        self.finish_or_refuse(submitted).await
    }

    /// [`write`](Self::write) that never waits for room, neither for its bytes nor in a queue. (An engine
    /// thread finds out which ranges a heavy batch touches. That is work, and waited for as the
    /// acknowledgement is.)
    ///
    /// # Errors
    /// As [`try_put`](Self::try_put); `Invalid` for a batch that deletes ranges, which waits for the disk.
    pub async fn try_write(&self, batch: WriteBatch) -> Result<()> {
        tokio::task::coop::consume_budget().await;
        if batch.is_empty() {
            return Ok(());
        }
        if batch.deletes_ranges() {
            let what = "a batch that deletes ranges waits for the disk; give it to `write`";
            return Err(Error::invalid(what));
        }
        let submitted = self.submit_batch(batch, WriteOptions::default()).await?;
        self.finish_or_refuse(submitted).await
    }

    /// [`put`](Self::put) that gives up at `deadline` if there is no room by then.
    ///
    /// # Errors
    /// As `put`; `Overloaded` at the deadline. Nothing is written then.
    pub async fn put_by(
        &self,
        deadline: Instant,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.put_with(key, value, WriteOptions::default().by(deadline)).await
    }

    /// [`write`](Self::write) that gives up at `deadline` if there is no room by then.
    ///
    /// # Errors
    /// As `write`; `Overloaded` at the deadline. Nothing is written then.
    pub async fn write_by(&self, deadline: Instant, batch: WriteBatch) -> Result<()> {
        self.write_with(batch, WriteOptions::default().by(deadline)).await
    }

    /// Submits a batch and returns once its place in the order of writes is fixed; the [`Ticket`]
    /// resolves when it is acknowledged. For pipelining: submit many, then await them.
    ///
    /// # Errors
    /// As [`write`](Self::write), for what is known before the batch is in the log.
    ///
    /// # Cancellation
    /// Dropped while it waits for room, nothing is written. The ticket may be dropped: the write
    /// completes.
    pub async fn submit(&self, batch: WriteBatch) -> Result<Ticket> {
        self.submit_with(batch, WriteOptions::default()).await
    }

    /// [`submit`](Self::submit) with [`WriteOptions`].
    ///
    /// # Errors
    /// As `submit`.
    pub async fn submit_with(&self, batch: WriteBatch, options: WriteOptions) -> Result<Ticket> {
        tokio::task::coop::consume_budget().await;
        if batch.is_empty() {
            return Ok(Ticket { state: Submitted::Done(self.engine().visible()) });
        }
        if batch.deletes_ranges() {
            return Ok(Ticket { state: Submitted::Done(self.write_as_change(batch).await?) });
        }
        let submitted = self.submit_batch(batch, options).await?;
        Ok(Ticket { state: self.admitted(submitted, options).await? })
    }

    fn level(&self, options: WriteOptions) -> Level {
        match options.durability.unwrap_or(self.durability) {
            Durability::Buffered => Level::Buffered,
            Durability::Synced => Level::Synced,
        }
    }

    #[inline]
    fn submit_one(
        &self,
        kind: Kind,
        key: &[u8],
        value: &[u8],
        options: WriteOptions,
    ) -> Result<Submitted> {
        check_entry(key.len(), value.len(), self.value_bytes_max).map_err(Error::invalid)?;
        let level = self.level(options);
        let path = self.engine().write_path();
        let bytes = key.len() + value.len() + OPERATION_OVERHEAD_MAX;
        let entry = (self.keyspace.id(), kind, key, value);
        if bytes <= SMALL_ENTRY_BYTES {
            return submit_on_stack::<SMALL_ENTRY_BYTES>(path, entry, level);
        }
        if bytes <= STACK_ENTRY_BYTES {
            return submit_on_stack::<STACK_ENTRY_BYTES>(path, entry, level);
        }
        let mut encoded = vec![0; bytes];
        let length = encode_operation(&mut encoded, self.keyspace.id(), kind, key, value);
        encoded.truncate(length);
        Ok(path.submit_owned(Bytes::from(encoded), 1, level)?)
    }

    /// `batch` as it goes into the log, or why it cannot. To copy a heavy one is an engine thread's work.
    async fn checked(&self, batch: WriteBatch) -> Result<WriteBatch> {
        batch.check(self.value_bytes_max).map_err(Error::invalid)?;
        if batch.database().is_some_and(|database| database != self.keyspace.database()) {
            let what = "the batch names keyspaces of another database, or of one that was closed";
            return Err(Error::invalid(what));
        }
        self.check_size(&batch)?;
        let keyspace = self.keyspace.id();
        if batch.is_within(keyspace) {
            return Ok(batch);
        }
        let batch = if is_heavy(batch.encoded_len(), batch.len() as u32) {
            self.engine().read_pool().read(move || batch.within(keyspace)).await?
        } else {
            batch.within(keyspace)
        };
        self.check_size(&batch)?;
        Ok(batch)
    }

    fn check_size(&self, batch: &WriteBatch) -> Result<()> {
        let (bytes, limit) = (batch.encoded_len(), self.engine().batch_bytes_max());
        if bytes > limit {
            let what = format!(
                "the batch has {bytes} bytes; the limit is {limit} (option batch_bytes_max)"
            );
            return Err(Error::invalid(what));
        }
        Ok(())
    }

    /// A batch that deletes ranges, in one change; the change's number.
    async fn write_as_change(&self, batch: WriteBatch) -> Result<Seqno> {
        let batch = self.checked(batch).await?;
        let spans = batch.deleted_ranges();
        let (seqno, _) = self.engine().replace(spans, Content::Batch(batch)).await?;
        Ok(seqno)
    }

    async fn submit_batch(&self, batch: WriteBatch, options: WriteOptions) -> Result<Submitted> {
        let batch = self.checked(batch).await?;
        let (operations, level) = (batch.len() as u32, self.level(options));
        let payload = batch.into_encoded().into();
        Ok(self.engine().write_path().submit_owned(payload, operations, level)?)
    }

    async fn finish(&self, submitted: Submitted, options: WriteOptions) -> Result<()> {
        if let Submitted::Done(_) = submitted {
            return Ok(());
        }
        Ticket { state: self.admitted(submitted, options).await? }.await.map(|_| ())
    }

    /// Waits until the write is in the log, or queued for it in its final order.
    async fn admitted(&self, submitted: Submitted, options: WriteOptions) -> Result<Submitted> {
        let (path, patience) = (self.engine().write_path(), patience(options));
        match self.routed(submitted, Some(patience)).await? {
            Submitted::NotAdmitted(write, _) => Ok(path.admit_and_submit(write, patience).await?),
            submitted => Ok(submitted),
        }
    }

    async fn routed(&self, submitted: Submitted, patience: Option<Patience>) -> Result<Submitted> {
        match submitted {
            Submitted::NotRouted(write) => {
                Ok(self.engine().write_path().route_and_submit(write, patience).await?)
            }
            submitted => Ok(submitted),
        }
    }

    async fn finish_or_refuse(&self, submitted: Submitted) -> Result<()> {
        match self.routed(submitted, None).await? {
            Submitted::NotAdmitted(write, scope) => {
                Err(self.engine().write_path().overloaded(&write, scope).into())
            }
            submitted => Ticket { state: submitted }.await.map(|_| ()),
        }
    }

    /// The value of `key`, or `None`.
    ///
    /// Completes on its first poll when the value, or the proof of its absence, is in memory or in
    /// the page cache; otherwise an engine thread reads the block. A small value is a copy; one that
    /// is a good part of its block shares the block's memory.
    ///
    /// # Errors
    /// `Corrupt` or `Io` when a block cannot be read, naming file and offset; other keys are not
    /// affected.
    ///
    /// # Cancellation
    /// No effect.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        tokio::task::coop::consume_budget().await;
        let key = key.as_ref();
        match self.engine().get(self.keyspace.id(), key, ReadTier::Memory) {
            Err(StorageError::WouldBlock) => self.reader(Holder::Lookup).get(key).await,
            result => Ok(result?),
        }
    }

    /// Is `key` there? Like [`get`](Self::get) without copying the value.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        tokio::task::coop::consume_budget().await;
        let key = key.as_ref();
        match self.engine().contains_key(self.keyspace.id(), key, ReadTier::Memory) {
            Err(StorageError::WouldBlock) => self.reader(Holder::Lookup).contains_key(key).await,
            result => Ok(result?),
        }
    }

    /// The values of `keys`, in their order and all at one instant.
    ///
    /// # Errors
    /// As [`get`](Self::get); one failure fails all.
    pub async fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>> {
        tokio::task::coop::consume_budget().await;
        let reader = self.reader(Holder::Lookup);
        reader.multi_get(reader.of_mine(keys)).await
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
    pub fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        Scan::new(self.reader(Holder::Scan), Span::prefix(prefix.as_ref()))
    }

    /// This instant, to read from at leisure. Waits for nobody (a lock is held for a few instructions).
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.reader(Holder::Snapshot))
    }

    /// [`snapshot`](Self::snapshot) with a label, by which [`pins`](Self::pins) tells whose it is.
    /// The label decides nothing, and several snapshots may have the same one. It costs a copy of
    /// the label, a look at the clock and a look at whatever else is open.
    pub fn snapshot_labelled(&self, label: impl AsRef<str>) -> Snapshot {
        Snapshot::new(self.reader_of(self.engine().labelled_view(label.as_ref())))
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

    pub(crate) fn reader(&self, holder: Holder) -> Reader {
        self.reader_of(self.engine().view(holder))
    }

    fn reader_of(&self, view: View) -> Reader {
        let engine = self.engine();
        Reader::new(view, self.keyspace, engine.read_pool(), engine.damage())
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
    /// `Io` when the log cannot be synced; writes stop then. `Closed` after [`close`](Self::close), which
    /// has synced everything.
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

    /// Flushes, then merges the tables with keys in `range`, as a whole and with all that overlaps them.
    /// Writes go on meanwhile, other compactions wait. It says how far it has come, can stop at a level,
    /// and ends when it is dropped: see [`Compaction`].
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

    /// The pressure to wait on: shed load, slow a producer down or raise an alarm before writers wait.
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

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("dir", &self.engine().dir()).finish_non_exhaustive()
    }
}

/// A submitted batch: resolves to its sequence number when it is acknowledged.
///
/// # Cancellation
/// Dropping it changes nothing: the write completes.
#[must_use = "the write may still fail"]
#[derive(Debug)]
pub struct Ticket {
    state: Submitted,
}

impl Future for Ticket {
    type Output = Result<u64>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<u64>> {
        let committed: Committed = std::task::ready!(self.state.poll(context));
        std::task::Poll::Ready(committed.map(|seqno| seqno.0).map_err(Error::from))
    }
}

/// Encodes into `BYTES` bytes of stack, which are enough, and submits.
#[inline]
fn submit_on_stack<const BYTES: usize>(
    path: &WritePath,
    (keyspace, kind, key, value): (KeyspaceId, Kind, &[u8], &[u8]),
    level: Level,
) -> Result<Submitted> {
    let mut scratch = [0; BYTES];
    let length = encode_operation(&mut scratch, keyspace, kind, key, value);
    Ok(path.submit(&scratch[..length], 1, level)?)
}

fn patience(options: WriteOptions) -> Patience {
    options.deadline.map_or(Patience::Forever, Patience::Until)
}

#[cfg(test)]
mod tests;
