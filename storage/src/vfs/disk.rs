//! The real disk: `Vfs` over std, with the Linux calls that std lacks from rustix.
//!
//! It upholds the contract in `vfs`, never follows a symbolic link in the last component of a path,
//! and creates everything for the owner only (files 0600, directories 0700). It completes
//! interrupted and short system calls. Calls that fail for another reason are not retried.
//!
//! It does not cache or count, and guarantees nothing about a file that another process truncates
//! while it is mapped.
//!
//! Long because each operation of `Vfs` is a few lines of Linux and what to say about them.
#![allow(clippy::disallowed_methods, reason = "this file is where files are opened")]

use std::fs::{self, DirBuilder, File as OsFile, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use super::{File, FileLock, LockError, Mapping, NotAFile, Vfs};

/// How much of a lock file is read: a 32-bit process id and a newline fit.
const LOCK_TEXT_BYTES_MAX: usize = 16;

/// The file system of this machine.
#[derive(Debug)]
pub struct DiskVfs {
    /// May `try_read_exact_at` ask the kernel? Cleared permanently when a file system refuses.
    nowait: Arc<AtomicBool>,
}

impl DiskVfs {
    /// The file system of this machine. Reads without waiting are used until a file system refuses
    /// one.
    pub fn new() -> Self {
        Self { nowait: Arc::new(AtomicBool::new(linux::nowait_is_sound())) }
    }

    fn opened(&self, file: OsFile) -> Arc<dyn File> {
        Arc::new(DiskFile { file, promised: AtomicU64::new(0), nowait: Arc::clone(&self.nowait) })
    }
}

impl Default for DiskVfs {
    fn default() -> Self {
        Self::new()
    }
}

/// The options of every open. std adds `O_CLOEXEC`; this adds `O_NOFOLLOW`, and `O_NONBLOCK` for
/// pipes, whose open would wait for the other end.
fn options(write: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(write).mode(0o600).custom_flags(linux::OPEN_FLAGS);
    options
}

impl Vfs for DiskVfs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.opened(options(true).create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.opened(open_regular(&options(false), path)?))
    }

    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.opened(open_regular(&options(true), path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                continue;
            }
            // A name that is not UTF-8 is not ours, and callers ignore foreign names.
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::symlink_metadata(path)?.len())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // The directory itself may be a symbolic link that the user made on purpose, so it is
        // followed.
        OsFile::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        let mut how = options(true);
        let file = open_regular(how.create(true).truncate(false), path).map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // Shared holders leave no id, so the file's contents would be that of an earlier
                // holder.
                let shared = file.try_lock_shared().is_ok();
                let pid = if shared { None } else { lock_holder(&file) };
                return Err(LockError::Held { pid });
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        let guard = DiskLock { file };
        let text = format!("{}\n", std::process::id());
        // The id is only for the error message of the next caller. A full disk must not keep a
        // database from being opened for reading, so a failure to write the id is not a failure to
        // lock.
        if guard.file.write_all_at(text.as_bytes(), 0).is_ok() {
            let _ = guard.file.set_len(text.len() as u64);
        }
        Ok(Box::new(guard))
    }

    fn lock_shared(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        let file = open_regular(&options(false), path).map_err(LockError::Io)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Box::new(DiskLock { file })),
            Err(TryLockError::WouldBlock) => Err(LockError::Held { pid: lock_holder(&file) }),
            Err(TryLockError::Error(error)) => Err(LockError::Io(error)),
        }
    }

    fn open_to_others(&self, dir: &Path) -> io::Result<Option<String>> {
        let directory = fs::metadata(dir)?;
        let (owner, mode) = (directory.uid(), directory.mode());
        Ok(match linux::user() {
            Some(user) if user != owner => {
                Some(format!("belongs to user {owner}, and this process runs as {user}"))
            }
            _ if mode & 0o002 != 0 => Some("can be written to by everybody".to_owned()),
            _ if mode & 0o020 != 0 => Some("can be written to by its group".to_owned()),
            _ => None,
        })
    }

    fn free_bytes(&self, dir: &Path) -> Option<u64> {
        linux::free_bytes(dir)
    }
}

