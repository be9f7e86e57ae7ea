//! What the version manager is told.

use super::outputs::Outputs;
use crate::failure::{Failure, Scope};
use bytes::Bytes;
use sluicedb_kernel::reply::Reply;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::keyspace::{KeyspaceId, KeyspaceSpan};
use sluicedb_storage::version::{
    KeyspaceOptions, Place, RangeId, SliceMeta, TableHandle, VersionEdit,
};
use std::sync::Arc;

/// Why an edit was not installed.
#[derive(Clone, Debug)]
pub enum InstallFailure {
    /// The version moved on: an input is gone. Nothing happened; pick again.
    Conflict(String),
    /// The manifest had no room for it. Nothing happened, and nothing will: its tables can go.
    NotInstalled(Failure),
    /// The manifest failed: the engine has stopped.
    Failed(Failure),
}

impl From<Failure> for InstallFailure {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A change that is not a batch.
#[derive(Debug)]
pub enum Change {
    /// The range that has this key ends before it, and another one begins with it. Nothing is to be
    /// done where one begins there already.
    Split {
        /// Whose key.
        keyspace: KeyspaceId,
        /// The key.
        at: Bytes,
    },
    /// The ranges that meet at this key become one. Nothing is done where none do, nor where what
    /// one of them has in memory is older than what the other has in tables: after a flush, and
    /// while nobody writes, it is not.
    Merge {
        /// Whose key.
        keyspace: KeyspaceId,
        /// The key.
        at: Bytes,
    },
    /// Nothing is left in `spans` but what `tables` have, and what these have elsewhere is newer
    /// than all that was there.
    Replace {
        /// In order, and apart from each other.
        spans: Vec<KeyspaceSpan>,
        /// Two of a keyspace share a key only where their layers say which one is newer. Removed
        /// again if the change does not happen.
        written: Written,
    },
    /// There is a keyspace of this name, with these options. Nothing is to be done where there is
    /// one that has them.
    SetKeyspace {
        /// A name that keyspaces may have, and not that of the default one.
        name: Box<str>,
        /// `None`: those that it has; for a new one none of its own.
        options: Option<Arc<KeyspaceOptions>>,
    },
    /// The keyspace goes, with all that is in it. Nothing is to be done where it has gone.
    DropKeyspace {
        /// Not the default one.
        id: KeyspaceId,
    },
}

/// Tables for a change, durable and named by nobody yet.
#[derive(Debug)]
pub struct Written {
    pub(crate) outputs: Outputs,
    /// Of each table.
    pub(crate) destinations: Vec<Destination>,
}

/// Where a table for a change goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Destination {
    /// The keyspace of its entries.
    pub(crate) keyspace: KeyspaceId,
    /// As `Incoming::layer`.
    pub(crate) layer: Option<usize>,
}

/// Memtables whose entries an edit brings into tables.
#[derive(Debug)]
pub struct Flushed {
    /// Whose they are.
    pub keyspace: KeyspaceId,
    /// Their ids. Where a range has some of them it has none that is older, and frozen, beside
    /// them.
    pub memtables: Vec<u64>,
}

/// What has gone into tables.
#[derive(Debug)]
pub enum Work {
    /// What readers need no longer find in memory once the swap is done. Which ranges the tables
    /// are for the manager finds out then.
    Flushed(Flushed),
    /// These slices, as they were when they were merged or moved.
    Merged(Vec<(RangeId, Place, SliceMeta)>),
}

/// Messages to the version manager.
#[derive(Debug)]
pub enum VersionMessage {
    /// Make an edit durable, then swap.
    Install {
        /// What changes.
        edit: Box<VersionEdit>,
        /// The added tables.
        tables: Vec<Arc<TableHandle>>,
        /// What has gone into the tables.
        work: Work,
        /// Answered after the swap.
        reply: Reply<Result<(), InstallFailure>>,
    },
    /// Give a range a fresh active memtable and its old one to the flush worker.
    Seal {
        /// Which range.
        range: RangeId,
        /// The memtable that has grown too large; nothing is done if it is not active any more.
        memtable: u64,
    },
    /// The log has grown: see whether something pins too much of it, or lies idle.
    LogGrown,
    /// A writer lacks room: seal what is due, or, for the engine's room, what helps most.
    Relieve {
        /// Whose room.
        scope: Scope,
        /// Bytes that a write needs which does not wait for them.
        bytes: u64,
    },
    /// Seal everything; answered when all of it is in published tables.
    Flush {
        /// Answered then, with the last number that had been stamped when it was sealed; or when
        /// flushing any of it fails.
        reply: Reply<Result<Seqno, Failure>>,
    },
    /// A flush failed, or cannot begin, and will be tried again later.
    FlushFailed {
        /// Whose memtables they are.
        range: RangeId,
        /// Which.
        memtables: Vec<u64>,
        /// Why.
        failure: Failure,
    },
    /// Change contents or routes.
    Change {
        /// How.
        change: Change,
        /// Answered, with its number, when it has happened for good; with none if there was nothing
        /// to do.
        reply: Reply<Result<Option<Seqno>, Failure>>,
    },
    /// File numbers were given out that no edit will name: none of them is ever to be given out
    /// again.
    KeepNumbers {
        /// Answered when that is durable.
        reply: Reply<Result<(), Failure>>,
    },
    /// A table's last reader has gone: delete the file.
    DeleteObsolete,
    /// Write the clean-close edit and stop.
    Close {
        /// Answered when it is durable.
        reply: Reply<Result<(), Failure>>,
    },
}
