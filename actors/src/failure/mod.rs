//! Why an engine did not do what it was asked to do, and what became of the request.

#[cfg(not(loom))]
pub mod attempts;
#[cfg(not(loom))]
pub mod backoff;
#[cfg(not(loom))]
pub mod damage;
pub mod health;
#[cfg(not(loom))]
pub mod space;
#[cfg(not(loom))]
mod trouble;

use sluicedb_storage::Error;
use sluicedb_storage::filename::{FileKind, FileNumber};
#[cfg(not(loom))]
use sluicedb_storage::version::RangeId;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(not(loom))]
pub use trouble::{Failures, Listener};

/// Where a write waits for room, or was refused: in accounts of unflushed data, or in queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The account of one range, or its mailbox.
    Local,
    /// The account of the whole engine, its log's mailbox or sequencer, or the queue of its read
    /// threads.
    Global,
}

/// What became of a write that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing happened, now or after a restart.
    NotApplied,
    /// The write is visible, but the promised durability was not reached.
    Applied,
    /// It may or may not be there after a restart.
    Unknown,
}

/// A party that may be unable to work for a while. Each declares that itself, and only it can
/// withdraw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// The log: no segment can be prepared.
    Log,
    /// The log: what was appended cannot be written.
    LogWrites,
    /// Memtables cannot become tables.
    Flush,
    /// Tables cannot be merged.
    Compaction,
    /// The list of tables cannot be written.
    Manifest,
    /// The disk was full, and the reserved space is in use.
    Reserve,
}

#[cfg(not(loom))]
impl Party {
    /// This party's concern about `range`.
    pub fn of(self, range: RangeId) -> Concern {
        Concern { party: self, range: Some(range) }
    }
}

/// A party that cannot work, and the range for which it cannot.
#[cfg(not(loom))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Concern {
    /// The party.
    pub party: Party,
    /// The range. `None`: all ranges.
    pub range: Option<RangeId>,
}

#[cfg(not(loom))]
impl From<Party> for Concern {
    fn from(party: Party) -> Self {
        Self { party, range: None }
    }
}

/// Why. Cheap to clone, because one failure answers many waiters.
#[derive(Clone, Debug)]
pub enum Failure {
    /// A failure of the storage layer.
    Storage(Arc<Error>),
    /// No room, and the caller chose not to wait, or not to wait any longer.
    Overloaded {
        /// Whose room.
        scope: Scope,
        /// How long the caller waited.
        waited: Duration,
    },
    /// The disk is full. Work resumes by itself when there is room again.
    NoSpace(Arc<Error>),
    /// The engine was closed.
    Closed,
    /// An actor broke one of its own rules and panicked.
    Panicked {
        /// Which one.
        actor: &'static str,
        /// What it said.
        message: String,
    },
}

impl Failure {
    /// A failure of the storage layer. A full disk becomes `NoSpace`.
    pub fn storage(error: Error) -> Self {
        let full = error.is_no_space();
        let error = Arc::new(error);
        if full { Self::NoSpace(error) } else { Self::Storage(error) }
    }

    /// Is the disk full?
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace(_))
    }

    /// Are bytes on disk wrong, or is a file missing?
    pub fn is_damage(&self) -> bool {
        let Self::Storage(error) = self else { return false };
        matches!(**error, Error::Corrupt { .. } | Error::Missing { .. })
    }

    /// The table that it is about, found by the file's name.
    pub fn table(&self) -> Option<FileNumber> {
        let Self::Storage(error) = self else { return None };
        let (Error::Corrupt { path, .. } | Error::Missing { path } | Error::Io { path, .. }) =
            &**error
        else {
            return None;
        };
        match FileKind::parse(path.file_name()?.to_str()?)? {
            FileKind::Table(number) => Some(number),
            _ => None,
        }
    }

    /// The failure of an actor that panicked with this payload.
    pub fn panicked(actor: &'static str, panic: &(dyn std::any::Any + Send)) -> Self {
        let message = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        Self::Panicked { actor, message }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::storage(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::NoSpace(error) => write!(f, "the disk is full: {error}"),
            Self::Overloaded { scope: Scope::Local, waited } => {
                write!(f, "the key's range has no room for more writes now (waited {waited:?})")
            }
            Self::Overloaded { scope: Scope::Global, waited } => {
                write!(f, "the database has no room for more writes now (waited {waited:?})")
            }
            Self::Closed => f.write_str("the database is closed"),
            Self::Panicked { actor, message } => {
                write!(f, "the {actor} broke one of its own rules: {message}")
            }
        }
    }
}

/// A failed write: why, and what became of it.
#[derive(Clone, Debug)]
pub struct WriteFailure {
    /// Why.
    pub failure: Failure,
    /// What became of the write.
    pub outcome: Outcome,
}

impl WriteFailure {
    /// Nothing happened.
    pub fn not_applied(failure: impl Into<Failure>) -> Self {
        Self { failure: failure.into(), outcome: Outcome::NotApplied }
    }

    /// The write is visible, but not as durable as was asked.
    pub fn applied(failure: Failure) -> Self {
        Self { failure, outcome: Outcome::Applied }
    }

    /// Nobody knows before the next open.
    pub fn unknown(failure: Failure) -> Self {
        Self { failure, outcome: Outcome::Unknown }
    }
}

/// The actor that was asked is gone, and nobody knows how far it came.
impl From<Failure> for WriteFailure {
    fn from(failure: Failure) -> Self {
        Self::unknown(failure)
    }
}
