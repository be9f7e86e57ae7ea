//! The WAL writer: stamps, appends, hands on; the one place where writes get their order.
//!
//! Owns:      the log, the sequence numbers, spare segments.
//! Receives:  Commit, from callers, already admitted.
//! Sends:     Apply to range owners, in log order, into places reserved at the gate.
//! Publishes: the durable point.
//! Stops:     when it is closed (`stop_stamping`), or the log has failed.
//!
//! The seat is run by callers and only touches memory; `sync_loop` and `keep_loop` are the disk side,
//! each on a thread of its own.

pub mod message;
mod stale;
mod state;

use crate::failure::{Failure, WriteFailure};
use crate::group_commit::LogSeat;
use crate::group_commit::durable::Durable;
use crate::kernel::jobs::{Jobs, Kick};
use crate::kernel::mailbox::Capacity;
use crate::kernel::reply::{Reply, reply};
use crate::kernel::sync::lock;
use crate::kernel::turn::{Handler, Hooks, SeatMailbox, Spent, Turn};
use crate::range_owner::message::is_heavy;
use crate::shared::{Counters, Shared};
use futures::future::{Either, select};
use message::{Commit, Level};
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::wal::{LogWriter, SealedSegment};
pub use state::{After, LogState, NoRoom, SpareWanted, Stamped, Way};
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};

/// The WAL writer as its senders see it.
#[derive(Debug)]
pub struct WalWriter {
    /// The log behind its seat.
    pub seat: SeatMailbox<WalActor>,
    /// The durable point.
    pub durable: Arc<Durable>,
    /// Synced and sealed segments that a recovery may still need, oldest first.
    retired: Mutex<Vec<SealedSegment>>,
    /// Set by `close_log`, served by `sync_loop`.
    closing: Mutex<Option<Reply<Result<(), Failure>>>>,
    /// Who waits until obsolete segments are out of the way; served by `keep_loop`.
    collecting: Mutex<Vec<Reply<()>>>,
}

/// What the seat guards.
#[derive(Debug)]
pub struct WalActor {
    /// The log.
    pub state: LogState,
    durable: Arc<Durable>,
    shared: Weak<Shared>,
}

impl WalWriter {
    /// A writer whose next operation gets `next_seqno`.
    pub fn new(log: LogWriter, next_seqno: Seqno, shared: &Arc<Shared>, turns: &Jobs) -> Arc<Self> {
        let config = &shared.config;
        let capacity = Capacity {
            messages: config.commits_in_flight_max,
            bytes: config.write_buffer_bytes as u64,
        };
        let durable = Arc::new(Durable::new(Seqno(next_seqno.0 - 1)));
        let epoch = shared.superversion.load().epoch;
        let failing = Arc::downgrade(shared);
        Arc::new_cyclic(|wal: &Weak<Self>| {
            let actor = WalActor {
                state: LogState::new(log, next_seqno, epoch, Arc::clone(&shared.counters)),
                durable: Arc::clone(&durable),
                shared: Arc::downgrade(shared),
            };
            let kicked = Weak::clone(wal);
            let kick = Kick::new(turns, move || {
                if let Some(wal) = kicked.upgrade() {
                    wal.seat.deliver_blocking();
                }
            });
            let counters = Arc::clone(&shared.counters);
            let hooks = Hooks {
                kick: Box::new(move || {
                    Counters::add(&counters.turns_handed_on, kick.ring().into());
                }),
                on_panic: Box::new(move |message| {
                    if let Some(shared) = failing.upgrade() {
                        shared.fail(Failure::Panicked { actor: "wal writer", message });
                    }
                }),
            };
            Self {
                seat: SeatMailbox::new(actor, capacity, hooks),
                durable,
                retired: Mutex::default(),
                closing: Mutex::default(),
                collecting: Mutex::default(),
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
        self.with_log(|state| (state.segment_of(seqno), state.log.number()))
    }

    /// Everything visible now is synced when this returns.
    ///
    /// # Errors
    /// When the log cannot be synced, or the engine has stopped.
    pub async fn sync(&self, shared: &Shared) -> Result<(), Failure> {
        // Also if nothing is left to sync: who asks is told that the engine does not work any more.
        match shared.stopped_by() {
            Some(failure) => Err(failure),
            None => self.sync_upto(shared, shared.visible()).await,
        }
    }

    /// Everything up to `upto`, which has been stamped, is visible and synced when this returns.
    ///
    /// # Errors
    /// As `sync`.
    pub async fn sync_upto(&self, shared: &Shared, upto: Seqno) -> Result<(), Failure> {
        if self.durable.synced() >= upto {
            return Ok(());
        }
        if let Some(failure) = shared.stopped_by() {
            return Err(failure);
        }
        let (reply, answer) = reply();
        if let Err((_, failed)) = self.durable.register(Level::Synced, upto, reply) {
            return Err(failed.failure);
        }
        shared.log_due.set();
        match answer.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(WriteFailure { failure, .. })) => Err(failure),
            Err(_) => Err(shared.why_stopped()),
        }
    }

    /// Segments below the durable floor that were closed, and everything in them synced, before the
    /// call are deleted, or kept aside for recycling, when this returns.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub async fn collect(&self, shared: &Shared) -> Result<(), Failure> {
        let (reply, answer) = reply();
        lock(&self.collecting).push(reply);
        shared.log_keeping_due.set();
        let down = pin!(shared.health.until_down());
        match select(answer, down).await {
            Either::Left((collected, _)) => collected.map_err(|_| shared.why_stopped()),
            Either::Right(_) => Err(shared.why_stopped()),
        }
    }

    pub(crate) fn take_collecting(&self) -> Vec<Reply<()>> {
        std::mem::take(&mut *lock(&self.collecting))
    }

    /// Handles what is queued and stamps nothing more; returns the last sequence number. For the
    /// closing thread.
    ///
    /// # Errors
    /// When the seat has failed.
    pub fn stop_stamping(&self, shared: &Shared) -> Result<Seqno, Failure> {
        self.seat.close();
        self.seat.deliver_blocking();
        let mut after = After::default();
        let last = self.with_log(|state| {
            state.close(Failure::Closed, &mut after);
            state.last_seqno()
        });
        after.run(shared, &mut Spent::default());
        last
    }

    /// Ends the log with a mark and syncs it.
    ///
    /// # Errors
    /// When the log cannot be synced.
    pub async fn close_log(&self, shared: &Shared) -> Result<(), Failure> {
        let (reply, answer) = reply();
        *lock(&self.closing) = Some(reply);
        shared.log_due.set();
        // A log that has failed serves nobody any more, and would not answer.
        let down = pin!(shared.health.until_down());
        match select(answer, down).await {
            Either::Left((ended, _)) => ended.unwrap_or_else(|_| Err(shared.why_stopped())),
            Either::Right(_) => Err(shared.why_stopped()),
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

impl LogSeat for WalWriter {
    fn with_writer<R>(&self, f: impl FnOnce(&mut LogWriter) -> R) -> Result<R, Failure> {
        self.with_log(|state| f(&mut state.log))
    }
}

impl Handler for WalActor {
    type Message = Commit;

    fn handle(&mut self, message: Commit, turn: &mut Turn) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut after = After::default();
        let durable = &self.durable;
        let (commits, superversion) = (&shared.commits, &shared.superversion);
        self.state.commit(message, Way { commits, superversion, durable }, &mut after);
        turn.defer(move |spent| after.run(&shared, spent));
    }

    fn weight(message: &Commit) -> usize {
        message.payload.len()
    }

    fn is_heavy(message: &Commit) -> bool {
        is_heavy(message.payload.len(), message.operations)
    }
}
