//! What the engine has done since it was opened. Each actor counts for itself.

use crate::bulk_worker::BulkCounts;
use crate::checkpointer::CheckpointCounts;
use crate::compaction_planner::CompactionCounts;
use crate::log_writer::LogCounts;
use crate::range_planner::RangeCounts;
use crate::version_manager::VersionCounts;
use std::sync::Arc;

/// The actors' counts. [`crate::admission::Accounts`] counts waits, and
/// [`crate::failure::attempts::Attempts`] failed jobs.
#[derive(Debug)]
pub struct Counters {
    /// Counts of the log and its threads.
    pub log: Arc<LogCounts>,
    /// Counts of the version manager.
    pub versions: Arc<VersionCounts>,
    /// Counts of the range planner.
    pub ranges: Arc<RangeCounts>,
    /// Counts of the checkpointer.
    pub checkpoints: Arc<CheckpointCounts>,
    /// Counts of the bulk worker.
    pub bulk: Arc<BulkCounts>,
    /// Counts of the compaction planner and its workers.
    pub compactions: Arc<CompactionCounts>,
}
