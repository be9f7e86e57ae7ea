//! The memtable: the newest entries of a range, sorted, in memory.
//!
//! There is one writer and any number of readers. A reader takes no lock and never waits: it pins
//! the memory (`Grace`), follows published pointers, and unpins.
//!
//! * The index is an adaptive radix tree (`tree`, `node`) with one slot per user key.
//! * Entries are in a chunked buffer (`crate::buffer`).
//! * An overwrite adds the new entry in front of the older versions of its key (`versions`).
//! * Memory of versions that nobody can need is reclaimed (`reclaim`).
//!
//! ADR 0006 and ADR 0009 say why it has this shape.
//!
//! Guarantees:
//! * Readers see an insert as a whole or not at all.
//! * The bytes of an entry never change under a pin.
//! * A reader that reads at a sequence number at or above an insert finds that entry. Or it finds a
//!   newer one, and is told to look again at a newer number.
//!
//! It does not hide tombstones, and does not limit its own size.

mod arena;
mod cursor;
mod link;
mod node;
mod reclaim;
mod swar;
#[cfg(test)]
#[cfg(not(loom))]
pub(crate) mod tests;
mod tree;
mod versions;
mod writer;

pub use crate::buffer::{Attendant, ChunkPool, PoolLimits};
pub use cursor::MemtableCursor;
#[cfg(not(loom))]
pub(crate) use cursor::PASSED_MAX;
pub use reclaim::{Reclaim, ReclaimStep};
pub use writer::MemtableWriter;

use crate::buffer::{BufferStats, Chunk, ChunkClass, EntryAt, EntryHead, Grace, Phase};
use crate::error::{Error, Lacks, Result};
use crate::key::{Kind, Seqno};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use bytes::Bytes;
use link::NodeSlot;
use std::fmt;
use std::ptr;
// Not `crate::sync::Arc`: loom's cannot be a method receiver. Loom would only check that the last
// owner frees, which is not our protocol.
use std::sync::{Arc, OnceLock};
use versions::FoundVersion;

/// Options of a memtable. By default it keeps everything until it is dropped.
#[derive(Clone, Debug, Default)]
pub struct MemtableOptions {
    /// Where its chunks come from and go to; `None` is the allocator.
    pub pool: Option<Arc<ChunkPool>>,
    /// Reclaims memory of overwritten entries while the memtable takes writes; `None`: never.
    pub reclaim: Option<Reclaim>,
    /// The bytes at which it is full, if that is known. It takes no chunks that are too large for
    /// that.
    pub full_bytes: Option<usize>,
}

/// Creates an empty memtable and its only writer. Allocates nothing else yet.
///
/// `id` is the caller's identifier and has no meaning here.
pub fn memtable(id: u64) -> (Arc<Memtable>, MemtableWriter) {
    memtable_with(id, MemtableOptions::default())
}

/// As `memtable`, with options.
pub fn memtable_with(id: u64, options: MemtableOptions) -> (Arc<Memtable>, MemtableWriter) {
    let table = Arc::new(Memtable {
        id,
        root: NodeSlot::new(ptr::null_mut()),
        progress: Progress::default(),
        grace: Grace::default(),
        chunks: OnceLock::new(),
        pool: options.pool.clone(),
    });
    let writer = MemtableWriter::new(Arc::clone(&table), options);
    (table, writer)
}

/// In place of a sequence number: nothing was inserted yet.
const NO_SEQNO: u64 = u64::MAX;

/// The shared part of a memtable: entries by key and sequence number.
pub struct Memtable {
    id: u64,
    /// Every search loads it, and it rarely changes.
    root: NodeSlot,
    progress: Progress,
    grace: Grace,
    /// The memory behind the tree. The writer owns it, and keeps this memtable alive, until it is
    /// dropped; then it moves the memory here.
    chunks: OnceLock<Vec<Chunk>>,
    /// Where the chunks go in the end; without a pool they are freed.
    pool: Option<Arc<ChunkPool>>,
}

