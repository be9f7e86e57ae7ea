//! Chunks of memory.
//!
//! Guarantees: a chunk is freed or pooled exactly once, when its owner drops it.
//!
//! Large chunks are mapped and unmapped separately. An allocator would leave holes beside blocks
//! that are aligned to their own size, and would keep these holes. Unmapping takes about as long as
//! the first touch of the pages did, so `ChunkPool` keeps it away from threads that others wait
//! for.
//!
//! A chunk is aligned to its own size. So a pointer into a chunk, with the chunk's class, leads to
//! its header. The header has the next chunk and the extent that the chunk belongs to.

use super::class::ChunkClass;
use crate::give_way;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// A cache line. Chunks and nodes start on one.
pub(crate) const LINE_BYTES: usize = 64;

/// The number of bits of an address. The bits above are free for tags.
pub(crate) const ADDRESS_BITS: u32 = 48;

const _: () = assert!(usize::BITS == 64, "pointers carry tags above their 48 bits");

/// One allocation or mapping, freed on drop.
pub(crate) struct Chunk {
    at: NonNull<u8>,
    layout: Layout,
    is_mapped: bool,
    is_makeshift: bool,
}

// SAFETY: a chunk owns plain memory and no thread-bound state. Who may read or write which part of
// it is decided by the rules of publication, not by who owns the chunk.
unsafe impl Send for Chunk {}
// SAFETY: `&Chunk` gives no access to the memory.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// Allocates a chunk of this class with uninitialised contents.
    pub(crate) fn of(class: ChunkClass) -> Self {
        Self::new(class.bytes(), class.bytes())
    }

    /// Allocates a chunk of no class: a first one that is smaller than any, or a larger one.
    pub(crate) fn plain(bytes: usize) -> Self {
        Self::new(bytes, LINE_BYTES)
    }

    /// Allocates a chunk of this class; a large one with huge pages, if possible.
    pub(super) fn dense(class: ChunkClass) -> Self {
        let mut chunk = Self::of(class);
        if class.is_largest() {
            chunk.advise(Pages::Huge);
        }
        chunk
    }

    fn new(bytes: usize, align: usize) -> Self {
        assert!(bytes > 0);
        let layout = Layout::from_size_align(bytes, align).expect("sizes are powers of two");
        let mapped = if align >= MAPPED_BYTES_MIN { mapping::map(layout) } else { None };
        let at = mapped.unwrap_or_else(|| {
            // SAFETY: the layout has a size above zero.
            let at = unsafe { alloc(layout) };
            NonNull::new(at).unwrap_or_else(|| handle_alloc_error(layout))
        });
        assert!(at.addr().get() >> ADDRESS_BITS == 0, "user memory lies below 2^48");
        Self { at, layout, is_mapped: mapped.is_some(), is_makeshift: false }
    }

    /// A large chunk whose pages the kernel has already provided, as huge pages if possible. The
    /// kernel clears them here, at once.
    pub(super) fn ready() -> Self {
        let mut chunk = Self::dense(ChunkClass::Large);
        chunk.touch();
        chunk
    }

    /// A chunk of this class for a caller that cannot wait until all of it is cleared. The first
    /// touch of each small page clears only that page.
    pub(super) fn at_once(class: ChunkClass) -> Self {
        let mut chunk = Self::of(class);
        if class.is_largest() {
            chunk.advise(Pages::Small);
            chunk.is_makeshift = true;
        }
        chunk
    }

    /// Is it a large chunk with small pages?
    pub(super) fn is_makeshift(&self) -> bool {
        self.is_makeshift
    }

    /// The first byte.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.at
    }

    /// The number of bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.layout.size()
    }

    /// Overwrites every byte, so that a late reader notices.
    #[cfg(test)]
    pub(crate) fn poison(&self) {
        // SAFETY: by the caller's guarantee nobody uses the chunk any more, and it is this long.
        unsafe { self.at.write_bytes(0xDD, self.layout.size()) }
    }

    /// The class; `None` for the first chunk of an index.
    pub(super) fn class(&self) -> Option<ChunkClass> {
        ChunkClass::ALL.into_iter().find(|class| class.bytes() == self.layout.align())
    }

    /// Makes the kernel provide memory for every page.
    pub(super) fn touch(&mut self) {
        for offset in (0..self.layout.size()).step_by(PAGE_BYTES) {
            give_way::now_and_then();
            // SAFETY: the chunk is longer than the offset.
            let page = unsafe { self.at.add(offset) };
            // SAFETY: the chunk is exclusively ours (`&mut`). Volatile: nobody reads the written
            // byte.
            unsafe { page.write_volatile(0) };
        }
    }

    /// Tells the kernel which pages are wanted. A hint.
    fn advise(&mut self, pages: Pages) {
        #[cfg(all(target_os = "linux", not(any(loom, miri))))]
        {
            use rustix::mm::{Advice, madvise};
            let advice = match pages {
                Pages::Small => Advice::LinuxNoHugepage,
                Pages::Huge => Advice::LinuxHugepage,
            };
            // SAFETY: the range is exclusively ours, and the advice does not change its contents.
            let _ = unsafe { madvise(self.at.as_ptr().cast(), self.layout.size(), advice) };
        }
        #[cfg(not(all(target_os = "linux", not(any(loom, miri)))))]
        let _ = pages;
    }
}

