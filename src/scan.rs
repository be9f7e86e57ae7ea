//! Scans: owned streams over one instant of the database.

use crate::error::{Error, Result};
use crate::reader::Reader;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FusedStream, Stream, TryStreamExt};
use sluicedb_storage::Error as StorageError;
use sluicedb_storage::key::Span;
use sluicedb_storage::table::ReadTier;
pub use sluicedb_storage::view::Chunk;
use sluicedb_storage::view::{ChunkBuilder, ScanCursor, ScanSpec};
use std::fmt;
use std::future::poll_fn;
use std::ops::{Bound, Range};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A chunk ends after this many bytes or entries: the first one early, so that short scans are
/// cheap, later ones larger.
const CHUNK_BYTES_FIRST: usize = 4 << 10;
const CHUNK_BYTES_MAX: usize = 32 << 10;
const CHUNK_ENTRIES_MAX: usize = 1024;
/// A read thread may fill more at once: nobody's executor waits for it.
const CHUNK_BYTES_COLD: usize = 128 << 10;
/// And it may pass so many stretches of tombstones: other reads wait for it.
const EMPTY_TURNS_COLD: usize = 16;

/// The entries of a span in key order: a [`Stream`] of `Result<(key, value)>`.
///
/// A scan sees exactly one instant: the one at which it was created. It is owned, `'static` and
/// `Send`, and holds the memory and files it reads until it is dropped. Entries that are in memory
/// or in the page cache come without leaving the calling task; a cold block is read by an engine
/// thread, which then reads ahead.
///
/// Configure it with [`rev`](Self::rev), [`limit`](Self::limit) and [`keys_only`](Self::keys_only)
/// before the first item is taken.
///
/// # Cancellation
/// Dropping it, or a pending `next`, at any time is fine; the scan then continues where it was.
#[must_use = "a scan does nothing until it is polled"]
pub struct Scan {
    reader: Reader,
    spec: ScanSpec,
    /// What of its span is walked: less after a seek.
    span: Span,
    limit: Option<u64>,
    state: State,
    chunk_bytes: usize,
    current: Chunk,
    position: usize,
}

enum State {
    Fresh,
    Ready(Box<ScanCursor>),
    Filling(BoxFuture<'static, Result<Filled>>),
    Ended,
}

/// What a read thread brings back.
struct Filled {
    cursor: Box<ScanCursor>,
    chunk: Chunk,
    more: bool,
}

impl Scan {
    pub(crate) fn new(reader: Reader, span: Span) -> Self {
        let spec = ScanSpec::new(reader.keyspace().id(), span.clone());
        Self {
            reader,
            spec,
            span,
            limit: None,
            state: State::Fresh,
            chunk_bytes: CHUNK_BYTES_FIRST,
            current: Chunk::default(),
            position: 0,
        }
    }

    /// From the last key to the first.
    pub fn rev(mut self) -> Self {
        self.spec.reverse = !self.spec.reverse;
        self
    }

    /// At most `entries` of them.
    pub fn limit(mut self, entries: u64) -> Self {
        self.limit = Some(self.limit.map_or(entries, |limit| limit.min(entries)));
        self
    }

    /// Values come back empty and are not copied. How long they are a [`Chunk`] says:
    /// [`value_len`](Chunk::value_len).
    pub fn keys_only(mut self) -> Self {
        self.spec.keys_only = true;
        self
    }

    /// Goes on at `key`, within the same instant: the next entry is the first one at or after it,
    /// or, [from the last key to the first](Self::rev), the last one at or before it. As often as
    /// wanted, forward or back, also after the end or an error. What lies outside of the scan's
    /// range stays outside, and a limit counts what was handed out.
    ///
    /// Costs nothing where the entry has been read ahead; otherwise the next entry costs what the
    /// first one did: a look into each layer. Waits for nothing itself.
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
        let (key, reverse) = (key.as_ref(), self.spec.reverse);
        let is_before = |other: &[u8]| if reverse { other > key } else { other < key };
        let left = self.current.len() - self.position;
        let ahead = |at: usize| self.current.entry(at).0;
        let is_read = left > 0
            && (is_before(ahead(self.position)) || ahead(self.position) == key)
            && !is_before(ahead(self.current.len() - 1));
        let passed = if is_read {
            let mut at = self.position;
            while is_before(ahead(at)) {
                at += 1;
            }
            at - self.position
        } else {
            left
        };
        self.position += passed;
        if let Some(limit) = &mut self.limit {
            *limit += passed as u64;
        }
        if is_read {
            // The limit may have ended it; what is behind these entries is there for it again.
            return self.go_on_behind();
        }
        let (lo, hi) = if reverse {
            (Bound::Unbounded, Bound::Included(key))
        } else {
            (Bound::Included(key), Bound::Unbounded)
        };
        self.span = self.spec.span.intersection(&Span::from_bounds(lo, hi));
        (self.state, self.chunk_bytes) = (State::Fresh, CHUNK_BYTES_FIRST);
    }

    /// After entries were passed that a limit had counted: if it has ended the scan, that begins
    /// anew behind the last entry that was read.
    fn go_on_behind(&mut self) {
        if !matches!(self.state, State::Ended) || self.limit.is_none_or(|limit| limit == 0) {
            return;
        }
        let last = self.current.key(self.current.len() - 1);
        let (lo, hi) = if self.spec.reverse {
            (Bound::Unbounded, Bound::Excluded(&last[..]))
        } else {
            (Bound::Excluded(&last[..]), Bound::Unbounded)
        };
        self.span = self.spec.span.intersection(&Span::from_bounds(lo, hi));
        self.state = State::Fresh;
    }

