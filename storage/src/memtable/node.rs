//! Inner nodes in four sizes.
//!
//! A node has a *prefix*: bytes that all keys below it share at this depth. At most one entry has a
//! key that *ends here*. The byte after the prefix selects the child.
//!
//! Guarantees: each change to a node that readers can reach is one Release store of one pointer.
//! Everything that the store depends on (the key byte, the index, the presence bit) is written
//! before it. A reader that does not see all of it sees an empty slot, which means "not there".
//! Only the writer changes nodes. Readers never retry.
//!
//! Nodes are not moved or freed. A node that must grow, or lose a part of its prefix, is copied.
//! The copy takes its place in the parent, and the original stays as it was (*frozen*).
//!
//! Not here: the links between nodes (`link`).

use super::arena::Arena;
use super::link::{NodeLink, NodeSlot};
use super::swar::{LOW_BITS, first_word, matches_4, matches_8};
use crate::buffer::{LINE_BYTES, prefetch};
use crate::key::common_prefix_len;
use crate::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::{array, ptr, slice};

/// The header of every node.
#[repr(C, align(8))]
pub(super) struct NodeHeader {
    /// The entry whose key is exactly the path to here, prefix included.
    pub(super) ends_here: NodeSlot,
    /// The whole prefix, in the arena, if it is longer than `HEAD_BYTES`.
    prefix_at: *const u8,
    /// The first eight bytes of the prefix, padded with zeros. Most prefixes are compared within
    /// this cache line.
    prefix_head: [u8; HEAD_BYTES],
    prefix_len: u16,
    /// The number of children, or `REPLACED`. Only the writer reads it.
    count: AtomicU16,
    /// The key bytes of a `Node4`. They are here so that it fits into one cache line.
    bytes_4: AtomicU32,
}

/// Bytes of the prefix that the header has.
const HEAD_BYTES: usize = 8;

/// The count of a node that was replaced by a copy.
const REPLACED: u16 = u16::MAX;

impl NodeHeader {
    /// A header with this prefix, which is copied into the arena if it is long.
    ///
    /// # Safety
    /// The node must not outlive the arena's chunks.
    unsafe fn new(arena: &mut Arena, prefix: &[u8]) -> Self {
        if prefix.len() <= HEAD_BYTES {
            return Self::over(prefix);
        }
        // SAFETY: the caller's guarantee is the same.
        Self::over(unsafe { arena.bytes(prefix) })
    }

    /// A header with this prefix, which must be in the arena if it is long.
    fn over(prefix: &[u8]) -> Self {
        let mut prefix_head = [0; HEAD_BYTES];
        let head = prefix.len().min(HEAD_BYTES);
        prefix_head[..head].copy_from_slice(&prefix[..head]);
        Self {
            ends_here: NodeSlot::new(ptr::null_mut()),
            prefix_at: prefix.as_ptr(),
            prefix_head,
            prefix_len: prefix.len() as u16,
            count: AtomicU16::new(0),
            bytes_4: AtomicU32::new(0),
        }
    }

    #[inline(always)]
    pub(super) fn prefix_len(&self) -> usize {
        usize::from(self.prefix_len)
    }

    /// The prefix.
    pub(super) fn prefix(&self) -> &[u8] {
        if self.prefix_len() <= HEAD_BYTES {
            return &self.prefix_head[..self.prefix_len()];
        }
        // SAFETY: a long prefix is `prefix_len` bytes in the arena that also holds this node; they
        // never change.
        unsafe { slice::from_raw_parts(self.prefix_at, self.prefix_len()) }
    }

    /// The number of leading bytes that the prefix and `rest` have in common.
    #[inline(always)]
    pub(super) fn prefix_in_common(&self, rest: &[u8]) -> usize {
        let head = self.head_in_common(rest);
        if head < HEAD_BYTES {
            return head;
        }
        HEAD_BYTES + common_prefix_len(&self.prefix()[HEAD_BYTES..], &rest[HEAD_BYTES..])
    }

    /// The same, for at most the first eight bytes.
    #[inline(always)]
    fn head_in_common(&self, rest: &[u8]) -> usize {
        let same = ((u64::from_le_bytes(self.prefix_head) ^ first_word(rest)).trailing_zeros() / 8)
            as usize;
        same.min(self.prefix_len()).min(rest.len())
    }

    /// Can a key that continues with `rest` be below? False is certain. True is not certain if the
    /// prefix is longer than eight bytes: then the whole key must be compared with the entry's.
    #[inline(always)]
    pub(super) fn may_lead_to(&self, rest: &[u8]) -> bool {
        self.head_in_common(rest) == self.prefix_len().min(HEAD_BYTES)
    }