/// The page size to ask for. Entries are accessed in the order of their keys, not of their places.
/// So with small pages nearly each access walks the page tables. But a huge page is cleared all at
/// once.
#[derive(Clone, Copy)]
enum Pages {
    Small,
    Huge,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        #[cfg(test)]
        freed_here::count(self.layout.size());
        if self.is_mapped {
            // SAFETY: mapped in `new` with this layout, and unmapped only here. Whoever drops a
            // chunk guarantees that nobody uses it any more.
            return unsafe { mapping::unmap(self.at, self.layout.size()) };
        }
        // SAFETY: allocated in `new` with this layout, freed only here.
        unsafe { dealloc(self.at.as_ptr(), self.layout) }
    }
}

/// Counts the bytes of chunks that a thread has freed.
#[cfg(test)]
pub(crate) mod freed_here {
    use std::cell::Cell;

    thread_local! {
        static BYTES: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count(bytes: usize) {
        // A chunk may outlive the thread-locals of the thread that frees it.
        let _ = BYTES.try_with(|freed| freed.set(freed.get() + bytes));
    }

    /// The count so far.
    pub(crate) fn bytes() -> usize {
        BYTES.get()
    }
}

/// Chunks with at least this size and alignment are mapped.
const MAPPED_BYTES_MIN: usize = ChunkClass::Medium.bytes();

#[cfg(all(target_os = "linux", not(any(loom, miri))))]
mod mapping {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    use std::alloc::Layout;
    use std::ptr::{self, NonNull};

    /// Fresh memory of this layout; `None` if the system refuses.
    pub(super) fn map(layout: Layout) -> Option<NonNull<u8>> {
        let bytes = layout.size();
        let at = anywhere(bytes)?;
        if at.addr().get().is_multiple_of(layout.align()) {
            return Some(at);
        }
        // SAFETY: just mapped, and nobody uses it.
        unsafe { unmap(at, bytes) };
        // Large enough to contain an aligned part. The rest is unmapped.
        let at = anywhere(bytes + layout.align())?;
        let before = at.align_offset(layout.align());
        // SAFETY: inside what was just mapped.
        let aligned = unsafe { at.add(before) };
        if before > 0 {
            // SAFETY: before the aligned part; nobody uses it.
            unsafe { unmap(at, before) };
        }
        // SAFETY: at most one past the end of what was mapped.
        let end = unsafe { aligned.add(bytes) };
        if before < layout.align() {
            // SAFETY: behind the aligned part; nobody uses it.
            unsafe { unmap(end, layout.align() - before) };
        }
        Some(aligned)
    }

