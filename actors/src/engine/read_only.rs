//! A database that is only read. It is recovered into memory and has no actors, only threads for
//! cold reads.
//!
//! Guarantees: nothing in the directory changes. The log is replayed by the same code as in every
//! open, into tables on a disk that keeps them in memory (`storage/src/vfs/overlay.rs`).
//! Nobody can open the database for writing while the lock is held; several readers share it.

use super::opening::{not_locked, on_a_thread, recover_options};
use crate::config::EngineConfig;
use crate::failure::Failure;
use crate::failure::damage::Damage;
use crate::runtime::Runtime;
use crate::runtime::pool::Pool;
use sluicedb_storage::Error;
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::memtable::memtable;
use sluicedb_storage::recover::directory::{self, DirectoryState};
use sluicedb_storage::recover::{ReadContent, RecoverOptions, RecoveryReport, read_directory};
use sluicedb_storage::version::{TableCache, Version};
use sluicedb_storage::vfs::{FileLock, LockError, OverlayVfs, Vfs};
use sluicedb_storage::view::{RangeEntry, Superversion, View};
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// See the module.
pub struct ReadOnlyEngine {
    config: EngineConfig,
    runtime: Arc<dyn Runtime>,
    view: View,
    tables: Arc<TableCache>,
    reads: Pool,
    damage: Arc<Damage>,
    recovery: RecoveryReport,
    replayed_bytes: u64,
    /// Dropped last.
    kept: Arc<Kept>,
}

