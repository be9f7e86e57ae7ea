//! The radix tree: finding an entry, and the one place that changes the index.
//!
//! Guarantees: a search never waits, retries or writes; it finds every entry whose insert
//! happened before it, and only whole entries. An insert is published by exactly one Release store
//! (`Link::publish`), so that before it nothing and after it everything of the entry is there.
//!
//! It does not check lengths or the order of sequence numbers; the writer does.

use super::arena::Arena;
use super::entry::EntryAt;
use super::node::{Link, Node, Slot, Target, agreement};

/// The newest version of `key` below `root`.
///
/// # Safety
/// The arena behind `root` must outlive `'a`.
#[inline]
pub(super) unsafe fn find<'a>(root: &Slot, key: &[u8]) -> Option<EntryAt<'a>> {
    let mut link = Link::load(root);
    let mut depth = 0;
    loop {
        // SAFETY: loaded from a slot of this tree; the caller vouches for the arena.
        let node: Node<'a> = match unsafe { link.target() } {
            Target::Empty => return None,
            Target::Entry(entry) => return (entry.key() == key).then_some(entry),
            Target::Node(node) => node,
        };
        let header = node.header();
        if header.prefix_len() != 0 {
            if !header.may_lead_to(&key[depth..]) {
                return None;
            }
            depth += header.prefix_len();
        }
        let Some(&byte) = key.get(depth) else {
            // A long prefix was not compared to its end, so `depth` may even lie beyond the key:
            // what ends here is compared as a whole.
            // SAFETY: as above.
            let Target::Entry(entry) = (unsafe { Link::load(&header.ends_here).target() }) else {
                return None;
            };
            return (entry.key() == key).then_some(entry);
        };
        link = node.child(byte);
        depth += 1;
    }
}

/// Puts an unpublished entry into the tree.
///
/// # Safety
/// `entry` and everything behind `root` must be in `arena`, which must outlive `'a`; the caller must
/// be the only writer.
#[inline(always)]
pub(super) unsafe fn insert<'a>(root: &'a Slot, arena: &mut Arena, entry: EntryAt<'a>) {
    let key = entry.key();
    let mut slot = root;
    let mut depth = 0;
    loop {
        // SAFETY: loaded from a slot of this tree; the caller vouches for the arena.
        let node: Node<'a> = match unsafe { Link::load(slot).target() } {
            // Only the root and `ends_here` get here empty; other free slots are filled by `add`.
            Target::Empty => return Link::to_entry(entry).publish(slot),
            Target::Entry(there) => {
                // SAFETY: the caller's promises are the same.
                return unsafe { meet(slot, arena, there, entry, depth) };
            }
            Target::Node(node) => node,
        };
        let header = node.header();
        if header.prefix_len() != 0 {
            let agreed = header.agreement(&key[depth..]);
            if agreed < header.prefix_len() {
                // SAFETY: the caller's promises are the same.
                return unsafe { split_prefix(slot, arena, node, agreed, entry, depth) };
            }
            depth += agreed;
        }
        let Some(&byte) = key.get(depth) else {
            slot = &header.ends_here;
            continue;
        };
        depth += 1;
        match node.slot(byte) {
            Some(child) if !Link::load(child).is_empty() => slot = child,
            _ => {
                let link = Link::to_entry(entry);
                if !node.add(byte, link) {
                    // SAFETY: the caller's promises are the same.
                    unsafe { grow(slot, arena, node, byte, link) };
                }
                return;
            }
        }
    }
}

/// The slot already leads to an entry: a new version of the same key, or two keys that part ways
/// somewhere after `depth`.
#[inline]
unsafe fn meet<'a>(
    slot: &Slot,
    arena: &mut Arena,
    there: EntryAt<'a>,
    entry: EntryAt<'a>,
    depth: usize,
) {
    let (old, new) = (there.key(), entry.key());
    // A slot below a node whose prefix was compared in full: both keys agree up to `depth`.
    let start = depth.min(new.len());
    let fork = start + agreement(&old[start..], &new[start..]);
    if fork == old.len() && fork == new.len() {
        // SAFETY: not published yet; both entries are in the caller's arena.
        unsafe { entry.set_previous(there) };
        return Link::to_entry(entry).publish(slot);
    }
    // SAFETY: the prefix lies in the key of an entry of this arena.
    let node = unsafe { Node::small(arena, &new[start..fork]) };
    hang(node, old, fork, Link::to_entry(there));
    hang(node, new, fork, Link::to_entry(entry));
    node.link().publish(slot);
}

/// Puts the entry with this key into an unpublished node that tells keys apart at `fork`.
fn hang(node: Node<'_>, key: &[u8], fork: usize, link: Link) {
    match key.get(fork) {
        Some(&byte) => {
            let room = node.add(byte, link);
            assert!(room, "a new node takes two children");
        }
        None => link.publish(&node.header().ends_here),
    }
}

/// The key leaves the node's prefix after `agreed` bytes: a new node with the common part takes its
/// place, above a copy that has lost it and the entry.
#[cold]
unsafe fn split_prefix<'a>(
    slot: &Slot,
    arena: &mut Arena,
    node: Node<'a>,
    agreed: usize,
    entry: EntryAt<'a>,
    depth: usize,
) {
    let prefix = node.header().prefix();
    let fork = depth + agreed;
    // SAFETY: the prefix lies in the key of an entry of this arena.
    let upper = unsafe { Node::small(arena, &entry.key()[depth..fork]) };
    // The byte that leads to the copy is the one after the common part, so that goes too.
    // SAFETY: the node is in this arena.
    let lower = unsafe { node.without_prefix(arena, agreed + 1) };
    let room = upper.add(prefix[agreed], lower.link());
    assert!(room, "a new node takes two children");
    hang(upper, entry.key(), fork, Link::to_entry(entry));
    upper.link().publish(slot);
}

/// No room: a larger copy with one more child takes the node's place.
#[inline(never)]
unsafe fn grow(slot: &Slot, arena: &mut Arena, node: Node<'_>, byte: u8, link: Link) {
    // SAFETY: the node is in this arena.
    let larger = unsafe { node.larger(arena) };
    let room = larger.add(byte, link);
    assert!(room, "a larger node has room");
    larger.link().publish(slot);
}
