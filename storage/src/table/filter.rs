//! The filter: for most absent keys it says "absent" without a look at a data block.
//!
//! It is a blocked Bloom filter: the key's hash picks one 64-byte line, and then up to seven bits
//! inside that line. So a lookup costs one cache miss. "Absent" is certain, anything else means
//! "maybe". A filter that could not be read answers "maybe" for every key.
//!
//! ```text
//! section payload   probes u8 | 0 x 7 | lines u64 | lines x 64 bytes
//!                   (eight little-endian u64 each)
//! line              (hash * lines) >> 64
//! bit number i      (hash * SPREAD) >> (9 * i)  mod 512, for i in 0..probes
//! ```

use super::trailer::Flaw;
use crate::codec::Decoder;
use crate::give_way;

/// Bits in a line.
const LINE_BITS: usize = 512;
/// Bytes in a line.
const LINE_BYTES: usize = LINE_BITS / 8;
/// Each probe uses nine bits of one product; seven probes use 63.
const PROBES_MAX: usize = 7;
/// Odd, with well mixed bits: the fractional part of the square root of 3.
const SPREAD: u64 = 0xBB67_AE85_84CA_A73B;
/// Keys that are entered before others are offered the core.
const HASHES_AT_ONCE: usize = 1024;
/// Bytes before the lines.
const HEADER_BYTES: usize = 16;

#[repr(align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CacheLine([u64; 8]);

/// The keys that a table may have.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// Empty: every key may be present.
    lines: Vec<CacheLine>,
    probes: usize,
}

impl Filter {
    /// The filter that never says "absent".
    pub(super) fn everything() -> Self {
        Self::default()
    }

    /// A filter of all keys with these hashes. `bits_per_key` must be positive.
    pub(super) fn build(hashes: &[u64], bits_per_key: usize) -> Self {
        let lines = (hashes.len() * bits_per_key).div_ceil(LINE_BITS).max(1);
        // 0.69 is the optimum of a plain Bloom filter; a blocked one prefers slightly fewer probes.
        let probes = (bits_per_key * 5 / 8).clamp(1, PROBES_MAX);
        let mut filter = Self { lines: vec![CacheLine::default(); lines], probes };
        for (at, &hash) in hashes.iter().enumerate() {
            if at % HASHES_AT_ONCE == 0 {
                give_way::now_and_then();
            }
            let line = filter.line_of(hash);
            let mut bits = hash.wrapping_mul(SPREAD);
            for _ in 0..probes {
                let bit = bits as usize % LINE_BITS;
                filter.lines[line].0[bit / 64] |= 1 << (bit % 64);
                bits >>= 9;
            }
        }
        filter
    }

    #[inline]
    fn line_of(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.lines.len() as u128) >> 64) as usize
    }

    /// May the table have a key with this hash?
    #[inline]
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        let Some(line) = self.lines.get(self.line_of(hash)) else { return true };
        let mut bits = hash.wrapping_mul(SPREAD);
        let mut all = 1;
        for _ in 0..self.probes {
            let bit = bits as usize % LINE_BITS;
            all &= line.0[bit / 64] >> (bit % 64);
            bits >>= 9;
        }
        all & 1 == 1
    }

    /// Encodes the section's payload.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.lines.len() * LINE_BYTES);
        out.extend_from_slice(&[self.probes as u8, 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&(self.lines.len() as u64).to_le_bytes());
        for line in &self.lines {
            for word in line.0 {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        out
    }

    /// Decodes a section's payload. The error says what is wrong with it.
    pub(super) fn decode(payload: &[u8]) -> Result<Self, Flaw> {
        let corrupt = |what: &str| Err(Flaw::Corrupt(what.to_owned()));
        let mut reader = Decoder::new(payload);
        let mut header = || Some((reader.u64()?, reader.u64()?));
        let Some((probes, lines)) = header() else { return corrupt("filter is too short") };
        let bytes = &payload[HEADER_BYTES..];
        if probes == 0 || probes > PROBES_MAX as u64 {
            return corrupt("filter has an impossible number of probes");
        }
        if lines == 0
            || !bytes.len().is_multiple_of(LINE_BYTES)
            || lines != (bytes.len() / LINE_BYTES) as u64
        {
            return corrupt("filter does not have the length it names");
        }
        let (words, _) = bytes.as_chunks::<8>();
        let (chunks, _) = words.as_chunks::<8>();
        let mut lines = Vec::new();
        lines.try_reserve_exact(chunks.len()).map_err(|_| Flaw::OutOfMemory)?;
        lines.extend(chunks.iter().map(|line| CacheLine(line.map(u64::from_le_bytes))));
        Ok(Self { lines, probes: probes as usize })
    }

    /// Bytes of memory taken.
    pub(super) fn memory_bytes(&self) -> usize {
        self.lines.len() * LINE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::extremes::extremes;
    use crate::codec::hash64;

    #[test]
    fn no_key_is_ever_denied_and_few_strangers_pass() {
        for (bits, worst) in [(1, 0.70), (5, 0.13), (10, 0.0125), (14, 0.004), (20, 0.0005)] {
            let hashes: Vec<u64> = (0..100_000_u64).map(|i| hash64(&i.to_le_bytes())).collect();
            let filter = Filter::build(&hashes, bits);
            assert!(hashes.iter().all(|&hash| filter.may_contain(hash)));
            let passed = (100_000..300_000_u64)
                .filter(|i| filter.may_contain(hash64(&i.to_le_bytes())))
                .count();
            let rate = passed as f64 / 200_000.0;
            println!("{bits} bits per key: {rate:.5} pass");
            assert!(rate < worst, "{bits} bits per key: {rate} pass");
        }
    }

    #[test]
    fn a_filter_survives_a_round_trip() {
        let hashes: Vec<u64> = (0..1000_u64).map(|i| hash64(&i.to_le_bytes())).collect();
        let filter = Filter::build(&hashes, 10);
        let payload = filter.encode();
        let again = Filter::decode(&payload).unwrap();
        assert_eq!(again.lines, filter.lines);
        assert_eq!(again.probes, filter.probes);
        assert_eq!(again.encode(), payload);
    }

    #[test]
    fn broken_filters_are_refused_and_everything_means_maybe() {
        let payload = Filter::build(&[1, 2, 3], 10).encode();
        for cut in 0..payload.len() {
            assert!(Filter::decode(&payload[..cut]).is_err(), "{cut}");
        }
        let mut impossible = payload.clone();
        impossible[0] = 8;
        assert!(Filter::decode(&impossible).is_err());
        impossible[0] = 0;
        assert!(Filter::decode(&impossible).is_err());
        assert!((0..100).all(|hash| Filter::everything().may_contain(hash << 57)));
    }

    #[test]
    fn c4_made_up_numbers_are_refused_or_harmless() {
        extremes(&Filter::build(&[1, 2, 3], 10).encode(), |payload| {
            if let Ok(filter) = Filter::decode(&payload) {
                assert!(filter.memory_bytes() <= payload.len());
                let _ = (0..100_u64).filter(|hash| filter.may_contain(hash << 57)).count();
            }
        });
    }
}
