//! Scans: owned streams over one instant of the database.
//!
//! Long because each method of the one type has an example.

use crate::coop::Owed;
use crate::error::{Error, Result};
use crate::reader::{Cold, Reader};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FusedStream, Stream, TryStreamExt};
use sluicedb_storage::key::Span;
use sluicedb_storage::table::{READ_AT_ONCE_BYTES_MAX, ReadTier};
pub use sluicedb_storage::view::ScanBatch;
use sluicedb_storage::view::{Advanced, ScanBatchBuilder, ScanCursor, ScanSpec};
use sluicedb_storage::{Error as StorageError, Result as StorageResult};
use std::fmt;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A batch ends after so many bytes or entries. The first one is small, so that a short scan is
/// cheap; later ones are larger. If a limit says how long the scan is, the first batch takes all of
/// it if it can.
const BATCH_BYTES_FIRST: usize = 4 << 10;
const BATCH_BYTES_MAX: usize = 32 << 10;
const BATCH_ENTRIES_MAX: usize = 1024;
/// A read thread may fill a larger batch, because no executor waits for it.
const BATCH_BYTES_COLD: usize = 128 << 10;
/// A read thread may pass so many stretches of tombstones. Not more, because other reads wait for
/// the thread.
const EMPTY_TURNS_COLD: usize = 16;
/// Entries that are lent one by one are paid for so many bytes at a time.
const LENT_BYTES: usize = 4 << 10;
/// An entry counts so much beside its bytes.
const LENT_ENTRY_BYTES: usize = 32;

/// The entries of a span in key order: a [`Stream`] of `Result<(key, value)>`.
///
/// A scan shows one instant, the one at which it was created. It is owned, `'static` and `Send`. It
/// holds the memory and the files that it reads until it is dropped. Entries that are in memory or
/// in the page cache are read by the calling task. A cold block is read by an engine thread, which
/// then reads ahead.
///
/// Call [`rev`](Self::rev), [`limit`](Self::limit) and [`keys_only`](Self::keys_only) before the
/// first entry is taken.
///
/// # Cancellation
/// The scan, or a pending `next`, may be dropped at any time. After a dropped `next`
/// the scan continues where it was.
#[must_use = "a scan does nothing until it is polled"]
pub struct Scan {
    /// Where the scan is. While a read thread fills a batch: where the scan was before.
    cursor: ScanCursor,
    state: State,
    /// Dropped after what has the view.
    cold: Cold,
    /// How many entries are handed out at most.
    limit: Option<u64>,
    batch_bytes: usize,
    /// Entries that were read. Those from `position` on are not handed out yet.
    current: ScanBatch,
    position: usize,
    /// So many bytes may be lent before the task's budget is asked.
    paid_bytes: usize,
    /// Entries that were handed out.
    handed_out: u64,
    /// So many of them are counted.
    counted: u64,
    owed: Owed,
}

enum State {
    Ready,
    Filling(BoxFuture<'static, Result<Filled>>),
    /// What was in front of the error has been handed out.
    Failed(Error),
    Ended,
}

/// Where the next entry is.
enum Next {
    InBatch,
    InCursor,
    Nowhere,
}

/// What a read thread brings back.
struct Filled {
    cursor: ScanCursor,
    batch: ScanBatch,
    /// Is there more behind the batch, or an error?
    more: StorageResult<bool>,
    /// Are its values so long that only read threads read such, and is there more? Then the next
    /// batch is filled there too, and the layers of `cursor` stay open for it.
    stays: bool,
}

impl Scan {
    pub(crate) fn new(reader: Reader, span: Span) -> Self {
        let spec = ScanSpec::new(reader.keyspace().id(), span);
        let (view, cold) = reader.into_parts();
        cold.counts().begun();
        let mut owed = Owed::default();
        owed.opens();
        Self {
            cursor: ScanCursor::new(view, spec, ReadTier::Memory),
            state: State::Ready,
            cold,
            limit: None,
            batch_bytes: BATCH_BYTES_FIRST,
            current: ScanBatch::default(),
            position: 0,
            paid_bytes: 0,
            handed_out: 0,
            counted: 0,
            owed,
        }
    }

