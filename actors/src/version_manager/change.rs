//! A change of contents or routes: prepared on disk, stamped in a turn of the log's seat, settled
//! later.
//!
//! Time advances where the log is written. Batches are stamped there, and so is every change
//! (INVARIANT(logical-time-at-the-log)). A change takes three steps.
//!
//! 1. *Prepare.* The manifest records what the change does, under its id. No seat is held.
//! 2. *Turn.* The log's seat is taken. Everything stamped so far is applied, in every range. The
//!    change gets the next number and a record in the log. The new superversion is published, born
//!    with that number. The seat is freed. All of this is memory work: nobody waits for a disk.
//! 3. *Acknowledge.* The caller is told when the record is synced. The next edit of the manifest
//!    says that the change has happened. The log segment with the record is kept until then.
//!
//! The effect of a change depends on the current superversion. It is prepared for one superversion
//! and has its turn in the same one (INVARIANT(prepared-for-what-is)). A change that waits for a
//! flush is not prepared, and one that waits for room in the log is if need be prepared again.
//!
//! After a crash a prepared change has happened if its record is in the log, at that place in the
//! order. Otherwise it never happens (INVARIANT(prepared-needs-its-record)).
//!
//! Readers read at `max(visible, born)`: everything up to `born` was applied before the
//! superversion was published (INVARIANT(born-is-applied)). A write that was admitted by older
//! routes is found out when it is about to be stamped (`log_writer/stale.rs`).

use super::VersionManager;
use super::message::{Change, Changed, Destination};
use crate::failure::{Failure, Party, WriteFailure};
use crate::log_writer::NoRoom;
use crate::log_writer::message::Durability;
use crate::range_owner::{RangeEntry, Superversion};
use sluicedb_kernel::reply::Reply;
use sluicedb_kernel::sequencer::Slot;
use sluicedb_storage::Error;
use sluicedb_storage::key::{Seqno, Span};
use sluicedb_storage::keyspace::{KeyspaceId, no_keyspace};
use sluicedb_storage::limits::RANGE_ID_AT_OPEN_MAX;
use sluicedb_storage::version::{
    ChangeId, Incoming, Keyspace, NewRange, RangeId, Shards, TableHandle, VersionEdit,
};
use sluicedb_storage::view::put_behind;
use sluicedb_storage::wal::CHANGE_BYTES;
use std::collections::HashSet;
use std::sync::Arc;

/// A change that waits for its turn.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) change: Change,
    pub(super) reply: Reply<Changed>,
    /// Set if it is in the manifest and not in the log, because the log had no room. Whoever drops
    /// it must have it recorded as abandoned.
    prepared: Option<Prepared>,
}

/// A change that is in the manifest and not yet in the log.
#[derive(Debug)]
struct Prepared {
    id: ChangeId,
    edit: VersionEdit,
    /// The superversion for which it was prepared.
    number: u64,
}

impl Wanted {
    /// A change for which nothing has been done yet.
    pub(super) fn new(change: Change, reply: Reply<Changed>) -> Self {
        Self { change, reply, prepared: None }
    }
}

/// A change that has had its turn. Its record may not be durable yet.
#[derive(Debug)]
pub(super) struct StampedChange {
    id: ChangeId,
    seqno: Seqno,
    /// The superversion that it published. The next field has the tables that are no longer in it.
    superversion: u64,
    dropped: Vec<Arc<TableHandle>>,
    flushed: Vec<(RangeId, Seqno)>,
    /// Memtables that no range has any more. Nobody needs to wait for their flush.
    left: Vec<u64>,
}

