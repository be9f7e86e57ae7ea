//! Checking a closed database: every checksum and every order rule, all damage named.

use crate::error::Result;
use sluicedb_storage::Error as StorageError;
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::recover::directory;
use sluicedb_storage::verify::verify_directory;
pub use sluicedb_storage::verify::{Finding, VerifySummary};
use sluicedb_storage::vfs::{LockError, Vfs, disk::DiskVfs};
use std::path::Path;
use std::sync::Arc;

/// Reads every byte of the closed database in `path` and reports all damage, not only the first.
/// Changes nothing, and nobody else does meanwhile: it shares the lock, with those who only read.
/// Blocks the calling thread: this is for tools, not for services.
///
/// # Errors
/// `Locked` when the database is open for writing; `Invalid` when the directory has the files of
/// others; `Io` when it cannot be read at all. Damage is not an error but a [`Finding`].
///
/// `progress` is called after each table with how many are done and how many there are.
pub fn verify(path: impl AsRef<Path>, mut progress: impl FnMut(u64, u64)) -> Result<VerifySummary> {
    let (vfs, dir) = (Arc::new(DiskVfs::new()) as Arc<dyn Vfs>, path.as_ref());
    vfs.list(dir).map_err(|error| StorageError::io("list", dir, error))?;
    // Damage is found below; the files of others are not to be locked.
    if let Err(error @ StorageError::Invalid { .. }) = directory::look(&vfs, dir) {
        return Err(error.into());
    }
    let path = FileKind::Lock.path(dir);
    // Only where there is a lock file. Where something else has its name, that is a finding.
    let _guard = match vfs.open(&path) {
        Err(_) => None,
        Ok(_) => Some(vfs.lock_shared(&path).map_err(|error| match error {
            LockError::Held { pid } => StorageError::Locked { path: dir.to_owned(), pid },
            LockError::Io(error) => StorageError::io("lock", &path, error),
        })?),
    };
    Ok(verify_directory(&vfs, dir, &mut progress)?)
}
