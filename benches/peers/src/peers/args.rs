//! The command line.

use crate::groups::Group;
use crate::profile::{Profile, Size};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(about = "SluiceDB beside other embedded engines", args_conflicts_with_subcommands = true)]
pub struct CommandLine {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints the tables of runs that were written with --json.
    Report {
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        chart: ChartArgs,
        /// The medians of all rows as values with semicolons between.
        #[arg(long)]
        csv: Option<PathBuf>,
    },
    /// One step of one group with one engine.
    #[command(hide = true)]
    Child {
        engine: String,
        group: Group,
        step: usize,
        dir: PathBuf,
        #[command(flatten)]
        profile: ProfileArgs,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub struct ProfileArgs {
    /// How much is done.
    #[arg(long, value_enum, default_value = "quick")]
    pub profile: Size,
    /// Seconds per row, at most; rows that fill get five times as many [default: by profile]
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Bytes of a value, at most 64 KiB [default: 100]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64 << 10))]
    pub value_bytes: Option<u32>,
}

impl ProfileArgs {
    pub fn profile(self) -> Profile {
        Profile::new(self.profile, self.seconds, self.value_bytes.map(|bytes| bytes as usize))
    }
}

#[derive(Debug, Args)]
pub struct ChartArgs {
    /// Draw the ratios there.
    #[arg(long)]
    pub svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub profile: ProfileArgs,
    /// Groups of rows [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Group>,
    /// Engines besides SluiceDB [default: all that are built in]
    #[arg(long, value_delimiter = ',')]
    pub engines: Option<Vec<String>>,
    /// How often everything is done; the tables have medians.
    #[arg(long, default_value_t = 1)]
    pub rounds: usize,
    /// Where databases are made, and deleted.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
    /// Write the figures there. What the file has from earlier runs stays and counts as well, so a
    /// long run can be made in pieces.
    #[arg(long)]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub chart: ChartArgs,
}
