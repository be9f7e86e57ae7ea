//! The only writer of a memtable: inserts entries, retires overwritten versions, and compacts.
//!
//! Long because everything that changes a memtable is in one file, with its orders of stores.

use super::arena::Arena;
use super::link::{LinkTarget, NodeLink, NodeSlot};
use super::reclaim::{FreedMemory, Limbo, Overwritten, Reclaim, ReclaimStep, RetireList};
use super::tree::{self, Met};
use super::versions::{Versions, newest};
use super::{Memtable, MemtableOptions};
use crate::buffer::{Buffer, BufferOptions, ChunkClass, ChunkSource, EntryAt};
use crate::key::{Kind, Seqno};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_CAP};
use crate::points::Retirable;
use crate::sync::atomic::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;

/// The retire list is walked when it has this many new entries: a walk costs a full fence.
const RETIRES_WORTH_A_LOOK: usize = 32;
/// An entry of the retire list is prefetched in two steps: this many entries before its turn the
/// links to the older version, and then that version itself.
const AHEAD_FAR: usize = 12;
const AHEAD_NEAR: usize = 5;
/// One call walks this many entries of the retire list, or this many per entry that was inserted
/// since the last call. A large batch may overwrite as many versions as it has entries; they must
/// not accumulate.
const RETIRE_PER_CALL: usize = 128;
const RETIRE_PER_ENTRY: usize = 2;
/// After a read point was released, one call looks again at this many versions that were held. Few
/// enough that writers do not notice.
const HELD_PER_CALL: usize = 16;
/// While there are such versions, one insert in this many looks at some of them.
const INSERTS_PER_LOOK: u64 = 16;
/// After this many inserts a call of `reclaim` is worthwhile even if nothing was overwritten.
const INSERTS_WORTH_A_LOOK: u64 = 64;
/// No batch has begun. Above every sequence number.
const NO_BATCH: Seqno = Seqno(u64::MAX);
/// A dead entry that a step passes counts as this many copied bytes.
const DEAD_VISIT_BYTES: usize = 64;
/// Entries that are looked up side by side: as many as a core can have cache misses in flight.
const RELINKED_TOGETHER: usize = 16;

/// What one walk of the retire list did.
#[derive(Clone, Copy, Default)]
struct Walk {
    /// Versions that were retired.
    retired: usize,
    /// Versions that were looked at.
    looked: usize,
}

/// The right to insert. There is one per memtable, and it is not `Clone`.
///
/// Dropping it without `freeze` also ends the writing, but does not mark the memtable as frozen.
pub struct MemtableWriter {
    table: Arc<Memtable>,
    buffer: Buffer,
    arena: Arena,
    entries: u64,
    /// `entries` at the last call of `reclaim`.
    entries_seen: u64,
    last_seqno: Seqno,
    /// The first sequence number of the current batch.
    batch_began: Seqno,
    /// A version of the current batch was retired, and the published counts do not show it yet.
    retired_unseen: bool,
    reclaim: Option<Reclaim>,
    retire_list: RetireList,
    limbo: Limbo,
}

impl MemtableWriter {
    pub(super) fn new(table: Arc<Memtable>, options: MemtableOptions) -> Self {
        let MemtableOptions { pool, reclaim, full_bytes } = options;
        let largest = ChunkClass::largest_for(full_bytes.unwrap_or(usize::MAX));
        let source = ChunkSource::new(pool).up_to(largest);
        let options = reclaim.as_ref().map_or_else(BufferOptions::default, |r| r.options.clone());
        Self {
            table,
            buffer: Buffer::new(options, source.clone()),
            arena: Arena::new(source, reclaim.is_some()),
            entries: 0,
            entries_seen: 0,
            last_seqno: Seqno::ZERO,
            batch_began: NO_BATCH,
            retired_unseen: false,
            reclaim,
            retire_list: RetireList::default(),
            limbo: Limbo::default(),
        }
    }

    /// Begins a batch: the entries from `first` on, until the next batch begins. Nobody reads at a
    /// number inside a batch. So a version that a later entry of its batch overwrites is retired at
    /// once: a key that is written a thousand times in a batch gets only one more version.
    #[inline]
    pub fn begin_batch(&mut self, first: Seqno) {
        self.batch_began = first;
    }