/// What all readers of the database share. Each holds a share of it that it drops last.
///
/// INVARIANT(no-block-on-executor): a thread of the runtime releases tables and memory: it unmaps
/// memory and closes files. The last reader itself releases the lock, so that the directory is free
/// once it is gone.
pub struct Kept {
    runtime: Arc<dyn Runtime>,
    /// Taken when this is dropped.
    open: Option<(View, Arc<TableCache>)>,
    /// `None` if the directory has no lock file.
    _lock: Option<Box<dyn FileLock>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let open = self.open.take();
        if let Err(error) = self.runtime.spawn("sluice-drop", Box::pin(async { drop(open) })) {
            tracing::warn!(%error, "the last reader closes the tables");
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl ReadOnlyEngine {
    /// Opens the directory's database. A thread of the runtime does the disk work.
    ///
    /// # Errors
    /// `NoDatabase`; `Invalid` if more is only in the log than the configuration allows in
    /// memory.
    pub async fn open(
        config: EngineConfig,
        vfs: Arc<dyn Vfs>,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, Failure> {
        let (dir, for_thread) = (config.dir.clone(), Arc::clone(&runtime));
        on_a_thread(&dir, &runtime, move |_| recover(config, &vfs, for_thread)).await
    }

    /// A view of everything.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The tables on disk, with tables in memory for what was only in the log.
    pub fn version(&self) -> Version {
        self.view.superversion.version(self.tables.obsolete_files())
    }

    /// Threads for cold reads.
    pub fn read_pool(&self) -> Pool {
        self.reads.clone()
    }

    /// Where reads report damage.
    pub fn damage(&self) -> Arc<Damage> {
        Arc::clone(&self.damage)
    }

    /// What keeps the tables open and writers out, for a reader that may outlive this.
    pub fn kept(&self) -> Arc<Kept> {
        Arc::clone(&self.kept)
    }

    /// The open tables and their cached blocks.
    pub fn tables(&self) -> &TableCache {
        &self.tables
    }

    /// The configuration it was opened with.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// What opening had to do.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.recovery
    }

    /// Bytes of memory that hold what is only in the log.
    pub fn replayed_bytes(&self) -> u64 {
        self.replayed_bytes
    }

    /// The time of day, in milliseconds since 1970.
    pub fn unix_ms(&self) -> u64 {
        self.runtime.unix_ms()
    }

    /// The database directory.
    pub fn dir(&self) -> &Path {
        &self.config.dir
    }
}

fn recover(
    config: EngineConfig,
    vfs: &Arc<dyn Vfs>,
    runtime: Arc<dyn Runtime>,
) -> Result<ReadOnlyEngine, Failure> {
    let dir = &config.dir;
    if !matches!(directory::look(vfs, dir)?, DirectoryState::Database(_)) {
        let why = "reading creates none";
        return Err(Error::NoDatabase { path: dir.clone(), why }.into());
    }
    if !config.allow_shared_directory {
        directory::check_private(vfs, dir)?;
    }
    let lock = lock(vfs, dir)?;
    let bytes_max = config.read_only_log_bytes_max;
    let overlay = OverlayVfs::new(Arc::clone(vfs), dir, bytes_max)
        .map_err(|error| Error::io("create", dir, error))?;
    let overlay = Arc::new(overlay);
    let options = RecoverOptions {
        create_if_missing: false,
        replay_bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
        // Nothing is merged, so cutting tables would only make more of them.
        shard_cut_bytes_min: u64::MAX,
        ..recover_options(&config, &runtime)
    };
    let began = runtime.now();
    let above = Arc::clone(&overlay) as Arc<dyn Vfs>;
    let content = read_directory(&above, dir, &options).map_err(|error| {
        // The real disk is not written to, so only the overlay can be full.
        if error.is_no_space() { too_much(dir, bytes_max) } else { error }
    })?;
    let ReadContent { version, tables, last_seqno, report: mut recovery } = content;
    recovery.took = runtime.now().saturating_duration_since(began);
    let replayed_bytes = overlay.used_bytes();
    // The tables are in memory, too. They were made while their entries were still there.
    recovery.replay_bytes_peak += replayed_bytes;
    let ranges = version.ranges().iter().map(|stable| {
        let (active, writer) = memtable(0);
        writer.freeze();
        RangeEntry::new(active, Arc::clone(stable), ())
    });
    let keyspaces = Arc::clone(version.keyspaces());
    let superversion = Superversion::new(1, 1, Seqno::ZERO, keyspaces, ranges.collect());
    let view = View::new(Arc::new(superversion), last_seqno);
    let (reads, threads) = Pool::new(config.read_threads, config.read_polling, &runtime);
    for (index, thread) in threads.into_iter().enumerate() {
        let body = thread.run(|panic| {
            let failure = Failure::panicked("read thread", &*panic);
            tracing::error!(%failure, "a read thread has ended");
        });
        runtime
            .spawn(&format!("sluice-read-{index}"), Box::pin(body))
            .map_err(|error| Error::io("start a thread for", dir, error))?;
    }
    let damage = Arc::default();
    let open = Some((view.clone(), Arc::clone(&tables)));
    let kept = Arc::new(Kept { runtime: Arc::clone(&runtime), open, _lock: lock });
    Ok(ReadOnlyEngine {
        config,
        runtime,
        view,
        tables,
        reads,
        damage,
        recovery,
        replayed_bytes,
        kept,
    })
}

/// Takes the shared lock. `None` if there is no lock file: creating one would change the directory,
/// and no writer is there.
fn lock(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<Option<Box<dyn FileLock>>, Error> {
    match vfs.lock_shared(&FileKind::Lock.path(dir)) {
        Ok(guard) => Ok(Some(guard)),
        Err(LockError::Io(error)) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(not_locked(dir, error)),
    }
}

fn too_much(dir: &Path, bytes_max: u64) -> Error {
    Error::invalid(format!(
        "{}: the database was not closed, and more of it is only in its log than the {bytes_max} \
         bytes that read_only_log_bytes_max lets into memory; set a larger one, \
         or open it for writing once",
        dir.display()
    ))
}

impl fmt::Debug for ReadOnlyEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadOnlyEngine").field("dir", &self.dir()).finish_non_exhaustive()
    }
}
