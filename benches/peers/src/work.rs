//! The operations of the rows.

use crate::Result;
use crate::drive::Work;
use crate::engine::Engine;
use crate::keys::{Key, Noise, VALUE_BYTES, Zipf, hashed, mix, scale, sequential};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const ZIPF_THETA: f64 = 0.99;
/// Draws of the zipf distribution that are made before, and used again and again: a draw costs as
/// much as a get.
const DRAWS: u64 = 1 << 20;
/// Keys of numbers from here on are never written.
const ABSENT: u64 = 1 << 60;
pub const SCAN_MAX: u64 = 100;
pub const LARGE_VALUE_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    Put,
    PutSequential,
    PutLarge,
    /// Random keys, so many at once.
    Batch(u64),
    /// The sorted keys of [`Data::sorted`], so many at once.
    Load(u64),
    /// A value for a key that is there, zipf.
    Overwrite,
    Get,
    GetLarge,
    GetAbsent,
    /// From a random place on.
    Scan,
    /// Everything there is.
    ScanAll,
    Ycsb(Mix),
    /// Keys and values are made, nothing else.
    Nothing,
}

/// One of YCSB's core workloads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// The rest of one hundred are reads.
    pub updates: u64,
    pub inserts: u64,
    pub scans: u64,
    pub modifications: u64,
    /// Are keys the more likely the later they were inserted? Else zipf, over all of them.
    pub latest: bool,
}

const READS: Mix = Mix { updates: 0, inserts: 0, scans: 0, modifications: 0, latest: false };

pub const YCSB: [(&str, Mix); 6] = [
    ("ycsb A", Mix { updates: 50, ..READS }),
    ("ycsb B", Mix { updates: 5, ..READS }),
    ("ycsb C", READS),
    ("ycsb D", Mix { inserts: 5, latest: true, ..READS }),
    ("ycsb E", Mix { inserts: 5, scans: 95, ..READS }),
    ("ycsb F", Mix { modifications: 50, ..READS }),
];

/// What the database has and what is written to it.
#[derive(Debug)]
pub struct Data {
    noise: Noise,
    pub value_bytes: usize,
    /// Puts that each of `written.len()` clients did, see [`crate::drive::Driven::done`].
    written: Vec<u64>,
    /// Numbers from 0 on whose keys are there, of what was loaded in one piece.
    loaded: u64,
    /// Zipf's ranks below `loaded`.
    ranks: Vec<u32>,
    pub sorted: Vec<Key>,
    inserted: AtomicU64,
}

impl Data {
    /// Nothing is there, and nothing is read.
    pub fn new() -> Self {
        Self::written(vec![])
    }

    /// Clients have put so many each.
    pub fn written(written: Vec<u64>) -> Self {
        Self {
            noise: Noise::new(),
            value_bytes: VALUE_BYTES,
            loaded: if written.len() == 1 { written[0] } else { 0 },
            written,
            ranks: Vec::new(),
            sorted: Vec::new(),
            inserted: AtomicU64::new(0),
        }
    }

    pub fn loaded(loaded: u64) -> Self {
        let mut data = Self::written(vec![loaded]);
        let zipf = Zipf::new(loaded, ZIPF_THETA);
        data.ranks = (0..DRAWS).map(|n| zipf.rank(mix(n)) as u32).collect();
        data
    }

    /// With as many keys to load, sorted.
    pub fn to_sort(count: u64) -> Self {
        let mut data = Self::written(vec![count]);
        data.sorted = (0..count).map(hashed).collect();
        data.sorted.sort_unstable();
        data
    }

    /// The number of a key that is there.
    fn draw(&self, random: u64) -> u64 {
        let clients = self.written.len() as u64;
        let client = random % clients;
        client + clients * scale(mix(random), self.written[client as usize])
    }

    fn rank(&self, n: u64) -> u64 {
        u64::from(self.ranks[(mix(n) % DRAWS) as usize])
    }