    /// Inserts one entry. Readers see it when this returns, and may see it before.
    ///
    /// Never waits for readers. Copies key and value once. Allocates once per chunk.
    ///
    /// # Panics
    /// If the key does not have `1..=KEY_BYTES_MAX` bytes, if the value has more than
    /// `VALUE_BYTES_CAP`, or if the sequence number is below the last one. Callers check what users
    /// pass to them.
    #[inline]
    pub fn insert(&mut self, key: &[u8], seqno: Seqno, kind: Kind, value: &[u8]) {
        assert!(!key.is_empty(), "a key has at least one byte");
        assert!(key.len() <= KEY_BYTES_MAX, "a key is at most KEY_BYTES_MAX bytes");
        assert!(value.len() <= VALUE_BYTES_CAP, "a value is at most VALUE_BYTES_CAP bytes");
        assert!(seqno >= self.last_seqno, "sequence numbers never decrease");
        assert!(seqno <= Seqno::MAX, "a sequence number has 56 bits");
        let table = &*self.table;
        // SAFETY: the chunks outlive this borrow of the memtable. They move into it when the writer
        // is dropped, and are freed with it.
        let entry = unsafe { self.buffer.append(key, seqno, kind, value) };
        // SAFETY: everything is in this arena and buffer, the key was just written into the entry,
        // and `&mut self` makes this the only writer.
        match unsafe { tree::insert(&table.root, &mut self.arena, entry, key, self.batch_began) } {
            Met::New => {}
            Met::Unseen(dead) => {
                if self.reclaim.is_some() {
                    self.buffer.mark_dead(dead);
                    self.retired_unseen = true;
                }
            }
            Met::Older { place, versions } => {
                if self.reclaim.is_some() {
                    self.retire_list.fresh.push_back(Overwritten::new(versions, place, seqno));
                }
            }
        }
        self.last_seqno = seqno;
        self.entries += 1;
        let progress = &table.progress;
        if self.entries == 1 {
            progress.first_seqno.store(seqno.0, Ordering::Release);
        }
        let index_bytes = self.arena.used_bytes();
        progress.allocated_bytes.store(self.allocated_bytes(), Ordering::Relaxed);
        progress.used_bytes.store(self.buffer.used_bytes() + index_bytes, Ordering::Relaxed);
        progress.index_bytes.store(index_bytes, Ordering::Relaxed);
        progress.entries.store(self.entries, Ordering::Release);
        progress.last_seqno.store(seqno.0, Ordering::Release);
    }

    #[inline(always)]
    fn allocated_bytes(&self) -> usize {
        self.buffer.allocated_bytes() + self.arena.allocated_bytes() + self.limbo.chunk_bytes()
    }

    /// Does `reclaim` have anything to do besides compaction?
    #[inline(always)]
    pub fn wants_reclaim(&self) -> bool {
        self.retire_list.fresh.len() >= RETIRES_WORTH_A_LOOK
            || self.limbo.is_worth_a_turn()
            || self.retire_list.again > 0 && self.entries.is_multiple_of(INSERTS_PER_LOOK)
            // A buffer may outgrow its chunk class without any overwrite.
            || self.entries - self.entries_seen >= INSERTS_WORTH_A_LOOK && self.reclaim.is_some()
    }

    /// Should `reclaim` be called even if no further write arrives?
    #[inline(always)]
    pub fn has_garbage(&self) -> bool {
        self.buffer.is_compacting()
            || self.limbo.holds_chunks()
            || !self.retire_list.fresh.is_empty()
            // The writer is not notified when a read point is released.
            || !self.retire_list.held.is_empty()
    }

    /// Is a compaction under way?
    #[inline(always)]
    pub fn is_compacting(&self) -> bool {
        self.buffer.is_compacting()
    }

    /// Are there closed extents? If so, a compaction takes only some of them, and needs little time
    /// and space.
    #[inline]
    pub fn has_closed_extents(&self) -> bool {
        self.buffer.has_closed_extents()
    }

    /// Bytes of live entries, headers included, and the number of those entries.
    #[inline]
    pub fn live(&self) -> (u64, u64) {
        self.buffer.live()
    }

