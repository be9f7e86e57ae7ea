//! Giving memory back while a memtable takes writes: which versions are dead, and when memory is
//! free.
//!
//! ```text
//! overwritten --(successor visible, no read point between)--> retired
//!             --(compaction)--> chunk vacated --(both phases of readers gone)--> chunk free
//! ```
//!
//! Every overwrite adds an entry (`Overwritten`) to the retire list. The list is walked in order.
//! An entry whose old version is held by a snapshot is set aside, and looked at again when a read
//! point was given back. The writer does all of this, a bounded amount per call
//! (`MemtableWriter::reclaim`).

use super::node::{Header, Link, Slot};
use super::tree::Place;
use super::versions::Versions;
use crate::buffer::{BufferOptions, Chunk, Content, Grace, Vacated, prefetch};
use crate::key::Seqno;
use crate::points::ReadPoints;
use std::collections::VecDeque;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;

/// How and for whom to reclaim.
#[derive(Clone, Debug)]
pub struct Reclaim {
    /// Who still reads what was overwritten.
    pub points: Arc<ReadPoints>,
    /// When to compact, in what steps.
    pub options: BufferOptions,
}

/// What `MemtableWriter::reclaim` has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReclaimStep {
    /// Something was retired, moved or freed.
    pub progress: bool,
    /// Memory has become free: what the entries cost may have fallen.
    pub freed: bool,
}

/// A version that was put in front of an older one.
#[derive(Clone, Copy)]
pub(super) struct Overwritten {
    /// The link between the two: of all on the list exactly one names it while it is in use.
    pub(super) versions: NonNull<Versions>,
    /// The place in the tree that led to it.
    slot: NonNull<Slot>,
    /// And the node that the place is in, if it is in one.
    node: Option<NonNull<Header>>,
    /// When the newer one was written.
    pub(super) seqno: Seqno,
}

impl Overwritten {
    pub(super) fn new(versions: NonNull<Versions>, place: Place<'_>, seqno: Seqno) -> Self {
        let Place { slot, node } = place;
        Self { versions, slot: NonNull::from(slot), node: node.map(NonNull::from), seqno }
    }

    /// Asks for the link and the place.
    #[inline]
    pub(super) fn prefetch_links(&self) {
        prefetch(self.versions.as_ptr().cast());
        prefetch(self.slot.as_ptr().cast());
        if let Some(node) = self.node {
            prefetch(node.as_ptr().cast());
        }
    }

    /// Asks for the older version. Waits for the link, unless it was asked for.
    ///
    /// # Safety
    /// The link must be in use.
    #[inline]
    pub(super) unsafe fn prefetch_older(&self) {
        // SAFETY: the caller's promise; links are not freed before their arena.
        let versions = unsafe { self.versions.as_ref() };
        prefetch(Link::load(&versions.older).address());
    }

    /// The slot that leads to the link, in a bounded time; `None` if that is a place in the tree
    /// and not the one that led to it then.
    ///
    /// # Safety
    /// The link must be in use, the memory of the tree must outlive `'a`, and the caller must be
    /// the only writer.
    #[inline]
    pub(super) unsafe fn holder<'a>(&self) -> Option<&'a Slot> {
        // SAFETY: links are not freed before their arena, which the caller promises.
        if let Some(above) = unsafe { self.versions.as_ref() }.above() {
            // SAFETY: as above.
            return Some(&unsafe { above.as_ref() }.older);
        }
        if let Some(node) = self.node {
            // SAFETY: nor are nodes.
            if unsafe { node.as_ref() }.is_replaced() {
                return None;
            }
        }
        // SAFETY: as above.
        let place = unsafe { self.slot.as_ref() };
        // It may lead to a node by now, in which the key has got another place.
        Link::load(place).leads_where(Link::to_versions(self.versions)).then_some(place)
    }
}

// SAFETY: the pointers lead into the arena of the writer that owns the list.
unsafe impl Send for Overwritten {}

/// What was overwritten in one memtable and is not retired yet.
#[derive(Default)]
pub(super) struct RetireList {
    /// Not looked at yet, oldest first.
    pub(super) fresh: VecDeque<Overwritten>,
    /// A read point held the older version when they were looked at.
    pub(super) held: VecDeque<Overwritten>,
    /// How many of `held`, from the front, are to be looked at again.
    pub(super) again: usize,
    /// `ReadPoints::released` when `again` was set.
    pub(super) released: u64,
}

/// Memory that cannot be reached any more but may still be looked at.
#[derive(Default)]
struct Batch {
    chunks: Vec<Chunk>,
    gone: Content,
    versions: Vec<NonNull<Versions>>,
}

/// What waits for readers to go (INVARIANT(grace-before-reuse)).
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

/// Links that are worth a look at the readers' counters.
const VERSIONS_WORTH_A_TURN: usize = 256;

/// What left limbo.
pub(super) struct Freed {
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

    /// Bytes of chunks in here.
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

    /// What readers have left since the turn before the last one, if they have.
    pub(super) fn turn(&mut self, grace: &Grace) -> Option<Freed> {
        if !grace.turn() {
            return None;
        }
        let Batch { chunks, versions, .. } = mem::take(&mut self.old);
        mem::swap(&mut self.old, &mut self.young);
        self.chunk_bytes -= chunks.iter().map(Chunk::bytes).sum::<usize>();
        Some(Freed { chunks, versions })
    }

    /// What went with the chunks in here.
    pub(super) fn gone(&self) -> Content {
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
