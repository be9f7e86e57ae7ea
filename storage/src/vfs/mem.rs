//! A disk in memory that loses unsynced data like a real one: for tests, simulation and throw-away
//! databases.
//!
//! It upholds the contract in `vfs` and nothing beyond it. Contents are durable after a sync of
//! their file, and a name after a sync of its directory; this includes the name of a directory in
//! its parent. Closing syncs nothing. `crash_clone` makes a disk that a power cut could leave
//! behind, and `kill_clone` the one that the death of the process leaves. Stores through a mapping
//! are writes to the page cache.
//!
//! `on_operation` shows each changing operation before it happens, so that a test can take an image
//! at every boundary. One lock guards the whole disk: it is exact, not fast.
//!
//! Long because each operation of `Vfs` is there once, under one lock.

mod content;
mod crash;
mod inode;
mod namespace;
#[cfg(test)]
mod tests;

use crate::sync::lock;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

pub use crash::CrashKind;
pub use namespace::{FailedSync, SpaceUse};

use self::content::PAGE_BYTES;
use self::namespace::{DirEntry, Disk, Locked, normal};
use super::{DiskOperation, File, FileLock, LockError, Mapping, OperationKind, Vfs};

/// `EBADF`: the error of writing through a handle that was opened for reading.
const BAD_DESCRIPTOR: i32 = 9;

type Hook = Arc<dyn Fn(&MemVfs, &DiskOperation) + Send + Sync>;
type FileHook = Arc<dyn Fn(&Path) + Send + Sync>;

/// A handle on an in-memory disk. Clones of the handle are the same disk.
#[derive(Clone)]
pub struct MemVfs {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Mutex<Disk>,
    hook: Mutex<Option<Hook>>,
    read_hook: Mutex<Option<FileHook>>,
    close_hook: Mutex<Option<FileHook>>,
}

/// Images of a disk, taken while it is in use. See [`MemVfs::record_images`].
#[derive(Clone, Debug, Default)]
pub struct Images {
    taken: Arc<Mutex<Vec<(DiskOperation, MemVfs)>>>,
}

impl Images {
    /// Removes and returns the images so far, each with the operation that was *not* yet done.
    pub fn take(&self) -> Vec<(DiskOperation, MemVfs)> {
        std::mem::take(&mut *lock(&self.taken))
    }
}

impl Default for MemVfs {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemVfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = self.disk();
        f.debug_struct("MemVfs")
            .field("files", &disk.inodes.len())
            .field("operations", &disk.operations)
            .finish_non_exhaustive()
    }
}

impl MemVfs {
    /// An empty disk with a root directory, no limit, mapping allowed, and warm reads.
    pub fn new() -> Self {
        Self::from_disk(Disk::new())
    }

    fn from_disk(disk: Disk) -> Self {
        let (read_hook, close_hook) = (Mutex::default(), Mutex::default());
        let (disk, hook) = (Mutex::new(disk), Mutex::default());
        Self { shared: Arc::new(Shared { disk, hook, read_hook, close_hook }) }
    }

