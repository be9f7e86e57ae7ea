//! About how many different keys some tables have together.
//!
//! A merge of tables writes each key once. How much that saves decides whether it pays, so every
//! table records a sketch of its keys, and sketches of several tables are joined without reading
//! one.
//!
//! The method is HyperLogLog (Flajolet, Fusy, Gandouet, Meunier 2007): a register keeps the longest
//! run of zero bits among the hashes that fall to it. With 256 registers the standard error is 6.5
//! %.

/// Registers; a power of two.
const REGISTERS: usize = 256;
/// Bits of a hash that choose its register.
const INDEX_BITS: u32 = REGISTERS.trailing_zeros();
/// The longest run that the other bits can show, and one.
const RANK_MAX: u8 = (u64::BITS - INDEX_BITS) as u8 + 1;

/// See the module.
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
        // The bit that is set ends the run where there is no other.
        let rest = (key_hash << INDEX_BITS) | (1 << (INDEX_BITS - 1));
        *register = (*register).max(rest.leading_zeros() as u8 + 1);
    }

    /// Adds all keys of `other`.
    pub fn join(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = (*mine).max(theirs);
        }
    }

    /// About how many different keys were added.
    pub fn keys(&self) -> f64 {
        let count = REGISTERS as f64;
        // One half to the power of the rank, which is its exponent. Sums side by side wait for each
        // other less.
        let part = |rank: &u8| f64::from_bits((1023 - u64::from(*rank)) << 52);
        let mut sums = [0.0; 8];
        for ranks in self.0.chunks_exact(sums.len()) {
            sums.iter_mut().zip(ranks).for_each(|(sum, rank)| *sum += part(rank));
        }
        let raw = 0.7213 / (1.0 + 1.079 / count) * count * count / sums.iter().sum::<f64>();
        if raw > 2.5 * count {
            return raw;
        }
        // Few keys leave registers empty, and how many is the better measure then.
        let empty = self.0.iter().map(|rank| u64::from(*rank == 0)).sum::<u64>() as f64;
        if empty > 0.0 { count * (count / empty).ln() } else { raw }
    }

    /// Its bytes: one per register.
    pub fn encode(&self) -> &[u8; Self::ENCODED_BYTES] {
        &self.0
    }

    /// Reads what `encode` gave; `None` for what no key can have made.
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
        // All bits that are left are zero.
        sketch.add(0);
        assert_eq!(KeySketch::decode(sketch.encode()), Some(sketch.clone()));
        let mut bytes = *sketch.encode();
        bytes[7] = RANK_MAX + 1;
        assert_eq!(KeySketch::decode(&bytes), None);
        assert_eq!(KeySketch::decode(&bytes[1..]), None);
    }
}
