//! Which range is flushed next. No I/O in here.

use crate::failure::backoff::Retry;
use sluicedb_storage::version::{RangeId, RangeVersion};
use sluicedb_storage::view::{MemtableSlice, RangeEntry, Superversion};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What is due.
#[derive(Debug)]
pub(super) struct Due<O> {
    pub(super) next: Option<Next<O>>,
    /// When a range that failed is tried again.
    pub(super) until: Option<Instant>,
    /// The ranges that wait for room in L0.
    pub(super) for_l0: Vec<ForL0>,
}

/// A range that waits for room in its own L0, or in that of a range with which it shares a
/// memtable.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ForL0 {
    pub(super) range: RangeId,
    /// The ranges whose L0 has no room.
    pub(super) full: Vec<RangeId>,
    /// The frozen memtables of `range`.
    pub(super) memtables: Vec<u64>,
}

/// The flush to do now.
#[derive(Debug)]
pub(super) struct Next<O> {
    /// The range that is due.
    pub(super) range: RangeId,
    /// All ranges that have any of the memtables, in key order. After a split, the new ranges share
    /// the memtables of the old one.
    pub(super) ranges: Vec<RangeEntry<O>>,
    /// The frozen memtables of the range that is due, newest first, without the spans cut out of
    /// them in any of the ranges. They are flushed together, so an entry that a newer one
    /// overwrites is never written. Memtables newer than tables that came in from outside are left
    /// out: they wait for the older ones.
    pub(super) frozen: Vec<MemtableSlice>,
}

/// The ranges whose flush failed, and when each is tried again.
#[derive(Debug, Default)]
pub(super) struct Retries(BTreeMap<RangeId, Retry>);

impl Retries {
    /// Chooses the range whose oldest frozen memtable is the oldest of all. A range that waits for
    /// room in L0, or for its retry, is passed over. It delays only those that share a memtable
    /// with it. No range starves: what is frozen later has a higher number. Forgets ranges that are
    /// gone.
    /// INVARIANT(parent-drains-first): all ranges that share a memtable are flushed together.
    /// INVARIANT(ahead-waits): older memtables go first.
    pub(super) fn due<O: Clone>(
        &mut self,
        superversion: &Superversion<O>,
        now: Instant,
        l0_has_room: impl Fn(&RangeVersion) -> bool,
    ) -> Due<O> {
        self.0.retain(|range, _| superversion.range(*range).is_some());
        let mut due = Due { next: None, until: None, for_l0: Vec::new() };
        let mut oldest = u64::MAX;
        let holders = superversion.holders();
        for entry in &superversion.ranges {
            let frozen = entry.sealed.iter().filter(|table| table.is_frozen());
            let mut frozen: Vec<MemtableSlice> = frozen.cloned().collect();
            let range = entry.id();
            let at = |table: &MemtableSlice| holders.get(&table.id()).into_iter().flatten();
            let ranges: BTreeSet<usize> = frozen.iter().flat_map(at).copied().collect();
            let ranges = || ranges.iter().map(|at| &superversion.ranges[*at]);
            let barriers = ranges().filter_map(|range| range.pending.last());
            if let Some(behind) = barriers.map(|pending| pending.behind).min() {
                frozen.retain(|table| table.id() <= behind);
            }
            let Some(age) = frozen.last().map(|table| table.id()) else { continue };
            let full = ranges().filter(|range| !l0_has_room(&range.stable)).map(RangeEntry::id);
            let full: Vec<_> = full.collect();
            let failed = ranges().filter_map(|range| self.0.get(&range.id()));
            let again = failed.filter(|retry| retry.waits(now)).map(Retry::at).max();
            if !full.is_empty() {
                let memtables = frozen.iter().map(|table| table.id()).collect();
                due.for_l0.push(ForL0 { range, full, memtables });
            } else if let Some(at) = again {
                due.until = Some(due.until.map_or(at, |until| until.min(at)));
            } else if age < oldest {
                oldest = age;
                for table in &mut frozen {
                    let slices = ranges().flat_map(|range| &range.sealed);
                    let same = slices.filter(|slice| slice.id() == table.id());
                    *table = table.without(same.flat_map(MemtableSlice::cut_out));
                }
                due.next = Some(Next { range, ranges: ranges().cloned().collect(), frozen });
            }
        }
        due
    }

    /// Lets every range be tried now. A caller has asked for it.
    pub(super) fn try_now(&mut self, now: Instant) {
        for retry in self.0.values_mut() {
            retry.try_now(now);
        }
    }

    /// The flush of `range` failed. Returns how long it pauses, at most `longest`.
    pub(super) fn failed(&mut self, range: RangeId, now: Instant, longest: Duration) -> Duration {
        self.0.entry(range).or_insert(Retry::fresh(now)).failed(now, longest)
    }

