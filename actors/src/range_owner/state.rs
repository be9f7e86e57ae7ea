//! The overlay's only writer: how it changes. It knows nothing of who asks or waits.

use super::route::Lot;
use super::sizes::OverlaySizes;
use crate::admission::RangeBudget;
use sluicedb_storage::batch::PointOperation;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::limits::ENTRY_OVERHEAD_BYTES;
use sluicedb_storage::memtable::{ChunkPool, MemtableWriter, ReclaimStep};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// While a batch is applied, the buffer copies this many times the batch's bytes. A compaction of
/// everything begins at twelve eighths of a memtable, of which eight are live. At this rate it ends
/// at fifteen eighths, where the memtable is sealed. A compaction of closed extents copies much
/// less.
const COPIED_PER_WRITTEN: usize = 3;
/// It copies once this many bytes are due: finding many entries at once is faster.
const COPIED_AT_ONCE: usize = 4 << 10;
/// It copies at most this much in one turn, because turns must be short: eight steps.
const COPIED_PER_TURN_MAX: usize = 512 << 10;
/// The reclaimer copies this many bytes, then looks whether somebody wants the seat.
const IDLE_COPY_BYTES: usize = 64 << 10;
/// Bytes of an entry besides key and value.
const HEADER_BYTES: usize = 12;

/// What is left to do after a batch was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The memtable that should be sealed now.
    pub seal: Option<u64>,
    /// Charge that goes back to the accounts.
    pub freed: Freed,
    /// The reclaimer should look here if no write does. It is told once.
    pub garbage: bool,
    /// The chunk pool should be restocked. It is told once.
    pub restock_due: bool,
}

/// What a reclaim without a batch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// Did it do anything?
    pub progress: bool,
    /// Charge that goes back to the accounts.
    pub freed: Freed,
}

/// Charge of entries whose memory is free again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// For the local account.
    pub local_bytes: u64,
    /// For the global account.
    pub global_bytes: u64,
}

/// The part of a range that only its seat may touch.
#[derive(Debug)]
pub struct OverlayState {
    writer: MemtableWriter,
    budget: RangeBudget,
    /// What the entries of the active memtable were charged.
    active_bytes: usize,
    /// Their share of the local account. It is smaller if a write was large.
    active_local_bytes: u64,
    /// Sealed and not yet published as tables: memtable id and charge, oldest first.
    sealed: VecDeque<(u64, usize)>,
    /// The size at which the active memtable should be sealed.
    seal_at: usize,
    /// Does a write lack room in the range? It may wait, or be about to try again.
    crowded: bool,
    /// A seal was requested and has not happened yet.
    seal_requested: bool,
    /// Has the reclaimer been told of the garbage?
    garbage: bool,
    /// Bytes that the running compaction owes for the writes since it last copied.
    copy_due: usize,
    batches: u64,
    sizes: Arc<OverlaySizes>,
}

impl OverlayState {
    /// An overlay whose active memtable is empty.
    pub fn new(writer: MemtableWriter, budget: RangeBudget, sizes: Arc<OverlaySizes>) -> Self {
        Self {
            writer,
            budget,
            active_bytes: 0,
            active_local_bytes: 0,
            sealed: VecDeque::new(),
            seal_at: budget.memtable_bytes,
            crowded: false,
            seal_requested: false,
            garbage: false,
            copy_due: 0,
            batches: 0,
            sizes,
        }
    }

    fn show_sizes(&self) {
        self.sizes.active_bytes.store(self.active_bytes, Ordering::Relaxed);
        self.sizes.sealed_bytes.store(self.sealed_bytes(), Ordering::Relaxed);
    }

