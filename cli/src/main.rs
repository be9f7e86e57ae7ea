//! `sluice`: import, export, inspect, verify and bench SluiceDB databases from a shell.
//!
//! Promises to scripts: data on stdout, messages on stderr, stable exit codes (see [`outcome`]),
//! `--json` on everything that prints data, progress bars only on terminals, `NO_COLOR` respected.
//! Uses the public API of `sluicedb` and nothing behind it.
#![allow(
    clippy::disallowed_methods,
    reason = "an application, not the engine: it reads the user's files, spawns and measures time"
)]
#![allow(
    unreachable_pub,
    missing_docs,
    reason = "a binary has no public items; clap turns field docs into help text"
)]

mod args;
mod bench;
mod bulk;
mod checkpoint;
mod compact;
mod demo;
mod export;
mod import;
mod inspect;
mod keyspaces;
mod levels;
mod machine;
mod outcome;
mod output;
mod point;
mod progress;
mod random;
mod ranges;
mod scan;
mod store;
mod text;
mod units;

use args::{Args, Command};
use clap::Parser;
use outcome::{Exit, Failure, Result};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(usage) => {
            // Help and version are answers; everything else is a usage error. A closed stream
            // leaves nobody to tell.
            let _ = usage.print();
            return if usage.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::message(&format!("error: cannot start threads: {error}"));
            return Exit::Failed.into();
        }
    };
    match runtime.block_on(Box::pin(run(args.command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { message: None, exit }) => exit.into(),
        Err(Failure { message: Some(message), exit }) => {
            output::message(&format!("error: {message}"));
            exit.into()
        }
    }
}

async fn run(command: Command) -> Result {
    match command {
        Command::Import(args) => import::run(args).await,
        Command::Export(args) => export::run(args).await,
        Command::Get(args) => point::get(args).await,
        Command::Put(args) => point::put(args).await,
        Command::Del(args) => point::del(args).await,
        Command::Scan(args) => scan::run(args).await,
        Command::Stats(args) => inspect::stats(args).await,
        Command::Levels(args) => levels::run(args).await,
        Command::Verify(args) => inspect::verify(&args),
        Command::Compact(args) => compact::run(args).await,
        Command::Checkpoint(args) => checkpoint::run(args).await,
        Command::Ingest(args) => bulk::ingest(args).await,
        Command::Excise(args) => bulk::excise(args).await,
        Command::Replace(args) => bulk::replace(args).await,
        Command::Ranges(args) => ranges::ranges(args).await,
        Command::Keyspaces(args) => keyspaces::run(args).await,
        Command::Split(args) => ranges::split(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::DemoChild(args) => demo::crash::child(args).await,
        Command::Bench(args) => bench::run(args).await,
    }
}
