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
// Source tables that a replacement adopts as they are.
mod adopted;
mod bulk;
mod bulk_worker;
// Excised spans, exact to the key.
mod excise;
// Readers of spans that are replaced together.
mod generations;
// Ingested tables beside all other work.
mod ingest;
// Checkpoints beside all other work.
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
// Actors that panic.
mod failure;
// Overwritten entries.
mod hot_keys;
// Parts of a database with keys of their own.
mod keyspaces;
// Landings.
mod landings;
// The number of a key's last write.
mod last_seqno;
mod lent;
mod log_retention;
mod long_values;
// flush, sync, compact.
mod maintenance;
mod open;
mod options;
// A batch that is read before it is written.
mod own_writes;
// Holders of replaced files.
mod pins;
// Memory in front of the tables: phases, order, bounds, and which writers wait.
mod overlay;
// Calls that complete on the first poll, and tight loops that let others run.
mod polls;
// Pressure: how near writers are to waiting.
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
// Reads of one entry, and seeks of a scan.
mod seek;
#[cfg(feature = "serde")]
mod serde;
mod snapshot;
mod stats;
// Pipelining with tickets.
mod submit;
// The bound on open tables.
mod tables;
mod tombstones;
mod turns;
// Writers that wait and are not polled.
mod unpolled;
// Wakers that panic, sleep, or use the database.
mod wakers;
// Statistics of compactions, space and waits.
mod work;