/// Opens a file, and refuses anything but a regular one.
fn open_regular(options: &OpenOptions, path: &Path) -> io::Result<OsFile> {
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(linux::LINK) => NotAFile("a symbolic link").into(),
        _ if error.kind() == ErrorKind::IsADirectory => NotAFile("a directory").into(),
        // The answer for a pipe opened for writing without a reader, a socket, or a device without
        // a driver.
        Some(linux::NO_DEVICE_OR_ADDRESS) => NotAFile("a pipe, a socket or a device").into(),
        _ => error,
    })?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        Ok(file)
    } else if kind.is_dir() {
        Err(NotAFile("a directory").into())
    } else {
        Err(NotAFile("a pipe, a socket or a device").into())
    }
}

/// The most file descriptors that this process may have (its soft limit); `None` if that is unknown
/// or unlimited.
pub fn descriptors_max() -> Option<u64> {
    linux::descriptors_max()
}

/// The memory that this process may have, in bytes: that of the machine, or of its control group if
/// that is less. `None` if that is unknown.
pub fn memory_bytes() -> Option<u64> {
    linux::memory_bytes()
}

/// The process id in a lock file; `None` if the file does not start with a number.
fn lock_holder(file: &OsFile) -> Option<u32> {
    let mut text = [0; LOCK_TEXT_BYTES_MAX];
    let n = read_full(file, &mut text, 0).ok()?;
    std::str::from_utf8(&text[..n]).ok()?.lines().next()?.trim().parse().ok()
}

