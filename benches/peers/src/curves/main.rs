//! How SluiceDB scales with cores and ranges, and what its operations cost as its data grows. No
//! other engine takes part: `peers` puts it beside others.
//!
//! ```sh
//! cargo build --release -p sluicedb-bench-peers --bin curves
//! target/release/curves scaling --json curves.json                  # four minutes on two cores
//! target/release/curves growth --json curves.json                   # one minute
//! target/release/curves growth --sizes 10MB,100MB,1GB,10GB          # as far as the disk reaches
//! target/release/curves plan --json curves.json                     # ten minutes, 25 GB
//! target/release/curves report curves.json --scaling-svg scaling.svg --growth-svg growth.svg
//! ```
//!
//! Databases are made below `--dir`, and deleted. What is read is in memory: in the engine's cache
//! or in the system's. Keys have 16 bytes and are hashed, values have 100 and do not compress.
//!
//! Deliberately not here: reads from the disk, deletes, synced writes.
#![allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock, and spawns clients")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what it measures is what it prints")]
#![allow(unreachable_pub, missing_docs, reason = "a binary has no public items")]
#![allow(clippy::large_futures, reason = "a handful of futures, each once per process")]

mod args;
mod chart;
mod fit;
mod growth;
mod plan;
mod report;
mod scaling;

use args::{Command, CommandLine};
use clap::Parser;
use report::{Curves, Run};
use sluicedb_bench_peers::Result;
use sluicedb_bench_peers::machine::Machine;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(CommandLine::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("curves: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Child { cores, ranges, dir, rows } => scaling::measure(cores, ranges, &dir, rows),
        Command::Scaling(args) => {
            let args = args.checked()?;
            let run =
                Run { machine: Machine::here(&args.output.dir), figures: scaling::run(&args)? };
            let curves = Curves { scaling: Some(run), ..Curves::default() };
            show(curves, args.output.json.as_deref(), args.svg.as_deref(), None)
        }
        Command::Growth(args) => {
            let args = args.checked()?;
            let run =
                Run { machine: Machine::here(&args.output.dir), figures: growth::run(&args)? };
            let curves = Curves { growth: Some(run), ..Curves::default() };
            show(curves, args.output.json.as_deref(), None, args.svg.as_deref())
        }
        Command::Plan(args) => {
            let args = args.checked()?;
            let run = Run { machine: Machine::here(&args.output.dir), figures: plan::run(&args)? };
            let curves = Curves { plan: Some(run), ..Curves::default() };
            show(curves, args.output.json.as_deref(), None, None)
        }
        Command::Report { file, scaling_svg, growth_svg } => {
            show(Curves::read(&file)?, None, scaling_svg.as_deref(), growth_svg.as_deref())
        }
    }
}

/// Prints the tables, and writes what is wanted.
fn show(
    curves: Curves,
    json: Option<&Path>,
    scaling_svg: Option<&Path>,
    growth_svg: Option<&Path>,
) -> Result<()> {
    print!("{}", curves.markdown());
    if let Some((file, run)) = scaling_svg.zip(curves.scaling.as_ref()) {
        report::draw_scaling(&run.figures, file)?;
    }
    if let Some((file, run)) = growth_svg.zip(curves.growth.as_ref()) {
        report::draw_growth(&run.figures, file)?;
    }
    if let Some(file) = json {
        curves.write_into(file)?;
    }
    Ok(())
}
