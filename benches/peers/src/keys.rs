//! Keys and values. Each is a function of a number: readers can ask for what was written so far,
//! and all engines get the same, without anybody keeping a list.

pub const KEY_BYTES: usize = 16;
pub const VALUE_BYTES: usize = 100;
pub const ENTRY_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;

pub type Key = [u8; KEY_BYTES];

/// splitmix64's finisher: a bijection that makes neighbouring numbers look unrelated.
pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A random number below `n`.
pub fn scale(random: u64, n: u64) -> u64 {
    ((u128::from(random) * u128::from(n)) >> 64) as u64
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

/// Zipf-distributed ranks, as YCSB draws them (Gray et al., SIGMOD 1994): rank 0 is the hottest.
#[derive(Clone, Debug)]
pub struct Zipf {
    n: f64,
    theta: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    pub fn new(n: u64, theta: f64) -> Self {
        let zeta: f64 = (1..=n).map(|i| (i as f64).powf(-theta)).sum();
        let two = 1.0 + 0.5_f64.powf(theta);
        let n = n as f64;
        let eta = (1.0 - (2.0 / n).powf(1.0 - theta)) / (1.0 - two / zeta);
        Self { n, theta, alpha: 1.0 / (1.0 - theta), zeta, eta }
    }

    pub fn rank(&self, random: u64) -> u64 {
        let u = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5_f64.powf(self.theta) {
            return 1;
        }
        let rank = self.n * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.n as u64 - 1)
    }
}
