//! The log writer: stamps, appends, hands on; the one place where writes get their order.
//!
//! Owns:      the log, the sequence numbers, spare segments.
//! Receives:  Commit, from callers, already admitted.
//! Sends:     Apply to range owners, in log order, into places reserved at the gate.
//! Publishes: the durable point, through its syncer.
//! Stops:     when it is closed (`stop_stamping`), or the log has failed.
//!
//! Its seat is run by callers and only touches memory. The disk side has two actors with a thread
//! each: the log's syncer and the log's keeper. What the three have in common is in [`Log`].

mod after;
pub mod message;
mod run;
mod segments;
mod stale;
mod state;
mod sync_request;

pub use after::AfterTurn;

use crate::counter::Counter;
use crate::failure::Failure;
use crate::group_commit::LogSeat;
use crate::group_commit::durable::Durable;
use crate::range_owner::Topology;
use crate::runtime::{Environment, Turns};
use futures::future::{Either, select};
pub use run::LogActor;
use sluicedb_kernel::combining::{CombiningMailbox, Hooks, Spent, TurnLimits};
use sluicedb_kernel::mailbox::Capacity;
use sluicedb_kernel::reply::{Reply, reply};
use sluicedb_kernel::signal::Signal;
use sluicedb_kernel::sync::lock;
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::wal::{LogWriter, SealedSegment};
pub use state::{LogState, NoRoom, SpareWanted, Stamped, Way};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
pub use sync_request::SyncRequest;

/// Counts since the database was opened. All but the last three are written under the log's seat.
#[derive(Debug, Default)]
pub struct LogCounts {
    /// Batches committed.
    pub commits: Counter,
    /// Commits that were handled on their caller's thread without queueing.
    pub commits_inline: Counter,
    /// Entries committed.
    pub entries_written: Counter,
    /// Bytes of batches committed.
    pub bytes_written: Counter,
    /// Bytes handed to the log.
    pub log_bytes: Counter,
    /// Changes of contents or routes.
    pub changes: Counter,
    /// Queued commits that were routed again, because the routes had changed since they were
    /// admitted.
    pub routed_again: Counter,
    /// Log syncs.
    pub log_syncs: Counter,
    /// Log segments that a recovery would read; a gauge.
    pub log_segments: Counter,
    /// Bytes of those among them that are closed; a gauge.
    pub log_retained_bytes: Counter,
}

/// What the log has for its two threads to do.
#[derive(Debug, Default)]
pub struct LogDue {
    /// Somebody waits for the log to be written or synced. The syncer waits for it.
    pub sync: Signal,
    /// The log may have obsolete segments, or needs a spare one. The keeper waits for it.
    pub keeping: Signal,
}

/// The log as its senders and its threads see it.
#[derive(Debug)]
pub struct Log {
    /// The log behind its seat.
    pub seat: CombiningMailbox<LogActor>,
    /// The durable point.
    pub durable: Arc<Durable>,
    /// What its threads have to do.
    pub due: Arc<LogDue>,
    /// What it has done.
    pub counts: Arc<LogCounts>,
    topology: Arc<Topology>,
    /// The oldest log segment that a recovery would need, by the durable manifest.
    floor: AtomicU64,
    /// Synced and sealed segments that a recovery may still need, oldest first.
    retired: Mutex<Vec<SealedSegment>>,
    /// Set by `close_log`, served by the syncer.
    closing: Mutex<Option<Reply<Result<(), Failure>>>>,
    /// Who waits until obsolete segments are out of the way; served by the keeper.
    collecting: Mutex<Vec<Reply<()>>>,
    /// Who waits until nothing is kept ready; served by the keeper.
    leaving: Mutex<Vec<Reply<()>>>,
}

impl Log {
    /// A writer whose next operation gets `next_seqno`. Nothing is in memory yet: no segment before
    /// the current one is needed.
    pub fn new(
        log: LogWriter,
        next_seqno: Seqno,
        environment: &Environment,
        topology: &Arc<Topology>,
        turns: &Turns,
    ) -> Arc<Self> {
        let config = &environment.config;
        let capacity = Capacity {
            messages: config.commits_in_flight_max,
            bytes: config.write_buffer_bytes as u64,
        };
        let durable = Arc::new(Durable::new(Seqno(next_seqno.0 - 1)));
        let (due, counts) = (Arc::<LogDue>::default(), Arc::<LogCounts>::default());
        let epoch = topology.superversion.load().epoch;
        let floor = AtomicU64::new(log.number().0);
        let state = LogState::new(log, next_seqno, epoch, Arc::clone(&counts));
        let actor =
            LogActor::new(state, Arc::clone(&durable), Arc::clone(topology), Arc::clone(&due));
        let failures = Arc::clone(&topology.failures);
        Arc::new_cyclic(|wal: &Weak<Self>| {
            let kicked = Weak::clone(wal);
            let hooks = Hooks {
                kick: turns.hand_on(move || {
                    if let Some(wal) = kicked.upgrade() {
                        wal.seat.deliver_blocking();
                    }
                }),
                on_panic: Box::new(move |message| {
                    failures.fail(Failure::Panicked { actor: "wal writer", message });
                }),
            };
            Self {
                seat: CombiningMailbox::new(actor, capacity, TurnLimits::default(), hooks),
                durable,
                due,
                counts,
                topology: Arc::clone(topology),
                floor,
                retired: Mutex::default(),
                closing: Mutex::default(),
                collecting: Mutex::default(),
                leaving: Mutex::default(),
            }
        })
    }

