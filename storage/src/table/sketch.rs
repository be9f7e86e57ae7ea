//! Estimates how many different keys some tables have together.
//!
//! A merge of tables writes each key once. Whether the merge pays depends on how much that saves.
//! So every table records a sketch of its keys, and the sketches of several tables are joined
//! without reading them.
//!
//! The method is HyperLogLog (Flajolet, Fusy, Gandouet, Meunier 2007): a register keeps the longest
//! run of zero bits among the hashes that it gets. With 256 registers the standard error is 6.5 %.

/// The number of registers; a power of two.
const REGISTERS: usize = 256;
/// The number of hash bits that choose the register.
const INDEX_BITS: u32 = REGISTERS.trailing_zeros();
/// The longest run of zero bits in the other bits, plus one.
const RANK_MAX: u8 = (u64::BITS - INDEX_BITS) as u8 + 1;

/// A HyperLogLog sketch of a set of keys; see the module.
#[derive(Clone, PartialEq, Eq)]
pub struct KeySketch([u8; REGISTERS]);

impl std::fmt::Debug for KeySketch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeySketch(about {:.0})", self.keys())
    }
}

impl Default for KeySketch {
    fn default() -> Self {
        Self([0; REGISTERS])
    }
}

impl KeySketch {
    /// Bytes of an encoded sketch.
    pub const ENCODED_BYTES: usize = REGISTERS;

    /// Adds a key by its `codec::hash64`.
    #[inline]
    pub fn add(&mut self, key_hash: u64) {
        let register = &mut self.0[(key_hash >> (u64::BITS - INDEX_BITS)) as usize];
        // The bit that is set here ends a run in which all other bits are zero.
        let rest = (key_hash << INDEX_BITS) | (1 << (INDEX_BITS - 1));
        *register = (*register).max(rest.leading_zeros() as u8 + 1);
    }

    /// Adds all keys of `other`.
    pub fn join(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = (*mine).max(theirs);
        }
    }

    /// The estimated number of different keys that were added.
    pub fn keys(&self) -> f64 {
        let count = REGISTERS as f64;
        // Two to the power of minus `rank`, built from its exponent. Eight separate sums have no
        // dependencies between each other.
        let part = |rank: &u8| f64::from_bits((1023 - u64::from(*rank)) << 52);
        let mut sums = [0.0; 8];
        for ranks in self.0.chunks_exact(sums.len()) {
            sums.iter_mut().zip(ranks).for_each(|(sum, rank)| *sum += part(rank));
        }
        let raw = 0.7213 / (1.0 + 1.079 / count) * count * count / sums.iter().sum::<f64>();
        if raw > 2.5 * count {
            return raw;
        }
        // With few keys, registers stay empty, and their number gives the better estimate.
        let empty = self.0.iter().map(|rank| u64::from(*rank == 0)).sum::<u64>() as f64;
        if empty > 0.0 { count * (count / empty).ln() } else { raw }
    }

    /// The encoding: one byte per register.
    pub fn encode(&self) -> &[u8; Self::ENCODED_BYTES] {
        &self.0
    }

    /// Reads what `encode` returned; `None` for registers that no key can produce.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let registers: [u8; REGISTERS] = bytes.try_into().ok()?;
        registers.iter().all(|rank| *rank <= RANK_MAX).then_some(Self(registers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::hash64;

    fn of(keys: std::ops::Range<u64>) -> KeySketch {
        let mut sketch = KeySketch::default();
        keys.for_each(|key| sketch.add(hash64(&key.to_be_bytes())));
        sketch
    }

    #[test]
    fn the_count_is_within_three_standard_errors() {
        assert!(KeySketch::default().keys() < 0.5);
        for count in [1, 10, 100, 300, 1_000, 3_000, 30_000, 300_000] {
            let about = of(0..count).keys();
            let off = (about - count as f64).abs() / count as f64;
            assert!(off < 0.2, "{count}: {about}");
        }
    }

    #[test]
    fn keys_that_two_sketches_share_count_once() {
        let mut both = of(0..20_000);
        both.join(&of(10_000..30_000));
        assert!((both.keys() / 30_000.0 - 1.0).abs() < 0.2, "{both:?}");
        assert_eq!(both, of(0..30_000));
    }

    #[test]
    fn bytes_survive_a_round_trip_and_impossible_ones_are_refused() {
        let mut sketch = of(0..1000);
        // All other bits are zero.
        sketch.add(0);
        assert_eq!(KeySketch::decode(sketch.encode()), Some(sketch.clone()));
        let mut bytes = *sketch.encode();
        bytes[7] = RANK_MAX + 1;
        assert_eq!(KeySketch::decode(&bytes), None);
        assert_eq!(KeySketch::decode(&bytes[1..]), None);
    }
}