    /// The range was flushed.
    pub(super) fn succeeded(&mut self, range: RangeId) {
        self.0.remove(&range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::backoff::LONGEST;
    use crate::runtime::{Runtime, ThreadRuntime};
    use sluicedb_storage::key::{Kind, Seqno, Span};
    use sluicedb_storage::memtable::memtable;
    use sluicedb_storage::version::Shards;
    use std::sync::Arc;

    fn frozen(id: u64) -> MemtableSlice {
        let (table, mut writer) = memtable(id);
        writer.insert(b"k", Seqno(id), Kind::Put, b"v");
        writer.freeze();
        MemtableSlice::whole(table)
    }

    /// One range per list. The numbers are the ids of its frozen memtables, newest first.
    fn superversion(ranges: &[&[u64]]) -> Superversion<()> {
        let mut entries = Vec::new();
        for (at, ids) in (0_u8..).zip(ranges) {
            let range = RangeId(u32::from(at) + 1);
            let lo = if at == 0 { Vec::new() } else { vec![at] };
            let hi = (usize::from(at) + 1 < ranges.len()).then(|| vec![at + 1].into());
            let span = Span { lo: lo.into(), hi };
            let stable = Arc::new(RangeVersion::empty(range, span, Shards::one()));
            let sealed = ids.iter().map(|id| frozen(*id)).collect();
            entries.push(RangeEntry { sealed, ..RangeEntry::new(memtable(99).0, stable, ()) });
        }
        Superversion::new(1, 1, Seqno::ZERO, Arc::default(), entries)
    }

    fn chosen(due: &Due<()>) -> Option<(u32, Vec<u64>)> {
        let Next { range, frozen, .. } = due.next.as_ref()?;
        Some((range.0, frozen.iter().map(|table| table.id()).collect()))
    }

    #[test]
    fn the_oldest_memtable_goes_first_with_all_of_its_range() {
        let (mut retries, now) = (Retries::default(), ThreadRuntime::new(&[]).now());
        let superversion = superversion(&[&[7, 4], &[], &[9, 3], &[5]]);
        let due = retries.due(&superversion, now, |_| true);
        assert_eq!(chosen(&due), Some((3, vec![9, 3])));
    }

    #[test]
    fn who_waits_is_passed_by() {
        let (mut retries, now) = (Retries::default(), ThreadRuntime::new(&[]).now());
        let superversion = superversion(&[&[1], &[2], &[3]]);
        let pause = retries.failed(RangeId(1), now, LONGEST);
        let no_room_in_2 = |range: &RangeVersion| range.id != RangeId(2);
        assert_eq!(chosen(&retries.due(&superversion, now, no_room_in_2)), Some((3, vec![3])));
        assert_eq!(chosen(&retries.due(&superversion, now, |_| true)), Some((2, vec![2])));
        let later = now + pause;
        assert_eq!(chosen(&retries.due(&superversion, later, no_room_in_2)), Some((1, vec![1])));
        let due = retries.due(&superversion, now, no_room_in_2);
        let waits = ForL0 { range: RangeId(2), full: vec![RangeId(2)], memtables: vec![2] };
        assert_eq!((due.until, due.for_l0), (Some(later), vec![waits]));
        let due = retries.due(&superversion, now, |_| false);
        assert!(due.next.is_none() && due.for_l0.len() == 3);
        retries.try_now(now);
        assert_eq!(chosen(&retries.due(&superversion, now, |_| true)), Some((1, vec![1])));
        retries.succeeded(RangeId(1));
        assert_eq!(chosen(&retries.due(&superversion, now, |_| true)), Some((1, vec![1])));
    }

    /// Goal: what hinders one of two ranges that share a memtable hinders the other one, and it is
    /// known which of the two it is.
    ///
    /// Planted: the range that is due is looked at alone.
    #[test]
    fn ranges_that_share_a_memtable_wait_for_each_other() {
        let (mut retries, now) = (Retries::default(), ThreadRuntime::new(&[]).now());
        let superversion = superversion(&[&[1], &[1], &[3]]);
        let no_room_in_2 = |range: &RangeVersion| range.id != RangeId(2);
        let due = retries.due(&superversion, now, no_room_in_2);
        assert_eq!(chosen(&due), Some((3, vec![3])));
        let waits = |range| ForL0 { range, full: vec![RangeId(2)], memtables: vec![1] };
        assert_eq!(due.for_l0, [waits(RangeId(1)), waits(RangeId(2))]);
        let pause = retries.failed(RangeId(1), now, LONGEST);
        let due = retries.due(&superversion, now, |_| true);
        assert_eq!((chosen(&due), due.until), (Some((3, vec![3])), Some(now + pause)));
    }

    #[test]
    fn nothing_is_kept_of_a_range_that_has_gone() {
        let (mut retries, now) = (Retries::default(), ThreadRuntime::new(&[]).now());
        retries.failed(RangeId(1), now, LONGEST);
        retries.failed(RangeId(9), now, LONGEST);
        retries.due(&superversion(&[&[1], &[2]]), now, |_| true);
        assert_eq!(retries.0.keys().collect::<Vec<_>>(), [&RangeId(1)]);
    }

    #[test]
    fn a_range_that_fails_again_waits_longer_than_one_that_fails_first() {
        let (mut retries, now) = (Retries::default(), ThreadRuntime::new(&[]).now());
        let first = retries.failed(RangeId(1), now, LONGEST);
        assert!(retries.failed(RangeId(1), now, LONGEST) > first);
        assert_eq!(retries.failed(RangeId(2), now, LONGEST), first);
    }
}
