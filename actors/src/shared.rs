//! What every actor may see: configuration, kernel primitives and the published view. No actor's
//! state is in here, so nothing in here needs a lock that outlives a few instructions.

use crate::admission::pressure::Board;
use crate::admission::waits::WaitCounts;
use crate::config::EngineConfig;
use crate::failure::trouble::{Attempts, Damage};
use crate::failure::{Concern, Failure};
use crate::kernel::commit::CommitQueue;
use crate::kernel::credits::Credits;
use crate::kernel::health::{Down, Health};
use crate::kernel::published::Published;
use crate::kernel::signal::Signal;
use crate::range_owner::RangeOwner;
use crate::runtime::Runtime;
use sluicedb_storage::Error;
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::memtable::{ChunkPool, MemtableOptions};
use sluicedb_storage::points::ReadPoints;
use sluicedb_storage::reserve::Reserve;
use sluicedb_storage::version::{TableCache, Version};
use sluicedb_storage::vfs::{LockGuard, Vfs};
use sluicedb_storage::view;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One range, with its owner.
pub type RangeEntry = view::RangeEntry<Arc<RangeOwner>>;
/// What readers and writers load with one pointer (INVARIANT(one-pointer)): what can be read, and who
/// owns each range of it. Stored by the version manager alone.
pub type Superversion = view::Superversion<Arc<RangeOwner>>;

/// Hands out file numbers, each once (INVARIANT(never-reuse-a-file-number): the high-water mark is
/// part of every version edit, and opening starts above every number seen on disk).
#[derive(Debug)]
pub struct FileNumbers(AtomicU64);

impl FileNumbers {
    /// Starts at `next`.
    pub fn starting_at(next: FileNumber) -> Self {
        Self(AtomicU64::new(next.0))
    }

    /// A fresh number.
    pub fn take(&self) -> FileNumber {
        FileNumber(self.0.fetch_add(1, Ordering::Relaxed))
    }

    /// The number that `take` would return: above every number taken so far.
    pub fn high_water(&self) -> FileNumber {
        FileNumber(self.0.load(Ordering::Relaxed))
    }
}

/// Counts since the database was opened. The first seven are written under the WAL writer's seat.
#[derive(Debug, Default)]
pub struct Counters {
    /// Batches committed.
    pub commits: AtomicU64,
    /// Entries committed.
    pub entries_written: AtomicU64,
    /// Bytes of batches committed.
    pub bytes_written: AtomicU64,
    /// Changes of contents or routes.
    pub changes: AtomicU64,
    /// Queued commits that were routed again, because the routes had changed since they were admitted.
    pub routed_again: AtomicU64,
    /// Commits that were handled on their caller's thread without queueing.
    pub commits_inline: AtomicU64,
    /// Waits for room in a range.
    pub local: WaitCounts,
    /// Waits for room in the engine.
    pub global: WaitCounts,
    /// Writes refused, at once or at their deadline, because a range had no room.
    pub overloaded_local: AtomicU64,
    /// Writes refused, at once or at their deadline, because the engine had no room.
    pub overloaded_global: AtomicU64,
    /// Log syncs.
    pub log_syncs: AtomicU64,
    /// Bytes handed to the log.
    pub log_bytes: AtomicU64,
    /// Memtables sealed because they were full.
    pub seals_size: AtomicU64,
    /// Memtables sealed because writers waited for room.
    pub seals_pressure: AtomicU64,
    /// Memtables sealed because they pinned too much of the log.
    pub seals_log: AtomicU64,
    /// Memtables sealed because nobody wrote to them and they pinned log or memory.
    pub seals_idle: AtomicU64,
    /// Memtables sealed by callers of `flush`.
    pub seals_flush: AtomicU64,
    /// Memtables flushed.
    pub flushes: AtomicU64,
    /// Bytes of tables written by flushes.
    pub flush_bytes: AtomicU64,
    /// Compactions begun.
    pub compactions_begun: AtomicU64,
    /// Compactions finished.
    pub compactions: AtomicU64,
    /// Those that only renamed tables to another level.
    pub trivial_moves: AtomicU64,
    /// Bytes of tables read by compactions.
    pub compaction_bytes_read: AtomicU64,
    /// Bytes of tables written by compactions.
    pub compaction_bytes_written: AtomicU64,
    /// Jobs that failed and will be tried again.
    pub job_retries: AtomicU64,
    /// Manifest edits.
    pub edits: AtomicU64,
    /// Tables deleted.
    pub tables_deleted: AtomicU64,
    /// Log segments that a recovery would read; a gauge.
    pub log_segments: AtomicU64,
    /// Bytes of those among them that are closed; a gauge.
    pub log_retained_bytes: AtomicU64,
    /// Turns handed to an engine thread.
    pub turns_handed_on: AtomicU64,
    /// Reads that had to go to a read thread.
    pub cold_reads: AtomicU64,
}

