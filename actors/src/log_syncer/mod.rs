//! The log syncer: writes and syncs what was appended, and answers those who wait for it. One
//! `fdatasync` answers everybody whose record was appended before it began; meanwhile the next
//! group forms.
//!
//! Owns:      the group that it has taken (`group_commit` decides what is in it, and what must be
//!            synced).
//! Receives:  the signal that somebody waits for the log (`LogDue::sync`), and the waiters
//!            (`Durable`).
//! Sends:     complete segments to the keeper (`Log::retire`).
//! Publishes: the durable sequence number.
//! Stops:     after the log was closed; or when a write or a sync has failed for good, which stops
//!            the engine.

mod run;

use crate::failure::Failures;
use crate::log_writer::Log;
use crate::range_owner::Topology;
use crate::runtime::Environment;
use std::sync::Arc;

/// The actor. A thread of its own drives it, because it syncs the log.
#[derive(Debug)]
pub struct LogSyncer {
    environment: Arc<Environment>,
    failures: Arc<Failures>,
    topology: Arc<Topology>,
    wal: Arc<Log>,
}

impl LogSyncer {
    /// A syncer of `wal`. It answers a write only when `topology` shows it.
    pub fn new(environment: Arc<Environment>, topology: Arc<Topology>, wal: Arc<Log>) -> Self {
        let failures = Arc::clone(&topology.failures);
        Self { environment, failures, topology, wal }
    }
}
