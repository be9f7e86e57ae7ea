//! Memory of the index: nodes, long prefixes, and links between versions.
//!
//! Guarantees: memory that was handed out never moves, and can be read until the chunks are
//! dropped. Nodes start on a cache line, so a walk over the index touches few lines.
//!
//! A replaced node is never freed, because a reader may still be in it. That costs little: the
//! index grows only with new keys. Links between versions are made by every overwrite, so retired
//! links are reused once no reader can be in them; the caller knows when.

use super::versions::Versions;
use crate::buffer::{Chunk, ChunkClass, ChunkSource, LINE_BYTES};
use crate::limits::KEY_BYTES_MAX;
use std::mem;
use std::ptr::NonNull;

/// Links are made in groups of eight, which fill whole cache lines.
const VERSIONS_BYTES: usize = 3 * LINE_BYTES;

/// The size of the first chunk. Small, because an engine may have many nearly empty memtables.
const FIRST_CHUNK_BYTES: usize = 16 << 10;

/// The writer's part of the index memory. Readers only follow pointers into it.
pub(super) struct Arena {
    chunks: Vec<Chunk>,
    at: NonNull<u8>,
    rest_bytes: usize,
    source: ChunkSource,
    allocated_bytes: usize,
    used_bytes: usize,
    free_versions: Vec<NonNull<Versions>>,
    reuses_versions: bool,
}

// SAFETY: the pointers lead into chunks that this arena owns.
unsafe impl Send for Arena {}

impl Arena {
    /// An empty arena. It takes its first memory with the first node. `reuses_versions`: are links
    /// between versions ever retired?
    pub(super) fn new(source: ChunkSource, reuses_versions: bool) -> Self {
        Self {
            chunks: Vec::new(),
            at: NonNull::dangling(),
            rest_bytes: 0,
            source,
            allocated_bytes: 0,
            used_bytes: 0,
            free_versions: Vec::new(),
            reuses_versions,
        }
    }

    /// Bytes held from the allocator.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.allocated_bytes
    }

    /// Bytes handed out, including replaced nodes.
    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Takes the chunks. The arena must not be used afterwards.
    pub(super) fn take_chunks(&mut self) -> Vec<Chunk> {
        self.rest_bytes = 0;
        self.free_versions.clear();
        mem::take(&mut self.chunks)
    }

    /// Stores a node.
    ///
    /// # Safety
    /// The chunks of this arena must outlive `'a`.
    pub(super) unsafe fn node<'a, N>(&mut self, node: N) -> &'a N {
        const { assert!(align_of::<N>() <= LINE_BYTES) };
        const { assert!(!mem::needs_drop::<N>()) };
        let at = self.cut(size_of::<N>()).cast::<N>();
        // SAFETY: chunks start on a cache line and are divided into whole lines, so `at` is aligned
        // for `N`. Nobody else was given these bytes.
        unsafe { at.write(node) };
        // SAFETY: just written. From here on the node is only shared, and the caller guarantees the
        // lifetime.
        unsafe { at.as_ref() }
    }

    /// Copies bytes that a node refers to.
    ///
    /// # Safety
    /// The chunks of this arena must outlive `'a`.
    pub(super) unsafe fn bytes<'a>(&mut self, bytes: &[u8]) -> &'a [u8] {
        let at = self.cut(bytes.len());
        // SAFETY: that many bytes were reserved for this.
        unsafe { at.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        // SAFETY: just written and never changed; the caller guarantees the lifetime.
        unsafe { std::slice::from_raw_parts(at.as_ptr(), bytes.len()) }
    }

    /// Memory for a link between two versions of a key, perhaps that of a retired link.
    #[inline]
    pub(super) fn versions(&mut self) -> NonNull<Versions> {
        self.free_versions.pop().unwrap_or_else(|| self.more_versions())
    }

    #[cold]
    fn more_versions(&mut self) -> NonNull<Versions> {
        let mut at = self.cut(VERSIONS_BYTES).cast::<Versions>();
        let first = at;
        for _ in 1..VERSIONS_BYTES / size_of::<Versions>() {
            // SAFETY: there is room for that many.
            at = unsafe { at.add(1) };
            self.free_versions.push(at);
        }
        first
    }

    /// Are links between versions ever retired?
    #[inline(always)]
    pub(super) fn reuses_versions(&self) -> bool {
        self.reuses_versions
    }

    /// Makes retired links available again. No reader may be in them any more.
    pub(super) fn reuse(&mut self, versions: &mut Vec<NonNull<Versions>>) {
        self.free_versions.append(versions);
    }

    fn cut(&mut self, bytes: usize) -> NonNull<u8> {
        let bytes = bytes.next_multiple_of(LINE_BYTES);
        if bytes > self.rest_bytes {
            self.grow(bytes);
        }
        let at = self.at;
        // SAFETY: that many bytes are left, so the sum is inside the chunk or one past its end.
        self.at = unsafe { at.add(bytes) };
        self.rest_bytes -= bytes;
        self.used_bytes += bytes;
        at
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, bytes: usize) {
        let chunk = if self.chunks.is_empty() && bytes <= FIRST_CHUNK_BYTES {
            Chunk::plain(FIRST_CHUNK_BYTES)
        } else {
            // As much as there is already, in the nearest class. The smallest class fits the
            // longest prefix.
            let wanted = self.allocated_bytes;
            let class = ChunkClass::ALL.into_iter().rfind(|class| class.bytes() <= wanted);
            self.source.take(class.unwrap_or_default().min(self.source.largest()))
        };
        self.at = chunk.start();
        self.rest_bytes = chunk.bytes();
        self.allocated_bytes += chunk.bytes();
        self.chunks.push(chunk);
    }
}

const _: () = assert!(KEY_BYTES_MAX <= ChunkClass::Small.bytes());
#[cfg(not(loom))]
const _: () = assert!(8 * size_of::<Versions>() == VERSIONS_BYTES);
