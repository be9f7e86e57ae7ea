//! The write path, from an encoded batch to its acknowledgement: admit, commit, apply, wait.
//!
//! An uncontended write is done by its caller, on its caller's thread, without queueing and without
//! an allocation: admission is two compare-and-swaps, the WAL writer's turn a memory copy, the range
//! owner's turn an insertion. Under contention the write is sent instead, and whoever holds the seat
//! runs it.
//!
//! INVARIANT(admission-before-log): nothing is stamped before both accounts, the commit queue and the
//! mailboxes of the touched ranges have given room.

use crate::failure::{Failure, Scope, WriteFailure};
use crate::kernel::Refused;
use crate::kernel::commit::{CommitQueue, Commits, Slot, Ticket, WaitVisible};
use crate::kernel::credits::Credits;
use crate::kernel::gate::{Admission, Claim, Gate, Overloaded};
use crate::kernel::mailbox::{Mailbox, Permit};
use crate::kernel::reply::{Answer, reply};
use crate::kernel::turn::Spent;
use crate::kernel::wake::Hold;
use crate::pool::Pool;
use crate::range_owner::RangeOwner;
use crate::range_owner::message::{Apply, is_heavy};
use crate::route::{Lot, Part, Reach, Route, charge};
use crate::shared::{Counters, Shared, Superversion};
use crate::version_manager::message::VersionMessage;
use crate::version_manager::relief;
use crate::waits::{Place, Stopwatch};
use crate::wal_writer::message::{Commit, Committed, Level, Target};
use crate::wal_writer::{NoRoom, Stamped, WalActor, WalWriter};
use bytes::Bytes;
use futures::future::{Either, FutureExt, select};
use sluicedb_storage::batch::Operations;
use sluicedb_storage::codec;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::version::RangeId;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How often a caller looks again whether a busy seat is free, before it sends its write instead: some
/// microseconds in all. A turn takes some hundred nanoseconds, one that also gives memory back a few
/// thousand; queueing behind it costs an allocation, and waking whoever waits for the acknowledgement.
const SEAT_SPINS_MAX: u32 = 160;

/// How long to wait for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as it takes.
    Forever,
    /// Until then.
    Until(Instant),
}

/// An encoded batch that is not in the log.
#[derive(Clone, Debug)]
pub struct Write {
    payload: Bytes,
    payload_crc: u32,
    operations: u32,
    level: Level,
    /// `None`: a heavy batch that no engine thread has looked at.
    route: Option<Routed>,
}

/// Where a batch goes, by which routes.
#[derive(Clone, Debug)]
struct Routed {
    epoch: u64,
    route: Arc<Route>,
}

/// How far a write has come.
pub enum Submitted {
    /// Acknowledged: visible, and as durable as was asked.
    Done(Seqno),
    /// In the log, or queued for it in its final order; poll for the acknowledgement.
    Waiting(Pending),
    /// Nowhere: there was no room. Nothing has happened.
    NotAdmitted(Write, Scope),
    /// Nowhere: it is too much for the caller's thread to find out which ranges it touches. Nothing has
    /// happened.
    NotRouted(Write),
}

/// A write on its way.
pub struct Pending {
    stage: Stage,
    shared: Arc<Shared>,
}

enum Stage {
    /// To be stamped (`Buffered`), or stamped and synced (`Synced`).
    Answer(Answer<Committed>),
    /// Stamped; some other commit before it is not finished.
    Visible(Seqno, WaitVisible),
}

impl fmt::Debug for Submitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(seqno) => f.debug_tuple("Done").field(seqno).finish(),
            Self::Waiting(_) => f.write_str("Waiting"),
            Self::NotAdmitted(_, scope) => f.debug_tuple("NotAdmitted").field(scope).finish(),
            Self::NotRouted(_) => f.write_str("NotRouted"),
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

impl Submitted {
    /// Resolves to the acknowledgement of a write that was admitted.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Committed> {
        match self {
            Self::Done(seqno) => Poll::Ready(Ok(*seqno)),
            Self::Waiting(pending) => pending.poll(context),
            Self::NotAdmitted(..) | Self::NotRouted(_) => {
                unreachable!("only admitted writes are waited for")
            }
        }
    }
}

