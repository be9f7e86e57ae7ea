//! The bulk worker: it writes the tables that will replace spans of keys, from files or from
//! another database.
//!
//! Owns:      the tables it is writing.
//! Receives:  Replace, from callers.
//! Sends:     Change to the version manager, with the tables and the caller's reply.
//! Publishes: nothing.
//! Stops:     when its mailbox is closed and empty; a running job ends when the engine has stopped.
//!
//! It runs one job at a time, in the order of the requests. The disk bounds a job, and several jobs
//! would share it.

mod content;
pub mod message;
mod run;

use crate::counter::Counter;
use crate::range_owner::Topology;
use crate::version_manager::Files;
use crate::version_manager::message::VersionMessage;
use message::BulkMessage;
use sluicedb_kernel::mailbox::{Inbox, Mailbox};
use std::sync::Arc;

/// Counts since the database was opened.
#[derive(Debug, Default)]
pub struct BulkCounts {
    /// Jobs that were requested: replacements, ingests, and batches.
    pub bulk_jobs: Counter,
    /// Entries written into tables for the jobs, or contained in tables that were taken over.
    /// Includes running jobs.
    pub bulk_entries: Counter,
    /// Tables that were taken over unchanged.
    pub bulk_tables_linked: Counter,
}

/// The actor. A thread of its own drives it, because it writes tables.
#[derive(Debug)]
pub struct BulkWorker {
    counts: Arc<BulkCounts>,
    files: Arc<Files>,
    topology: Arc<Topology>,
    versions: Mailbox<VersionMessage>,
    inbox: Inbox<BulkMessage>,
}

impl BulkWorker {
    /// A worker that writes to `files` and cuts its tables where ranges meet.
    pub fn new(
        files: Arc<Files>,
        topology: Arc<Topology>,
        versions: Mailbox<VersionMessage>,
        inbox: Inbox<BulkMessage>,
    ) -> Self {
        Self { counts: Arc::default(), files, topology, versions, inbox }
    }

    /// Its counters.
    pub fn counts(&self) -> Arc<BulkCounts> {
        Arc::clone(&self.counts)
    }
}
