//! Pure decisions of the version manager.

use super::message::Flushed;
use crate::failure::Failure;
use crate::range_owner::{RangeEntry, Superversion};
use sluicedb_kernel::reply::Reply;
use sluicedb_storage::Result as StorageResult;
use sluicedb_storage::key::{Seqno, Span};
use sluicedb_storage::version::{
    Place, RangeId, Slice, SliceMeta, TableHandle, Version, VersionEdit,
};
use sluicedb_storage::view::{MemtableSlice, PendingRun};
use std::collections::HashSet;
use std::sync::Arc;

/// The edit for the tables of a flush. Each table goes to the ranges that have its keys now, cut
/// where these meet. Ranges that have its memtables are recorded as flushed. If the keyspace is
/// gone, nobody gets the tables. Blocks on the disk if a range has split meanwhile.
/// INVARIANT(parent-drains-first): this holds for a split during the flush, too.
pub(super) fn bring_home(
    current: &Superversion,
    flushed: &Flushed,
    tables: &[Arc<TableHandle>],
) -> StorageResult<VersionEdit> {
    let mut edit = VersionEdit::default();
    for table in tables {
        let slice = Slice::whole(table);
        let route = |key| current.route_index(flushed.keyspace, key);
        let ends = [slice.min_key(), slice.max_key()].map(|key| route(key));
        let [Some(first), Some(last)] = ends else { continue };
        let inside = &current.ranges[first..=last];
        let bounds: Vec<_> = inside.iter().map(|range| range.span().lo.clone()).collect();
        for piece in slice.cut(&bounds)? {
            let range = current.route(flushed.keyspace, piece.min_key()).expect("it is there");
            let cut_out = cut_out_of_all(range, flushed);
            let left = piece.without(&cut_out)?.unwrap_or_else(|| vec![piece]);
            let left = left.into_iter().map(|piece| (range.id(), Place::L0, piece.meta().clone()));
            edit.added.extend(left);
        }
    }
    for range in &current.ranges {
        let is_flushed = |table: &&MemtableSlice| flushed.memtables.contains(&table.id());
        let theirs = range.sealed.iter().filter(is_flushed);
        if let Some(last) = theirs.filter_map(|table| table.last_seqno()).max() {
            // Tables that came in over these memtables are no longer ahead of any.
            let oldest =
                range.sealed.iter().rfind(|table| !is_flushed(table)).map(|table| table.id());
            let over = |pending: &&PendingRun| !pending.is_in_front_of(oldest);
            let came = range.pending.iter().filter(over).map(|pending| pending.seqno).max();
            edit.flushed.push((range.id(), last.max(came.unwrap_or_default())));
        }
    }
    Ok(edit)
}

/// What must be cut out of a flush's tables in one range: the spans that all of its memtables lack.
/// That covers spans that were cut out after the flush had begun, because all memtables were sealed
/// by then. What was cut out of some of them before is not in the tables.
/// INVARIANT(mask-covers-replay).
fn cut_out_of_all(range: &RangeEntry, flushed: &Flushed) -> Vec<Span> {
    let is_flushed = |slice: &&MemtableSlice| flushed.memtables.contains(&slice.id());
    let mut slices = range.sealed.iter().filter(is_flushed);
    let Some(first) = slices.next() else { return Vec::new() };
    slices.fold(first.cut_out().to_vec(), |common, slice| {
        let both = |a: &Span| slice.cut_out().iter().map(|b| a.intersection(b)).collect::<Vec<_>>();
        common.iter().flat_map(both).filter(|span| !span.is_empty()).collect()
    })
}

/// Do these slices still exist, with the keys that they had when they were merged? A change may
/// have cut one and left its name to a part of it.
pub(super) fn are_there(
    before: &Version,
    gone: &[(RangeId, Place, SliceMeta)],
) -> Result<(), String> {
    for (range, place, slice) in gone {
        let there = before.find(*range, *place, &slice.name());
        if there.is_none_or(|there| there.part != slice.part) {
            return Err(format!("{} of range {range}, {place}, has been cut", slice.name()));
        }
    }
    Ok(())
}

/// The ranges without the memtables that were flushed.
pub(super) fn without(ranges: &[RangeEntry], flushed: Option<&Flushed>) -> Vec<RangeEntry> {
    let mut ranges = ranges.to_vec();
    if let Some(flushed) = flushed {
        for range in &mut ranges {
            range.sealed.retain(|table| !flushed.memtables.contains(&table.id()));
            let oldest = range.sealed.last().map(|table| table.id());
            range.pending.retain(|pending| pending.is_in_front_of(oldest));
        }
    }
    ranges
}

