//! Walking a memtable in key order, both ways, while it is being written.
//!
//! Guarantees: a cursor at `upto` shows, for each key, its newest entry at or below `upto`, and
//! nothing else. An old snapshot's walk may meet millions of younger keys. So after `PASSED_MAX`
//! keys without an entry to show the cursor stops on such a key (it *rests*, see `Cursor`) and lets
//! others run.
//!
//! Why that is exact beside the writer:
//! * Sequence numbers never decrease, and whoever hands out `upto` sees to it that everything at or
//!   below it was inserted before. So those entries are there when the cursor is made.
//! * They can be reached from every root that is loaded later. The writer only adds children, puts
//!   newer versions in front of older ones, and replaces nodes by copies with the same entries.
//! * A node that is replaced while the cursor stands in it is frozen, not emptied.
//! * Entries that come later have larger numbers, and are passed over.
//!
//! An `upto` above the last inserted entry is allowed. Then entries that arrive during the walk may
//! or may not be shown. Each key still comes once at most, and in order.
//!
//! It copies neither keys nor values that are in one piece, and a value in pieces only when it is
//! asked for. It pins the whole memtable.

use super::Memtable;
use super::link::{LinkTarget, NodeLink};
use super::node::{ByteSet, Node};
use super::versions::{at_or_below, newest};
use crate::buffer::{EntryAt, EntryHead, LINE_BYTES, Phase, prefetch};
use crate::error::Result;
use crate::iter::Cursor;
use crate::key::{EntryRef, Kind, Seqno};
use std::cmp;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// A cursor over one memtable. Owned: it keeps the memtable alive and pins its memory. Never fails.
pub struct MemtableCursor {
    /// Borrowed from the memtable's memory. In front of an entry that straddles chunks, and where
    /// the cursor rests, the key is borrowed from `key`, and the value is empty.
    current: Option<EntryRef<'static>>,
    /// The current entry, if it straddles chunks.
    straddling: Option<EntryAt<'static>>,
    key: Vec<u8>,
    /// The value of `straddling`, once somebody has asked for it.
    value: OnceLock<Vec<u8>>,
    upto: Seqno,
    /// The nodes from the root to the current entry.
    path: Vec<Frame>,
    pin: Option<Phase>,
    table: Arc<Memtable>,
}

// SAFETY: the pointers lead into the arena that `table` keeps alive; what they lead to is published
// and immutable or atomic, so any thread may follow them.
unsafe impl Send for MemtableCursor {}
// SAFETY: as above; `&MemtableCursor` only reads.
unsafe impl Sync for MemtableCursor {}

/// A node on the path and how far the walk has come in it.
struct Frame {
    node: NodeLink,
    /// The children that existed when the walk came in.
    present: ByteSet,
    /// A child's byte, or one of the places around them.
    at: i16,
}

/// So many keys that are not shown are passed in one step.
pub(crate) const PASSED_MAX: usize = 64;

/// Before everything in a node.
const BEFORE: i16 = -2;
/// On the entry that ends here, which sorts before all children.
const ENDS_HERE: i16 = -1;
/// After everything in a node.
const AFTER: i16 = 256;

impl Frame {
    #[inline(always)]
    fn new(node: Node<'_>, at: i16) -> Self {
        Self { node: node.link(), present: node.present(), at }
    }

    /// The next link forward, or `None` past the end.
    #[inline(always)]
    fn forward(&mut self, node: Node<'_>) -> Option<NodeLink> {
        if self.at == BEFORE {
            self.at = ENDS_HERE;
            let link = NodeLink::load(&node.header().ends_here);
            if !link.is_empty() {
                return Some(link);
            }
        }
        let byte = next_set(&self.present, self.at + 1)?;
        self.at = i16::from(byte);
        Some(node.child(byte))
    }

    /// The next link backward, or `None` past the start.
    #[inline(always)]
    fn backward(&mut self, node: Node<'_>) -> Option<NodeLink> {
        if self.at <= ENDS_HERE {
            return None;
        }
        if let Some(byte) = last_set(&self.present, self.at) {
            self.at = i16::from(byte);
            return Some(node.child(byte));
        }
        self.at = ENDS_HERE;
        Some(NodeLink::load(&node.header().ends_here))
    }
}