/// What the writer stores with every insert. It has cache lines of its own, so that readers of the
/// root do not wait for it. Two lines, because processors fetch them in pairs.
#[repr(align(128))]
struct Progress {
    entries: AtomicU64,
    first_seqno: AtomicU64,
    last_seqno: AtomicU64,
    allocated_bytes: AtomicUsize,
    used_bytes: AtomicUsize,
    index_bytes: AtomicUsize,
    frozen: AtomicBool,
    // The fields below change only when something was overwritten.
    dead_bytes: AtomicU64,
    content_bytes: AtomicU64,
    present_entries: AtomicU64,
    class: AtomicUsize,
    compacting: AtomicBool,
    compactions: AtomicU64,
    steps: AtomicU64,
    copied_bytes: AtomicU64,
    reclaimed_bytes: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            entries: zero(),
            first_seqno: AtomicU64::new(NO_SEQNO),
            last_seqno: AtomicU64::new(NO_SEQNO),
            allocated_bytes: AtomicUsize::new(0),
            used_bytes: AtomicUsize::new(0),
            index_bytes: AtomicUsize::new(0),
            frozen: AtomicBool::new(false),
            dead_bytes: zero(),
            content_bytes: zero(),
            present_entries: zero(),
            class: AtomicUsize::new(0),
            compacting: AtomicBool::new(false),
            compactions: zero(),
            steps: zero(),
            copied_bytes: zero(),
            reclaimed_bytes: zero(),
        }
    }
}

/// What reclaiming has done in a memtable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReclaimStats {
    /// The present state of the buffer.
    pub buffer: BufferStats,
    /// Compactions started.
    pub compactions: u64,
    /// Compaction steps made.
    pub steps: u64,
    /// Bytes copied by those steps.
    pub copied_bytes: u64,
    /// Bytes of chunks that became free without a flush.
    pub reclaimed_bytes: u64,
}

impl Memtable {
    /// The identifier that was passed to `memtable`.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Pins the memtable: no memory that is reached through the pin is reused while it lives.
    #[inline]
    pub fn pin(&self) -> MemtablePin<'_> {
        MemtablePin { table: self, phase: self.pin_phase() }
    }

    /// Prefetches the memory that a search for `key`, or its insert, will wait for. It costs one
    /// more descent of the index. That pays if other work is done before the search, or if others
    /// wait for the insert.
    #[inline]
    pub fn prefetch(&self, key: &[u8]) {
        // SAFETY: nodes live as long as this memtable.
        unsafe { tree::prefetch_entry(&self.root, key) };
    }

    /// The pool of its chunks.
    #[inline]
    pub fn pool(&self) -> Option<&ChunkPool> {
        self.pool.as_deref()
    }

    #[inline]
    fn pin_phase(&self) -> Option<Phase> {
        // Once the writer is gone, memory is only freed with the memtable.
        (!self.is_frozen()).then(|| self.grace.pin())
    }

    /// A cursor over the newest entry at or below `upto` of every key. It has no position before
    /// its first seek. It stays exact while the writer continues, keeps the memtable alive, and
    /// pins its memory.
    ///
    /// If the writer reclaims, `upto` must be a held `ReadPoint`, or at or above everything
    /// inserted.
    pub fn cursor(self: &Arc<Self>, upto: Seqno) -> MemtableCursor {
        MemtableCursor::new(Arc::clone(self), upto)
    }

    /// The sequence number of the first insert; `None` while empty.
    pub fn first_seqno(&self) -> Option<Seqno> {
        seqno(self.progress.first_seqno.load(Ordering::Acquire))
    }

    /// The sequence number of the latest insert; `None` while empty. Every search that starts later
    /// finds the entries up to it.
    pub fn last_seqno(&self) -> Option<Seqno> {
        seqno(self.progress.last_seqno.load(Ordering::Acquire))
    }

    /// The number of inserted entries. All versions count, including dead ones.
    pub fn entries(&self) -> u64 {
        self.progress.entries.load(Ordering::Acquire)
    }

    /// Bytes held from the allocator. Dropping the memtable frees them, and so does the last reader
    /// of reclaimed memory. Costs one load. Changes by chunks of 16 KiB to 2 MiB.
    pub fn allocated_bytes(&self) -> usize {
        self.progress.allocated_bytes.load(Ordering::Relaxed)
    }

    /// Bytes used by entries (dead ones included) and index. Exact after every insert; never above
    /// `allocated_bytes`.
    pub fn used_bytes(&self) -> usize {
        self.progress.used_bytes.load(Ordering::Relaxed)
    }

    /// The part of `used_bytes` that the index uses, including replaced nodes.
    pub fn index_bytes(&self) -> usize {
        self.progress.index_bytes.load(Ordering::Relaxed)
    }

    /// What reclaiming has done so far, as of the writer's latest call of `reclaim`.
    pub fn reclaim_stats(&self) -> ReclaimStats {
        let get = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let progress = &self.progress;
        let class = progress.class.load(Ordering::Relaxed);
        let index_bytes = self.index_bytes() as u64;
        ReclaimStats {
            buffer: BufferStats {
                // This is exact after every insert, while the writer's own number is from its
                // latest call.
                live_bytes: (self.used_bytes() as u64)
                    .saturating_sub(index_bytes + get(&progress.dead_bytes)),
                dead_bytes: get(&progress.dead_bytes),
                entries: get(&progress.present_entries),
                content_bytes: get(&progress.content_bytes),
                allocated_bytes: (self.allocated_bytes() as u64).saturating_sub(index_bytes),
                class: ChunkClass::ALL[class],
                compacting: progress.compacting.load(Ordering::Relaxed),
            },
            compactions: get(&progress.compactions),
            steps: get(&progress.steps),
            copied_bytes: get(&progress.copied_bytes),
            reclaimed_bytes: get(&progress.reclaimed_bytes),
        }
    }

    /// Has the writer declared that no more entries will be inserted?
    #[inline]
    pub fn is_frozen(&self) -> bool {
        self.progress.frozen.load(Ordering::Acquire)
    }
}

