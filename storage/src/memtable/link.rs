//! The tagged links of the tree, and the slots that hold them.
//!
//! Guarantees: to publish a link is one Release store of one pointer. Who loads it sees everything
//! that the writer did before. A link tells the kind of its target without a look at the target.
//!
//! Not here: what the targets are (`node`, `versions`, and the buffer's entries).

use super::node::Node;
use super::versions::Versions;
use crate::buffer::{ADDRESS_BITS, EntryAt};
use crate::sync::atomic::{AtomicPtr, Ordering};
use std::ptr::{self, NonNull};

/// Holds a link and publishes it.
pub(super) type NodeSlot = AtomicPtr<u8>;

/// A tagged address. The kind of its target is above the address; null is empty. A link to an entry
/// also has the bits that `EntryAt` needs. Every link records whether versions around it were
/// retired.
///
/// ```text
/// bits 0..48 address | 48..51 kind | 51 cut below | 52..54 an entry's own | 54 cut before
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeLink(*mut u8);

const KIND_MASK: usize = 0b111;
const KIND_ENTRY: usize = 0;
const KIND_4: usize = 1;
const KIND_16: usize = 2;
const KIND_48: usize = 3;
const KIND_256: usize = 4;
const KIND_VERSIONS: usize = 5;
/// Versions older than the target were retired.
const CUT_BELOW: usize = 1 << (ADDRESS_BITS + 3);
/// Versions between the holder of this link and its target were retired.
const CUT_BEFORE: usize = 1 << (ADDRESS_BITS + 6);
const CUTS: usize = CUT_BELOW | CUT_BEFORE;