    /// Was this node replaced by a copy? For the writer: slots of such a node are not part of the
    /// tree.
    #[inline(always)]
    pub(super) fn is_replaced(&self) -> bool {
        self.count.load(Ordering::Relaxed) == REPLACED
    }

    fn count(&self) -> usize {
        usize::from(self.count.load(Ordering::Relaxed))
    }

    fn set_count(&self, count: usize) {
        self.count.store(count as u16, Ordering::Relaxed);
    }
}

/// Up to four children, in order of arrival.
///
/// Here and in `Node16`, unused key bytes repeat the first child's byte. A search takes the lowest
/// match, so it never picks a free slot, however old the word of key bytes is that it has loaded.
#[repr(C, align(64))]
pub(super) struct Node4 {
    header: NodeHeader,
    children: [NodeSlot; 4],
}

/// Up to sixteen children, in order of arrival.
#[repr(C, align(64))]
pub(super) struct Node16 {
    header: NodeHeader,
    bytes: [AtomicU64; 2],
    children: [NodeSlot; 16],
}

/// Up to 48 children, found through an index by key byte.
#[repr(C, align(64))]
pub(super) struct Node48 {
    header: NodeHeader,
    present: [AtomicU64; 4],
    /// Slot number plus one; zero is "no child".
    index: [AtomicU8; 256],
    children: [NodeSlot; 48],
}

/// A child for every byte.
#[repr(C, align(64))]
pub(super) struct Node256 {
    header: NodeHeader,
    present: [AtomicU64; 4],
    children: [NodeSlot; 256],
}

#[cfg(all(not(loom), target_pointer_width = "64"))]
const _: () = {
    assert!(size_of::<Node4>() == 64);
    assert!(size_of::<Node16>() == 192);
    assert!(size_of::<Node48>() == 704);
    assert!(size_of::<Node256>() == 2112);
};

fn empty_slots<const N: usize>() -> [NodeSlot; N] {
    array::from_fn(|_| NodeSlot::new(ptr::null_mut()))
}

impl Node4 {
    #[inline(always)]
    fn slot(&self, byte: u8) -> Option<&NodeSlot> {
        let found = matches_4(self.header.bytes_4.load(Ordering::Relaxed), byte);
        if found == 0 {
            return None;
        }
        // The mask is for the compiler: there are only four marks.
        Some(&self.children[(found.trailing_zeros() / 8) as usize & 3])
    }

    fn add(&self, byte: u8, child: NodeLink) -> bool {
        let count = self.header.count();
        let Some(slot) = self.children.get(count) else { return false };
        let word = if count == 0 {
            u32::from_le_bytes([byte; 4])
        } else {
            let mut bytes = self.header.bytes_4.load(Ordering::Relaxed).to_le_bytes();
            bytes[count] = byte;
            u32::from_le_bytes(bytes)
        };
        self.header.bytes_4.store(word, Ordering::Relaxed);
        self.header.set_count(count + 1);
        child.publish(slot);
        true
    }
}

impl Node16 {
    #[inline(always)]
    fn slot(&self, byte: u8) -> Option<&NodeSlot> {
        let low = matches_8(self.bytes[0].load(Ordering::Relaxed), byte);
        let high = matches_8(self.bytes[1].load(Ordering::Relaxed), byte);
        let at = if low != 0 {
            low.trailing_zeros() / 8
        } else if high != 0 {
            8 + high.trailing_zeros() / 8
        } else {
            return None;
        };
        // The mask is for the compiler: there are only sixteen marks.
        Some(&self.children[at as usize & 15])
    }

    fn add(&self, byte: u8, child: NodeLink) -> bool {
        let count = self.header.count();
        let Some(slot) = self.children.get(count) else { return false };
        if count == 0 {
            for word in &self.bytes {
                word.store(LOW_BITS * u64::from(byte), Ordering::Relaxed);
            }
        } else {
            let word = &self.bytes[count / 8];
            let mut bytes = word.load(Ordering::Relaxed).to_le_bytes();
            bytes[count % 8] = byte;
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        self.header.set_count(count + 1);
        child.publish(slot);
        true
    }
}

impl Node48 {
    #[inline(always)]
    fn slot(&self, byte: u8) -> Option<&NodeSlot> {
        let at = self.index[usize::from(byte)].load(Ordering::Relaxed);
        // Zero, "no child", wraps to an index far outside.
        self.children.get(usize::from(at).wrapping_sub(1))
    }

