//! What the checkpointer is told.

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
    /// Of what.
    pub view: View,
    /// Where.
    pub dir: PathBuf,
    /// What may be there.
    pub mode: Mode,
    /// Where it is shown how far it has come.
    pub shown: Arc<CopyWatch>,
    /// Answered when it is there for good. Once nobody waits for the answer any more it is off,
    /// unless it is about to count.
    pub reply: Reply<Result<Counts, Failure>>,
}

/// How far a checkpoint has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Bytes and tables so far.
    pub counts: Counts,
    /// There will be no more: it is done, or off.
    pub is_over: bool,
}

/// Shows it.
pub type CopyWatch = Watch<CopyProgress>;
