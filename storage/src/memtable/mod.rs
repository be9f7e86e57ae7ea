//! The memtable: the newest entries of a range, sorted, in memory.
//!
//! One writer, any number of readers. A reader takes no lock, registers nowhere, writes nothing
//! shared and never retries: it follows published pointers. Inside is an adaptive radix tree (`tree`,
//! `node`) with one place per user key, over entries in an `arena`; an overwrite puts a new entry in
//! front of the older versions of its key. Why this shape: `docs/adr/0006-memtable-radix-tree.md`.
//!
//! Guarantees: every insert appears to readers in one step; an entry's bytes never change and
//! stay where they are until the last `Arc<Memtable>` is gone; a reader that was told of a sequence
//! number after its insert finds that entry.
//!
//! It does not hide tombstones, limit its own size, or give back memory before it is dropped.

mod arena;
mod chunk;
mod cursor;
mod entry;
mod node;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
mod tree;

pub use chunk::ChunkPool;
pub use cursor::MemtableCursor;

use crate::key::{EntryRef, Kind, Seqno};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_CAP};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use arena::Arena;
use chunk::Chunk;
use node::Slot;
use std::fmt;
use std::ptr;
// Not `crate::sync::Arc`: loom's cannot be a method receiver. What it would check, that the last
// owner frees, is not a protocol of ours.
use std::sync::{Arc, OnceLock};

/// Makes an empty memtable and its only writer. Allocates nothing but the two of them.
///
/// `id` is the caller's name for it and means nothing here.
pub fn memtable(id: u64) -> (Arc<Memtable>, MemtableWriter) {
    build(id, None)
}

/// The same, with memory that goes back to `pool` in the end and comes from there where it can.
pub fn memtable_from(id: u64, pool: &Arc<ChunkPool>) -> (Arc<Memtable>, MemtableWriter) {
    build(id, Some(Arc::clone(pool)))
}

fn build(id: u64, pool: Option<Arc<ChunkPool>>) -> (Arc<Memtable>, MemtableWriter) {
    let table = Arc::new(Memtable {
        id,
        root: Slot::new(ptr::null_mut()),
        progress: Progress {
            entries: AtomicU64::new(0),
            first_seqno: AtomicU64::new(NO_SEQNO),
            last_seqno: AtomicU64::new(NO_SEQNO),
            allocated_bytes: AtomicUsize::new(0),
            used_bytes: AtomicUsize::new(0),
            index_bytes: AtomicUsize::new(0),
            frozen: AtomicBool::new(false),
        },
        chunks: OnceLock::new(),
        pool: pool.clone(),
    });
    let writer = MemtableWriter {
        table: Arc::clone(&table),
        arena: Arena::new(pool),
        entries: 0,
        last_seqno: Seqno::ZERO,
    };
    (table, writer)
}

/// Not a sequence number: nothing was inserted yet.
const NO_SEQNO: u64 = u64::MAX;

/// What readers share: entries by key and sequence number.
pub struct Memtable {
    id: u64,
    /// Read by every search and rarely written.
    root: Slot,
    progress: Progress,
    /// The memory behind the tree, left here by the writer when it goes; until then it owns it, and
    /// keeps this memtable alive.
    chunks: OnceLock<Vec<Chunk>>,
    /// Where the chunks go in the end; without one they are freed.
    pool: Option<Arc<ChunkPool>>,
}

/// What the writer stores with every insert; on cache lines of its own, two because processors
/// fetch them in pairs, so that readers of the root do not wait for it.
#[repr(align(128))]
struct Progress {
    entries: AtomicU64,
    first_seqno: AtomicU64,
    last_seqno: AtomicU64,
    allocated_bytes: AtomicUsize,
    used_bytes: AtomicUsize,
    index_bytes: AtomicUsize,
    frozen: AtomicBool,
}

