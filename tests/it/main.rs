//! What the documentation promises, checked through the public API alone.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    clippy::case_sensitive_file_extension_comparisons,
    clippy::needless_pass_by_value,
    reason = "a test may panic, print, spawn and look at files"
)]

#[path = "../kit/mod.rs"]
mod kit;

// Databases for tests: on a temporary directory, on a simulated disk, held at a chosen point.
mod harness;

// Room for writes: waiting for it, refusing to, giving up in time.
mod admission;
// Batches: whole or not at all, and what is refused before anything happens.
mod batch;
// Tables of another database that are taken over as they are.
mod adopted;
mod bulk;
mod bulk_worker;
// Spans that are cut out, to the key.
mod excise;
// What readers see of spans that are replaced together.
mod generations;
// Tables that come in beside everything else.
mod ingest;
// A copy while everything goes on.
mod checkpoint;
// Dropped futures, dropped databases, dropped runtimes.
mod cancel;
mod close;
mod concurrency;
// The directory: lasting, private, and what is not a file in it.
mod directory;
// Damaged files: named, never served, never made worse.
mod corruption;
mod durability;
// Actors that break.
mod failure;
// Overwritten entries.
mod hot_keys;
// Parts of a database with keys of their own.
mod keyspaces;
// flush, sync, compact.
// What waits in front of a level.
mod landings;
mod log_retention;
mod maintenance;
mod open;
mod options;
// A batch that is read before it is written.
mod own_writes;
// Who holds files that are replaced.
mod pins;
// Memory in front of the tables: phases, order, bounds, and who waits for whom.
mod overlay;
// What completes on the first poll, and that a tight loop lets others run.
mod polls;
// How near to waiting, as a value.
mod pressure;
// Other processes: forked ones, and programs started beside the database.
mod process;
mod put_get;
// Several key ranges: routed, kept, independent of each other.
mod ranges;
// Ranges that are split and merged by themselves.
mod range_policy;
// Open for reading only.
mod read_only;
mod runtimes;
mod scan;
// Reads that look at one entry, or go on somewhere else.
mod seek;
#[cfg(feature = "serde")]
mod serde;
mod snapshot;
mod stats;
// Pipelining with tickets.
mod submit;
// Which tables are open.
mod tables;
// Writers that wait and are not polled.
mod unpolled;
// Wakers that panic, sleep, or use the database.
mod wakers;
// What was done, what it costs, and why writers waited.
mod work;
