//! What to seal when somebody waits for room. Pure, no I/O.

use sluicedb_storage::key::Seqno;
use sluicedb_storage::version::RangeId;
use std::cmp::Reverse;

/// A range, as far as the choice needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Which.
    pub(super) range: RangeId,
    /// Charge of its active memtable.
    pub(super) active_bytes: usize,
    /// Sequence number of its oldest entry.
    pub(super) oldest: Option<Seqno>,
    /// Has it sealed memtables?
    pub(super) has_sealed: bool,
    /// Can the flush worker flush it now? Not with a full L0, and not after a failure, of this
    /// range or of one that shares a memtable with it.
    pub(super) can_flush: bool,
}

/// What to do for those who wait for room in the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoomPlan {
    /// Nothing. A flush is due that will make room. Choose again after it.
    FlushIsDue,
    /// Seal the active memtable of this range.
    Seal(RangeId),
    /// Nothing. No memtable that can be sealed could be flushed.
    Nothing,
}

/// Seals one memtable at a time: the largest of those that can be flushed, and of equal ones the
/// one with the oldest entry. So cold, half-full memtables starve nobody, and many waiters do not
/// cut everything into tiny tables. Ranges that cannot be flushed now are skipped, because sealing
/// them, or waiting for what they have sealed, does not help.
pub(super) fn choose(candidates: impl Iterator<Item = Candidate>) -> RoomPlan {
    let mut largest = None;
    for candidate in candidates.filter(|candidate| candidate.can_flush) {
        if candidate.has_sealed {
            return RoomPlan::FlushIsDue;
        }
        let rank = (candidate.active_bytes, Reverse(candidate.oldest));
        if candidate.active_bytes > 0 && largest.is_none_or(|(other, _)| rank > other) {
            largest = Some((rank, candidate.range));
        }
    }
    largest.map_or(RoomPlan::Nothing, |(_, range)| RoomPlan::Seal(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(id: u32, active_bytes: usize, oldest: u64) -> Candidate {
        let oldest = Some(Seqno(oldest));
        let range = RangeId(id);
        Candidate { range, active_bytes, oldest, has_sealed: false, can_flush: true }
    }

    #[test]
    fn the_largest_is_sealed_and_of_equal_ones_the_oldest() {
        let ranges = [range(1, 10, 1), range(2, 30, 9), range(3, 30, 7), range(4, 0, 0)];
        assert_eq!(choose(ranges.into_iter()), RoomPlan::Seal(RangeId(3)));
        assert_eq!(choose([range(4, 0, 0)].into_iter()), RoomPlan::Nothing);
    }

    #[test]
    fn one_flush_at_a_time_is_enough() {
        let flushing = Candidate { has_sealed: true, ..range(1, 5, 1) };
        assert_eq!(choose([range(2, 30, 9), flushing].into_iter()), RoomPlan::FlushIsDue);
    }

    /// The hazard of memory shared by ranges: nobody seals the memtables that hold all of it,
    /// because another range has sealed memtables already, and those cannot be flushed.
    #[test]
    fn what_cannot_be_flushed_is_no_relief() {
        let stuck = Candidate { has_sealed: true, can_flush: false, ..range(1, 90, 1) };
        let full = Candidate { can_flush: false, ..range(2, 80, 2) };
        let ranges = [stuck, full, range(3, 5, 3), range(4, 4, 4)];
        assert_eq!(choose(ranges.into_iter()), RoomPlan::Seal(RangeId(3)));
        assert_eq!(choose([stuck, full].into_iter()), RoomPlan::Nothing);
    }
}
