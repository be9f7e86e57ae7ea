//! Writes one data block. The parent module describes the format.

use super::{HEADER_BYTES, tag};
use crate::codec::{VARINT_BYTES_MAX, write_varint};
use crate::key::{Kind, Seqno, common_prefix_len};
use crate::limits::SEQNO_MAX;

/// Collects entries in ascending key order and encodes them as a block. It is reused for all blocks
/// of a table, so that an entry allocates nothing.
#[derive(Debug)]
pub(crate) struct BlockBuilder {
    entries: Vec<u8>,
    offsets: Vec<u32>,
    seqnos: Vec<u64>,
    tags: Vec<u8>,
    restart_key: Vec<u8>,
    restart_interval: usize,
}

impl BlockBuilder {
    /// `restart_interval` is a power of two from 1 to 128.
    pub(crate) fn new(restart_interval: usize) -> Self {
        assert!(restart_interval.is_power_of_two() && restart_interval <= 128);
        Self {
            entries: Vec::new(),
            offsets: Vec::new(),
            seqnos: Vec::new(),
            tags: Vec::new(),
            restart_key: Vec::new(),
            restart_interval,
        }
    }

    /// Has nothing been added since the last `clear`?
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// An estimate of the block's size if it ended now. It is an upper bound, except that it
    /// assumes sequence numbers of four bytes.
    #[inline]
    pub(crate) fn estimated_bytes(&self) -> usize {
        self.entries.len() + self.offsets.len() * (2 + 4 + 1) + HEADER_BYTES
    }

    /// Adds an entry. Keys must ascend strictly; the table builder checks that.
    #[inline]
    pub(crate) fn add(&mut self, key: &[u8], hash: u64, seqno: Seqno, kind: Kind, value: &[u8]) {
        let shared = if self.offsets.len() & (self.restart_interval - 1) == 0 {
            self.restart_key.clear();
            self.restart_key.extend_from_slice(key);
            0
        } else {
            common_prefix_len(&self.restart_key, key)
        };
        self.offsets.push(self.entries.len() as u32);
        self.seqnos.push(seqno.0);
        self.tags.push(tag(hash));
        let unshared = (key.len() - shared) as u64;
        let mut head = [0; 2 * VARINT_BYTES_MAX];
        let first = write_varint(&mut head, shared as u64);
        let second = write_varint(&mut head[first..], unshared << 1 | kind as u64);
        self.entries.extend_from_slice(&head[..first + second]);
        self.entries.extend_from_slice(&key[shared..]);
        self.entries.extend_from_slice(value);
    }

    /// Appends the raw block to `out`.
    pub(crate) fn finish(&self, out: &mut Vec<u8>) {
        let count = self.offsets.len();
        assert!(count > 0, "a block without entries is never written");
        assert!(u32::try_from(self.entries.len()).is_ok(), "limits keep an entry below 4 GiB");
        // The last offset decides the width, not the end: a long value may follow it.
        let last = self.offsets.last().copied().unwrap_or_default();
        let offset_bytes = if u16::try_from(last).is_ok() { 2 } else { 4 };
        let (base, seqno_bytes) = seqno_column(&self.seqnos);

        out.reserve(HEADER_BYTES + count * (1 + offset_bytes + seqno_bytes) + self.entries.len());
        out.extend_from_slice(&(count as u32).to_le_bytes());
        let shift = self.restart_interval.trailing_zeros() as u8;
        out.extend_from_slice(&[shift, offset_bytes as u8, seqno_bytes as u8, 0]);
        out.extend_from_slice(&base.to_le_bytes());
        out.extend_from_slice(&self.tags);
        for (offset, seqno) in self.offsets.iter().zip(&self.seqnos) {
            let cell = u128::from(*offset) | u128::from(seqno - base) << (8 * offset_bytes);
            out.extend_from_slice(&cell.to_le_bytes()[..offset_bytes + seqno_bytes]);
        }
        out.extend_from_slice(&self.entries);
    }

    /// Removes all entries and keeps the allocations.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.offsets.clear();
        self.seqnos.clear();
        self.tags.clear();
    }
}

/// The base and the width of the column of `seqnos`. The base is lowered if necessary, so that no
/// cell of that width, whatever its bytes, can exceed `SEQNO_MAX`.
fn seqno_column(seqnos: &[u64]) -> (u64, usize) {
    let (min, max) = seqnos.iter().fold((u64::MAX, 0), |(min, max), &s| (min.min(s), max.max(s)));
    let width = (64 - (max - min).leading_zeros() as usize).div_ceil(8);
    let cell_max = (1_u64 << (8 * width)) - 1;
    (min.min(SEQNO_MAX - cell_max), width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seqno_columns_are_as_wide_as_needed() {
        assert_eq!(seqno_column(&[9]), (9, 0));
        assert_eq!(seqno_column(&[9, 9, 10]), (9, 1));
        assert_eq!(seqno_column(&[300, 44]), (44, 2));
        assert_eq!(seqno_column(&[0, SEQNO_MAX]), (0, 7));
        assert_eq!(seqno_column(&[SEQNO_MAX]), (SEQNO_MAX, 0));
        assert_eq!(seqno_column(&[SEQNO_MAX - 1, SEQNO_MAX]), (SEQNO_MAX - 255, 1));
    }
}
