//! Keys and values. Each is a function of a number: readers can ask for what was written so far,
//! and all engines get the same, without anybody keeping a list.

// The command's generators, not all of them needed. A bench may not depend on the command.
#[path = "../../../cli/src/random.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is written for another program")]
mod random;

pub use random::{Zipf, scale};

pub const KEY_BYTES: usize = 16;
pub const VALUE_BYTES: usize = 100;
pub const ENTRY_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;

pub type Key = [u8; KEY_BYTES];

/// A bijection that makes neighbouring numbers look unrelated.
pub fn mix(number: u64) -> u64 {
    random::mix(number.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// Neighbouring numbers have keys far apart; no two have the same.
pub fn hashed(number: u64) -> Key {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&mix(number).to_be_bytes());
    key[8..].copy_from_slice(&mix(!number).to_be_bytes());
    key
}

/// Keys in the order of their numbers.
pub fn sequential(number: u64) -> Key {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&mix(!number).to_be_bytes());
    key
}

/// Values are slices of it. It does not compress.
#[derive(Clone, Debug)]
pub struct Noise(Vec<u8>);

impl Noise {
    pub fn new() -> Self {
        Self((0..1 << 17).flat_map(|n| mix(!n).to_le_bytes()).collect())
    }

    /// The value of number `n`, of `bytes` bytes.
    pub fn value(&self, n: u64, bytes: usize) -> &[u8] {
        let places = (self.0.len() - bytes) as u64;
        let start = scale(mix(n ^ 0x5EED << 40), places) as usize;
        &self.0[start..start + bytes]
    }
}

impl Default for Noise {
    fn default() -> Self {
        Self::new()
    }
}