impl Drop for Memtable {
    fn drop(&mut self) {
        if let (Some(pool), Some(chunks)) = (&self.pool, self.chunks.take()) {
            pool.put(chunks);
        }
    }
}

fn seqno(stored: u64) -> Option<Seqno> {
    (stored != NO_SEQNO).then_some(Seqno(stored))
}

impl fmt::Debug for Memtable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memtable")
            .field("id", &self.id)
            .field("entries", &self.entries())
            .field("used_bytes", &self.used_bytes())
            .field("frozen", &self.is_frozen())
            .finish_non_exhaustive()
    }
}

/// A pin: memory that is reached through it is not reused while it lives.
#[derive(Debug)]
pub struct MemtablePin<'a> {
    table: &'a Memtable,
    phase: Option<Phase>,
}

impl MemtablePin<'_> {
    /// The newest entry of `key` at or below `upto`, tombstones included.
    ///
    /// Never waits. Costs a descent (one or two cache lines per node, about three nodes for half a
    /// million random keys), one comparison of the key, and few steps, however many versions are
    /// newer than `upto` (short-lists).
    #[inline]
    pub fn get(&self, key: &[u8], upto: Seqno) -> Lookup<'_> {
        // SAFETY: the memory lives as long as this memtable: the writer keeps the memtable alive
        // while it owns the chunks, and afterwards they are in `chunks`. Memory of dead versions is
        // not reused under this pin (grace-before-reuse).
        let link = unsafe { tree::find(&self.table.root, key) };
        // SAFETY: as above.
        let FoundVersion { version, passed_cut } = unsafe { versions::at_or_below(link, upto) };
        Lookup { version: version.map(EntryVersion), passed_cut }
    }
}

impl Drop for MemtablePin<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(phase) = self.phase.take() {
            self.table.grace.unpin(phase);
        }
    }
}

/// The result of a lookup.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// The newest version at or below the number that is still present.
    pub version: Option<EntryVersion<'a>>,
    /// A newer version at or below the number may have been retired. Never true at a held
    /// `ReadPoint`. Otherwise look again at the number that is visible now: it is higher.
    pub passed_cut: bool,
}

/// One version of a key, pinned.
#[derive(Clone, Copy, Debug)]
pub struct EntryVersion<'a>(EntryAt<'a>);

impl EntryVersion<'_> {
    /// Its sequence number.
    pub fn seqno(&self) -> Seqno {
        self.0.seqno()
    }

    /// A copy of the value; `None` for a tombstone.
    ///
    /// # Errors
    /// `WouldBlock` if it has more than `bytes_max` bytes.
    #[inline]
    pub fn value(&self, bytes_max: usize) -> Result<Option<Bytes>> {
        match self.0.whole() {
            Some(entry) if entry.value.len() > bytes_max => Err(Error::WouldBlock(Lacks::Thread)),
            Some(entry) => {
                Ok((entry.kind == Kind::Put).then(|| Bytes::copy_from_slice(entry.value)))
            }
            None => self.straddling_value(bytes_max),
        }
    }

    /// Is it a put, and not a tombstone? Copies nothing.
    #[inline]
    pub fn is_put(&self) -> bool {
        self.0.head().kind == Kind::Put
    }

    /// The length of the value; `None` for a tombstone. Copies nothing.
    #[inline]
    pub fn value_len(&self) -> Option<usize> {
        let EntryHead { kind, value_bytes, .. } = self.0.head();
        (kind == Kind::Put).then_some(value_bytes)
    }

    #[cold]
    fn straddling_value(self, bytes_max: usize) -> Result<Option<Bytes>> {
        let Some(bytes) = self.value_len() else { return Ok(None) };
        if bytes > bytes_max {
            return Err(Error::WouldBlock(Lacks::Thread));
        }
        let mut value = Vec::new();
        self.0.put_value(&mut value);
        Ok(Some(Bytes::from(value)))
    }
}
