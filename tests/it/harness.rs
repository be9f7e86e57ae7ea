//! Databases for tests.

use crate::kit::disk::{fresh_dir, shared};
use crate::kit::oracle::Map;
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use futures::future::BoxFuture;
use sluicedb::{Builder, Db, Options, Result};
use sluicedb_storage::external::ExternalWriter;
use sluicedb_storage::key::Kind;
use sluicedb_storage::manifest::{load, read_current};
use sluicedb_storage::table::TableOptions;
use sluicedb_storage::version::Image;
use sluicedb_storage::vfs::{DiskOperation, FaultControl, FaultVfs, MemVfs, OperationKind, Vfs};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

/// How long a test waits for something that must happen before it calls it a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a future on this thread, without any runtime.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}

/// A temporary directory for one database.
pub struct Home {
    dir: tempfile::TempDir,
    pub options: Options,
}

impl Home {
    pub fn new() -> Self {
        Self::with(settings::tiny())
    }

    pub fn with(options: Options) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), options }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("db")
    }

    pub fn builder(&self) -> Builder {
        Db::builder(self.path()).options(self.options.clone())
    }

    pub fn open(&self) -> Db {
        block_on(self.builder().open()).unwrap()
    }

    /// The files whose name contains this text, sorted.
    pub fn files(&self, part: &str) -> Vec<PathBuf> {
        files(&self.path(), part)
    }
}

pub fn files(dir: &Path, part: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().contains(part))
        .collect();
    found.sort();
    found
}

/// Every file of a database but the lock: name and content.
pub fn fingerprint(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let all = files(dir, "").into_iter().filter(|path| !path.ends_with("LOCK"));
    all.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// A database on a simulated disk that can fail, under the simulator of threads and time.
pub struct Simulated {
    pub disk: MemVfs,
    pub faults: FaultControl,
    vfs: Arc<FaultVfs>,
    pub simulator: Simulator,
    pub dir: PathBuf,
    pub options: Options,
}

impl Simulated {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, settings::tiny())
    }

    pub fn with(seed: u64, options: Options) -> Self {
        Self::on(MemVfs::new(), fresh_dir(), seed, options)
    }

    pub fn on(disk: MemVfs, dir: PathBuf, seed: u64, options: Options) -> Self {
        let vfs = Arc::new(FaultVfs::over_mem(&disk));
        let (faults, simulator) = (vfs.control(), Simulator::new(seed));
        Self { disk, faults, vfs, simulator, dir, options }
    }

    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.simulator.run(future)
    }

    pub fn builder(&self) -> Builder {
        let builder = Db::builder(&self.dir).options(self.options.clone());
        builder.vfs(self.vfs.clone()).runtime(self.simulator.handle())
    }

    pub fn open(&self) -> Db {
        self.run(self.builder().open()).unwrap()
    }

    /// The content of the manifest.
    pub fn image(&self) -> Image {
        let vfs = shared(&self.disk);
        let current = read_current(&vfs, &self.dir).unwrap().expect("there is a database");
        load(&vfs, &self.dir, &current).unwrap().image
    }

    /// The names of the tables in the directory.
    pub fn tables(&self) -> Vec<String> {
        let names = self.disk.list(&self.dir).unwrap();
        names.into_iter().filter(|name| name.ends_with(".sst")).collect()
    }

    /// A table outside the database; an entry without a value is a delete.
    pub fn outside<'a>(
        &self,
        name: &str,
        entries: impl IntoIterator<Item = (&'a Vec<u8>, Option<&'a Vec<u8>>)>,
    ) -> PathBuf {
        outside(&self.disk, name, entries)
    }

    /// The same directory on another disk, as a new process sees it.
    pub fn reborn(&self, disk: MemVfs) -> Self {
        Self::on(disk, self.dir.clone(), 77, self.options.clone())
    }
}

/// A table in the root of `disk`; an entry without a value is a delete.
pub fn outside<'a>(
    disk: &MemVfs,
    name: &str,
    entries: impl IntoIterator<Item = (&'a Vec<u8>, Option<&'a Vec<u8>>)>,
) -> PathBuf {
    let path = Path::new("/").join(name);
    let id = sluicedb_storage::codec::hash64(name.as_bytes()).to_le_bytes();
    let mut writer =
        ExternalWriter::create(&shared(disk), &path, id, TableOptions::default()).unwrap();
    for (key, value) in entries {
        let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
        writer.add(key, kind, value.map_or(&[][..], |value| value)).unwrap();
    }
    writer.finish().unwrap();
    path
}

/// A database on a simulated disk with the engine's own threads, where the writing of tables can be
/// held.
pub struct Held {
    pub disk: MemVfs,
    pub dir: PathBuf,
    pub options: Options,
    gate: Arc<Gate>,
    arrivals: mpsc::Receiver<()>,
}

