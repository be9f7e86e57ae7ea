//! The overlay's only writer: what happens to it, without a word about who asks or who waits.

use super::RangeBudget;
use sluicedb_storage::batch::Operations;
use sluicedb_storage::key::{Seqno, Span};
use sluicedb_storage::memtable::MemtableWriter;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Sizes of an overlay, for those who only look. Written by its owner, in no hurry.
#[derive(Debug, Default)]
pub struct OverlaySizes {
    active_bytes: AtomicUsize,
    sealed_bytes: AtomicUsize,
    batches: AtomicU64,
}

impl OverlaySizes {
    /// Charge of the active memtable.
    pub fn active_bytes(&self) -> usize {
        self.active_bytes.load(Ordering::Relaxed)
    }

    /// Charges of the sealed memtables.
    pub fn sealed_bytes(&self) -> usize {
        self.sealed_bytes.load(Ordering::Relaxed)
    }

    /// Batches applied.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }
}

/// The part of a range that only its seat may touch.
#[derive(Debug)]
pub struct OverlayState {
    writer: MemtableWriter,
    budget: RangeBudget,
    /// What the entries of the active memtable were charged for.
    active_bytes: usize,
    /// What they take of the local account: less, where a write was large.
    active_local_bytes: u64,
    /// Sealed and not yet published as tables: memtable id and charge, oldest first.
    sealed: VecDeque<(u64, usize)>,
    /// Size at which the active memtable is to be sealed.
    seal_at: usize,
    /// A seal was requested and has not happened yet.
    seal_requested: bool,
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
            seal_requested: false,
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

    /// Inserts the batch's entries, or those in `span` if one is given. `charge_bytes` stays with
    /// the memtable until it is published (INVARIANT(lease-follows-bytes)).
    pub fn apply(
        &mut self,
        payload: &[u8],
        first_seqno: Seqno,
        charge_bytes: usize,
        span: Option<&Span>,
    ) {
        let mut operations = Operations::new(payload);
        for (seqno, operation) in (first_seqno.0..).zip(&mut operations) {
            if span.is_none_or(|span| span.contains(operation.key)) {
                self.writer.insert(operation.key, Seqno(seqno), operation.kind, operation.value);
            }
        }
        assert!(operations.malformed_at().is_none(), "a batch is encoded by WriteBatch only");
        self.active_bytes += charge_bytes;
        self.active_local_bytes += self.budget.local_charge(charge_bytes as u64);
        self.batches += 1;
        self.sizes.active_bytes.store(self.active_bytes, Ordering::Relaxed);
        self.sizes.batches.store(self.batches, Ordering::Relaxed);
    }

    /// The active memtable's id if it should be sealed now; once per memtable.
    #[inline]
    pub fn wants_seal(&mut self) -> Option<u64> {
        if self.active_bytes < self.seal_at || self.seal_requested {
            return None;
        }
        self.seal_requested = true;
        Some(self.writer.memtable().id())
    }

    /// Takes back a request that could not be sent, so that the next write repeats it.
    pub fn seal_not_requested(&mut self) {
        self.seal_requested = false;
    }

    /// INVARIANT(bounded-overlay): has the active memtable entries, and the queue of sealed ones room
    /// for it?
    pub fn may_seal(&self) -> bool {
        let (sealed, active) = (self.sealed.len(), self.active_bytes);
        active > 0 && self.budget.has_room_in_queue(sealed, self.sealed_bytes(), active)
    }

    /// May it be sealed, and is it time? Asked again whenever the queue gets room: a seal that had
    /// to wait for that happens then.
    pub fn is_seal_due(&self) -> bool {
        self.active_bytes >= self.seal_at && self.may_seal()
    }

    /// The active memtable is to be sealed whatever its size, as soon as it has an entry and the
    /// queue has room.
    pub fn seal_soon(&mut self) {
        self.seal_at = 1;
    }

    /// Starts to write to `fresh`, which readers already see in front of the old active memtable
    /// (INVARIANT(published-before-used)); the old one takes no more writes from here on
    /// (INVARIANT(frozen-before-flushed)). Returns what goes back to the local account, which is
    /// about the active memtable.
    pub fn seal(&mut self, fresh: MemtableWriter) -> u64 {
        let old = std::mem::replace(&mut self.writer, fresh);
        self.sealed.push_back((old.memtable().id(), std::mem::take(&mut self.active_bytes)));
        self.seal_at = self.budget.memtable_bytes;
        self.seal_requested = false;
        self.show_sizes();
        old.freeze();
        std::mem::take(&mut self.active_local_bytes)
    }

    /// The memtable's entries are in a published version: returns the charge that goes back to the
    /// global account (INVARIANT(publish-before-forget) is the version manager's to uphold).
    pub fn forget(&mut self, id: u64) -> usize {
        let position = self.sealed.iter().position(|(sealed, _)| *sealed == id);
        let position = position.expect("only sealed memtables are flushed");
        let (_, bytes) = self.sealed.remove(position).expect("the position was just found");
        self.show_sizes();
        bytes
    }

    /// Charge of the active memtable.
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
        state.apply(batch.encoded(), Seqno(seqno), charge, None);
    }

    #[test]
    fn a_charge_stays_until_its_memtable_is_published() {
        let mut state = state(150);
        apply_one(&mut state, "a", 1, 100);
        assert_eq!(state.wants_seal(), None);
        apply_one(&mut state, "b", 2, 100);
        assert_eq!(state.wants_seal(), Some(1));
        assert_eq!(state.wants_seal(), None, "one request at a time");
        state.seal_not_requested();
        assert_eq!(state.wants_seal(), Some(1), "a request that was not sent is repeated");
        let (_, fresh) = memtable(2);
        assert_eq!(state.seal(fresh), 200, "the local account is about the active memtable");
        apply_one(&mut state, "c", 3, 50);
        assert_eq!((state.active_bytes(), state.sizes.sealed_bytes()), (50, 200));
        assert_eq!(state.forget(1), 200);
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
        // One may be in flush, one waits, the third has to grow.
        apply_one(&mut state, "k", 5, 160);
        assert_eq!(state.wants_seal(), Some(3), "asked for nevertheless");
        assert!(!state.is_seal_due());
        state.forget(1);
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

    #[test]
    fn a_large_write_takes_one_memtable_of_the_local_account() {
        let mut state = state(150);
        apply_one(&mut state, "k", 1, 4000);
        apply_one(&mut state, "k", 2, 100);
        assert_eq!(state.active_bytes(), 4100);
        assert_eq!(state.seal(memtable(2).1), 250);
        assert_eq!(state.forget(1), 4100);
    }

    #[test]
    fn of_a_shared_batch_only_the_own_span_is_applied() {
        let mut state = state(150);
        let table = Arc::clone(state.writer.memtable());
        let mut batch = WriteBatch::new();
        batch.put("a", "1").put("x", "2").delete("b");
        let span = Span { lo: "a".into(), hi: Some("m".into()) };
        state.apply(batch.encoded(), Seqno(10), 64, Some(&span));
        assert_eq!(table.entries(), 2);
        assert!(table.get(b"x", Seqno::MAX).is_none());
        let deleted = table.get(b"b", Seqno::MAX).map(|entry| entry.seqno);
        assert_eq!(deleted, Some(Seqno(12)), "operations keep their place in the batch");
    }
}
