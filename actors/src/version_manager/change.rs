//! A change of contents or routes: prepared on disk, stamped in a turn of the log's seat, settled later.
//!
//! Time advances where the log is written: batches are stamped there, and so is every change
//! (INVARIANT(logical-time-at-the-log)). It takes three steps.
//!
//! 1. *Prepare.* What the change does is in the manifest, under its id. No seat is held.
//! 2. *Turn.* The log's seat is taken. All that was stamped so far is applied, in every range; the change
//!    gets the next number and a record in the log; the new superversion is published, born with that
//!    number; the seat is free again. Memory only: nobody waits for a disk.
//! 3. *Acknowledge*, when the record is synced. That it has happened is said in the next edit of the
//!    manifest, before which the log segment with the record cannot go.
//!
//! After a crash a prepared change has happened if its record is in the log, in its place of the order, and
//! otherwise never does (INVARIANT(prepared-needs-its-record)).
//!
//! Readers read at `max(visible, born)`: everything up to `born` was applied before the superversion
//! was published (INVARIANT(born-is-applied)). A write that was admitted by older routes is found out
//! when it is to be stamped (`log_writer/stale.rs`).

use super::VersionManager;
use super::message::{Change, InstallFailure};
use super::obsolete::ObsoleteTables;
use crate::admission::RangeBudget;
use crate::failure::{Failure, Party};
use crate::kernel::commit::Slot;
use crate::kernel::reply::Reply;
use crate::log_writer::NoRoom;
use crate::log_writer::message::Level;
use crate::range_owner::{RangeEntry, Superversion};
use sluicedb_storage::Error;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::limits::RANGE_ID_AT_OPEN_MAX;
use sluicedb_storage::version::{ChangeId, RangeId, TableHandle, Version, VersionEdit};
use sluicedb_storage::wal::CHANGE_BYTES;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A change that is in the manifest and not yet in the log.
#[derive(Debug)]
pub(super) struct Prepared {
    id: ChangeId,
    change: Change,
    edit: VersionEdit,
    reply: Reply<Result<Option<Seqno>, Failure>>,
}

/// What became of changes, to be said in the next edit.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    settled: Vec<ChangeId>,
    abandoned: Vec<ChangeId>,
    /// Tables that no slice names any more, once this is said, and the first superversion without
    /// them.
    dropped: Vec<(u64, Vec<Arc<TableHandle>>)>,
}

impl Outcomes {
    /// Says them in `edit`.
    pub(super) fn put_into(&self, edit: &mut VersionEdit) {
        edit.settled.extend_from_slice(&self.settled);
        edit.abandoned.extend_from_slice(&self.abandoned);
    }

    /// They were said.
    pub(super) fn clear(&mut self, tables: &ObsoleteTables) {
        self.settled.clear();
        self.abandoned.clear();
        for (superversion, dropped) in self.dropped.drain(..) {
            tables.dropped(&dropped, superversion);
        }
    }
}

/// Why a change had no turn. Nothing of it is in the log.
enum NotTurned {
    /// It was prepared for a version that is not current any more.
    Outdated,
    NoRoom(NoRoom),
}

/// A range after a change.
struct EntryAfter {
    range: RangeEntry,
    is_new: bool,
}

/// A change that has had its turn, and whose record may not be durable yet.
#[derive(Debug)]
pub(super) struct Stamped {
    id: ChangeId,
    seqno: Seqno,
    /// The superversion that it published, and the tables that are not in it any more.
    superversion: u64,
    dropped: Vec<Arc<TableHandle>>,
}

