//! Start order, first failure, close order. Supervision is fail-stop: an actor that broke its rules
//! is not restarted on state that may be broken; the engine stops and the next open recovers.

use super::close::Supervisor;
use super::closing::{self, Departure};
use super::{Engine, OpenFailure};
use crate::admission::RangeBudget;
use crate::admission::pressure::Board;
use crate::compaction_planner::CompactionPlanner;
use crate::compaction_worker::Channels;
use crate::config::EngineConfig;
use crate::failure::Scope;
use crate::failure::space::RESERVE_BYTES_MIN;
use crate::failure::trouble::Attempts;
use crate::failure::{Failure, Party};
use crate::flush_worker::FlushWorker;
use crate::kernel::commit::CommitQueue;
use crate::kernel::credits::Credits;
use crate::kernel::health::Health;
use crate::kernel::jobs::{Jobs, Worker};
use crate::kernel::mailbox::{Capacity, Mailbox};
use crate::kernel::published::Published;
use crate::kernel::reply::reply;
use crate::kernel::signal::Signal;
use crate::log_writer::WalWriter;
use crate::range_owner::RangeOwner;
use crate::runtime::pool::Pool;
use crate::runtime::{Runtime, Task};
use crate::shared::{Counters, FileNumbers, RangeEntry, Shared, Superversion};
use crate::version_manager::VersionManager;
use crate::version_manager::message::VersionMessage;
use crate::version_manager::relief;
use crate::write::WritePath;
use crate::{log_keeper, log_syncer, reclaimer};
use futures::FutureExt;
use futures::future::BoxFuture;
use sluicedb_storage::Error;
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::memtable::{ChunkPool, MemtableOptions, Reclaim, memtable_with};
use sluicedb_storage::points::ReadPoints;
use sluicedb_storage::recover::home::{self, Place};
use sluicedb_storage::recover::{RecoverOptions, Recovered, open_directory};
use sluicedb_storage::reserve::Reserve;
use sluicedb_storage::table::BlockCache;
use sluicedb_storage::version::{TableLimits, VersionEdit};
use sluicedb_storage::vfs::{LockError, LockGuard, Vfs};
use sluicedb_storage::wal::{
    LogIdentity, LogWriter, Predecessor, Unsynced, prepare_spare, recycle,
};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

/// Edits waiting for the version manager, at most.
pub(super) const VERSION_INBOX_MAX: usize = 64;
/// Manual compactions waiting, at most.
pub(super) const COMPACT_INBOX_MAX: usize = 16;

/// Segments of the old log that are kept for the new one.
const SEGMENTS_KEPT: usize = 2;
/// The first segment of a new log, when there is none to recycle, is at most this large: opening
/// waits for it to be zeroed, and the next one is prepared in the background.
const FIRST_SEGMENT_BYTES: u64 = 8 << 20;

/// Opens and recovers on a thread of the runtime, then starts the actors.
pub(crate) async fn start(
    config: EngineConfig,
    vfs: Arc<dyn Vfs>,
    runtime: Arc<dyn Runtime>,
) -> Result<Engine, OpenFailure> {
    let (reply, answer) = reply();
    let dir = config.dir.clone();
    let for_thread = Arc::clone(&runtime);
    let body = async move {
        let arrival = closing::arrive(&config.dir).await;
        let opened = open(config, vfs, for_thread, arrival.departure());
        // If the caller has gone the engine is dropped right here, which closes it again.
        reply.send(opened);
        drop(arrival);
    };
    runtime
        .spawn("sluice-open", Box::pin(body))
        .map_err(|error| Error::io("start a thread for", &dir, error))?;
    answer.await.unwrap_or(Err(OpenFailure::Failed(Failure::Closed)))
}

