//! The radix tree: finds a key's place, and makes all changes to the index.
//!
//! Guarantees: a search never waits, retries or writes. It finds every entry whose insert happened
//! before it, and only whole entries. Exactly one Release store (`NodeLink::publish`) publishes an
//! insert: before it nothing of the entry can be reached, after it everything.
//!
//! It checks neither lengths nor the order of sequence numbers; the writer does.

use super::arena::Arena;
use super::link::{LinkTarget, NodeLink, NodeSlot};
use super::node::{Node, NodeHeader};
use super::versions::{Versions, newest};
use crate::buffer::{EntryAt, prefetch};
use crate::key::{Seqno, common_prefix_len};
use std::ptr::NonNull;

/// The link to the versions of `key` below `root`; empty if there are none.
///
/// # Safety
/// The memory behind `root` must outlive `'a`, and that of entries must not be reused meanwhile.
#[inline]
pub(super) unsafe fn find(root: &NodeSlot, key: &[u8]) -> NodeLink {
    let mut link = NodeLink::load(root);
    let mut depth = 0;
    loop {
        // SAFETY: loaded from a slot of this tree; the caller guarantees the memory.
        let node: Node<'_> = match unsafe { link.target() } {
            LinkTarget::Empty => return NodeLink::EMPTY,
            // SAFETY: as above.
            LinkTarget::Entry(_) | LinkTarget::Versions(_) => return unsafe { only_of(link, key) },
            LinkTarget::Node(node) => node,
        };
        node.prefetch_rest(key, depth);
        let header = node.header();
        if header.prefix_len() != 0 {
            if !header.may_lead_to(&key[depth..]) {
                return NodeLink::EMPTY;
            }
            depth += header.prefix_len();
        }
        let Some(&byte) = key.get(depth) else {
            // A long prefix was not compared to its end, so `depth` may even be beyond the key.
            // Therefore the entry that ends here is compared as a whole.
            // SAFETY: as above.
            return unsafe { only_of(NodeLink::load(&header.ends_here), key) };
        };
        link = node.child(byte);
        depth += 1;
    }
}

/// Prefetches the memory that a search for `key` reads last: its entry. On the way it reads the
/// nodes that lead there. It reads no entries or versions, and nodes are never freed. So it needs
/// no pin: the target may be freed meanwhile.
///
/// # Safety
/// The memory behind `root` must outlive the call.
#[inline]
pub(super) unsafe fn prefetch_entry(root: &NodeSlot, key: &[u8]) {
    let mut link = NodeLink::load(root);
    let mut depth = 0;
    // SAFETY: loaded from a slot of this tree; the caller guarantees the memory.
    while let LinkTarget::Node(node) = unsafe { link.target() } {
        node.prefetch_rest(key, depth);
        let header = node.header();
        depth += header.prefix_len();
        link = match key.get(depth) {
            Some(&byte) => node.child(byte),
            None => NodeLink::load(&header.ends_here),
        };
        depth += 1;
    }
    prefetch(link.address());
}

/// `link`, if it leads to versions of this key; else empty.
#[inline(always)]
unsafe fn only_of(link: NodeLink, key: &[u8]) -> NodeLink {
    // SAFETY: the caller's guarantee is the same.
    match unsafe { newest(link) } {
        Some(entry) if entry.has_key(key) => link,
        _ => NodeLink::EMPTY,
    }
}

/// The slot that leads to the versions of `key`, which must be in the tree.
///
/// # Safety
/// The memory behind `root` must outlive `'a`; the caller must be the only writer.
pub(super) unsafe fn place_of<'a>(root: &'a NodeSlot, key: &[u8]) -> &'a NodeSlot {
    // SAFETY: the caller's guarantees are the same.
    unsafe { place_below(root, key, &mut 0) }
}

unsafe fn place_below<'a>(mut slot: &'a NodeSlot, key: &[u8], depth: &mut usize) -> &'a NodeSlot {
    loop {
        // SAFETY: loaded from a slot of this tree; the caller guarantees the memory.
        let LinkTarget::Node(node) = (unsafe { NodeLink::load(slot).target::<'a>() }) else {
            return slot;
        };
        let header = node.header();
        *depth += header.prefix_len();
        let Some(&byte) = key.get(*depth) else { return &header.ends_here };
        *depth += 1;
        slot = node.slot(byte).expect("the key is in the tree");
    }
}

