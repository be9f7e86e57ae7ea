//! A disk with a speed: wraps any `Vfs` and passes written bytes on at a given rate.
//!
//! A write is charged its bytes when it is made. Bytes stored through a mapping are charged at the
//! next sync of that handle. Every sync of a file or directory has a fixed price. All handles queue
//! in one line, first come, first served, in slices of 64 KiB: a small sync waits behind a slice of
//! a table, not behind the whole table. Reads, creations, renames and removals are free.
//!
//! Time comes from a [`Clock`]. With one that only counts, a test learns how long the disk would
//! have been busy, and spends no time itself.
//!
//! It does not refuse, lose or reorder anything (see `fault`, `mem`).

use super::{File, FileLock, LockError, Mapping, Vfs};
use crate::sync::lock;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The most bytes that queue at once.
const SLICE_BYTES: u64 = 64 << 10;

/// The time source of a throttled disk.
pub trait Clock: Send + Sync + Debug + 'static {
    /// The time since some fixed moment.
    fn now(&self) -> Duration;
    /// Returns when `now` is at or after `at`. May block: threads that write call it.
    fn wait_until(&self, at: Duration);
}

/// The speed of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speed {
    /// Bytes per second; at least 1.
    pub bytes_per_second: u64,
    /// The price of a sync besides its bytes, in bytes.
    pub sync_bytes: u64,
    /// How many bytes an idle disk accepts at once before the rate applies (a write cache).
    pub burst_bytes: u64,
}

impl Speed {
    /// The time that `bytes` take.
    fn time_for(self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        Duration::from_nanos(nanos as u64)
    }
}

#[derive(Debug)]
struct DiskQueue {
    speed: Speed,
    /// The time at which everything that is queued so far will be written.
    free_at: Duration,
    passed_bytes: u64,
}

/// Sets the speed of a `ThrottledVfs` and reads its meter. Clones control the same disk.
#[derive(Clone, Debug)]
pub struct ThrottleControl {
    line: Arc<Mutex<DiskQueue>>,
    clock: Arc<dyn Clock>,
}

impl ThrottleControl {
    /// Sets the speed from now on. Waits that have begun are not affected.
    pub fn set_speed(&self, speed: Speed) {
        lock(&self.line).speed = speed;
    }

    /// Bytes charged so far, including the price of syncs.
    pub fn passed_bytes(&self) -> u64 {
        lock(&self.line).passed_bytes
    }

    /// Waits until `bytes` have passed.
    fn pass(&self, mut bytes: u64) {
        while bytes > 0 {
            let slice = bytes.min(SLICE_BYTES);
            let at = self.stand_in_line(slice);
            if at > self.clock.now() {
                self.clock.wait_until(at);
            }
            bytes -= slice;
        }
    }

    fn sync(&self, bytes: u64) {
        let price = lock(&self.line).speed.sync_bytes;
        self.pass(bytes + price);
    }

    /// Queues `bytes` and returns the time at which they will have passed.
    fn stand_in_line(&self, bytes: u64) -> Duration {
        let mut line = lock(&self.line);
        let earliest = self.clock.now().saturating_sub(line.speed.time_for(line.speed.burst_bytes));
        line.free_at = line.free_at.max(earliest) + line.speed.time_for(bytes);
        line.passed_bytes += bytes;
        line.free_at
    }
}

/// A disk with a speed; see the module.
#[derive(Debug)]
pub struct ThrottledVfs {
    inner: Arc<dyn Vfs>,
    control: ThrottleControl,
}

impl ThrottledVfs {
    /// Wraps `inner`, with `speed`, measured by `clock`.
    pub fn new(inner: Arc<dyn Vfs>, speed: Speed, clock: Arc<dyn Clock>) -> Self {
        let line = DiskQueue { speed, free_at: clock.now(), passed_bytes: 0 };
        Self { inner, control: ThrottleControl { line: Arc::new(Mutex::new(line)), clock } }
    }

    /// The control of this disk.
    pub fn control(&self) -> ThrottleControl {
        self.control.clone()
    }

    fn throttled(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        let control = self.control.clone();
        Arc::new(ThrottledFile { inner, control, stored: Arc::default() })
    }
}

impl Vfs for ThrottledVfs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.inner.create(path).map(|file| self.throttled(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        // Opened for reading, which is free.
        self.inner.open(path)
    }

    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.inner.open_rw(path).map(|file| self.throttled(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.inner.len(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.control.sync(0);
        self.inner.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        self.inner.lock(path)
    }

    fn lock_shared(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        self.inner.lock_shared(path)
    }

    fn open_to_others(&self, dir: &Path) -> io::Result<Option<String>> {
        self.inner.open_to_others(dir)
    }

    fn free_bytes(&self, dir: &Path) -> Option<u64> {
        self.inner.free_bytes(dir)
    }
}

#[derive(Debug)]
struct ThrottledFile {
    inner: Arc<dyn File>,
    control: ThrottleControl,
    /// Bytes stored through the mapping since the last sync.
    stored: Arc<AtomicU64>,
}

impl ThrottledFile {
    fn pay_for_sync(&self) {
        self.control.sync(self.stored.swap(0, Ordering::Relaxed));
    }
}

impl File for ThrottledFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn try_read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        self.inner.try_read_exact_at(buf, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.control.pass(bytes.len() as u64);
        self.inner.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.pay_for_sync();
        self.inner.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.pay_for_sync();
        self.inner.sync_all()
    }

    fn write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.write_back(offset, len)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        self.inner.allocate(len)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.inner.next_data(offset)
    }

    fn drop_cache(&self) {
        self.inner.drop_cache();
    }

    fn map_for_writing(&self, len: usize) -> io::Result<Option<Arc<dyn Mapping>>> {
        let mapping = self.inner.map_for_writing(len)?;
        Ok(mapping.map(|inner| {
            let stored = Arc::clone(&self.stored);
            Arc::new(ThrottledMapping { inner, stored }) as Arc<dyn Mapping>
        }))
    }
}