impl Frame {
    /// Asks for memory that the walk will need soon.
    ///
    /// Entries lie in order of arrival, so a step to the next key is a cache miss, and so is one
    /// to the next node. Called when the walk enters a child: while it shows that child's entries,
    /// those of the next child arrive, and the lines of the node after that.
    #[inline(always)]
    fn look_ahead<const FORWARD: bool>(&self) {
        // SAFETY: as in `walk`.
        let LinkTarget::Node(node) = (unsafe { self.node.target() }) else { return };
        let Some(next) = self.beside::<FORWARD>(self.at) else { return };
        // SAFETY: as in `walk`.
        if let LinkTarget::Node(next) = unsafe { node.child(next).target() } {
            for slot in next.few_slots() {
                let link = NodeLink::load(slot);
                if link.is_empty() {
                    break;
                }
                prefetch(link.address());
                prefetch(link.address().wrapping_add(LINE_BYTES));
            }
        }
        if let Some(later) = self.beside::<FORWARD>(i16::from(next)) {
            let at = node.child(later).address();
            for line in 0..3 {
                prefetch(at.wrapping_add(line * LINE_BYTES));
            }
        }
    }

    #[inline(always)]
    fn beside<const FORWARD: bool>(&self, at: i16) -> Option<u8> {
        if FORWARD { next_set(&self.present, at + 1) } else { last_set(&self.present, at) }
    }
}

/// The lowest member at or above `from`.
#[inline(always)]
fn next_set(set: &ByteSet, from: i16) -> Option<u8> {
    let mut at = from as usize / 64;
    let mut word = *set.get(at)? & (u64::MAX << (from % 64));
    while word == 0 {
        at += 1;
        word = *set.get(at)?;
    }
    Some((at * 64) as u8 + word.trailing_zeros() as u8)
}

/// The highest member below `below`.
#[inline(always)]
fn last_set(set: &ByteSet, below: i16) -> Option<u8> {
    let last = (below - 1).max(0) as usize;
    if below <= 0 {
        return None;
    }
    let mut at = last / 64;
    let mut word = set[at] & (u64::MAX >> (63 - last % 64));
    while word == 0 {
        at = at.checked_sub(1)?;
        word = set[at];
    }
    Some((at * 64) as u8 + word.ilog2() as u8)
}

impl MemtableCursor {
    pub(super) fn new(table: Arc<Memtable>, upto: Seqno) -> Self {
        let pin = table.pin_phase();
        Self {
            table,
            pin,
            upto,
            path: Vec::new(),
            current: None,
            straddling: None,
            key: Vec::new(),
            value: OnceLock::new(),
        }
    }

