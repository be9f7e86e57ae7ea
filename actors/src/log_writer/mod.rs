//! The log writer: stamps, appends, hands on; the one place where writes get their order.
//!
//! Owns:      the log, the sequence numbers, spare segments.
//! Receives:  Commit, from callers, already admitted.
//! Sends:     Apply to range owners, in log order, into places reserved at the gate.
//! Publishes: the durable sequence number, through its syncer.
//! Stops:     when it is closed (`stop_stamping`), or the log has failed.
//!
//! Callers run its seat, which only touches memory. Disk work belongs to two actors with a thread
//! each: the log syncer and the log keeper. [`Log`] holds what the three share.

mod after;
pub mod message;
mod run;
mod segments;
mod stale;
mod state;
mod sync_request;

pub use after::AfterTurn;

use crate::counter::Counter;
use crate::failure::{Failure, WriteFailure};
use crate::group_commit::LogSeat;
use crate::group_commit::durable::Durable;
use crate::range_owner::Topology;
use crate::runtime::polling::Polling;
use crate::runtime::{Environment, Turns};
use futures::future::{Either, select};
pub use run::LogActor;
use sluicedb_kernel::combining::{CombiningMailbox, Hooks, Spent};
use sluicedb_kernel::mailbox::Capacity;
use sluicedb_kernel::reply::{Reply, reply};
use sluicedb_kernel::signal::Signal;
use sluicedb_kernel::sync::lock;
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::version::VersionEdit;
use sluicedb_storage::wal::{LogWriter, SealedSegment};
pub use state::{LogState, NoRoom, SpareWanted, Stamped, Way};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
pub use sync_request::SyncRequest;

/// Counts since the database was opened. All but the last four are written under the log's seat.
#[derive(Debug, Default)]
pub struct LogCounts {
    /// Batches committed.
    pub commits: Counter,
    /// Commits that ran on their caller's thread without queueing.
    pub commits_inline: Counter,
    /// Entries committed.
    pub entries_written: Counter,
    /// Bytes of batches committed.
    pub bytes_written: Counter,
    /// Bytes handed to the log.
    pub log_bytes: Counter,
    /// Changes of contents or routes.
    pub changes: Counter,
    /// Queued commits that were routed again because the routes had changed since their admission.
    pub routed_again: Counter,
    /// Log syncs.
    pub log_syncs: Counter,
    /// Bytes of closed segments that were given up without a sync.
    pub log_given_up_bytes: Counter,
    /// Log segments that a recovery would read; a gauge.
    pub log_segments: Counter,
    /// Bytes of those among them that are closed; a gauge.
    pub log_retained_bytes: Counter,
}

/// The signals that wake the log's two threads.
#[derive(Debug, Default)]
pub struct LogDue {
    /// Somebody waits for the log to be written or synced. Wakes the syncer.
    pub sync: Signal,
    /// The log may have obsolete segments, or needs a spare one, or the disk may be full. Wakes the
    /// keeper.
    pub keeping: Signal,
}

/// The segments that a recovery needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentsNeeded {
    /// The lowest one.
    pub floor: FileNumber,
    /// The first number in it, unless its beginning is known to be durable.
    /// INVARIANT(no-log-file-missing): an open demands the beginning, unless the edit that names
    /// the floor says this number, and no edit says that the log is durable up to it.
    pub unbegun: Option<Seqno>,
    /// The newest one.
    pub newest: FileNumber,
}

impl SegmentsNeeded {
    /// Has `edit` say so. Returns the floor.
    pub fn put_into(self, edit: &mut VersionEdit) -> FileNumber {
        edit.log_floor = Some(self.floor);
        edit.log_unbegun = self.unbegun;
        // INVARIANT(no-log-file-missing): every edit names the newest segment.
        edit.newest_segment = Some(self.newest);
        self.floor
    }
}

/// The log, as its senders and its threads share it.
#[derive(Debug)]
pub struct Log {
    /// The log writer behind its seat.
    pub seat: CombiningMailbox<LogActor>,
    /// What is written and what is synced so far.
    pub durable: Arc<Durable>,
    /// Whether those polls who wait for it.
    pub polling: Polling,
    /// The signals for its threads.
    pub due: Arc<LogDue>,
    /// Its counters.
    pub counts: Arc<LogCounts>,
    topology: Arc<Topology>,
    /// The oldest log segment that a recovery would need, by the durable manifest.
    floor: AtomicU64,
    /// Segments that are sealed, and synced or given up by the syncer, oldest first.
    retired: Mutex<Vec<SealedSegment>>,
    /// The caller of `close_log`. The syncer answers.
    closing: Mutex<Option<Reply<Result<(), Failure>>>>,
    /// Callers of `collect`. The keeper answers.
    collecting: Mutex<Vec<Reply<()>>>,
    /// Callers of `leave_segments`. The keeper answers.
    leaving: Mutex<Vec<Reply<()>>>,
}