impl VersionManager {
    /// Prepares a change. Its turn comes when there is room in the log.
    pub(super) fn prepare(&mut self, change: Change, reply: Reply<Result<Option<Seqno>, Failure>>) {
        if let Some(failure) = self.failures.health.failure() {
            reply.send(Err(failure));
            return;
        }
        let current = self.topology.superversion.load_full();
        let edit = match self.edit_for(&change, &current) {
            Ok(Some(edit)) => edit,
            Ok(None) => return reply.send(Ok(None)),
            Err(failure) => return reply.send(Err(failure)),
        };
        // A number that no file has; so ids are never used again either.
        let id = ChangeId(self.files.numbers.take().0);
        let mut prepare = VersionEdit {
            prepared: vec![(id, edit.clone())],
            next_file_number: Some(self.files.numbers.high_water()),
            ..VersionEdit::default()
        };
        match self.append(&mut prepare) {
            Ok(()) => self.prepared.push_back(Prepared { id, change, edit, reply }),
            Err(InstallFailure::Failed(failure) | InstallFailure::NotInstalled(failure)) => {
                reply.send(Err(failure));
            }
            Err(InstallFailure::Conflict(what)) => unreachable!("it was made for this: {what}"),
        }
    }

    /// What `change` does now; `None` if that is nothing. Blocks on the disk.
    fn edit_for(
        &mut self,
        change: &Change,
        current: &Superversion,
    ) -> Result<Option<VersionEdit>, Failure> {
        match change {
            Change::Split { at } => {
                let range = current.route(at);
                if range.span().lo == *at {
                    return Ok(None);
                }
                let ids = self.new_ids()?;
                let split = range.stable.split(at, ids);
                split
                    .map(Some)
                    .inspect_err(|e| self.files.give_up_descriptors(e))
                    .map_err(Into::into)
            }
            Change::Merge { at } => {
                let index = current.route_index(at);
                let [.., left, right] = &current.ranges[..=index] else { return Ok(None) };
                let together = flushed_together([left, right]);
                let Some(flushed) = together.filter(|_| right.span().lo == *at) else {
                    return Ok(None);
                };
                let [id] = self.new_ids()?;
                let shards = self.environment.config.compaction.shards;
                Ok(Some(left.stable.merge(&right.stable, id, flushed, shards)))
            }
        }
    }

    /// Names for new ranges.
    ///
    /// # Errors
    /// When one would be an id that no open goes on from.
    fn new_ids<const N: usize>(&mut self) -> Result<[RangeId; N], Failure> {
        let left = (RANGE_ID_AT_OPEN_MAX + 1).saturating_sub(self.next_range_id) as usize;
        if left < N {
            let what = format!("the change needs {N} ids of ranges; {left} are left");
            return Err(Failure::storage(Error::invalid(what)));
        }
        Ok(std::array::from_fn(|_| {
            self.next_range_id += 1;
            RangeId(self.next_range_id - 1)
        }))
    }

    /// The turns of changes that are prepared, as far as there is room in the log and for what they seal.
    pub(super) async fn look_after_changes(&mut self) {
        while let Some(Prepared { id, change, edit, reply }) = self.prepared.pop_front() {
            if !self.failures.is_stopped() && !self.may_hand_over(&edit) {
                // A flush gives room, and brings a message.
                self.prepared.push_front(Prepared { id, change, edit, reply });
                return;
            }
            let Ok(slot) = self.topology.commits.reserve().await else {
                reply.send(Err(self.failures.why_stopped()));
                continue;
            };
            match self.turn(id, &edit, slot) {
                Ok(seqno) => {
                    let durable = self.settle().await;
                    reply.send(durable.map(|()| Some(seqno)));
                }
                Err(NotTurned::Outdated) => {
                    self.outcomes.abandoned.push(id);
                    self.prepare(change, reply);
                }
                Err(NotTurned::NoRoom(NoRoom::Later)) => {
                    self.prepared.push_front(Prepared { id, change, edit, reply });
                    self.wal.due.keeping.set();
                    return;
                }
                Err(NotTurned::NoRoom(NoRoom::Refused(failure))) => {
                    self.outcomes.abandoned.push(id);
                    reply.send(Err(failure));
                }
            }
        }
    }

    /// INVARIANT(bounded-overlay): is there room for what the ranges that go have to seal?
    fn may_hand_over(&self, edit: &VersionEdit) -> bool {
        let superversion = self.topology.superversion.load_full();
        let mut going = edit.ranges_removed.iter().filter_map(|id| superversion.range(*id));
        going.all(|range| range.owner.with_state(|state| state.may_hand_over()))
    }