    #[inline(always)]
    fn entry(&self) -> &EntryRef<'_> {
        self.current.as_ref().expect("the caller checks valid() first")
    }

    /// Stands on this entry from here on.
    #[inline(always)]
    fn stop_at(&mut self, entry: EntryAt<'_>) {
        let Some(found) = entry.whole() else { return self.stop_at_straddling(entry) };
        // SAFETY: the bytes are in the memtable's memory, which the pin holds in place and the
        // memtable alive. Both live as long as this cursor, and `current` leaves it only with the
        // cursor's lifetime.
        let found = unsafe { std::mem::transmute::<EntryRef<'_>, EntryRef<'static>>(found) };
        self.current = Some(found);
        self.straddling = None;
    }

    #[cold]
    fn stop_at_straddling(&mut self, entry: EntryAt<'_>) {
        let EntryHead { seqno, kind, .. } = entry.head();
        self.stop_at_copy_of_key(entry, seqno, kind);
        // SAFETY: as in `stop_at`.
        let entry = unsafe { std::mem::transmute::<EntryAt<'_>, EntryAt<'static>>(entry) };
        self.straddling = Some(entry);
        self.value.take();
    }

    /// Stops at a key that has nothing to show.
    #[cold]
    fn rest_at(&mut self, newest: EntryAt<'_>) {
        self.stop_at_copy_of_key(newest, Seqno::ZERO, Kind::Delete);
        self.straddling = None;
    }

    fn stop_at_copy_of_key(&mut self, entry: EntryAt<'_>, seqno: Seqno, kind: Kind) {
        self.key.clear();
        entry.put_key(&mut self.key);
        let copy = EntryRef { key: &self.key, seqno, kind, value: &[] };
        // SAFETY: `key` is not touched before `current` is replaced, and lives as long.
        let copy = unsafe { std::mem::transmute::<EntryRef<'_>, EntryRef<'static>>(copy) };
        self.current = Some(copy);
    }

    #[cold]
    fn straddling_value(&self, entry: EntryAt<'_>) -> &[u8] {
        self.value.get_or_init(|| {
            let mut value = Vec::new();
            entry.put_value(&mut value);
            value
        })
    }

    /// Stops at the first shown entry of `subtree` in the direction of the walk, or at the next one
    /// after the subtree; or rests.
    #[inline]
    fn walk<const FORWARD: bool>(&mut self, mut subtree: NodeLink) {
        let mut passed = 0;
        loop {
            // SAFETY: the link was loaded from a slot of this cursor's memtable, which it keeps
            // alive.
            match unsafe { subtree.target() } {
                LinkTarget::Entry(_) | LinkTarget::Versions(_) => {
                    // SAFETY: as above; the pin keeps what dies meanwhile from being reused.
                    if let Some(version) = unsafe { at_or_below(subtree, self.upto) }.version {
                        self.stop_at(version);
                        return;
                    }
                    passed += 1;
                    if passed == PASSED_MAX {
                        // SAFETY: as above.
                        let newest = unsafe { newest(subtree) }.expect("it leads to a key");
                        return self.rest_at(newest);
                    }
                }
                LinkTarget::Node(node) => {
                    if let Some(parent) = self.path.last() {
                        parent.look_ahead::<FORWARD>();
                    }
                    self.path.push(Frame::new(node, if FORWARD { BEFORE } else { AFTER }));
                }
                LinkTarget::Empty => {}
            }
            subtree = loop {
                let Some(frame) = self.path.last_mut() else {
                    self.current = None;
                    self.straddling = None;
                    return;
                };
                // SAFETY: as above.
                let LinkTarget::Node(node) = (unsafe { frame.node.target() }) else {
                    unreachable!("a frame holds a node")
                };
                match if FORWARD { frame.forward(node) } else { frame.backward(node) } {
                    Some(link) => break link,
                    None => self.path.pop(),
                };
            };
        }
    }

    /// Goes down towards `key` and says how what it found there, with everything below it, lies
    /// to the key. The path stands on it.
    fn descend(&mut self, key: &[u8]) -> (NodeLink, cmp::Ordering) {
        self.path.clear();
        let mut link = NodeLink::load(&self.table.root);
        let mut depth = 0;
        loop {
            // SAFETY: as in `walk`.
            let node: Node<'_> = match unsafe { link.target() } {
                LinkTarget::Empty => return (NodeLink::EMPTY, cmp::Ordering::Equal),
                LinkTarget::Entry(_) | LinkTarget::Versions(_) => {
                    // SAFETY: as in `walk`.
                    let entry = unsafe { newest(link) }.expect("it leads to a key");
                    return (link, entry.compare_key(key));
                }
                LinkTarget::Node(node) => node,
            };
            let header = node.header();
            let rest = &key[depth..];
            let agreed = header.prefix_in_common(rest);
            if agreed < header.prefix_len() {
                let order = match rest.get(agreed) {
                    Some(byte) => header.prefix()[agreed].cmp(byte),
                    // The key ends inside the prefix.
                    None => cmp::Ordering::Greater,
                };
                return (link, order);
            }
            depth += agreed;
            let Some(&byte) = key.get(depth) else {
                self.path.push(Frame::new(node, ENDS_HERE));
                return (NodeLink::load(&header.ends_here), cmp::Ordering::Equal);
            };
            self.path.push(Frame::new(node, i16::from(byte)));
            link = node.child(byte);
            depth += 1;
        }
    }
}

impl Drop for MemtableCursor {
    fn drop(&mut self) {
        if let Some(pin) = self.pin.take() {
            self.table.grace.unpin(pin);
        }
    }
}

impl Cursor for MemtableCursor {
    #[inline]
    fn valid(&self) -> bool {
        self.current.is_some()
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.entry().key
    }

    #[inline]
    fn seqno(&self) -> Seqno {
        self.entry().seqno
    }

    #[inline]
    fn kind(&self) -> Kind {
        self.entry().kind
    }

    #[inline]
    fn value(&self) -> &[u8] {
        match self.straddling {
            None => self.entry().value,
            Some(entry) => self.straddling_value(entry),
        }
    }

    #[inline]
    fn value_len(&self) -> usize {
        match self.straddling {
            None => self.entry().value.len(),
            Some(entry) => entry.head().value_bytes,
        }
    }

    fn seek_first(&mut self) -> Result<()> {
        self.path.clear();
        let root = NodeLink::load(&self.table.root);
        self.walk::<true>(root);
        Ok(())
    }

    fn seek_last(&mut self) -> Result<()> {
        self.path.clear();
        let root = NodeLink::load(&self.table.root);
        self.walk::<false>(root);
        Ok(())
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        let (found, order) = self.descend(key);
        self.walk::<true>(if order.is_lt() { NodeLink::EMPTY } else { found });
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        let (found, order) = self.descend(key);
        self.walk::<false>(if order.is_lt() { found } else { NodeLink::EMPTY });
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        assert!(self.valid(), "next() needs a current entry");
        self.walk::<true>(NodeLink::EMPTY);
        Ok(())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        assert!(self.valid(), "prev() needs a current entry");
        self.walk::<false>(NodeLink::EMPTY);
        Ok(())
    }
}

impl fmt::Debug for MemtableCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemtableCursor")
            .field("memtable", &self.table.id)
            .field("upto", &self.upto)
            .field("valid", &self.current.is_some())
            .finish_non_exhaustive()
    }
}