    /// Retires versions that nobody needs any more, and copies about `copy_bytes` of a compaction.
    /// `visible` is the visible sequence number; the caller must read it before this call. With
    /// `scarce`, a compaction may start because memory is short.
    ///
    /// Never waits. Does nothing without `Reclaim`.
    pub fn reclaim(&mut self, visible: Seqno, copy_bytes: usize, scarce: bool) -> ReclaimStep {
        if self.reclaim.is_none() {
            return ReclaimStep::default();
        }
        let since = (self.entries - self.entries_seen) as usize;
        self.entries_seen = self.entries;
        let retire_max = RETIRE_PER_CALL.max(RETIRE_PER_ENTRY * since);
        let Walk { retired, looked } = self.retire_overwritten(visible, retire_max);
        let retired = mem::take(&mut self.retired_unseen) || retired > 0;
        if !self.buffer.is_compacting()
            && !self.limbo.holds_chunks()
            && (self.buffer.is_due_for_other_class() || scarce && self.buffer.has_much_dead())
        {
            self.buffer.start();
            self.count(|progress| &progress.compactions, 1);
        }
        let compacting = self.buffer.is_compacting();
        if compacting {
            self.compact(copy_bytes);
        }
        let mut freed = false;
        if self.limbo.is_worth_a_turn()
            && let Some(left) = self.limbo.turn(&self.table.grace)
        {
            freed = self.reuse(left);
        }
        let changed = retired || freed || compacting;
        if changed {
            self.show();
        }
        // Versions that are held may stand before others that are not.
        ReclaimStep { progress: changed || looked > 0, freed }
    }

    /// Key and value bytes of the entries that still occupy memory, and the number of these
    /// entries: everything inserted, except what has been reclaimed.
    #[inline]
    pub fn content(&self) -> (u64, u64) {
        let mut content = self.buffer.content();
        content.add(self.limbo.gone());
        (content.content_bytes, content.entries)
    }

    /// Walks the retire list if that may help.
    fn retire_overwritten(&mut self, visible: Seqno, retire_max: usize) -> Walk {
        let reclaim = self.reclaim.as_ref().expect("the caller looked");
        let ready =
            self.retire_list.fresh.front().is_some_and(|overwritten| overwritten.seqno <= visible);
        if !ready && self.retire_list.held.is_empty() {
            return Walk::default();
        }
        let released = reclaim.points.released();
        if released != self.retire_list.released {
            (self.retire_list.released, self.retire_list.again) =
                (released, self.retire_list.held.len());
        }
        if !ready && self.retire_list.again == 0 {
            return Walk::default();
        }
        let mut kept = mem::take(&mut self.retire_list.points);
        let reach = reclaim.points.reach(&mut kept);
        let walk = match reach {
            Retirable::Unknown => Walk::default(),
            Retirable::Everything | Retirable::Around(_) => self.walk(visible, retire_max, &reach),
        };
        self.retire_list.points = kept;
        walk
    }

    /// Walks the retire list, oldest first.
    fn walk(&mut self, visible: Seqno, retire_max: usize, reach: &Retirable<'_>) -> Walk {
        let (mut walk, mut held_left) = (Walk::default(), HELD_PER_CALL);
        for _ in 0..retire_max {
            if let Some(overwritten) = self.retire_list.fresh.get(AHEAD_FAR) {
                overwritten.prefetch_links();
            }
            if let Some(overwritten) = self.retire_list.fresh.get(AHEAD_NEAR) {
                // SAFETY: the link is in use as long as it is on the list.
                unsafe { overwritten.prefetch_older() };
            }
            let overwritten = match self.retire_list.fresh.front() {
                Some(overwritten) if overwritten.seqno <= visible => {
                    self.retire_list.fresh.pop_front()
                }
                _ if self.retire_list.again > 0 && held_left > 0 => {
                    held_left -= 1;
                    self.retire_list.again -= 1;
                    self.retire_list.held.pop_front()
                }
                _ => break,
            };
            let Some(overwritten) = overwritten else { break };
            walk.looked += 1;
            if self.retire(overwritten, reach) {
                walk.retired += 1;
            } else {
                self.retire_list.held.push_back(overwritten);
            }
        }
        walk
    }

