//! Opening a database: settings, components, then the engine.

use crate::db::Db;
use crate::error::{Error, Result};
use crate::options::{Durability, Options};
use crate::read_only::ReadOnlyDb;
use crate::tokio_wakers;
use sluicedb_actors::engine::{Engine, OpenFailure, ReadOnlyEngine};
use sluicedb_actors::runtime::{Runtime, ThreadRuntime};
use sluicedb_storage::vfs::{Vfs, disk::DiskVfs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to open a database: settings ([`Options`]) and components (disk, threads and time).
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

    /// All settings at once.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Memory for write buffers and cache together, in bytes.
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.options.memory_budget_bytes = bytes;
        self
    }

    /// What an acknowledged write survives unless it says otherwise.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = durability;
        self
    }

    /// Create the database if there is none (default true).
    pub fn create_if_missing(mut self, yes: bool) -> Self {
        self.create_if_missing = yes;
        self
    }

    /// Refuse to open a database that exists (default false).
    pub fn error_if_exists(mut self, yes: bool) -> Self {
        self.error_if_exists = yes;
        self
    }

    /// A disk of one's own, for tests: see `sluicedb_storage::vfs`.
    #[doc(hidden)]
    pub fn vfs(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs = Some(vfs);
        self
    }

    /// Threads and time of one's own, for simulators.
    #[doc(hidden)]
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Opens it. Recovery, where one is needed, runs on an engine thread. A relative path means a
    /// directory below the working directory of this moment; what is missing of it is created, for
    /// this user alone.
    ///
    /// # Errors
    /// `Invalid` for settings out of range, for a directory with the files of others, and for one
    /// that others can write to ([`Options::allow_shared_directory`]);
    /// [`Exists`](crate::ErrorKind::Exists) against `create_if_missing` and `error_if_exists`;
    /// `Locked`, `Corrupt`, `Unsupported`, `Io`. A refused open changes nothing.
    ///
    /// # Cancellation
    /// The open goes on and the database is closed again at once.
    pub async fn open(self) -> Result<Db> {
        let path = self.checked_path()?;
        let config =
            self.options.engine_config(&path, self.create_if_missing, self.error_if_exists);
        let (vfs, runtime) = (self.vfs, self.runtime);
        let engine = Engine::open(config, disk(vfs), threads(runtime)).await;
        let engine = engine.map_err(|failed| refusal(failed, "create_if_missing is off"))?;
        Ok(Db::new(engine, &self.options))
    }

    /// Opens it for reading only, as any number of processes may at once: see [`ReadOnlyDb`].
    /// Changes nothing and creates nothing, whatever `create_if_missing` says; of the [`Options`]
    /// those about reads and memory count.
    ///
    /// # Errors
    /// `Exists` where there is no database; `Locked` when it is open for writing; `Invalid` as for
    /// [`open`](Self::open), and where the log of a database that was not closed has more than
    /// [`read_only_log_bytes_max`](Options::read_only_log_bytes_max); `Corrupt`, `Unsupported`,
    /// `Io` as the files demand.
    ///
    /// # Cancellation
    /// The open goes on and what it made in memory is dropped at once.
    pub async fn open_read_only(self) -> Result<ReadOnlyDb> {
        let path = self.checked_path()?;
        let config = self.options.engine_config(&path, false, false);
        let (vfs, runtime) = (disk(self.vfs), threads(self.runtime));
        let engine = ReadOnlyEngine::open(config, vfs, runtime).await;
        let engine = engine.map_err(|failed| refusal(failed, "reading creates none"))?;
        Ok(ReadOnlyDb::new(engine))
    }

    /// Absolute: files are opened later, too, wherever the process has gone by then.
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

fn threads(chosen: Option<Arc<dyn Runtime>>) -> Arc<dyn Runtime> {
    chosen.unwrap_or_else(|| {
        let threads = ThreadRuntime::new();
        tokio_wakers::make_known(&*threads);
        threads
    })
}

/// `why` there may be none.
fn refusal(failed: OpenFailure, why: &str) -> Error {
    match failed {
        OpenFailure::NoDatabase(path) => {
            Error::exists(format!("{}: there is no database here, and {why}", path.display()))
        }
        OpenFailure::Exists(path) => Error::exists(format!(
            "{}: there is a database here already, and error_if_exists is on",
            path.display()
        )),
        OpenFailure::Failed(failure) => failure.into(),
    }
}
