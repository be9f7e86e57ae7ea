//! The log's durable point, for holders that must not keep the log or the engine alive.

use super::LogDue;
use crate::failure::health::Health;
use crate::failure::{Concern, Failure, WriteFailure};
use crate::group_commit::durable::Durable;
use sluicedb_kernel::reply::reply;
use sluicedb_storage::key::Seqno;
use std::fmt;
use std::sync::Arc;

/// Costs three reference counts to clone. May outlive the engine.
#[derive(Clone)]
pub struct SyncRequest {
    pub(super) durable: Arc<Durable>,
    pub(super) due: Arc<LogDue>,
    pub(super) health: Health<Concern, Failure>,
}

impl fmt::Debug for SyncRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncRequest").finish_non_exhaustive()
    }
}

impl SyncRequest {
    /// When this returns, everything up to `upto` is visible and synced. `upto` must have been
    /// stamped.
    ///
    /// # Errors
    /// When the log cannot be synced, or the engine stops before it is.
    ///
    /// # Cancellation
    /// The log is synced all the same.
    pub async fn upto(&self, upto: Seqno) -> Result<(), WriteFailure> {
        if self.durable.synced() >= upto {
            return Ok(());
        }
        let (reply, answer) = reply();
        self.durable.register_sync(upto, reply)?;
        self.due.sync.set();
        match answer.await {
            Ok(synced) => synced.map(drop),
            Err(_) => Err(WriteFailure::unknown(self.health.why_stopped())),
        }
    }
}