impl VersionManager {
    /// Runs the changes that wait, in their order, as far as the ranges have room for what they
    /// seal and the log has room. A change that must wait for a flush delays no other.
    pub(super) async fn look_after_changes(&mut self) {
        let mut at = 0;
        while let Some(wanted) = self.changes.get(at) {
            match self.short_of_room(&wanted.change) {
                // The flush makes room and sends a message.
                Some((_, None)) => {
                    at += 1;
                    continue;
                }
                Some((range, Some(failure))) => {
                    tracing::debug!(%range, %failure, "a change waits for no flush that fails");
                    let wanted = self.changes.remove(at).expect("just looked at");
                    self.outcomes.abandoned.extend(wanted.prepared.map(|prepared| prepared.id));
                    wanted.reply.send(Err(WriteFailure::not_applied(failure)));
                    continue;
                }
                None => {}
            }
            let wanted = self.changes.remove(at).expect("just looked at");
            if let Some(wanted) = self.make_happen(wanted).await {
                self.changes.insert(at, wanted);
                self.wal.due.keeping.set();
                break;
            }
        }
        // The callers were answered first, because this costs a write.
        if self.outcomes.let_files_go() && self.failures.health.failure().is_none() {
            // If it fails, the next edit records the outcomes.
            let _ = self.append(VersionEdit::default());
        }
    }

    /// INVARIANT(bounded-overlay): returns a range that has no room for what the change would seal,
    /// and the reason why it gets none soon, if there is one.
    fn short_of_room(&self, change: &Change) -> Option<(RangeId, Option<Failure>)> {
        if self.failures.is_stopped() {
            return None;
        }
        let superversion = self.topology.superversion.load_full();
        let mut touched = superversion.ranges.iter().filter(|range| change.touches(range));
        // Tables ahead of memtables wait for a flush. There may be as many of them as of other
        // tables in L0.
        let ahead_max = self.environment.config.l0_tables_max;
        let is_full = |range: &RangeEntry| {
            let may_hand_over = range.owner.with_state(|state| state.may_hand_over());
            !may_hand_over || range.pending.len() >= ahead_max
        };
        let full = touched.find(|range| is_full(range))?;
        // A failure that may be over in a moment is waited out.
        Some((full.id(), self.failures.trouble_of(Party::Flush.of(full.id()))))
    }

    /// Runs all three steps of a change. Returns the change if the log has no room.
    async fn make_happen(&mut self, wanted: Wanted) -> Option<Wanted> {
        let Wanted { mut change, reply, prepared } = wanted;
        let prepared = match self.prepare(&mut change, prepared) {
            Ok(Some(prepared)) => prepared,
            Ok(None) => {
                reply.send(Ok(None));
                return None;
            }
            Err(failure) => {
                reply.send(Err(WriteFailure::not_applied(failure)));
                return None;
            }
        };
        let Ok(slot) = self.topology.commits.reserve().await else {
            reply.send(Err(WriteFailure::not_applied(self.failures.why_stopped())));
            return None;
        };
        match self.turn(&prepared, &mut change, slot) {
            Ok(seqno) => {
                let durable = self.settle().await;
                reply.send(durable.map(|()| Some(seqno)));
                None
            }
            Err(NoRoom::Later) => Some(Wanted { change, reply, prepared: Some(prepared) }),
            Err(NoRoom::Refused(failure)) => {
                self.outcomes.abandoned.push(prepared.id);
                // If the engine failed within the turn, the record may have been written.
                let stopped = self.failures.is_stopped();
                let failed =
                    if stopped { WriteFailure::unknown } else { WriteFailure::not_applied };
                reply.send(Err(failed(failure)));
                None
            }
        }
    }