    /// Retires the older version below `overwritten`, unless a read point needs it
    /// (INVARIANT(points-before-death)). The key has one link less afterwards
    /// (INVARIANT(short-lists)).
    fn retire(&mut self, overwritten: Overwritten, reach: &Retirable<'_>) -> bool {
        let Self { table, buffer, limbo, .. } = self;
        let root = &table.root;
        // SAFETY: the link is in use as long as it is on the list, and the arena is ours.
        let versions = unsafe { overwritten.versions.as_ref() };
        let newer_link = NodeLink::load(&versions.newest);
        // SAFETY: loaded from a slot of this tree.
        let newer: EntryAt<'_> = unsafe { newer_link.entry() }.expect("a version is an entry");
        let older_link = NodeLink::load(&versions.older);
        // SAFETY: as above.
        let older: EntryAt<'_> = unsafe { newest(older_link) }.expect("there is an older version");
        if !reach.frees(|| older.seqno(), overwritten.seqno) {
            return false;
        }
        // SAFETY: as above, and `&mut self` makes this the only writer.
        let holder = unsafe { overwritten.holder() };
        let holder = holder.unwrap_or_else(|| {
            let mut key = Vec::new();
            newer.put_key(&mut key);
            // SAFETY: the key of an entry in this tree is in the tree.
            unsafe { tree::place_of(root, &key) }
        });
        let held_by = NodeLink::load(holder);
        debug_assert!(
            held_by.leads_where(NodeLink::to_versions(overwritten.versions)),
            "a link in use hangs in its key's list"
        );
        // SAFETY: loaded from a slot of this tree.
        match unsafe { older_link.target::<'_>() } {
            LinkTarget::Entry(_) => {
                newer_link.cut_below().with_cut_before_of(held_by).publish(holder);
            }
            // Below the older version there are further ones, which are held. So its link becomes
            // the link of the newer version. The cut is marked first: a reader that finds the newer
            // version there must see the mark.
            LinkTarget::Versions(next) => {
                NodeLink::load(&next.older).cut_before().publish(&next.older);
                newer_link.publish(&next.newest);
                next.hang_below(versions.above());
                older_link.with_cut_before_of(held_by).publish(holder);
            }
            LinkTarget::Empty | LinkTarget::Node(_) => {
                unreachable!("a version has a list of versions")
            }
        }
        limbo.add_versions(overwritten.versions);
        buffer.mark_dead(older);
        true
    }

    /// Makes compaction steps until about `copy_bytes` are copied.
    fn compact(&mut self, copy_bytes: usize) {
        let Self { table, buffer, limbo, .. } = self;
        let mut vacated = Vec::new();
        let mut moved = Vec::with_capacity(4 * RELINKED_TOGETHER);
        let (mut done, mut steps, mut copied) = (0, 0, 0);
        while done < copy_bytes {
            // SAFETY: as in `insert`.
            let step = unsafe { buffer.step(&mut vacated, &mut |from, to| moved.push((from, to))) };
            steps += 1;
            copied += step.copied_bytes as u64;
            done += step.copied_bytes + step.dead_visited * DEAD_VISIT_BYTES;
            if step.finished {
                break;
            }
        }
        // Relink before the vacated chunks can be reused.
        let mut long_lists = LongLists::default();
        for group in moved.chunks(RELINKED_TOGETHER) {
            // SAFETY: live entries are in the tree, and this is the only writer.
            unsafe { relink(&table.root, group, &mut long_lists) };
        }
        limbo.add_chunks(&mut vacated);
        self.count(|progress| &progress.steps, steps);
        self.count(|progress| &progress.copied_bytes, copied);
    }

    /// Makes freed memory available again. Returns whether there were whole chunks.
    fn reuse(&mut self, freed: FreedMemory) -> bool {
        let FreedMemory { chunks, mut versions } = freed;
        // A reader of memory that was reclaimed too early will see this.
        #[cfg(test)]
        chunks.iter().for_each(crate::buffer::Chunk::poison);
        self.arena.reuse(&mut versions);
        if chunks.is_empty() {
            return false;
        }
        let bytes: usize = chunks.iter().map(crate::buffer::Chunk::bytes).sum();
        self.count(|progress| &progress.reclaimed_bytes, bytes as u64);
        self.buffer.recycle(chunks);
        true
    }

