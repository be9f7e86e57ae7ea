//! The log's keeper: keeps spare segments ready, as large as what is written asks for, recycles or
//! removes segments that nothing needs, and gives back what nobody needs while nothing is written.
//!
//! Owns:      segments that are obsolete, how many of them are kept, and the size of the next one.
//! Receives:  the signal that the log has something to be seen to (`LogDue::keeping`), who waits
//!            until obsolete segments are out of the way, and who waits until the log has left all
//!            but a last one.
//! Sends:     LogGrown to the version manager.
//! Publishes: how much of the log a recovery would read (`LogCounts`).
//! Stops:     when the engine has stopped; nobody gets a segment any more then.

mod growth;
mod rest;
mod run;
mod state;

use crate::failure::Failures;
use crate::log_writer::Log;
use crate::range_owner::Topology;
use crate::runtime::Environment;
use crate::version_manager::Files;
use crate::version_manager::message::VersionMessage;
use growth::Growth;
pub(crate) use growth::{FIRST_SEGMENT_BYTES, FULL_DISK_SEGMENT_BYTES};
use sluicedb_kernel::mailbox::Mailbox;
use state::Recycling;
use std::sync::Arc;
use std::time::Instant;

/// The actor. Driven by a thread of its own: it zeroes, renames and removes files.
#[derive(Debug)]
pub struct LogKeeper {
    environment: Arc<Environment>,
    failures: Arc<Failures>,
    topology: Arc<Topology>,
    wal: Arc<Log>,
    files: Arc<Files>,
    versions: Mailbox<VersionMessage>,
    recycling: Recycling,
    growth: Growth,
    /// The log rests: nothing is kept ready, and nothing for recycling.
    resting: bool,
    /// Since when next to nothing is written, and how much had been logged then.
    quiet: Option<(u64, Instant)>,
}

impl LogKeeper {
    /// A keeper of `wal`, which has just begun.
    pub fn new(
        files: Arc<Files>,
        topology: Arc<Topology>,
        wal: Arc<Log>,
        versions: Mailbox<VersionMessage>,
    ) -> Self {
        Self {
            growth: Growth::new(files.environment.config.log_segment_bytes),
            environment: Arc::clone(&files.environment),
            failures: Arc::clone(&topology.failures),
            topology,
            wal,
            files,
            versions,
            recycling: Recycling::default(),
            resting: true,
            quiet: None,
        }
    }
}
