//! The log's syncer: writes and syncs what was appended, and answers those who wait for that. One
//! `fdatasync` answers everybody who was appended before it began, while the next group forms
//! behind it.
//!
//! Owns:      the group that it has taken (`group_commit` decides what is in it, and what has to be
//!            synced).
//! Receives:  the signal that somebody waits for the log (`LogDue::sync`), and who that is
//!            (`Durable`).
//! Sends:     complete segments to the keeper (`Log::retire`).
//! Publishes: the durable point.
//! Stops:     after the log was closed; when a write or a sync has failed for good, and the engine
//!            with it.

mod run;

use crate::failure::Failures;
use crate::log_writer::Log;
use crate::range_owner::Topology;
use crate::runtime::Environment;
use std::sync::Arc;

/// The actor. Driven by a thread of its own: it syncs the log.
#[derive(Debug)]
pub struct LogSyncer {
    environment: Arc<Environment>,
    failures: Arc<Failures>,
    topology: Arc<Topology>,
    wal: Arc<Log>,
}

impl LogSyncer {
    /// A syncer of `wal`, who answers what `topology` shows.
    pub fn new(environment: Arc<Environment>, topology: Arc<Topology>, wal: Arc<Log>) -> Self {
        let failures = Arc::clone(&topology.failures);
        Self { environment, failures, topology, wal }
    }
}
