//! The version manager's messages.

use super::outputs::Outputs;
use crate::failure::{Failure, WriteFailure};
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
    /// The version changed, and an input is gone. Nothing happened. Pick again.
    Conflict(String),
    /// The manifest had no room for the edit. It has not happened and will not. Its tables can be
    /// removed.
    NotInstalled(Failure),
    /// The manifest failed, so the engine has stopped.
    Failed(Failure),
}

/// The actor that was asked is gone.
impl From<Failure> for InstallFailure {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// How a change ends: its number, `None` if there was nothing to do, or why not.
pub type Changed = Result<Option<Seqno>, WriteFailure>;

/// A change that is not a batch.
#[derive(Debug)]
pub enum Change {
    /// The range with this key ends before it, and another begins with it. Does nothing if a range
    /// begins there already.
    Split {
        /// The keyspace of the key.
        keyspace: KeyspaceId,
        /// The key.
        at: Bytes,
    },
    /// The ranges that meet at this key become one. Does nothing if no ranges meet there. Does
    /// nothing if one of them has something in memory that is older than a table of the other.
    /// After a flush, and while nobody writes, that is not so.
    Merge {
        /// The keyspace of the key.
        keyspace: KeyspaceId,
        /// The key.
        at: Bytes,
    },
    /// `spans` hold nothing but what `written` has for them. What `written` has elsewhere is newer
    /// than everything there.
    Replace {
        /// In order, and disjoint.
        spans: Vec<KeyspaceSpan>,
        /// The tables. Two of one keyspace may share a key only if their layers say which is newer.
        /// They are removed again if the change does not happen.
        written: Written,
    },
    /// A keyspace of this name exists, with these options. Does nothing if it exists and has them.
    SetKeyspace {
        /// A valid name of a keyspace, other than the default one.
        name: Box<str>,
        /// `None` keeps the options that it has. A new one then has none of its own.
        options: Option<Arc<KeyspaceOptions>>,
    },
    /// The keyspace is dropped, with everything in it. Does nothing if it is gone.
    DropKeyspace {
        /// Any keyspace but the default one.
        id: KeyspaceId,
    },
}

/// Tables for a change. They are durable, and nobody names them yet.
#[derive(Debug)]
pub struct Written {
    pub(crate) outputs: Outputs,
    /// One for each table.
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

/// Memtables whose entries an edit adds as tables.
#[derive(Debug)]
pub struct Flushed {
    /// The keyspace of their ranges.
    pub keyspace: KeyspaceId,
    /// Their ids. For each range that has some of them, they include every older memtable of it
    /// that is frozen.
    pub memtables: Vec<u64>,
}

/// What the tables of an edit replace.
#[derive(Debug)]
pub enum Work {
    /// Memtables, which readers do not need after the swap. The version manager determines at the
    /// install which ranges the tables are for.
    Flushed(Flushed),
    /// These slices, as they were when they were merged or moved.
    Merged(Vec<(RangeId, Place, SliceMeta)>),
}

/// How an install ends.
pub type Installed = Result<(), InstallFailure>;

/// An edit of the tree: new tables, or new places of tables.
#[derive(Debug)]
pub struct Install {
    /// What changes.
    pub edit: Box<VersionEdit>,
    /// The added tables.
    pub tables: Vec<Arc<TableHandle>>,
    /// What the tables replace.
    pub work: Work,
    /// Told after the swap.
    pub reply: Reply<Installed>,
}

/// Whose room a writer lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// That of a range or of the engine, for which a writer waits in line. It is looked at after
    /// every message.
    Waited,
    /// That of a range, for a write that stands in no line. The range's memtable is sealed if it is
    /// full, however much of it is dead.
    Range {
        /// Which range.
        range: RangeId,
        /// What the write takes of the range's account.
        bytes: u64,
    },
    /// That of the engine, for a write that stands in no line. What helps most is sealed.
    Engine {
        /// What the write takes of the engine's account.
        bytes: u64,
    },
}

/// Messages to the version manager.
#[derive(Debug)]
pub enum VersionMessage {
    /// Make an edit durable, then swap.
    Install(Install),
    /// Give a range a fresh active memtable and its old one to the flush worker.
    Seal {
        /// Which range.
        range: RangeId,
        /// The memtable that is full. Nothing happens if it is not active any more.
        memtable: u64,
    },
    /// The log has grown. Look whether a range pins too much of it, or is idle.
    LogGrown,
    /// A writer lacks room.
    Relieve(Shortage),
    /// Seal everything.
    Flush {
        /// Told when all of it is in published tables, with the last number that was stamped when
        /// it was sealed; or told when a flush of any of it fails.
        reply: Reply<Result<Seqno, Failure>>,
    },
    /// A flush failed, or cannot begin. It will be tried again later.
    FlushFailed {
        /// The range of the memtables.
        range: RangeId,
        /// The memtables.
        memtables: Vec<u64>,
        /// Why.
        failure: Failure,
    },
    /// Change contents or routes.
    Change {
        /// How.
        change: Change,
        /// Told when the change is durable, with its number; with `None` if there was nothing to
        /// do.
        reply: Reply<Changed>,
    },
    /// File numbers were given out that no edit will name. None of them may be given out again.
    KeepNumbers {
        /// Told when that is durable.
        reply: Reply<Result<(), Failure>>,
    },
    /// The last reader of an obsolete table is gone. Delete the file.
    DeleteObsolete,
    /// Write the clean-close edit and stop.
    Close {
        /// Told when the edit is durable.
        reply: Reply<Result<(), Failure>>,
    },
}
