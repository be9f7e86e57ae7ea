//! What the compactor is told, beside the signal that a version changed.

use crate::failure::Failure;
use crate::kernel::reply::Reply;
use sluicedb_storage::key::Span;

/// Messages to the compactor.
#[derive(Debug)]
pub enum CompactorMessage {
    /// Merge everything in `span` down to the bottom.
    Compact {
        /// Which keys.
        span: Span,
        /// Answered when it is done.
        reply: Reply<Result<(), Failure>>,
    },
}
