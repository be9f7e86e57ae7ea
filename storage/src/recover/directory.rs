//! The directory of a database, before anything in it is opened: is it ours, and will it last?
//!
//! Guarantees: `look` changes nothing, so an open that is refused by it leaves no trace among the
//! files of others; what `make` created, and what an open that was killed had created, survives a
//! power cut once it returned.
//!
//! Does not lock: two may look at once, and `open_directory` looks again under the lock.

use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::manifest::{Current, read_current};
use crate::vfs::Vfs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryState {
    /// A database: there is a `CURRENT`, and it is one of ours.
    Database(Current),
    /// Nothing, not even the directory perhaps, or what a killed creation left: these files.
    Vacant(Vec<FileKind>),
}

/// What is in `dir`. Cheap: a listing and 64 bytes.
///
/// # Errors
/// `Invalid` where the files of others are; `Corrupt` where `CURRENT` is damaged, or gone while
/// other files of a database are there; `Unsupported`; `Io`.
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
            // What a crash while the database was being made leaves.
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

/// Refuses a directory in which others can change files.
///
/// # Errors
/// `Invalid`, saying who can and what to do about it; `Io`. A directory that is not there is fine.
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

/// Creates `dir` and what is missing above it, and makes all their names durable.
///
/// Every name above `dir` is synced, not only those that were missing: an open that was killed
/// after it had created them may have synced none.
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
            // Whoever owns a directory that we may not open, or a file system that knows no sync of
            // directories, has seen to the names in it that were there before us.
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
