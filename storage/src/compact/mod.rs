//! Leveled compaction: when, what, and the merge itself.
//!
//! Policy (`options`, `score`, `pick`, `manual`) is pure: a version in, a `Job` out. What running
//! jobs hold (`claims`) is theirs, and ends with them. Execution (`merge`, slice by slice, and
//! `flush`) writes tables through a `TableSink`; who calls it on which thread, and who installs the
//! result, is decided in the actors.
//!
//! Guarantees: a job never skips an older overlapping table of L0 (oldest-closed), its
//! output never overlaps another table of its level (INVARIANT(one-run-per-level)), and a tombstone
//! is dropped only when no entry older than the job can have its key.

mod agenda;
mod backlog;
mod claims;
mod debt;
mod flush;
mod job;
mod landing;
mod manual;
mod merge;
mod options;
mod pick;
mod reshard;
mod rest;
mod rewrite;
mod rounds;
mod score;
mod sink;
mod why;

pub use agenda::Agenda;
pub use backlog::ShardView;
pub use claims::{ClaimedJob, Claims};
pub use debt::{debt, live_bytes};
pub use flush::write_tables;
pub use job::{IngestMode, Inputs, Job, JobTask};
pub(crate) use landing::superseded;
pub use manual::{Order, Step};
pub use merge::{Merge, MergeOutcome};
pub use options::CompactionOptions;
pub use pick::{Situation, landing_of, pick, quiet_since_ms};
pub use rest::takes_ms as rest_takes_ms;
pub use rounds::Rounds;
pub use score::score;
pub use sink::TableSink;
pub use why::{Choice, Why};
