//! How far something long has come that a caller asked for.

use sluicedb_kernel::watch::Watch;

/// The progress of a checkpoint or of a manual compaction, in bytes of tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are done. For a compaction, the finished share of running merges is included.
    pub done_bytes: u64,
    /// The same, plus what is still to be done. Concurrent writes may raise it for a compaction.
    pub total_bytes: u64,
    /// True when it is done or cancelled. It does not change any more.
    pub is_over: bool,
}

/// Shows the progress.
pub type ProgressWatch = Watch<Progress>;
