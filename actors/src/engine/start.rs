//! How the actors are created, connected and started.

use super::close::{Closer, DirectoryLock};
use super::listener::listen;
use super::open::Opened;
use super::registry::Exit;
use super::{Counters, Engine, Parts};
use crate::admission::{Accounts, RangeBudget};
use crate::bulk_worker::BulkWorker;
use crate::checkpointer::Checkpointer;
use crate::compaction_planner::CompactionPlanner;
use crate::compaction_worker::{Channels, Pace};
use crate::failure::{Failure, Failures, Party};
use crate::flush_worker::FlushWorker;
use crate::log_keeper::LogKeeper;
use crate::log_syncer::LogSyncer;
use crate::log_writer::Log;
use crate::range_owner::{Memory, Owners, RangeEntry, Superversion, Topology};
use crate::range_planner::RangePlanner;
use crate::reclaimer::Reclaimer;
use crate::runtime::jobs::Worker;
use crate::runtime::pool::Pool;
use crate::runtime::{Environment, Task, Turns};
use crate::version_manager::message::{Shortage, VersionMessage};
use crate::version_manager::{Files, ObsoleteTables, TablesDue, VersionManager, ask_for_room};
use crate::write::WritePath;
use futures::FutureExt;
use futures::future::BoxFuture;
use sluicedb_kernel::mailbox::{Capacity, Inbox, Mailbox};
use sluicedb_kernel::published::Published;
use sluicedb_kernel::sequencer::Sequencer;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::memtable::PoolLimits;
use sluicedb_storage::version::Version;
use sluicedb_storage::wal::SealedSegment;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// Most messages that wait for the version manager.
pub(super) const VERSION_INBOX_MAX: usize = 64;
/// Most manual compactions that wait.
pub(super) const COMPACT_INBOX_MAX: usize = 16;
/// Most replacements of spans that wait for their tables.
pub(super) const BULK_INBOX_MAX: usize = 16;
/// Most checkpoints that wait.
pub(super) const CHECKPOINT_INBOX_MAX: usize = 4;

