//! What a crash, a failing disk or a full one may do to a database, and what they may not.
//!
//! Everything but `kill` runs on a simulated disk, under a simulator of threads and time.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    clippy::case_sensitive_file_extension_comparisons,
    clippy::needless_pass_by_value,
    reason = "a test may panic, print and look at files"
)]

#[path = "../kit/mod.rs"]
mod kit;

// A crash or a fault at every operation of a checkpoint.
mod checkpoints;
// A power cut at every operation of the disk, and at those of the recovery after it.
mod crash;
// The same seed does the same.
mod deterministic;
// Spans are excised beside all other work.
mod excisions;
// Each operation of the disk fails once, or from then on.
mod faults;
// No space, then space again.
mod full_disk;
// No space for the bytes of the log, then space again.
mod full_log;
// Several writers under one sync, preempted wherever no seat is held.
mod group_commit;
// The record of a run: what was written, what was promised, what a crash may leave of it.
mod history;
// A second keyspace in a history.
mod keyspaces;
// kill -9 of a real process.
mod kill;
// Readers beside all work on landings.
mod landings;
// No space, reported late.
mod no_room;
// A file is put back from an earlier day.
mod older;
// Compactions with a rate limit.
mod pace;
// Spans of keys that are replaced, as steps of a history.
mod replacements;
// No space just when the next manifest or log segment is due.
mod roll_over;
// Memtables are replaced under writers and readers.
mod rotation;
// A close, or a drop, in the middle of a job.
mod shutdown;
// Small databases take little space.
mod small;
// Flushes and compactions that cannot succeed.
mod stuck;
