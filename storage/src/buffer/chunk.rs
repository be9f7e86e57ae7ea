//! Chunks of memory, and the pool that keeps them between memtables.
//!
//! Guarantees: a chunk is freed (or pooled) exactly once, when its owner drops it; the pool never
//! holds more bytes than it was made for.
//!
//! A chunk of a buffer is as aligned as it is large, so a pointer into it and its class lead to its
//! header: which chunk comes next, and which strip it belongs to.
//!
//! Why a pool: the first touch of a page costs a trip into the kernel, about as much as inserting
//! the entries that fit on it. An engine that fills and drops memtables all the time pays that
//! once instead of always.
//!
//! It does not clear recycled memory; the writer writes every byte before anyone reads it.

use super::class::ChunkClass;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
// Not `crate::sync`: no reader or writer protocol depends on this lock, so loom need not explore it.
use std::sync::{Arc, Mutex, PoisonError};

/// A cache line: chunks and nodes start on one.
pub(crate) const LINE_BYTES: usize = 64;

/// Addresses have this many bits; what is above is free for tags.
pub(crate) const ADDRESS_BITS: u32 = 48;

const _: () = assert!(usize::BITS == 64, "pointers carry tags above their 48 bits");

/// One allocation, freed on drop.
pub(crate) struct Chunk {
    at: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a chunk owns plain memory and no thread-bound state; who may read or write which part of
// it is decided by the rules of publication, not by who owns the chunk.
unsafe impl Send for Chunk {}
// SAFETY: `&Chunk` gives no access to the memory.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// Allocates a chunk of this class; the contents are not initialised.
    pub(crate) fn of(class: ChunkClass) -> Self {
        Self::new(class.bytes(), class.bytes())
    }

    /// Allocates a chunk for a start, smaller than any class.
    pub(crate) fn small(bytes: usize) -> Self {
        Self::new(bytes, LINE_BYTES)
    }

    fn new(bytes: usize, align: usize) -> Self {
        assert!(bytes > 0);
        let layout = Layout::from_size_align(bytes, align).expect("sizes are powers of two");
        // SAFETY: the layout has a size above zero.
        let at = unsafe { alloc(layout) };
        let Some(at) = NonNull::new(at) else { handle_alloc_error(layout) };
        assert!(at.addr().get() >> ADDRESS_BITS == 0, "user memory lies below 2^48");
        if layout.align() >= HUGE_PAGE_BYTES {
            ask_for_huge_pages(at, layout.size());
        }
        Self { at, layout }
    }