    /// The third step: what has had its turn is in the log for good when this returns, and the next edit
    /// says so. No edit may come before that which was made for what the changes left.
    ///
    /// # Errors
    /// Why the log cannot be synced now. The changes are in force, and settled when it can.
    pub(super) async fn settle(&mut self) -> Result<(), Failure> {
        while let Some(stamped) = self.stamped.front() {
            self.wal.sync_upto(stamped.seqno).await?;
            let stamped = self.stamped.pop_front().expect("just looked at");
            self.outcomes.settled.push(stamped.id);
            self.outcomes.dropped.push((stamped.superversion, stamped.dropped));
        }
        Ok(())
    }

    /// Nobody waits for what will not happen any more.
    pub(super) fn refuse_changes(&mut self, failure: &Failure) {
        for Prepared { reply, .. } in self.prepared.drain(..) {
            reply.send(Err(failure.clone()));
        }
    }

    /// The second step.
    fn turn(&mut self, id: ChangeId, edit: &VersionEdit, slot: Slot) -> Result<Seqno, NotTurned> {
        let room = self.wal.with_log(|log| log.make_room(CHANGE_BYTES));
        room.map_err(NoRoom::Refused).and_then(|room| room).map_err(NotTurned::NoRoom)?;
        let current = self.topology.superversion.load_full();
        let before = current.version(self.files.tables.graveyard());
        let has_sealed = |id: &RangeId| current.range(*id).is_some_and(|r| !r.sealed.is_empty());
        // INVARIANT(merged-when-cold): since it was prepared, one of them may have been sealed.
        if edit.ranges_removed.len() > 1 && edit.ranges_removed.iter().any(has_sealed) {
            return Err(NotTurned::Outdated);
        }
        let version = before.apply(edit, &[]).map_err(|_| NotTurned::Outdated)?;
        let mut ranges = self.ranges_after(&current, &version);
        // Most of what is on its way is applied before anybody has to wait for it.
        for entry in &current.ranges {
            entry.owner.seat.deliver_blocking();
        }
        let wal = Arc::clone(&self.wal);
        let turned = wal.seat.run_last(|log| {
            // INVARIANT(born-is-applied): what was stamped is in the ranges' mailboxes, and is handled here.
            // Nothing new comes into them while the log's seat is taken.
            for entry in &current.ranges {
                let applied = entry.owner.seat.run_last(|_| ());
                applied.ok_or_else(|| self.stopped())?;
            }
            let stamped = log.state.append_change(id, Level::Synced).map_err(NotTurned::NoRoom)?;
            self.hand_over(&current, &edit.ranges_removed, &mut ranges)?;
            let epoch = current.epoch + u64::from(!edit.ranges_added.is_empty());
            let (number, born) = (current.number + 1, stamped.last);
            let ranges = ranges.into_iter().map(|entry| entry.range).collect();
            self.publish(Superversion::new(number, epoch, born, ranges));
            // Nobody waits for room in a range that will never be flushed.
            self.topology.follow_closing(&self.accounts);
            self.wal.counts.changes.bump(1);
            if epoch > current.epoch {
                log.state.set_epoch(epoch);
            }
            if stamped.spare_due {
                self.wal.due.keeping.set();
            }
            Ok((born, self.topology.commits.open(slot, born, 1)))
        });
        let (seqno, ticket) = turned.unwrap_or_else(|| Err(self.stopped()))?;
        // Before anything else: nothing that is stamped after it becomes visible before.
        ticket.finish();
        let (superversion, dropped) = (current.number + 1, before.dropped_by(edit, &version));
        self.stamped.push_back(Stamped { id, seqno, superversion, dropped });
        let stays: HashSet<_> = version.ranges().iter().map(|range| range.id).collect();
        for entry in current.ranges.iter().filter(|entry| !stays.contains(&entry.id())) {
            self.forget_range(entry);
        }
        self.due.flush.set();
        self.due.compaction.set();
        Ok(seqno)
    }

