//! How far something long has come, to look at and to wait on.

use sluicedb_actors::checkpointer::message::CopyProgress;
use sluicedb_actors::compaction_planner::message::Progress as MergeProgress;
use sluicedb_kernel::watch::Watcher;
use sluicedb_storage::checkpoint::Counts;
use std::fmt;

/// How far a checkpoint or a compaction has come.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Of a checkpoint: bytes that are linked, copied, written or were there. Of a compaction:
    /// bytes of the tables that are merged, and a share of each that is being merged.
    pub done_bytes: u64,
    /// Those, and what is to be done yet. 0 before it has begun, which for a compaction is when the
    /// memtables are flushed. Writes that come meanwhile may add some to a compaction.
    pub total_bytes: u64,
}

/// And whether that is all.
fn of_checkpoint(CopyProgress { counts, is_over, .. }: CopyProgress) -> (Progress, bool) {
    let Counts { done_bytes, total_bytes, .. } = counts;
    (Progress { done_bytes, total_bytes }, is_over)
}

fn of_compaction(progress: MergeProgress) -> (Progress, bool) {
    let MergeProgress { done_bytes, total_bytes, is_over, .. } = progress;
    (Progress { done_bytes, total_bytes }, is_over)
}

/// A watch on how far a [checkpoint](crate::Checkpoint::progress) or a
/// [compaction](crate::Compaction::progress) has come. It does not keep it going.
pub struct ProgressWatch {
    of: Of,
    is_over: bool,
}

enum Of {
    Checkpoint(Watcher<CopyProgress>),
    Compaction(Watcher<MergeProgress>),
}

impl ProgressWatch {
    pub(crate) fn of_checkpoint(watcher: Watcher<CopyProgress>) -> Self {
        Self { of: Of::Checkpoint(watcher), is_over: false }
    }

    pub(crate) fn of_compaction(watcher: Watcher<MergeProgress>) -> Self {
        Self { of: Of::Compaction(watcher), is_over: false }
    }

    /// How far it has come, which counts as seen. After its end: how far it had come.
    pub fn latest(&mut self) -> Progress {
        let (progress, is_over) = match &mut self.of {
            Of::Checkpoint(watcher) => of_checkpoint(watcher.get()),
            Of::Compaction(watcher) => of_compaction(watcher.get()),
        };
        self.is_over = is_over;
        progress
    }

    /// Waits until it has come further than `latest` or `changed` returned last. `None` once it has
    /// ended, or was dropped.
    ///
    /// # Cancellation
    /// Nothing is missed: the next call returns at once.
    pub async fn changed(&mut self) -> Option<Progress> {
        if self.is_over {
            return None;
        }
        let (progress, is_over) = match &mut self.of {
            Of::Checkpoint(watcher) => of_checkpoint(watcher.changed().await),
            Of::Compaction(watcher) => of_compaction(watcher.changed().await),
        };
        self.is_over = is_over;
        (!is_over).then_some(progress)
    }
}

impl fmt::Debug for ProgressWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressWatch").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}