impl Memtable {
    /// The name that the caller of `memtable` gave.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The newest entry of `key` at or below `upto`, tombstones included.
    ///
    /// Never waits. Costs a descent (one cache line or two per node, about three nodes for
    /// half a million random keys), one comparison of the key, and a step for each version newer
    /// than `upto`.
    #[inline]
    pub fn get(&self, key: &[u8], upto: Seqno) -> Option<EntryRef<'_>> {
        // SAFETY: the arena lives as long as this memtable: the writer keeps it alive while it owns
        // the chunks, and afterwards they are in `chunks`.
        let newest = unsafe { tree::find(&self.root, key) }?;
        Some(newest.newest(upto)?.as_entry_ref())
    }

    /// A cursor over the newest entry at or below `upto` of every key. It stands nowhere until its
    /// first seek, stays exact while the writer goes on, and keeps the memtable alive.
    pub fn cursor(self: &Arc<Self>, upto: Seqno) -> MemtableCursor {
        MemtableCursor::new(Arc::clone(self), upto)
    }

    /// The sequence number of the first insert, or `None` while empty.
    pub fn first_seqno(&self) -> Option<Seqno> {
        seqno(self.progress.first_seqno.load(Ordering::Acquire))
    }

    /// The sequence number of the latest insert, or `None` while empty. Entries up to it are found
    /// by every search that starts later.
    pub fn last_seqno(&self) -> Option<Seqno> {
        seqno(self.progress.last_seqno.load(Ordering::Acquire))
    }

    /// Entries inserted, every version counted.
    pub fn entries(&self) -> u64 {
        self.progress.entries.load(Ordering::Acquire)
    }

    /// Bytes held from the allocator: what dropping this memtable gives back. One load. It moves in
    /// chunks of 16 KiB to 1 MiB (or one large entry).
    pub fn allocated_bytes(&self) -> usize {
        self.progress.allocated_bytes.load(Ordering::Relaxed)
    }

    /// Bytes in use by entries and index, exact after every insert; never above `allocated_bytes`.
    pub fn used_bytes(&self) -> usize {
        self.progress.used_bytes.load(Ordering::Relaxed)
    }

    /// The part of `used_bytes` that is index, replaced nodes included.
    pub fn index_bytes(&self) -> usize {
        self.progress.index_bytes.load(Ordering::Relaxed)
    }

    /// Has the writer said that nothing more comes?
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

/// The right to insert. There is one per memtable, and it is not `Clone`.
///
/// Dropped without `freeze`, it ends the writing all the same; only the mark is missing.
pub struct MemtableWriter {
    table: Arc<Memtable>,
    arena: Arena,
    entries: u64,
    last_seqno: Seqno,
}

impl MemtableWriter {
    /// Inserts one entry; readers see it when this returns (those that come in between may).
    ///
    /// Never waits for readers. Copies key and value once; allocates once per chunk.
    ///
    /// # Panics
    /// On a key outside `1..=KEY_BYTES_MAX` bytes, a value above `VALUE_BYTES_CAP`, or a sequence
    /// number below the last one: callers check what users give them.
    #[inline]
    pub fn insert(&mut self, key: &[u8], seqno: Seqno, kind: Kind, value: &[u8]) {
        assert!(!key.is_empty(), "a key has at least one byte");
        assert!(key.len() <= KEY_BYTES_MAX, "a key is at most KEY_BYTES_MAX bytes");
        assert!(value.len() <= VALUE_BYTES_CAP, "a value is at most VALUE_BYTES_CAP bytes");
        assert!(seqno >= self.last_seqno, "sequence numbers never decrease");
        assert!(seqno <= Seqno::MAX, "a sequence number has 56 bits");
        let table = &*self.table;
        // SAFETY: the chunks outlive this borrow of the memtable: they move into it when the writer
        // is dropped, and are freed with it.
        let entry = unsafe { self.arena.entry(key, seqno, kind, value) };
        // SAFETY: everything is in this arena, and `&mut self` makes us the only writer.
        unsafe { tree::insert(&table.root, &mut self.arena, entry) };
        self.last_seqno = seqno;
        self.entries += 1;
        let progress = &table.progress;
        if self.entries == 1 {
            progress.first_seqno.store(seqno.0, Ordering::Release);
        }
        let index_bytes = self.arena.node_bytes();
        progress.allocated_bytes.store(self.arena.allocated_bytes(), Ordering::Relaxed);
        progress.used_bytes.store(self.arena.entry_bytes() + index_bytes, Ordering::Relaxed);
        progress.index_bytes.store(index_bytes, Ordering::Relaxed);
        progress.entries.store(self.entries, Ordering::Release);
        progress.last_seqno.store(seqno.0, Ordering::Release);
    }

    /// The memtable that this writer fills.
    pub fn memtable(&self) -> &Arc<Memtable> {
        &self.table
    }

    /// Ends the writing and marks the memtable as frozen.
    pub fn freeze(self) {
        self.table.progress.frozen.store(true, Ordering::Release);
    }
}

impl Drop for MemtableWriter {
    fn drop(&mut self) {
        let left = self.table.chunks.set(self.arena.take_chunks());
        assert!(left.is_ok(), "a memtable has one writer");
    }
}

impl fmt::Debug for MemtableWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemtableWriter")
            .field("memtable", &self.table.id)
            .field("entries", &self.entries)
            .field("last_seqno", &self.last_seqno)
            .finish_non_exhaustive()
    }
}
