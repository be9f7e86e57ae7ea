//! The log's only writer: it stamps, appends, and hands commits on to range owners. It touches
//! memory only. The syncer and the keeper do its disk work.

use super::LogCounts;
use super::after::AfterTurn;
use super::message::{Commit, Durability, Target};
use super::segments::Segments;
use super::stale::route_again;
use crate::failure::Failure;
use crate::group_commit::durable::Durable;
use crate::range_owner::message::Apply;
use crate::range_owner::{Superversion, Topology};
use sluicedb_kernel::published::Published;
use sluicedb_kernel::sequencer::Sequencer;
use sluicedb_storage::codec;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::version::ChangeId;
use sluicedb_storage::wal::{AppendPath, Appended, CHANGE_BYTES, LogWriter, Spare};
use std::collections::VecDeque;
use std::sync::Arc;

/// Where commits go from the log.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// Tracks each commit from stamped to visible.
    pub commits: &'a Sequencer,
    /// The current routes.
    pub superversion: &'a Published<Superversion>,
    /// Tracks each commit from stamped to durable.
    pub durable: &'a Durable,
}

impl<'a> Way<'a> {
    /// The engine's sequencer and routes.
    pub fn of(topology: &'a Topology, durable: &'a Durable) -> Self {
        Self { commits: &topology.commits, superversion: &topology.superversion, durable }
    }
}

/// A segment that the keeper should prepare.
#[derive(Clone, Copy, Debug)]
pub struct SpareWanted {
    /// Is it needed soon, so that there is no time to zero it?
    pub soon: bool,
    /// It must have room for a batch of this size.
    pub payload_bytes: usize,
    /// Did somebody wait for the last one?
    pub late: bool,
}

/// What a batch or a change was given when it was stamped.
#[derive(Clone, Copy, Debug)]
pub struct Stamped {
    /// The sequence number of the first operation. A change has one number.
    pub first: Seqno,
    /// The sequence number of the last operation. A change has one number.
    pub last: Seqno,
    /// Is it in the file already, with everything before it? Then it survives the process.
    pub in_file: bool,
    /// Has the log left a segment that the syncer does not know of yet?
    pub rotated: bool,
    /// Should the keeper be woken?
    pub spare_due: bool,
}

/// Why nothing can be appended right now.
#[derive(Debug)]
pub enum NoRoom {
    /// A spare segment is being prepared. Wait for it.
    Later,
    /// No spare segment can be prepared.
    Refused(Failure),
}

/// The state behind the log's seat.
#[derive(Debug)]
pub struct LogState {
    /// The current segment and what is staged for it.
    pub log: LogWriter,
    /// Prepared segments, in the order of their numbers.
    spares: VecDeque<Spare>,
    /// INVARIANT(one-stamp): the only source of sequence numbers.
    next_seqno: Seqno,
    /// Commits that wait for a spare segment, in their order.
    parked: VecDeque<Commit>,
    /// Why no spare segment can be prepared. Set while there is none and none is expected soon.
    room_failure: Option<Failure>,
    /// The segments that may still be needed.
    pub segments: Segments,
    /// The offset in the current segment at which the keeper is woken to prepare the next one.
    ask_at: u64,
    /// Has the keeper been told to keep spares ready?
    spare_asked: bool,
    /// Has a batch or a change waited for a spare since the keeper last looked?
    late: bool,
    counts: Arc<LogCounts>,
    /// The epoch of the current routes. Everything is stamped by these.
    epoch: u64,
    intake: Intake,
}

/// Is anything stamped?
#[derive(Debug)]
enum Intake {
    Open,
    /// Not until `resume`: the log's bytes cannot be written.
    Paused(Failure),
    /// Not any more.
    Closed(Failure),
}

