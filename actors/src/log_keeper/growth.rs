//! How large the next segment is, and how many are kept ready. The aim is that a segment lasts
//! about a second. No I/O in here.

use std::time::{Duration, Instant};

/// Size of the first segment of a log, and of the first one after an idle time.
pub(crate) const FIRST_SEGMENT_BYTES: u64 = 512 << 10;
/// Size of a segment while the disk is full: there are deletes to log and no space to waste.
pub(crate) const FULL_DISK_SEGMENT_BYTES: u64 = 16 << 10;
/// How long a segment should last. Preparing one takes two syncs.
const LASTS: Duration = Duration::from_secs(1);
/// Growth of the next segment when the pace would fill more than the newest one in a second.
const FACTOR: u64 = 2;
/// Growth when writers had to wait for the segment, or when the pace would fill this many of the
/// newest size in a second. Smaller steps would mean more segments, each of which may be late.
const LATE_FACTOR: u64 = 8;
/// The next segment is half as large when the pace would fill at most this part of the newest one.
const SHRINK: u64 = 4;
/// Segments are zeroed if the log was synced at least this often between two looks at the pace.
const SYNCS_OFTEN: u64 = 16;

/// Totals of a log since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Logged {
    pub(super) bytes: u64,
    pub(super) syncs: u64,
}

/// The size of segments. It follows the pace of the writes in steps; see the module.
#[derive(Debug)]
pub(super) struct Growth {
    max: u64,
    /// The size of the newest segment.
    bytes: u64,
    /// When the totals were last read, and what they were. `None` at the beginning of the log, and
    /// after an idle time.
    seen: Option<(Instant, Logged)>,
    /// Bytes in a second. `None` while that is unknown.
    pace: Option<u64>,
    synced_often: bool,
}

impl Growth {
    /// A log that has just begun. No segment is larger than `max`.
    pub(super) fn new(max: u64) -> Self {
        let bytes = FIRST_SEGMENT_BYTES.min(max);
        Self { max, bytes, seen: None, pace: None, synced_often: false }
    }

    /// Measures the pace of the log.
    pub(super) fn look(&mut self, now: Instant, logged: Logged) {
        let Some((then, before)) = self.seen else {
            self.seen = Some((now, logged));
            return;
        };
        let bytes = logged.bytes - before.bytes;
        // Too little was written to tell a pace.
        if bytes < self.bytes / 4 {
            return;
        }
        let nanos = now.saturating_duration_since(then).as_nanos().max(1);
        let pace = u128::from(bytes) * LASTS.as_nanos() / nanos;
        self.pace = Some(u64::try_from(pace).unwrap_or(u64::MAX));
        self.synced_often = logged.syncs - before.syncs >= SYNCS_OFTEN;
        self.seen = Some((now, logged));
    }

    /// The size of the next segment. `late`: writers wait for it.
    pub(super) fn next(&self, late: bool) -> u64 {
        let smallest = FIRST_SEGMENT_BYTES.min(self.max);
        let far = self.pace.is_some_and(|pace| pace / LATE_FACTOR >= self.bytes);
        let more = self.bytes.saturating_mul(if late || far { LATE_FACTOR } else { FACTOR });
        let less = self.bytes.next_power_of_two() / 2;
        match self.pace {
            None => more,
            Some(pace) if pace > self.bytes => more,
            Some(pace) if pace <= self.bytes / SHRINK => less,
            Some(_) => self.bytes,
        }
        .clamp(smallest, self.max)
    }

