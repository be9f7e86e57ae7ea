//! A write that its caller does on its own thread. The caller runs both turns, one after the other,
//! if both seats are free and nothing is queued at either.

use super::WritePath;
use super::pending::{Number, Pending, Stage, Submitted};
use crate::failure::Failure;
use crate::log_writer::message::{Committed, Durability};
use crate::log_writer::{LogActor, NoRoom, Stamped};
use crate::range_owner::RangeOwner;
use crate::range_owner::route::Lot;
use sluicedb_kernel::combining::Spent;
use sluicedb_kernel::reply::{Answer, reply};
use sluicedb_kernel::sequencer::{CommitGuard, Sequencer, Slot};
use sluicedb_kernel::wake::Hold;
use sluicedb_storage::key::Seqno;
use std::sync::Arc;

/// How often a caller tries busy seats before it sends its write instead: a few microseconds in
/// all. A turn takes some hundred nanoseconds; a turn that also reclaims memory takes a few
/// thousand. Sending the write costs an allocation, and a wakeup for whoever waits for the
/// acknowledgement.
const SEAT_SPINS_MAX: u32 = 160;

/// How an attempt at both seats ended.
pub(super) enum Seats {
    Done(Stamp),
    Busy,
    /// The routes have changed. The caller tries again by the new ones.
    Stale,
    Refused(Failure),
    /// The log turn panicked. The log may hold the write or not.
    Lost,
}

/// A write that is in the log: its stamp, its acknowledgement unless that is due at once, and the
/// guard of its unfinished commit.
type InLog<'a> = (Stamped, Option<Answer<Committed>>, CommitGuard<&'a Sequencer>);

pub(super) struct Stamp {
    last: Seqno,
    visible: bool,
    durable: Option<Answer<Committed>>,
}

impl WritePath {
    pub(super) fn submitted(&self, stamp: Stamp) -> Submitted {
        let Stamp { last, visible, durable } = stamp;
        let stage = match durable {
            Some(answer) => return self.waiting(answer, Number::Known(last)),
            None if visible => return Submitted::Done(last),
            None => Stage::Visible(last, self.commits.wait_visible(last.0)),
        };
        let (number, health) = (Number::Known(last), self.failures.health.clone());
        Submitted::Waiting(Pending { stage, number, health })
    }

    /// Runs both turns on this thread. The range owner's seat is taken before the log writer's seat
    /// is released, so no other batch can get between the two turns: mailbox order is log order is
    /// seqno order. The apply turn begins after the log's seat is free.
    #[inline]
    pub(super) fn try_seats(
        &self,
        (epoch, owner): (u64, &Arc<RangeOwner>),
        payload: &[u8],
        payload_crc: u32,
        operations: u32,
        durability: Durability,
        charge: u64,
    ) -> Seats {
        // Wakers are held back until both turns are over and everything they owe others is done.
        let _hold = Hold::new();
        let Ok(slot) = self.commits.try_reserve_ref() else { return Seats::Busy };
        let mut spins = 0;
        loop {
            if let Some(mut wal) = self.wal.seat.try_enter_idle()
                && let Some(mut range) = owner.seat.try_enter_idle()
            {
                // A panic in the turn stops the engine. This caller is told of it as an error, too.
                let batch = (payload, payload_crc, operations);
                let turn = wal.attempt(|log| self.log_turn(log, epoch, slot, batch, durability));
                let (stamped, durable, guard) = match turn.unwrap_or(Err(Seats::Lost)) {
                    Ok(appended) => appended,
                    Err(seats) => {
                        // The log's seat is freed first: leaving the range's seat handles what is
                        // queued there, and that must not happen under the log's seat.
                        drop(wal);
                        return seats;
                    }
                };
                // From here on others may commit. Their entries queue behind ours.
                wal.release();
                let lot = Lot::whole(payload, stamped.first);
                let applied =
                    range.attempt(|actor| actor.apply(lot, payload.len(), charge as usize));
                range.release();
                let visible = match applied {
                    Some(applied) => {
                        let visible = guard.finish();
                        owner.after(applied);
                        visible
                    }
                    // The owner panicked. The dropped guard has failed the sequencer.
                    None => false,
                };
                if durable.is_some() || stamped.rotated {
                    self.log_due.sync.set();
                }
                if stamped.spare_due {
                    self.log_due.keeping.set();
                }
                // The caller's own write is done. Now it handles what others queued meanwhile.
                let mut spent = Spent::default();
                owner.seat.settle(&mut spent);
                self.wal.seat.settle(&mut spent);
                return Seats::Done(Stamp { last: stamped.last, visible, durable });
            }
            spins += 1;
            // A seat with a queue never becomes idle for this caller, however long it spins.
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
        log: &mut LogActor,
        epoch: u64,
        slot: Slot<&'a Sequencer>,
        (payload, payload_crc, operations): (&[u8], u32, u32),
        durability: Durability,
    ) -> Result<InLog<'a>, Seats> {
        // INVARIANT(stamped-by-its-routes)
        if log.state.epoch() != epoch {
            return Err(Seats::Stale);
        }
        if !log.state.is_idle() {
            return Err(Seats::Busy);
        }
        match log.state.make_room(payload.len()) {
            Ok(()) => {}
            Err(NoRoom::Later) => return Err(Seats::Busy),
            Err(NoRoom::Refused(failure)) => return Err(Seats::Refused(failure)),
        }
        let stamped = log.state.append(payload, payload_crc, operations, durability);
        let durable = if durability == Durability::Buffered && stamped.in_file {
            None
        } else {
            let (reply, answer) = reply();
            if let Err((reply, failed)) = self.wal.durable.register(durability, stamped.last, reply)
            {
                // Nobody waits for the answer yet.
                reply.send(Err(failed));
            }
            Some(answer)
        };
        let guard = self.commits.open(slot, stamped.last.0, 1);
        self.wal.counts.commits_inline.bump(1);
        Ok((stamped, durable, guard))
    }
}