/// Starts the actors on an opened directory.
pub(super) fn start(opened: Opened, exit: Exit) -> Result<Engine, Failure> {
    let Opened { environment, lock, reserve, reserve_spent_for, version, tables, .. } = opened;
    let Opened { manifest, numbers, log, last_seqno, old_log, report, .. } = opened;
    let environment = Arc::new(environment);
    let config = &environment.config;

    let (versions, version_inbox) = mailbox(VERSION_INBOX_MAX);
    let (planner, planner_inbox) = mailbox(COMPACT_INBOX_MAX);
    let (bulk, bulk_inbox) = mailbox(BULK_INBOX_MAX);
    let (checkpoints, checkpoint_inbox) = mailbox(CHECKPOINT_INBOX_MAX);
    let (channels, reports) = Channels::new(config.compaction_threads);
    let (reads, read_threads) =
        Pool::new(config.read_threads, config.read_polling, &environment.runtime);
    let (turns, turn_threads) = Turns::new();

    let budget = RangeBudget::of(config, version.ranges().len());
    let failures = Arc::new(Failures::new(reserve));
    let accounts = Arc::new(accounts(config.write_buffer_bytes as u64, &versions));
    let kept_bytes = 2 * budget.memtable_bytes;
    let pool = PoolLimits { kept_bytes, all_bytes: config.write_buffer_bytes + kept_bytes };
    let memory = Arc::new(Memory::new(pool, config.buffer.clone()));
    let topology = Arc::new(Topology {
        superversion: Published::new(superversion(&version, last_seqno, Vec::new())),
        commits: Sequencer::new(last_seqno.0, config.commits_in_flight_max),
        failures: Arc::clone(&failures),
    });
    let owners = Owners {
        environment: Arc::clone(&environment),
        topology: Arc::clone(&topology),
        accounts: Arc::clone(&accounts),
        memory: Arc::clone(&memory),
        turns: turns.clone(),
        requests: Arc::new(versions.clone()),
    };
    // Owners need the topology, so it is created first, without ranges.
    let next_memtable_id = own(&version, &owners, budget, last_seqno);
    let wal = Log::new(log, last_seqno.next(), &environment, &topology, &turns);
    let files = Arc::new(Files {
        environment: Arc::clone(&environment),
        failures: Arc::clone(&failures),
        tables,
        obsolete: ObsoleteTables::default(),
        numbers,
    });
    let pace = Pace::new(&environment, &accounts, &topology);
    let parts = Parts {
        environment,
        failures,
        accounts,
        topology,
        memory,
        wal,
        files,
        directory: Arc::new(DirectoryLock::new(lock)),
        versions,
        planner,
        bulk,
        checkpoints,
        compaction_jobs: channels.jobs.clone(),
        compaction_pace: pace,
    };
    let tables_due = Arc::<TablesDue>::default();
    listen(&parts, &tables_due);
    watch_obsolete(&parts);
    if let Some(failure) = reserve_spent_for {
        parts.failures.degrade(Party::Reserve, failure);
    }

    let manager = VersionManager::new(
        owners,
        Arc::clone(&parts.wal),
        Arc::clone(&parts.files),
        Arc::clone(&tables_due),
        version_inbox,
        manifest,
        next_memtable_id,
    );
    let planner = CompactionPlanner::new(
        Arc::clone(&parts.files),
        Arc::clone(&parts.topology),
        Arc::clone(&tables_due),
        planner_inbox,
        channels.jobs.clone(),
        reports,
    );
    let ranges = RangePlanner::new(
        Arc::clone(&parts.environment),
        Arc::clone(&parts.accounts),
        Arc::clone(&parts.topology),
        Arc::clone(&tables_due),
        parts.versions.clone(),
    );
    let checkpointer =
        Checkpointer::new(Arc::clone(&parts.files), parts.versions.clone(), checkpoint_inbox);
    let bulk_worker = BulkWorker::new(
        Arc::clone(&parts.files),
        Arc::clone(&parts.topology),
        parts.versions.clone(),
        bulk_inbox,
    );
    let counters = Counters {
        log: Arc::clone(&parts.wal.counts),
        versions: manager.counts(),
        ranges: ranges.counts(),
        checkpoints: checkpointer.counts(),
        bulk: bulk_worker.counts(),
        compactions: planner.counts(),
    };
    let mut starter = Starter { parts: &parts, tasks: Vec::new() };
    let mut started = starter.start("version manager", "sluice-version", manager.run().boxed());
    started = started
        .and_then(|()| starter.start_tables(planner, &tables_due))
        .and_then(|()| starter.start_log(old_log))
        .and_then(|()| starter.start_workers(channels, &counters))
        .and_then(|()| starter.start("bulk worker", "sluice-bulk", bulk_worker.run().boxed()))
        .and_then(|()| starter.start("range planner", "sluice-ranges", ranges.run().boxed()))
        .and_then(|()| starter.start("checkpointer", "sluice-ckpt", checkpointer.run().boxed()))
        .and_then(|()| starter.start_pool("turn thread", "sluice-turn", turn_threads))
        .and_then(|()| starter.start_pool("read thread", "sluice-read", read_threads));
    let closer = Closer::new(starter.tasks, exit);
    let write_path = WritePath::new(
        Arc::clone(&parts.environment),
        Arc::clone(&parts.accounts),
        Arc::clone(&parts.topology),
        Arc::clone(&parts.wal),
        parts.versions.clone(),
        reads.clone(),
    );
    let engine = Engine { write_path, parts, reads, turns, counters, recovery: report, closer };
    // If a thread could not be started, dropping the engine stops the others.
    started?;
    Ok(engine)
}

fn mailbox<T>(messages: usize) -> (Mailbox<T>, Inbox<T>) {
    Mailbox::new(Capacity { messages, bytes: messages as u64 })
}

fn accounts(bytes: u64, versions: &Mailbox<VersionMessage>) -> Accounts {
    let versions = versions.clone();
    Accounts::new(bytes, Box::new(move || ask_for_room(&versions, Shortage::Waited)))
}

fn superversion(version: &Version, born: Seqno, ranges: Vec<RangeEntry>) -> Arc<Superversion> {
    Arc::new(Superversion::new(1, 1, born, Arc::clone(version.keyspaces()), ranges))
}

/// Gives each range an owner and publishes them. Returns the next memtable's id.
fn own(version: &Version, owners: &Owners, budget: RangeBudget, born: Seqno) -> u64 {
    let stables = (0..).zip(version.ranges());
    let ranges = stables.map(|(id, stable)| owners.entry(Arc::clone(stable), id, budget));
    let ranges: Vec<_> = ranges.collect();
    let next_memtable_id = ranges.len() as u64;
    // INVARIANT(published-before-used): they are published before anybody writes.
    owners.topology.superversion.store(superversion(version, born, ranges));
    next_memtable_id
}