    /// Runs the first step, unless `prepared` is still valid. Returns `None` if there is nothing to
    /// do.
    fn prepare(
        &mut self,
        change: &mut Change,
        prepared: Option<Prepared>,
    ) -> Result<Option<Prepared>, Failure> {
        if let Some(failure) = self.failures.health.failure() {
            return Err(failure);
        }
        let current = self.topology.superversion.load_full();
        if let Some(prepared) = prepared {
            // INVARIANT(prepared-for-what-is): the superversion may have tables now that the
            // prepared change does not know.
            if prepared.number == current.number {
                return Ok(Some(prepared));
            }
            self.outcomes.abandoned.push(prepared.id);
        }
        let Some(edit) = self.edit_for(change, &current)? else { return Ok(None) };
        // INVARIANT(change-is-known): file numbers are never reused, so ids of changes are not
        // either, and the edit says that this one was given out.
        let id = ChangeId(self.files.numbers.take().0);
        let prepared = vec![(id, edit.clone())];
        if let Err(failure) = self.append(VersionEdit { prepared, ..VersionEdit::default() }) {
            if self.manifest.failure().is_some() {
                // The manifest may have the change.
                change.keep_tables();
            }
            return Err(failure);
        }
        Ok(Some(Prepared { id, edit, number: current.number }))
    }

