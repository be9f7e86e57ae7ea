//! The arena: memory that is handed out in rising order and given back all at once.
//!
//! Guarantees: what was handed out never moves and stays readable until the chunks are dropped;
//! entries are 8-byte aligned, nodes start on a cache line. Entries and nodes come from separate
//! chunks, so that walking the index does not drag values through the cache.
//!
//! It does not free single pieces: a replaced node or a superseded entry stays where a reader may
//! still be looking at it. That is what makes readers free of any registration.

use super::chunk::{Chunk, ChunkPool, LINE_BYTES};
use super::entry::{Entry, EntryAt};
use crate::key::{Kind, Seqno};
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;

/// First chunk of entries. Small, because an engine may keep many nearly empty memtables.
const ENTRY_CHUNK_BYTES_MIN: usize = 64 << 10;
/// First chunk of nodes; an index is a fraction of its entries.
const NODE_CHUNK_BYTES_MIN: usize = 16 << 10;
/// Entries larger than this part of a chunk get a chunk of their own, so that the rest of the
/// current one is not thrown away for them: at most a quarter of a chunk is ever lost.
const LARGE_PART: usize = 4;

/// The unused rest of the current chunk of one kind.
struct Rest {
    at: NonNull<u8>,
    bytes: usize,
    next_chunk_bytes: usize,
}

impl Rest {
    fn new(first_chunk_bytes: usize) -> Self {
        Self { at: NonNull::dangling(), bytes: 0, next_chunk_bytes: first_chunk_bytes }
    }
}

/// The writer's side of the memory; readers only follow pointers into it.
pub(super) struct Arena {
    chunks: Vec<Chunk>,
    entries: Rest,
    nodes: Rest,
    pool: Option<Arc<ChunkPool>>,
    allocated_bytes: usize,
    entry_bytes: usize,
    node_bytes: usize,
}

// SAFETY: the two `Rest` pointers point into chunks that this arena owns.
unsafe impl Send for Arena {}

impl Arena {
    /// An empty arena; takes its first memory with the first entry, from the pool where it can.
    pub(super) fn new(pool: Option<Arc<ChunkPool>>) -> Self {
        Self {
            chunks: Vec::new(),
            entries: Rest::new(ENTRY_CHUNK_BYTES_MIN),
            nodes: Rest::new(NODE_CHUNK_BYTES_MIN),
            pool,
            allocated_bytes: 0,
            entry_bytes: 0,
            node_bytes: 0,
        }
    }

    /// Bytes held from the allocator.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.allocated_bytes
    }

    /// Bytes handed out to entries, headers included.
    pub(super) fn entry_bytes(&self) -> usize {
        self.entry_bytes
    }

    /// Bytes handed out to nodes, replaced ones included.
    pub(super) fn node_bytes(&self) -> usize {
        self.node_bytes
    }

    /// Gives the chunks away; the arena is empty afterwards.
    pub(super) fn take_chunks(&mut self) -> Vec<Chunk> {
        let taken = mem::replace(self, Self::new(None));
        taken.chunks
    }

    /// Writes an entry that has no older version yet.
    ///
    /// # Safety
    /// The chunks of this arena must outlive `'a`.
    #[inline(always)]
    pub(super) unsafe fn entry<'a>(
        &mut self,
        key: &[u8],
        seqno: Seqno,
        kind: Kind,
        value: &[u8],
    ) -> EntryAt<'a> {
        let bytes = Entry::bytes(key.len(), value.len());
        let at = if bytes <= self.entries.bytes {
            // SAFETY: that many bytes are left.
            unsafe { cut(&mut self.entries, bytes) }
        } else {
            self.entry_chunk(bytes)
        };
        self.entry_bytes += bytes;
        // SAFETY: `at` is 8-byte aligned and starts `bytes` bytes that nobody else was given; the
        // caller vouches for the lifetime.
        unsafe { EntryAt::write(at, key, seqno, kind, value) }
    }

    /// Writes a node.
    ///
    /// # Safety
    /// The chunks of this arena must outlive `'a`.
    pub(super) unsafe fn node<'a, N>(&mut self, node: N) -> &'a N {
        const { assert!(align_of::<N>() <= LINE_BYTES) };
        const { assert!(!mem::needs_drop::<N>()) };
        let bytes = size_of::<N>().next_multiple_of(LINE_BYTES);
        if bytes > self.nodes.bytes {
            self.node_chunk(bytes);
        }
        // SAFETY: that many bytes are left, the branch above saw to it.
        let at = unsafe { cut(&mut self.nodes, bytes) }.cast::<N>();
        self.node_bytes += bytes;
        // SAFETY: node chunks start on a cache line and are cut in whole lines, so `at` is aligned
        // for `N`; nobody else was given these bytes.
        unsafe { at.write(node) };
        // SAFETY: just written; from here on the node is only shared, and the caller vouches for
        // the lifetime.
        unsafe { at.as_ref() }
    }

    #[cold]
    #[inline(never)]
    fn entry_chunk(&mut self, bytes: usize) -> NonNull<u8> {
        if bytes > self.entries.next_chunk_bytes / LARGE_PART {
            return self.chunk(bytes);
        }
        let fresh = self.entries.next_chunk_bytes;
        self.entries.at = self.chunk(fresh);
        self.entries.bytes = fresh;
        self.entries.next_chunk_bytes = (fresh * 2).min(Chunk::BYTES_MAX);
        // SAFETY: a fresh chunk is at least four times as large.
        unsafe { cut(&mut self.entries, bytes) }
    }

    #[cold]
    #[inline(never)]
    fn node_chunk(&mut self, bytes: usize) {
        let fresh = self.nodes.next_chunk_bytes.max(bytes.next_power_of_two());
        self.nodes.at = self.chunk(fresh);
        self.nodes.bytes = fresh;
        self.nodes.next_chunk_bytes = (fresh * 2).min(Chunk::BYTES_MAX);
    }

    fn chunk(&mut self, bytes: usize) -> NonNull<u8> {
        let pooled = self.pool.as_ref().and_then(|pool| pool.take(bytes));
        let chunk = pooled.unwrap_or_else(|| Chunk::new(bytes));
        let at = chunk.start();
        self.allocated_bytes += bytes;
        self.chunks.push(chunk);
        at
    }
}

/// Cuts `bytes` off the front of a rest.
///
/// # Safety
/// The rest must have that many bytes left.
#[inline(always)]
unsafe fn cut(rest: &mut Rest, bytes: usize) -> NonNull<u8> {
    debug_assert!(bytes <= rest.bytes);
    let at = rest.at;
    // SAFETY: the caller vouches that `bytes` more bytes of the chunk follow, so the sum stays
    // inside the chunk or one past its end.
    rest.at = unsafe { at.add(bytes) };
    rest.bytes -= bytes;
    at
}
