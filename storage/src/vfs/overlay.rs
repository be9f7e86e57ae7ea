//! A read-only disk with new files in memory.
//!
//! Its user sees every file of the disk below. It may create files beside them, and rename and
//! remove those. The disk below does not change, except for access times that the file system
//! updates by itself. So the usual recovery code can make tables of a log on a disk that must not
//! be changed.
//!
//! Files below cannot be written to, replaced or removed. Syncs do nothing.

use super::mem::MemVfs;
use super::{File, FileLock, LockError, Vfs};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

/// A read-only disk with new files in memory; see the module.
#[derive(Debug)]
pub struct OverlayVfs {
    below: Arc<dyn Vfs>,
    above: MemVfs,
}

impl OverlayVfs {
    /// An overlay over `below`. Files of at most `bytes_max` bytes together may be created in
    /// `dir`; more fails with `StorageFull`.
    ///
    /// # Errors
    /// None in practice: the directory is created in memory.
    pub fn new(below: Arc<dyn Vfs>, dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let above = MemVfs::new();
        above.set_can_map(false);
        above.create_dir_all(dir)?;
        above.set_capacity(Some(bytes_max));
        Ok(Self { below, above })
    }

    /// Bytes of memory taken by the new files.
    pub fn used_bytes(&self) -> u64 {
        self.above.used_bytes()
    }

    fn is_above(&self, path: &Path) -> bool {
        self.above.len(path).is_ok()
    }

    /// Fails because the disk below has a file of this name.
    fn refuse_below(&self, path: &Path, error: ErrorKind) -> io::Result<()> {
        match self.below.len(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(error.into()),
        }
    }
}

impl Vfs for OverlayVfs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.above.create_dir_all(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.refuse_below(path, ErrorKind::AlreadyExists)?;
        self.above.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        if self.is_above(path) { self.above.open(path) } else { self.below.open(path) }
    }

    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.refuse_below(path, ErrorKind::ReadOnlyFilesystem)?;
        self.above.open_rw(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.refuse_below(from, ErrorKind::ReadOnlyFilesystem)?;
        self.refuse_below(to, ErrorKind::ReadOnlyFilesystem)?;
        self.above.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.above.hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.refuse_below(path, ErrorKind::ReadOnlyFilesystem)?;
        self.above.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = self.below.list(dir)?;
        names.extend(self.above.list(dir)?);
        names.sort();
        Ok(names)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        if self.is_above(path) { self.above.len(path) } else { self.below.len(path) }
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
    fn what_is_created_is_seen_and_nothing_changes_below() {
        let below = MemVfs::new();
        below.create_dir_all(Path::new("/db")).unwrap();
        put(&below, "/db/one", b"1");
        put(&below, "/db/two", b"2");
        let changes = below.operations();
        let dir = Path::new("/db");
        let vfs = OverlayVfs::new(Arc::new(below.clone()), dir, 64 << 10).unwrap();
        assert_eq!(vfs.list(dir).unwrap(), ["one", "two"]);
        let one = Path::new("/db/one");
        assert_eq!(vfs.create(one).map(drop).unwrap_err().kind(), ErrorKind::AlreadyExists);
        let refused = [vfs.open_rw(one).map(drop), vfs.remove(one), vfs.rename(one, dir)];
        for error in refused {
            assert_eq!(error.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        }
        put(&vfs, "/db/new", b"three");
        assert!(vfs.rename(Path::new("/db/new"), one).is_err());
        vfs.rename(Path::new("/db/new"), Path::new("/db/also")).unwrap();
        assert_eq!(read(&vfs, "/db/also").unwrap(), b"three");
        assert_eq!(vfs.list(dir).unwrap(), ["also", "one", "two"]);
        assert_eq!(vfs.len(Path::new("/db/also")).unwrap(), 5);
        vfs.remove(Path::new("/db/also")).unwrap();
        assert_eq!(read(&vfs, "/db/also").unwrap_err().kind(), ErrorKind::NotFound);
        assert!(vfs.remove(Path::new("/db/also")).is_err());
        let more = vfs.create(Path::new("/db/more")).unwrap().write_all_at(&vec![0; 100 << 10], 0);
        assert_eq!(more.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(below.operations(), changes);
        assert_eq!(
            (read(&vfs, "/db/one").unwrap(), read(&below, "/db/two").unwrap()),
            (b"1".to_vec(), b"2".to_vec())
        );
    }
}