    /// Ignores poisoning, so that a panicking test does not turn every later access into a second
    /// panic.
    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.shared.disk)
    }

    /// Limits the space, in bytes, from now on; `None` lifts the limit. Space is counted in pages
    /// of 4 KiB. A write that does not fit writes what fits, and then fails with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().settings.capacity = bytes;
    }

    /// Sets what takes space, and when a lack of it is reported. The default is `InPlace`. Set it
    /// on an empty disk: blocks that were allocated before stay guaranteed.
    pub fn set_space_use(&self, space: SpaceUse) {
        self.disk().settings.space = space;
    }

    /// Sets what reads return after a failed sync. The default is `KeepsNew`.
    pub fn set_failed_sync(&self, failed: FailedSync) {
        self.disk().settings.failed_sync = failed;
    }

    /// Sets whether `allocate` guarantees blocks and files may be mapped for writing. The default
    /// is true; it has no effect unless space is used in place.
    pub fn set_can_map(&self, can_map: bool) {
        self.disk().settings.can_map = can_map;
    }

    /// Sets whether a file can have two names. The default is true; false is as between two file
    /// systems.
    pub fn set_can_link(&self, can_link: bool) {
        self.disk().settings.can_link = can_link;
    }

    /// With `true`, `try_read_exact_at` returns `Ok(false)` unless `read_at` has read every page of
    /// the request since it was last dropped. Writing a page does not count. The default is
    /// `false`.
    pub fn set_cold_reads(&self, cold: bool) {
        self.disk().settings.cold_reads = cold;
    }

    /// With `false`, `try_read_exact_at` always returns `Ok(false)`, as on a kernel without reads
    /// that do not wait. The default is `true`.
    pub fn set_reads_without_waiting(&self, supported: bool) {
        self.disk().settings.reads_without_waiting = supported;
    }

    /// Bytes of space taken by files that have a name or a handle.
    pub fn used_bytes(&self) -> u64 {
        self.disk().used()
    }

    /// Changing operations begun so far, by `OperationKind::is_change`; this includes stores.
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// Calls `hook` before each changing operation, on the thread that does it, without a lock. The
    /// hook may clone the disk, but must not operate on it. Replaces an earlier hook.
    pub fn on_operation(&self, hook: impl Fn(&MemVfs, &DiskOperation) + Send + Sync + 'static) {
        self.set_hook(Some(Arc::new(hook)));
    }

    /// Calls `hook` before each read of a file, on the thread that does it, without a lock.
    /// Replaces an earlier one.
    pub fn on_read(&self, hook: impl Fn(&Path) + Send + Sync + 'static) {
        let mut slot = lock(&self.shared.read_hook);
        *slot = Some(Arc::new(hook));
    }

    /// Calls `hook` when a file is closed and unmapped, on the thread that did it, without a lock.
    /// Replaces an earlier one.
    pub fn on_close(&self, hook: impl Fn(&Path) + Send + Sync + 'static) {
        let mut slot = lock(&self.shared.close_hook);
        *slot = Some(Arc::new(hook));
    }

    /// Removes the hook of `on_operation`.
    pub fn clear_hook(&self) {
        self.set_hook(None);
    }

    fn set_hook(&self, hook: Option<Hook>) {
        *lock(&self.shared.hook) = hook;
    }

    /// Takes a `kill_clone` before every `every`th changing operation. Uses the hook of
    /// `on_operation`.
    ///
    /// # Panics
    /// If `every` is 0.
    pub fn record_images(&self, every: u64) -> Images {
        assert!(every > 0, "every 0th operation does not exist");
        let images = Images::default();
        let taken = Arc::clone(&images.taken);
        self.on_operation(move |disk, operation| {
            if operation.number % every == 0 {
                let image = (operation.clone(), disk.kill_clone());
                lock(&taken).push(image);
            }
        });
        images
    }

    /// Turns the power off after `more` further changing operations: every operation fails and
    /// stores are ignored, until `power_on`. Take the image with `crash_clone`.
    pub fn power_off_after(&self, more: u64) {
        let mut disk = self.disk();
        disk.power_off_after = Some(disk.operations + more);
    }

    /// Undoes `power_off_after`. The page cache is as it was: this is the same incarnation.
    pub fn power_on(&self) {
        self.disk().power_off_after = None;
    }

    /// Has an operation failed because the power is off?
    pub fn is_power_off(&self) -> bool {
        let disk = self.disk();
        disk.power_off_after.is_some_and(|last| disk.operations > last)
    }

    /// Makes the next sync of a file by this thread fail with EIO. Its unsynced pages are marked
    /// clean without having been written (see `set_failed_sync`). So a repeated sync succeeds
    /// without persisting them.
    pub fn lose_next_sync(&self) {
        self.disk().lose_sync_of = Some(std::thread::current().id());
    }

    /// The disk as the next process finds it after this one was killed. Everything written is
    /// there, mapped stores included, and still unsynced. It has no locks, no hook, and counts
    /// operations from 0.
    ///
    /// Costs a reference per file and directory, whatever their size.
    pub fn kill_clone(&self) -> MemVfs {
        Self::from_disk(self.disk().surviving())
    }

    /// A disk that a power cut at this moment could leave behind. Everything on it is durable. The
    /// same kind (and seed) on the same state gives the same disk. The cost is proportional to what
    /// is unsynced.
    pub fn crash_clone(&self, kind: CrashKind) -> MemVfs {
        Self::from_disk(crash::image(&self.disk(), kind))
    }

    /// Counts an operation, passes it to the hook, and fails if the power is off.
    fn begin(&self, kind: OperationKind, path: &Path, offset: u64, len: u64) -> io::Result<()> {
        let number = {
            let mut disk = self.disk();
            disk.operations += u64::from(kind.is_change());
            if disk.power_off_after.is_some_and(|last| disk.operations > last) {
                return Err(io::Error::other("the power is off"));
            }
            disk.operations
        };
        if kind.is_change() {
            let hook = lock(&self.shared.hook).clone();
            if let Some(hook) = hook {
                hook(self, &DiskOperation { number, kind, path: path.to_owned(), offset, len });
            }
        } else if kind == OperationKind::Read {
            let hook = lock(&self.shared.read_hook).clone();
            if let Some(hook) = hook {
                hook(path);
            }
        }
        Ok(())
    }

    fn handle(&self, disk: &mut Disk, id: u64, path: PathBuf) -> Handle {
        disk.retain_inode(id);
        Handle { vfs: self.clone(), id, path }
    }

    fn file(&self, disk: &mut Disk, id: u64, path: PathBuf, writable: bool) -> Arc<dyn File> {
        let handle = Arc::new(self.handle(disk, id, path));
        Arc::new(MemFile { handle, writable, promised: AtomicU64::new(0) })
    }

    fn open_as(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn File>> {
        let path = normal(path);
        self.begin(OperationKind::Open, &path, 0, 0)?;
        let mut disk = self.disk();
        let id = disk.find_file(&path)?;
        Ok(self.file(&mut disk, id, path, writable))
    }
}