impl Pending {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Committed> {
        loop {
            match &mut self.stage {
                Stage::Answer(answer) => match Pin::new(answer).poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(Ok(seqno))) => {
                        if self.shared.visible() >= seqno {
                            return Poll::Ready(Ok(seqno));
                        }
                        self.stage = Stage::Visible(seqno, self.shared.commits.wait_visible(seqno));
                    }
                    Poll::Ready(Ok(Err(failed))) => return Poll::Ready(Err(failed)),
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(self.lost())),
                },
                Stage::Visible(seqno, visible) => {
                    return match Pin::new(visible).poll(context) {
                        Poll::Pending => Poll::Pending,
                        Poll::Ready(Ok(())) => Poll::Ready(Ok(*seqno)),
                        Poll::Ready(Err(_)) => Poll::Ready(Err(self.lost())),
                    };
                }
            }
        }
    }

    /// Whoever had the write is gone: the engine has stopped, and the log may have it.
    fn lost(&self) -> WriteFailure {
        WriteFailure::unknown(self.shared.why_stopped())
    }
}

/// The bytes of a batch, copied only if they have to outlive the call.
enum Payload<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

impl Payload<'_> {
    fn into_bytes(self) -> Bytes {
        match self {
            Self::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Self::Owned(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Payload<'_> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Room for one write in every queue on its way.
struct Places {
    slot: Slot<CommitQueue>,
    wal: Permit<Commit>,
    ranges: Vec<(Arc<RangeOwner>, Permit<Apply>)>,
}

/// Why a write that waited for room was not sent.
enum NotSent {
    /// A range that it needed room of is not there any more.
    Gone,
    Failed(WriteFailure),
}

impl From<WriteFailure> for NotSent {
    fn from(failure: WriteFailure) -> Self {
        Self::Failed(failure)
    }
}

/// The queue that gave none.
enum Taken {
    Commits,
    Log,
    /// Of the range at this position of the route.
    Range(usize),
}

impl Taken {
    fn scope(&self) -> Scope {
        match self {
            Self::Commits | Self::Log => Scope::Global,
            Self::Range(_) => Scope::Local,
        }
    }
}

/// What came of trying the seats.
enum Seats {
    Done(Stamp),
    Busy,
    /// The routes have changed: try again by the new ones.
    Stale,
    Refused(Failure),
    /// The log turn broke: the log may have the write, or not.
    Lost,
}

/// What came of the log's turn.
enum LogTurn<'a> {
    Stamped(Stamped, Option<Answer<Committed>>, Ticket<&'a Commits>),
    Busy,
    Stale,
    Refused(Failure),
}

struct Stamp {
    last: Seqno,
    visible: bool,
    durable: Option<Answer<Committed>>,
}

/// The way in. One per engine.
#[derive(Debug)]
pub struct WritePath {
    shared: Arc<Shared>,
    wal: Arc<WalWriter>,
    versions: Mailbox<VersionMessage>,
    gate: Gate,
    reads: Pool,
}

impl WritePath {
    /// The way into `wal`; heavy batches are routed by the threads of `reads`.
    pub fn new(
        shared: Arc<Shared>,
        wal: Arc<WalWriter>,
        versions: Mailbox<VersionMessage>,
        reads: Pool,
    ) -> Self {
        let gate = Gate::new(shared.global.clone());
        Self { shared, wal, versions, gate, reads }
    }

    /// Commits one or few encoded operations right here if nothing is in the way.
    ///
    /// # Errors
    /// When the engine has stopped, or the log has no room on a full disk. Nothing has happened then.
    #[inline]
    pub fn submit(
        &self,
        payload: &[u8],
        operations: u32,
        level: Level,
    ) -> Result<Submitted, WriteFailure> {
        self.submit_payload(Payload::Borrowed(payload), operations, level)
    }

    /// As `submit`, for bytes that need no copy to be kept.
    ///
    /// # Errors
    /// As `submit`.
    pub fn submit_owned(
        &self,
        payload: Bytes,
        operations: u32,
        level: Level,
    ) -> Result<Submitted, WriteFailure> {
        self.submit_payload(Payload::Owned(payload), operations, level)
    }

    fn submit_payload(
        &self,
        payload: Payload<'_>,
        operations: u32,
        level: Level,
    ) -> Result<Submitted, WriteFailure> {
        let bytes = payload.as_ref();
        self.check_running(bytes, operations)?;
        if is_heavy(bytes.len(), operations) {
            return self.submit_heavy(payload, operations, level);
        }
        let crc = codec::crc(bytes);
        loop {
            let superversion = self.shared.superversion.load();
            // The insert would wait for this memory under the seat, where others wait for the insert.
            if let Some(first) = Operations::new(bytes).next() {
                superversion.route(first.key).active.prefetch(first.key);
            }
            let epoch = superversion.epoch;
            let reach = Reach::of(&superversion, bytes);
            if let Reach::One(range) = reach {
                let owner = &superversion.ranges[range].owner;
                let charge = charge(bytes.len(), operations);
                let local = owner.budget.local_charge(charge);
                let admission = match self.gate.try_admit_ref(&owner.local, local, charge) {
                    Ok(admission) => admission,
                    Err(refused) if self.is_gone(refused) => continue,
                    Err(refused) => {
                        let route = Arc::new(Route::whole(range, bytes.len(), operations));
                        let (payload, route) =
                            (payload.into_bytes(), Some(Routed { epoch, route }));
                        let write = Write { payload, payload_crc: crc, operations, level, route };
                        return self.refused(write, refused);
                    }
                };
                match self.try_seats((epoch, owner), bytes, crc, operations, level, charge) {
                    Seats::Done(stamp) => {
                        // The memtable holds the charge now.
                        admission.forget_into();
                        return Ok(self.submitted(stamp));
                    }
                    Seats::Refused(failure) => return Err(WriteFailure::not_applied(failure)),
                    Seats::Lost => return Err(WriteFailure::unknown(self.shared.why_stopped())),
                    Seats::Stale => continue,
                    Seats::Busy => {}
                }
            }
            let route = Arc::new(Route::from_reach(&superversion, bytes, operations, reach));
            let (payload, route) = (payload.into_bytes(), Some(Routed { epoch, route }));
            let write = Write { payload, payload_crc: crc, operations, level, route };
            return self.try_send(&superversion, write);
        }
    }

    /// Sends what is too much for this thread: it is checksummed, and routed if there are several
    /// ranges, by the engine thread that handles it.
    #[cold]
    fn submit_heavy(
        &self,
        payload: Payload<'_>,
        operations: u32,
        level: Level,
    ) -> Result<Submitted, WriteFailure> {
        let superversion = self.shared.superversion.load();
        let payload = payload.into_bytes();
        let route = (superversion.ranges.len() == 1).then(|| {
            let route = Arc::new(Route::whole(0, payload.len(), operations));
            Routed { epoch: superversion.epoch, route }
        });
        self.try_send(&superversion, Write { payload, payload_crc: 0, operations, level, route })
    }

    /// Was a write refused because its range has gone? Then there is another one for its keys.
    #[inline]
    fn is_gone(&self, refused: Overloaded) -> bool {
        // Who closes all admission begins with the engine's account.
        let closed = refused.scope == Scope::Local && refused.why == Refused::Closed;
        closed && !self.shared.global.is_closed()
    }

    #[inline]
    fn check_running(&self, payload: &[u8], operations: u32) -> Result<(), WriteFailure> {
        if self.shared.health.is_running() {
            return Ok(());
        }
        let heavy = is_heavy(payload.len(), operations);
        match self.shared.stopped_by().or_else(|| self.shared.refuses(payload, heavy)) {
            None => Ok(()),
            Some(failure) => Err(WriteFailure::not_applied(failure)),
        }
    }

    fn submitted(&self, stamp: Stamp) -> Submitted {
        let Stamp { last, visible, durable } = stamp;
        let stage = match durable {
            Some(answer) => Stage::Answer(answer),
            None if visible => return Submitted::Done(last),
            None => Stage::Visible(last, self.shared.commits.wait_visible(last)),
        };
        Submitted::Waiting(Pending { stage, shared: Arc::clone(&self.shared) })
    }

    /// Both turns on this thread. The WAL writer's seat is released before the range owner's work
    /// begins; the range owner's is taken before that, so nothing can come in between
    /// (design: mailbox order = log order = seqno order).
    #[inline]
    fn try_seats(
        &self,
        (epoch, owner): (u64, &Arc<RangeOwner>),
        payload: &[u8],
        payload_crc: u32,
        operations: u32,
        level: Level,
        charge: u64,
    ) -> Seats {
        // No waker is called before both turns are over and everything they owe others is done.
        let _hold = Hold::new();
        let Ok(slot) = self.shared.commits.try_reserve_ref() else { return Seats::Busy };
        let mut spins = 0;
        loop {
            if let Some(wal) = self.wal.seat.try_enter_idle()
                && let Some(range) = owner.seat.try_enter_idle()
            {
                // A panic in there stops the engine, and is told as an error to this caller, too.
                let batch = (payload, payload_crc, operations);
                let turn = wal.attempt(|log| self.log_turn(log, epoch, slot, batch, level));
                let Some((turn, wal)) = turn else { return Seats::Lost };
                let (stamped, durable, ticket) = match turn {
                    LogTurn::Stamped(stamped, durable, ticket) => (stamped, durable, ticket),
                    LogTurn::Busy => return Seats::Busy,
                    LogTurn::Stale => return Seats::Stale,
                    LogTurn::Refused(failure) => return Seats::Refused(failure),
                };
                // From here on others may commit; their entries queue behind ours.
                wal.release();
                let lot = Lot::whole(payload, stamped.first);
                let applied =
                    range.run_and_release(|actor| actor.apply(lot, payload.len(), charge as usize));
                let visible = match applied {
                    Some(applied) => {
                        let visible = ticket.finish();
                        owner.after(applied);
                        visible
                    }
                    // The owner panicked; the dropped ticket has failed the commit queue.
                    None => false,
                };
                if durable.is_some() || stamped.rotated {
                    self.shared.log_due.set();
                }
                if stamped.spare_due {
                    self.shared.log_keeping_due.set();
                }
                // What others have queued meanwhile, after the caller's own write is done.
                let mut spent = Spent::default();
                owner.seat.settle(&mut spent);
                self.wal.seat.settle(&mut spent);
                return Seats::Done(Stamp { last: stamped.last, visible, durable });
            }
            spins += 1;
            // Behind what is queued there would be no seat for this caller, however long it spins.
            let queued = !self.wal.seat.is_empty() || !owner.seat.is_empty();
            if spins > SEAT_SPINS_MAX || queued {
                return Seats::Busy;
            }
            std::hint::spin_loop();
        }
    }

    /// Stamps and appends, under the seats of the log and of the write's range.
    #[inline]
    fn log_turn<'a>(
        &self,
        log: &mut WalActor,
        epoch: u64,
        slot: Slot<&'a Commits>,
        (payload, payload_crc, operations): (&[u8], u32, u32),
        level: Level,
    ) -> LogTurn<'a> {
        // INVARIANT(stamped-by-its-routes)
        if log.state.epoch() != epoch {
            return LogTurn::Stale;
        }
        if !log.state.is_idle() {
            return LogTurn::Busy;
        }
        match log.state.make_room(payload.len()) {
            Ok(()) => {}
            Err(NoRoom::Later) => return LogTurn::Busy,
            Err(NoRoom::Refused(failure)) => return LogTurn::Refused(failure),
        }
        let stamped = log.state.append(payload, payload_crc, operations, level);
        let durable = if level == Level::Buffered && stamped.in_file {
            None
        } else {
            let (reply, answer) = reply();
            if let Err((reply, failed)) = self.wal.durable.register(level, stamped.last, reply) {
                // Nobody waits for the answer yet.
                reply.send(Err(failed));
            }
            Some(answer)
        };
        let ticket = self.shared.commits.open(slot, stamped.last, 1);
        Counters::bump(&self.shared.counters.commits_inline, 1);
        LogTurn::Stamped(stamped, durable, ticket)
    }

    /// Sends the write to the WAL writer if there is room everywhere right now.
    fn try_send(
        &self,
        superversion: &Superversion,
        write: Write,
    ) -> Result<Submitted, WriteFailure> {
        let Some(Routed { epoch, route }) = &write.route else {
            return Ok(Submitted::NotRouted(write));
        };
        if *epoch != superversion.epoch {
            // Where it waits for room it is routed again first.
            return Ok(Submitted::NotAdmitted(write, Scope::Local));
        }
        let admission = match self.gate.try_admit_many(claims(superversion, route)) {
            Ok(admission) => admission,
            Err(refused) if self.is_gone(refused) => {
                return Ok(Submitted::NotAdmitted(write, Scope::Local));
            }
            Err(refused) => return self.refused(write, refused),
        };
        let owners = owners(superversion, route);
        match self.try_places(&owners, route, write.payload.len() as u64) {
            Ok(places) => {
                let routed = Routed { epoch: *epoch, route: Arc::clone(route) };
                Ok(self.waiting(self.send(write, routed, admission, places)))
            }
            Err((taken, Refused::Full)) => Ok(Submitted::NotAdmitted(write, taken.scope())),
            Err((taken, why)) => {
                match self.not_sent(&write, Overloaded { scope: taken.scope(), why }) {
                    NotSent::Gone => Ok(Submitted::NotAdmitted(write, Scope::Local)),
                    NotSent::Failed(failure) => Err(failure),
                }
            }
        }
    }

    /// A place in the commit queue and one in every mailbox on the way, if they are free right now.
    fn try_places(
        &self,
        owners: &[Arc<RangeOwner>],
        route: &Route,
        bytes: u64,
    ) -> Result<Places, (Taken, Refused)> {
        let slot = self.shared.commits.try_reserve().map_err(|why| (Taken::Commits, why))?;
        let wal = self.wal.seat.try_reserve(bytes).map_err(|why| (Taken::Log, why))?;
        let mut ranges = Vec::with_capacity(route.parts().len());
        for (at, (part, owner)) in route.parts().iter().zip(owners).enumerate() {
            let owner = Arc::clone(owner);
            match owner.seat.try_reserve(part.bytes as u64) {
                Ok(permit) => ranges.push((owner, permit)),
                Err(why) => return Err((Taken::Range(at), why)),
            }
        }
        Ok(Places { slot, wal, ranges })
    }

    /// The write is in the WAL writer's mailbox, or already stamped, when this returns.
    fn send(
        &self,
        write: Write,
        routed: Routed,
        admission: Admission,
        places: Places,
    ) -> Answer<Committed> {
        let Routed { epoch, route } = routed;
        let Admission { local, more, global } = admission;
        let targets = std::iter::once(local).chain(more).zip(places.ranges);
        let targets = targets.map(|(local, (owner, permit))| Target { owner, permit, local });
        let Write { payload, payload_crc, operations, level, .. } = write;
        let (reply, answer) = reply();
        let payload_crc = (!is_heavy(payload.len(), operations)).then_some(payload_crc);
        let (targets, slot) = (targets.collect(), places.slot);
        let commit = Commit {
            payload,
            payload_crc,
            operations,
            level,
            epoch,
            route,
            targets,
            global,
            slot,
            reply,
        };
        self.wal.seat.send(places.wal, commit);
        answer
    }

    fn waiting(&self, answer: Answer<Committed>) -> Submitted {
        let shared = Arc::clone(&self.shared);
        Submitted::Waiting(Pending { stage: Stage::Answer(answer), shared })
    }

    fn refused(&self, write: Write, refused: Overloaded) -> Result<Submitted, WriteFailure> {
        match refused.why {
            Refused::Full => {
                let bytes = charge(write.payload.len(), write.operations);
                relief::ask(&self.versions, refused.scope, bytes);
                Ok(Submitted::NotAdmitted(write, refused.scope))
            }
            Refused::TooLarge | Refused::Closed => Err(self.never(&write, refused)),
        }
    }

    /// A refusal that waiting does not change.
    fn never(&self, write: &Write, refused: Overloaded) -> WriteFailure {
        WriteFailure::not_applied(match refused.why {
            Refused::TooLarge => Failure::storage(sluicedb_storage::Error::invalid(format!(
                "the batch needs {} bytes of write buffer, more than there is",
                charge(write.payload.len(), write.operations)
            ))),
            Refused::Full | Refused::Closed => self.shared.why_stopped(),
        })
    }

    /// A refusal of one who waits.
    fn not_sent(&self, write: &Write, refused: Overloaded) -> NotSent {
        if self.is_gone(refused) { NotSent::Gone } else { self.never(write, refused).into() }
    }

    /// The error for `write`, which was not admitted and shall not wait.
    pub fn overloaded(&self, write: &Write, scope: Scope) -> WriteFailure {
        if let Some(failure) = self.shared.refusal(false, |range| self.touches(write, range)) {
            return WriteFailure::not_applied(failure);
        }
        self.too_much(scope, Duration::ZERO)
    }

    fn too_much(&self, scope: Scope, waited: Duration) -> WriteFailure {
        let counters = &self.shared.counters;
        Counters::add(
            match scope {
                Scope::Local => &counters.overloaded_local,
                Scope::Global => &counters.overloaded_global,
            },
            1,
        );
        WriteFailure::not_applied(Failure::Overloaded { scope, waited })
    }

    /// Has an engine thread find out which ranges `write` touches, then sends it if there is room. A
    /// deadline that has passed already is not waited for, as in `submit`. Without `patience` a place in
    /// the thread's queue is not waited for; who has one waits for the work.
    ///
    /// # Errors
    /// `Overloaded` if no thread has come to it by the deadline, or there is no place; as `submit`.
    ///
    /// # Cancellation
    /// Dropped, nothing has happened.
    pub async fn route_and_submit(
        &self,
        mut write: Write,
        patience: Option<Patience>,
    ) -> Result<Submitted, WriteFailure> {
        let began = self.shared.runtime.now();
        let find = self.find_route(&write);
        let route = match patience {
            None => {
                let route = self.reads.try_run(find);
                route.ok_or_else(|| self.too_much(Scope::Global, Duration::ZERO))?.left_future()
            }
            Some(_) => self.reads.run(find).right_future(),
        };
        let route = pin!(route);
        let routed = match patience {
            Some(Patience::Until(deadline)) if deadline > began => {
                match select(route, self.shared.runtime.sleep_until(deadline)).await {
                    Either::Left((routed, _)) => routed,
                    Either::Right(_) => {
                        let waited = self.shared.runtime.now().saturating_duration_since(began);
                        return Err(self.too_much(Scope::Global, waited));
                    }
                }
            }
            Some(Patience::Until(_) | Patience::Forever) | None => route.await,
        };
        write.route = Some(routed.map_err(WriteFailure::not_applied)?);
        self.try_send(&self.shared.superversion.load_full(), write)
    }

    /// Finds out, on an engine thread, which ranges `write` touches then. Does not hold the superversion
    /// before: see `admit_and_send`.
    fn find_route(&self, write: &Write) -> impl FnOnce() -> Routed + Send + 'static {
        let (shared, payload) = (Arc::clone(&self.shared), write.payload.clone());
        let operations = write.operations;
        move || {
            let superversion = shared.superversion.load_full();
            let reach = Reach::of(&superversion, &payload);
            let route = Route::from_reach(&superversion, &payload, operations, reach);
            Routed { epoch: superversion.epoch, route: Arc::new(route) }
        }
    }

    /// Waits for room, then sends.
    ///
    /// # Errors
    /// `Overloaded` at the deadline; why the room it waits for cannot come, as `NoSpace` while the disk is
    /// full; why the engine has stopped. Nothing has happened then.
    ///
    /// # Cancellation
    /// Dropped, nothing has happened; room that was already given goes to the next in line.
    pub async fn admit_and_submit(
        &self,
        mut write: Write,
        patience: Patience,
    ) -> Result<Submitted, WriteFailure> {
        let mut stopwatch = Stopwatch::start(&self.shared);
        loop {
            let sent = {
                let admit = pin!(self.admit_and_send(&write, &mut stopwatch));
                let give_up = pin!(self.give_up(&write, patience));
                match select(admit, give_up).await {
                    Either::Left((sent, _)) => Either::Left(sent),
                    Either::Right((why, _)) => Either::Right(why),
                }
            };
            match sent {
                Either::Left(Ok(answer)) => return Ok(self.waiting(answer)),
                Either::Left(Err(NotSent::Failed(failure))) => return Err(failure),
                Either::Left(Err(NotSent::Gone)) => {}
                Either::Right(Some(failure)) => return Err(WriteFailure::not_applied(failure)),
                Either::Right(None) => {
                    return Err(self.too_much(stopwatch.scope(), stopwatch.elapsed()));
                }
            }
            // The routes have changed, and the new ones say whose room it waits for.
            let superversion = self.shared.superversion.load_full();
            let heavy = is_heavy(write.payload.len(), write.operations);
            write.route = Some(if heavy && superversion.ranges.len() > 1 {
                drop(superversion);
                let route = self.reads.run(self.find_route(&write));
                route.await.map_err(WriteFailure::not_applied)?
            } else {
                let reach = Reach::of(&superversion, &write.payload);
                let (payload, operations) = (&write.payload, write.operations);
                let route = Route::from_reach(&superversion, payload, operations, reach);
                Routed { epoch: superversion.epoch, route: Arc::new(route) }
            });
        }
    }

    /// INVARIANT(nothing-held-while-waiting): waits for whatever has no room, and holds nothing of
    /// anything else meanwhile: this future may never be polled again. Not even the superversion: memtables
    /// that are flushed meanwhile would stay in memory for it, although their bytes are back in the
    /// accounts. Bytes first; places in queues turn over within one turn of an actor.
    async fn admit_and_send(
        &self,
        write: &Write,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Result<Answer<Committed>, NotSent> {
        let routed = write.route.as_ref().expect("a write is routed before it waits for room");
        let (owners, claims) = {
            let superversion = self.shared.superversion.load_full();
            if routed.epoch != superversion.epoch {
                return Err(NotSent::Gone);
            }
            (owners(&superversion, &routed.route), claims(&superversion, &routed.route))
        };
        let bytes = write.payload.len() as u64;
        let stopped = |_| WriteFailure::not_applied(self.shared.why_stopped());
        loop {
            let admit = self.gate.admit_many(claims.clone());
            let admitted = stopwatch.along(admit, |admit| match admit.waiting_range() {
                Some(at) => Place::Range(Arc::clone(&owners[at])),
                None => Place::Engine,
            });
            let admission = match admitted.await {
                Ok(admission) => admission,
                Err(refused) => return Err(self.not_sent(write, refused)),
            };
            let taken = match self.try_places(&owners, &routed.route, bytes) {
                Ok(places) => {
                    return Ok(self.send(write.clone(), routed.clone(), admission, places));
                }
                Err((taken, Refused::Full)) => taken,
                Err((taken, why)) => {
                    return Err(self.not_sent(write, Overloaded { scope: taken.scope(), why }));
                }
            };
            drop(admission);
            match taken {
                Taken::Commits => {
                    let place = self.shared.commits.reserve();
                    drop(stopwatch.during(Place::Engine, place).await.map_err(stopped)?);
                }
                Taken::Log => {
                    let place = self.wal.seat.reserve(bytes);
                    drop(stopwatch.during(Place::Engine, place).await.map_err(stopped)?);
                }
                Taken::Range(at) => {
                    let part = &routed.route.parts()[at];
                    let owner = Arc::clone(&owners[at]);
                    let place = owner.seat.reserve(part.bytes as u64);
                    let at = Place::Range(owner);
                    if let Err(why) = stopwatch.during(at, place).await {
                        return Err(self.not_sent(write, Overloaded { scope: Scope::Local, why }));
                    }
                }
            }
        }
    }

    /// Resolves when waiting makes no sense any more: at the deadline (`None`), or when the room cannot
    /// come, because the disk is full, or because the range cannot be flushed.
    async fn give_up(&self, write: &Write, patience: Patience) -> Option<Failure> {
        let for_ever = matches!(patience, Patience::Forever);
        let touches = |range| self.touches(write, range);
        let refused = pin!(self.shared.until_refused(for_ever, touches));
        match patience {
            Patience::Forever => Some(refused.await),
            Patience::Until(deadline) => {
                let sleep = self.shared.runtime.sleep_until(deadline);
                match select(refused, sleep).await {
                    Either::Left((failure, _)) => Some(failure),
                    Either::Right(((), _)) => None,
                }
            }
        }
    }

    /// Does the write need room of this range?
    fn touches(&self, write: &Write, range: RangeId) -> bool {
        let Some(Routed { epoch, route }) = &write.route else { return true };
        let superversion = self.shared.superversion.load();
        let is_in = |part: &Part| superversion.ranges[part.range as usize].id() == range;
        // By other routes it needs the room of other ranges, and is about to find that out.
        *epoch == superversion.epoch && route.parts().iter().any(is_in)
    }
}

/// The owners of the touched ranges, in route order.
fn owners(superversion: &Superversion, route: &Route) -> Vec<Arc<RangeOwner>> {
    let owner = |part: &Part| Arc::clone(&superversion.ranges[part.range as usize].owner);
    route.parts().iter().map(owner).collect()
}

/// What each touched range is asked for, in route order.
fn claims(superversion: &Superversion, route: &Route) -> Vec<Claim<Credits>> {
    let claim = |part: &Part| {
        let owner = &superversion.ranges[part.range as usize].owner;
        let bytes = part.charge();
        let (account, local_bytes) = (owner.local.clone(), owner.budget.local_charge(bytes));
        Claim { range: part.range, account, bytes, local_bytes }
    };
    route.parts().iter().map(claim).collect()
}

#[cfg(test)]
mod tests;
