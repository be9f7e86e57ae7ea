//! The arguments of `demo` and of the child process that it kills.

use crate::units::{parse_count, parse_size};
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Import this folder [default: this checkout and the cargo registry's sources]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Import at most this much
    #[arg(long, value_name = "SIZE", default_value = "300MiB", value_parser = parse_size)]
    pub cap: u64,
    /// Store at most this many lines as entries of their own
    #[arg(long, value_name = "N", default_value = "400k", value_parser = parse_count)]
    pub lines: u64,
    /// Tasks that write and check at the same time
    #[arg(
        long, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=64)
    )]
    pub tasks: u16,
    /// How often a writing process is killed
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub kills: u32,
    /// Memory for write buffers and cache; small, so that the disk is used
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    pub memory: u64,
    /// Make the database here, and keep it; must not exist
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Clone, Debug)]
pub struct ChildArgs {
    pub path: PathBuf,
    #[arg(long)]
    pub round: u32,
    #[arg(long)]
    pub tasks: u16,
    #[arg(long)]
    pub memory: u64,
}