    /// Runs `f` on the log, for engine threads.
    ///
    /// # Errors
    /// When the seat has failed, and with it the engine.
    pub fn with_log<R>(&self, f: impl FnOnce(&mut LogState) -> R) -> Result<R, Failure> {
        let guard = self.seat.enter_blocking();
        let mut guard = guard.ok_or_else(|| Failure::Panicked {
            actor: "wal writer",
            message: "see the first failure".to_owned(),
        })?;
        Ok(f(&mut guard.state))
    }

    /// The segment in which `seqno` lies, or will lie, and the newest one.
    ///
    /// # Errors
    /// When the seat has failed.
    pub fn segments_from(&self, seqno: Seqno) -> Result<(FileNumber, FileNumber), Failure> {
        self.with_log(|state| (state.segments.of(seqno), state.log.number()))
    }

    /// Everything visible now is synced when this returns.
    ///
    /// # Errors
    /// When the log cannot be synced, or the engine has stopped.
    pub async fn sync(&self) -> Result<(), Failure> {
        // Also if nothing is left to sync: who asks is told that the engine does not work any more.
        self.topology.failures.check()?;
        self.sync_upto(self.topology.visible()).await
    }

    /// Everything up to `upto`, which has been stamped, is visible and synced when this returns.
    ///
    /// # Errors
    /// As `sync`.
    pub async fn sync_upto(&self, upto: Seqno) -> Result<(), Failure> {
        if self.durable.synced() >= upto {
            return Ok(());
        }
        self.topology.failures.check()?;
        self.sync_request().upto(upto).await.map_err(|failed| failed.failure)
    }

    /// For who wants the log synced later, and is to keep neither the log nor the engine.
    pub fn sync_request(&self) -> SyncRequest {
        SyncRequest {
            durable: Arc::clone(&self.durable),
            due: Arc::clone(&self.due),
            health: self.topology.failures.health.clone(),
        }
    }

    /// Segments below the durable floor that were closed, and everything in them synced, before the
    /// call are deleted, or kept aside for recycling, when this returns.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub async fn collect(&self) -> Result<(), Failure> {
        self.ask_keeper(&self.collecting).await
    }

    /// The log goes on in a last segment, as small as can be, and no others are ready, when this
    /// returns; unless there was no room for it. For the closing thread: nothing is stamped any
    /// more.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub async fn leave_segments(&self) -> Result<(), Failure> {
        self.ask_keeper(&self.leaving).await
    }

    async fn ask_keeper(&self, waiting: &Mutex<Vec<Reply<()>>>) -> Result<(), Failure> {
        let (reply, answer) = reply();
        lock(waiting).push(reply);
        self.due.keeping.set();
        let failures = &self.topology.failures;
        let down = pin!(failures.health.until_down());
        match select(answer, down).await {
            Either::Left((collected, _)) => collected.map_err(|_| failures.why_stopped()),
            Either::Right(_) => Err(failures.why_stopped()),
        }
    }

    /// The oldest segment that a recovery would need (watermark-at-seal).
    pub fn floor(&self) -> FileNumber {
        FileNumber(self.floor.load(Ordering::Acquire))
    }

    /// The durable manifest says that nothing below `floor` is needed.
    pub fn raise_floor(&self, floor: FileNumber) {
        self.floor.store(floor.0, Ordering::Release);
    }

    pub(crate) fn take_collecting(&self) -> Vec<Reply<()>> {
        std::mem::take(&mut *lock(&self.collecting))
    }

    pub(crate) fn take_leaving(&self) -> Vec<Reply<()>> {
        std::mem::take(&mut *lock(&self.leaving))
    }

    /// Handles what is queued and stamps nothing more; returns the last sequence number. For the
    /// closing thread.
    ///
    /// # Errors
    /// When the seat has failed.
    pub fn stop_stamping(&self) -> Result<Seqno, Failure> {
        self.seat.close();
        self.seat.deliver_blocking();
        let mut after = AfterTurn::default();
        let last = self.with_log(|state| {
            state.close(Failure::Closed, &mut after);
            state.last_seqno()
        });
        after.run(&self.due, &mut Spent::default());
        last
    }

    /// Ends the log with a mark and syncs it.
    ///
    /// # Errors
    /// When the log cannot be synced.
    pub async fn close_log(&self) -> Result<(), Failure> {
        let (reply, answer) = reply();
        *lock(&self.closing) = Some(reply);
        self.due.sync.set();
        // A log that has failed serves nobody any more, and would not answer.
        let failures = &self.topology.failures;
        let down = pin!(failures.health.until_down());
        match select(answer, down).await {
            Either::Left((ended, _)) => ended.unwrap_or_else(|_| Err(failures.why_stopped())),
            Either::Right(_) => Err(failures.why_stopped()),
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        lock(&self.closing).is_some()
    }

    pub(crate) fn take_closing(&self) -> Option<Reply<Result<(), Failure>>> {
        lock(&self.closing).take()
    }

    pub(crate) fn retire(&self, sealed: &[SealedSegment]) {
        lock(&self.retired).extend_from_slice(sealed);
    }

    pub(crate) fn take_retired_below(&self, floor: FileNumber) -> Vec<SealedSegment> {
        let mut retired = lock(&self.retired);
        let below = retired.partition_point(|segment| segment.number < floor);
        retired.drain(..below).collect()
    }
}

impl LogSeat for Log {
    fn with_writer<R>(&self, f: impl FnOnce(&mut LogWriter) -> R) -> Result<R, Failure> {
        self.with_log(|state| f(&mut state.log))
    }
}
