//! The overlay's only writer: what happens to it, without a word about who asks or who waits.

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
    /// What the entries of the active memtable were charged for.
    active_bytes: usize,
    /// Sealed and not yet published as tables: memtable id and charge, oldest first.
    sealed: VecDeque<(u64, usize)>,
    /// A seal was requested and has not happened yet.
    seal_requested: bool,
    batches: u64,
    sizes: Arc<OverlaySizes>,
}

impl OverlayState {
    /// An overlay whose active memtable is empty.
    pub fn new(writer: MemtableWriter, sizes: Arc<OverlaySizes>) -> Self {
        Self {
            writer,
            active_bytes: 0,
            sealed: VecDeque::new(),
            seal_requested: false,
            batches: 0,
            sizes,
        }
    }

    fn show_sizes(&self) {
        self.sizes.active_bytes.store(self.active_bytes, Ordering::Relaxed);
        let sealed = self.sealed.iter().map(|(_, bytes)| bytes).sum();
        self.sizes.sealed_bytes.store(sealed, Ordering::Relaxed);
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
        self.batches += 1;
        self.sizes.active_bytes.store(self.active_bytes, Ordering::Relaxed);
        self.sizes.batches.store(self.batches, Ordering::Relaxed);
    }

    /// The active memtable's id if it should be sealed now; once per memtable.
    #[inline]
    pub fn wants_seal(&mut self, memtable_bytes: usize) -> Option<u64> {
        if self.active_bytes < memtable_bytes || self.seal_requested {
            return None;
        }
        self.seal_requested = true;
        Some(self.writer.memtable().id())
    }

    /// Takes back a request that could not be sent, so that the next write repeats it.
    pub fn seal_not_requested(&mut self) {
        self.seal_requested = false;
    }

    /// Starts to write to `fresh`, which readers already see in front of the old active memtable
    /// (INVARIANT(published-before-used)); the old one takes no more writes from here on
    /// (INVARIANT(frozen-before-flushed)).
    pub fn seal(&mut self, fresh: MemtableWriter) -> u64 {
        let old = std::mem::replace(&mut self.writer, fresh);
        let id = old.memtable().id();
        self.sealed.push_back((id, std::mem::take(&mut self.active_bytes)));
        self.seal_requested = false;
        self.show_sizes();
        old.freeze();
        id
    }

    /// The memtable's entries are in a published version: returns the charge that goes back to the
    /// accounts (INVARIANT(publish-before-forget) is the version manager's to uphold).
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

    fn apply_one(state: &mut OverlayState, key: &str, seqno: u64, charge: usize) {
        let mut batch = WriteBatch::new();
        batch.put(key, "v");
        state.apply(batch.encoded(), Seqno(seqno), charge, None);
    }

    #[test]
    fn a_charge_stays_until_its_memtable_is_published() {
        let (_, writer) = memtable(1);
        let mut state = OverlayState::new(writer, Arc::default());
        apply_one(&mut state, "a", 1, 100);
        assert_eq!(state.wants_seal(150), None);
        apply_one(&mut state, "b", 2, 100);
        assert_eq!(state.wants_seal(150), Some(1));
        assert_eq!(state.wants_seal(150), None, "one request at a time");
        state.seal_not_requested();
        assert_eq!(state.wants_seal(150), Some(1), "a request that was not sent is repeated");
        let (_, fresh) = memtable(2);
        assert_eq!(state.seal(fresh), 1);
        apply_one(&mut state, "c", 3, 50);
        assert_eq!((state.active_bytes(), state.sizes.sealed_bytes()), (50, 200));
        assert_eq!(state.forget(1), 200);
        assert_eq!(state.sizes.sealed_bytes(), 0);
    }

    #[test]
    fn of_a_shared_batch_only_the_own_span_is_applied() {
        let (table, writer) = memtable(1);
        let mut state = OverlayState::new(writer, Arc::default());
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