#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Held {
    pub fn new(options: Options) -> Self {
        let disk = MemVfs::new();
        let gate: Arc<Gate> = Arc::default();
        let (arrived, arrivals) = mpsc::channel();
        let held = Arc::clone(&gate);
        disk.on_operation(move |_, operation| {
            if is_table_creation(operation) {
                let mut closed = held.closed.lock().unwrap();
                if *closed {
                    let _ = arrived.send(());
                }
                while *closed {
                    closed = held.changed.wait(closed).unwrap();
                }
            }
        });
        Self { disk, dir: fresh_dir(), options, gate, arrivals }
    }

    pub fn builder(&self) -> Builder {
        Db::builder(&self.dir).options(self.options.clone()).vfs(shared(&self.disk))
    }

    pub fn open(&self) -> Db {
        block_on(self.builder().open()).unwrap()
    }

    /// Holds every creation of a table from now on.
    pub fn hold(&self) {
        *self.gate.closed.lock().unwrap() = true;
    }

    /// Waits until a thread is held.
    pub fn wait_until_held(&self) {
        self.arrivals.recv_timeout(PATIENCE).expect("nobody writes a table");
    }

    pub fn release(&self) {
        *self.gate.closed.lock().unwrap() = false;
        self.gate.changed.notify_all();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // This runs also when a test panics: the engine's threads would hang otherwise.
        if let Ok(mut closed) = self.gate.closed.lock() {
            *closed = false;
        }
        self.gate.changed.notify_all();
    }
}

pub fn is_table_creation(operation: &DiskOperation) -> bool {
    let name = operation.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let table = name.contains(".sst") || (name.contains(".tmp") && !name.contains("CURRENT"));
    operation.kind == OperationKind::Create && table
}

/// Every way to read agrees with `expected`.
pub async fn check(db: &Db, expected: &Map) -> Result<()> {
    let found = crate::kit::disk::content(db).await?;
    assert_eq!(crate::kit::oracle::difference(expected, &found), None);
    let backwards = crate::kit::disk::collect(db.scan(..).rev()).await?;
    assert!(
        backwards.iter().rev().eq(found
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<Vec<_>>()
            .iter())
    );
    let keys: Vec<&Vec<u8>> = expected.keys().collect();
    let values = db.multi_get(&keys).await?;
    let snapshot = db.snapshot();
    for ((key, value), many) in expected.iter().zip(&values) {
        assert_eq!(many.as_deref(), Some(&value[..]));
        assert_eq!(db.get(key).await?.as_deref(), Some(&value[..]));
        assert!(db.contains_key(key).await?);
        assert_eq!(snapshot.get(key).await?.as_deref(), Some(&value[..]));
        let mut beside = key.clone();
        beside.push(0);
        if !expected.contains_key(&beside) {
            assert_eq!(db.get(&beside).await?, None);
            assert!(!db.contains_key(&beside).await?);
        }
    }
    Ok(())
}

/// `count` entries `key0000..` with values of `len` bytes.
pub async fn fill(db: &Db, count: usize, len: usize) -> Map {
    let mut map = Map::new();
    for n in 0..count {
        let (key, value) = (format!("key{n:04}").into_bytes(), vec![n as u8; len]);
        db.put(&key, &value).await.unwrap();
        map.insert(key, value);
    }
    map
}

/// Runs `walk` beside a task that counts its own turns; returns those, and what `walk` returns.
pub fn turns_beside(walk: BoxFuture<'static, usize>) -> (usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async move {
        let others = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&others);
        let counting = tokio::spawn(async move {
            loop {
                counts.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let seen = tokio::spawn(walk).await.unwrap();
        counting.abort();
        (others.load(Ordering::Relaxed), seen)
    })
}

/// Which threads close files of a disk.
pub struct Closings {
    on_this_thread: Arc<Mutex<Vec<PathBuf>>>,
    elsewhere: mpsc::Receiver<PathBuf>,
}

impl Closings {
    /// Watches `disk` from here on.
    pub fn of(disk: &MemVfs) -> Self {
        let here = std::thread::current().id();
        let on_this_thread: Arc<Mutex<Vec<PathBuf>>> = Arc::default();
        let (seen, (closed, elsewhere)) = (Arc::clone(&on_this_thread), mpsc::channel());
        disk.on_close(move |path| {
            if std::thread::current().id() == here {
                seen.lock().unwrap().push(path.to_owned());
            } else {
                let _ = closed.send(path.to_owned());
            }
        });
        Self { on_this_thread, elsewhere }
    }

    /// Begins anew. Returns what other threads had closed.
    pub fn forget(&self) -> Vec<PathBuf> {
        self.on_this_thread.lock().unwrap().clear();
        self.elsewhere.try_iter().collect()
    }

    /// What this thread has closed.
    pub fn on_this_thread(&self) -> Vec<PathBuf> {
        self.on_this_thread.lock().unwrap().clone()
    }

    /// Waits until another thread closes a table.
    pub fn await_table(&self) {
        let closed = || self.elsewhere.recv_timeout(PATIENCE).expect("no table is closed");
        while !is_table(&closed()) {}
    }
}

/// Is it the file of a table?
pub fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sst")
}
