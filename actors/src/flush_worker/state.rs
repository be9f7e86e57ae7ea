//! Which ranges are flushed next. No I/O in here.

use crate::failure::backoff::Retry;
use crate::version_manager::GROUP_INSTALLS_MAX;
use sluicedb_storage::version::{RangeId, RangeVersion};
use sluicedb_storage::view::{MemtableSlice, RangeEntry, Superversion};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What is due.
#[derive(Debug)]
pub(super) struct Due<O> {
    /// The flushes to do now, the one with the oldest memtable first. No range is in two of them.
    pub(super) group: Vec<Next<O>>,
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

/// A flush to do now.
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
    /// Chooses the ranges with the oldest frozen memtables, the oldest first: as many as have
    /// `bytes_max` bytes of them, or one. A range that waits for room in L0, or for its retry, is
    /// passed over. It delays only those that share a memtable with it. No range starves: what is
    /// frozen later has a higher number. Forgets ranges that are gone.
    /// INVARIANT(parent-drains-first): all ranges that share a memtable are flushed together.
    /// INVARIANT(ahead-waits): older memtables go first.
    pub(super) fn due<O: Clone>(
        &mut self,
        superversion: &Superversion<O>,
        now: Instant,
        l0_has_room: impl Fn(&RangeVersion) -> bool,
        bytes_max: usize,
    ) -> Due<O> {
        self.0.retain(|range, _| superversion.range(*range).is_some());
        let mut due = Due { group: Vec::new(), until: None, for_l0: Vec::new() };
        let mut ready = Vec::new();
        let holders = superversion.holders();
        for entry in &superversion.ranges {
            let frozen = entry.sealed.iter().filter(|table| table.is_frozen());
            let mut frozen: Vec<MemtableSlice> = frozen.cloned().collect();
            let range = entry.id();
            let at = |table: &MemtableSlice| holders.get(&table.id()).into_iter().flatten();
            let sharing: BTreeSet<usize> = frozen.iter().flat_map(at).copied().collect();
            let ranges = || sharing.iter().map(|at| &superversion.ranges[*at]);
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
            } else {
                ready.push((age, range, sharing, frozen));
            }
        }
        ready.sort_by_key(|(age, ..)| *age);
        let (mut taken, mut bytes) = (BTreeSet::new(), 0);
        for (_, range, sharing, mut frozen) in ready {
            // Its turn comes after the flush that has one of its ranges.
            let waits = sharing.iter().any(|at| taken.contains(at));
            taken.extend(sharing.iter().copied());
            if waits {
                continue;
            }
            bytes += frozen.iter().map(|table| table.used_bytes()).sum::<usize>();
            let is_full = bytes > bytes_max || due.group.len() == GROUP_INSTALLS_MAX;
            if is_full && !due.group.is_empty() {
                break;
            }
            let ranges: Vec<_> =
                sharing.iter().map(|at| superversion.ranges[*at].clone()).collect();
            for table in &mut frozen {
                let slices = ranges.iter().flat_map(|range| &range.sealed);
                let same = slices.filter(|slice| slice.id() == table.id());
                *table = table.without(same.flat_map(MemtableSlice::cut_out));
            }
            due.group.push(Next { range, ranges, frozen });
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

    /// The flush with the oldest memtable.
    fn chosen(due: &Due<()>) -> Option<(u32, Vec<u64>)> {
        groups(due).into_iter().next()
    }

    /// The ranges that are due, with the ids of the memtables to flush.
    fn groups(due: &Due<()>) -> Vec<(u32, Vec<u64>)> {
        let ids = |next: &Next<()>| next.frozen.iter().map(|table| table.id()).collect();
        due.group.iter().map(|next| (next.range.0, ids(next))).collect()
    }

    #[test]
    fn the_oldest_memtable_goes_first_with_all_of_its_range() {
        let (mut retries, now) = (Retries::default(), ThreadRuntime::new(&[]).now());
        let superversion = superversion(&[&[7, 4], &[], &[9, 3], &[5]]);
        let due = retries.due(&superversion, now, |_| true, 1);
        assert_eq!(chosen(&due), Some((3, vec![9, 3])));
    }

    #[test]
    fn who_waits_is_passed_by() {
        let (mut retries, now) = (Retries::default(), ThreadRuntime::new(&[]).now());
        let superversion = superversion(&[&[1], &[2], &[3]]);
        let pause = retries.failed(RangeId(1), now, LONGEST);
        let no_room_in_2 = |range: &RangeVersion| range.id != RangeId(2);
        assert_eq!(chosen(&retries.due(&superversion, now, no_room_in_2, 1)), Some((3, vec![3])));
        assert_eq!(chosen(&retries.due(&superversion, now, |_| true, 1)), Some((2, vec![2])));
        let later = now + pause;
        assert_eq!(chosen(&retries.due(&superversion, later, no_room_in_2, 1)), Some((1, vec![1])));
        let due = retries.due(&superversion, now, no_room_in_2, 1);
        let waits = ForL0 { range: RangeId(2), full: vec![RangeId(2)], memtables: vec![2] };
        assert_eq!((due.until, due.for_l0), (Some(later), vec![waits]));
        let due = retries.due(&superversion, now, |_| false, 1);
        assert!(due.group.is_empty() && due.for_l0.len() == 3);
        retries.try_now(now);
        assert_eq!(chosen(&retries.due(&superversion, now, |_| true, 1)), Some((1, vec![1])));
        retries.succeeded(RangeId(1));
        assert_eq!(chosen(&retries.due(&superversion, now, |_| true, 1)), Some((1, vec![1])));
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
        let due = retries.due(&superversion, now, no_room_in_2, 1);
        assert_eq!(chosen(&due), Some((3, vec![3])));
        let waits = |range| ForL0 { range, full: vec![RangeId(2)], memtables: vec![1] };
        assert_eq!(due.for_l0, [waits(RangeId(1)), waits(RangeId(2))]);
        let pause = retries.failed(RangeId(1), now, LONGEST);
        let due = retries.due(&superversion, now, |_| true, 1);
        assert_eq!((chosen(&due), due.until), (Some((3, vec![3])), Some(now + pause)));
    }

    /// Planted: a range is in two flushes of the group; no bound in bytes.
    #[test]
    fn ranges_are_flushed_in_groups_of_bounded_size() {
        let (mut retries, now) = (Retries::default(), ThreadRuntime::new(&[]).now());
        let bytes = frozen(1).used_bytes();
        let ranges = superversion(&[&[4], &[6, 3], &[3, 1], &[2]]);
        let mut due = |bytes_max| groups(&retries.due(&ranges, now, |_| true, bytes_max));
        let (oldest, next, last) = ((3, vec![3, 1]), (4, vec![2]), (1, vec![4]));
        assert_eq!(due(0), vec![oldest.clone()], "one always goes");
        assert_eq!(due(3 * bytes - 1), vec![oldest.clone()]);
        assert_eq!(due(3 * bytes), [oldest.clone(), next.clone()]);
        assert_eq!(due(usize::MAX), [oldest, next, last], "2 is flushed with 3, and again later");
        let ids: Vec<_> = (1..=50).collect();
        let many = superversion(&ids.chunks(1).collect::<Vec<_>>());
        let due = retries.due(&many, now, |_| true, usize::MAX);
        assert_eq!(due.group.len(), GROUP_INSTALLS_MAX);
    }

    #[test]
    fn nothing_is_kept_of_a_range_that_has_gone() {
        let (mut retries, now) = (Retries::default(), ThreadRuntime::new(&[]).now());
        retries.failed(RangeId(1), now, LONGEST);
        retries.failed(RangeId(9), now, LONGEST);
        retries.due(&superversion(&[&[1], &[2]]), now, |_| true, 1);
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