    /// A segment was prepared while this was the usual size.
    pub(super) fn made(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    /// The size of the newest segment.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many segments should be ready beside the current one: one, or two if one would not last
    /// a second.
    pub(super) fn spares_max(&self) -> usize {
        1 + usize::from(self.pace.is_some_and(|pace| pace >= self.bytes))
    }

    /// Should the next segment be zeroed? Zeros make syncs faster, because a sync of fresh blocks
    /// is slow. A log that is seldom synced does not need them.
    pub(super) fn zeroed(&self) -> bool {
        self.synced_often
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    struct Writer {
        growth: Growth,
        now: Instant,
        logged: Logged,
    }

    impl Writer {
        fn new() -> Self {
            #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
            let now = Instant::now();
            let mut growth = Growth::new(64 * MIB);
            growth.look(now, Logged::default());
            Self { growth, now, logged: Logged::default() }
        }

        /// Fills the newest segment at this pace.
        fn fill_one(&mut self, bytes_per_second: u64, syncs: u64) -> u64 {
            let bytes = self.growth.bytes();
            self.now += Duration::from_secs(1).mul_f64(bytes as f64 / bytes_per_second as f64);
            self.logged.bytes += bytes;
            self.logged.syncs += syncs;
            self.growth.look(self.now, self.logged);
            let next = self.growth.next(false);
            self.growth.made(next);
            next
        }
    }

    /// Planted: the size only rises; the size halves as soon as a segment lasts longer than a
    /// second.
    #[test]
    fn a_segment_lasts_about_a_second_at_whatever_pace() {
        let mut writer = Writer::new();
        let sizes: Vec<u64> = (0..9).map(|_| writer.fill_one(100 * MIB, 1)).collect();
        let grown = [4, 32, 64, 64, 64, 64, 64, 64, 64].map(|mib| mib * MIB);
        assert_eq!(sizes, grown);
        assert_eq!(writer.growth.spares_max(), 2);
        let mut slower = Writer::new();
        let sizes: Vec<u64> = (0..4).map(|_| slower.fill_one(3 * MIB, 1)).collect();
        assert_eq!(sizes, [1, 2, 4, 4].map(|mib| mib * MIB));
        // A little slower: the size stays, so that segments can be recycled.
        assert_eq!(writer.fill_one(20 * MIB, 1), 64 * MIB);
        assert_eq!(writer.growth.spares_max(), 1);
        let last = (0..9).map(|_| writer.fill_one(5 * MIB, 1)).last();
        assert_eq!(last, Some(16 * MIB), "a quarter is filled in a second");
        let last = (0..9).map(|_| writer.fill_one(1_000, 1)).last();
        assert_eq!(last, Some(FIRST_SEGMENT_BYTES));
    }

    /// Planted: growth without a look at the pace; a pace computed from too few bytes.
    #[test]
    fn writers_who_wait_are_caught_up_with_and_a_large_write_alone_is_no_pace() {
        let mut writer = Writer::new();
        assert_eq!(writer.growth.next(false), MIB, "how fast it goes is not known yet");
        assert_eq!(writer.growth.next(true), 4 * MIB);
        writer.fill_one(1_000, 1);
        assert_eq!(writer.growth.next(true), FIRST_SEGMENT_BYTES);
        writer.now += Duration::from_nanos(1);
        writer.logged.bytes += FIRST_SEGMENT_BYTES / 8;
        writer.growth.look(writer.now, writer.logged);
        assert_eq!(writer.growth.next(false), FIRST_SEGMENT_BYTES);
    }

    #[test]
    fn only_a_log_that_is_synced_often_gets_zeros() {
        let mut writer = Writer::new();
        assert!(!writer.growth.zeroed());
        writer.fill_one(MIB, SYNCS_OFTEN);
        assert!(writer.growth.zeroed());
        writer.fill_one(MIB, 2);
        assert!(!writer.growth.zeroed());
    }

    /// Planted: a size that is not a whole number of pages.
    #[test]
    fn every_size_is_whole_pages_within_the_options() {
        for max in [64 << 10, 100 << 12, 513 << 12, 64 * MIB + 4096] {
            let mut growth = Growth::new(max);
            for pace in [u64::MAX, 0].into_iter().flat_map(|pace| [pace; 12]) {
                growth.pace = Some(pace);
                growth.made(growth.next(false));
                let bytes = growth.bytes();
                assert!(bytes.is_multiple_of(4096) && bytes <= max, "{bytes} of {max}");
                assert!(pace > 0 || bytes >= FIRST_SEGMENT_BYTES.min(max));
            }
            assert_eq!(growth.bytes(), FIRST_SEGMENT_BYTES.min(max));
        }
    }
}
