//! How much is done, and with how much memory.

use crate::engines::Setup;
use clap::ValueEnum;

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
}

/// Puts with which a database is closed, and opened again: 116 MB.
pub const CLOSED_PUTS: u64 = 1_000_000;
/// Puts that are in the log when the process ends: 58 MB.
pub const CRASHED_PUTS: u64 = 500_000;
/// What is opened has write buffers of this size in each profile, so that the log is as long.
pub const OPENED_MEMTABLE_BYTES: u64 = 64 * MIB;

impl Profile {
    pub fn new(size: Size, seconds: Option<f64>) -> Self {
        let mut profile = match size {
            Size::Quick => Self {
                seconds: 0.5,
                puts: 1_000_000,
                loaded: 250_000,
                cache_bytes: 64 * MIB,
                memtable_bytes: 16 * MIB,
            },
            Size::Full => Self {
                seconds: 2.0,
                puts: 6_000_000,
                loaded: 1_000_000,
                cache_bytes: 256 * MIB,
                memtable_bytes: 64 * MIB,
            },
        };
        profile.seconds = seconds.unwrap_or(profile.seconds);
        profile
    }

    pub fn setup(&self) -> Setup {
        Setup { cache_bytes: self.cache_bytes, memtable_bytes: self.memtable_bytes, synced: false }
    }
}