/// One step from `slot` towards the place of the entry's key, which must be in the tree. `None` if
/// `slot` is that place. Prefetches the memory that the next step needs.
///
/// # Safety
/// As for `place_of`.
#[inline]
pub(super) unsafe fn step_to<'a>(
    slot: &'a NodeSlot,
    entry: EntryAt<'a>,
    depth: &mut usize,
) -> Option<&'a NodeSlot> {
    // SAFETY: loaded from a slot of this tree; the caller guarantees the memory.
    let LinkTarget::Node(node) = (unsafe { NodeLink::load(slot).target::<'a>() }) else {
        return None;
    };
    let Some(whole) = entry.whole() else {
        let mut key = Vec::new();
        entry.put_key(&mut key);
        // All remaining steps at once: straddling entries are rare.
        // SAFETY: the caller's guarantees are the same.
        let place = unsafe { place_below(slot, &key, depth) };
        return Some(place);
    };
    let header = node.header();
    *depth += header.prefix_len();
    let Some(&byte) = whole.key.get(*depth) else { return Some(&header.ends_here) };
    *depth += 1;
    let next = node.slot(byte).expect("the key is in the tree");
    let link = NodeLink::load(next);
    prefetch(link.address());
    // SAFETY: as above.
    if let LinkTarget::Node(node) = unsafe { link.target::<'a>() } {
        node.prefetch_rest(whole.key, *depth);
    }
    Some(next)
}

/// The place of a key's versions.
#[derive(Clone, Copy)]
pub(super) struct KeySlot<'a> {
    pub(super) slot: &'a NodeSlot,
    /// The node that the slot is in; `None` for the root's slot.
    pub(super) node: Option<&'a NodeHeader>,
}

/// What an insert found.
pub(super) enum Met<'a> {
    /// The key is new.
    New,
    /// There were older versions. They and the entry are now at this place, below these links.
    Older { place: KeySlot<'a>, versions: NonNull<Versions> },
    /// The newest version is of the same batch, so no reader has seen it or will see it. The entry
    /// has replaced it, and it is dead.
    Unseen(EntryAt<'a>),
}

/// Inserts an unpublished entry into the tree. No reader sees entries with numbers from `unseen` on
/// before this entry is visible as well.
///
/// # Safety
/// Everything behind `root` must be in `arena` and the buffer of `entry`, both of which must
/// outlive `'a`; `key` must be the entry's; the caller must be the only writer.
#[inline(always)]
pub(super) unsafe fn insert<'a>(
    root: &'a NodeSlot,
    arena: &mut Arena,
    entry: EntryAt<'a>,
    key: &[u8],
    unseen: Seqno,
) -> Met<'a> {
    let mut slot = root;
    let mut within = None;
    let mut depth = 0;
    loop {
        let link = NodeLink::load(slot);
        // SAFETY: loaded from a slot of this tree; the caller guarantees the memory.
        let node: Node<'a> = match unsafe { link.target() } {
            LinkTarget::Empty => {
                NodeLink::to_entry(entry).publish(slot);
                return Met::New;
            }
            LinkTarget::Entry(_) | LinkTarget::Versions(_) => {
                // SAFETY: the caller's guarantees are the same.
                return unsafe {
                    meet(KeySlot { slot, node: within }, arena, link, entry, key, depth, unseen)
                };
            }
            LinkTarget::Node(node) => node,
        };
        node.prefetch_rest(key, depth);
        let header = node.header();
        if header.prefix_len() != 0 {
            let agreed = header.prefix_in_common(&key[depth..]);
            if agreed < header.prefix_len() {
                // SAFETY: the caller's guarantees are the same.
                unsafe { split_prefix(slot, arena, node, agreed, entry, key, depth) };
                return Met::New;
            }
            depth += agreed;
        }
        within = Some(header);
        let Some(&byte) = key.get(depth) else {
            slot = &header.ends_here;
            continue;
        };
        depth += 1;
        match node.slot(byte) {
            Some(child) if !NodeLink::load(child).is_empty() => slot = child,
            _ => {
                let link = NodeLink::to_entry(entry);
                if node.add(byte, link) {
                    return Met::New;
                }
                // SAFETY: the caller's guarantees are the same.
                unsafe { grow(slot, arena, node, byte, link) };
                return Met::New;
            }
        }
    }
}

