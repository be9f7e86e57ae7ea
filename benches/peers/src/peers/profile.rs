//! How much is done, and with how much memory.

use crate::engines::Setup;
use clap::ValueEnum;
use sluicedb_bench_peers::keys::{ENTRY_BYTES, KEY_BYTES, VALUE_BYTES};

const MIB: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// A quarter of the memory and short rows: five engines in less than five minutes.
    Quick,
    /// 256 MiB of cache and four write buffers of 64 MiB.
    Full,
}

#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// A row ends after so many seconds, done or not.
    pub seconds: f64,
    /// Puts of a row that fills an empty database.
    pub puts: u64,
    /// Entries in the database of rows that read or overwrite.
    pub loaded: u64,
    pub cache_bytes: u64,
    pub memtable_bytes: u64,
    pub value_bytes: usize,
}

/// What a database has that is closed, and opened again.
const CLOSED_BYTES: u64 = 116_000_000;
/// What is in the log when the process ends.
const CRASHED_BYTES: u64 = 58_000_000;
/// What is opened has write buffers of this size in each profile, so that the log is as long.
pub const OPENED_MEMTABLE_BYTES: u64 = 64 * MIB;

/// Whole batches, of whatever row.
fn thousands(puts: u64) -> u64 {
    puts / 1000 * 1000
}

impl Profile {
    pub fn new(size: Size, seconds: Option<f64>, value_bytes: Option<usize>) -> Self {
        let value_bytes = value_bytes.unwrap_or(VALUE_BYTES);
        let mut profile = match size {
            Size::Quick => Self {
                seconds: 0.5,
                puts: 1_000_000,
                loaded: 250_000,
                cache_bytes: 64 * MIB,
                memtable_bytes: 16 * MIB,
                value_bytes,
            },
            Size::Full => Self {
                seconds: 2.0,
                puts: 6_000_000,
                loaded: 1_000_000,
                cache_bytes: 256 * MIB,
                memtable_bytes: 64 * MIB,
                value_bytes,
            },
        };
        profile.seconds = seconds.unwrap_or(profile.seconds);
        // As many bytes, whatever their size: what fits into the cache still does.
        profile.loaded = thousands(profile.loaded * ENTRY_BYTES / profile.entry_bytes());
        profile
    }

    pub fn entry_bytes(&self) -> u64 {
        (KEY_BYTES + self.value_bytes) as u64
    }

    /// Puts with which a database is closed, and opened again.
    pub fn closed_puts(&self) -> u64 {
        thousands(CLOSED_BYTES / self.entry_bytes())
    }

    /// Puts that are in the log when the process ends.
    pub fn crashed_puts(&self) -> u64 {
        thousands(CRASHED_BYTES / self.entry_bytes())
    }

    pub fn setup(&self) -> Setup {
        Setup { cache_bytes: self.cache_bytes, memtable_bytes: self.memtable_bytes, synced: false }
    }
}