    /// The first byte.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.at
    }

    /// How many there are.
    pub(crate) fn bytes(&self) -> usize {
        self.layout.size()
    }

    /// Makes every byte wrong.
    #[cfg(test)]
    pub(crate) fn poison(&self) {
        // SAFETY: the caller says that nobody uses the chunk any more, and it is this long.
        unsafe { self.at.write_bytes(0xDD, self.layout.size()) }
    }

    fn class(&self) -> Option<ChunkClass> {
        ChunkClass::ALL.into_iter().find(|class| class.bytes() == self.layout.align())
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

/// What a large chunk is a whole number of.
const HUGE_PAGE_BYTES: usize = ChunkClass::Large.bytes();

/// Entries are met in the order of their keys, not of their places: with pages of 4 KiB nearly each is a
/// walk through the page tables. A hint.
fn ask_for_huge_pages(at: NonNull<u8>, bytes: usize) {
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    {
        use rustix::mm::{Advice, madvise};
        // SAFETY: the range is ours alone, and the advice changes nothing about its content.
        let _ = unsafe { madvise(at.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
    }
    #[cfg(not(all(target_os = "linux", not(any(loom, miri)))))]
    let _ = (at, bytes);
}

/// What a buffer's chunk starts with; entries follow.
#[repr(C, align(64))]
pub(super) struct ChunkHeader {
    /// The next chunk of the same strip. Set before the first entry that straddles into it is
    /// published, so whoever can reach that entry sees it.
    next: AtomicPtr<ChunkHeader>,
    /// Only the writer looks at it.
    strip: AtomicU32,
}

/// Bytes of a chunk that its header takes.
pub(super) const CHUNK_HEADER_BYTES: usize = size_of::<ChunkHeader>();

impl ChunkHeader {
    /// Starts a chunk that belongs to `strip`.
    ///
    /// # Safety
    /// `at` must be the start of a chunk of a class that nobody else uses, and live as long as `'a`.
    pub(super) unsafe fn write<'a>(at: NonNull<u8>, strip: u32) -> &'a Self {
        let header = at.cast::<Self>();
        let next = AtomicPtr::new(std::ptr::null_mut());
        // SAFETY: aligned, large enough, and ours alone.
        unsafe { header.write(Self { next, strip: AtomicU32::new(strip) }) };
        // SAFETY: just written.
        unsafe { header.as_ref() }
    }

    /// The header of the chunk of `class` that `at` points into.
    ///
    /// # Safety
    /// `at` must point into such a chunk, with the provenance of the whole chunk, and the chunk must
    /// live as long as `'a`.
    #[inline(always)]
    pub(super) unsafe fn of<'a>(at: *mut u8, class: ChunkClass) -> &'a Self {
        #[allow(clippy::cast_ptr_alignment, reason = "a chunk is aligned to its size")]
        let start = at.map_addr(|at| at & !(class.bytes() - 1)).cast::<Self>();
        // SAFETY: a chunk is aligned to its size and starts with its header.
        unsafe { &*start }
    }

    /// The first entry byte of the chunk that follows, if one does.
    #[inline]
    pub(super) fn next(&self) -> Option<NonNull<u8>> {
        let next = NonNull::new(self.next.load(Ordering::Relaxed))?.cast::<u8>();
        // SAFETY: a chunk is larger than its header.
        Some(unsafe { next.add(CHUNK_HEADER_BYTES) })
    }

    pub(super) fn set_next(&self, next: NonNull<u8>) {
        self.next.store(next.cast().as_ptr(), Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn strip(&self) -> u32 {
        self.strip.load(Ordering::Relaxed)
    }

    pub(super) fn set_strip(&self, strip: u32) {
        self.strip.store(strip, Ordering::Relaxed);
    }
}

/// Memory of dropped memtables and compacted buffers, kept for new ones: an insert into recycled
/// memory takes about half the time of one into fresh memory.
///
/// Shared by the memtables of an engine. What it holds belongs to no memtable, so count it
/// (`held_bytes`) beside their `allocated_bytes`.
pub struct ChunkPool {
    chunks: Mutex<Held>,
    bytes_max: usize,
}

#[derive(Default)]
struct Held {
    of_class: [Vec<Chunk>; 3],
    bytes: usize,
}

impl Held {
    fn push(&mut self, class: ChunkClass, chunk: Chunk) {
        self.bytes += class.bytes();
        self.of_class[class as usize].push(chunk);
    }
}

impl ChunkPool {
    /// An empty pool that will keep up to `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { chunks: Mutex::default(), bytes_max })
    }

    /// Fills the pool up to `bytes` with memory that the kernel has already handed over, so that
    /// the first memtables are as fast as later ones. Takes about half a millisecond per MiB:
    /// for a thread of the engine's own.
    pub fn fill(&self, bytes: usize) {
        while self.held_bytes() + ChunkClass::Large.bytes() <= bytes.min(self.bytes_max) {
            let mut chunk = Chunk::of(ChunkClass::Large);
            chunk.touch();
            self.put(vec![chunk]);
        }
    }

    /// Bytes that wait here for the next memtable.
    pub fn held_bytes(&self) -> usize {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// A chunk of this class, if there is one and nobody else is at the pool right now: the writer
    /// of a memtable does not wait.
    pub(crate) fn take(&self, class: ChunkClass) -> Option<Chunk> {
        let mut held = self.chunks.try_lock().ok()?;
        let chunk = held.of_class[class as usize].pop()?;
        held.bytes -= class.bytes();
        Some(chunk)
    }

    /// Keeps what it has room for, the largest first, and frees the rest, outside the lock.
    pub(crate) fn put(&self, mut freed: Vec<Chunk>) {
        freed.sort_unstable_by_key(Chunk::bytes);
        let mut rest = Vec::new();
        let mut held = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(chunk) = freed.pop() {
            match chunk.class() {
                Some(class) if held.bytes + class.bytes() <= self.bytes_max => {
                    held.push(class, chunk);
                }
                _ => rest.push(chunk),
            }
        }
        drop(held);
    }
}

impl fmt::Debug for ChunkPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkPool")
            .field("held_bytes", &self.held_bytes())
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

/// Where a buffer and an index get their chunks.
#[derive(Clone, Debug)]
pub(crate) struct ChunkSource {
    pool: Option<Arc<ChunkPool>>,
}

impl ChunkSource {
    pub(crate) fn new(pool: Option<Arc<ChunkPool>>) -> Self {
        Self { pool }
    }

    pub(crate) fn take(&self, class: ChunkClass) -> Chunk {
        let pooled = self.pool.as_ref().and_then(|pool| pool.take(class));
        pooled.unwrap_or_else(|| Chunk::of(class))
    }

    pub(crate) fn give(&self, chunks: Vec<Chunk>) {
        if let Some(pool) = &self.pool {
            pool.put(chunks);
        }
    }
}

/// Asks for the cache line at an address; a hint.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults and changes no memory, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
