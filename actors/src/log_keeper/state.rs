//! Which obsolete segments are kept to be recycled. No I/O in here.

use sluicedb_storage::wal::SealedSegment;

/// The bound in bytes on segments kept for recycling, in write buffers.
pub(super) const RECYCLED_WRITE_BUFFERS_MAX: u64 = 1;

/// Obsolete segments that are kept for recycling: as many as the bound allows, while writes go on.
/// The log is about as long as the write buffer, so a flush makes at most that much of it obsolete,
/// and the next writes want as much. A new segment would cost fresh blocks, fresh pages of the page
/// cache, and zeros. A database that gets little memory does not keep much disk either.
#[derive(Debug, Default)]
pub(super) struct Recycling {
    obsolete: Vec<SealedSegment>,
}

impl Recycling {
    pub(super) fn add(&mut self, retired: Vec<SealedSegment>) {
        self.obsolete.extend(retired);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.obsolete.is_empty()
    }

    /// Takes all of them. Nothing is written that could use them.
    pub(super) fn take_all(&mut self) -> Vec<SealedSegment> {
        std::mem::take(&mut self.obsolete)
    }

    /// Takes one of this size, if there is one: the newest, whose pages are the likeliest to be in
    /// memory.
    pub(super) fn take(&mut self, bytes: u64) -> Option<SealedSegment> {
        let index = self.obsolete.iter().rposition(|old| old.bytes == bytes)?;
        Some(self.obsolete.remove(index))
    }

    /// Takes the segments beyond the bound, the oldest first, and those of other sizes. One of the
    /// usual size may always stay.
    pub(super) fn take_surplus(&mut self, usual_bytes: u64, bytes_max: u64) -> Vec<SealedSegment> {
        let (keep, mut surplus): (Vec<_>, Vec<_>) = std::mem::take(&mut self.obsolete)
            .into_iter()
            .partition(|old| old.bytes == usual_bytes);
        self.obsolete = keep;
        let kept = (bytes_max / usual_bytes).max(1) as usize;
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

    /// Planted: no bound in bytes; a bound in segments of any size; the newest go first.
    #[test]
    fn o6_segments_kept_for_recycling_are_bounded_in_bytes() {
        let mut recycling = Recycling::default();
        recycling.add(segments(1..101, 64));
        assert_eq!(recycling.take_surplus(64, 64 * 100).len(), 0);
        let surplus = recycling.take_surplus(64, 64 * 12 + 63);
        assert_eq!(surplus, segments(1..89, 64));
        assert!(recycling.take(32).is_none());
        assert_eq!(recycling.take(64).map(|old| old.number), Some(FileNumber(100)));
        assert_eq!(recycling.take_surplus(64, 64).len(), 10);
        assert_eq!(recycling.take_surplus(64, 1).len(), 0, "one stays");
        recycling.add(segments(101..102, 32));
        assert_eq!(recycling.take_surplus(64, 64).len(), 1, "the wrong size is of no use");
    }
}
