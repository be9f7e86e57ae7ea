//! The checkpointer: what a view shows becomes a database in a directory of its own.
//!
//! Owns:      the directory that it is filling, and the files in it.
//! Receives:  orders of callers.
//! Sends:     KeepNumbers to the version manager.
//! Publishes: how far it has come.
//! Stops:     when its mailbox is closed and empty; an order that is under way ends at its next
//!            look.
//!
//! It takes a view as a snapshot does, and needs nobody else's work: memtables stay where they are,
//! nothing is flushed, writers are not asked. One checkpoint at a time.

pub mod message;
mod run;

use crate::counter::Counter;
use crate::failure::Failures;
use crate::runtime::Environment;
use crate::version_manager::Files;
use crate::version_manager::message::VersionMessage;
use message::CheckpointOrder;
use sluicedb_kernel::mailbox::{Inbox, Mailbox};
use std::sync::Arc;

/// Counts since the database was opened.
#[derive(Debug, Default)]
pub struct CheckpointCounts {
    /// Checkpoints that were made.
    pub checkpoints: Counter,
    /// Those that came to nothing.
    pub checkpoints_failed: Counter,
    /// Bytes of tables that got a second name.
    pub checkpoint_bytes_linked: Counter,
    /// Bytes of tables that had to be copied.
    pub checkpoint_bytes_copied: Counter,
    /// Bytes of tables made of memtables.
    pub checkpoint_bytes_written: Counter,
    /// How long those that were made took, in microseconds.
    pub checkpoint_micros: Counter,
}

/// The actor. Driven by a thread of its own: it writes tables and waits for the disk.
#[derive(Debug)]
pub struct Checkpointer {
    environment: Arc<Environment>,
    failures: Arc<Failures>,
    files: Arc<Files>,
    versions: Mailbox<VersionMessage>,
    counts: Arc<CheckpointCounts>,
    inbox: Inbox<CheckpointOrder>,
}

impl Checkpointer {
    /// One that makes checkpoints of what is in `files`.
    pub fn new(
        files: Arc<Files>,
        versions: Mailbox<VersionMessage>,
        inbox: Inbox<CheckpointOrder>,
    ) -> Self {
        Self {
            environment: Arc::clone(&files.environment),
            failures: Arc::clone(&files.failures),
            files,
            versions,
            counts: Arc::default(),
            inbox,
        }
    }

    /// What it counts.
    pub fn counts(&self) -> Arc<CheckpointCounts> {
        Arc::clone(&self.counts)
    }
}