    /// The number of a key that is there. Hot ones are spread.
    fn zipf(&self, n: u64) -> u64 {
        scale(mix(!self.rank(n)), self.loaded)
    }

    fn value(&self, n: u64) -> &[u8] {
        self.noise.value(n, self.value_bytes)
    }
}

impl Default for Data {
    fn default() -> Self {
        Self::new()
    }
}

/// A client's operation on its engine.
#[derive(Clone)]
pub struct On<E> {
    pub engine: E,
    pub operation: Operation,
    pub data: Arc<Data>,
    /// Makes another sequence of random numbers.
    pub salt: u64,
}

async fn found(engine: &impl Engine, key: &Key) -> Result<u64> {
    if engine.get(key).await? { Ok(1) } else { Err("a key that was written is not there".into()) }
}

impl<E: Engine> On<E> {
    async fn batch(&self, keys: impl Iterator<Item = Key>, n: u64) -> Result<u64> {
        let entries: Vec<_> = keys.map(|key| (key, self.data.value(n))).collect();
        self.engine.write(&entries).await?;
        Ok(entries.len() as u64)
    }

    async fn ycsb(&self, mix_of: Mix, n: u64) -> Result<u64> {
        let (engine, data) = (&self.engine, &*self.data);
        let n = mix(n ^ self.salt);
        let mut dice = n % 100;
        let mut is = |share: u64| {
            let hit = dice < share;
            dice = dice.wrapping_sub(share);
            hit
        };
        if is(mix_of.inserts) {
            let number = data.loaded + data.inserted.fetch_add(1, Ordering::Relaxed);
            engine.put(&hashed(number), data.value(n)).await?;
            return Ok(1);
        }
        if mix_of.latest {
            let newest = data.loaded + data.inserted.load(Ordering::Relaxed);
            // Its insert may be under way.
            engine.get(&hashed(newest - 1 - data.rank(n))).await?;
            return Ok(1);
        }
        let key = hashed(data.zipf(n));
        if is(mix_of.updates) {
            engine.put(&key, data.value(n)).await?;
        } else if is(mix_of.scans) {
            return engine.scan(&key, 1 + mix(n) % SCAN_MAX).await;
        } else if is(mix_of.modifications) {
            found(engine, &key).await?;
            engine.put(&key, data.value(n)).await?;
        } else {
            found(engine, &key).await?;
        }
        Ok(1)
    }
}

impl<E: Engine> Work for On<E> {
    async fn run(&self, n: u64) -> Result<u64> {
        let (engine, data) = (&self.engine, &*self.data);
        let random = mix(n ^ self.salt);
        match self.operation {
            Operation::Put => engine.put(&hashed(n), data.value(n)).await?,
            Operation::PutSequential => engine.put(&sequential(n), data.value(n)).await?,
            Operation::PutLarge => {
                let value = data.noise.value(n, LARGE_VALUE_BYTES);
                engine.put(&hashed(n), value).await?;
            }
            Operation::Batch(count) => {
                return self.batch((n * count..(n + 1) * count).map(hashed), n).await;
            }
            Operation::Load(count) => {
                let keys = data.sorted.iter().skip((n * count) as usize).take(count as usize);
                return self.batch(keys.copied(), n).await;
            }
            Operation::Overwrite => {
                engine.put(&hashed(data.zipf(random)), data.value(random)).await?;
            }
            Operation::Get | Operation::GetLarge => {
                return found(engine, &hashed(data.draw(random))).await;
            }
            Operation::GetAbsent => {
                if engine.get(&hashed(ABSENT + random % ABSENT)).await? {
                    return Err("a key that was never written is there".into());
                }
            }
            Operation::Scan => return engine.scan(&hashed(random), SCAN_MAX).await,
            Operation::ScanAll => return engine.scan(&[0; 16], u64::MAX).await,
            Operation::Ycsb(mix_of) => return self.ycsb(mix_of, n).await,
            Operation::Nothing => {
                std::hint::black_box((hashed(n), data.value(random)));
            }
        }
        Ok(1)
    }
}
