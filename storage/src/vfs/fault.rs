//! Fault injection: wraps any `Vfs` and makes chosen operations fail.
//!
//! Faults are armed through a `FaultControl`, at any time and from any thread. A refused operation
//! does not reach the disk below, except for the first half of a partial write. A store through a
//! mapping cannot be refused, as on a real machine; it is only counted.
//!
//! It does not delay, reorder or lose anything by itself; `MemVfs` simulates crashes.
//!
//! Long because each operation of `Vfs` is wrapped once.

#[cfg(test)]
mod tests;

use crate::sync::lock;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::chance::Chance;
use super::{DiskOperation, File, FileLock, LockError, Mapping, MemVfs, OperationKind, Vfs};

/// I/O error of the device (Linux number).
pub const EIO: i32 = 5;
/// Too many open files in this process (Linux number).
pub const EMFILE: i32 = 24;
/// No space left on the device (Linux number).
pub const ENOSPC: i32 = 28;
/// The file system is read-only (Linux number).
pub const EROFS: i32 = 30;

/// What happens to a chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Refuse,
    ShortRead,
    PartialWrite,
    LoseSync,
}

#[derive(Clone, Copy, Debug)]
enum Code {
    Os(i32),
    Kind(ErrorKind),
}

impl Code {
    fn error(self) -> io::Error {
        match self {
            Self::Os(number) => io::Error::from_raw_os_error(number),
            Self::Kind(kind) => kind.into(),
        }
    }
}

/// A fault: which operations fail, from which on, how often, and with which error. Made from a kind
/// and refinements. Unless refined, the first match fails once with EIO.
#[derive(Clone, Debug)]
pub struct Fault {
    kind: Option<OperationKind>,
    name: Option<String>,
    skip: u64,
    times: u64,
    code: Code,
    effect: Effect,
}

impl Fault {
    /// Fails operations of `kind`.
    ///
    /// # Panics
    /// For `Store`, which cannot fail.
    pub fn of(kind: OperationKind) -> Self {
        assert!(kind.can_fail(), "a store through a map cannot fail");
        Self { kind: Some(kind), ..Self::any() }
    }

    /// Fails operations of every kind that can fail.
    pub fn any() -> Self {
        let (code, effect) = (Code::Os(EIO), Effect::Refuse);
        Self { kind: None, name: None, skip: 0, times: 1, code, effect }
    }

    /// Lets the first `n` matching operations succeed.
    #[must_use]
    pub fn after(self, n: u64) -> Self {
        Self { skip: n, ..self }
    }

    /// Fails `n` times in a row.
    #[must_use]
    pub fn times(self, n: u64) -> Self {
        Self { times: n, ..self }
    }

    /// Fails until disarmed.
    #[must_use]
    pub fn sticky(self) -> Self {
        self.times(u64::MAX)
    }

    /// Matches only files whose name contains `text`, such as `".wal"` or `"MANIFEST"`. A rename or
    /// a link matches by either name, and an operation on a directory by the directory's name.
    #[must_use]
    pub fn named(self, text: &str) -> Self {
        Self { name: Some(text.to_owned()), ..self }
    }

    /// Sets the error by the operating system's number: `EIO`, `ENOSPC` and so on.
    #[must_use]
    pub fn errno(self, number: i32) -> Self {
        Self { code: Code::Os(number), ..self }
    }

    /// Sets the error by its kind.
    #[must_use]
    pub fn error(self, kind: ErrorKind) -> Self {
        Self { code: Code::Kind(kind), ..self }
    }

    /// Makes reads return the first half of the request, as if the file ended there, without an
    /// error.
    #[must_use]
    pub fn short_read(self) -> Self {
        Self { kind: Some(OperationKind::Read), effect: Effect::ShortRead, ..self }
    }

    /// Makes writes store the first half of their bytes and then fail.
    #[must_use]
    pub fn partial_write(self) -> Self {
        Self { kind: Some(OperationKind::Write), effect: Effect::PartialWrite, ..self }
    }

    /// Makes syncs fail as on a real disk: later syncs of the data succeed without persisting it.
    /// Over a `MemVfs` (see `FaultVfs::over_mem`) exactly the unsynced pages are lost, in the way
    /// that `MemVfs::set_failed_sync` chose. Over another disk the data stays readable, and later
    /// syncs of the same handle do nothing.
    #[must_use]
    pub fn lose_sync(self) -> Self {
        Self { kind: Some(OperationKind::Sync), effect: Effect::LoseSync, ..self }
    }

    fn matches(&self, kind: OperationKind, paths: [Option<&Path>; 2]) -> bool {
        let kind_fits = self.kind.map_or(kind.can_fail(), |mine| mine == kind);
        let name_fits = |text: &String| {
            let names = paths.into_iter().flatten().filter_map(Path::file_name);
            names.map(|name| name.to_string_lossy()).any(|name| name.contains(text.as_str()))
        };
        kind_fits && self.name.as_ref().is_none_or(name_fits)
    }
}

