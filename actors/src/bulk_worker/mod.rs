//! The bulk worker: writes the tables that will replace spans of keys, from files or from another
//! database.
//!
//! Owns:      the tables it is writing.
//! Receives:  Replace, from callers.
//! Sends:     Change to the version manager, with the tables and the caller's reply.
//! Publishes: nothing.
//! Stops:     when its mailbox is closed and empty; a job under way ends when the engine has
//!            stopped.
//!
//! One job at a time, in the order in which they were asked for: each is bounded by the disk, and
//! several would share it.

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
    /// Replacements, and tables or batches that were brought in, asked for.
    pub bulk_jobs: Counter,
    /// Entries that were written into tables for them, or came in tables that were taken over; of
    /// those under way as well.
    pub bulk_entries: Counter,
    /// Tables that were taken over as they are.
    pub bulk_tables_linked: Counter,
}

/// The actor. Driven by a thread of its own: it writes tables.
#[derive(Debug)]
pub struct BulkWorker {
    counts: Arc<BulkCounts>,
    files: Arc<Files>,
    topology: Arc<Topology>,
    versions: Mailbox<VersionMessage>,
    inbox: Inbox<BulkMessage>,
}

impl BulkWorker {
    /// A worker that writes to `files`, cut where the ranges meet.
    pub fn new(
        files: Arc<Files>,
        topology: Arc<Topology>,
        versions: Mailbox<VersionMessage>,
        inbox: Inbox<BulkMessage>,
    ) -> Self {
        Self { counts: Arc::default(), files, topology, versions, inbox }
    }

    /// What it counts.
    pub fn counts(&self) -> Arc<BulkCounts> {
        Arc::clone(&self.counts)
    }
}