fn open(
    config: EngineConfig,
    vfs: Arc<dyn Vfs>,
    runtime: Arc<dyn Runtime>,
    departure: Departure,
) -> Result<Engine, OpenFailure> {
    let lock = lock_directory(&config, &vfs)?;
    let options = RecoverOptions {
        create_if_missing: config.create_if_missing,
        replay_bytes_max: config.write_buffer_bytes,
        keep_segments: SEGMENTS_KEPT,
        table: config.l0_table.clone(),
        // The ranges of a database that is there are not known yet.
        shard_cut_bytes_min: RangeBudget::of(&config, config.initial_split_keys.len() + 1)
            .shard_cut_bytes_min(),
        shards: config.compaction.shards,
        tables: TableLimits {
            open_max: config.open_tables_max,
            memory_bytes_max: config.open_tables_bytes_max,
            blocks: BlockCache::new(config.cache_bytes),
        },
        fresh_id: config.fresh_id,
        split_keys: config.initial_split_keys.clone(),
    };
    let began = runtime.now();
    let mut reserve =
        OpeningReserve { reserve: Reserve::adopt(&vfs, &config.dir), spent_for: None };
    let mut recovered = reserve.run(|| open_directory(&vfs, &config.dir, &options))?;
    recovered.report.took = runtime.now().saturating_duration_since(began);
    build(config, vfs, runtime, lock, recovered, reserve, departure)
}

/// The reserve while the database is opened.
struct OpeningReserve {
    reserve: Reserve,
    /// Why it was let go of.
    spent_for: Option<Failure>,
}

impl OpeningReserve {
    /// Does `work`, which may be done again, and lets go of the reserve if it finds no space.
    fn run<T>(&mut self, mut work: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        match work() {
            Err(error) if error.is_no_space() && self.reserve.turn().release()? > 0 => {
                tracing::warn!(%error, "the disk is full; the reserve is in use");
                self.spent_for = Some(Failure::storage(error));
                work()
            }
            result => result,
        }
    }
}

fn lock_directory(
    config: &EngineConfig,
    vfs: &Arc<dyn Vfs>,
) -> Result<Box<dyn LockGuard>, OpenFailure> {
    let dir = &config.dir;
    // Before the lock: taking it writes, which nobody wants among files that are not ours.
    let exists = matches!(home::look(vfs, dir)?, Place::Database(_));
    if exists && config.error_if_exists {
        return Err(OpenFailure::Exists(dir.clone()));
    }
    if !exists && !config.create_if_missing {
        return Err(OpenFailure::NoDatabase(dir.clone()));
    }
    if !config.allow_shared_directory {
        home::check_private(vfs, dir)?;
    }
    if !exists {
        home::make(vfs, dir)?;
    }
    let path = FileKind::Lock.path(dir);
    vfs.lock(&path).map_err(|error| match error {
        LockError::Held { pid } => Error::Locked { path: dir.clone(), pid }.into(),
        LockError::Io(error) => Error::io("lock", &path, error).into(),
    })
}