impl LogState {
    /// A log whose next operation gets `next_seqno`.
    pub fn new(log: LogWriter, next_seqno: Seqno, epoch: u64, counts: Arc<LogCounts>) -> Self {
        let segments = Segments::beginning_with(&log, next_seqno);
        let ask_at = ask_at(&log);
        Self {
            log,
            spares: VecDeque::new(),
            next_seqno,
            parked: VecDeque::new(),
            room_failure: None,
            segments,
            ask_at,
            spare_asked: false,
            late: false,
            counts,
            epoch,
            intake: Intake::Open,
        }
    }

    /// The last sequence number stamped.
    pub fn last_seqno(&self) -> Seqno {
        Seqno(self.next_seqno.0 - 1)
    }

    /// The sequence number that the next operation gets.
    pub fn next_seqno(&self) -> Seqno {
        self.next_seqno
    }

    /// The epoch of the current routes: only what was admitted by them is stamped.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Makes other routes current. For whoever has just published them and still holds the seat.
    pub fn set_epoch(&mut self, epoch: u64) {
        assert!(epoch > self.epoch, "routes do not come back");
        self.epoch = epoch;
    }

    /// Makes sure that the current segment has room for `payload_bytes`. Rotates if a spare is
    /// ready.
    pub fn make_room(&mut self, payload_bytes: usize) -> Result<(), NoRoom> {
        if let Intake::Paused(failure) | Intake::Closed(failure) = &self.intake {
            return Err(NoRoom::Refused(failure.clone()));
        }
        while !self.log.has_room(payload_bytes) {
            let Some(spare) = self.spares.pop_front() else {
                // A change that waits is not parked here, so this has to be remembered.
                self.late = true;
                self.spare_asked = true;
                return Err(match &self.room_failure {
                    Some(failure) => NoRoom::Refused(failure.clone()),
                    None => NoRoom::Later,
                });
            };
            self.begin_segment(spare);
            self.spare_asked = true;
            // The next record asks for another spare.
            self.ask_at = 0;
        }
        Ok(())
    }

    fn begin_segment(&mut self, spare: Spare) {
        self.log.rotate(spare);
        self.segments.begin(&self.log, self.next_seqno);
        self.ask_at = ask_at(&self.log);
    }

    /// May a caller's own batch go ahead of the queue? Not while older commits are parked.
    pub fn is_idle(&self) -> bool {
        self.parked.is_empty()
    }

    /// Stamps and appends a batch. INVARIANT(log-before-apply): nothing is handed on before this.
    /// `make_room` must have returned `Ok` for its size.
    #[inline]
    pub fn append(
        &mut self,
        payload: &[u8],
        payload_crc: u32,
        operations: u32,
        durability: Durability,
    ) -> Stamped {
        assert!(operations > 0, "empty batches never reach the log");
        self.counts.commits.bump(1);
        self.counts.entries_written.bump(u64::from(operations));
        self.counts.bytes_written.bump(payload.len() as u64);
        self.stamp(operations, durability, |log, first, path| {
            log.append(first, operations, payload, payload_crc, path)
        })
    }

    /// Stamps a change and appends its record. INVARIANT(logical-time-at-the-log): whoever holds
    /// the seat publishes the effect of the change before anything else is stamped. Whatever was
    /// stamped before has lower numbers; parked commits will get higher ones. This touches memory
    /// only. A `Synced` change is final once the log is durable up to its number.
    ///
    /// # Errors
    /// Nothing has been stamped then. After `NoRoom::Later`, wake the keeper and try again when it
    /// has added a segment.
    pub fn append_change(
        &mut self,
        id: ChangeId,
        durability: Durability,
    ) -> Result<Stamped, NoRoom> {
        self.make_room(CHANGE_BYTES)?;
        Ok(self.stamp(1, durability, |log, seqno, path| log.append_change(seqno, id, path)))
    }

