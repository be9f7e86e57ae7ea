//! The `sluice` binary from outside, as a script sees it: every subcommand, exit codes, JSON,
//! messages, round trips.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::format_collect,
    clippy::format_push_string,
    reason = "tests of a binary: they make files, run processes and build small texts"
)]

mod bench;
mod bulk;
mod checkpoint;
mod damage;
mod demo;
mod import;
mod inspect;
mod keyspaces;
mod points;
mod round_trip;
mod run;
