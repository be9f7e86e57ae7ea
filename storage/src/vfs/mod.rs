//! The virtual file system: the only access to a disk.
//!
//! The durability contract, which the in-memory disk enforces and the real one obeys:
//!
//! * Bytes survive a power cut if a `sync_data` or `sync_all` of *that file* returned after they
//!   were written.
//! * A name (created, renamed or removed) survives if a `sync_dir` of its directory returned
//!   afterwards.
//! * A failed sync says nothing about the bytes, and must not be repeated on the same handle.
//! * Closing a file syncs nothing.
//!
//! Errors are plain `io::Error`s. Callers add the path and the operation (`crate::Error::io`).

pub(crate) mod chance;
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

/// A file system. Its methods block on the disk.
pub trait Vfs: Send + Sync + Debug + 'static {
    /// Creates a directory and its parents (mode 0700). It may exist already.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Creates a new file for reading and writing (mode 0600); `AlreadyExists` if the name is
    /// taken.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading. Anything but a regular file is refused, with `NotAFile`
    /// as the source of the error; it does not wait for the other end of a pipe.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading and writing. Otherwise as `open`.
    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Renames a file, replacing `to` if it exists.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives the file `from` a second name, in the same directory or another one. `AlreadyExists`
    /// if the name is taken. Any other error, except for a lack of space, may mean that the file
    /// system does not support this link.
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
    /// Does not wait: returns `LockError::Held` if anybody holds the lock, shared or exclusive,
    /// including this process. Dropping the guard releases the lock.
    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError>;
    /// Takes a shared lock on `path`, which must exist. There can be any number of shared locks, or
    /// one exclusive lock. Changes nothing on the disk, and does not wait.
    fn lock_shared(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError>;
    /// Why users other than this one can change files in `dir`, as a phrase for "the directory
    /// ..."; `None` if they cannot.
    fn open_to_others(&self, _dir: &Path) -> io::Result<Option<String>> {
        Ok(None)
    }
    /// Bytes that can still be written in `dir`; `None` if the file system does not say.
    fn free_bytes(&self, dir: &Path) -> Option<u64>;
}

/// The name belongs to something other than a regular file. The source of an error of kind
/// `InvalidInput`.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it is {0}, not a regular file")]
pub struct NotAFile(pub &'static str);

impl From<NotAFile> for io::Error {
    fn from(what: NotAFile) -> Self {
        Self::new(io::ErrorKind::InvalidInput, what)
    }
}

/// An open file. Any thread may call any method at any time.
pub trait File: Send + Sync + Debug {
    /// Reads at `offset` until `buf` is full or the file ends. Returns the number of bytes read.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Like `read_at`, but never waits for the disk. `Ok(true)` only if all of `buf` was filled
    /// from memory. `Ok(false)` means: ask again on a thread that may block.
    fn try_read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool>;
    /// Writes all of `bytes` at `offset`. Extends the file if necessary.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes contents and length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes contents and all metadata of the file durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Starts the write-back of `len` bytes at `offset`, which were just written. Does not wait,
    /// and guarantees nothing.
    fn write_back(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Current length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Is the file empty?
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Truncates the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves real blocks for `[0, len)`. `Ok(false)` if the file system cannot guarantee them;
    /// then the file must not be mapped for writing.
    fn allocate(&self, len: u64) -> io::Result<bool>;
    /// Where the first byte at or after `offset` may be that is not zero; `None` where nothing but
    /// zeros follows. The file system's map of the file says so: nothing is read. A disk that has
    /// no such map says `offset`.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
    /// Drops the cached clean pages, so that the next read returns what the disk holds. Best
    /// effort.
    fn drop_cache(&self);
    /// Maps `[0, len)` for writing, shared with the file. `Ok(None)` if that is not safe (see
    /// `allocate`) or not supported; the caller must use `write_all_at` then. The bytes are brought
    /// into memory first, so that a store does not wait for the disk. Blocks on the disk.
    fn map_for_writing(&self, len: usize) -> io::Result<Option<Arc<dyn Mapping>>>;
}

/// A writable memory mapping of a file. A store is visible at once to `read_at` and to other
/// processes, and survives the death of this process. It survives a power cut under the same
/// conditions as a write.
pub trait Mapping: Send + Sync + Debug {
    /// Length of the window in bytes.
    fn len(&self) -> usize;
    /// Is the window empty?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Copies `bytes` to `offset`. Only one thread at a time may write a given byte; the log
    /// writer's combining lock guarantees this. Does not wait for the disk. Panics outside the
    /// window.
    fn write(&self, offset: usize, bytes: &[u8]);
    /// Announces a sync of the file, after which hardly any store to bytes before `upto` is
    /// expected. A sync write-protects every dirty page that it finds in the page tables, and each
    /// time all processors must synchronize. This call removes those pages from the tables first,
    /// except around `upto`. It is a hint without effect on the contents, may run while another
    /// thread stores, and never waits for the disk.
    fn before_sync(&self, _from: usize, _upto: usize) {}
    /// Announces that the file was just synced. A sync leaves the pages that it finds mapped
    /// read-only, so that the next store to each of them is slow. This call makes stores from
    /// `offset` on fast again. It is a hint without effect on the contents, may run while another
    /// thread stores, and never waits for the disk.
    fn after_sync(&self, _offset: usize) {}
}

/// Holds a lock until it is dropped.
pub trait FileLock: Send + Sync + Debug {}

/// Why a lock could not be taken.
#[derive(Debug)]
pub enum LockError {
    /// Another holder has the lock.
    Held {
        /// The process id of an exclusive holder, as far as the file shows it; `None` for shared
        /// holders, which leave no id in the file.
        pid: Option<u32>,
    },
    /// The operating system refused.
    Io(io::Error),
}