/// Arms the faults of a `FaultVfs` and reads its counters. Clones control the same disk.
#[derive(Clone, Default)]
pub struct FaultControl {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    armed: Vec<Fault>,
    random: Option<Random>,
    counts: [u64; OperationKind::ALL.len()],
    fired: Vec<DiskOperation>,
}

#[derive(Debug)]
struct Random {
    chance: Chance,
    one_in: u64,
    fault: Fault,
}

impl fmt::Debug for FaultControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("FaultControl")
            .field("armed", &state.armed.len())
            .field("fired", &state.fired.len())
            .finish_non_exhaustive()
    }
}

impl FaultControl {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Arms one more fault. Each fault counts its own matches from now on. If several are due for
    /// the same operation, the one that was armed first takes effect, and the others only count the
    /// operation.
    pub fn arm(&self, fault: Fault) {
        self.state().armed.push(fault);
    }

    /// Makes each operation that matches `fault` fail with a probability of one in `one_in`,
    /// decided by `seed`. Replaces an earlier random fault. `after` and `times` have no effect
    /// here.
    ///
    /// # Panics
    /// If `one_in` is 0.
    pub fn arm_random(&self, seed: u64, one_in: u64, fault: Fault) {
        assert!(one_in > 0, "one in none is not a chance");
        self.state().random = Some(Random { chance: Chance(seed), one_in, fault });
    }

    /// Disarms all faults. Counters and the list of fired faults stay.
    pub fn disarm(&self) {
        let mut state = self.state();
        state.armed.clear();
        state.random = None;
    }

    /// The number of operations of one kind so far, failed ones included.
    pub fn count(&self, kind: OperationKind) -> u64 {
        self.state().counts[kind as usize]
    }

    /// The number of operations so far of every kind that can fail: the range of `k` for
    /// `Fault::any().after(k)`.
    pub fn count_all(&self) -> u64 {
        let state = self.state();
        let failing = OperationKind::ALL.iter().filter(|kind| kind.can_fail());
        failing.map(|&kind| state.counts[kind as usize]).sum()
    }

    /// The operations that failed by a fault so far, in order. `number` counts operations of all
    /// kinds.
    pub fn fired(&self) -> Vec<DiskOperation> {
        self.state().fired.clone()
    }

    /// Counts an operation and returns the fault that is due for it.
    fn decide(
        &self,
        kind: OperationKind,
        paths: [Option<&Path>; 2],
        offset: u64,
        len: u64,
    ) -> Option<(Effect, io::Error)> {
        let mut state = self.state();
        state.counts[kind as usize] += 1;
        let mut due = None;
        for fault in &mut state.armed {
            if !fault.matches(kind, paths) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if due.is_none() && fault.times > 0 {
                if fault.times != u64::MAX {
                    fault.times -= 1;
                }
                due = Some((fault.effect, fault.code));
            }
        }
        if let Some(random) = &mut state.random
            && random.fault.matches(kind, paths)
            && random.chance.below(random.one_in) == 0
            && due.is_none()
        {
            due = Some((random.fault.effect, random.fault.code));
        }
        state.armed.retain(|fault| fault.times > 0);
        let (effect, code) = due?;
        let number = state.counts.iter().sum();
        let path = paths[0].map(Path::to_owned).unwrap_or_default();
        state.fired.push(DiskOperation { number, kind, path, offset, len });
        Some((effect, code.error()))
    }

    fn check(&self, kind: OperationKind, path: &Path) -> io::Result<()> {
        self.decide(kind, [Some(path), None], 0, 0).map_or(Ok(()), |(_, error)| Err(error))
    }
}

/// A disk whose operations can be made to fail.
#[derive(Debug)]
pub struct FaultVfs {
    inner: Arc<dyn Vfs>,
    mem: Option<MemVfs>,
    control: FaultControl,
}

impl FaultVfs {
    /// Wraps any disk. Nothing fails until a fault is armed.
    pub fn new(inner: Arc<dyn Vfs>) -> Self {
        Self { inner, mem: None, control: FaultControl::default() }
    }

    /// Wraps an in-memory disk, so that lost syncs are exact.
    pub fn over_mem(mem: &MemVfs) -> Self {
        Self {
            inner: Arc::new(mem.clone()),
            mem: Some(mem.clone()),
            control: FaultControl::default(),
        }
    }

    /// The handle that arms faults and reads counters.
    pub fn control(&self) -> FaultControl {
        self.control.clone()
    }

    fn wrap(&self, path: &Path, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(FaultFile {
            inner,
            path: path.to_owned(),
            mem: self.mem.clone(),
            control: self.control.clone(),
            deaf: AtomicBool::new(false),
        })
    }
}