/// A caller of `flush`: the memtables it still waits for, the number to tell it, and its reply.
#[derive(Debug)]
struct FlushWaiter {
    memtables: HashSet<u64>,
    stamped: Seqno,
    reply: Reply<Result<Seqno, Failure>>,
}

/// The callers of `flush`.
#[derive(Debug, Default)]
pub(super) struct FlushWaiters(Vec<FlushWaiter>);

impl FlushWaiters {
    /// Answers `reply` with `stamped` once all of `memtables` are published. Before the list grows,
    /// callers who have given up leave it: they may ask again and again while flushes make no
    /// progress.
    pub(super) fn wait(
        &mut self,
        memtables: HashSet<u64>,
        stamped: Seqno,
        reply: Reply<Result<Seqno, Failure>>,
    ) {
        if memtables.is_empty() {
            reply.send(Ok(stamped));
        } else {
            if self.0.len() == self.0.capacity() {
                self.0.retain(|waiter| !waiter.reply.is_abandoned());
            }
            self.0.push(FlushWaiter { memtables, stamped, reply });
        }
    }

    /// These memtables are published.
    pub(super) fn published(&mut self, memtables: &[u64]) {
        for waiter in &mut self.0 {
            waiter.memtables.retain(|id| !memtables.contains(id));
        }
        for waiter in self.0.extract_if(.., |waiter| waiter.memtables.is_empty()) {
            waiter.reply.send(Ok(waiter.stamped));
        }
    }

    /// The flush of these memtables failed. Answers those who wait for it; nobody waits for the
    /// retry.
    pub(super) fn failed(&mut self, memtables: &[u64], failure: &Failure) {
        let waits =
            |waiter: &mut FlushWaiter| memtables.iter().any(|id| waiter.memtables.contains(id));
        for waiter in self.0.extract_if(.., waits) {
            waiter.reply.send(Err(failure.clone()));
        }
    }

    /// Nothing will be flushed any more.
    pub(super) fn fail(&mut self, failure: &Failure) {
        for waiter in self.0.drain(..) {
            waiter.reply.send(Err(failure.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use sluicedb_kernel::reply::reply;

    #[test]
    fn a_flush_is_answered_after_its_last_memtable() {
        let mut waiters = FlushWaiters::default();
        let (first, mut first_answer) = reply();
        let (second, mut second_answer) = reply();
        waiters.wait(HashSet::from([1, 2]), Seqno(7), first);
        waiters.wait(HashSet::from([2]), Seqno(9), second);
        waiters.published(&[2]);
        assert!((&mut first_answer).now_or_never().is_none());
        assert!(matches!((&mut second_answer).now_or_never(), Some(Ok(Ok(Seqno(9))))));
        waiters.published(&[1]);
        assert!(matches!((&mut first_answer).now_or_never(), Some(Ok(Ok(Seqno(7))))));
    }

    #[test]
    fn a7_who_waits_for_what_fails_is_told_and_nobody_else() {
        let mut waiters = FlushWaiters::default();
        let (first, mut first_answer) = reply();
        let (second, mut second_answer) = reply();
        waiters.wait(HashSet::from([1, 2]), Seqno(7), first);
        waiters.wait(HashSet::from([3]), Seqno(9), second);
        waiters.failed(&[2, 4], &Failure::Closed);
        assert!(matches!((&mut first_answer).now_or_never(), Some(Ok(Err(Failure::Closed)))));
        assert!((&mut second_answer).now_or_never().is_none());
    }

    /// Planted: a list that only grows.
    #[test]
    fn who_gives_up_and_asks_again_and_again_is_not_remembered() {
        let mut waiters = FlushWaiters::default();
        let (stays, mut answer) = reply();
        waiters.wait(HashSet::from([1]), Seqno(1), stays);
        for n in 0..1_000 {
            let (gives_up, given_up) = reply();
            waiters.wait(HashSet::from([1, 2]), Seqno(n), gives_up);
            drop(given_up);
        }
        assert!(waiters.0.len() <= 8, "{} wait, and one of them asks", waiters.0.len());
        waiters.published(&[1, 2]);
        assert!(matches!((&mut answer).now_or_never(), Some(Ok(Ok(Seqno(1))))));
    }

    #[test]
    fn a_flush_of_nothing_is_answered_at_once() {
        let mut waiters = FlushWaiters::default();
        let (reply, mut answer) = reply();
        waiters.wait(HashSet::new(), Seqno(3), reply);
        assert!(matches!((&mut answer).now_or_never(), Some(Ok(Ok(Seqno(3))))));
    }
}