    fn count(
        &self,
        counter: impl FnOnce(&super::Progress) -> &crate::sync::atomic::AtomicU64,
        n: u64,
    ) {
        let counter = counter(&self.table.progress);
        counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// Publishes the counts.
    fn show(&self) {
        let progress = &self.table.progress;
        let stats = self.buffer.stats();
        progress.dead_bytes.store(stats.dead_bytes, Ordering::Relaxed);
        progress.content_bytes.store(stats.content_bytes, Ordering::Relaxed);
        progress.present_entries.store(stats.entries, Ordering::Relaxed);
        progress.class.store(stats.class as usize, Ordering::Relaxed);
        progress.compacting.store(stats.compacting, Ordering::Relaxed);
        progress.allocated_bytes.store(self.allocated_bytes(), Ordering::Relaxed);
        let used = self.buffer.used_bytes() + self.arena.used_bytes();
        progress.used_bytes.store(used, Ordering::Relaxed);
    }

    /// The memtable that this writer fills.
    pub fn memtable(&self) -> &Arc<Memtable> {
        &self.table
    }

    /// Ends the writing and marks the memtable as frozen. A compaction that is in progress stops
    /// where it is: every entry is whole in one of its two places.
    ///
    /// INVARIANT(frozen-before-flushed): nobody can write any more, because this consumes the
    /// writer.
    pub fn freeze(self) {
        self.table.progress.frozen.store(true, Ordering::Release);
    }
}

/// For each pair, makes the link to the first entry lead to the second. The descents are done side
/// by side: each step is a cache miss, and so the misses overlap.
///
/// # Safety
/// The first entry of each pair must be in the tree below `root`, and the second must be its copy;
/// the caller must be the only writer.
unsafe fn relink<'a>(
    root: &'a NodeSlot,
    moved: &[(EntryAt<'a>, EntryAt<'a>)],
    long_lists: &mut LongLists,
) {
    let mut places = [root; RELINKED_TOGETHER];
    let mut depths = [0; RELINKED_TOGETHER];
    let mut going: u32 = (1 << moved.len()) - 1;
    while going != 0 {
        let mut left = going;
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            left &= left - 1;
            // SAFETY: the caller's guarantees are the same.
            let next = unsafe { tree::step_to(places[at], moved[at].0, &mut depths[at]) };
            match next {
                Some(place) => places[at] = place,
                None => going &= !(1 << at),
            }
        }
    }
    for (place, (from, to)) in places.into_iter().zip(moved) {
        // SAFETY: the caller's guarantees are the same.
        unsafe { relocate(place, *from, *to, long_lists) };
    }
}

/// For each long list (many snapshots hold versions of one key), by its place: the link of the
/// entry that was relinked last. Entries are moved in the order in which they were written, so the
/// next one is above it.
type LongLists = HashMap<NonNull<NodeSlot>, NonNull<Versions>>;

/// A list of more links than this is remembered.
const LONG_LIST: usize = 32;

/// Makes the link to `from` lead to `to`.
///
/// # Safety
/// `slot` must be the place of `from`'s key, `from` must be in that key's list, and `to` must be
/// its copy; the caller must be the only writer.
unsafe fn relocate<'a>(
    mut slot: &'a NodeSlot,
    from: EntryAt<'a>,
    to: EntryAt<'a>,
    long_lists: &mut LongLists,
) {
    let place = NonNull::from(slot);
    let mut known = long_lists.get(&place).copied();
    while let Some(at) = known {
        // SAFETY: nothing is retired while entries are relinked, so the link is in use.
        let versions = unsafe { at.as_ref() };
        // SAFETY: loaded from a slot of the tree.
        if unsafe { NodeLink::load(&versions.newest).entry() } == Some(from) {
            long_lists.insert(place, at);
            return NodeLink::to_entry(to).publish(&versions.newest);
        }
        known = versions.above();
    }
    let (mut depth, mut above) = (0, None);
    let (copy, at) = loop {
        let link = NodeLink::load(slot);
        // SAFETY: loaded from a slot of the tree.
        match unsafe { link.target::<'a>() } {
            LinkTarget::Entry(entry) => {
                assert!(entry == from, "a live entry hangs in its key's list");
                break (NodeLink::to_entry(to).with_cuts_of(link), slot);
            }
            LinkTarget::Versions(versions) => {
                above = Some(NonNull::from(versions));
                // SAFETY: as above.
                if unsafe { NodeLink::load(&versions.newest).entry() } == Some(from) {
                    break (NodeLink::to_entry(to), &versions.newest);
                }
                slot = &versions.older;
                depth += 1;
            }
            LinkTarget::Empty | LinkTarget::Node(_) => {
                unreachable!("a live entry hangs in the tree")
            }
        }
    };
    copy.publish(at);
    if depth > LONG_LIST {
        long_lists.extend(above.map(|above| (place, above)));
    }
}

impl Drop for MemtableWriter {
    fn drop(&mut self) {
        let mut chunks = self.buffer.take_chunks();
        chunks.extend(self.arena.take_chunks());
        chunks.extend(self.limbo.take_chunks());
        let left = self.table.chunks.set(chunks);
        assert!(left.is_ok(), "a memtable has one writer");
    }
}

impl fmt::Debug for MemtableWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemtableWriter")
            .field("memtable", &self.table.id)
            .field("entries", &self.entries)
            .field("last_seqno", &self.last_seqno)
            .finish_non_exhaustive()
    }
}
