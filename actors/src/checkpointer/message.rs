//! The checkpointer's message.

use crate::failure::Failure;
use crate::progress::ProgressWatch;
use sluicedb_kernel::reply::Reply;
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
    pub shown: Arc<ProgressWatch>,
    /// Told when the checkpoint is durable. Once the caller has dropped it the order is cancelled,
    /// unless the checkpoint is about to be published.
    pub reply: Reply<Result<Counts, Failure>>,
}
