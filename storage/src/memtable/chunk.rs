//! Chunks of memory, and the pool that keeps them between memtables.
//!
//! Guarantees: a chunk is freed (or pooled) exactly once, when its owner drops it; the pool never
//! holds more bytes than it was made for.
//!
//! Why a pool: the first touch of a page costs a trip into the kernel, about as much as inserting
//! the entries that fit on it. An engine that fills and drops memtables all the time pays that
//! once instead of always.
//!
//! It does not clear recycled memory; the arena writes every byte before anyone reads it.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;
// Not `crate::sync`: no reader or writer protocol depends on this lock, so loom need not explore it.
use std::sync::{Arc, Mutex, PoisonError};

/// A cache line: chunks and nodes start on one.
pub(super) const LINE_BYTES: usize = 64;

/// One allocation, freed on drop.
pub(super) struct Chunk {
    at: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a chunk owns plain memory and no thread-bound state; who may read or write which part of
// it is decided by the tree's publication rules, not by who owns the chunk.
unsafe impl Send for Chunk {}
// SAFETY: `&Chunk` gives no access to the memory.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// The arena's chunks double up to here: then it needs a new one only once in thousands of
    /// inserts, and the unused rest of the last one is small beside what is full.
    pub(super) const BYTES_MAX: usize = 1 << 20;

    /// Allocates; the contents are not initialised.
    pub(super) fn new(bytes: usize) -> Self {
        assert!(bytes > 0);
        let layout = Layout::from_size_align(bytes, LINE_BYTES)
            .expect("an entry is at most 1 GiB and 64 KiB, far below isize::MAX");
        // SAFETY: the layout has a size above zero.
        let at = unsafe { alloc(layout) };
        let Some(at) = NonNull::new(at) else { handle_alloc_error(layout) };
        Self { at, layout }
    }

    /// The first byte; it is on a cache line's start.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.at
    }

    /// Makes the kernel back every page with memory.
    fn touch(&mut self) {
        // SAFETY: the chunk is ours alone (`&mut`) and this long.
        unsafe { self.at.write_bytes(0, self.layout.size()) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, freed only here.
        unsafe { dealloc(self.at.as_ptr(), self.layout) }
    }
}

/// Memory of dropped memtables, kept for new ones: an insert into recycled memory takes about half
/// the time of one into fresh memory.
///
/// Shared by the memtables of an engine. What it holds belongs to no memtable, so count it
/// (`held_bytes`) beside their `allocated_bytes`.
pub struct ChunkPool {
    chunks: Mutex<Vec<Chunk>>,
    chunks_max: usize,
}

impl ChunkPool {
    /// An empty pool that will keep up to `bytes_max` bytes, in whole chunks of 1 MiB.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        let chunks = Mutex::new(Vec::new());
        Arc::new(Self { chunks, chunks_max: bytes_max / Chunk::BYTES_MAX })
    }

    /// Fills the pool up to `bytes` with memory that the kernel has already handed over, so that
    /// the first memtables are as fast as later ones. Takes about half a millisecond per MiB:
    /// for a thread of the engine's own.
    pub fn fill(&self, bytes: usize) {
        let wanted = (bytes / Chunk::BYTES_MAX).min(self.chunks_max);
        while self.held() < wanted {
            let mut chunk = Chunk::new(Chunk::BYTES_MAX);
            chunk.touch();
            self.put(vec![chunk]);
        }
    }

    /// Bytes that wait here for the next memtable.
    pub fn held_bytes(&self) -> usize {
        self.held() * Chunk::BYTES_MAX
    }

    fn held(&self) -> usize {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A chunk of this size, if there is one and nobody else is at the pool right now: the writer
    /// of a memtable does not wait.
    pub(super) fn take(&self, bytes: usize) -> Option<Chunk> {
        if bytes != Chunk::BYTES_MAX {
            return None;
        }
        self.chunks.try_lock().ok()?.pop()
    }

    /// Keeps what it has room for and frees the rest, outside the lock.
    pub(super) fn put(&self, mut freed: Vec<Chunk>) {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.chunks_max.saturating_sub(chunks.len());
        let kept = freed.extract_if(.., |chunk| chunk.layout.size() == Chunk::BYTES_MAX);
        chunks.extend(kept.take(room));
        drop(chunks);
    }
}

impl fmt::Debug for ChunkPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkPool")
            .field("held_bytes", &self.held_bytes())
            .field("bytes_max", &(self.chunks_max * Chunk::BYTES_MAX))
            .finish_non_exhaustive()
    }
}

/// Asks for the cache line at an address; a hint.
#[inline(always)]
pub(super) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults and changes no memory, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
