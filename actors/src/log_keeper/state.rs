//! Which obsolete segments are kept to be recycled. No I/O in here.

use sluicedb_storage::wal::SealedSegment;

/// At least this many obsolete segments are kept for recycling, if they fit the bound in bytes.
const RECYCLED_MIN: usize = 2;
/// The bound in bytes on segments kept for recycling, in write buffers.
pub(super) const RECYCLED_WRITE_BUFFERS_MAX: u64 = 2;

/// Obsolete segments that are kept for recycling. Their number is how many were prepared between
/// the last two times that segments became obsolete: that many will be wanted until the next time,
/// and zeroing a new one would write all of it. Their bytes are bounded by the write buffer: a
/// database that gets little memory should not keep much disk either.
#[derive(Debug, Default)]
pub(super) struct Recycling {
    obsolete: Vec<SealedSegment>,
    pub(super) prepared_since: usize,
    kept_max: usize,
}

impl Recycling {
    pub(super) fn add(&mut self, retired: Vec<SealedSegment>) {
        if !retired.is_empty() {
            self.kept_max = std::mem::take(&mut self.prepared_since);
            self.obsolete.extend(retired);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.obsolete.is_empty()
    }

    /// Takes all of them. Nothing is written that could use them.
    pub(super) fn take_all(&mut self) -> Vec<SealedSegment> {
        (self.prepared_since, self.kept_max) = (0, 0);
        std::mem::take(&mut self.obsolete)
    }

    /// Takes one of this size, if there is one.
    pub(super) fn take(&mut self, bytes: u64) -> Option<SealedSegment> {
        let index = self.obsolete.iter().position(|old| old.bytes == bytes)?;
        Some(self.obsolete.swap_remove(index))
    }

    /// Takes the segments beyond the bounds, and those of other sizes. One of the usual size may
    /// always stay.
    pub(super) fn take_surplus(&mut self, usual_bytes: u64, bytes_max: u64) -> Vec<SealedSegment> {
        let (keep, mut surplus): (Vec<_>, Vec<_>) = std::mem::take(&mut self.obsolete)
            .into_iter()
            .partition(|old| old.bytes == usual_bytes);
        self.obsolete = keep;
        let fitting = (bytes_max / usual_bytes).max(1) as usize;
        let kept = self.kept_max.max(RECYCLED_MIN).min(fitting);
        let more = self.obsolete.len().saturating_sub(kept);
        surplus.extend(self.obsolete.drain(..more));
        surplus
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicedb_storage::filename::FileNumber;
    use sluicedb_storage::key::Seqno;

    const MANY: u64 = u64::MAX;

    fn segments(numbers: std::ops::Range<u64>, bytes: u64) -> Vec<SealedSegment> {
        let seqno = Seqno::ZERO;
        let segment = |number| SealedSegment {
            number: FileNumber(number),
            path: format!("{number}.wal").into(),
            first_seqno: seqno,
            last_seqno: seqno,
            bytes,
        };
        numbers.map(segment).collect()
    }

    /// Planted: `kept_max` only rises; `kept_max` is not remembered.
    #[test]
    fn as_many_segments_are_kept_as_were_used_up_before() {
        let mut recycling = Recycling { prepared_since: 5, ..Recycling::default() };
        recycling.add(segments(1..7, 64));
        assert_eq!(recycling.take_surplus(64, MANY).len(), 1);
        recycling.add(Vec::new());
        assert_eq!(
            recycling.take_surplus(64, MANY).len(),
            0,
            "nothing became obsolete: the rule stays"
        );
        assert!(recycling.take(64).is_some() && recycling.take(32).is_none());
        recycling.prepared_since += 1;
        recycling.add(segments(7..8, 64));
        assert_eq!(recycling.take_surplus(64, MANY).len(), 3, "two stay in any case");
        recycling.add(segments(8..9, 32));
        assert_eq!(recycling.take_surplus(64, MANY).len(), 1, "the wrong size is of no use");
        assert_eq!(recycling.obsolete.len(), RECYCLED_MIN);
    }

    /// Planted: no bound in bytes; a bound in segments of any size.
    #[test]
    fn o6_segments_kept_for_recycling_are_bounded_in_bytes() {
        let mut recycling = Recycling { prepared_since: 100, ..Recycling::default() };
        recycling.add(segments(1..101, 64));
        assert_eq!(recycling.take_surplus(64, MANY).len(), 0, "as many as were used up");
        assert_eq!(recycling.take_surplus(64, 64 * 12 + 63).len(), 88);
        assert_eq!(recycling.take_surplus(64, 64).len(), 11);
        assert_eq!(recycling.take_surplus(64, 1).len(), 0, "one stays");
    }
}
