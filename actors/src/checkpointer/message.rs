//! The checkpointer's message.

use crate::failure::Failure;
use sluicedb_kernel::reply::Reply;
use sluicedb_kernel::watch::Watch;
use sluicedb_storage::checkpoint::{Counts, Mode};
use sluicedb_storage::view::View;
use std::path::PathBuf;
use std::sync::Arc;

/// Make a checkpoint.
#[derive(Debug)]
pub struct CheckpointOrder {
    /// What the checkpoint shows.
    pub view: View,
    /// The checkpoint's directory.
    pub dir: PathBuf,
    /// What the directory may hold already.
    pub mode: Mode,
    /// Shows the progress.
    pub shown: Arc<CopyWatch>,
    /// Told when the checkpoint is durable. Once the caller has dropped it the order is cancelled,
    /// unless the checkpoint is about to be published.
    pub reply: Reply<Result<Counts, Failure>>,
}

/// The progress of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Tables and their bytes, so far.
    pub counts: Counts,
    /// True when the checkpoint is made, or is cancelled. The progress does not change any more.
    pub is_over: bool,
}

/// Shows the progress of a checkpoint.
pub type CopyWatch = Watch<CopyProgress>;