fn build(
    config: EngineConfig,
    vfs: Arc<dyn Vfs>,
    runtime: Arc<dyn Runtime>,
    lock: Box<dyn LockGuard>,
    recovered: Recovered,
    mut reserve: OpeningReserve,
    departure: Departure,
) -> Result<Engine, OpenFailure> {
    let Recovered {
        db_id,
        version,
        tables,
        mut manifest,
        next_file_number,
        last_seqno,
        mut reusable_segments,
        report,
    } = recovered;
    let file_numbers = FileNumbers::starting_at(next_file_number);

    let identity = LogIdentity { db_id };
    let number = file_numbers.take();
    let first = if let Some(old) = reusable_segments.pop() {
        reserve.run(|| recycle(&vfs, &config.dir, &identity, &old, number, config.log_mapped))?
    } else {
        let mut bytes = config.log_segment_bytes.min(FIRST_SEGMENT_BYTES);
        reserve.run(|| {
            let spare =
                prepare_spare(&vfs, &config.dir, &identity, number, bytes, config.log_mapped);
            // The next attempt gets by with less.
            bytes = RESERVE_BYTES_MIN;
            spare
        })?
    };
    let next_seqno = last_seqno.next();
    let mut log = LogWriter::start(identity, first, next_seqno, Predecessor::Barrier);
    let begin = log.take_group();
    begin.write()?;
    log.written(&begin);
    let begin = Unsynced::from(begin);
    begin.sync()?;
    log.synced(&begin);
    // INVARIANT(no-log-file-missing): before anything is acknowledged that only this file has.
    let edit = VersionEdit {
        next_file_number: Some(file_numbers.high_water()),
        newest_segment: Some(log.number()),
        ..VersionEdit::default()
    };
    reserve.run(|| {
        if manifest.must_roll_over() {
            return manifest.roll_over(file_numbers.take(), Some(&edit)).map(drop);
        }
        manifest.append(&edit)
    })?;
    let log_floor = log.number();

    let (versions, version_inbox) = mailbox(VERSION_INBOX_MAX);
    let (planner, compact_inbox) = mailbox(COMPACT_INBOX_MAX);
    let (compaction, reports) = Channels::new(config.compaction_threads);
    let compaction_jobs = compaction.jobs.clone();
    let (reads, read_threads) = Pool::new(config.read_threads);
    let (turns, turn_threads) = Jobs::new(1, 0);

    let budget = RangeBudget::of(&config, version.ranges().len());
    let chunks = ChunkPool::new(2 * budget.memtable_bytes);
    let points = ReadPoints::new();
    let reclaim = config.buffer.clone();
    let reclaim = reclaim.map(|options| Reclaim { points: Arc::clone(&points), options });
    let memtables = MemtableOptions { pool: Some(Arc::clone(&chunks)), reclaim };
    // Owners know the shared part, so it is there before they are.
    let superversion = |ranges| Arc::new(Superversion::new(1, 1, last_seqno, ranges));
    let shared = Arc::new(Shared {
        commits: CommitQueue::new(last_seqno, config.commits_in_flight_max),
        global: Credits::with_pressure(
            config.write_buffer_bytes as u64,
            relief::on_wait(&versions, Scope::Global),
        ),
        health: Health::new(),
        attempts: Attempts::default(),
        damage: Arc::default(),
        reserve: reserve.reserve,
        pressure_board: Board::default(),
        chunks,
        memtables,
        points,
        tending_due: Signal::new(),
        upkeep_due: Signal::new(),
        superversion: Published::new(superversion(Vec::new())),
        compaction_due: Signal::new(),
        reserve_due: Signal::new(),
        flush_due: Signal::new(),
        log_keeping_due: Signal::new(),
        log_floor: AtomicU64::new(log_floor.0),
        counters: Arc::new(Counters::default()),
        config,
        runtime,
        vfs,
        db_id,
        tables,
        file_numbers,
        lock: Mutex::new(Some(lock)),
        log_due: Signal::new(),
    });
    if let Some(failure) = reserve.spent_for {
        shared.degrade(Party::Reserve, failure);
    }

    let (mut ranges, mut next_memtable_id) = (Vec::new(), 0);
    for stable in version.ranges() {
        let (active, writer) = memtable_with(next_memtable_id, shared.memtables.clone());
        next_memtable_id += 1;
        let owner = RangeOwner::new(stable.id, writer, budget, &shared, versions.clone(), &turns);
        let stable = Arc::clone(stable);
        ranges.push(RangeEntry { active, sealed: Vec::new(), stable, owner });
    }
    shared.superversion.store(superversion(ranges));
    let wal = WalWriter::new(log, next_seqno, &shared, &turns);

    let bell = versions.clone();
    shared.tables.graveyard().on_burial(move || {
        // Full: the manager looks at the graveyard after every message anyway.
        if let Ok(permit) = bell.try_reserve(1) {
            let _ = permit.send(VersionMessage::Bury);
        }
    });

    let manager = VersionManager::new(
        Arc::clone(&shared),
        Arc::clone(&wal),
        (versions.clone(), version_inbox),
        turns.clone(),
        manifest,
        next_memtable_id,
    );
    let flusher = FlushWorker::new(Arc::clone(&shared), Arc::clone(&wal), versions.clone());
    let plan = compaction.jobs.clone();
    let plan = CompactionPlanner::new(Arc::clone(&shared), compact_inbox, plan, reports);

    let mut starter = Starter { shared: &shared, tasks: Vec::new() };
    let threads: [(&'static str, &str, BoxFuture<'static, ()>); 6] = [
        ("version manager", "sluice-version", Box::pin(manager.run())),
        ("flush worker", "sluice-flush", Box::pin(flusher.run())),
        ("compaction planner", "sluice-plan", Box::pin(plan.run())),
        ("tender", "sluice-tend", Box::pin(reclaimer::tend(Arc::clone(&shared)))),
        (
            "wal writer",
            "sluice-wal",
            Box::pin(log_syncer::sync_loop(Arc::clone(&shared), Arc::clone(&wal))),
        ),
        (
            "log keeper",
            "sluice-log",
            Box::pin(log_keeper::keep_loop(
                Arc::clone(&shared),
                Arc::clone(&wal),
                versions.clone(),
                reusable_segments,
            )),
        ),
    ];
    let mut started = Ok(());
    for (actor, name, body) in threads {
        started = started.and_then(|()| starter.start(actor, name, body));
    }
    for (index, worker) in compaction.workers(&shared, &versions).enumerate() {
        let (name, body) = (format!("sluice-merge-{index}"), Box::pin(worker.run()));
        started = started.and_then(|()| starter.start("compaction worker", &name, body));
    }
    for (index, thread) in turn_threads.into_iter().enumerate() {
        let name = format!("sluice-turn-{index}");
        started = started.and_then(|()| starter.start_pool("turn thread", &name, thread));
    }
    for (index, thread) in read_threads.into_iter().enumerate() {
        let name = format!("sluice-read-{index}");
        started = started.and_then(|()| starter.start_pool("read thread", &name, thread));
    }
    let tasks = starter.tasks;
    let write_path =
        WritePath::new(Arc::clone(&shared), Arc::clone(&wal), versions.clone(), reads.clone());
    let supervisor = Supervisor::new(tasks, departure);
    let engine = Engine {
        shared,
        wal,
        write_path,
        versions,
        planner,
        compaction_jobs,
        reads,
        turns,
        supervisor,
        recovery: report,
    };
    // If a thread could not be started, dropping the engine stops the others.
    started?;
    Ok(engine)
}