    /// Allots this many numbers, at least one, and has `append` write them to the log.
    #[inline]
    fn stamp(
        &mut self,
        numbers: u32,
        durability: Durability,
        append: impl FnOnce(&mut LogWriter, Seqno, AppendPath) -> Appended,
    ) -> Stamped {
        let first = self.next_seqno;
        let last = Seqno(first.0 + u64::from(numbers) - 1);
        self.next_seqno = last.next();
        let path = match durability {
            Durability::Buffered if self.log.is_mapped() => AppendPath::Mapped,
            Durability::Buffered | Durability::Synced => AppendPath::Staged,
        };
        let before = self.log.tail();
        let appended = append(&mut self.log, first, path);
        self.counts.log_bytes.bump(self.log.tail() - before);
        Stamped {
            first,
            last,
            in_file: appended.in_file,
            rotated: self.log.has_sealed(),
            spare_due: self.spare_due(),
        }
    }

    /// Handles a queued commit. If there is no room yet, parks it and returns false.
    pub fn commit(&mut self, commit: Commit, way: Way<'_>, after: &mut AfterTurn) -> bool {
        if !self.parked.is_empty() {
            self.parked.push_back(commit);
            return false;
        }
        match self.make_room(commit.payload.len()) {
            Ok(()) => {
                self.hand_on(commit, way, after);
                true
            }
            Err(NoRoom::Later) => {
                self.parked.push_back(commit);
                after.keeper_due = true;
                false
            }
            Err(NoRoom::Refused(failure)) => {
                after.refused.push((commit, failure));
                true
            }
        }
    }

    /// Stamps, appends, and gives each touched range its share, in log order.
    fn hand_on(&mut self, mut commit: Commit, way: Way<'_>, after: &mut AfterTurn) {
        if commit.epoch != self.epoch {
            if let Err(gone) = route_again(&mut commit, &way.superversion.load()) {
                return after.refused.push((commit, gone));
            }
            self.counts.routed_again.bump(1);
        }
        let Commit { payload, payload_crc, operations, durability, route, targets, .. } = commit;
        let (global, slot, reply) = (commit.global, commit.slot, commit.reply);
        let told = commit.stamped;
        let crc = payload_crc.unwrap_or_else(|| codec::crc(&payload));
        let stamped = self.append(&payload, crc, operations, durability);
        after.log_due |= stamped.rotated;
        after.keeper_due |= stamped.spare_due;
        after.stamped.extend(told.map(|told| (told, stamped.last)));
        if durability == Durability::Buffered && stamped.in_file {
            after.answers.push((reply, Ok(stamped.last)));
        } else {
            if let Err((reply, failed)) = way.durable.register(durability, stamped.last, reply) {
                after.answers.push((reply, Err(failed)));
            }
            after.log_due = true;
        }
        // From here on the memtables hold the charges (INVARIANT(lease-follows-bytes)).
        global.forget();
        let mut whole = Some(way.commits.open(slot, stamped.last.0, targets.len() as u32));
        let last_target = targets.len() - 1;
        for (part, target) in targets.into_iter().enumerate() {
            let Target { owner, permit, local } = target;
            local.forget();
            let guard = if part == last_target {
                whole.take().expect("the last target takes what is left of the guard")
            } else {
                whole.as_mut().expect("taken by the last target only").share()
            };
            let apply = Apply {
                payload: payload.clone(),
                first_seqno: stamped.first,
                route: Arc::clone(&route),
                part,
                guard,
            };
            // A mailbox accepts whatever has a permit. If the range has failed, the dropped guard
            // fails the sequencer, and that answers the caller.
            let _ = permit.send(apply);
            after.deliver.push(owner);
        }
    }

    /// Takes a spare segment that is ready, and handles the commits that were parked for it.
    pub fn add_spare(&mut self, spare: Spare, way: Way<'_>, after: &mut AfterTurn) {
        self.spares.push_back(spare);
        self.room_failure = None;
        let mut parked = std::mem::take(&mut self.parked);
        while let Some(commit) = parked.pop_front() {
            if !self.commit(commit, way, after) {
                break;
            }
        }
        self.parked.append(&mut parked);
    }

    /// No spare segment can be prepared for now. Refuses the parked commits, and new ones until
    /// `add_spare`.
    pub fn refuse_room(&mut self, failure: &Failure, after: &mut AfterTurn) {
        self.room_failure = Some(failure.clone());
        self.refuse_parked(failure, after);
    }