impl Vfs for MemVfs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = normal(path);
        self.begin(OperationKind::CreateDir, &path, 0, 0)?;
        self.disk().create_dir_all(&path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let path = normal(path);
        self.begin(OperationKind::Create, &path, 0, 0)?;
        let mut disk = self.disk();
        let id = disk.create_file(&path)?;
        Ok(self.file(&mut disk, id, path, true))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open_as(path, false)
    }

    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open_as(path, true)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (normal(from), normal(to));
        self.begin(OperationKind::Rename, &from, 0, 0)?;
        self.disk().rename(&from, &to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (normal(from), normal(to));
        self.begin(OperationKind::Link, &from, 0, 0)?;
        self.disk().hard_link(&from, &to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let path = normal(path);
        self.begin(OperationKind::Remove, &path, 0, 0)?;
        self.disk().remove(&path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let dir = normal(dir);
        self.begin(OperationKind::Inspect, &dir, 0, 0)?;
        let disk = self.disk();
        let entries = disk.dir(&dir)?.current.iter();
        Ok(entries.filter(|(_, e)| **e != DirEntry::Dir).map(|(name, _)| name.clone()).collect())
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let path = normal(path);
        self.begin(OperationKind::Inspect, &path, 0, 0)?;
        let disk = self.disk();
        Ok(disk.inode(disk.find_file(&path)?).current.len())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = normal(dir);
        self.begin(OperationKind::SyncDir, &dir, 0, 0)?;
        self.disk().sync_dir(&dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        let path = normal(path);
        self.begin(OperationKind::Lock, &path, 0, 0).map_err(LockError::Io)?;
        let mut disk = self.disk();
        let id = match disk.find_file(&path) {
            Ok(id) => id,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                disk.create_file(&path).map_err(LockError::Io)?
            }
            Err(error) => return Err(LockError::Io(error)),
        };
        match disk.locked.get(&id) {
            None => disk.locked.insert(id, Locked::Exclusive),
            Some(Locked::Exclusive) => return Err(LockError::Held { pid: disk.lock_holder(id) }),
            Some(Locked::Shared(_)) => return Err(LockError::Held { pid: None }),
        };
        let text = format!("{}\n", std::process::id());
        disk.inode_mut(id).set_len(0);
        disk.inode_mut(id).write(text.as_bytes(), 0);
        Ok(Box::new(MemLock { handle: self.handle(&mut disk, id, path) }))
    }

    fn lock_shared(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        let path = normal(path);
        // As for an open: nothing changes.
        self.begin(OperationKind::Open, &path, 0, 0).map_err(LockError::Io)?;
        let mut disk = self.disk();
        let id = disk.find_file(&path).map_err(LockError::Io)?;
        let sharers = match disk.locked.get(&id) {
            Some(Locked::Exclusive) => return Err(LockError::Held { pid: disk.lock_holder(id) }),
            Some(Locked::Shared(sharers)) => *sharers,
            None => 0,
        };
        disk.locked.insert(id, Locked::Shared(sharers + 1));
        Ok(Box::new(MemLock { handle: self.handle(&mut disk, id, path) }))
    }

    fn free_bytes(&self, _dir: &Path) -> Option<u64> {
        self.disk().free()
    }
}

/// Keeps an inode alive, whatever happens to its names.
struct Handle {
    vfs: MemVfs,
    id: u64,
    path: PathBuf,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

impl Handle {
    fn begin(&self, kind: OperationKind, offset: u64, len: u64) -> io::Result<()> {
        self.vfs.begin(kind, &self.path, offset, len)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.vfs.disk().release_inode(self.id);
        let hook = &self.vfs.shared.close_hook;
        let hook = lock(hook).clone();
        if let Some(hook) = hook {
            hook(&self.path);
        }
    }
}

#[derive(Debug)]
struct MemLock {
    handle: Handle,
}

impl FileLock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        let (mut disk, id) = (self.handle.vfs.disk(), self.handle.id);
        match disk.locked.get_mut(&id) {
            Some(Locked::Shared(sharers)) if *sharers > 1 => *sharers -= 1,
            _ => {
                disk.locked.remove(&id);
            }
        }
    }
}

