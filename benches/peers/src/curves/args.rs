//! The command line, and what is wrong with it.

use clap::{Args, Parser, Subcommand};
use rustix::fs::statvfs;
use sluicedb_bench_peers::Result;
use sluicedb_bench_peers::keys::ENTRY_BYTES;
use sluicedb_bench_peers::units::parse_size;
use std::path::{Path, PathBuf};

/// What options accept as memory.
const MEMORY_MIN: u64 = 4 << 20;
/// What a database may take for each byte that was put: landings, a drain, the log.
const SPACE_TIMES: f64 = 2.5;
/// Less data says nothing.
const SIZE_MIN: u64 = 1_000_000;
/// As many as a database may have from the start.
const RANGES_MAX: u64 = 16_384;

#[derive(Debug, Parser)]
#[command(about = "How SluiceDB scales with cores, and what it costs as its data grows")]
pub struct CommandLine {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Puts, gets and scans with more and more cores and ranges.
    Scaling(ScalingArgs),
    /// What operations cost in a database that grows.
    Growth(GrowthArgs),
    /// The plan of docs/tuning.md: load, overwrite flat out, overwrite at a pace.
    Plan(PlanArgs),
    /// Prints and draws what was written with --json.
    Report {
        file: PathBuf,
        /// Draw the scaling there.
        #[arg(long)]
        scaling_svg: Option<PathBuf>,
        /// Draw the growth there.
        #[arg(long)]
        growth_svg: Option<PathBuf>,
    },
    /// One number of cores with one number of ranges.
    #[command(hide = true)]
    Child {
        cores: u64,
        ranges: u64,
        dir: PathBuf,
        #[command(flatten)]
        rows: RowArgs,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub struct RowArgs {
    /// Seconds of each row that reads; one that puts gets twice as many.
    #[arg(long, default_value = "1", value_parser = seconds)]
    pub seconds: f64,
    /// Entries in the database that is read.
    #[arg(long, default_value_t = 1_000_000)]
    pub entries: u64,
    /// Keep only the clients to so many cores, not the engine's own threads.
    #[arg(long)]
    pub clients_only: bool,
}

#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Where databases are made, and deleted.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
    /// Write the figures there. Other figures of the file stay, so one file may have all.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ScalingArgs {
    #[command(flatten)]
    pub rows: RowArgs,
    /// Numbers of cores [default: powers of two, and all]
    #[arg(long, value_delimiter = ',')]
    pub cores: Vec<u64>,
    /// Numbers of ranges.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64")]
    pub ranges: Vec<u64>,
    /// How often everything is done; the tables have medians.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Draw it there.
    #[arg(long)]
    pub svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct GrowthArgs {
    /// Sizes of the data, keys and values, at which it is looked at.
    #[arg(long, value_delimiter = ',', value_parser = parse_size,
          default_value = "10MB,30MB,100MB,300MB,1GB")]
    pub sizes: Vec<u64>,
    /// Seconds of each row that reads.
    #[arg(long, default_value = "1", value_parser = seconds)]
    pub seconds: f64,
    /// Seconds for one size: to fill up to it and to settle. If it is not reached, what was reached
    /// is the last size.
    #[arg(long, default_value = "120", value_parser = seconds)]
    pub point_seconds: f64,
    /// `memory_budget_bytes`.
    #[arg(long, value_parser = parse_size, default_value = "512MiB")]
    pub memory: u64,
    /// Wait at each size until landings are merged as well, as in a pause without writes.
    #[arg(long)]
    pub at_rest: bool,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Draw it there.
    #[arg(long)]
    pub svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The data, keys and values. Each key is put once before it is overwritten.
    #[arg(long, value_parser = parse_size, default_value = "10GB")]
    pub size: u64,
    /// Seconds for the load; if it is not through, there are fewer keys.
    #[arg(long, default_value = "180", value_parser = seconds)]
    pub load_seconds: f64,
    /// Seconds of overwrites at full speed.
    #[arg(long, default_value = "100", value_parser = seconds)]
    pub flat_out_seconds: f64,
    /// Seconds of overwrites at a pace.
    #[arg(long, default_value = "240", value_parser = seconds)]
    pub paced_seconds: f64,
    /// That pace, in bytes of keys and values per second.
    #[arg(long, value_parser = parse_size, default_value = "10MB")]
    pub pace: u64,
    /// `memory_budget_bytes`.
    #[arg(long, value_parser = parse_size, default_value = "1GiB")]
    pub memory: u64,
    #[command(flatten)]
    pub output: OutputArgs,
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(seconds),
        _ => Err(format!("`{text}` is not a number of seconds, above 0 and at most a day")),
    }
}

fn available_cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

/// Powers of two below it, and it.
fn doubled_up_to(all: u64) -> Vec<u64> {
    let powers = std::iter::successors(Some(1_u64), |cores| cores.checked_mul(2));
    powers.take_while(|cores| *cores < all).chain([all]).collect()
}

fn has_repeated(numbers: &[u64]) -> bool {
    numbers.iter().enumerate().any(|(at, number)| numbers[..at].contains(number))
}

fn check_memory(memory: u64) -> Result<()> {
    if memory < MEMORY_MIN {
        return Err(format!("--memory: {memory} bytes are too few; at least 4 MiB").into());
    }
    Ok(())
}

