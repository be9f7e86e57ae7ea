//! Reclaims memory while a memtable takes writes: which versions are dead, and when memory is free.
//!
//! ```text
//! overwritten --(successor visible, no read point between)--> retired
//!             --(compaction)--> chunk vacated --(both phases of readers gone)--> chunk free
//! ```
//!
//! Every overwrite adds an entry (`Overwritten`) to the retire list, which is walked in order. An
//! entry whose older version is held by a snapshot is set aside, and examined again when a read
//! point was released. The writer does all of this, a bounded amount per call
//! (`MemtableWriter::reclaim`).

use super::link::{NodeLink, NodeSlot};
use super::node::NodeHeader;
use super::tree::KeySlot;
use super::versions::Versions;
use crate::buffer::{BufferOptions, Chunk, EntryCounts, Grace, Vacated, prefetch};
use crate::key::Seqno;
use crate::points::ReadPoints;
use std::collections::VecDeque;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;

/// How a memtable reclaims, and for which readers.
#[derive(Clone, Debug)]
pub struct Reclaim {
    /// The read points that hold overwritten versions.
    pub points: Arc<ReadPoints>,
    /// When to compact, and in what steps.
    pub options: BufferOptions,
}

/// What one call of `MemtableWriter::reclaim` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReclaimStep {
    /// Something was retired, moved or freed, or looked at in vain.
    pub progress: bool,
    /// Memory has become free, so the charge of the entries may have fallen.
    pub freed: bool,
}

/// A version that was put in front of an older one.
#[derive(Clone, Copy)]
pub(super) struct Overwritten {
    /// The link between the two. While it is in use, exactly one entry of the list names it.
    pub(super) versions: NonNull<Versions>,
    /// The slot in the tree that led to it.
    slot: NonNull<NodeSlot>,
    /// The node that the slot is in, if any.
    node: Option<NonNull<NodeHeader>>,
    /// The sequence number of the newer version.
    pub(super) seqno: Seqno,
}

impl Overwritten {
    pub(super) fn new(versions: NonNull<Versions>, place: KeySlot<'_>, seqno: Seqno) -> Self {
        let KeySlot { slot, node } = place;
        Self { versions, slot: NonNull::from(slot), node: node.map(NonNull::from), seqno }
    }

    /// Prefetches the link and the slot.
    #[inline]
    pub(super) fn prefetch_links(&self) {
        prefetch(self.versions.as_ptr().cast());
        prefetch(self.slot.as_ptr().cast());
        if let Some(node) = self.node {
            prefetch(node.as_ptr().cast());
        }
    }

    /// Prefetches the older version. Waits for the link's cache line, unless that was prefetched.
    ///
    /// # Safety
    /// The link must be in use.
    #[inline]
    pub(super) unsafe fn prefetch_older(&self) {
        // SAFETY: the caller's guarantee; links are not freed before their arena.
        let versions = unsafe { self.versions.as_ref() };
        prefetch(NodeLink::load(&versions.older).address());
    }

    /// The slot that leads to the link, in bounded time. `None` if that is a slot in the tree, but
    /// no longer the recorded one.
    ///
    /// # Safety
    /// The link must be in use, the memory of the tree must outlive `'a`, and the caller must be
    /// the only writer.
    #[inline]
    pub(super) unsafe fn holder<'a>(&self) -> Option<&'a NodeSlot> {
        // SAFETY: links are not freed before their arena, which the caller guarantees.
        if let Some(above) = unsafe { self.versions.as_ref() }.above() {
            // SAFETY: as above.
            return Some(&unsafe { above.as_ref() }.older);
        }
        if let Some(node) = self.node {
            // SAFETY: nodes are not freed before their arena, either.
            if unsafe { node.as_ref() }.is_replaced() {
                return None;
            }
        }
        // SAFETY: as above.
        let place = unsafe { self.slot.as_ref() };
        // The slot may lead to a node by now, in which the key has got another slot.
        NodeLink::load(place).leads_where(NodeLink::to_versions(self.versions)).then_some(place)
    }
}

// SAFETY: the pointers lead into the arena of the writer that owns the list.
unsafe impl Send for Overwritten {}

/// Overwritten versions of one memtable that are not retired yet.
#[derive(Default)]
pub(super) struct RetireList {
    /// Not examined yet, oldest first.
    pub(super) fresh: VecDeque<Overwritten>,
    /// A read point held the older version when the entry was examined.
    pub(super) held: VecDeque<Overwritten>,
    /// How many entries of `held`, from the front, must be examined again.
    pub(super) again: usize,
    /// `ReadPoints::released` when `again` was set.
    pub(super) released: u64,
    /// Memory for the read points of one look.
    pub(super) points: Vec<Seqno>,
}

/// Memory that is unreachable but may still have readers.
#[derive(Default)]
struct Batch {
    chunks: Vec<Chunk>,
    gone: EntryCounts,
    versions: Vec<NonNull<Versions>>,
}

/// Memory that waits for its readers to leave (INVARIANT(grace-before-reuse)).
#[derive(Default)]
pub(super) struct Limbo {
    /// Unreachable since some time after the last turn.
    young: Batch,
    /// Unreachable since before the last turn.
    old: Batch,
    chunk_bytes: usize,
}

// SAFETY: the pointers lead into the arena of the writer that owns the limbo.
unsafe impl Send for Limbo {}

/// With this many links, a look at the readers' counters is worthwhile.
const VERSIONS_WORTH_A_TURN: usize = 256;

/// Memory that has left limbo.
pub(super) struct FreedMemory {
    pub(super) chunks: Vec<Chunk>,
    pub(super) versions: Vec<NonNull<Versions>>,
}

impl Limbo {
    pub(super) fn add_chunks(&mut self, vacated: &mut Vec<Vacated>) {
        for Vacated { chunk, gone } in vacated.drain(..) {
            self.chunk_bytes += chunk.bytes();
            self.young.chunks.push(chunk);
            self.young.gone.add(gone);
        }
    }

    #[inline]
    pub(super) fn add_versions(&mut self, versions: NonNull<Versions>) {
        self.young.versions.push(versions);
    }

    /// Bytes of the chunks in limbo.
    pub(super) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    pub(super) fn holds_chunks(&self) -> bool {
        self.chunk_bytes != 0
    }

    #[inline]
    pub(super) fn is_worth_a_turn(&self) -> bool {
        self.holds_chunks() || self.young.versions.len() >= VERSIONS_WORTH_A_TURN
    }

    /// Ends a grace period, if all readers of the phase have left. Returns the memory that became
    /// unreachable before the previous turn.
    pub(super) fn turn(&mut self, grace: &Grace) -> Option<FreedMemory> {
        if !grace.turn() {
            return None;
        }
        let Batch { chunks, versions, .. } = mem::take(&mut self.old);
        mem::swap(&mut self.old, &mut self.young);
        self.chunk_bytes -= chunks.iter().map(Chunk::bytes).sum::<usize>();
        Some(FreedMemory { chunks, versions })
    }

    /// The entries that were in the chunks in limbo.
    pub(super) fn gone(&self) -> EntryCounts {
        let mut gone = self.young.gone;
        gone.add(self.old.gone);
        gone
    }

    pub(super) fn take_chunks(&mut self) -> Vec<Chunk> {
        let mut chunks = mem::take(&mut self.young).chunks;
        chunks.append(&mut mem::take(&mut self.old).chunks);
        self.chunk_bytes = 0;
        chunks
    }
}