/// Has the version manager told when a table's last reader is gone.
fn watch_obsolete(parts: &Parts) {
    let versions = parts.versions.clone();
    parts.files.tables.obsolete_files().on_obsolete(move || {
        // If the mailbox is full, the manager looks for obsolete tables after each message anyway.
        if let Ok(permit) = versions.try_reserve(1) {
            let _ = permit.send(VersionMessage::DeleteObsolete);
        }
    });
}

/// Starts actors on the runtime. A panic in an actor stops the engine.
struct Starter<'a> {
    parts: &'a Parts,
    tasks: Vec<Task>,
}

impl Starter<'_> {
    /// Starts the flush worker and the compaction planner.
    fn start_tables(
        &mut self,
        planner: CompactionPlanner,
        due: &Arc<TablesDue>,
    ) -> Result<(), Failure> {
        let Parts { files, topology, wal, versions, .. } = self.parts;
        let flusher = FlushWorker::new(
            Arc::clone(files),
            Arc::clone(topology),
            Arc::clone(wal),
            Arc::clone(due),
            versions.clone(),
        );
        self.start("flush worker", "sluice-flush", flusher.run().boxed())?;
        self.start("compaction planner", "sluice-plan", planner.run().boxed())
    }

    fn start_workers(&mut self, channels: Channels, counters: &Counters) -> Result<(), Failure> {
        let Parts { files, versions, compaction_pace, .. } = self.parts;
        let workers = channels.workers(files, &counters.compactions, versions, compaction_pace);
        for (index, worker) in workers.enumerate() {
            let name = format!("sluice-merge-{index}");
            self.start("compaction worker", &name, worker.run().boxed())?;
        }
        Ok(())
    }

    /// Starts the actors of memtables and of the log. Nobody needs `old_log`.
    fn start_log(&mut self, old_log: Vec<SealedSegment>) -> Result<(), Failure> {
        let Parts { environment, files, topology, memory, wal, versions, .. } = self.parts;
        let (environment, topology) = (|| Arc::clone(environment), || Arc::clone(topology));
        let reclaimer = Reclaimer::new(environment(), topology(), Arc::clone(memory));
        self.start("reclaimer", "sluice-reclaim", reclaimer.run().boxed())?;
        let syncer = LogSyncer::new(environment(), topology(), Arc::clone(wal));
        self.start("wal writer", "sluice-wal", syncer.run().boxed())?;
        let (files, wal) = (Arc::clone(files), Arc::clone(wal));
        let keeper = LogKeeper::new(files, topology(), wal, versions.clone(), old_log);
        self.start("log keeper", "sluice-log", keeper.run().boxed())
    }

    fn start(
        &mut self,
        actor: &'static str,
        name: &str,
        body: BoxFuture<'static, ()>,
    ) -> Result<(), Failure> {
        let failures = Arc::clone(&self.parts.failures);
        let directory = Arc::clone(&self.parts.directory);
        let guarded = async move {
            // Whatever happens to the engine's handle, nobody else gets the directory before this
            // actor ends.
            let _directory = directory;
            if let Err(panic) = AssertUnwindSafe(body).catch_unwind().await {
                failures.fail(Failure::panicked(actor, &*panic));
            }
        };
        let task = self.spawn(name, Box::pin(guarded))?;
        self.tasks.push(task);
        Ok(())
    }

    /// Starts the threads of a pool. They end with the last handle to the pool, which a snapshot
    /// may hold. So `close` does not join them, and they keep nothing of the engine alive.
    fn start_pool(
        &mut self,
        actor: &'static str,
        name: &str,
        threads: Vec<Worker>,
    ) -> Result<(), Failure> {
        for (index, thread) in threads.into_iter().enumerate() {
            let failures = Arc::downgrade(&self.parts.failures);
            let body = thread.run(move |panic| {
                if let Some(failures) = failures.upgrade() {
                    failures.fail(Failure::panicked(actor, &*panic));
                }
            });
            self.spawn(&format!("{name}-{index}"), Box::pin(body))?;
        }
        Ok(())
    }

    fn spawn(&self, name: &str, body: BoxFuture<'static, ()>) -> Result<Task, Failure> {
        let environment: &Environment = &self.parts.environment;
        let started = environment.runtime.spawn(name, body);
        Ok(started.map_err(|error| environment.no_thread(error))?)
    }
}