impl Counters {
    /// Adds `n` to a counter that only the caller writes, because it holds the seat that guards it:
    /// no locked instruction.
    #[inline]
    pub fn bump(counter: &AtomicU64, n: u64) {
        counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// Adds `n` to one of the counters.
    #[inline]
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// See the module.
pub struct Shared {
    /// Capacities and thresholds.
    pub config: EngineConfig,
    /// Threads and time.
    pub runtime: Arc<dyn Runtime>,
    /// The disk.
    pub vfs: Arc<dyn Vfs>,
    /// The database's identity, part of every checksum.
    pub db_id: [u8; 16],
    /// Which tables are open, and their cached blocks.
    pub tables: Arc<TableCache>,
    /// What can be read and who owns what.
    pub superversion: Published<Superversion>,
    /// From stamped to visible.
    pub commits: CommitQueue,
    /// The global account.
    pub global: Credits,
    /// Memory of flushed memtables, for new ones.
    pub chunks: Arc<ChunkPool>,
    /// What every memtable is made with.
    pub memtables: MemtableOptions,
    /// Where snapshots and scans read.
    pub points: Arc<ReadPoints>,
    /// A range has overwritten entries to see to, should no write come that does it.
    pub tending_due: Signal,
    /// The pool of chunks should be stocked, or has chunks to free.
    pub upkeep_due: Signal,
    /// The first failure, and who cannot do its work for now.
    pub health: Health<Concern, Failure>,
    /// Counts of jobs that fail.
    pub attempts: Attempts,
    /// Space set aside for a full disk.
    pub reserve: Reserve,
    /// Tables that were found damaged.
    pub damage: Arc<Damage>,
    /// What watchers see of the pressure.
    pub pressure_board: Board,
    /// The source of file numbers.
    pub file_numbers: FileNumbers,
    /// A version changed: the compaction planner may have work.
    pub compaction_due: Signal,
    /// The reserve was let go of: the version manager has to look for room.
    pub reserve_due: Signal,
    /// A memtable was frozen, or a version changed and L0 may have room again.
    pub flush_due: Signal,
    /// Somebody waits for the log to be written or synced.
    pub log_due: Signal,
    /// The log may have obsolete segments, or needs a spare one.
    pub log_keeping_due: Signal,
    /// The oldest log segment that a recovery would need, by the durable manifest.
    pub log_floor: AtomicU64,
    /// Counts.
    pub counters: Arc<Counters>,
    /// Keeps other processes out until the last actor has ended.
    pub lock: Mutex<Option<Box<dyn LockGuard>>>,
}

impl Shared {
    /// Has the engine failed or been closed?
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.health.check().is_err()
    }

    /// Why, if it has.
    pub fn stopped_by(&self) -> Option<Failure> {
        match self.health.check() {
            Ok(()) => None,
            Err(Down::Failed(failure)) => Some(failure),
            Err(Down::Closed(failure)) => Some(failure.unwrap_or(Failure::Closed)),
        }
    }

    /// Why; for those who have just been told that somebody stopped.
    pub fn why_stopped(&self) -> Failure {
        self.stopped_by().unwrap_or(Failure::Closed)
    }

    /// Stops the engine for good because of `failure`: no further write, no further
    /// acknowledgement, reads go on. The first failure is the one that everybody is told.
    pub fn fail(&self, failure: Failure) {
        if self.health.fail(failure) {
            self.release_waiters();
        }
    }

    /// Ends the engine.
    pub fn shut(&self) {
        self.health.close();
        self.release_waiters();
    }

    /// Refuses new writes; what was admitted goes on.
    pub fn close_admission(&self) {
        self.global.close();
        // With the one below: whoever is second sees what the first has done.
        fence(Ordering::SeqCst);
        self.close_ranges();
    }

    /// Ranges were published that are new: are they too late?
    pub fn follow_closing(&self) {
        fence(Ordering::SeqCst);
        if self.global.is_closed() {
            self.close_ranges();
        }
    }

    fn close_ranges(&self) {
        for range in &self.superversion.load_full().ranges {
            range.owner.local.close();
        }
    }

    /// Nobody waits for an engine that has stopped.
    fn release_waiters(&self) {
        self.close_admission();
        self.commits.fail();
        self.pressure_board.end();
        for signal in [
            &self.compaction_due,
            &self.reserve_due,
            &self.flush_due,
            &self.log_keeping_due,
            &self.log_due,
            &self.tending_due,
            &self.upkeep_due,
        ] {
            signal.set();
        }
    }

    /// Waits until then; for ever, if there is no such time.
    pub async fn until(&self, at: Option<Instant>) {
        match at {
            Some(at) => self.runtime.sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Waits for so long; false if the engine has stopped by then.
    pub async fn pause(&self, pause: Duration) -> bool {
        let sleep = self.runtime.sleep_until(self.runtime.now() + pause);
        let down = std::pin::pin!(self.health.until_down());
        futures::future::select(sleep, down).await;
        !self.is_stopped()
    }

    /// Lets others open the directory. Only when every actor has ended.
    pub fn release_lock(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// If a job failed for want of file descriptors: closes tables, so that its next attempt has some.
    pub(crate) fn give_up_descriptors(&self, error: &Error) {
        if error.is_out_of_descriptors() {
            self.tables.close_some();
        }
    }

    /// What is on disk now.
    pub fn version(&self) -> Version {
        self.superversion.load_full().version(self.tables.graveyard())
    }

    /// The last sequence number that readers may see.
    #[inline]
    pub fn visible(&self) -> Seqno {
        self.commits.visible()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("dir", &self.config.dir).finish_non_exhaustive()
    }
}