impl Vfs for FaultVfs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.control.check(OperationKind::CreateDir, path)?;
        self.inner.create_dir_all(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.control.check(OperationKind::Create, path)?;
        Ok(self.wrap(path, self.inner.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.control.check(OperationKind::Open, path)?;
        Ok(self.wrap(path, self.inner.open(path)?))
    }

    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.control.check(OperationKind::Open, path)?;
        Ok(self.wrap(path, self.inner.open_rw(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if let Some((_, error)) =
            self.control.decide(OperationKind::Rename, [Some(from), Some(to)], 0, 0)
        {
            return Err(error);
        }
        self.inner.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        if let Some((_, error)) =
            self.control.decide(OperationKind::Link, [Some(from), Some(to)], 0, 0)
        {
            return Err(error);
        }
        self.inner.hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.control.check(OperationKind::Remove, path)?;
        self.inner.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.control.check(OperationKind::Inspect, dir)?;
        self.inner.list(dir)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.control.check(OperationKind::Inspect, path)?;
        self.inner.len(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.control.check(OperationKind::SyncDir, dir)?;
        self.inner.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        self.control.check(OperationKind::Lock, path).map_err(LockError::Io)?;
        self.inner.lock(path)
    }

    fn lock_shared(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        self.control.check(OperationKind::Lock, path).map_err(LockError::Io)?;
        self.inner.lock_shared(path)
    }

    fn open_to_others(&self, dir: &Path) -> io::Result<Option<String>> {
        self.control.check(OperationKind::Inspect, dir)?;
        self.inner.open_to_others(dir)
    }

    fn free_bytes(&self, dir: &Path) -> Option<u64> {
        self.inner.free_bytes(dir)
    }
}

#[derive(Debug)]
struct FaultFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    mem: Option<MemVfs>,
    control: FaultControl,
    /// Set when a sync was lost and the disk below cannot lose pages: later syncs succeed and do
    /// nothing.
    deaf: AtomicBool,
}

impl FaultFile {
    fn decide(&self, kind: OperationKind, offset: u64, len: u64) -> Option<(Effect, io::Error)> {
        self.control.decide(kind, [Some(&self.path), None], offset, len)
    }

    fn check(&self, kind: OperationKind, offset: u64, len: u64) -> io::Result<()> {
        self.decide(kind, offset, len).map_or(Ok(()), |(_, error)| Err(error))
    }

    fn sync(&self, sync: impl Fn(&dyn File) -> io::Result<()>) -> io::Result<()> {
        let Some((effect, error)) = self.decide(OperationKind::Sync, 0, 0) else {
            if self.deaf.load(Ordering::Acquire) {
                return Ok(());
            }
            return sync(&*self.inner);
        };
        if effect == Effect::LoseSync {
            match &self.mem {
                Some(mem) => {
                    mem.lose_next_sync();
                    // The sync fails. Its error is replaced by the requested one.
                    let _ = sync(&*self.inner);
                }
                None => self.deaf.store(true, Ordering::Release),
            }
        }
        Err(error)
    }
}

impl File for FaultFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.decide(OperationKind::Read, offset, buf.len() as u64) {
            None => self.inner.read_at(buf, offset),
            Some((Effect::ShortRead, _)) => {
                let half = buf.len() / 2;
                self.inner.read_at(&mut buf[..half], offset)
            }
            Some((_, error)) => Err(error),
        }
    }

    fn try_read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        match self.decide(OperationKind::Read, offset, buf.len() as u64) {
            None => self.inner.try_read_exact_at(buf, offset),
            Some((Effect::ShortRead, _)) => Ok(false),
            Some((_, error)) => Err(error),
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.decide(OperationKind::Write, offset, bytes.len() as u64) {
            None => self.inner.write_all_at(bytes, offset),
            Some((effect, error)) => {
                if effect == Effect::PartialWrite {
                    self.inner.write_all_at(&bytes[..bytes.len() / 2], offset)?;
                }
                Err(error)
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(|file| file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(|file| file.sync_all())
    }

    fn write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check(OperationKind::WriteBack, offset, len)?;
        self.inner.write_back(offset, len)
    }

    fn len(&self) -> io::Result<u64> {
        self.check(OperationKind::Inspect, 0, 0)?;
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check(OperationKind::SetLen, len, 0)?;
        self.inner.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        self.check(OperationKind::Allocate, len, 0)?;
        self.inner.allocate(len)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.check(OperationKind::Inspect, offset, 0)?;
        self.inner.next_data(offset)
    }

    fn drop_cache(&self) {
        self.inner.drop_cache();
    }

    fn map_for_writing(&self, len: usize) -> io::Result<Option<Arc<dyn Mapping>>> {
        self.check(OperationKind::Map, 0, len as u64)?;
        let Some(inner) = self.inner.map_for_writing(len)? else {
            return Ok(None);
        };
        let (path, control) = (self.path.clone(), self.control.clone());
        Ok(Some(Arc::new(CountedMapping { inner, path, control })))
    }
}

#[derive(Debug)]
struct CountedMapping {
    inner: Arc<dyn Mapping>,
    path: PathBuf,
    control: FaultControl,
}

impl Mapping for CountedMapping {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let paths = [Some(&*self.path), None];
        let fate =
            self.control.decide(OperationKind::Store, paths, offset as u64, bytes.len() as u64);
        debug_assert!(fate.is_none(), "no fault matches a store");
        self.inner.write(offset, bytes);
    }

    fn before_sync(&self, from: usize, upto: usize) {
        self.inner.before_sync(from, upto);
    }

    fn after_sync(&self, offset: usize) {
        self.inner.after_sync(offset);
    }
}
