//! Which key and value each put has. Put number `n` is a function of `n` alone: readers can ask for
//! what was written so far, and both engines get the same puts, without anybody keeping a list.

use crate::Result;
use crate::engines::WRITERS;
use clap::ValueEnum;
use sluicedb_bench_peers::keys::{ENTRY_BYTES, Key, Noise, VALUE_BYTES, Zipf, hashed, mix, scale};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    noise: Arc<Noise>,
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
        let noise = Arc::new(Noise::new());
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

    pub fn key(&self, put: u64) -> Key {
        let index = self.index(put);
        if self.distribution != Distribution::Prefix {
            return hashed(index);
        }
        let mut key = *b"user:00000000:f0";
        key[15] += (index % FIELDS_PER_USER) as u8;
        let mut user = index / FIELDS_PER_USER;
        for digit in key[5..13].iter_mut().rev() {
            *digit += (user % 10) as u8;
            user /= 10;
        }
        key
    }

    pub fn value(&self, put: u64) -> &[u8] {
        self.noise.value(put, VALUE_BYTES)
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
