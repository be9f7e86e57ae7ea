//! The arguments of `bench`.

use crate::store::Durable;
use crate::units::{parse_count, parse_duration, parse_size};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// What to do
    #[arg(long, default_value = "fill")]
    pub workload: Workload,
    /// Which keys
    #[arg(long, default_value = "random")]
    pub order: Order,
    /// Skew of `--order zipf`, between 0 and 1
    #[arg(long, value_name = "THETA", default_value_t = 0.99)]
    pub theta: f64,
    /// Tasks at the same time
    #[arg(
        long, value_name = "N", default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..=4096)
    )]
    pub tasks: u16,
    /// Entries per write batch, keys per multi-get
    #[arg(
        long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub batch: u32,
    /// Bytes per key
    #[arg(long, value_name = "SIZE", default_value = "16", value_parser = parse_size)]
    pub key_bytes: u64,
    /// Bytes per value
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = parse_size)]
    pub value_bytes: u64,
    /// Entries that exist before read, scan and mixed begin, and over which zipf is drawn
    #[arg(long, value_name = "N", default_value = "1M", value_parser = parse_count)]
    pub entries: u64,
    /// Stop after this many operations in total [default: stop after --duration]
    #[arg(long, value_name = "N", value_parser = parse_count, conflicts_with = "duration")]
    pub count: Option<u64>,
    /// Stop after this time
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Entries per scan
    #[arg(
        long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub scan_entries: u64,
    /// mixed: share of reads, in percent
    #[arg(
        long, value_name = "PERCENT", default_value_t = 50,
        value_parser = clap::value_parser!(u8).range(0..=100)
    )]
    pub reads: u8,
    /// What an acknowledged write survives
    #[arg(long, default_value = "synced")]
    pub durability: Durable,
    /// Memory for write buffers and cache together
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = parse_size)]
    pub memory: u64,
    /// Merge everything down before measuring
    #[arg(long)]
    pub settle: bool,
    /// Where the database is created; must not exist [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    pub path: Option<PathBuf>,
    /// Seed of keys and values
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Write new keys
    Fill,
    /// Read keys that exist
    Read,
    /// Scans of --scan-entries from a key that exists
    Scan,
    /// Reads and overwrites
    Mixed,
}

/// Which keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Scattered over the key space
    Random,
    /// One after the other
    Sequential,
    /// Few keys often, most keys seldom
    Zipf,
}
