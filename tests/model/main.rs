//! Random histories against an ordered map: every answer of the database is compared.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    clippy::case_sensitive_file_extension_comparisons,
    clippy::needless_pass_by_value,
    reason = "a test may panic and print"
)]

#[path = "../kit/mod.rs"]
mod kit;

// One history, carried out on a database and on the model at once.
mod case;
// The same history under other options gives the same answers.
mod metamorphic;
// The operations and how they are drawn.
mod operation;
// Many histories, which must exercise all structures.
mod random;
// Makes a failing history short.
mod shrink;
// Counts of what a run has exercised.
mod tally;