/// Is there room for a database with so much data?
fn check_space(dir: &Path, bytes: u64) -> Result<()> {
    let disk = statvfs(dir).map_err(|e| format!("--dir {}: {e}", dir.display()))?;
    let free = disk.f_bavail as f64 * disk.f_frsize as f64;
    let needed = bytes as f64 * SPACE_TIMES;
    if free < needed {
        let (needed, free) = (needed / 1e9, free / 1e9);
        let dir = dir.display();
        return Err(format!("--dir {dir}: needs about {needed:.1} GB, {free:.1} are free").into());
    }
    Ok(())
}

impl RowArgs {
    fn check(&self) -> Result<()> {
        if self.entries < 1000 {
            return Err(format!("--entries {}: at least 1000", self.entries).into());
        }
        Ok(())
    }
}

impl ScalingArgs {
    /// Fills in what was left open.
    pub fn checked(mut self) -> Result<Self> {
        self.rows.check()?;
        let all = available_cores();
        if self.cores.is_empty() {
            self.cores = doubled_up_to(all);
        }
        if let Some(cores) = self.cores.iter().find(|cores| !(1..=all).contains(cores)) {
            return Err(format!("--cores {cores}: this process may use 1 to {all}").into());
        }
        if let Some(ranges) = self.ranges.iter().find(|n| !(1..=RANGES_MAX).contains(n)) {
            return Err(format!("--ranges {ranges}: 1 to {RANGES_MAX} are possible").into());
        }
        if has_repeated(&self.cores) || has_repeated(&self.ranges) {
            return Err("--cores and --ranges: a number is there twice".into());
        }
        if self.rounds == 0 {
            return Err("--rounds 0: nothing would be measured".into());
        }
        check_space(&self.output.dir, self.rows.entries * ENTRY_BYTES)?;
        Ok(self)
    }
}

impl GrowthArgs {
    pub fn checked(self) -> Result<Self> {
        if let Some(size) = self.sizes.iter().find(|size| **size < SIZE_MIN) {
            return Err(format!("--sizes: {size} bytes are too few; at least 1MB").into());
        }
        if !self.sizes.is_sorted_by(|one, next| one < next) {
            return Err("--sizes: each has to be larger than the one before".into());
        }
        check_memory(self.memory)?;
        check_space(&self.output.dir, self.sizes.last().copied().unwrap_or_default())?;
        Ok(self)
    }
}

impl PlanArgs {
    pub fn checked(self) -> Result<Self> {
        if self.size < SIZE_MIN {
            return Err(format!("--size: {} bytes are too few; at least 1MB", self.size).into());
        }
        if self.pace < ENTRY_BYTES {
            return Err(format!("--pace: less than an entry of {ENTRY_BYTES} bytes").into());
        }
        check_memory(self.memory)?;
        check_space(&self.output.dir, self.size)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with these arguments.
    fn complaint(arguments: &[&str]) -> Option<String> {
        let line = std::iter::once("curves").chain(arguments.iter().copied());
        let command = match CommandLine::try_parse_from(line) {
            Ok(line) => line.command,
            Err(e) => return Some(e.to_string()),
        };
        let checked = match command {
            Command::Scaling(args) => args.checked().map(drop),
            Command::Growth(args) => args.checked().map(drop),
            Command::Plan(args) => args.checked().map(drop),
            Command::Report { .. } | Command::Child { .. } => Ok(()),
        };
        checked.err().map(|e| e.to_string())
    }

    #[test]
    fn defaults_are_right() {
        for command in ["scaling", "growth"] {
            assert_eq!(complaint(&[command]), None);
        }
        assert_eq!(complaint(&["plan", "--size", "1MB"]), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (arguments, named) in [
            (&["growth", "--sizes", "10MB,10MB"][..], "--sizes"),
            (&["growth", "--sizes", "30MB,10MB"], "--sizes"),
            (&["growth", "--sizes", "10"], "--sizes"),
            (&["growth", "--sizes", "10XB"], "XB"),
            (&["growth", "--sizes", "1MB,1000000TB"], "are free"),
            (&["growth", "--seconds", "0"], "--seconds"),
            (&["growth", "--seconds", "NaN"], "--seconds"),
            (&["growth", "--memory", "1MiB"], "--memory"),
            (&["growth", "--dir", "/there/is/none"], "--dir"),
            (&["scaling", "--cores", "0"], "--cores 0"),
            (&["scaling", "--cores", "1000000"], "--cores 1000000"),
            (&["scaling", "--cores", "1,1"], "twice"),
            (&["scaling", "--ranges", "4,0"], "--ranges 0"),
            (&["scaling", "--rounds", "0"], "--rounds"),
            (&["scaling", "--entries", "10"], "--entries"),
            (&["plan", "--pace", "10"], "--pace"),
            (&["plan", "--size", "1kB"], "--size"),
        ] {
            let complaint = complaint(arguments).unwrap_or_default();
            assert!(complaint.contains(named), "{arguments:?}: {complaint}");
        }
    }

    #[test]
    fn cores_double_up_to_all() {
        assert_eq!(doubled_up_to(1), [1]);
        assert_eq!(doubled_up_to(2), [1, 2]);
        assert_eq!(doubled_up_to(6), [1, 2, 4, 6]);
        assert_eq!(doubled_up_to(8), [1, 2, 4, 8]);
    }
}
