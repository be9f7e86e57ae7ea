//! How a directory is opened: the lock, recovery, the first log segment. `start.rs` then starts the
//! actors. Blocks on the disk, on a thread of the runtime.

use super::Engine;
use super::opening::{not_locked, on_a_thread, recover_options};
use super::registry::Exit;
use super::start::start;
use crate::config::EngineConfig;
use crate::failure::Failure;
use crate::log_keeper::{FIRST_SEGMENT_BYTES, FULL_DISK_SEGMENT_BYTES, remove_segments};
use crate::runtime::{Environment, Runtime};
use crate::version_manager::FileNumbers;
use sluicedb_storage::Error;
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::manifest::ManifestWriter;
use sluicedb_storage::recover::directory::{self, DirectoryState};
use sluicedb_storage::recover::{Recovered, RecoveryReport, open_directory};
use sluicedb_storage::reserve::SpaceReserve;
use sluicedb_storage::version::{TableCache, Version, VersionEdit};
use sluicedb_storage::vfs::{FileLock, Vfs};
use sluicedb_storage::wal::{
    LogIdentity, LogWriter, Predecessor, SealedSegment, Unsynced, allocate_spare,
};
use std::sync::Arc;

/// A locked and recovered directory, with a log to write to. The actors start on this.
pub(super) struct Opened {
    pub(super) environment: Environment,
    pub(super) lock: Box<dyn FileLock>,
    pub(super) reserve: SpaceReserve,
    /// Why the reserve was released, if it was.
    pub(super) reserve_spent_for: Option<Failure>,
    pub(super) version: Arc<Version>,
    pub(super) tables: Arc<TableCache>,
    pub(super) manifest: ManifestWriter,
    pub(super) numbers: FileNumbers,
    pub(super) log: LogWriter,
    pub(super) last_seqno: Seqno,
    /// Segments of the log that are in tables now.
    pub(super) old_log: Vec<SealedSegment>,
    pub(super) report: RecoveryReport,
}

/// Opens and recovers on a thread of the runtime, then starts the actors.
pub(super) async fn open(
    config: EngineConfig,
    vfs: Arc<dyn Vfs>,
    runtime: Arc<dyn Runtime>,
) -> Result<Engine, Failure> {
    let (dir, for_thread) = (config.dir.clone(), Arc::clone(&runtime));
    let open = move |exit| open_and_start(config, vfs, for_thread, exit);
    on_a_thread(&dir, &runtime, open).await
}

fn open_and_start(
    config: EngineConfig,
    vfs: Arc<dyn Vfs>,
    runtime: Arc<dyn Runtime>,
    exit: Exit,
) -> Result<Engine, Failure> {
    let lock = lock_directory(&config, &vfs)?;
    let mut space = OpeningSpace {
        vfs: Arc::clone(&vfs),
        old_log: Vec::new(),
        reserve: SpaceReserve::adopt(&vfs, &config.dir),
        reserve_spent_for: None,
    };
    let recovered = recover(&config, &vfs, &runtime, &mut space)?;
    space.old_log = recovered.report.old_log().to_vec();
    start(begin_log(config, vfs, runtime, lock, space, recovered)?, exit)
}

/// Space on the disk that is given up if the open finds too little.
struct OpeningSpace {
    vfs: Arc<dyn Vfs>,
    /// Goes first. Nobody needs it, but removing it takes time.
    old_log: Vec<SealedSegment>,
    reserve: SpaceReserve,
    /// Why the reserve was released.
    reserve_spent_for: Option<Failure>,
}

impl OpeningSpace {
    /// Does `work`, which must be repeatable. If it finds no space, gives up some and repeats it.
    fn run<T>(&mut self, mut work: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        let mut done = work();
        if matches!(&done, Err(error) if error.is_no_space()) && self.give_up_old_log() {
            done = work();
        }
        match done {
            Err(error) if error.is_no_space() && self.reserve.turn().release()? > 0 => {
                tracing::warn!(%error, "the disk is full; the reserve is in use");
                self.reserve_spent_for = Some(Failure::storage(error));
                work()
            }
            result => result,
        }
    }

    /// Removes the old log. Returns whether there was any.
    /// INVARIANT(watermark-at-seal): the durable manifest's floor is above it.
    fn give_up_old_log(&mut self) -> bool {
        let old_log = std::mem::take(&mut self.old_log);
        remove_segments(&self.vfs, &old_log);
        !old_log.is_empty()
    }
}