    fn add(&self, byte: u8, child: NodeLink) -> bool {
        let count = self.header.count();
        let Some(slot) = self.children.get(count) else { return false };
        self.index[usize::from(byte)].store(count as u8 + 1, Ordering::Relaxed);
        set_present(&self.present, byte);
        self.header.set_count(count + 1);
        child.publish(slot);
        true
    }
}

impl Node256 {
    #[inline(always)]
    fn slot(&self, byte: u8) -> &NodeSlot {
        &self.children[usize::from(byte)]
    }

    fn add(&self, byte: u8, child: NodeLink) {
        set_present(&self.present, byte);
        child.publish(self.slot(byte));
    }
}

fn set_present(present: &[AtomicU64; 4], byte: u8) {
    let word = &present[usize::from(byte / 64)];
    word.store(word.load(Ordering::Relaxed) | 1 << (byte % 64), Ordering::Relaxed);
}

/// One bit per byte value.
pub(super) type ByteSet = [u64; 4];

/// A node of any size.
#[derive(Clone, Copy)]
pub(super) enum Node<'a> {
    N4(&'a Node4),
    N16(&'a Node16),
    N48(&'a Node48),
    N256(&'a Node256),
}

impl<'a> Node<'a> {
    #[inline(always)]
    pub(super) fn header(self) -> &'a NodeHeader {
        match self {
            Self::N4(node) => &node.header,
            Self::N16(node) => &node.header,
            Self::N48(node) => &node.header,
            Self::N256(node) => &node.header,
        }
    }

    /// Prefetches the cache lines, after the first one, that the search for `key` will read, as far
    /// as they are known before the first line is loaded. It is a guess: after a prefix the search
    /// uses a later byte.
    #[inline(always)]
    pub(super) fn prefetch_rest(self, key: &[u8], depth: usize) {
        let byte = key.get(depth).copied().unwrap_or_default();
        match self {
            // It has only one line.
            Self::N4(_) => {}
            Self::N16(node) => {
                let at: *const u8 = ptr::from_ref(node).cast();
                prefetch(at.wrapping_add(LINE_BYTES));
                prefetch(at.wrapping_add(2 * LINE_BYTES));
            }
            Self::N48(node) => prefetch(ptr::from_ref(&node.index[usize::from(byte)]).cast()),
            Self::N256(node) => prefetch(ptr::from_ref(node.slot(byte)).cast()),
        }
    }

    /// The slot of the child for `byte`; it may still be empty.
    #[inline(always)]
    pub(super) fn slot(self, byte: u8) -> Option<&'a NodeSlot> {
        match self {
            Self::N4(node) => node.slot(byte),
            Self::N16(node) => node.slot(byte),
            Self::N48(node) => node.slot(byte),
            Self::N256(node) => Some(node.slot(byte)),
        }
    }

    /// The child for `byte`, or `NodeLink::EMPTY`.
    #[inline(always)]
    pub(super) fn child(self, byte: u8) -> NodeLink {
        self.slot(byte).map_or(NodeLink::EMPTY, NodeLink::load)
    }

    /// Adds a child for a byte that has none; `false` if there is no room. Only for the writer.
    pub(super) fn add(self, byte: u8, child: NodeLink) -> bool {
        match self {
            Self::N4(node) => node.add(byte, child),
            Self::N16(node) => node.add(byte, child),
            Self::N48(node) => node.add(byte, child),
            Self::N256(node) => {
                node.add(byte, child);
                true
            }
        }
    }

    /// The bytes that have a child: all that were published to this thread, perhaps newer ones, and
    /// perhaps one whose slot is still empty.
    pub(super) fn present(self) -> ByteSet {
        let mut set = [0; 4];
        let mut insert = |byte: u8| set[usize::from(byte / 64)] |= 1 << (byte % 64);
        match self {
            // Unused key bytes repeat the first child's byte, which changes nothing in a set.
            Self::N4(node) => {
                let bytes = node.header.bytes_4.load(Ordering::Relaxed);
                bytes.to_le_bytes().into_iter().for_each(&mut insert);
            }
            Self::N16(node) => {
                for word in &node.bytes {
                    let bytes = word.load(Ordering::Relaxed);
                    bytes.to_le_bytes().into_iter().for_each(&mut insert);
                }
            }
            Self::N48(node) => set = array::from_fn(|at| node.present[at].load(Ordering::Relaxed)),
            Self::N256(node) => set = array::from_fn(|at| node.present[at].load(Ordering::Relaxed)),
        }
        set
    }

    /// All slots of a small node, free ones included; empty for a large node.
    #[inline(always)]
    pub(super) fn few_slots(self) -> &'a [NodeSlot] {
        match self {
            Self::N4(node) => &node.children,
            Self::N16(node) => &node.children,
            Self::N48(_) | Self::N256(_) => &[],
        }
    }

    /// A new `Node4` without children.
    ///
    /// # Safety
    /// The arena must outlive `'a`.
    pub(super) unsafe fn small(arena: &mut Arena, prefix: &[u8]) -> Self {
        // SAFETY: the node goes to the same arena.
        let header = unsafe { NodeHeader::new(arena, prefix) };
        // SAFETY: the caller guarantees the lifetime.
        unsafe { Self::four(arena, header) }
    }

    unsafe fn four(arena: &mut Arena, header: NodeHeader) -> Self {
        // SAFETY: the caller guarantees the lifetime.
        Self::N4(unsafe { arena.node(Node4 { header, children: empty_slots() }) })
    }

    /// An unpublished copy of this node, one size larger.
    ///
    /// # Safety
    /// This node must be in this arena, which must outlive `'a`.
    pub(super) unsafe fn larger(self, arena: &mut Arena) -> Self {
        let header = NodeHeader::over(self.header().prefix());
        let copy = match self {
            Self::N4(_) => {
                // SAFETY: the caller guarantees the lifetime.
                unsafe { Self::sixteen(arena, header) }
            }
            Self::N16(_) => {
                // SAFETY: the caller guarantees the lifetime.
                unsafe { Self::forty_eight(arena, header) }
            }
            Self::N48(_) | Self::N256(_) => {
                // SAFETY: the caller guarantees the lifetime.
                unsafe { Self::full(arena, header) }
            }
        };
        self.copy_into(copy);
        copy
    }

    /// An unpublished copy of this node without the first `bytes` bytes of its prefix.
    ///
    /// # Safety
    /// This node must be in this arena, which must outlive `'a`.
    pub(super) unsafe fn without_prefix(self, arena: &mut Arena, bytes: usize) -> Self {
        let header = NodeHeader::over(&self.header().prefix()[bytes..]);
        let copy = match self {
            Self::N4(_) => {
                // SAFETY: the caller guarantees the lifetime.
                unsafe { Self::four(arena, header) }
            }
            Self::N16(_) => {
                // SAFETY: the caller guarantees the lifetime.
                unsafe { Self::sixteen(arena, header) }
            }
            Self::N48(_) => {
                // SAFETY: the caller guarantees the lifetime.
                unsafe { Self::forty_eight(arena, header) }
            }
            Self::N256(_) => {
                // SAFETY: the caller guarantees the lifetime.
                unsafe { Self::full(arena, header) }
            }
        };
        self.copy_into(copy);
        copy
    }

    unsafe fn sixteen(arena: &mut Arena, header: NodeHeader) -> Self {
        let bytes = array::from_fn(|_| AtomicU64::new(0));
        let node = Node16 { header, bytes, children: empty_slots() };
        // SAFETY: the caller guarantees the lifetime.
        Self::N16(unsafe { arena.node(node) })
    }

    unsafe fn forty_eight(arena: &mut Arena, header: NodeHeader) -> Self {
        let present = array::from_fn(|_| AtomicU64::new(0));
        let index = array::from_fn(|_| AtomicU8::new(0));
        let node = Node48 { header, present, index, children: empty_slots() };
        // SAFETY: the caller guarantees the lifetime.
        Self::N48(unsafe { arena.node(node) })
    }

    unsafe fn full(arena: &mut Arena, header: NodeHeader) -> Self {
        let present = array::from_fn(|_| AtomicU64::new(0));
        let node = Node256 { header, present, children: empty_slots() };
        // SAFETY: the caller guarantees the lifetime.
        Self::N256(unsafe { arena.node(node) })
    }

    /// Copies the children and the entry that ends here to `copy`, which will replace this node.
    fn copy_into(self, copy: Self) {
        self.header().count.store(REPLACED, Ordering::Relaxed);
        NodeLink::load(&self.header().ends_here).publish(&copy.header().ends_here);
        let mut set = self.present();
        for (at, word) in set.iter_mut().enumerate() {
            while *word != 0 {
                let byte = (at as u32 * 64 + word.trailing_zeros()) as u8;
                *word &= *word - 1;
                let room = copy.add(byte, self.child(byte));
                assert!(room, "a copy is at least as large as the original");
            }
        }
    }
}
