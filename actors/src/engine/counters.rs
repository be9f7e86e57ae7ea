//! What the engine has done since it was opened: each actor counts for itself.

use crate::bulk_worker::BulkCounts;
use crate::checkpointer::CheckpointCounts;
use crate::compaction_planner::CompactionCounts;
use crate::log_writer::LogCounts;
use crate::range_planner::RangeCounts;
use crate::version_manager::VersionCounts;
use std::sync::Arc;

/// The actors' counts. Those of waits are in [`crate::admission::Accounts`], those of failed jobs
/// in [`crate::failure::attempts::Attempts`].
#[derive(Debug)]
pub struct Counters {
    /// Of the log and its threads.
    pub log: Arc<LogCounts>,
    /// Of the version manager.
    pub versions: Arc<VersionCounts>,
    /// Of the range planner.
    pub ranges: Arc<RangeCounts>,
    /// Of the checkpointer.
    pub checkpoints: Arc<CheckpointCounts>,
    /// Of the bulk worker.
    pub bulk: Arc<BulkCounts>,
    /// Of the compaction planner and its workers.
    pub compactions: Arc<CompactionCounts>,
}
