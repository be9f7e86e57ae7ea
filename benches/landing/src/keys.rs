//! Which key and value each put has. Put number `n` is a function of `n` alone: readers can ask for
//! what was written so far, and both engines get the same puts, without anybody keeping a list.

use crate::Result;
use crate::engines::WRITERS;
use clap::ValueEnum;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub const KEY_BYTES: usize = 16;
const VALUE_BYTES: usize = 100;
pub const ENTRY_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;
const ZIPF_THETA: f64 = 0.99;
const FIELDS_PER_USER: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Distribution {
    /// Every key as often as any other, hashed.
    Uniform,
    /// Zipf's law with exponent 0.99, hashed: hot keys are spread.
    Zipf,
    /// `user:<id>:<field>`, users as often as each other: all keys begin alike.
    Prefix,
}

impl Distribution {
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipf => "zipf",
            Self::Prefix => "prefix",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub distribution: Distribution,
    pub puts: u64,
    pub keys: u64,
    /// Puts per second, if they are not to go in as fast as they can.
    pub rate: Option<u64>,
    /// Different keys among the puts.
    pub live: u64,
    zipf: Option<Zipf>,
    /// Values are slices of this; it does not compress.
    noise: Arc<[u8]>,
}

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

impl Plan {
    pub fn new(
        distribution: Distribution,
        puts: u64,
        keys: u64,
        rate: Option<u64>,
    ) -> Result<Self> {
        if puts < WRITERS || !(FIELDS_PER_USER..=10_000_000 * FIELDS_PER_USER).contains(&keys) {
            return Err(format!("{puts} puts to {keys} keys: too few, or too many").into());
        }
        let zipf = (distribution == Distribution::Zipf).then(|| Zipf::new(keys, ZIPF_THETA));
        let noise = (0..1 << 17).flat_map(|n| mix(!n).to_le_bytes()).collect();
        let mut plan = Self { distribution, puts, keys, rate, live: 0, zipf, noise };
        let mut seen = vec![0_u64; keys.div_ceil(64) as usize];
        for n in 0..puts {
            let index = plan.index(n);
            seen[(index / 64) as usize] |= 1 << (index % 64);
        }
        plan.live = seen.iter().map(|word| u64::from(word.count_ones())).sum();
        Ok(plan)
    }

    /// The puts of one writer.
    pub fn share(&self, writer: u64) -> impl Iterator<Item = u64> + use<> {
        (writer..self.puts).step_by(WRITERS as usize)
    }

    fn index(&self, put: u64) -> u64 {
        match &self.zipf {
            Some(zipf) => zipf.rank(mix(put)),
            None => scale(mix(put), self.keys),
        }
    }

    pub fn key(&self, put: u64) -> [u8; KEY_BYTES] {
        let index = self.index(put);
        let mut key = *b"user:00000000:f0";
        if self.distribution == Distribution::Prefix {
            key[15] += (index % FIELDS_PER_USER) as u8;
            let mut user = index / FIELDS_PER_USER;
            for digit in key[5..13].iter_mut().rev() {
                *digit += (user % 10) as u8;
                user /= 10;
            }
        } else {
            key[..8].copy_from_slice(&mix(index).to_be_bytes());
            key[8..].copy_from_slice(&mix(!index).to_be_bytes());
        }
        key
    }

    pub fn value(&self, put: u64) -> &[u8] {
        let places = (self.noise.len() - VALUE_BYTES) as u64;
        let start = scale(mix(put ^ 0x5EED << 40), places) as usize;
        &self.noise[start..start + VALUE_BYTES]
    }

    pub fn user_bytes(&self) -> u64 {
        self.puts * ENTRY_BYTES
    }

    pub fn live_bytes(&self) -> u64 {
        self.live * ENTRY_BYTES
    }
}

/// How far each writer is, for readers that want keys that are there.
#[derive(Debug, Default)]
pub struct Progress([Counter; WRITERS as usize]);

/// On a cache line of its own, and the line that is fetched with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

impl Progress {
    /// `writer` has done this put, and those of its share before.
    pub fn note(&self, writer: u64, put: u64) {
        self.0[writer as usize].0.store(put + 1, Ordering::Release);
    }

    /// Some put that was done, if there is one.
    pub fn draw(&self, random: u64) -> Option<u64> {
        let writer = random % WRITERS;
        let end = self.0[writer as usize].0.load(Ordering::Acquire);
        let done = end.saturating_sub(writer).div_ceil(WRITERS);
        (done > 0).then(|| writer + WRITERS * scale(random, done))
    }
}

/// Zipf-distributed ranks, as YCSB draws them (Gray et al., SIGMOD 1994): rank 0 is the hottest.
#[derive(Clone, Debug)]
struct Zipf {
    n: f64,
    theta: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(n: u64, theta: f64) -> Self {
        let zeta: f64 = (1..=n).map(|i| (i as f64).powf(-theta)).sum();
        let two = 1.0 + 0.5_f64.powf(theta);
        let n = n as f64;
        let eta = (1.0 - (2.0 / n).powf(1.0 - theta)) / (1.0 - two / zeta);
        Self { n, theta, alpha: 1.0 / (1.0 - theta), zeta, eta }
    }

    fn rank(&self, random: u64) -> u64 {
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
