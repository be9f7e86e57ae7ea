//! The checkpointer: it makes a database in another directory of what a view shows.
//!
//! Owns:      the directory that it is filling, and the files in it.
//! Receives:  orders of callers.
//! Sends:     KeepNumbers to the version manager.
//! Publishes: its progress.
//! Stops:     when its mailbox is closed and empty; a running order ends at its next look.
//!
//! It works on a view, as a snapshot does, and needs no work from others: memtables stay in memory,
//! nothing is flushed, no writer is involved. It makes one checkpoint at a time.

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
    /// Checkpoints made.
    pub checkpoints: Counter,
    /// Checkpoints that failed or were cancelled.
    pub checkpoints_failed: Counter,
    /// Bytes of tables that got a second name (hard link).
    pub checkpoint_bytes_linked: Counter,
    /// Bytes of tables that had to be copied.
    pub checkpoint_bytes_copied: Counter,
    /// Bytes of tables written from memtables.
    pub checkpoint_bytes_written: Counter,
    /// Time spent on the checkpoints that were made, in microseconds.
    pub checkpoint_micros: Counter,
}

/// The actor. A thread of its own drives it, because it writes tables and waits for the disk.
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
    /// A checkpointer of the database in `files`.
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

    /// Its counters.
    pub fn counts(&self) -> Arc<CheckpointCounts> {
        Arc::clone(&self.counts)
    }
}
