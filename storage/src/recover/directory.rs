//! The directory of a database, before anything in it is opened.
//!
//! Guarantees: `look` changes nothing. So an open that it refuses leaves no trace among foreign
//! files. When `make` returns, the names that it created survive a power cut, and so do those that
//! an earlier, killed open had created.
//!
//! It does not lock: two processes may look at once, and `open_directory` looks again under the
//! lock.

use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::manifest::{Current, read_current};
use crate::vfs::Vfs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// The contents of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryState {
    /// A database: there is a `CURRENT` of ours.
    Database(Current),
    /// No database. There may be no directory, or the given files, left by a creation that was
    /// killed.
    Vacant(Vec<FileKind>),
}

/// Finds out what is in `dir`. Blocks on the disk, for a listing and 64 bytes.
///
/// # Errors
/// `Invalid` if there are foreign files. `Corrupt` if `CURRENT` is damaged, or missing while other
/// files of a database are there. `Unsupported`; `Io`.
pub fn look(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<DirectoryState> {
    let names = match vfs.list(dir) {
        Ok(names) => names,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(DirectoryState::Vacant(Vec::new())),
        Err(e) => return Err(Error::io("list", dir, e)),
    };
    if let Some(current) = read_current(vfs, dir)? {
        return Ok(DirectoryState::Database(current));
    }
    let mut leftovers = Vec::new();
    for name in names {
        match FileKind::parse(&name) {
            Some(FileKind::Lock) => {}
            // A crash during the creation of a database leaves these files.
            Some(kind @ (FileKind::Manifest(FileNumber(1)) | FileKind::Temp(FileNumber(0)))) => {
                leftovers.push(kind);
            }
            Some(_) => {
                let what = format!("CURRENT is missing, but {name} of a database is there");
                return Err(Error::corrupt(&FileKind::Current.path(dir), 0, what));
            }
            None => {
                return Err(Error::invalid(format!(
                    "{} has no database but other files, such as {name}",
                    dir.display()
                )));
            }
        }
    }
    Ok(DirectoryState::Vacant(leftovers))
}

/// Refuses a directory in which other users can change files.
///
/// # Errors
/// `Invalid`, saying which users and how to change that; `Io`. A missing directory is accepted.
pub fn check_private(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<()> {
    match vfs.open_to_others(dir) {
        Ok(None) => Ok(()),
        Ok(Some(why)) => Err(Error::invalid(format!(
            "{}: the directory {why}, so others can change the database; take that right away \
             (chmod, chown), or set allow_shared_directory",
            dir.display()
        ))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("stat", dir, e)),
    }
}

/// Creates `dir` and its missing parents, and makes all their names durable. Blocks on the disk.
///
/// This syncs every parent of `dir`, not only those of names that were missing: a killed open may
/// have created names without syncing them.
///
/// # Errors
/// `Io`, naming the directory.
pub fn make(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<()> {
    let parents = dir.ancestors().skip(1);
    let parents: Vec<_> =
        parents.map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p }).collect();
    let there = |path: &Path| !matches!(vfs.len(path), Err(e) if e.kind() == ErrorKind::NotFound);
    let mut was_there = vec![there(dir)];
    was_there.extend(parents.iter().map(|parent| there(parent)));
    vfs.create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    for (parent, child_was_there) in parents.into_iter().zip(was_there) {
        match vfs.sync_dir(parent) {
            Ok(()) => {}
            // We may not be allowed to open a parent, or its file system may not sync directories.
            // Names that were there before us are then the owner's responsibility.
            Err(e) if child_was_there && is_not_ours(e.kind()) => {}
            Err(e) => return Err(Error::io("sync", parent, e)),
        }
    }
    Ok(())
}

fn is_not_ours(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PermissionDenied
            | ErrorKind::NotFound
            | ErrorKind::InvalidInput
            | ErrorKind::Unsupported
            | ErrorKind::ReadOnlyFilesystem
    )
}
