//! What broke and where. `sluicedb::Error` turns this into what the caller should do.

use crate::vfs::NotAFile;
use std::io;
use std::path::{Path, PathBuf};

/// The result of everything in this package that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure below the public API: always names the file, and the offset where there is one.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an operation.
    #[error("{}: {op} failed{}: {source}", path.display(), at(*offset))]
    Io {
        /// What was attempted: `"read"`, `"write"`, `"sync"`, `"rename"` and so on.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Byte offset in the file, where the operation has one.
        offset: Option<u64>,
        /// What the operating system said.
        source: io::Error,
    },
    /// Bytes on disk contradict their checksum, their format or each other.
    #[error("{}: {what} at offset {offset}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in the file the contradiction was noticed.
        offset: u64,
        /// What was expected and what was found, in one lower-case phrase.
        what: String,
    },
    /// The files are intact but were written by something this build cannot read.
    #[error("{}: {what}", path.display())]
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// Which version or feature it needs and which ones this build has.
        what: String,
    },
    /// A file that the manifest names is not there.
    #[error("{}: file is missing, but the manifest names it", path.display())]
    Missing {
        /// The absent file.
        path: PathBuf,
    },
    /// Something is where a new thing was to be made, and it is not what was expected there.
    #[error("{}: {what}", path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
        /// Why it cannot be used.
        what: String,
    },
    /// Another handle, in this process or another one, has the database open.
    #[error("{}: database is in use{}", path.display(), holder(*pid))]
    Locked {
        /// The database directory.
        path: PathBuf,
        /// The process that holds the lock, if it could be read from the lock file.
        pid: Option<u32>,
    },
    /// The request can never succeed as written.
    #[error("{what}")]
    Invalid {
        /// What is wrong with it and what would be right.
        what: String,
    },
    /// A cold block was met by a reader that must not wait for the disk. Never leaves the engine:
    /// the read is repeated on an I/O thread.
    #[error("the block is not in memory")]
    WouldBlock,
}

fn at(offset: Option<u64>) -> String {
    offset.map(|o| format!(" at offset {o}")).unwrap_or_default()
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|p| format!(" by process {p}")).unwrap_or_default()
}

impl Error {
    /// An I/O error of `op` on the whole of `path`. Damage, if something else than a file is there.
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

    /// What is at `path` is in the way.
    pub fn exists(path: &Path, what: impl Into<String>) -> Self {
        Self::Exists { path: path.to_owned(), what: what.into() }
    }

    /// A request that can never succeed.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    /// The kind of the operating-system error, if this is one.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            _ => None,
        }
    }

    /// Did the system or the process run out of file descriptors?
    pub fn is_out_of_descriptors(&self) -> bool {
        // ENFILE and EMFILE, which have these numbers on every Unix and no `io::ErrorKind`.
        matches!(self, Self::Io { source, .. } if matches!(source.raw_os_error(), Some(23 | 24)))
    }

    /// Did an operation find no space on the disk, or no more of a quota?
    pub fn is_no_space(&self) -> bool {
        matches!(self.io_kind(), Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// The same failure once more, for the second of two waiters (`io::Error` is not `Clone`).
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
            Self::Exists { path, what } => Self::Exists { path: path.clone(), what: what.clone() },
            Self::Locked { path, pid } => Self::Locked { path: path.clone(), pid: *pid },
            Self::Invalid { what } => Self::Invalid { what: what.clone() },
            Self::WouldBlock => Self::WouldBlock,
        }
    }
}