/// Never waits: stores happen on callers' threads.
#[derive(Debug)]
struct ThrottledMapping {
    inner: Arc<dyn Mapping>,
    stored: Arc<AtomicU64>,
}

impl Mapping for ThrottledMapping {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        self.stored.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.inner.write(offset, bytes);
    }

    fn before_sync(&self, from: usize, upto: usize) {
        self.inner.before_sync(from, upto);
    }

    fn after_sync(&self, offset: usize) {
        self.inner.after_sync(offset);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::vfs::MemVfs;

    /// A clock that counts the time that was waited for.
    #[derive(Debug, Default)]
    pub(in crate::vfs) struct Counted(AtomicU64);

    impl Clock for Counted {
        fn now(&self) -> Duration {
            Duration::from_nanos(self.0.load(Ordering::Relaxed))
        }

        fn wait_until(&self, at: Duration) {
            self.0.fetch_max(at.as_nanos() as u64, Ordering::Relaxed);
        }
    }

    const MIB: u64 = 1 << 20;
    /// 1 MiB per second.
    pub(in crate::vfs) const SLOW: Speed =
        Speed { bytes_per_second: MIB, sync_bytes: 0, burst_bytes: 0 };

    fn disk(speed: Speed) -> (ThrottledVfs, Arc<Counted>) {
        let clock = Arc::new(Counted::default());
        (ThrottledVfs::new(Arc::new(MemVfs::new()), speed, clock.clone()), clock)
    }

    #[test]
    fn a_mebibyte_takes_a_second() {
        let (vfs, clock) = disk(SLOW);
        let file = vfs.create(Path::new("/a")).unwrap();
        file.write_all_at(&vec![1; MIB as usize], 0).unwrap();
        assert_eq!(clock.now(), Duration::from_secs(1));
        file.sync_data().unwrap();
        file.read_at(&mut [0; 4096], 0).unwrap();
        assert_eq!(clock.now(), Duration::from_secs(1), "written is written");
        assert_eq!(vfs.control().passed_bytes(), MIB);
        vfs.control().set_speed(Speed { bytes_per_second: 2 * MIB, ..SLOW });
        file.write_all_at(&vec![1; MIB as usize], 0).unwrap();
        assert_eq!(clock.now(), Duration::from_millis(1500));
    }

    #[test]
    fn syncs_have_a_price() {
        let (vfs, clock) = disk(Speed { sync_bytes: MIB / 4, ..SLOW });
        let file = vfs.create(Path::new("/a")).unwrap();
        file.sync_all().unwrap();
        file.sync_data().unwrap();
        vfs.sync_dir(Path::new("/")).unwrap();
        assert_eq!(clock.now(), Duration::from_millis(750));
    }

    #[test]
    fn stores_through_a_map_are_paid_for_by_the_next_sync() {
        let (vfs, clock) = disk(SLOW);
        let file = vfs.create(Path::new("/a")).unwrap();
        assert!(file.allocate(MIB).unwrap());
        let map = file.map_for_writing(MIB as usize).unwrap().expect("real blocks were promised");
        map.write(0, &vec![1; MIB as usize / 2]);
        assert_eq!(clock.now(), Duration::ZERO, "a store never waits");
        file.sync_data().unwrap();
        assert_eq!(clock.now(), Duration::from_millis(500));
        file.sync_data().unwrap();
        assert_eq!(clock.now(), Duration::from_millis(500), "once");
    }

    #[test]
    fn writers_share_the_rate() {
        let (vfs, clock) = disk(SLOW);
        std::thread::scope(|scope| {
            for name in ["/a", "/b", "/c"] {
                let file = vfs.create(Path::new(name)).unwrap();
                scope.spawn(move || file.write_all_at(&vec![1; MIB as usize], 0).unwrap());
            }
        });
        assert_eq!(clock.now(), Duration::from_secs(3));
    }

    #[test]
    fn who_comes_first_is_served_slice_by_slice() {
        let (vfs, _) = disk(SLOW);
        let control = vfs.control();
        // A large write has queued its first slice when a small sync arrives.
        let table = control.stand_in_line(SLICE_BYTES);
        let sync = control.stand_in_line(4096);
        assert_eq!(sync, table + SLOW.time_for(4096));
    }

    #[test]
    fn only_a_burst_of_idle_time_is_saved_up() {
        let (vfs, clock) = disk(Speed { burst_bytes: MIB / 2, ..SLOW });
        let file = vfs.create(Path::new("/a")).unwrap();
        clock.wait_until(Duration::from_secs(100));
        file.write_all_at(&vec![1; MIB as usize], 0).unwrap();
        assert_eq!(clock.now(), Duration::from_millis(100_500));
    }
}
