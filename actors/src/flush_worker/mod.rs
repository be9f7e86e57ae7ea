//! The flush worker: frozen memtables become L0 tables.
//!
//! Owns:      the tables it is writing, and the choice of the next range.
//! Receives:  the signal that a memtable was frozen, or that a version changed.
//! Sends:     Install and FlushFailed to the version manager.
//! Publishes: nothing.
//! Stops:     when the engine has been shut or has failed.
//!
//! The worker reads what is due from the published overlays, so no request can be lost or queue up.
//! The oldest frozen memtable says which range is next (`state.rs`). One thread serves all ranges.
//! A second thread would share the same disk, which bounds a flush. Small flushes go together:
//! their tables are written one after the other, and then one sync of the log does for all. A
//! range that cannot be flushed holds up no other.

mod run;
mod state;
mod write;

use crate::failure::Failures;
use crate::failure::attempts::Asked;
use crate::log_writer::Log;
use crate::range_owner::Topology;
use crate::runtime::Environment;
use crate::version_manager::message::VersionMessage;
use crate::version_manager::{Files, TablesDue};
use sluicedb_kernel::mailbox::Mailbox;
use sluicedb_storage::version::RangeId;
use state::Retries;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The actor. A thread of its own drives it, because it writes tables.
#[derive(Debug)]
pub struct FlushWorker {
    environment: Arc<Environment>,
    failures: Arc<Failures>,
    topology: Arc<Topology>,
    wal: Arc<Log>,
    files: Arc<Files>,
    due: Arc<TablesDue>,
    versions: Mailbox<VersionMessage>,
    retries: Retries,
    /// Ranges whose L0 is full and cannot be merged. The version manager has been told.
    stuck: BTreeSet<RangeId>,
    asked: Asked,
}

impl FlushWorker {
    /// A worker that writes to `files`, and installs through `versions`. It syncs `wal`.
    pub fn new(
        files: Arc<Files>,
        topology: Arc<Topology>,
        wal: Arc<Log>,
        due: Arc<TablesDue>,
        versions: Mailbox<VersionMessage>,
    ) -> Self {
        Self {
            environment: Arc::clone(&files.environment),
            failures: Arc::clone(&files.failures),
            topology,
            wal,
            files,
            due,
            versions,
            retries: Retries::default(),
            stuck: BTreeSet::new(),
            asked: Asked::default(),
        }
    }
}
