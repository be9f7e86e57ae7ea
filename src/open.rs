//! Opening a database: settings, components, then the engine.

use crate::db::Db;
use crate::error::{Error, Result};
use crate::options::{Durability, Options};
use crate::read_only::ReadOnlyDb;
use crate::tokio_wakers;
use sluicedb_actors::engine::{Engine, ReadOnlyEngine};
use sluicedb_actors::runtime::{Runtime, ThreadRuntime};
use sluicedb_storage::vfs::{Vfs, disk::DiskVfs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to open a database: settings ([`Options`]) and components (disk, threads and time).
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use sluicedb::{Db, Durability};
/// let builder = Db::builder(dir.path()).durability(Durability::Buffered).memory_budget(64 << 20);
/// let db = builder.open().await?;
/// db.put("user:1", "Ada").await?;
/// # Ok::<_, sluicedb::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is opened before `open`"]
pub struct Builder {
    path: PathBuf,
    options: Options,
    create_if_missing: bool,
    error_if_exists: bool,
    vfs: Option<Arc<dyn Vfs>>,
    runtime: Option<Arc<dyn Runtime>>,
}

impl Builder {
    pub(crate) fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            options: Options::default(),
            create_if_missing: true,
            error_if_exists: false,
            vfs: None,
            runtime: None,
        }
    }

    /// Sets all options at once.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Compression, Db, Options};
    /// let options = Options { compression: Compression::None, ..Options::default() };
    /// let db = Db::builder(dir.path()).options(options).open().await?;
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Memory for write buffers and the cache together, in bytes.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::builder(dir.path()).memory_budget(64 << 20).open().await?;
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.options.memory_budget_bytes = bytes;
        self
    }

    /// What an acknowledged write survives, unless the write says otherwise.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, Durability};
    /// let db = Db::builder(dir.path()).durability(Durability::Buffered).open().await?;
    /// db.put("seen:1", "now").await?; // survives the death of the process
    /// db.sync().await?; // and, from here on, a power cut
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = durability;
        self
    }

    /// Should the database be created if there is none? Default: true.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, ErrorKind};
    /// let missing = Db::builder(dir.path().join("none")).create_if_missing(false).open().await;
    /// assert_eq!(missing.unwrap_err().kind(), ErrorKind::Exists);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn create_if_missing(mut self, yes: bool) -> Self {
        self.create_if_missing = yes;
        self
    }

    /// Should an existing database be refused? Default: false.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, ErrorKind};
    /// Db::open(dir.path()).await?.close().await?;
    /// let existing = Db::builder(dir.path()).error_if_exists(true).open().await;
    /// assert_eq!(existing.unwrap_err().kind(), ErrorKind::Exists);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn error_if_exists(mut self, yes: bool) -> Self {
        self.error_if_exists = yes;
        self
    }

    /// A disk for tests: see `sluicedb_storage::vfs`.
    #[doc(hidden)]
    pub fn vfs(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs = Some(vfs);
        self
    }

    /// Threads and time for simulators.
    #[doc(hidden)]
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Opens the database. Recovery, where needed, runs on an engine thread. A relative path is
    /// taken from the current working directory. Missing parts of the path are created, accessible
    /// to this user only.
    ///
    /// # Errors
    /// `Invalid` for settings out of range, for a directory with foreign files, and for one that
    /// other users can write to ([`Options::allow_shared_directory`]);
    /// [`Exists`](crate::ErrorKind::Exists) if `create_if_missing` or `error_if_exists` forbid it;
    /// `Locked`, `Corrupt`, `Unsupported`, `Io`. A refused open changes nothing.
    ///
    /// # Cancellation
    /// The open goes on, and the database is closed again at once.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::builder(dir.path()).open().await?;
    /// db.put("user:1", "Ada").await?;
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn open(self) -> Result<Db> {
        let path = self.checked_path()?;
        let config =
            self.options.engine_config(&path, self.create_if_missing, self.error_if_exists);
        let (vfs, runtime) = (disk(self.vfs), threads(self.runtime, &self.options.engine_cores));
        let engine = Engine::open(config, vfs, runtime).await?;
        Ok(Db::new(engine, &self.options))
    }

    /// Opens the database for reading only, as any number of processes may at once: see
    /// [`ReadOnlyDb`]. Changes nothing and creates nothing, whatever `create_if_missing` says. Of
    /// the [`Options`], only those about reads and memory apply.
    ///
    /// # Errors
    /// `Exists` if there is no database; `Locked` if it is open for writing; `Invalid` as for
    /// [`open`](Self::open), and if the database was not closed and its log has more than
    /// [`read_only_log_bytes_max`](Options::read_only_log_bytes_max); `Corrupt`, `Unsupported` and
    /// `Io`, depending on the files.
    ///
    /// # Cancellation
    /// The open goes on, and what it made in memory is dropped at once.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, Options};
    /// Db::open(dir.path()).await?.close().await?;
    /// let options = Options { cache_bytes: Some(1 << 20), ..Options::default() };
    /// let db = Db::builder(dir.path()).options(options).open_read_only().await?;
    /// assert_eq!(db.get("user:1").await?, None);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn open_read_only(self) -> Result<ReadOnlyDb> {
        let path = self.checked_path()?;
        let config = self.options.engine_config(&path, false, false);
        let (vfs, runtime) = (disk(self.vfs), threads(self.runtime, &self.options.engine_cores));
        let engine = ReadOnlyEngine::open(config, vfs, runtime).await?;
        Ok(ReadOnlyDb::new(engine))
    }

    /// The path, made absolute: files are opened later, and the process may have changed its
    /// working directory by then.
    fn checked_path(&self) -> Result<PathBuf> {
        self.options.validate()?;
        std::path::absolute(&self.path).map_err(|error| {
            Error::from(sluicedb_storage::Error::io("make absolute", &self.path, error))
        })
    }
}

fn disk(chosen: Option<Arc<dyn Vfs>>) -> Arc<dyn Vfs> {
    chosen.unwrap_or_else(|| Arc::new(DiskVfs::new()))
}

fn threads(chosen: Option<Arc<dyn Runtime>>, cores: &[usize]) -> Arc<dyn Runtime> {
    chosen.unwrap_or_else(|| {
        let threads = ThreadRuntime::new(cores);
        tokio_wakers::make_known(&*threads);
        threads
    })
}
