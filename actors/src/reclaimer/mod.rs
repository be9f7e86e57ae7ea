//! The reclaimer: it reclaims the memory of overwritten entries where no write does it.
//!
//! Owns:      nothing.
//! Receives:  the signals `reclaim_due` and `restock_due` of [`Memory`], from range owners; the
//!            latter also from whoever drops a memtable.
//! Sends:     nothing; enters range owners' seats.
//! Publishes: nothing.
//! Stops:     when the engine has stopped.
//!
//! While a range is written to, each batch reclaims a little. When the writes stop, a compaction of
//! the buffer may be half done, and would keep up to twice its memory for ever. The reclaimer
//! finishes it. It also stocks the chunk pool, and frees chunks for which the pool has no room,
//! because both are slow.

mod run;

use crate::failure::Failures;
use crate::range_owner::{Memory, Topology};
use crate::runtime::Environment;
use std::sync::Arc;

/// The actor. A thread of its own drives it, because the first touch of memory, and freeing it,
/// take time.
#[derive(Debug)]
pub struct Reclaimer {
    environment: Arc<Environment>,
    failures: Arc<Failures>,
    topology: Arc<Topology>,
    memory: Arc<Memory>,
}

impl Reclaimer {
    /// A reclaimer for the memtables of `topology`.
    pub fn new(
        environment: Arc<Environment>,
        topology: Arc<Topology>,
        memory: Arc<Memory>,
    ) -> Self {
        let failures = Arc::clone(&topology.failures);
        Self { environment, failures, topology, memory }
    }
}
