//! What the flush worker is told.

use sluicedb_storage::version::RangeId;

/// Messages to the flush worker.
#[derive(Debug)]
pub enum FlushMessage {
    /// The range has a frozen memtable.
    Flush {
        /// Which range.
        range: RangeId,
    },
}
