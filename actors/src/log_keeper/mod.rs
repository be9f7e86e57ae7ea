//! The log's keeper: keeps a spare segment ready, recycles or removes segments that nothing needs.
//!
//! Owns:      segments that are obsolete, and how many of them are kept.
//! Receives:  the signal that the log has something to be seen to (`LogDue::keeping`), and who waits until
//!            obsolete segments are out of the way.
//! Sends:     LogGrown to the version manager.
//! Publishes: how much of the log a recovery would read (`LogCounts`).
//! Stops:     when the engine has stopped; nobody gets a segment any more then.

mod run;
mod state;

use crate::failure::Failures;
use crate::kernel::mailbox::Mailbox;
use crate::log_writer::Log;
use crate::range_owner::Topology;
use crate::runtime::Environment;
use crate::version_manager::Files;
use crate::version_manager::message::VersionMessage;
use sluicedb_storage::wal::SealedSegment;
use state::Recycling;
use std::sync::Arc;

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
}

impl LogKeeper {
    /// A keeper of `wal`. `obsolete` are segments of the log before the last open.
    pub fn new(
        files: Arc<Files>,
        topology: Arc<Topology>,
        wal: Arc<Log>,
        versions: Mailbox<VersionMessage>,
        obsolete: Vec<SealedSegment>,
    ) -> Self {
        Self {
            environment: Arc::clone(&files.environment),
            failures: Arc::clone(&topology.failures),
            topology,
            wal,
            files,
            versions,
            recycling: Recycling::of(obsolete),
        }
    }
}
