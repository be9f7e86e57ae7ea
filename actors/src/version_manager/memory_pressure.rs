//! What to seal when somebody waits for room. Pure, no I/O.

use super::install::GROUP_INSTALLS_MAX;
use sluicedb_storage::key::Seqno;
use std::cmp::Reverse;

/// A range, as far as the choice needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Where it is, by position.
    pub(super) at: usize,
    /// Charge of its active memtable, if that may be sealed.
    pub(super) active_bytes: usize,
    /// Sequence number of its oldest entry.
    pub(super) oldest: Option<Seqno>,
    /// How many sealed memtables it has.
    pub(super) sealed: usize,
    /// Charge of these.
    pub(super) sealed_bytes: usize,
    /// Can the flush worker flush it now? Not with a full L0, and not after a failure, of this
    /// range or of one that shares a memtable with it.
    pub(super) can_flush: bool,
}

/// What to do for those who wait for room in the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RoomPlan {
    /// Nothing. Flushes are due that will make room. Choose again after them.
    FlushIsDue,
    /// Seal the active memtables of the ranges at these positions.
    Seal(Vec<usize>),
    /// Nothing. No memtable that can be sealed could be flushed.
    Nothing,
}

/// Seals memtables until `enough_bytes` are sealed, as many as are flushed together: the largest of
/// those that can be flushed, and of equal ones the one with the oldest entry. So cold, half-full
/// memtables starve nobody, and many waiters do not cut everything into tiny tables. Ranges that
/// cannot be flushed now are skipped, because sealing them, or waiting for what they have sealed,
/// does not help.
pub(super) fn choose(candidates: impl Iterator<Item = Candidate>, enough_bytes: usize) -> RoomPlan {
    let mut candidates: Vec<_> = candidates.filter(|candidate| candidate.can_flush).collect();
    let mut sealed_bytes = candidates.iter().map(|candidate| candidate.sealed_bytes).sum();
    candidates.sort_by_key(|candidate| (Reverse(candidate.active_bytes), candidate.oldest));
    let sealed = candidates.iter().map(|candidate| candidate.sealed).sum();
    let mut chosen = Vec::new();
    for candidate in candidates.iter().take(GROUP_INSTALLS_MAX.saturating_sub(sealed)) {
        if sealed_bytes >= enough_bytes || candidate.active_bytes == 0 {
            break;
        }
        sealed_bytes += candidate.active_bytes;
        chosen.push(candidate.at);
    }
    match (chosen.is_empty(), sealed_bytes) {
        (false, _) => RoomPlan::Seal(chosen),
        (true, 0) => RoomPlan::Nothing,
        (true, _) => RoomPlan::FlushIsDue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(at: usize, active_bytes: usize, oldest: u64) -> Candidate {
        let oldest = Some(Seqno(oldest));
        Candidate { at, active_bytes, oldest, sealed: 0, sealed_bytes: 0, can_flush: true }
    }

    fn seal(ranges: &[usize]) -> RoomPlan {
        RoomPlan::Seal(ranges.to_vec())
    }

    #[test]
    fn the_largest_is_sealed_and_of_equal_ones_the_oldest() {
        let ranges = [range(1, 10, 1), range(2, 30, 9), range(3, 30, 7), range(4, 0, 0)];
        assert_eq!(choose(ranges.into_iter(), 1), seal(&[3]));
        assert_eq!(choose([range(4, 0, 0)].into_iter(), 1), RoomPlan::Nothing);
    }

    /// Planted: it seals what it finds, however much is sealed already, or however many.
    #[test]
    fn as_much_is_sealed_as_is_flushed_together() {
        let flushing = Candidate { sealed: 1, sealed_bytes: 20, ..range(1, 5, 1) };
        let ranges = [range(2, 30, 9), flushing, range(3, 7, 3)];
        assert_eq!(choose(ranges.into_iter(), 20), RoomPlan::FlushIsDue);
        assert_eq!(choose(ranges.into_iter(), 21), seal(&[2]));
        assert_eq!(choose(ranges.into_iter(), 51), seal(&[2, 3]));
        assert_eq!(choose(ranges.into_iter(), 999), seal(&[2, 3, 1]));
        let mut many: Vec<_> = (0..99).map(|at| range(at, 2, 1)).collect();
        let all = |plan| matches!(plan, RoomPlan::Seal(all) if all.len() == GROUP_INSTALLS_MAX);
        assert!(all(choose(many.iter().copied(), 999)));
        for sealed in &mut many[..GROUP_INSTALLS_MAX] {
            (sealed.sealed, sealed.sealed_bytes) = (1, 1);
        }
        assert_eq!(choose(many.into_iter(), 999), RoomPlan::FlushIsDue);
    }

    /// The hazard of memory shared by ranges: nobody seals the memtables that hold all of it,
    /// because another range has sealed memtables already, and those cannot be flushed.
    #[test]
    fn what_cannot_be_flushed_is_no_relief() {
        let stuck = Candidate { sealed: 1, sealed_bytes: 9, can_flush: false, ..range(1, 90, 1) };
        let full = Candidate { can_flush: false, ..range(2, 80, 2) };
        let ranges = [stuck, full, range(3, 5, 3), range(4, 4, 4)];
        assert_eq!(choose(ranges.into_iter(), 5), seal(&[3]));
        assert_eq!(choose([stuck, full].into_iter(), 5), RoomPlan::Nothing);
    }
}
