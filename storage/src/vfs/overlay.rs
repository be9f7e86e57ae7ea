//! A read-only disk with an overlay of changes in memory.
//!
//! Its user sees every file of the disk below. It may create, rename and remove files, and sees the
//! results. The disk below does not change, except for access times that the file system updates by
//! itself. So the usual recovery code can open a database on a disk that must not be changed.
//!
//! Existing files cannot be written to, and no part of an open does that. Syncs do nothing.

use super::mem::MemVfs;
use super::{File, FileLock, LockError, Vfs};
use crate::sync::lock;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// A read-only disk with changes in memory; see the module.
#[derive(Debug)]
pub struct OverlayVfs {
    below: Arc<dyn Vfs>,
    above: MemVfs,
    /// Files of the disk below that were removed or replaced.
    hidden: Mutex<BTreeSet<PathBuf>>,
}

impl OverlayVfs {
    /// An overlay over `below`. Files in `dir` may be changed, by at most `bytes_max` bytes; more
    /// fails with `StorageFull`.
    ///
    /// # Errors
    /// None in practice: the directory is created in memory.
    pub fn new(below: Arc<dyn Vfs>, dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let above = MemVfs::new();
        above.set_can_map(false);
        above.create_dir_all(dir)?;
        above.set_capacity(Some(bytes_max));
        Ok(Self { below, above, hidden: Mutex::default() })
    }

    /// Bytes of memory taken by the changes.
    pub fn used_bytes(&self) -> u64 {
        self.above.used_bytes()
    }

    fn hidden(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        lock(&self.hidden)
    }

    fn is_above(&self, path: &Path) -> bool {
        self.above.len(path).is_ok()
    }

    fn refuse_hidden(&self, path: &Path) -> io::Result<()> {
        if self.hidden().contains(path) { Err(ErrorKind::NotFound.into()) } else { Ok(()) }
    }
}

impl Vfs for OverlayVfs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.above.create_dir_all(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        if !self.is_above(path) && !self.hidden().contains(path) {
            match self.below.len(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(_) => return Err(ErrorKind::AlreadyExists.into()),
            }
        }
        self.above.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        if self.is_above(path) {
            return self.above.open(path);
        }
        self.refuse_hidden(path)?;
        self.below.open(path)
    }

    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        if self.is_above(path) {
            return self.above.open_rw(path);
        }
        self.refuse_hidden(path)?;
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.is_above(from) {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        self.above.rename(from, to)?;
        self.hidden().insert(to.to_owned());
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.above.hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if self.is_above(path) {
            self.above.remove(path)?;
        } else {
            self.refuse_hidden(path)?;
            self.below.len(path)?;
        }
        self.hidden().insert(path.to_owned());
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names: BTreeSet<String> = self.below.list(dir)?.into_iter().collect();
        {
            let hidden = self.hidden();
            names.retain(|name| !hidden.contains(&dir.join(name)));
        }
        names.extend(self.above.list(dir)?);
        Ok(names.into_iter().collect())
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        if self.is_above(path) {
            return self.above.len(path);
        }
        self.refuse_hidden(path)?;
        self.below.len(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path) -> Result<Box<dyn FileLock>, LockError> {
        Err(LockError::Io(ErrorKind::ReadOnlyFilesystem.into()))
    }

    fn lock_shared(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        self.below.lock_shared(path)
    }

    fn open_to_others(&self, dir: &Path) -> io::Result<Option<String>> {
        self.below.open_to_others(dir)
    }

    fn free_bytes(&self, _: &Path) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(vfs: &dyn Vfs, path: &str, bytes: &[u8]) {
        vfs.create(Path::new(path)).unwrap().write_all_at(bytes, 0).unwrap();
    }

    fn read(vfs: &dyn Vfs, path: &str) -> io::Result<Vec<u8>> {
        let file = vfs.open(Path::new(path))?;
        let mut bytes = vec![0; file.len()? as usize];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    #[test]
    fn what_is_done_is_seen_and_nothing_changes_below() {
        let below = MemVfs::new();
        below.create_dir_all(Path::new("/db")).unwrap();
        put(&below, "/db/one", b"1");
        put(&below, "/db/two", b"2");
        let changes = below.operations();
        let dir = Path::new("/db");
        let vfs = OverlayVfs::new(Arc::new(below.clone()), dir, 64 << 10).unwrap();
        assert_eq!(vfs.list(dir).unwrap(), ["one", "two"]);
        assert!(vfs.create(Path::new("/db/one")).is_err(), "it is there");
        assert!(vfs.open_rw(Path::new("/db/one")).is_err());
        vfs.remove(Path::new("/db/one")).unwrap();
        assert!(vfs.remove(Path::new("/db/one")).is_err());
        assert!(read(&vfs, "/db/one").is_err() && vfs.len(Path::new("/db/one")).is_err());
        put(&vfs, "/db/new", b"three");
        vfs.rename(Path::new("/db/new"), Path::new("/db/two")).unwrap();
        assert_eq!(read(&vfs, "/db/two").unwrap(), b"three");
        put(&vfs, "/db/one", b"again");
        assert_eq!(vfs.list(dir).unwrap(), ["one", "two"]);
        assert_eq!(vfs.len(Path::new("/db/one")).unwrap(), 5);
        vfs.remove(Path::new("/db/two")).unwrap();
        assert!(read(&vfs, "/db/two").is_err(), "the one below stays hidden");
        let more = vfs.create(Path::new("/db/more")).unwrap().write_all_at(&vec![0; 100 << 10], 0);
        assert_eq!(more.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(below.operations(), changes);
        assert_eq!(
            (read(&below, "/db/one").unwrap(), read(&below, "/db/two").unwrap()),
            (b"1".to_vec(), b"2".to_vec())
        );
    }
}
