//! The elements of every format: little-endian integers, LEB128 varints and seeded checksums.

#[cfg(test)]
pub(crate) mod extremes;
mod prefix;

pub use prefix::{PrefixCrcs, crc_between};

/// The length of the longest varint of a `u64`.
pub const VARINT_BYTES_MAX: usize = 10;

/// Appends `value` as a LEB128 varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes `value` as a varint at the start of `out`. Returns its length.
///
/// # Panics
/// If `out` is too short; `VARINT_BYTES_MAX` bytes always suffice.
#[inline]
pub fn write_varint(out: &mut [u8], mut value: u64) -> usize {
    let mut at = 0;
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

/// Reads untrusted bytes. Every step is checked, and returns `None` if the bytes are not there.
#[derive(Clone, Copy, Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    /// A reader at the first byte.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The number of bytes read.
    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }

    /// The number of bytes left.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Have all bytes been read?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// The next `count` bytes.
    #[inline]
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let slice = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(slice)
    }

    /// The next byte.
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// A little-endian `u16`.
    #[inline]
    pub fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
    }

    /// A little-endian `u32`.
    #[inline]
    pub fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// A little-endian `u64`.
    #[inline]
    pub fn u64(&mut self) -> Option<u64> {
        let bytes: [u8; 8] = self.take(8)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// A varint; also `None` if it does not fit into a `u64`.
    #[inline(always)]
    pub fn varint(&mut self) -> Option<u64> {
        let first = self.u8()?;
        if first < 0x80 { Some(u64::from(first)) } else { self.long_varint(first) }
    }

    fn long_varint(&mut self, first: u8) -> Option<u64> {
        let mut value = u64::from(first & 0x7F);
        let mut shift = 7;
        loop {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(value);
            }
            shift += 7;
            if shift > 63 {
                return None;
            }
        }
    }

    /// A varint length followed by that many bytes.
    #[inline]
    pub fn length_prefixed(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        self.take(length)
    }
}

/// Appends a varint length and the bytes.
pub fn put_length_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// CRC-32 (IEEE) of `bytes`.
#[inline]
pub fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The CRC-32 of `bytes`, continued from `seed`. The seed depends on the file and the offset, so
/// equal bytes of another file, or at another offset, do not pass.
#[inline]
pub fn crc_seeded(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// The 64-bit hash that formats may store (XXH3 with the default seed).
#[inline]
pub fn hash64(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_survive_a_round_trip() {
        let mut values = vec![0, 1, 127, 128, 16_383, 16_384, u64::MAX - 1, u64::MAX];
        values.extend((0..64).map(|bit| 1_u64 << bit));
        for value in values {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let bits = 64 - (value | 1).leading_zeros() as usize;
            assert_eq!(out.len(), bits.div_ceil(7), "{value}");
            let mut fixed = [0; VARINT_BYTES_MAX];
            assert_eq!(write_varint(&mut fixed, value), out.len());
            assert_eq!(&fixed[..out.len()], &out[..]);
            let mut reader = Decoder::new(&out);
            assert_eq!(reader.varint(), Some(value));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn varints_that_overflow_or_end_early_are_refused() {
        assert_eq!(Decoder::new(&[0x80]).varint(), None);
        assert_eq!(Decoder::new(&[]).varint(), None);
        assert_eq!(Decoder::new(&[0xFF; 10]).varint(), None);
        let mut too_large = [0xFF; 10];
        too_large[9] = 2;
        assert_eq!(Decoder::new(&too_large).varint(), None);
    }

    #[test]
    fn lengths_beyond_the_end_are_refused() {
        assert_eq!(Decoder::new(&[5, 1, 2]).length_prefixed(), None);
        assert_eq!(Decoder::new(&[2, 1, 2]).length_prefixed(), Some(&[1, 2][..]));
        assert_eq!(Decoder::new(&[1, 2]).u32(), None);
    }

    #[test]
    fn a_seed_changes_the_checksum() {
        assert_ne!(crc_seeded(1, b"abc"), crc_seeded(2, b"abc"));
    }
}
