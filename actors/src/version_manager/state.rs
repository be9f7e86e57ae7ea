//! Pure decisions of the version manager.

use super::message::Flushed;
use crate::failure::Failure;
use crate::kernel::reply::Reply;
use crate::range_owner::{RangeEntry, Superversion};
use sluicedb_storage::Result as StorageResult;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::memtable::Memtable;
use sluicedb_storage::version::{Place, Slice, TableHandle, VersionEdit};
use std::collections::HashSet;
use std::sync::Arc;

/// The tables of a flush, whole, go to the ranges that have their keys now, cut where those meet; and those
/// that have its memtables are flushed so far. Blocks on the disk where ranges have parted meanwhile.
pub(super) fn bring_home(
    current: &Superversion,
    flushed: &Flushed,
    tables: &[Arc<TableHandle>],
) -> StorageResult<VersionEdit> {
    let mut edit = VersionEdit::default();
    for table in tables {
        let slice = Slice::whole(table);
        let last = current.route_index(slice.max_key());
        let inside = &current.ranges[current.route_index(slice.min_key())..=last];
        let bounds: Vec<_> = inside.iter().map(|range| range.span().lo.clone()).collect();
        for piece in slice.cut(&bounds)? {
            let range = current.route(piece.min_key()).id();
            edit.added.push((range, Place::L0, piece.meta().clone()));
        }
    }
    for range in &current.ranges {
        let is_flushed = |table: &&Arc<Memtable>| flushed.memtables.contains(&table.id());
        let theirs = range.sealed.iter().filter(is_flushed);
        if let Some(last) = theirs.filter_map(|table| table.last_seqno()).max() {
            edit.flushed.push((range.id(), last));
        }
    }
    Ok(edit)
}

/// The ranges without the memtables that were flushed.
pub(super) fn without(ranges: &[RangeEntry], flushed: Option<&Flushed>) -> Vec<RangeEntry> {
    let mut ranges = ranges.to_vec();
    if let Some(flushed) = flushed {
        for range in &mut ranges {
            range.sealed.retain(|table| !flushed.memtables.contains(&table.id()));
        }
    }
    ranges
}

/// A caller of `flush`: the memtables it still waits for, what it is told then, and its reply.
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
    /// Answers `reply` with `stamped` once all of `memtables` are published.
    pub(super) fn wait(
        &mut self,
        memtables: HashSet<u64>,
        stamped: Seqno,
        reply: Reply<Result<Seqno, Failure>>,
    ) {
        if memtables.is_empty() {
            reply.send(Ok(stamped));
        } else {
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

    /// Flushing these memtables fails: nobody waits for it to come right.
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
    use crate::kernel::reply::reply;

    #[test]
    fn a_flush_is_answered_after_its_last_memtable() {
        let mut waiters = FlushWaiters::default();
        let (first, mut first_answer) = reply();
        let (second, mut second_answer) = reply();
        waiters.wait(HashSet::from([1, 2]), Seqno(7), first);
        waiters.wait(HashSet::from([2]), Seqno(9), second);
        waiters.published(&[2]);
        assert!(first_answer.try_take().is_none());
        assert!(matches!(second_answer.try_take(), Some(Ok(Ok(Seqno(9))))));
        waiters.published(&[1]);
        assert!(matches!(first_answer.try_take(), Some(Ok(Ok(Seqno(7))))));
    }

    #[test]
    fn a7_who_waits_for_what_fails_is_told_and_nobody_else() {
        let mut waiters = FlushWaiters::default();
        let (first, mut first_answer) = reply();
        let (second, mut second_answer) = reply();
        waiters.wait(HashSet::from([1, 2]), Seqno(7), first);
        waiters.wait(HashSet::from([3]), Seqno(9), second);
        waiters.failed(&[2, 4], &Failure::Closed);
        assert!(matches!(first_answer.try_take(), Some(Ok(Err(Failure::Closed)))));
        assert!(second_answer.try_take().is_none());
    }

    #[test]
    fn a_flush_of_nothing_is_answered_at_once() {
        let mut waiters = FlushWaiters::default();
        let (reply, mut answer) = reply();
        waiters.wait(HashSet::new(), Seqno(3), reply);
        assert!(matches!(answer.try_take(), Some(Ok(Ok(Seqno(3))))));
    }
}