    fn sealed_bytes(&self) -> usize {
        self.sealed.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Inserts the entries. The memtable holds `charge_bytes` until it is published, or until its
    /// entries are overwritten and their memory is free (INVARIANT(lease-follows-bytes)).
    pub fn apply(&mut self, lot: Lot<'_>, charge_bytes: usize) {
        let mut before = None;
        for next in lot {
            let (seqno, PointOperation { key, .. }) = next;
            match before.replace(next) {
                None => self.writer.begin_batch(seqno),
                Some(before) => {
                    // Its memory is fetched while the previous operation is inserted.
                    self.writer.memtable().prefetch(key);
                    self.insert(before);
                }
            }
        }
        if let Some(last) = before {
            self.insert(last);
        }
        self.active_bytes += charge_bytes;
        self.active_local_bytes += self.budget.local_charge(charge_bytes as u64);
        self.batches += 1;
        self.sizes.active_bytes.store(self.active_bytes, Ordering::Relaxed);
        self.sizes.batches.store(self.batches, Ordering::Relaxed);
    }

    fn insert(&mut self, (seqno, operation): (Seqno, PointOperation<'_>)) {
        self.writer.insert(operation.key, seqno, operation.kind, operation.value);
    }

    /// The work after a batch of `written_bytes`: reclaims some of what was overwritten, and says
    /// whether the memtable should be sealed. `visible` is what readers may see.
    #[inline]
    pub fn reclaim(&mut self, visible: Seqno, written_bytes: usize) -> Applied {
        let mut freed = Freed::default();
        if self.writer.is_compacting() {
            self.copy_due += COPIED_PER_WRITTEN * written_bytes;
        }
        if self.copy_due >= COPIED_AT_ONCE || self.writer.wants_reclaim() {
            let copy_bytes = std::mem::take(&mut self.copy_due).min(COPIED_PER_TURN_MAX);
            freed = self.reclaim_some(visible, copy_bytes).freed;
        }
        let garbage = !self.garbage && self.writer.has_garbage();
        if garbage {
            self.note_garbage(true);
        }
        let restock_due = self.writer.memtable().pool().is_some_and(ChunkPool::take_restock_due);
        Applied { seal: self.wants_seal(), freed, garbage, restock_due }
    }

    /// As `reclaim`, when no batch comes.
    pub fn reclaim_idle(&mut self, visible: Seqno) -> Idle {
        let idle = self.reclaim_some(visible, IDLE_COPY_BYTES);
        self.note_garbage(self.writer.has_garbage());
        idle
    }

    fn note_garbage(&mut self, garbage: bool) {
        self.garbage = garbage;
        self.sizes.garbage.store(garbage, Ordering::Relaxed);
    }

    #[inline(never)]
    fn reclaim_some(&mut self, visible: Seqno, copy_bytes: usize) -> Idle {
        // An early compaction copies the same entries more often for the same gain. A late one is
        // unfinished at fifteen eighths of the memtable's size, where the memtable is sealed with
        // fewer live entries.
        let eighths = if self.writer.has_closed_extents() { 13 } else { 12 };
        let scarce = self.active_bytes >= self.budget.memtable_bytes / 8 * eighths;
        let ReclaimStep { progress, freed } = self.writer.reclaim(visible, copy_bytes, scarce);
        let freed = if freed { self.lower_charge() } else { Freed::default() };
        Idle { progress, freed }
    }

    /// Lowers the charge to what the entries that hold memory would be charged now.
    fn lower_charge(&mut self) -> Freed {
        let needed = self.present_charge().min(self.active_bytes);
        let global_bytes = (self.active_bytes - needed) as u64;
        let local_bytes = self.active_local_bytes.saturating_sub(needed as u64);
        self.active_bytes = needed;
        self.active_local_bytes -= local_bytes;
        self.sizes.active_bytes.store(self.active_bytes, Ordering::Relaxed);
        Freed { local_bytes, global_bytes }
    }

    /// Should the active memtable be sealed? The bytes that a flush would write decide. Where keys
    /// are overwritten often, a memtable that stays longer leaves less to flush. So a memtable of
    /// which at least an eighth is dead may outgrow its size by three eighths. Live and dead
    /// entries together may take fifteen eighths.
    #[inline]
    fn is_full(&self) -> bool {
        let RangeBudget { memtable_bytes, .. } = self.budget;
        let active = self.active_bytes;
        if active < self.seal_at {
            return false;
        }
        if self.crowded || self.seal_at < memtable_bytes || active >= memtable_bytes / 8 * 15 {
            return true;
        }
        let dead = self.dead_charge();
        let live = active - dead;
        live >= memtable_bytes / 8 * 11 || live >= memtable_bytes && dead < active / 8
    }

    /// About what the dead entries were charged: the charge of all entries that hold memory, minus
    /// that of the live ones.
    fn dead_charge(&self) -> usize {
        let (live_bytes, live_entries) = self.writer.live();
        let live =
            live_bytes as usize + live_entries as usize * (ENTRY_OVERHEAD_BYTES - HEADER_BYTES);
        self.present_charge().saturating_sub(live).min(self.active_bytes)
    }

    /// What the entries that hold memory would be charged now.
    fn present_charge(&self) -> usize {
        let (content_bytes, entries) = self.writer.content();
        content_bytes as usize + entries as usize * ENTRY_OVERHEAD_BYTES
    }

    /// The id of the active memtable if it should be sealed now. Returned once per memtable.
    #[inline]
    fn wants_seal(&mut self) -> Option<u64> {
        if self.seal_requested || !self.is_full() {
            return None;
        }
        self.seal_requested = true;
        Some(self.writer.memtable().id())
    }

    /// Takes back a seal request that could not be sent, so that the next write repeats it.
    pub fn seal_not_requested(&mut self) {
        self.seal_requested = false;
    }

    /// May the active memtable be sealed? INVARIANT(bounded-overlay): it must have entries, and the
    /// queue of sealed memtables must have room for it.
    pub fn may_seal(&self) -> bool {
        let (sealed, active) = (self.sealed.len(), self.active_bytes);
        active > 0 && self.budget.has_room_in_queue(sealed, self.sealed_bytes(), active)
    }

    /// May it be sealed, and is it full? Asked again whenever the queue gets room, so a seal that
    /// had to wait happens then. If it is not full any more, because much of it has died meanwhile,
    /// the write that fills it asks again.
    pub fn is_seal_due(&mut self) -> bool {
        let full = self.is_full();
        self.seal_requested &= full;
        full && self.may_seal()
    }

    /// A write lacks room in the range. From now on the active memtable is sealed as soon as
    /// it has its size, even if much of it is dead.
    pub fn seal_when_full(&mut self) {
        self.crowded = true;
    }

    /// Has the active memtable sealed at any size, as soon as it has an entry and the queue has
    /// room.
    pub fn seal_soon(&mut self) {
        self.seal_at = 1;
    }

    /// Starts to write to `fresh`, which readers already see in front of the old active memtable
    /// (INVARIANT(published-before-used)). From here on the old one takes no more writes
    /// (INVARIANT(frozen-before-flushed)). Returns the charge to release in the local account,
    /// which covers only the active memtable.
    pub fn seal(&mut self, fresh: MemtableWriter) -> u64 {
        let old = std::mem::replace(&mut self.writer, fresh);
        self.sizes.reclaimed.add(&old.memtable().reclaim_stats());
        self.sealed.push_back((old.memtable().id(), std::mem::take(&mut self.active_bytes)));
        self.seal_at = self.budget.memtable_bytes;
        self.crowded = false;
        self.seal_requested = false;
        self.note_garbage(false);
        self.show_sizes();
        old.freeze();
        std::mem::take(&mut self.active_local_bytes)
    }

    /// May the range hand over its memtables? That seals the active one. The queue has one place
    /// for it that writers never take. So a change waits for flushes, but never for a writer.
    pub fn may_hand_over(&self) -> bool {
        self.sealed.len() <= self.budget.sealed_max.saturating_add(1)
    }

    /// Ends the range: another one takes over its memory. The active memtable is sealed unless it
    /// is empty. The range gets `fresh` in its place, which no reader will find. Returns each
    /// sealed memtable with its charge, oldest first. The caller holds the seat and has handled
    /// everything queued.
    pub fn hand_over(&mut self, fresh: MemtableWriter) -> VecDeque<(u64, usize)> {
        if self.writer.memtable().entries() > 0 {
            self.seal(fresh);
        }
        let sealed = std::mem::take(&mut self.sealed);
        self.show_sizes();
        sealed
    }

    /// Continues in `fresh`, because a change happens between what was applied and what will be.
    /// Seals the active memtable unless it is empty, at any size. Returns as `seal`.
    pub fn begin_anew(&mut self, fresh: MemtableWriter) -> u64 {
        if self.writer.memtable().entries() > 0 {
            return self.seal(fresh);
        }
        self.writer = fresh;
        0
    }

    /// Adds these sealed memtables, with this share of their charges, to the range, which is new.
    pub fn take_over(&mut self, handed: impl Iterator<Item = (u64, usize)>) {
        for (id, bytes) in handed {
            match self.sealed.binary_search_by_key(&id, |(id, _)| *id) {
                Ok(at) => self.sealed[at].1 += bytes,
                Err(at) => self.sealed.insert(at, (id, bytes)),
            }
        }
        self.show_sizes();
    }

    /// Forgets memtables whose entries are in a published version. Returns the charge to release in
    /// the global account. The version manager upholds INVARIANT(publish-before-forget).
    pub fn forget(&mut self, memtables: &[u64]) -> usize {
        let before = self.sealed_bytes();
        self.sealed.retain(|(id, _)| !memtables.contains(id));
        self.show_sizes();
        before - self.sealed_bytes()
    }

    /// The charge of the active memtable.
    pub fn active_bytes(&self) -> usize {
        self.active_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicedb_storage::batch::WriteBatch;
    use sluicedb_storage::memtable::memtable;

    fn state(memtable_bytes: usize) -> OverlayState {
        let budget = RangeBudget { memtable_bytes, buffer_bytes: 1 << 20, sealed_max: 1 };
        OverlayState::new(memtable(1).1, budget, Arc::default())
    }

    fn apply_one(state: &mut OverlayState, key: &str, seqno: u64, charge: usize) {
        let mut batch = WriteBatch::new();
        batch.put(key, "v");
        state.apply(Lot::whole(batch.encoded(), Seqno(seqno)), charge);
    }

    #[test]
    fn a_charge_stays_until_its_memtable_is_published() {
        let mut state = state(150);
        apply_one(&mut state, "a", 1, 100);
        let wants_seal = |state: &mut OverlayState| state.reclaim(Seqno::MAX, 1).seal;
        assert_eq!(wants_seal(&mut state), None);
        apply_one(&mut state, "b", 2, 100);
        assert_eq!(wants_seal(&mut state), Some(1));
        assert_eq!(wants_seal(&mut state), None, "one request at a time");
        state.seal_not_requested();
        assert_eq!(wants_seal(&mut state), Some(1), "a request that was not sent is repeated");
        let (_, fresh) = memtable(2);
        assert_eq!(state.seal(fresh), 200, "the local account is about the active memtable");
        apply_one(&mut state, "c", 3, 50);
        assert_eq!((state.active_bytes(), state.sizes.sealed_bytes()), (50, 200));
        assert_eq!(state.forget(&[1]), 200);
        assert_eq!(state.sizes.sealed_bytes(), 0);
    }

    #[test]
    fn a_seal_waits_for_room_in_the_queue() {
        let mut state = state(150);
        assert!(!state.may_seal(), "nothing is in it");
        for id in 2..4 {
            apply_one(&mut state, "k", id, 160);
            assert!(state.is_seal_due());
            state.seal(memtable(id).1);
        }
        // One may be in flush and one may wait. The third must grow.
        apply_one(&mut state, "k", 5, 160);
        assert_eq!(state.wants_seal(), Some(3), "asked for nevertheless");
        assert!(!state.is_seal_due());
        state.forget(&[1]);
        assert!(state.is_seal_due(), "one is published");
    }

    #[test]
    fn what_is_sealed_soon_is_sealed_at_any_size_and_the_next_at_its_own() {
        let mut state = state(150);
        state.seal_soon();
        assert!(!state.is_seal_due(), "nothing is in it");
        apply_one(&mut state, "k", 1, 20);
        assert!(state.wants_seal().is_some() && state.is_seal_due());
        state.seal(memtable(2).1);
        apply_one(&mut state, "k", 2, 20);
        assert!(state.wants_seal().is_none() && !state.is_seal_due());
    }

    /// Planted: a request is forgotten for good when it is found not due.
    #[test]
    fn a_seal_that_was_not_due_any_more_is_asked_for_again() {
        let mut state = state(150);
        apply_one(&mut state, "a", 1, 160);
        assert_eq!(state.wants_seal(), Some(1));
        // Most of it has died before the request is handled.
        state.active_bytes = 100;
        assert!(!state.is_seal_due());
        assert_eq!(state.wants_seal(), None);
        apply_one(&mut state, "b", 2, 60);
        assert_eq!(state.wants_seal(), Some(1));
        assert!(state.is_seal_due());
    }

    #[test]
    fn a_large_write_takes_one_memtable_of_the_local_account() {
        let mut state = state(150);
        apply_one(&mut state, "k", 1, 4000);
        apply_one(&mut state, "k", 2, 100);
        assert_eq!(state.active_bytes(), 4100);
        assert_eq!(state.seal(memtable(2).1), 250);
        assert_eq!(state.forget(&[1]), 4100);
    }
}