    /// The first entry of the scan, and no more is read than that takes.
    pub(crate) async fn only_first(mut self) -> Result<Option<(Bytes, Bytes)>> {
        self.spec.readahead_bytes = 0;
        self.limit(1).try_next().await
    }

    /// The next entries, as many as are cheap to get at once; `None` at the end. Entries already
    /// handed out by the stream do not come again. The fastest way through many entries.
    ///
    /// # Errors
    /// `Corrupt` or `Io` when a block cannot be read; the scan then ends.
    ///
    /// # Cancellation
    /// Nothing is lost: the next call returns the chunk.
    pub async fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        if self.position < self.current.len() {
            let left = self.position..self.current.len();
            self.position = self.current.len();
            return Ok(Some(part(&self.current, left, self.spec.keys_only)));
        }
        poll_fn(|context| self.poll_chunk(context)).await
    }

    fn entries_wanted(&self) -> usize {
        self.limit.map_or(CHUNK_ENTRIES_MAX, |limit| limit.min(CHUNK_ENTRIES_MAX as u64) as usize)
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Chunk>>> {
        let coop = ready!(tokio::task::coop::poll_proceed(context));
        let polled = self.poll_chunk_now(context);
        if polled.is_ready() {
            coop.made_progress();
        }
        polled
    }

    fn poll_chunk_now(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Chunk>>> {
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(Ok(None)),
                State::Fresh => {
                    if self.limit != Some(0) {
                        let spec = ScanSpec { span: self.span.clone(), ..self.spec.clone() };
                        let cursor = self.reader.view().cursor(spec, ReadTier::Memory);
                        self.state = State::Ready(Box::new(cursor));
                    }
                }
                State::Ready(mut cursor) => {
                    let entries = self.entries_wanted();
                    let mut builder = ChunkBuilder::new();
                    cursor.set_tier(ReadTier::Memory);
                    let filled = cursor.fill(&mut builder, self.chunk_bytes, entries);
                    let more = match filled {
                        Ok(more) => more,
                        Err(StorageError::WouldBlock) if builder.is_empty() => {
                            self.state = State::Filling(self.fill_cold(cursor, entries));
                            continue;
                        }
                        Err(StorageError::WouldBlock) => true,
                        Err(error) => return Poll::Ready(self.reader.told(Err(error))),
                    };
                    if let Some(chunk) = self.accept(cursor, builder.freeze(), more) {
                        return Poll::Ready(Ok(Some(chunk)));
                    }
                    if !matches!(self.state, State::Ended) {
                        return yield_to_others(context);
                    }
                }
                State::Filling(mut filling) => match filling.as_mut().poll(context) {
                    Poll::Pending => {
                        self.state = State::Filling(filling);
                        return Poll::Pending;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(Filled { cursor, chunk, more })) => {
                        if let Some(chunk) = self.accept(cursor, chunk, more) {
                            return Poll::Ready(Ok(Some(chunk)));
                        }
                        if !matches!(self.state, State::Ended) {
                            return yield_to_others(context);
                        }
                    }
                },
            }
        }
    }

    fn fill_cold(
        &self,
        mut cursor: Box<ScanCursor>,
        entries: usize,
    ) -> BoxFuture<'static, Result<Filled>> {
        let reader = self.reader.clone();
        Box::pin(async move {
            let filled = reader.on_read_thread(move || {
                let mut builder = ChunkBuilder::new();
                cursor.set_tier(ReadTier::Disk);
                let mut more = true;
                for _ in 0..EMPTY_TURNS_COLD {
                    if more && builder.is_empty() {
                        more = cursor.fill(&mut builder, CHUNK_BYTES_COLD, entries)?;
                    }
                }
                Ok::<_, StorageError>(Filled { cursor, chunk: builder.freeze(), more })
            });
            reader.told(filled.await?)
        })
    }

    /// Takes a filled chunk over; `None` if it is empty, at the end or in a stretch of tombstones.
    fn accept(&mut self, cursor: Box<ScanCursor>, chunk: Chunk, more: bool) -> Option<Chunk> {
        self.chunk_bytes = (self.chunk_bytes * 2).min(CHUNK_BYTES_MAX);
        let mut chunk = chunk;
        if let Some(limit) = &mut self.limit {
            // It may have been set while they were read.
            if chunk.len() as u64 > *limit {
                chunk = part(&chunk, 0..*limit as usize, self.spec.keys_only);
            }
            *limit -= chunk.len() as u64;
        }
        if more && self.limit != Some(0) {
            self.state = State::Ready(cursor);
        }
        (!chunk.is_empty()).then_some(chunk)
    }
}

/// Some of the entries of a chunk.
fn part(chunk: &Chunk, entries: Range<usize>, keys_only: bool) -> Chunk {
    let mut part = ChunkBuilder::new();
    for at in entries {
        let (key, value) = chunk.entry(at);
        if keys_only {
            part.push_key(key, chunk.value_len(at));
        } else {
            part.push(key, value);
        }
    }
    part.freeze()
}

/// In a long stretch of tombstones: others get a chance before it goes on.
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
                return Poll::Ready(Some(Ok((self.current.key(at), self.current.value(at)))));
            }
            match ready!(self.poll_chunk(context)) {
                Ok(Some(chunk)) => {
                    self.current = chunk;
                    self.position = 0;
                }
                Ok(None) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

impl FusedStream for Scan {
    fn is_terminated(&self) -> bool {
        matches!(self.state, State::Ended) && self.position == self.current.len()
    }
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("reverse", &self.spec.reverse)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
