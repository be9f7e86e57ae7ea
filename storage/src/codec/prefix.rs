//! The CRC-32 of any part of some bytes, at a small cost that does not depend on the part's length.
//!
//! The checksum of a part follows from those of the two prefixes that end at its bounds. Prefixes
//! are kept at regular intervals; for any other prefix the caller passes the bytes since the last
//! interval. This is for readers that search for records in bytes that may have been made to look
//! like many long ones.

use super::{crc, crc_seeded};
use crc32fast::Hasher;

/// The shortest interval.
const STEP_BYTES_MIN: u64 = 512;
/// About the most prefixes that are kept, of 4 bytes each.
const MARKS_MAX: u64 = 1 << 20;

/// Checksums of the prefixes of bytes, which are appended once, in order.
#[derive(Debug)]
pub struct PrefixCrcs {
    step: u64,
    bytes: u64,
    all: Hasher,
    /// The checksums of the prefixes of 0, 1, 2, ... intervals.
    marks: Vec<u32>,
}

impl PrefixCrcs {
    /// Checksums for `bytes` bytes in all.
    pub fn new(bytes: u64) -> Self {
        let step = bytes.div_ceil(MARKS_MAX).next_power_of_two().max(STEP_BYTES_MIN);
        Self { step, bytes: 0, all: Hasher::new(), marks: vec![crc(&[])] }
    }

    /// Appends the next bytes.
    pub fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.step - self.bytes % self.step;
            let (now, later) = bytes.split_at(bytes.len().min(room as usize));
            self.all.update(now);
            self.bytes += now.len() as u64;
            if self.bytes.is_multiple_of(self.step) {
                self.marks.push(self.all.clone().finalize());
            }
            bytes = later;
        }
    }

    /// The start of the interval that contains the end of the prefix of `end` bytes.
    pub fn mark_before(&self, end: u64) -> u64 {
        end - end % self.step
    }

    /// The checksum of the first `end` bytes. `since` must be the bytes from `mark_before(end)` to
    /// `end`.
    pub fn upto(&self, end: u64, since: &[u8]) -> u32 {
        debug_assert!(end <= self.bytes && since.len() as u64 == end % self.step);
        crc_seeded(self.marks[(end / self.step) as usize], since)
    }
}

/// The CRC-32, continued from `seed`, of the last `len` bytes of a prefix. `upto` is the checksum
/// of the whole prefix, and `before` is the checksum of the prefix without those bytes.
pub fn crc_between(seed: u32, before: u32, upto: u32, len: u64) -> u32 {
    if len == 0 {
        return seed;
    }
    // CRC is linear. Both the seed and `before` pass through the part as if it were zeros, and the
    // checksum of a sum is the sum of the checksums.
    let mut outside = Hasher::new_with_initial(seed ^ before);
    outside.combine(&Hasher::new_with_initial_len(upto, len));
    outside.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planted: the seed is left out; a mark is taken after the interval; intervals do not add up.
    #[test]
    fn the_checksum_of_any_part_is_that_of_its_bytes() {
        let bytes: Vec<u8> =
            (0..5000_u32).map(|n| (n.wrapping_mul(0x9E37_79B1) >> 13) as u8).collect();
        for declared in [bytes.len() as u64, 3000 << 20] {
            let mut prefixes = PrefixCrcs::new(declared);
            for piece in bytes.chunks(700) {
                prefixes.append(piece);
            }
            let upto = |end: usize| {
                let mark = prefixes.mark_before(end as u64) as usize;
                prefixes.upto(end as u64, &bytes[mark..end])
            };
            let edges = [0, 1, 7, 511, 512, 513, 1024, 2500, 4095, 4096, 4097, 4999, 5000];
            for (i, &from) in edges.iter().enumerate() {
                for &to in &edges[i..] {
                    for seed in [0, 1, 0xDEAD_BEEF] {
                        let found = crc_between(seed, upto(from), upto(to), (to - from) as u64);
                        assert_eq!(
                            found,
                            crc_seeded(seed, &bytes[from..to]),
                            "{from}..{to}, {seed}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_prefixes_of_the_longest_log_segment_take_little_memory() {
        let prefixes = PrefixCrcs::new(32 << 30);
        assert_eq!((32 << 30) / prefixes.step, MARKS_MAX);
    }
}
