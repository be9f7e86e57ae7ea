//! Leveled compaction: when a compaction is due, which tables it takes, and the merge itself.
//!
//! The policy (`options`, `score`, `pick`, `manual`) is pure: it maps a version to a `Job`. A
//! running job holds its claim (`claims`) until it ends. The execution (`merge`, one slice of work
//! after another, and `flush`) writes tables through a `TableSink`. The actors decide which thread
//! runs it and who installs the result.
//!
//! Guarantees: a job never skips an older table of L0 that it overlaps (oldest-closed). Its output
//! never overlaps another table of its level (INVARIANT(one-run-per-level)). It drops a tombstone
//! only if no entry older than the job can have the tombstone's key.

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
pub use job::{Inputs, Job, JobTask, LandingMode};
pub(crate) use landing::superseded;
pub use manual::{ManualCompaction, ManualStep};
pub use merge::{Merge, MergeOutcome};
pub use options::CompactionOptions;
pub use pick::{Situation, landing_of, pick, quiet_since_ms};
pub use rest::quiet_needed_ms;
pub use rounds::Rounds;
pub use score::score;
pub use sink::TableSink;
pub use why::{Choice, Why};