    /// What `change` does to the current superversion. `None` if it does nothing. Blocks on the
    /// disk.
    fn edit_for(
        &mut self,
        change: &Change,
        current: &Superversion,
    ) -> Result<Option<VersionEdit>, Failure> {
        match change {
            Change::Split { keyspace, at } => {
                let range = current.route(*keyspace, at);
                let range = range.ok_or_else(|| Failure::storage(no_keyspace()))?;
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
            Change::Merge { keyspace, at } => {
                let index = current.route_index(*keyspace, at);
                let index = index.ok_or_else(|| Failure::storage(no_keyspace()))?;
                let [.., left, right] = &current.ranges[..=index] else { return Ok(None) };
                let together = flushed_together([left, right]);
                let Some(flushed) = together.filter(|_| right.span().lo == *at) else {
                    return Ok(None);
                };
                let [id] = self.new_ids()?;
                let shards = left.stable.own.compaction(&self.environment.config.compaction).shards;
                Ok(Some(left.stable.merge(&right.stable, id, flushed, shards)))
            }
            Change::Replace { spans, written } => {
                let version = current.version(self.files.tables.obsolete_files());
                let handles = written.outputs.handles();
                let tables = written.destinations.iter().zip(handles).map(|(to, table)| {
                    let Destination { keyspace, layer } = *to;
                    Incoming { keyspace, table, layer }
                });
                let environment = &self.environment;
                let (options, now_ms) = (&environment.config.compaction, environment.unix_ms());
                let edit = version.replace(spans, &tables.collect::<Vec<_>>(), options, now_ms);
                edit.map(Some)
                    .inspect_err(|e| self.files.give_up_descriptors(e))
                    .map_err(Into::into)
            }
            Change::SetKeyspace { name, options } => {
                let found = current.keyspaces.find(name);
                let own = |id| current.keyspaces.options(id);
                if found.is_some_and(|id| options.as_ref().is_none_or(|options| options == own(id)))
                {
                    return Ok(None);
                }
                let options = options.clone().unwrap_or_default();
                let mut ranges_added = Vec::new();
                let id = if let Some(id) = found {
                    id
                } else {
                    let [id] = self.new_ids()?;
                    let (keyspace, span) = (KeyspaceId(id.0), Span::all());
                    let own = options.compaction(&self.environment.config.compaction);
                    let shards = Shards::of(&span, own.shards);
                    ranges_added.push(NewRange { id, keyspace, span, shards });
                    keyspace
                };
                let keyspace = Keyspace { name: name.clone(), options };
                let keyspaces_set = vec![(id, keyspace)];
                Ok(Some(VersionEdit { ranges_added, keyspaces_set, ..VersionEdit::default() }))
            }
            Change::DropKeyspace { id } => {
                let version = current.version(self.files.tables.obsolete_files());
                Ok(version.without_keyspace(*id))
            }
        }
    }

    /// Takes ids for new ranges.
    ///
    /// # Errors
    /// When an id would be larger than the next open accepts.
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

    /// Runs the third step. When this returns, the log is durable up to the changes that had their
    /// turn, and the next edit records them. No edit that was made for the ranges after a change
    /// may be appended before.
    ///
    /// # Errors
    /// Why the log cannot be synced now. The changes are in force. They are settled once it can be
    /// synced.
    pub(super) async fn settle(&mut self) -> Result<(), WriteFailure> {
        while let Some(stamped) = self.stamped.front() {
            self.wal.sync_upto(stamped.seqno).await?;
            let stamped = self.stamped.pop_front().expect("just looked at");
            self.outcomes.settled.push((stamped.id, stamped.seqno));
            self.outcomes.flushed.extend(stamped.flushed);
            self.waiters.published(&stamped.left);
            self.outcomes.dropped.push((stamped.superversion, stamped.dropped));
        }
        // A later change may have replaced these ranges. Their successors carry the number.
        let superversion = self.topology.superversion.load_full();
        self.outcomes.flushed.retain(|(range, _)| superversion.range(*range).is_some());
        Ok(())
    }

    /// Refuses the changes that wait, because they will not happen.
    pub(super) fn refuse_changes(&mut self, failure: &Failure) {
        for wanted in self.changes.drain(..) {
            wanted.reply.send(Err(WriteFailure::not_applied(failure.clone())));
        }
    }

    /// Runs the second step.
    fn turn(
        &mut self,
        prepared: &Prepared,
        change: &mut Change,
        slot: Slot,
    ) -> Result<Seqno, NoRoom> {
        let Prepared { id, edit, .. } = prepared;
        let room = self.wal.with_log(|log| log.make_room(CHANGE_BYTES));
        room.map_err(NoRoom::Refused).and_then(|room| room)?;
        let current = self.topology.superversion.load_full();
        assert_eq!(current.number, prepared.number, "INVARIANT(prepared-for-what-is)");
        let before = current.version(self.files.tables.obsolete_files());
        let tables = &*change.tables();
        // The change's tables will be newer than everything else.
        let version = before.apply(&edit.stamped(Seqno::MAX), tables);
        let mut version = version.expect("it was prepared for this version");
        let mut ranges = self.entries_after(&current, &version);
        // Most queued messages are applied here, before the log's seat is taken and others must
        // wait.
        for entry in current.ranges.iter().filter(|entry| !entry.owner.seat.is_empty()) {
            entry.owner.seat.deliver_blocking();
        }
        let (number, mut sealed, mut let_go) = (current.number + 1, Vec::new(), (0, Vec::new()));
        let mut flushed = Vec::new();
        let wal = Arc::clone(&self.wal);
        let turned = wal.seat.run_last(|log| {
            // INVARIANT(born-is-applied): every batch that was stamped is in a range's mailbox, and
            // is handled here. No new message can arrive while the log's seat is taken.
            for entry in &current.ranges {
                let seat = &entry.owner.seat;
                if seat.try_enter_idle().is_none() {
                    seat.run_last(|_| ()).ok_or_else(|| self.stopped())?;
                }
            }
            let stamped = log.state.append_change(*id, Durability::Synced)?;
            let born = stamped.last;
            // From here on the next open may find the record, whatever happens to the engine.
            change.keep_tables();
            if !tables.is_empty() {
                version = version.numbered(edit, born);
                put_behind(ranges.iter_mut().map(|entry| &mut entry.range), &version);
            }
            let_go = self.hand_over(&current, edit, &mut ranges)?;
            (sealed, flushed) = self.step_back(edit, born, &mut ranges)?;
            // A new keyspace gets the last ranges, so all other positions stay valid.
            let epoch = current.epoch + u64::from(!edit.ranges_removed.is_empty());
            let ranges = ranges.into_iter().map(|entry| entry.range).collect();
            let keyspaces = Arc::clone(version.keyspaces());
            self.publish(Arc::new(Superversion::new(number, epoch, born, keyspaces, ranges)));
            // A range that will never be flushed must not have waiters.
            self.topology.follow_closing(&self.accounts);
            self.wal.counts.changes.bump(1);
            if epoch > current.epoch {
                log.state.set_epoch(epoch);
            }
            if stamped.spare_due {
                self.wal.due.keeping.set();
            }
            Ok((born, self.topology.commits.open(slot, born.0, 1)))
        });
        let (seqno, guard) = turned.unwrap_or_else(|| Err(self.stopped()))?;
        // This comes first, because no later number may become visible before this one.
        guard.finish();
        for (owner, local_bytes) in sealed {
            owner.local.release(local_bytes);
        }
        self.files.obsolete.added(tables, number);
        let dropped = before.dropped_by(edit, &version);
        let (id, superversion, left) = (*id, number, let_go.1);
        self.stamped.push_back(StampedChange { id, seqno, superversion, dropped, flushed, left });
        let stays: HashSet<_> = version.ranges().iter().map(|range| range.id).collect();
        for entry in current.ranges.iter().filter(|entry| !stays.contains(&entry.id())) {
            self.forget_range(entry);
        }
        self.accounts.global.release(let_go.0);
        self.count_tables();
        self.due.flush.set();
        self.due.compaction.set();
        Ok(seqno)
    }

    /// The failure after a seat has failed, which stops the engine.
    pub(super) fn stopped(&self) -> NoRoom {
        NoRoom::Refused(self.failures.why_stopped())
    }

    /// The range is gone. Its waiters route again, and its troubles are withdrawn.
    fn forget_range(&mut self, entry: &RangeEntry) {
        let id = entry.id();
        entry.owner.leave();
        self.failing.remove(&id);
        self.seal_policy.forget(id);
        for party in [Party::Flush, Party::Compaction] {
            self.failures.recover(party.of(id));
        }
    }
}

/// INVARIANT(merged-when-cold): the number up to which both ranges are in tables. `None` if one has
/// something in memory that is not newer than a table of the other.
pub(crate) fn flushed_together(ranges: [&RangeEntry; 2]) -> Option<Seqno> {
    // A flush may have begun. It would record "flushed up to here" for both and know only one of
    // them.
    if ranges.iter().any(|range| !range.sealed.is_empty()) {
        return None;
    }
    if ranges[0].stable.keyspace != ranges[1].stable.keyspace {
        return None;
    }
    let flushed = ranges.iter().map(|range| range.stable.flushed_seqno).max()?;
    let mut unflushed = ranges.iter().flat_map(|range| range.memtables());
    unflushed
        .all(|table| table.first_seqno().is_none_or(|first| first > flushed))
        .then_some(flushed)
}

impl Change {
    /// Must the range have room in its queue of sealed memtables for this change?
    fn touches(&self, range: &RangeEntry) -> bool {
        let (span, of) = (range.span(), range.stable.keyspace);
        match self {
            Self::Split { keyspace, at } => range.stable.holds(*keyspace, at),
            Self::Merge { keyspace, at } => {
                of == *keyspace && (span.contains(at) || span.hi.as_ref() == Some(at))
            }
            Self::Replace { spans, written } => {
                let mut cuts = spans.iter().filter(|cut| cut.keyspace == of);
                let mut slices = written.destinations.iter().zip(written.outputs.slices());
                cuts.any(|cut| !cut.span.intersection(span).is_empty())
                    || slices.any(|(to, slice)| {
                        to.keyspace == of && span.overlaps_closed(slice.min_key(), slice.max_key())
                    })
            }
            // These seal nothing that stays.
            Self::SetKeyspace { .. } | Self::DropKeyspace { .. } => false,
        }
    }

    /// The tables that the change adds.
    fn tables(&self) -> Vec<Arc<TableHandle>> {
        match self {
            Self::Replace { written, .. } => written.outputs.handles(),
            _ => Vec::new(),
        }
    }

    /// Keeps the tables: the change has happened, or may have.
    fn keep_tables(&mut self) {
        if let Self::Replace { written, .. } = self {
            written.outputs.keep();
        }
    }
}