    /// Nobody waits for a batch that a read thread is filling: the scan is to be another one.
    fn stop_filling(&mut self) {
        if matches!(self.state, State::Filling(_)) {
            self.state = State::Ready;
        }
    }

    /// Counts the entries that were handed out. It is called now and then, because a shared counter
    /// costs more than a field.
    fn count(&mut self) {
        self.cold.counts().scanned(self.handed_out - self.counted);
        self.counted = self.handed_out;
    }

    /// From the last key to the first. A [`seek`](Self::seek) before this call has no effect.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use futures::TryStreamExt;
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// for (key, value) in [("apple", "3"), ("pear", "40"), ("plum", "5")] {
    ///     db.put(key, value).await?;
    /// }
    /// let last = db.scan(..).rev().try_next().await?.unwrap();
    /// assert_eq!(last.0, "plum");
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn rev(mut self) -> Self {
        self.stop_filling();
        self.cursor.turn(self.handed_out == 0);
        self
    }

    /// At most `entries` of them.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use futures::TryStreamExt;
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// for (key, value) in [("apple", "3"), ("pear", "40"), ("plum", "5")] {
    ///     db.put(key, value).await?;
    /// }
    /// let two: Vec<_> = db.scan(..).limit(2).try_collect().await?;
    /// assert_eq!(two.len(), 2);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn limit(mut self, entries: u64) -> Self {
        self.stop_filling();
        let limit = self.limit.map_or(entries, |limit| limit.min(entries));
        self.limit = Some(limit);
        self.cursor.spec_mut().entries_wanted = Some(limit);
        self.batch_bytes = self.batch_bytes_first();
        self
    }

    /// Values come back empty, and are not copied. A [`ScanBatch`] knows their lengths:
    /// [`value_len`](ScanBatch::value_len).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use futures::TryStreamExt;
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// for (key, value) in [("apple", "3"), ("pear", "40"), ("plum", "5")] {
    ///     db.put(key, value).await?;
    /// }
    /// let entries: Vec<_> = db.scan_prefix("p").keys_only().try_collect().await?;
    /// assert_eq!(entries[0], ("pear".into(), "".into()));
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn keys_only(mut self) -> Self {
        self.stop_filling();
        self.cursor.spec_mut().keys_only = true;
        self
    }

