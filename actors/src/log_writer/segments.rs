//! Which log segments a recovery may still need.

use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::wal::LogWriter;
use std::collections::VecDeque;

/// A segment that may still be needed.
#[derive(Clone, Copy, Debug)]
struct RetainedSegment {
    number: FileNumber,
    first_seqno: Seqno,
    bytes: u64,
}

/// All segments that may still be needed, oldest first. The last one is the current one.
#[derive(Debug)]
pub struct Segments(VecDeque<RetainedSegment>);

impl Segments {
    pub(super) fn beginning_with(log: &LogWriter, first_seqno: Seqno) -> Self {
        let mut segments = Self(VecDeque::new());
        segments.begin(log, first_seqno);
        segments
    }

    /// Adds the current segment of `log`, which is new. Its first entry has, or will have, this
    /// number.
    pub(super) fn begin(&mut self, log: &LogWriter, first_seqno: Seqno) {
        let (number, bytes) = (log.number(), log.segment_bytes());
        self.0.push_back(RetainedSegment { number, first_seqno, bytes });
    }

    /// How many segments a recovery would read.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The segment that holds, or will hold, `seqno`, and its first number.
    pub fn of(&self, seqno: Seqno) -> (FileNumber, Seqno) {
        let after = self.0.partition_point(|segment| segment.first_seqno <= seqno);
        let segment = &self.0[after.saturating_sub(1)];
        (segment.number, segment.first_seqno)
    }

    /// Bytes of the closed segments from `floor` on.
    pub fn retained_bytes(&self, floor: FileNumber) -> u64 {
        let closed = self.0.iter().rev().skip(1);
        closed.filter(|segment| segment.number >= floor).map(|segment| segment.bytes).sum()
    }

    /// The number that the first entry of the current segment has, or will have.
    pub fn current_first_seqno(&self) -> Seqno {
        self.0.back().expect("there is always a current segment").first_seqno
    }

    /// Forgets segments below `floor`.
    pub fn forget_below(&mut self, floor: FileNumber) {
        while self.0.len() > 1 && self.0[0].number < floor {
            self.0.pop_front();
        }
    }
}
