//! SluiceDB beside other embedded engines: rates, latencies, how late a heartbeat on the same
//! runtime is, processor time, write and space amplification, memory, opening and closing.
//!
//! ```sh
//! cargo build --release -p sluicedb-bench-peers --features rust-peers,lmdb   # two minutes
//! export LIBCLANG_PATH=/usr/lib/llvm-14/lib
//! export BINDGEN_EXTRA_CLANG_ARGS=-I/usr/lib/gcc/x86_64-linux-gnu/12/include
//! cargo build --release -p sluicedb-bench-peers --features all-peers         # RocksDB: ten more
//! target/release/peers --engines fjall,LMDB,redb,SurrealKV                   # five minutes
//! target/release/peers --only put-c16,read --engines fjall --rounds 3
//! target/release/peers --profile full --only read --json full.json           # in pieces
//! target/release/peers report full.json --svg full.svg --csv full.csv
//! ```
//!
//! Every group of rows is a process of its own for each engine: so memory, processor time and the
//! heartbeat are of that engine alone. The engines take turns, group by group and round by round,
//! and who begins changes. Directories are deleted afterwards.
//!
//! Deliberately not here: deletes, scans from the disk, more than one database in a process.
#![allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock, and spawns clients")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what it measures is what it prints")]
#![allow(unreachable_pub, missing_docs, reason = "a binary has no public items")]
#![allow(clippy::large_futures, reason = "a handful of futures, each once per process")]

mod args;
mod chart;
mod child;
mod engines;
mod figures;
mod groups;
mod heartbeat;
mod profile;
mod report;
mod run;
mod table;

use args::{Command, CommandLine};
use clap::Parser;
use run::Runs;
use sluicedb_bench_peers::Result;

fn main() -> Result<()> {
    let CommandLine { command, run } = CommandLine::parse();
    let (runs, chart) = match command {
        Some(Command::Child { engine, group, step, dir, profile }) => {
            let known = engines::named(&engine).ok_or("no such engine")?;
            let job =
                child::Job { engine: known.name, group, step, dir, profile: profile.profile() };
            return known.run.ok_or("not built in")?(&job);
        }
        Some(Command::Report { files, chart, csv }) => {
            let mut all = Runs::read(&files[0])?;
            for file in &files[1..] {
                all.add(Runs::read(file)?)?;
            }
            if let Some(file) = csv {
                std::fs::write(file, report::semicolon_separated(&all))?;
            }
            (all, chart)
        }
        None => (run::run(&run)?, run.chart),
    };
    print!("{}", report::markdown(&runs));
    if let Some(file) = chart.svg {
        chart::draw(&runs, &file)?;
    }
    Ok(())
}
