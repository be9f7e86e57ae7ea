//! The only way to a disk.
//!
//! The durability contract, which the in-memory disk enforces and the real one obeys:
//!
//! * Bytes survive a power cut once `sync_data` or `sync_all` of *that file* returned after them.
//! * A name (creation, rename, removal) survives once `sync_dir` of its directory returned after
//!   it.
//! * A failed sync says nothing about the bytes and must not be repeated on the same handle.
//! * Closing is not syncing.
//!
//! Errors are plain `io::Error`s; callers add the path and the operation (`crate::Error::io`).

mod chance;
#[cfg(test)]
mod contract;
#[cfg(not(loom))]
pub mod disk;
pub mod fault;
pub mod mem;
pub mod operation;
pub mod overlay;
pub mod throttle;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

#[cfg(not(loom))]
pub use disk::DiskVfs;
pub use fault::{Fault, FaultControl, FaultVfs};
pub use mem::{CrashKind, FailedSync, MemVfs, SpaceUse};
pub use operation::{DiskOperation, OperationKind};
pub use overlay::OverlayVfs;
pub use throttle::{Clock, Speed, ThrottleControl, ThrottledVfs};

/// A file system.
pub trait Vfs: Send + Sync + Debug + 'static {
    /// Creates a directory and its parents (mode 0700); fine if it exists.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Creates a new file for reading and writing (mode 0600); `AlreadyExists` if there is one.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading. Never waits for a pipe's other end: what is not a
    /// regular file is refused, with `NotAFile` in the error.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading and writing; otherwise as `open`.
    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Renames a file, replacing `to` if it exists.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives the file `from` a second name, in the same directory or in another one.
    /// `AlreadyExists` if the name is taken; any other error, but for want of space, may mean that
    /// the file system cannot.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names of the files in a directory, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Length of a file in bytes.
    fn len(&self, path: &Path) -> io::Result<u64>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive lock on `path`, creating the file, and writes this process's id into it.
    /// `LockError::Held` at once if anybody, this process included, holds it, shared or not.
    /// Dropping the guard unlocks.
    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>, LockError>;
    /// Takes a shared lock on `path`, which is there: any number of them, or one exclusive one.
    /// Changes nothing on the disk.
    fn lock_shared(&self, path: &Path) -> Result<Box<dyn LockGuard>, LockError>;
    /// Why others than this user can change files in `dir`, as in "the directory ..."; `None` if
    /// they cannot.
    fn open_to_others(&self, _dir: &Path) -> io::Result<Option<String>> {
        Ok(None)
    }
    /// Bytes that can still be written in `dir`, if the file system says so.
    fn free_bytes(&self, dir: &Path) -> Option<u64>;
}

/// What has the name of a file is something else. The source of an error of kind `InvalidInput`.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it is {0}, not a regular file")]
pub struct NotAFile(pub &'static str);

impl From<NotAFile> for io::Error {
    fn from(what: NotAFile) -> Self {
        Self::new(io::ErrorKind::InvalidInput, what)
    }
}

/// An open file. All methods take `&self` and are safe to call from several threads.
pub trait File: Send + Sync + Debug {
    /// Reads at `offset` until `buf` is full or the file ends; returns how much was read.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Like `read_at`, but only if all of it is in memory: `Ok(false)` means "ask again on a thread
    /// that may wait". Never waits for the disk. `Ok(true)` only if `buf` was filled entirely.
    fn try_read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool>;
    /// Writes all of `bytes` at `offset`, extending the file as needed.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes content and all metadata of the file durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Starts writing back `len` bytes at `offset`, which were just written, without waiting or
    /// promising anything.
    fn write_back(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Current length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Is the file empty?
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves real blocks for `[0, len)`. `Ok(false)` where the file system cannot promise that;
    /// the file must then not be mapped for writing.
    fn allocate(&self, len: u64) -> io::Result<bool>;
    /// Drops cached clean pages, so that the next read sees what the disk holds. Best effort.
    fn drop_cache(&self);
    /// Maps `[0, len)` for writing, shared with the file. `Ok(None)` where that is not safe (see
    /// `allocate`) or not supported; the caller then uses `write_all_at`.
    fn map_for_writing(&self, len: usize) -> io::Result<Option<Arc<dyn Mapping>>>;
}

/// A writable window on a file. A store is at once seen by `read_at` and by other processes and
/// survives the death of this process; it survives a power cut like any other written byte.
pub trait Mapping: Send + Sync + Debug {
    /// Length of the window in bytes.
    fn len(&self) -> usize;
    /// Is the window empty?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Copies `bytes` to `offset`. One thread at a time may write a given byte (the log writer's
    /// seat sees to that); panics when out of the window.
    fn write(&self, offset: usize, bytes: &[u8]);
    /// Says that the file is about to be synced and that nothing before `upto` is likely to be
    /// stored to any more. A sync write-protects every dirty page that it finds in the page tables,
    /// and each time all processors have to agree; this makes it find none there but around `upto`.
    /// A hint without effect on content; may run while another thread stores. Never waits for the
    /// disk.
    fn before_sync(&self, _from: usize, _upto: usize) {}
    /// Says that the file was just synced. A sync leaves the pages it finds mapped read-only, and
    /// the next store to each of them slow; this makes stores at `offset` and after it quick again.
    /// A hint without effect on content; may run while another thread stores. Never waits for the
    /// disk.
    fn after_sync(&self, _offset: usize) {}
}

/// Holds a lock until dropped.
pub trait LockGuard: Send + Sync + Debug {}

/// Why a lock could not be taken.
#[derive(Debug)]
pub enum LockError {
    /// Somebody has it; the process id is read from the file where possible.
    Held {
        /// Who has it for himself; `None` also where it is shared, because nobody says so in the
        /// file.
        pid: Option<u32>,
    },
    /// The operating system refused.
    Io(io::Error),
}