/// The slot already leads to a key. Either the entry is a new version of it, or the two keys differ
/// somewhere after `depth`.
#[inline]
unsafe fn meet<'a>(
    place: KeySlot<'a>,
    arena: &mut Arena,
    there: NodeLink,
    entry: EntryAt<'a>,
    new: &[u8],
    depth: usize,
    unseen: Seqno,
) -> Met<'a> {
    // SAFETY: the caller loaded the link from a slot of its tree.
    let met: EntryAt<'a> = unsafe { newest(there) }.expect("it leads to a key");
    let mut straddling = Vec::new();
    let (old, written) = if let Some(met) = met.whole() {
        (met.key, met.seqno)
    } else {
        met.put_key(&mut straddling);
        (&straddling[..], met.seqno())
    };
    // The prefixes of all nodes above were compared in full, so both keys agree up to `depth`.
    let start = depth.min(new.len());
    let fork = start + common_prefix_len(&old[start..], &new[start..]);
    if fork == old.len() && fork == new.len() {
        if written >= unseen {
            // SAFETY: the caller loaded the link from a slot of its tree.
            match unsafe { there.target::<'a>() } {
                LinkTarget::Versions(versions) => {
                    NodeLink::to_entry(entry).publish(&versions.newest);
                }
                _ => NodeLink::to_entry(entry).with_cuts_of(there).publish(place.slot),
            }
            return Met::Unseen(met);
        }
        let versions = arena.versions();
        let both = Versions::of(NodeLink::to_entry(entry), there);
        // SAFETY: aligned and large enough. No reader is in it, and none will be before it is
        // published.
        unsafe { versions.write(both) };
        // SAFETY: the caller loaded the link from a slot of its tree.
        let below = match unsafe { there.target::<'a>() } {
            LinkTarget::Versions(below) => Some(below),
            _ => None,
        };
        if !arena.reuses_versions() {
            // SAFETY: just written.
            let versions = unsafe { versions.as_ref() };
            // SAFETY: not published yet; the links of such an arena are never retired.
            unsafe { versions.lead_over(below) };
        } else if let Some(below) = below {
            below.hang_below(Some(versions));
        }
        NodeLink::to_versions(versions).publish(place.slot);
        return Met::Older { place, versions };
    }
    // SAFETY: the caller guarantees the lifetime.
    let node = unsafe { Node::small(arena, &new[start..fork]) };
    hang(node, old, fork, there);
    hang(node, new, fork, NodeLink::to_entry(entry));
    node.link().publish(place.slot);
    Met::New
}

/// Inserts the key of `link` into an unpublished node that distinguishes keys at `fork`.
fn hang(node: Node<'_>, key: &[u8], fork: usize, link: NodeLink) {
    match key.get(fork) {
        Some(&byte) => {
            let room = node.add(byte, link);
            assert!(room, "a new node takes two children");
        }
        None => link.publish(&node.header().ends_here),
    }
}

/// The key differs from the node's prefix after `agreed` bytes. A new node with the common part
/// takes its place. Below it are a copy of the node without that part, and the entry.
#[cold]
unsafe fn split_prefix<'a>(
    slot: &NodeSlot,
    arena: &mut Arena,
    node: Node<'a>,
    agreed: usize,
    entry: EntryAt<'a>,
    key: &[u8],
    depth: usize,
) {
    let prefix = node.header().prefix();
    let fork = depth + agreed;
    // SAFETY: the caller guarantees the lifetime.
    let upper = unsafe { Node::small(arena, &key[depth..fork]) };
    // The copy is the child of the byte after the common part, so it loses that byte as well.
    // SAFETY: the node is in this arena.
    let lower = unsafe { node.without_prefix(arena, agreed + 1) };
    let room = upper.add(prefix[agreed], lower.link());
    assert!(room, "a new node takes two children");
    hang(upper, key, fork, NodeLink::to_entry(entry));
    upper.link().publish(slot);
}

/// The node is full: a larger copy with one more child takes its place.
#[inline(never)]
unsafe fn grow(slot: &NodeSlot, arena: &mut Arena, node: Node<'_>, byte: u8, link: NodeLink) {
    // SAFETY: the node is in this arena.
    let larger = unsafe { node.larger(arena) };
    let room = larger.add(byte, link);
    assert!(room, "a larger node has room");
    larger.link().publish(slot);
}
