//! The progress of a long operation, to look at or to wait for.

use sluicedb_actors::progress::{Progress as Done, ProgressWatch as Shows};
use sluicedb_kernel::watch::Watcher;
use std::fmt;
use std::sync::Arc;

/// How far a checkpoint or a compaction has come.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// For a checkpoint: bytes that were linked, copied or written, or existed already. For a
    /// compaction: bytes of the tables that were merged, with the finished share of running merges.
    pub done_bytes: u64,
    /// The same, plus what is still to be done. 0 before it has begun; a compaction begins once the
    /// memtables are flushed. Concurrent writes may raise it for a compaction.
    pub total_bytes: u64,
}

/// Held by whoever wants the operation. Dropping it tells the watches that it has ended.
pub(crate) struct Shown(pub(crate) Arc<Shows>);

impl Shown {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shows::new(Done::default())))
    }

    pub(crate) fn watch(&self) -> ProgressWatch {
        ProgressWatch { watcher: self.0.watcher(), is_over: false }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.update(|progress| Some(Done { is_over: true, ..*progress }));
    }
}

/// A watch on the progress of a [checkpoint](crate::Checkpoint::progress) or a
/// [compaction](crate::Compaction::progress). It does not keep the operation going.
pub struct ProgressWatch {
    watcher: Watcher<Done>,
    is_over: bool,
}

impl ProgressWatch {
    /// The current progress, which counts as seen. After the end, the last progress.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path().join("my.db")).await?;
    /// db.put("user:1", "Ada").await?;
    /// let checkpoint = db.checkpoint(dir.path().join("copy"));
    /// let mut progress = checkpoint.progress();
    /// checkpoint.await?;
    /// let progress = progress.latest();
    /// assert_eq!(progress.done_bytes, progress.total_bytes);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn latest(&mut self) -> Progress {
        let Done { done_bytes, total_bytes, is_over } = self.watcher.get();
        self.is_over = is_over;
        Progress { done_bytes, total_bytes }
    }

    /// Waits until the progress differs from what `latest` or `changed` returned last. `None` once
    /// the operation has ended or was dropped.
    ///
    /// # Cancellation
    /// Nothing is missed: the next call returns at once.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path().join("my.db")).await?;
    /// db.put("user:1", "Ada").await?;
    /// let checkpoint = db.checkpoint(dir.path().join("copy"));
    /// let mut progress = checkpoint.progress();
    /// let shown = tokio::spawn(async move {
    ///     while let Some(progress) = progress.changed().await {
    ///         println!("{} of {} bytes", progress.done_bytes, progress.total_bytes);
    ///     }
    /// });
    /// checkpoint.await?;
    /// shown.await.unwrap(); // it ends with the checkpoint
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn changed(&mut self) -> Option<Progress> {
        if self.is_over {
            return None;
        }
        let Done { done_bytes, total_bytes, is_over } = self.watcher.changed().await;
        self.is_over = is_over;
        (!is_over).then_some(Progress { done_bytes, total_bytes })
    }
}

impl fmt::Debug for ProgressWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressWatch").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}
