//! The command line.

use crate::engines::Config;
use crate::keys::Distribution;
use clap::Parser;
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(about = "What the levels cost, beside RocksDB (cargo feature `rocksdb`)")]
pub struct Args {
    /// Puts per engine and distribution, of 116 bytes each.
    #[arg(long, default_value_t = 20_000_000)]
    entries: u64,
    /// 2 M puts.
    #[arg(long)]
    quick: bool,
    /// Keys to draw from [default: as many as puts]
    #[arg(long)]
    key_count: Option<u64>,
    /// Distributions of keys.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "uniform,zipf,prefix")]
    pub keys: Vec<Distribution>,
    /// Configurations: NAME, or NAME:FIELD=VALUE:... with fields of sluicedb::Options
    /// [default: all that are built in]
    #[arg(long, value_delimiter = ',')]
    engines: Vec<Config>,
    /// Puts per second, of all writers together [default: as fast as they go in]
    #[arg(long)]
    pub put_rate: Option<u64>,
    /// Gets per second while the puts run.
    #[arg(long, default_value_t = 2000)]
    pub read_rate: u64,
    /// Gets of a turn, after all has settled.
    #[arg(long, default_value_t = 100_000)]
    pub gets: u64,
    /// Turns of gets; what is shown is the median of them.
    #[arg(long, default_value_t = 15)]
    pub turns: u64,
    /// Where databases are made, and deleted.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
    /// Write the results there as well.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Print what the engines themselves have to say.
    #[arg(long)]
    pub verbose: bool,
}

impl Args {
    pub fn puts(&self) -> u64 {
        if self.quick { 2_000_000 } else { self.entries }
    }

    pub fn keys_max(&self) -> u64 {
        self.key_count.unwrap_or(self.puts())
    }

    pub fn engines(&self) -> Vec<Config> {
        if self.engines.is_empty() { Config::all() } else { self.engines.clone() }
    }
}