    /// A seat has failed, and the engine with it.
    fn stopped(&self) -> NotTurned {
        NotTurned::NoRoom(NoRoom::Refused(self.failures.why_stopped()))
    }

    /// The ranges of `version`: those that stay as they are, new ones with an owner and an empty memtable.
    fn ranges_after(&mut self, current: &Superversion, version: &Version) -> Vec<EntryAfter> {
        let there: HashMap<_, _> = current.ranges.iter().map(|range| (range.id(), range)).collect();
        let budget = RangeBudget::of(&self.environment.config, version.ranges().len());
        let mut ranges = Vec::with_capacity(version.ranges().len());
        for stable in version.ranges() {
            let stable = Arc::clone(stable);
            if let Some(&entry) = there.get(&stable.id) {
                let range = RangeEntry { stable, ..entry.clone() };
                ranges.push(EntryAfter { range, is_new: false });
                continue;
            }
            let memtable = self.next_memtable_id;
            self.next_memtable_id += 1;
            let range = self.owners.entry(stable, memtable, budget);
            ranges.push(EntryAfter { range, is_new: true });
        }
        ranges
    }

    /// What the ranges that go have in memory goes to all that get keys of theirs
    /// (INVARIANT(parent-drains-first)): a range has every memtable that may be older than one it has, under
    /// the same key. Under the log's seat.
    fn hand_over(
        &mut self,
        current: &Superversion,
        gone: &[RangeId],
        ranges: &mut [EntryAfter],
    ) -> Result<(), NotTurned> {
        for from in current.ranges.iter().filter(|range| gone.contains(&range.id())) {
            let nowhere = self.fresh_memtable().1;
            let handed = from.owner.seat.run_last(|actor| actor.state().hand_over(nowhere));
            let handed = handed.ok_or_else(|| self.stopped())?;
            let charged = |id| handed.iter().any(|(sealed, _)| *sealed == id);
            let tables: Vec<_> = from.memtables().filter(|table| charged(table.id())).collect();
            assert_eq!(tables.len(), handed.len(), "each sealed memtable was charged for");
            let is_heir = |entry: &&mut EntryAfter| {
                entry.is_new && !entry.range.span().intersection(from.span()).is_empty()
            };
            let heirs = ranges.iter_mut().filter(is_heir).map(|entry| &mut entry.range);
            let heirs: Vec<_> = heirs.collect();
            let count = heirs.len();
            for (at, heir) in heirs.into_iter().enumerate() {
                let has = |id| heir.sealed.iter().any(|table| table.id() == id);
                let new: Vec<_> = tables.iter().filter(|table| !has(table.id())).collect();
                heir.sealed.extend(new.into_iter().map(|table| Arc::clone(table)));
                heir.sealed.sort_by_key(|table| Reverse(table.id()));
                let share = |bytes: usize| bytes / count + usize::from(at < bytes % count);
                let shares = handed.iter().map(|(id, bytes)| (*id, share(*bytes)));
                heir.owner.with_state(|state| state.take_over(shares));
            }
        }
        Ok(())
    }

    /// The range has gone: its waiters look for another one, and nobody is told of its troubles any more.
    fn forget_range(&mut self, entry: &RangeEntry) {
        let id = entry.id();
        entry.owner.leave();
        self.failing.remove(&id);
        self.upkeep.forget(id);
        for party in [Party::Flush, Party::Compaction] {
            self.failures.recover(party.of(id));
        }
    }
}

/// INVARIANT(merged-when-cold): up to where all of both ranges is in tables, if neither has a table with something newer than what the
/// other has in memory.
fn flushed_together(ranges: [&RangeEntry; 2]) -> Option<Seqno> {
    // A flush may have begun: it would say "flushed up to here" of both, and know one of them.
    if ranges.iter().any(|range| !range.sealed.is_empty()) {
        return None;
    }
    let flushed = ranges.iter().map(|range| range.stable.flushed_seqno).max()?;
    let mut unflushed = ranges.iter().flat_map(|range| range.memtables());
    unflushed
        .all(|table| table.first_seqno().is_none_or(|first| first > flushed))
        .then_some(flushed)
}