impl Log {
    /// A log writer whose next operation gets `next_seqno`. Memory is empty, so a recovery needs no
    /// segment before the current one.
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
                seat: CombiningMailbox::new(actor, capacity, hooks),
                durable,
                polling: Polling::new(config.sync_polling),
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
        let mut guard = self.seat.enter_blocking();
        let done = guard.as_mut().and_then(|guard| guard.attempt(|actor| f(&mut actor.state)));
        done.ok_or_else(|| Failure::Panicked {
            actor: "wal writer",
            message: "see the first failure".to_owned(),
        })
    }

    /// What a recovery needs that needs `seqno` and all after it.
    ///
    /// # Errors
    /// When the seat has failed.
    pub fn segments_from(&self, seqno: Seqno) -> Result<SegmentsNeeded, Failure> {
        self.with_log(|state| {
            let (floor, first_seqno) = state.segments.of(seqno);
            let newest = state.log.number();
            let begun = floor == newest && state.log.has_durable_begin();
            SegmentsNeeded { floor, unbegun: (!begun).then_some(first_seqno), newest }
        })
    }

    /// When this returns, everything that was visible at the call is synced.
    ///
    /// # Errors
    /// When the log cannot be synced, or the engine has stopped.
    pub async fn sync(&self) -> Result<(), Failure> {
        // Checked even if nothing is left to sync, so that the caller learns that the engine has
        // stopped.
        self.topology.failures.check()?;
        self.sync_upto(self.topology.visible()).await.map_err(|failed| failed.failure)
    }

    /// When this returns, everything up to `upto` is visible and synced. `upto` must have been
    /// stamped.
    ///
    /// # Errors
    /// As `sync`. The outcome says what became of what `upto` stands for.
    pub async fn sync_upto(&self, upto: Seqno) -> Result<(), WriteFailure> {
        if self.durable.synced() >= upto {
            return Ok(());
        }
        self.topology.failures.check().map_err(WriteFailure::unknown)?;
        self.sync_request().upto(upto).await
    }

    /// A request to sync the log later. It keeps neither the log nor the engine alive.
    pub fn sync_request(&self) -> SyncRequest {
        SyncRequest {
            durable: Arc::clone(&self.durable),
            due: Arc::clone(&self.due),
            health: self.topology.failures.health.clone(),
        }
    }

    /// When this returns, obsolete segments are deleted or kept aside for recycling. That covers
    /// segments below the durable floor that were closed before the call, and synced or given up.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub async fn collect(&self) -> Result<(), Failure> {
        self.ask_keeper(&self.collecting).await
    }

    /// When this returns, the log continues in a last segment of the smallest size, and no spare
    /// segment is left; unless there was no room for the last segment. For the closing thread:
    /// nothing is stamped any more.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub async fn leave_segments(&self) -> Result<(), Failure> {
        self.ask_keeper(&self.leaving).await
    }

    /// Before the list grows, callers who have given up leave it, as with `Durable::register_sync`.
    async fn ask_keeper(&self, waiting: &Mutex<Vec<Reply<()>>>) -> Result<(), Failure> {
        let (reply, answer) = reply();
        // They are dropped without the lock: that may call wakers.
        let mut given_up = Vec::new();
        {
            let mut waiting = lock(waiting);
            if waiting.len() == waiting.capacity() {
                given_up.extend(waiting.extract_if(.., |reply| reply.is_abandoned()));
            }
            waiting.push(reply);
        }
        drop(given_up);
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

    /// Sets the floor: the durable manifest says that nothing below it is needed. The syncer gives
    /// up what is below.
    pub fn raise_floor(&self, floor: FileNumber) {
        if self.floor.swap(floor.0, Ordering::Release) < floor.0 {
            self.due.sync.set();
        }
    }

    pub(crate) fn take_collecting(&self) -> Vec<Reply<()>> {
        std::mem::take(&mut *lock(&self.collecting))
    }

    pub(crate) fn take_leaving(&self) -> Vec<Reply<()>> {
        std::mem::take(&mut *lock(&self.leaving))
    }

    /// Handles what is queued and what waits for a segment, then stamps nothing more. Returns the
    /// last sequence number. For the closing thread.
    ///
    /// Ends also if no segment can be prepared: each look of the keeper adds one, or refuses what
    /// waits for it and says why.
    ///
    /// # Errors
    /// When the seat has failed, or the engine has stopped.
    pub async fn stop_stamping(&self) -> Result<Seqno, Failure> {
        self.seat.close();
        self.seat.deliver_blocking();
        loop {
            let mut after = AfterTurn::default();
            let last = self.with_log(|state| {
                state.is_idle().then(|| {
                    state.close(Failure::Closed, &mut after);
                    state.last_seqno()
                })
            })?;
            after.run(&self.due, &mut Spent::default());
            match last {
                Some(last) => return Ok(last),
                None => self.collect().await?,
            }
        }
    }

    /// Writes the end mark of the log and syncs it.
    ///
    /// # Errors
    /// When the log cannot be synced.
    pub async fn close_log(&self) -> Result<(), Failure> {
        let (reply, answer) = reply();
        *lock(&self.closing) = Some(reply);
        self.due.sync.set();
        // A log that has failed answers nobody, so the health is watched as well.
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

    /// The complete segments below `floor` that the syncer does not hold any more.
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
