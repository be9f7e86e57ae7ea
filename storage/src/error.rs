//! What failed, and where. `sluicedb::Error` maps this to what the caller should do.

use crate::vfs::NotAFile;
use std::io;
use std::path::{Path, PathBuf};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure below the public API. It names the file, and the offset if there is one.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an operation.
    #[error("{}: {op} failed{}: {source}", path.display(), at(*offset))]
    Io {
        /// The operation: `"read"`, `"write"`, `"sync"`, `"rename"` and so on.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The byte offset in the file, if the operation has one.
        offset: Option<u64>,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Bytes on disk contradict their checksum, their format or each other.
    #[error("{}: {what} at offset {offset}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// The offset at which the contradiction was noticed.
        offset: u64,
        /// What was expected and what was found, in one lower-case phrase.
        what: String,
    },
    /// The files are intact, but this build cannot read them.
    #[error("{}: {what}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The version or feature that it needs, and those that this build has.
        what: String,
    },
    /// A file that the manifest names does not exist.
    #[error("{}: file is missing, but the manifest names it", path.display())]
    Missing {
        /// The missing file.
        path: PathBuf,
    },
    /// There is no database where one is needed.
    #[error("{}: there is no database here, and {why}", path.display())]
    NoDatabase {
        /// The directory.
        path: PathBuf,
        /// Why none is created, as a clause.
        why: &'static str,
    },
    /// The place for something new is taken, by something unexpected.
    #[error("{}: {what}", path.display())]
    Exists {
        /// The existing file or directory.
        path: PathBuf,
        /// Why it cannot be used.
        what: String,
    },
    /// Another handle, in this or another process, has opened the database.
    #[error("{}: database is in use{}", path.display(), holder(*pid))]
    Locked {
        /// The database directory.
        path: PathBuf,
        /// The process that holds the lock, if the lock file names it.
        pid: Option<u32>,
    },
    /// The request can never succeed as it is.
    #[error("{what}")]
    Invalid {
        /// What is wrong, and what would be right.
        what: String,
    },
    /// A reader must not wait, and would have to. This never leaves the engine: the read is
    /// repeated on a thread that may wait, or after a while.
    #[error("the block is not in memory")]
    WouldBlock(Lacks),
}

/// What a reader that must not wait lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacks {
    /// Pages of a file. The system has been told to read them, if it is one that does so for a
    /// caller that does not wait. Then they will be there soon.
    Pages,
    /// A thread that may wait: it opens a file, or does what takes long.
    Thread,
}

fn at(offset: Option<u64>) -> String {
    offset.map(|o| format!(" at offset {o}")).unwrap_or_default()
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|p| format!(" by process {p}")).unwrap_or_default()
}

impl Error {
    /// An I/O error of `op` on `path`. It is `Corrupt` if the path is not a regular file.
    pub fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        if let Some(what) = source.get_ref().and_then(|e| e.downcast_ref::<NotAFile>()) {
            return Self::corrupt(path, 0, what.to_string());
        }
        Self::Io { op, path: path.to_owned(), offset: None, source }
    }

    /// An I/O error of `op` at `offset` in `path`.
    pub fn io_at(op: &'static str, path: &Path, offset: u64, source: io::Error) -> Self {
        Self::Io { op, path: path.to_owned(), offset: Some(offset), source }
    }

    /// Damage noticed at `offset` in `path`.
    pub fn corrupt(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), offset, what: what.into() }
    }

    /// The error for a place that is taken by `path`.
    pub fn exists(path: &Path, what: impl Into<String>) -> Self {
        Self::Exists { path: path.to_owned(), what: what.into() }
    }

    /// A request that can never succeed.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    /// The kind of the operating system's error, if this is an I/O error.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            _ => None,
        }
    }

    /// Is the system or the process out of file descriptors?
    pub fn is_out_of_descriptors(&self) -> bool {
        // ENFILE and EMFILE have these numbers on every Unix, and no `io::ErrorKind`.
        matches!(self, Self::Io { source, .. } if matches!(source.raw_os_error(), Some(23 | 24)))
    }

    /// Is there no space on the disk, or is a quota used up?
    pub fn is_no_space(&self) -> bool {
        matches!(self.io_kind(), Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// A copy of the error, for a second caller (`io::Error` is not `Clone`).
    pub fn duplicate(&self) -> Self {
        match self {
            Self::Io { op, path, offset, source } => {
                let source = match source.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::new(source.kind(), source.to_string()),
                };
                Self::Io { op, path: path.clone(), offset: *offset, source }
            }
            Self::Corrupt { path, offset, what } => {
                Self::Corrupt { path: path.clone(), offset: *offset, what: what.clone() }
            }
            Self::Unsupported { path, what } => {
                Self::Unsupported { path: path.clone(), what: what.clone() }
            }
            Self::Missing { path } => Self::Missing { path: path.clone() },
            Self::NoDatabase { path, why } => Self::NoDatabase { path: path.clone(), why },
            Self::Exists { path, what } => Self::Exists { path: path.clone(), what: what.clone() },
            Self::Locked { path, pid } => Self::Locked { path: path.clone(), pid: *pid },
            Self::Invalid { what } => Self::Invalid { what: what.clone() },
            Self::WouldBlock(lacks) => Self::WouldBlock(*lacks),
        }
    }
}