fn lock_directory(config: &EngineConfig, vfs: &Arc<dyn Vfs>) -> Result<Box<dyn FileLock>, Failure> {
    let dir = &config.dir;
    // Checked before the lock, because taking the lock writes. Nothing should be written among
    // foreign files.
    let exists = look(config, vfs)?;
    if !exists && !config.create_if_missing {
        let why = "create_if_missing is off";
        return Err(Error::NoDatabase { path: dir.clone(), why }.into());
    }
    if !config.allow_shared_directory {
        directory::check_private(vfs, dir)?;
    }
    if !exists {
        directory::make(vfs, dir)?;
    }
    let lock = vfs.lock(&FileKind::Lock.path(dir)).map_err(|error| not_locked(dir, error))?;
    // Another process may have made one between the look and the lock.
    look(config, vfs)?;
    Ok(lock)
}

/// Is there a database?
///
/// # Errors
/// If there is, and there must not be; those of `directory::look`.
fn look(config: &EngineConfig, vfs: &Arc<dyn Vfs>) -> Result<bool, Error> {
    let dir = &config.dir;
    let exists = matches!(directory::look(vfs, dir)?, DirectoryState::Database(_));
    if exists && config.error_if_exists {
        let what = "there is a database here already, and error_if_exists is on";
        return Err(Error::exists(dir, what));
    }
    Ok(exists)
}

fn recover(
    config: &EngineConfig,
    vfs: &Arc<dyn Vfs>,
    runtime: &Arc<dyn Runtime>,
    space: &mut OpeningSpace,
) -> Result<Recovered, Failure> {
    let options = recover_options(config, runtime);
    let began = runtime.now();
    let mut recovered = space.run(|| open_directory(vfs, &config.dir, &options))?;
    recovered.report.took = runtime.now().saturating_duration_since(began);
    Ok(recovered)
}

/// Gives the recovered database a new log. The manifest names it before anything is written to it.
fn begin_log(
    config: EngineConfig,
    vfs: Arc<dyn Vfs>,
    runtime: Arc<dyn Runtime>,
    lock: Box<dyn FileLock>,
    mut space: OpeningSpace,
    recovered: Recovered,
) -> Result<Opened, Failure> {
    let Recovered { db_id, version, tables, mut manifest, next_file_number, last_seqno, report } =
        recovered;
    let environment = Environment { config, runtime, vfs, db_id };
    let numbers = FileNumbers::starting_at(next_file_number);
    let log = first_segment(&environment, &numbers, &mut space, last_seqno.next())?;
    // INVARIANT(no-log-file-missing): the edit is durable before anything is acknowledged that only
    // this file holds.
    let edit = VersionEdit {
        next_file_number: Some(numbers.high_water()),
        newest_segment: Some(log.number()),
        log_synced: Some(last_seqno),
        ..VersionEdit::default()
    };
    space.run(|| {
        if manifest.must_roll_over() {
            return manifest.roll_over(numbers.take(), Some(&edit)).map(drop);
        }
        manifest.append(&edit)
    })?;
    Ok(Opened {
        environment,
        lock,
        reserve: space.reserve,
        reserve_spent_for: space.reserve_spent_for,
        version,
        tables,
        manifest,
        numbers,
        log,
        last_seqno,
        old_log: space.old_log,
        report,
    })
}

/// The first segment of the log, synced. It says that nothing precedes it.
fn first_segment(
    environment: &Environment,
    numbers: &FileNumbers,
    space: &mut OpeningSpace,
    next_seqno: Seqno,
) -> Result<LogWriter, Failure> {
    let Environment { config, vfs, db_id, .. } = environment;
    let identity = LogIdentity { db_id: *db_id };
    let number = numbers.take();
    let make =
        |bytes| allocate_spare(vfs, &config.dir, &identity, number, bytes, config.log_mapped);
    let first = match make(config.log_segment_bytes.min(FIRST_SEGMENT_BYTES)) {
        Err(error) if error.is_no_space() => {
            space.give_up_old_log();
            space.run(|| make(FULL_DISK_SEGMENT_BYTES))?
        }
        made => made?,
    };
    let mut log = LogWriter::start(identity, first, next_seqno, Predecessor::Barrier);
    let begin = log.take_group();
    begin.write()?;
    log.written(&begin);
    let begin = Unsynced::from(begin);
    begin.sync()?;
    log.synced(&begin);
    Ok(log)
}