    fn refuse_parked(&mut self, failure: &Failure, after: &mut AfterTurn) {
        let parked = std::mem::take(&mut self.parked);
        after.refused.extend(parked.into_iter().map(|commit| (commit, failure.clone())));
    }

    /// Stamps nothing from here on.
    pub fn close(&mut self, failure: Failure, after: &mut AfterTurn) {
        self.refuse_room(&failure, after);
        self.intake = Intake::Closed(failure);
    }

    /// Stamps nothing until `resume`. Refuses the parked commits, and new ones.
    pub fn refuse_for_now(&mut self, failure: &Failure, after: &mut AfterTurn) {
        self.refuse_parked(failure, after);
        if !matches!(self.intake, Intake::Closed(_)) {
            self.intake = Intake::Paused(failure.clone());
        }
    }

    /// Ends `refuse_for_now`.
    pub fn resume(&mut self) {
        if matches!(self.intake, Intake::Paused(_)) {
            self.intake = Intake::Open;
        }
    }

    /// Which segment the keeper should prepare now, if any, so that `spares_max` segments are ready
    /// beside the current one as soon as that is in use.
    pub fn spare_wanted(&mut self, spares_max: usize) -> Option<SpareWanted> {
        let parked = self.parked.front().map(|commit| commit.payload.len());
        let spares_max = if self.spare_asked { spares_max } else { 0 };
        if parked.is_none() && self.spares.len() >= spares_max {
            // Nobody is refused for lack of a spare any more: there are enough, or the next writer
            // waits for one.
            self.room_failure = None;
            return None;
        }
        // Without a spare, the next rotation may be due before a segment could be zeroed.
        let soon = self.spares.is_empty() || parked.is_some();
        let late = std::mem::take(&mut self.late);
        Some(SpareWanted { soon, payload_bytes: parked.unwrap_or(0), late })
    }

    /// Is it time to prepare a spare? True once per segment: when a quarter of the first one is
    /// used, and with the first record in each further one.
    #[inline]
    fn spare_due(&mut self) -> bool {
        if self.log.tail() < self.ask_at {
            return false;
        }
        self.ask_at = u64::MAX;
        self.spare_asked = true;
        true
    }

    /// Does the log hold more than an idle log needs: spares, a current segment of more than
    /// `bytes` bytes, or one that will soon want a successor?
    pub fn has_grown(&self, bytes: u64) -> bool {
        let used = self.log.tail() >= ask_at(&self.log);
        !self.spares.is_empty() || self.log.segment_bytes() > bytes || used
    }

    /// Is no commit parked, is the log writable, and was nothing stamped since the caller read
    /// `next_seqno`?
    fn is_at_rest(&self, next_seqno: Seqno) -> bool {
        let paused = matches!(self.intake, Intake::Paused(_));
        self.next_seqno == next_seqno && self.parked.is_empty() && !paused
    }

    /// Are there spares?
    pub fn has_spares(&self) -> bool {
        !self.spares.is_empty()
    }

    /// Takes the spare segments away if the log is at rest. No spare is wanted again until more
    /// than `little` bytes are written.
    pub fn give_up_spares(&mut self, next_seqno: Seqno, little: u64) -> VecDeque<Spare> {
        if !self.is_at_rest(next_seqno) {
            return VecDeque::new();
        }
        self.spare_asked = false;
        self.ask_at = ask_at(&self.log).max(self.log.tail().saturating_add(little));
        std::mem::take(&mut self.spares)
    }

    /// Continues in `next` if the log is at rest. Otherwise returns it.
    pub fn go_on_in(&mut self, next: Spare, next_seqno: Seqno) -> Option<Spare> {
        if !self.is_at_rest(next_seqno) || !self.spares.is_empty() {
            return Some(next);
        }
        self.begin_segment(next);
        self.spare_asked = false;
        None
    }
}

/// A quarter of a segment's length.
fn ask_at(log: &LogWriter) -> u64 {
    log.segment_bytes() / 4
}

#[cfg(test)]
mod tests;