/// The target of a link.
pub(super) enum LinkTarget<'a> {
    /// Nothing.
    Empty,
    /// The only version of one key.
    Entry(EntryAt<'a>),
    /// Several versions of one key.
    Versions(&'a Versions),
    /// A subtree.
    Node(Node<'a>),
}

impl NodeLink {
    /// The link without a target.
    pub(super) const EMPTY: Self = Self(ptr::null_mut());

    /// A link to an entry.
    #[inline(always)]
    pub(super) fn to_entry(entry: EntryAt<'_>) -> Self {
        Self(entry.tagged().as_ptr())
    }

    /// A link to several versions.
    #[inline(always)]
    pub(super) fn to_versions(versions: NonNull<Versions>) -> Self {
        Self::tagged(versions.as_ptr().cast(), KIND_VERSIONS)
    }

    #[inline(always)]
    fn to<N>(node: &N, kind: usize) -> Self {
        Self::tagged(ptr::from_ref(node).cast_mut().cast(), kind)
    }

    #[inline(always)]
    fn tagged(at: *mut u8, kind: usize) -> Self {
        Self(at.map_addr(|at| at | kind << ADDRESS_BITS))
    }

    /// Loads a slot. Everything that the writer did before it published the link is visible
    /// afterwards.
    #[inline(always)]
    pub(super) fn load(slot: &NodeSlot) -> Self {
        #[cfg(test)]
        loads::count();
        Self(slot.load(Ordering::Acquire))
    }

    /// Publishes this link, and with it everything that the writer has done so far.
    #[inline(always)]
    pub(super) fn publish(self, slot: &NodeSlot) {
        slot.store(self.0, Ordering::Release);
    }

    #[inline(always)]
    pub(super) fn is_empty(self) -> bool {
        self.0.is_null()
    }

    /// Were versions older than the target retired?
    #[inline(always)]
    pub(super) fn is_cut_below(self) -> bool {
        self.0.addr() & CUT_BELOW != 0
    }

    /// Were versions between the holder of this link and its target retired?
    #[inline(always)]
    pub(super) fn is_cut_before(self) -> bool {
        self.0.addr() & CUT_BEFORE != 0
    }

    /// This link, with the mark that older versions were retired.
    #[inline(always)]
    pub(super) fn cut_below(self) -> Self {
        Self(self.0.map_addr(|at| at | CUT_BELOW))
    }

    /// This link, with the mark that versions in front of it were retired.
    #[inline(always)]
    pub(super) fn cut_before(self) -> Self {
        Self(self.0.map_addr(|at| at | CUT_BEFORE))
    }

    /// This link, with the marks of `other` as well.
    #[inline(always)]
    pub(super) fn with_cuts_of(self, other: Self) -> Self {
        Self(self.0.map_addr(|at| at | other.0.addr() & CUTS))
    }

    /// This link, with the cut-before mark of `other` instead of its own. It moves to the place of
    /// `other`: versions between its old holder and its target were not retired in front of that
    /// place.
    #[inline(always)]
    pub(super) fn with_cut_before_of(self, other: Self) -> Self {
        Self(self.0.map_addr(|at| at & !CUT_BEFORE | other.0.addr() & CUT_BEFORE))
    }

    /// Do both have the same target?
    #[inline(always)]
    pub(super) fn leads_where(self, other: Self) -> bool {
        self.address() == other.address()
    }

    /// The address without its tags, for prefetching.
    #[inline(always)]
    pub(super) fn address(self) -> *const u8 {
        self.0.map_addr(|at| at & ((1 << ADDRESS_BITS) - 1)).cast_const()
    }

    /// The entry that this leads to; `None` for another kind of target.
    ///
    /// # Safety
    /// As for `target`.
    #[inline(always)]
    pub(super) unsafe fn entry<'a>(self) -> Option<EntryAt<'a>> {
        if self.0.addr() >> ADDRESS_BITS & KIND_MASK != KIND_ENTRY {
            return None;
        }
        let at = NonNull::new(self.0.map_addr(|at| at & !CUTS))?;
        // SAFETY: a link of this kind is made only from a published entry.
        Some(unsafe { EntryAt::from_tagged(at) })
    }

    /// Follows the link.
    ///
    /// # Safety
    /// The link must have been loaded from a slot of a tree (or made by this thread) whose memory
    /// outlives `'a`.
    #[inline(always)]
    pub(super) unsafe fn target<'a>(self) -> LinkTarget<'a> {
        let at = self.address();
        match self.0.addr() >> ADDRESS_BITS & KIND_MASK {
            // SAFETY: the caller's guarantee is the same.
            KIND_ENTRY => match unsafe { self.entry() } {
                None => LinkTarget::Empty,
                Some(entry) => LinkTarget::Entry(entry),
            },
            // SAFETY: this tag is only on links to a `Node4`, which lives as long as the arena.
            KIND_4 => LinkTarget::Node(Node::N4(unsafe { &*at.cast() })),
            // SAFETY: as above, for `Node16`.
            KIND_16 => LinkTarget::Node(Node::N16(unsafe { &*at.cast() })),
            // SAFETY: as above, for `Node48`.
            KIND_48 => LinkTarget::Node(Node::N48(unsafe { &*at.cast() })),
            // SAFETY: as above, for `Node256`.
            KIND_256 => LinkTarget::Node(Node::N256(unsafe { &*at.cast() })),
            // SAFETY: as above, for `Versions`; there is no sixth kind.
            _ => LinkTarget::Versions(unsafe { &*at.cast() }),
        }
    }
}

impl Node<'_> {
    /// A link to this node.
    pub(super) fn link(self) -> NodeLink {
        match self {
            Self::N4(node) => NodeLink::to(node, KIND_4),
            Self::N16(node) => NodeLink::to(node, KIND_16),
            Self::N48(node) => NodeLink::to(node, KIND_48),
            Self::N256(node) => NodeLink::to(node, KIND_256),
        }
    }
}

/// Counts the links that a thread has loaded, so that tests can measure work.
#[cfg(test)]
pub(super) mod loads {
    use std::cell::Cell;

    thread_local! {
        static LOADED: Cell<u64> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        LOADED.set(LOADED.get() + 1);
    }

    /// The count so far.
    pub(in super::super) fn so_far() -> u64 {
        LOADED.get()
    }
}