    fn anywhere(bytes: usize) -> Option<NonNull<u8>> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at an address that the system chooses replaces no other.
        let at = unsafe { mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::PRIVATE) };
        at.ok().and_then(|at| NonNull::new(at.cast()))
    }

    /// # Safety
    /// The range must be whole pages that `map` has mapped, and nobody may use it any more.
    pub(super) unsafe fn unmap(at: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's guarantee. If the system has no memory to record the change, the
        // range stays mapped and unused.
        let _ = unsafe { munmap(at.as_ptr().cast(), bytes) };
    }
}

/// On these targets all chunks come from the allocator.
#[cfg(not(all(target_os = "linux", not(any(loom, miri)))))]
mod mapping {
    use std::alloc::Layout;
    use std::ptr::NonNull;

    pub(super) fn map(_: Layout) -> Option<NonNull<u8>> {
        None
    }

    /// # Safety
    /// None: nothing is ever mapped.
    pub(super) unsafe fn unmap(_: NonNull<u8>, _: usize) {
        unreachable!("nothing is mapped here")
    }
}

/// The smallest page size.
const PAGE_BYTES: usize = 4 << 10;

/// The header of a buffer's chunk; entries follow it.
#[repr(C, align(64))]
pub(super) struct ChunkHeader {
    /// The next chunk of the same extent. It is set before the first entry that straddles into that
    /// chunk is published, so everybody who can reach that entry sees it.
    next: AtomicPtr<ChunkHeader>,
    /// Only the writer reads it.
    extent: AtomicU32,
}

/// Bytes of a chunk that its header takes.
pub(super) const CHUNK_HEADER_BYTES: usize = size_of::<ChunkHeader>();

impl ChunkHeader {
    /// Initialises a chunk that belongs to `extent`.
    ///
    /// # Safety
    /// `at` must be the start of a chunk of some class that nobody else uses and that lives as long
    /// as `'a`.
    pub(super) unsafe fn write<'a>(at: NonNull<u8>, extent: u32) -> &'a Self {
        let header = at.cast::<Self>();
        let next = AtomicPtr::new(std::ptr::null_mut());
        // SAFETY: aligned, large enough, and exclusively ours.
        unsafe { header.write(Self { next, extent: AtomicU32::new(extent) }) };
        // SAFETY: just written.
        unsafe { header.as_ref() }
    }

    /// The header of the chunk of `class` that `at` points into.
    ///
    /// # Safety
    /// `at` must point into such a chunk, with the provenance of the whole chunk, and the chunk
    /// must live as long as `'a`.
    #[inline(always)]
    pub(super) unsafe fn of<'a>(at: *mut u8, class: ChunkClass) -> &'a Self {
        #[allow(clippy::cast_ptr_alignment, reason = "a chunk is aligned to its size")]
        let start = at.map_addr(|at| at & !(class.bytes() - 1)).cast::<Self>();
        // SAFETY: a chunk is aligned to its size and starts with its header.
        unsafe { &*start }
    }

    /// The first entry byte of the next chunk, if there is one.
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
    pub(super) fn extent(&self) -> u32 {
        self.extent.load(Ordering::Relaxed)
    }

    pub(super) fn set_extent(&self, extent: u32) {
        self.extent.store(extent, Ordering::Relaxed);
    }
}

/// Prefetches the cache line at an address. A hint.
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

#[cfg(all(test, target_os = "linux", not(any(loom, miri))))]
mod tests {
    use super::*;

    /// Goal: large chunks are mapped, because an allocator would keep freed ones without being able
    /// to reuse them.
    /// Planted: `MAPPED_BYTES_MIN` of `usize::MAX`.
    #[test]
    fn b16_chunks_are_mapped_by_themselves_unless_they_are_small() {
        for class in ChunkClass::ALL {
            assert_eq!(Chunk::of(class).is_mapped, class > ChunkClass::Small, "{class:?}");
        }
    }
}