#[derive(Debug)]
struct MemFile {
    handle: Arc<Handle>,
    writable: bool,
    /// As in `DiskFile`: the length that `allocate` guaranteed on this handle.
    promised: AtomicU64,
}

impl MemFile {
    fn begin_change(&self, kind: OperationKind, offset: u64, len: u64) -> io::Result<()> {
        self.handle.begin(kind, offset, len)?;
        if self.writable { Ok(()) } else { Err(io::Error::from_raw_os_error(BAD_DESCRIPTOR)) }
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.begin(OperationKind::Sync, 0, 0)?;
        let mut disk = self.handle.vfs.disk();
        let failed = disk.settings.failed_sync;
        if disk.lose_sync_of == Some(std::thread::current().id()) {
            disk.lose_sync_of = None;
            disk.inode_mut(self.handle.id).lose_unsynced(failed);
            return Err(io::Error::from_raw_os_error(5)); // EIO
        }
        let free = disk.free().filter(|_| disk.settings.space == SpaceUse::Delayed);
        let fits = disk.inode_mut(self.handle.id).sync_within(free.unwrap_or(u64::MAX), failed);
        if fits { Ok(()) } else { Err(ErrorKind::StorageFull.into()) }
    }
}

impl File for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.handle.begin(OperationKind::Read, offset, buf.len() as u64)?;
        let mut disk = self.handle.vfs.disk();
        if disk.settings.cold_reads {
            disk.inode_mut(self.handle.id).make_resident(offset, buf.len());
        }
        Ok(disk.inode(self.handle.id).current.read(buf, offset))
    }

    fn try_read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        self.handle.begin(OperationKind::Read, offset, buf.len() as u64)?;
        let disk = self.handle.vfs.disk();
        let inode = disk.inode(self.handle.id);
        let is_cold = disk.settings.cold_reads && !inode.is_resident(offset, buf.len());
        if is_cold || !disk.settings.reads_without_waiting {
            return Ok(false);
        }
        Ok(inode.current.read(buf, offset) == buf.len())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.begin_change(OperationKind::Write, offset, bytes.len() as u64)?;
        let mut disk = self.handle.vfs.disk();
        let fits = match disk.free() {
            Some(free) => {
                let space = disk.settings.space;
                disk.inode(self.handle.id).fitting(bytes.len(), offset, free, space)
            }
            None => bytes.len(),
        };
        disk.inode_mut(self.handle.id).write(&bytes[..fits], offset);
        if fits == bytes.len() { Ok(()) } else { Err(ErrorKind::StorageFull.into()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    /// Any unsynced sector may be on the disk already, so there is nothing to start.
    fn write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        self.handle.begin(OperationKind::WriteBack, offset, len)
    }

    fn len(&self) -> io::Result<u64> {
        self.handle.begin(OperationKind::Inspect, 0, 0)?;
        Ok(self.handle.vfs.disk().inode(self.handle.id).current.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.begin_change(OperationKind::SetLen, len, 0)?;
        self.promised.fetch_min(len, Ordering::AcqRel);
        self.handle.vfs.disk().inode_mut(self.handle.id).set_len(len);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        self.begin_change(OperationKind::Allocate, len, 0)?;
        let mut disk = self.handle.vfs.disk();
        if !disk.settings.can_map || disk.settings.space != SpaceUse::InPlace {
            return Ok(false);
        }
        let missing = disk.inode(self.handle.id).current.absent_pages(0, len) * PAGE_BYTES as u64;
        if disk.free().is_some_and(|free| missing > free) {
            return Err(ErrorKind::StorageFull.into());
        }
        disk.inode_mut(self.handle.id).current.allocate(len);
        self.promised.fetch_max(len, Ordering::AcqRel);
        Ok(true)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.handle.begin(OperationKind::Inspect, offset, 0)?;
        Ok(self.handle.vfs.disk().inode(self.handle.id).current.next_data(offset))
    }

    fn drop_cache(&self) {
        self.handle.vfs.disk().inode_mut(self.handle.id).drop_cache();
    }

    fn map_for_writing(&self, len: usize) -> io::Result<Option<Arc<dyn Mapping>>> {
        self.handle.begin(OperationKind::Map, 0, len as u64)?;
        if len == 0 || self.promised.load(Ordering::Acquire) < len as u64 {
            return Ok(None);
        }
        Ok(Some(Arc::new(MemMapping { handle: Arc::clone(&self.handle), len })))
    }
}

#[derive(Debug)]
struct MemMapping {
    handle: Arc<Handle>,
    len: usize,
}

impl Mapping for MemMapping {
    fn len(&self) -> usize {
        self.len
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len());
        assert!(end.is_some_and(|end| end <= self.len), "store outside of the window");
        let (at, len) = (offset as u64, bytes.len() as u64);
        if self.handle.begin(OperationKind::Store, at, len).is_err() {
            return; // Without power nothing is stored, and nobody is told.
        }
        let mut disk = self.handle.vfs.disk();
        let inode = disk.inode_mut(self.handle.id);
        // A real disk would raise SIGBUS here.
        assert!(at + len <= inode.current.len(), "store beyond the end of a file that was cut");
        inode.write(bytes, at);
    }
}
