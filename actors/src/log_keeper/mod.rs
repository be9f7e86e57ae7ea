//! The log keeper: it keeps spare segments ready, as large as the pace of the writes asks for. It
//! recycles or removes obsolete segments. While nothing is written it gives back what only writers
//! need.
//!
//! Owns:      obsolete segments, how many of them are kept, and the size of the next one.
//! Receives:  the signal that the log needs it (`LogDue::keeping`); who waits for obsolete segments
//!            to be collected; who waits for the log to end in a last small segment.
//! Sends:     LogGrown to the version manager.
//! Publishes: how much of the log a recovery would read (`LogCounts`).
//! Stops:     when the engine has stopped; nobody gets a segment from then on.

mod growth;
mod rest;
mod run;
mod state;
#[cfg(test)]
mod tests;

use crate::failure::Failures;
use crate::log_writer::Log;
use crate::range_owner::Topology;
use crate::runtime::Environment;
use crate::version_manager::Files;
use crate::version_manager::message::VersionMessage;
use growth::Growth;
pub(crate) use growth::{FIRST_SEGMENT_BYTES, FULL_DISK_SEGMENT_BYTES};
pub(crate) use rest::remove_segments;
use sluicedb_kernel::mailbox::Mailbox;
use sluicedb_storage::wal::SealedSegment;
use state::Recycling;
use std::sync::Arc;
use std::time::Instant;

/// The actor. A thread of its own drives it, because it zeroes, renames and removes files.
#[derive(Debug)]
pub struct LogKeeper {
    environment: Arc<Environment>,
    failures: Arc<Failures>,
    topology: Arc<Topology>,
    wal: Arc<Log>,
    files: Arc<Files>,
    versions: Mailbox<VersionMessage>,
    /// What the open has replayed, to be removed while nobody wants a segment.
    old_log: Vec<SealedSegment>,
    recycling: Recycling,
    growth: Growth,
    /// Is the log at rest? Then no spare is kept ready, and no segment is kept for recycling.
    resting: bool,
    /// Since when next to nothing is written, and the bytes logged until then.
    quiet: Option<(u64, Instant)>,
}

impl LogKeeper {
    /// A keeper of `wal`, which has just been opened. It removes `old_log`, whose contents are in
    /// tables.
    pub fn new(
        files: Arc<Files>,
        topology: Arc<Topology>,
        wal: Arc<Log>,
        versions: Mailbox<VersionMessage>,
        old_log: Vec<SealedSegment>,
    ) -> Self {
        Self {
            growth: Growth::new(files.environment.config.log_segment_bytes),
            environment: Arc::clone(&files.environment),
            failures: Arc::clone(&topology.failures),
            topology,
            wal,
            files,
            versions,
            old_log,
            recycling: Recycling::default(),
            resting: true,
            quiet: None,
        }
    }
}
