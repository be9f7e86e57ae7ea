//! Checks a closed database: every checksum and every rule of order. Names all damage.

use crate::error::Result;
use sluicedb_storage::Error as StorageError;
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::recover::directory;
use sluicedb_storage::verify::verify_directory;
pub use sluicedb_storage::verify::{Finding, VerifySummary};
use sluicedb_storage::vfs::{LockError, Vfs, disk::DiskVfs};
use std::path::Path;
use std::sync::Arc;

/// Reads every byte of the closed database in `path`, and reports all damage, not only the first.
/// Changes nothing. It takes the shared lock of readers, so nobody writes meanwhile. Blocks the
/// calling thread: this is for tools, not for services.
///
/// `progress` is called after each table with how many are done and how many there are.
///
/// # Errors
/// `Locked` when the database is open for writing; `Invalid` when the directory has foreign files;
/// `Io` when it cannot be read at all. Damage is not an error but a [`Finding`].
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let db = sluicedb::Db::open(dir.path()).await?;
/// db.put("user:1", "Ada").await?;
/// db.close().await?;
/// let summary = sluicedb::verify(dir.path(), |_, _| ())?;
/// assert!(summary.is_sound() && summary.entries == 1);
/// # Ok::<_, sluicedb::Error>(()) }).unwrap();
/// ```
pub fn verify(path: impl AsRef<Path>, mut progress: impl FnMut(u64, u64)) -> Result<VerifySummary> {
    let (vfs, dir) = (Arc::new(DiskVfs::new()) as Arc<dyn Vfs>, path.as_ref());
    vfs.list(dir).map_err(|error| StorageError::io("list", dir, error))?;
    // Damage is found below. A directory with foreign files must not be locked.
    if let Err(error @ StorageError::Invalid { .. }) = directory::look(&vfs, dir) {
        return Err(error.into());
    }
    let path = FileKind::Lock.path(dir);
    // Locks only if there is a lock file. If something else has its name, that is a finding.
    let _guard = match vfs.open(&path) {
        Err(_) => None,
        Ok(_) => Some(vfs.lock_shared(&path).map_err(|error| match error {
            LockError::Held { pid } => StorageError::Locked { path: dir.to_owned(), pid },
            LockError::Io(error) => StorageError::io("lock", &path, error),
        })?),
    };
    Ok(verify_directory(&vfs, dir, &mut progress)?)
}