    /// Continues at `key`, at the same instant. The next entry is the first one at or after `key`;
    /// with [`rev`](Self::rev) it is the last one at or before `key`. A scan may seek as often as
    /// wanted, forward or back, also after the end or an error. It never leaves its range. A limit
    /// counts the entries that were handed out.
    ///
    /// If the entry was already read, this costs nothing. Otherwise the next entry costs as much as
    /// the first one did: a look into each layer. The call itself waits for nothing.
    ///
    /// # Examples
    /// The newest event of each user, without a walk over the others:
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use futures::TryStreamExt;
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// for key in ["ada/1", "ada/2", "grace/5", "grace/7", "grace/9"] {
    ///     db.put(key, "").await?;
    /// }
    /// let mut scan = db.scan(..).rev();
    /// let mut newest = Vec::new();
    /// while let Some((key, _)) = scan.try_next().await? {
    ///     let user = key.split(|byte| *byte == b'/').next().unwrap();
    ///     scan.seek(user);
    ///     newest.push(key.clone());
    /// }
    /// assert_eq!(newest, ["grace/9", "ada/2"]);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn seek(&mut self, key: impl AsRef<[u8]>) {
        let (key, reverse) = (key.as_ref(), self.cursor.spec().reverse);
        let is_before = |other: &[u8]| if reverse { other > key } else { other < key };
        let left = self.current.len() - self.position;
        let ahead = |at: usize| self.current.entry(at).0;
        let is_read = left > 0
            && (is_before(ahead(self.position)) || ahead(self.position) == key)
            && !is_before(ahead(self.current.len() - 1));
        if is_read {
            while is_before(self.current.entry(self.position).0) {
                self.position += 1;
            }
            // What follows these entries is read when it is asked for, also if the limit had ended
            // the scan.
            return;
        }
        self.position = self.current.len();
        // Also after the end.
        self.state = State::Ready;
        self.batch_bytes = self.batch_bytes_first();
        // A look into each layer costs more than many entries.
        self.paid_bytes = 0;
        self.owed.opens();
        self.cursor.seek(key);
    }

    /// How large the first batch may be.
    fn batch_bytes_first(&self) -> usize {
        let is_short = self.entries_left().is_some_and(|left| left <= BATCH_ENTRIES_MAX as u64);
        if is_short { BATCH_BYTES_MAX } else { BATCH_BYTES_FIRST }
    }

    /// The first entry of the scan. No more is read than that needs.
    pub(crate) async fn only_first(mut self) -> Result<Option<(Bytes, Bytes)>> {
        self.cursor.spec_mut().readahead_bytes = 0;
        self.limit(1).try_next().await
    }

    /// The next entry, borrowed; `None` at the end. A value that is in memory is usually not
    /// copied: it is the one in its block or memtable. So this is the cheapest way through few
    /// entries, or through large ones. It may be mixed with the stream and with
    /// [`next_chunk`](Self::next_chunk); each entry comes once.
    ///
    /// Completes on its first poll while entries are in memory or in the page cache, except that it
    /// lets other tasks run now and then. If a block is cold, it waits until an engine thread has
    /// read it and what follows.
    ///
    /// # Errors
    /// `Corrupt` or `Io` when a block cannot be read; the scan then ends. What lies in front of the
    /// block comes first.
    ///
    /// # Cancellation
    /// Nothing is lost: the next call returns the entry.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// for (key, value) in [("apple", "3"), ("pear", "4"), ("plum", "5")] {
    ///     db.put(key, value).await?;
    /// }
    /// let (mut scan, mut sum) = (db.scan_prefix("p"), 0);
    /// while let Some((_, value)) = scan.next_entry().await? {
    ///     sum += i32::from(value[0] - b'0');
    /// }
    /// assert_eq!(sum, 9);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    #[inline]
    pub async fn next_entry(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        let next = match self.next_paid() {
            Some(next) => next?,
            None => poll_fn(|context| self.poll_next_place(context)).await?,
        };
        Ok(match next {
            Next::InBatch => Some(self.current.entry(self.position - 1)),
            Next::InCursor => Some(self.cursor.entry()),
            Next::Nowhere => None,
        })
    }

    /// Where the next entry is. `None` if that cannot be told at once, or is not paid for.
    #[inline]
    fn next_paid(&mut self) -> Option<Result<Next>> {
        if self.position < self.current.len() {
            self.position += 1;
            self.handed_out += 1;
            return Some(Ok(Next::InBatch));
        }
        if self.paid_bytes == 0 || !matches!(self.state, State::Ready) {
            return None;
        }
        if self.limit.is_some_and(|limit| limit <= self.handed_out) {
            return Some(Ok(self.end_of_limit()));
        }
        match self.cursor.advance() {
            Ok(Advanced::Entry { passed }) => {
                self.handed_out += 1;
                let (key, value) = self.cursor.entry();
                let bytes = key.len() + value.len() + (1 + passed) * LENT_ENTRY_BYTES;
                self.owed.reads(bytes.saturating_sub(self.paid_bytes));
                self.paid_bytes = self.paid_bytes.saturating_sub(bytes);
                Some(Ok(Next::InCursor))
            }
            Ok(Advanced::End) => {
                self.state = State::Ended;
                Some(Ok(Next::Nowhere))
            }
            Ok(Advanced::Rest) => {
                self.paid_bytes = 0;
                None
            }
            Err(StorageError::WouldBlock(_)) => {
                self.state = State::Filling(self.fill_cold());
                None
            }
            Err(error) => {
                self.state = State::Ended;
                Some(self.cold.told(Err(error)))
            }
        }
    }

    /// The limit has ended the scan, so the scan gives up the memory that it pins. It may continue
    /// after a seek.
    #[cold]
    fn end_of_limit(&mut self) -> Next {
        self.cursor.close();
        Next::Nowhere
    }

    #[inline(never)]
    fn poll_next_place(&mut self, context: &mut Context<'_>) -> Poll<Result<Next>> {
        loop {
            if matches!(self.state, State::Ended) {
                return Poll::Ready(Ok(Next::Nowhere));
            }
            if matches!(self.state, State::Filling(_) | State::Failed(_)) {
                if !ready!(self.poll_batch(context))? {
                    return Poll::Ready(Ok(Next::Nowhere));
                }
                self.position += 1;
                self.handed_out += 1;
                return Poll::Ready(Ok(Next::InBatch));
            }
            ready!(self.owed.poll_pay(context));
            self.owed.reads(LENT_BYTES);
            self.count();
            self.paid_bytes = LENT_BYTES;
            match self.next_paid() {
                Some(next) => return Poll::Ready(next),
                // A stretch of tombstones.
                None if matches!(self.state, State::Ready) => return yield_to_others(context),
                None => {}
            }
        }
    }

    /// The next entries, as many as are cheap to get at once; `None` at the end. Each entry comes
    /// once, also if this is mixed with the stream. This is the fastest way through many entries
    /// that are kept.
    ///
    /// # Errors
    /// `Corrupt` or `Io` when a block cannot be read; the scan then ends. What lies in front of the
    /// block comes first.
    ///
    /// # Cancellation
    /// Nothing is lost: the next call returns the batch.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// for (key, value) in [("apple", "3"), ("pear", "40"), ("plum", "5")] {
    ///     db.put(key, value).await?;
    /// }
    /// let (mut scan, mut bytes) = (db.scan(..), 0);
    /// while let Some(batch) = scan.next_chunk().await? {
    ///     bytes += (0..batch.len()).map(|at| batch.value(at).len()).sum::<usize>();
    /// }
    /// assert_eq!(bytes, 4);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn next_chunk(&mut self) -> Result<Option<ScanBatch>> {
        if self.position == self.current.len() && !poll_fn(|c| self.poll_batch(c)).await? {
            return Ok(None);
        }
        let left = self.position..self.current.len();
        self.handed_out += left.len() as u64;
        let batch = std::mem::take(&mut self.current);
        let is_whole = std::mem::take(&mut self.position) == 0;
        Ok(Some(if is_whole { batch } else { part(&batch, left, self.cursor.spec().keys_only) }))
    }

    /// How many entries the limit lets this scan read.
    fn entries_left(&self) -> Option<u64> {
        let taken = self.handed_out + (self.current.len() - self.position) as u64;
        Some(self.limit?.saturating_sub(taken))
    }

    fn entries_wanted(&self) -> usize {
        let most = BATCH_ENTRIES_MAX as u64;
        self.entries_left().map_or(most, |left| left.min(most)) as usize
    }

    /// Reads the next batch into `current`, all of whose entries were handed out. False at the end.
    fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Result<bool>> {
        ready!(self.owed.poll_pay(context));
        self.count();
        let polled = self.poll_batch_now(context);
        if let Poll::Ready(Ok(true)) = &polled {
            // What a read thread has walked over is not ours to pay for.
            self.owed.reads(self.current.bytes() + self.cursor.take_steps() * LENT_ENTRY_BYTES);
        }
        polled
    }

    fn poll_batch_now(&mut self, context: &mut Context<'_>) -> Poll<Result<bool>> {
        loop {
            let (mut away, left) = (None, self.entries_left());
            let (batch, more) = match &mut self.state {
                State::Ended => return Poll::Ready(Ok(false)),
                State::Ready | State::Failed(_) if left == Some(0) => {
                    self.end_of_limit();
                    return Poll::Ready(Ok(false));
                }
                State::Failed(error) => {
                    let error = error.clone();
                    self.state = State::Ended;
                    return Poll::Ready(Err(error));
                }
                State::Ready => {
                    let entries = self.entries_wanted();
                    let mut builder = ScanBatchBuilder::new();
                    match self.cursor.fill(&mut builder, self.batch_bytes, entries) {
                        Err(StorageError::WouldBlock(_)) if builder.is_empty() => {
                            self.state = State::Filling(self.fill_cold());
                            continue;
                        }
                        Err(StorageError::WouldBlock(_)) => (builder.freeze(), Ok(true)),
                        more => (builder.freeze(), more),
                    }
                }
                State::Filling(filling) => {
                    let filled = ready!(filling.as_mut().poll(context));
                    self.state = State::Ended;
                    let Filled { mut cursor, batch, more, stays } = filled?;
                    cursor.take_steps();
                    if stays {
                        self.cursor = cursor.fork();
                        self.cursor.set_tier(ReadTier::Memory);
                        away = Some(cursor);
                    } else {
                        self.cursor = cursor;
                    }
                    (batch, more)
                }
            };
            (self.current, self.position) = (batch, 0);
            self.batch_bytes = (self.batch_bytes * 2).min(BATCH_BYTES_MAX);
            self.state = match self.cold.told(more) {
                Ok(true) => State::Ready,
                Ok(false) => State::Ended,
                Err(error) => State::Failed(error),
            };
            if self.entries_left() == Some(0) {
                self.cursor.close();
            } else if let Some(cursor) = away {
                // It begins when it is polled.
                self.state = State::Filling(self.fill_with(cursor));
            }
            if !self.current.is_empty() {
                return Poll::Ready(Ok(true));
            }
            // At the end, or in a stretch of tombstones.
            if matches!(self.state, State::Ready) {
                return yield_to_others(context);
            }
        }
    }

    fn fill_cold(&mut self) -> BoxFuture<'static, Result<Filled>> {
        let mut cursor = self.cursor.fork();
        // The layers that are open here are opened again when the scan needs them.
        self.cursor.close();
        cursor.set_tier(ReadTier::Disk);
        self.fill_with(cursor)
    }

    /// Has a read thread fill a batch from `cursor`, which may wait for the disk.
    fn fill_with(&self, mut cursor: ScanCursor) -> BoxFuture<'static, Result<Filled>> {
        let (cold, entries) = (self.cold.clone(), self.entries_wanted());
        Box::pin(async move {
            let filled = cold.on_read_thread(move || {
                let mut builder = ScanBatchBuilder::new();
                let mut more = Ok(true);
                for _ in 0..EMPTY_TURNS_COLD {
                    if matches!(more, Ok(true)) && builder.is_empty() {
                        more = cursor.fill(&mut builder, BATCH_BYTES_COLD, entries);
                    }
                }
                let batch = builder.freeze();
                let value_bytes: usize = (0..batch.len()).map(|at| batch.value_len(at)).sum();
                let is_long = value_bytes > batch.len() * READ_AT_ONCE_BYTES_MAX;
                let stays = is_long && matches!(more, Ok(true));
                if !stays {
                    // The scan continues in memory, on another thread.
                    cursor.set_tier(ReadTier::Memory);
                }
                Filled { cursor, batch, more, stays }
            });
            filled.await
        })
    }
}

/// Some of the entries of a batch.
fn part(batch: &ScanBatch, entries: Range<usize>, keys_only: bool) -> ScanBatch {
    let mut part = ScanBatchBuilder::new();
    for at in entries {
        let (key, value) = batch.entry(at);
        if keys_only {
            part.push_key(key, batch.value_len(at));
        } else {
            part.push(key, value);
        }
    }
    part.freeze()
}

/// Lets other tasks run before the scan continues in a long stretch of tombstones.
fn yield_to_others<T>(context: &Context<'_>) -> Poll<T> {
    context.waker().wake_by_ref();
    Poll::Pending
}

impl Stream for Scan {
    type Item = Result<(Bytes, Bytes), Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.position < self.current.len() {
                let at = self.position;
                self.position += 1;
                self.handed_out += 1;
                return Poll::Ready(Some(Ok((self.current.key(at), self.current.value(at)))));
            }
            match ready!(self.poll_batch(context)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

impl FusedStream for Scan {
    fn is_terminated(&self) -> bool {
        let is_over = matches!(self.state, State::Ended) || self.entries_left() == Some(0);
        is_over && self.position == self.current.len()
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        self.count();
    }
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("reverse", &self.cursor.spec().reverse)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
