//! Checking a closed database: every checksum and every order rule, all damage named.

use crate::error::Result;
use sluicedb_storage::filename::{FileKind, LOCK};
use sluicedb_storage::verify::verify_directory;
pub use sluicedb_storage::verify::{Finding, VerifySummary};
use sluicedb_storage::vfs::{LockError, Vfs, disk::DiskVfs};
use std::path::Path;
use std::sync::Arc;

/// Reads every byte of the closed database in `path` and reports all damage, not only the first.
/// Changes nothing (it takes the lock, so that nobody else does either). Blocks the calling thread:
/// this is for tools, not for services.
///
/// # Errors
/// `Locked` when the database is open; `Io` when the directory cannot be read at all. Damage is not
/// an error but a [`Finding`].
///
/// `progress` is called after each table with how many are done and how many there are.
pub fn verify(path: impl AsRef<Path>, mut progress: impl FnMut(u64, u64)) -> Result<VerifySummary> {
    let (vfs, dir) = (Arc::new(DiskVfs::new()) as Arc<dyn Vfs>, path.as_ref());
    let io = |op, error| sluicedb_storage::Error::io(op, dir, error);
    let names = vfs.list(dir).map_err(|error| io("list", error))?;
    // Taking a lock would create the lock file: only where there is a database to protect.
    let _guard = if names.iter().any(|name| name == LOCK) {
        Some(vfs.lock(&FileKind::Lock.path(dir)).map_err(|error| match error {
            LockError::Held { pid } => {
                sluicedb_storage::Error::Locked { path: dir.to_owned(), pid }
            }
            LockError::Io(error) => io("lock", error),
        })?)
    } else {
        None
    };
    Ok(verify_directory(&vfs, dir, &mut progress)?)
}
