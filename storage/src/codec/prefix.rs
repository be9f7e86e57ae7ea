//! The CRC-32 of any part of some bytes, at the same small cost however long the part is.
//!
//! The checksum of a part follows from those of the two prefixes around it. Prefixes are kept at
//! intervals; one that ends inside an interval takes the bytes since the last one. For readers who
//! look for records in bytes that may be made to look like many long ones.

use super::{crc, crc_seeded};
use crc32fast::Hasher;

/// The shortest interval.
const STEP_BYTES_MIN: u64 = 512;
/// At most about so many prefixes are kept, of 4 bytes each.
const MARKS_MAX: u64 = 1 << 20;

/// Checksums of the prefixes of bytes that are handed in once, in order.
#[derive(Debug)]
pub struct PrefixCrcs {
    step: u64,
    bytes: u64,
    all: Hasher,
    /// Of no, one, two, ... intervals.
    marks: Vec<u32>,
}

impl PrefixCrcs {
    /// For so many bytes.
    pub fn new(bytes: u64) -> Self {
        let step = bytes.div_ceil(MARKS_MAX).next_power_of_two().max(STEP_BYTES_MIN);
        Self { step, bytes: 0, all: Hasher::new(), marks: vec![crc(&[])] }
    }

    /// Takes the next bytes.
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

    /// Where the interval in which the prefix of `end` bytes ends begins.
    pub fn mark_before(&self, end: u64) -> u64 {
        end - end % self.step
    }

    /// The checksum of the first `end` bytes; `since` are the last of them, from `mark_before(end)`
    /// on.
    pub fn upto(&self, end: u64, since: &[u8]) -> u32 {
        debug_assert!(end <= self.bytes && since.len() as u64 == end % self.step);
        crc_seeded(self.marks[(end / self.step) as usize], since)
    }
}

/// The CRC-32, continued from `seed`, of the `len` bytes by which the prefix with the checksum
/// `upto` is longer than the one with `before`.
pub fn crc_between(seed: u32, before: u32, upto: u32, len: u64) -> u32 {
    if len == 0 {
        return seed;
    }
    // Both the seed and what was before go through the part as so many zeros would; the sum of two
    // checksums is that of the sum.
    let mut outside = Hasher::new_with_initial(seed ^ before);
    outside.combine(&Hasher::new_with_initial_len(upto, len));
    outside.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planted: a seed that is left out; a mark after the interval; intervals that do not add up.
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