fn mailbox<T>(messages: usize) -> (Mailbox<T>, crate::kernel::mailbox::Inbox<T>) {
    Mailbox::new(Capacity { messages, bytes: messages as u64 })
}

/// Starts actors on the runtime; a panic in one of them stops the engine.
struct Starter<'a> {
    shared: &'a Arc<Shared>,
    tasks: Vec<Task>,
}

impl Starter<'_> {
    fn start(
        &mut self,
        actor: &'static str,
        name: &str,
        body: BoxFuture<'static, ()>,
    ) -> Result<(), OpenFailure> {
        let shared = Arc::clone(self.shared);
        let guarded = async move {
            if let Err(panic) = AssertUnwindSafe(body).catch_unwind().await {
                shared.fail(Failure::panicked(actor, &*panic));
            }
        };
        let task = self.spawn(name, Box::pin(guarded))?;
        self.tasks.push(task);
        Ok(())
    }

    /// Threads of a pool end with the last handle to the pool, which snapshots may hold: they are
    /// not joined by `close` and keep nothing of the engine alive.
    fn start_pool(
        &mut self,
        actor: &'static str,
        name: &str,
        thread: Worker,
    ) -> Result<(), OpenFailure> {
        let shared = Arc::downgrade(self.shared);
        let body = thread.run(move |panic| {
            if let Some(shared) = shared.upgrade() {
                shared.fail(Failure::panicked(actor, &*panic));
            }
        });
        self.spawn(name, Box::pin(body)).map(|_| ())
    }

    fn spawn(&self, name: &str, body: BoxFuture<'static, ()>) -> Result<Task, OpenFailure> {
        let dir = &self.shared.config.dir;
        let started = self.shared.runtime.spawn(name, body);
        Ok(started.map_err(|error| Error::io("start a thread for", dir, error))?)
    }
}