/// Reads until `buf` is full or the file ends.
fn read_full(file: &OsFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Unlocks explicitly, because a child process that was forked meanwhile may have a copy of the
/// descriptor.
#[derive(Debug)]
struct DiskLock {
    file: OsFile,
}

impl FileLock for DiskLock {}

impl Drop for DiskLock {
    fn drop(&mut self) {
        // The file is closed next, which unlocks as well.
        let _ = self.file.unlock();
    }
}

#[derive(Debug)]
struct DiskFile {
    file: OsFile,
    /// `[0, promised)` has real blocks, so a store through a mapping cannot run out of space.
    promised: AtomicU64,
    nowait: Arc<AtomicBool>,
}

impl File for DiskFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(&self.file, buf, offset)
    }

    #[inline]
    fn try_read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        if buf.is_empty() {
            return Ok(true);
        }
        if !self.nowait.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match linux::read_cached(&self.file, buf, offset) {
            Ok(n) => Ok(n == buf.len()),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(false),
                ErrorKind::Unsupported | ErrorKind::InvalidInput => {
                    self.nowait.store(false, Ordering::Relaxed);
                    Ok(false)
                }
                _ => Err(error),
            },
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        linux::write_back(&self.file, offset, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // Lower the guarantee before truncating, so that it never exceeds the file.
        self.promised.fetch_min(len, Ordering::AcqRel);
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        if len == 0 {
            return linux::keeps_blocks_in_place(&self.file);
        }
        if !linux::keeps_blocks_in_place(&self.file)? || !linux::allocate(&self.file, len)? {
            return Ok(false);
        }
        self.promised.fetch_max(len, Ordering::AcqRel);
        Ok(true)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        // A file system that copies on write may call a page a hole that was just stored to through
        // a map (OpenZFS 2.2.0 did).
        if !linux::keeps_blocks_in_place(&self.file)? {
            return Ok(Some(offset));
        }
        linux::next_data(&self.file, offset)
    }

    fn drop_cache(&self) {
        linux::drop_cache(&self.file);
    }

    fn map_for_writing(&self, len: usize) -> io::Result<Option<Arc<dyn Mapping>>> {
        if len == 0 || self.promised.load(Ordering::Acquire) < len as u64 {
            return Ok(None);
        }
        // The mapping keeps the file open by itself. It stays valid when this handle is dropped.
        match MmapOptions::new().len(len).map_raw(&self.file) {
            Ok(map) => {
                linux::load(&self.file, len)?;
                Ok(Some(Arc::new(DiskMapping { map })))
            }
            Err(error) if error.raw_os_error() == Some(linux::NO_DEVICE) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[derive(Debug)]
struct DiskMapping {
    map: MmapRaw,
}

impl Mapping for DiskMapping {
    fn len(&self) -> usize {
        self.map.len()
    }

    #[inline]
    fn write(&self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len());
        assert!(end.is_some_and(|end| end <= self.map.len()), "store outside of the window");
        let target = self.map.as_mut_ptr().wrapping_add(offset);
        // SAFETY: `[target, target + bytes.len())` lies in the mapping (asserted above), which is
        // readable and writable and lives as long as `self`. `allocate` on the handle that made the
        // mapping guaranteed its blocks, so the store cannot fault for lack of space. `bytes`
        // cannot overlap the target, because nobody ever gets a reference into the mapping. The
        // trait allows only one thread at a time to write a given byte, and no thread reads through
        // the mapping.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) }
    }

    fn before_sync(&self, from: usize, upto: usize) {
        let upto = if upto >= self.map.len() { upto } else { linux::folio_start(upto) };
        linux::forget_pages(&self.map, from, upto);
    }

    fn after_sync(&self, offset: usize) {
        linux::forget_pages(&self.map, offset, self.map.len());
    }
}

#[cfg(target_os = "linux")]
mod linux {
    //! What Linux offers beyond std.

    use std::fs::File as OsFile;
    use std::io::{self, ErrorKind, IoSliceMut};
    use std::num::NonZeroU64;
    use std::path::Path;

    use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
    use rustix::fs::{FallocateFlags, OFlags};
    use rustix::io::{Errno, ReadWriteFlags};

    /// Flags for open: a symbolic link in the last component is an error (`ELOOP`), and a pipe is
    /// opened without waiting.
    pub(super) const OPEN_FLAGS: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits() as i32;
    /// The error of opening a symbolic link.
    pub(super) const LINK: i32 = Errno::LOOP.raw_os_error();
    /// The error of opening a pipe for writing, or a socket.
    pub(super) const NO_DEVICE_OR_ADDRESS: i32 = Errno::NXIO.raw_os_error();
    /// The error of `mmap` on a file system that does not support it.
    pub(super) const NO_DEVICE: i32 = Errno::NODEV.raw_os_error();

    /// Magic numbers (`statfs.f_type`) of the file systems that overwrite in place and honour
    /// `fallocate` for later stores: ext2/3/4 and XFS. On others, copy-on-write, compression, a
    /// quota or a server may refuse a block at write-back, and a store through a mapping cannot
    /// report that.
    const IN_PLACE: [u32; 2] = [0xef53, 0x5846_5342];

    /// Kernels 5.9 and 5.10 may answer `RWF_NOWAIT` with zero bytes although there is data.
    pub(super) fn nowait_is_sound() -> bool {
        let uname = rustix::system::uname();
        super::kernel_reads_nowait(&uname.release().to_string_lossy())
    }

    /// Reads from the page cache. Stops at the first page that is not cached.
    #[inline]
    pub(super) fn read_cached(file: &OsFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut slices = [IoSliceMut::new(buf)];
        Ok(rustix::io::preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT)?)
    }

    pub(super) fn keeps_blocks_in_place(file: &OsFile) -> io::Result<bool> {
        Ok(IN_PLACE.contains(&(rustix::fs::fstatfs(file)?.f_type as u32)))
    }

    /// Reserves blocks and extends the file to `len`; `false` if that is not supported.
    pub(super) fn allocate(file: &OsFile, len: u64) -> io::Result<bool> {
        loop {
            match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Linux follows this advice by starting to write dirty pages, without waiting, and by dropping
    /// clean pages; pages that are being written stay. Here it replaces `sync_file_range`, which
    /// rustix lacks. The last sync of a table of 64 MiB takes 0 to 5 ms, compared with 28 to 75 ms
    /// without it (6.18, ext4). All pages of the table are in the cache afterwards.
    pub(super) fn write_back(file: &OsFile, offset: u64, len: u64) -> io::Result<()> {
        let Some(len) = NonZeroU64::new(len) else { return Ok(()) };
        Ok(rustix::fs::fadvise(file, offset, Some(len), rustix::fs::Advice::DontNeed)?)
    }

    pub(super) fn next_data(file: &OsFile, offset: u64) -> io::Result<Option<u64>> {
        // It moves the file's position, which nobody uses.
        match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(at) => Ok(Some(at)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(Some(offset)),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn drop_cache(file: &OsFile) {
        // No length means all. Only advice: nothing depends on it.
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }

    /// The largest unit in which the page cache holds a file.
    const FOLIO_BYTES_MAX: usize = 2 << 20;
    const READ_PIECE_BYTES: usize = 64 << 10;

    /// The start of the largest possible folio around `offset`.
    pub(super) fn folio_start(offset: usize) -> usize {
        offset / FOLIO_BYTES_MAX * FOLIO_BYTES_MAX
    }

    /// Brings the first `len` bytes into the page cache, in the largest folios that the file system
    /// has, and not into the page tables that stay: this mapping is gone afterwards.
    ///
    /// One call for each folio. Reading the file instead makes the kernel clear what a whole
    /// readahead covers in one go, 8 MiB where `read_ahead_kb` says so. Unless it is built to be
    /// preemptible, it lets nobody else onto the core for these 9 ms.
    pub(super) fn load(file: &OsFile, len: usize) -> io::Result<()> {
        let map = MmapOptions::new().len(len).map_raw_read_only(file)?;
        // Folios of the full size, and no more than one at a time. Only advice.
        let _ = map.advise(Advice::HugePage);
        let _ = map.advise(Advice::Random);
        for offset in (0..len).step_by(FOLIO_BYTES_MAX) {
            let bytes = FOLIO_BYTES_MAX.min(len - offset);
            match map.advise_range(Advice::PopulateRead, offset, bytes) {
                Ok(()) => {}
                // Linux before 5.14.
                Err(error) if error.kind() == ErrorKind::InvalidInput => {
                    return load_by_reading(file, len);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn load_by_reading(file: &OsFile, len: usize) -> io::Result<()> {
        let mut piece = vec![0; READ_PIECE_BYTES];
        for offset in (0..len).step_by(READ_PIECE_BYTES) {
            super::read_full(file, &mut piece, offset as u64)?;
        }
        Ok(())
    }

    /// Removes the pages of `[from, upto)` from the page tables at once. They stay in the page
    /// cache. A store to a folio without any page in the tables maps the whole folio as writable,
    /// at once. A store to a page that a sync made read-only costs 4.3 us per page, and making it
    /// read-only costs 10 us (6.18, ext4, two processors). So whole folios are removed.
    pub(super) fn forget_pages(map: &MmapRaw, from: usize, upto: usize) {
        let start = folio_start(from);
        let Some(len) = upto.min(map.len()).checked_sub(start).filter(|&len| len > 0) else {
            return;
        };
        // SAFETY: the mapping is shared with a file, so its bytes live in the page cache. The
        // kernel keeps what was stored, also by a thread that stores at this moment, and a later
        // access finds it there. Nobody ever gets a reference into the mapping.
        let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, len) };
    }

    /// The user whose rights this process has.
    #[expect(clippy::unnecessary_wraps, reason = "elsewhere nobody can say")]
    pub(super) fn user() -> Option<u32> {
        Some(rustix::process::geteuid().as_raw())
    }

    pub(super) fn descriptors_max() -> Option<u64> {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current
    }

    pub(super) fn memory_bytes() -> Option<u64> {
        let system = rustix::system::sysinfo();
        let machine = system.totalram.checked_mul(system.mem_unit.into())?;
        Some(group_memory_bytes().map_or(machine, |group| group.min(machine)))
    }

    /// The limit of the control group (version 2) of this process, and of those around it.
    fn group_memory_bytes() -> Option<u64> {
        let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let limit = |group: &Path| {
            let file = Path::new("/sys/fs/cgroup").join(group).join("memory.max");
            std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
        };
        Path::new(own).ancestors().filter_map(limit).min()
    }

    pub(super) fn free_bytes(dir: &Path) -> Option<u64> {
        let stat = rustix::fs::statvfs(dir).ok()?;
        stat.f_bavail.checked_mul(stat.f_frsize)
    }
}

#[cfg(not(target_os = "linux"))]
mod linux {
    //! On other systems each of these says "cannot", which is always a correct answer.

    use std::fs::File as OsFile;
    use std::io;
    use std::path::Path;

    use memmap2::MmapRaw;

    pub(super) const OPEN_FLAGS: i32 = 0;
    pub(super) const LINK: i32 = 62;
    pub(super) const NO_DEVICE_OR_ADDRESS: i32 = 6;
    pub(super) const NO_DEVICE: i32 = 19;

    pub(super) fn nowait_is_sound() -> bool {
        false
    }

    pub(super) fn read_cached(_: &OsFile, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    pub(super) fn keeps_blocks_in_place(_: &OsFile) -> io::Result<bool> {
        Ok(false)
    }

    pub(super) fn allocate(_: &OsFile, _: u64) -> io::Result<bool> {
        Ok(false)
    }

    pub(super) fn write_back(_: &OsFile, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn next_data(_: &OsFile, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }

    pub(super) fn drop_cache(_: &OsFile) {}

    pub(super) fn folio_start(offset: usize) -> usize {
        offset
    }

    pub(super) fn forget_pages(_: &MmapRaw, _: usize, _: usize) {}

    pub(super) fn load(_: &OsFile, _: usize) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn user() -> Option<u32> {
        None
    }

    pub(super) fn descriptors_max() -> Option<u64> {
        None
    }

    pub(super) fn memory_bytes() -> Option<u64> {
        None
    }

    pub(super) fn free_bytes(_: &Path) -> Option<u64> {
        None
    }
}

/// Is `RWF_NOWAIT` sound in this kernel release? Not in 5.9 and 5.10, nor in a release that cannot
/// be parsed. Kernels before 4.14 refuse it themselves.
fn kernel_reads_nowait(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => !(major == 5 && (minor == 9 || minor == 10)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_kernels_are_refused() {
        for release in ["5.9.0", "5.10.0-28-amd64", "5.10", "", "weird", "5"] {
            assert!(!kernel_reads_nowait(release), "{release}");
        }
        for release in ["4.19.0", "5.8.18", "5.11.0", "5.100.1", "6.18.44-fc-v657", "6.5-rc1"] {
            assert!(kernel_reads_nowait(release), "{release}");
        }
    }

    #[test]
    fn links_are_not_followed_and_modes_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let vfs = DiskVfs::new();
        let sub = dir.path().join("a/b");
        vfs.create_dir_all(&sub).unwrap();
        vfs.create(&sub.join("f")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&sub), mode(&sub.join("f"))), (0o700, 0o600));
        std::os::unix::fs::symlink(sub.join("f"), sub.join("link")).unwrap();
        if cfg!(target_os = "linux") {
            assert!(vfs.open(&sub.join("link")).is_err());
            assert!(vfs.open_rw(&sub.join("link")).is_err());
            assert!(vfs.lock(&sub.join("link")).is_err());
        }
    }
}
