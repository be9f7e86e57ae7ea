//! The engines behind one trait, their named configurations, and the sizes that are the same for
//! all.

#[cfg(feature = "rocksdb")]
mod rocks;
mod sluice;

use crate::Result;
use crate::keys::{Plan, Progress};
use hdrhistogram::Histogram;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
pub const WRITERS: u64 = 4;
const MEMTABLE_BYTES: u64 = 8 * MIB;
const MEMTABLES: u64 = 4;
const L1_BYTES: u64 = 32 * MIB;
const LEVEL_RATIO: u64 = 10;
const TABLE_BYTES: u64 = 8 * MIB;
const CACHE_BYTES: u64 = 64 * MIB;
const BLOCK_BYTES: u64 = 4096;
const FILTER_BITS_PER_KEY: u64 = 10;

/// What can be measured. A configuration with another name is one more line here.
const NAMED: &[Named] = &[
    Named { name: "sluicedb", engine: Engine::Sluice, settings: &[] },
    #[cfg(feature = "rocksdb")]
    Named { name: "rocksdb", engine: Engine::Rocks, settings: &[] },
];

struct Named {
    name: &'static str,
    engine: Engine,
    /// Fields of [`sluicedb::Options`] and their values.
    settings: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Sluice,
    #[cfg(feature = "rocksdb")]
    Rocks,
}

/// An engine and what is set otherwise than in its adapter.
#[derive(Clone, Debug)]
pub struct Config {
    /// As it was asked for.
    name: String,
    engine: Engine,
    settings: Vec<(String, String)>,
}

impl Config {
    pub fn all() -> Vec<Self> {
        NAMED.iter().map(Self::named).collect()
    }

    fn named(named: &Named) -> Self {
        let settings = named.settings.iter().map(|&(field, value)| (field.into(), value.into()));
        Self { name: named.name.into(), engine: named.engine, settings: settings.collect() }
    }

    /// Is it what the others are compared with?
    pub fn is_peer(&self) -> bool {
        self.engine != Engine::Sluice
    }

    pub fn open(&self, dir: &Path) -> Result<Box<dyn Store>> {
        Ok(match self.engine {
            Engine::Sluice => Box::new(sluice::Sluice::open(dir, &self.settings)?),
            #[cfg(feature = "rocksdb")]
            Engine::Rocks => Box::new(rocks::Rocks::open(dir)?),
        })
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for Config {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let known = NAMED.iter().find(|named| named.name == name).map(Self::named);
        let known = known.ok_or_else(|| format!("no configuration is called {name}"))?;
        let mut config = Self { name: text.to_owned(), ..known };
        for part in parts {
            let (field, value) =
                part.split_once('=').ok_or_else(|| format!("{part} is not FIELD=VALUE"))?;
            config.settings.push((field.to_owned(), value.to_owned()));
        }
        if config.is_peer() && !config.settings.is_empty() {
            return Err(format!("{name} takes no settings"));
        }
        Ok(config)
    }
}

/// A database under test.
pub trait Store: Sync {
    /// Does all puts of the plan, with [`WRITERS`] writers, and returns how long each took.
    fn fill(&self, plan: &Arc<Plan>, progress: &Arc<Progress>) -> Result<Histogram<u64>>;

    /// Is there such a key? The value is read.
    fn get(&self, key: &[u8]) -> Result<bool>;

    /// Flushes, waits until nothing is due in the background any more, and returns when that was.
    fn settle(&self) -> Result<Instant>;

    /// Waits until all is done as well that is done while nobody writes, and returns when that was.
    /// Nothing of it is done before.
    fn rest(&mut self) -> Result<Instant>;

    /// Entries seen by a scan of everything.
    fn scan(&self) -> Result<u64>;

    fn account(&self) -> Result<Account>;

    fn close(self: Box<Self>) -> Result<()>;
}

/// What an engine counted since it was first opened, and how its tables lie now.
#[derive(Clone, Debug, Default)]
pub struct Account {
    pub log_bytes: u64,
    pub flush_bytes: u64,
    pub compaction_bytes: u64,
    /// How often writers were made to wait, where the engine counts that, and how long together.
    pub stalls: Option<u64>,
    pub stall_micros: u64,
    pub levels: Vec<Level>,
    /// In the engine's own words.
    pub notes: String,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Level {
    pub tables: u64,
    pub runs: u64,
    pub bytes: u64,
}

pub fn histogram() -> Histogram<u64> {
    sluicedb_bench_peers::histogram(3)
}

/// One writer's puts, each timed.
struct Writer {
    plan: Arc<Plan>,
    progress: Arc<Progress>,
    number: u64,
    begun: Instant,
    latencies: Histogram<u64>,
}

impl Writer {
    fn all(plan: &Arc<Plan>, progress: &Arc<Progress>) -> impl Iterator<Item = Self> {
        (0..WRITERS).map(|number| Self {
            plan: Arc::clone(plan),
            progress: Arc::clone(progress),
            number,
            begun: Instant::now(),
            latencies: histogram(),
        })
    }

    /// Notes a put, and says how long to wait before the next one if puts have a rate. One that is
    /// late makes the next ones hurry.
    fn note(&mut self, put: u64, took: Duration) -> Option<Duration> {
        self.latencies.saturating_record(took.as_nanos() as u64);
        // Seldom enough not to be felt.
        if put / WRITERS % 64 != 63 {
            return None;
        }
        self.progress.note(self.number, put);
        let due = Duration::from_secs_f64(put as f64 / self.plan.rate? as f64);
        due.checked_sub(self.begun.elapsed())
    }
}
