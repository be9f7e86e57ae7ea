//! Seals: a range gets a fresh active memtable, and its old one goes to the flush worker. Also
//! when, and for whom.

use super::VersionManager;
use super::memory_pressure::{self, Candidate, RoomPlan};
use super::seal_policy::SealCause;
use crate::admission::pressure::l0_has_room;
use crate::failure::{Failure, Party};
use crate::range_owner::state::OverlayState;
use crate::range_owner::{RangeEntry, RangeOwner, Superversion};
use sluicedb_kernel::reply::Reply;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::memtable::{Memtable, MemtableWriter};
use sluicedb_storage::version::RangeId;
use sluicedb_storage::view::{Holders, MemtableSlice};
use std::collections::HashSet;
use std::sync::Arc;

impl VersionManager {
    pub(super) fn active_id(&self, range: RangeId) -> Option<u64> {
        let superversion = self.topology.superversion.load_full();
        superversion.range(range).map(|range| range.active.id())
    }

    /// Seals the range's active memtable as soon as it has an entry and the queue has room.
    pub(super) fn seal(&mut self, range: RangeId, cause: SealCause) {
        let superversion = self.topology.superversion.load_full();
        let Some(entry) = superversion.range(range) else { return };
        entry.owner.with_state(OverlayState::seal_soon);
        self.seal_policy.asked(range, cause);
        self.seal_if_due(range);
    }

    pub(super) fn seal_what_is_due(&mut self) {
        for range in &self.topology.superversion.load_full().ranges {
            self.seal_if_due(range.id());
        }
    }

    /// Seals the active memtable of `range` if it is full and the queue has room; otherwise that
    /// happens when this is asked again. The range gets a fresh memtable, and its old one, which is
    /// not empty, goes to the flush worker. INVARIANT(bounded-overlay): a seal waits for room in
    /// the queue.
    pub(super) fn seal_if_due(&mut self, range: RangeId) {
        let current = self.topology.superversion.load_full();
        let Some(at) = current.ranges.iter().position(|entry| entry.id() == range) else { return };
        let owner = &current.ranges[at].owner;
        if !owner.with_state(OverlayState::is_seal_due) {
            return;
        }
        let (active, writer) = self.fresh_memtable();
        let mut ranges = current.ranges.clone();
        let old = std::mem::replace(&mut ranges[at].active, active);
        ranges[at].sealed.insert(0, MemtableSlice::whole(old));
        // INVARIANT(published-before-used): readers find the new memtable before its owner writes
        // to it.
        self.swap(&current, ranges);
        let local_bytes = owner.with_state(|state| state.seal(writer));
        owner.local.release(local_bytes);
        owner.rotations.add(1);
        let counts = &self.counts;
        let counter = match self.seal_policy.why(range) {
            SealCause::Size => &counts.seals_size,
            SealCause::Pressure => &counts.seals_pressure,
            SealCause::Log => &counts.seals_log,
            SealCause::Idle => &counts.seals_idle,
            SealCause::Flush => &counts.seals_flush,
        };
        counter.add(1);
        self.due.flush.set();
    }

    pub(super) fn fresh_memtable(&mut self) -> (Arc<Memtable>, MemtableWriter) {
        let id = self.next_memtable_id;
        self.next_memtable_id += 1;
        self.owners.memory.memtable(id)
    }

    /// Seals for those who wait. Whoever began to wait before this look is seen. Whoever begins
    /// later asks for another look (`requests.rs`, `somebody_waits`). So nobody waits while
    /// something could be sealed for him. A waiter that was woken and has not polled has room, as
    /// far as anybody knows. If it finds none, it begins to wait anew.
    pub(super) fn look_after_waiters(&mut self) {
        let superversion = self.topology.superversion.load_full();
        let owners = superversion.ranges.iter().map(|range| &range.owner);
        for owner in owners.filter(|owner| owner.local.is_short()) {
            // Dead entries in there occupy room that somebody wants now.
            owner.with_state(OverlayState::seal_when_full);
            self.seal_if_due(owner.id);
        }
        self.relieve_if_short(0);
    }

    /// Relieves only if room is short. Otherwise nothing is sealed below its size.
    pub(super) fn relieve_if_short(&mut self, bytes: u64) {
        let global = &self.accounts.global;
        if self.hopeless
            || global.is_short()
            || global.used().saturating_add(bytes) > global.limit()
        {
            self.relieve();
        }
    }

    /// Makes room in the engine for whoever waits, so that cold memtables never starve a writer.
    pub(super) fn relieve(&mut self) {
        let current = self.topology.superversion.load_full();
        let mut accounted = 0;
        let holders = current.holders();
        let candidates = current.ranges.iter().map(|range| {
            let active_bytes = range.owner.with_state(|state| state.active_bytes());
            accounted += active_bytes + range.owner.sizes.sealed_bytes();
            Candidate {
                range: range.id(),
                active_bytes,
                oldest: range.active.first_seqno(),
                has_sealed: !range.sealed.is_empty(),
                can_flush: self.can_flush(&current, &holders, range),
            }
        });
        let plan = memory_pressure::choose(candidates);
        self.show_hope(&current, plan);
        match plan {
            RoomPlan::FlushIsDue => {}
            RoomPlan::Seal(range) => self.seal(range, SealCause::Pressure),
            RoomPlan::Nothing => {
                // Entries on their way into a memtable were not counted. Then the memtable is
                // sealed when they arrive.
                if self.accounts.global.used() > accounted as u64 {
                    for range in &current.ranges {
                        if self.can_flush(&current, &holders, range) {
                            range.owner.with_state(OverlayState::seal_soon);
                        }
                    }
                }
            }
        }
    }

    /// Tells those who wait for room in the engine whether room can come. It cannot if everything
    /// that holds it belongs to ranges that cannot be flushed.
    pub(super) fn show_hope(&mut self, current: &Superversion, plan: RoomPlan) {
        let trouble = |owner: &Arc<RangeOwner>| self.failures.trouble_of(Party::Flush.of(owner.id));
        let holds =
            |owner: &&Arc<RangeOwner>| owner.sizes.active_bytes() + owner.sizes.sealed_bytes() > 0;
        let mut why = None;
        if plan == RoomPlan::Nothing && !self.failures.health.is_running() {
            let mut holders = current.ranges.iter().map(|range| &range.owner).filter(holds);
            why = holders.next().and_then(trouble);
            why = why.filter(|_| holders.all(|owner| trouble(owner).is_some()));
        }
        match why {
            Some(failure) if !self.hopeless => {
                self.failures.degrade(Party::Flush, failure);
                self.hopeless = true;
            }
            None if self.hopeless => {
                self.failures.recover(Party::Flush);
                self.hopeless = false;
            }
            _ => {}
        }
    }

    /// Can the flush worker flush this range now? Ranges that share a memtable are flushed
    /// together.
    fn can_flush(&self, current: &Superversion, holders: &Holders, range: &RangeEntry) -> bool {
        let shared = range.sealed.iter().filter_map(|table| holders.get(&table.id())).flatten();
        let mut with = shared.map(|at| &current.ranges[*at]).chain([range]);
        with.all(|one| {
            let room = l0_has_room(&one.stable, &self.environment.config);
            room && !self.failing.contains(&one.id())
        })
    }

    pub(super) fn flush_all(&mut self, reply: Reply<Result<Seqno, Failure>>) {
        let current = self.topology.superversion.load_full();
        let mut memtables = HashSet::new();
        for range in &current.ranges {
            memtables.extend(range.sealed.iter().map(|table| table.id()));
            if range.active.entries() > 0 {
                memtables.insert(range.active.id());
                self.seal(range.id(), SealCause::Flush);
            }
        }
        match self.wal.with_log(|log| log.last_seqno()) {
            Ok(stamped) => {
                self.waiters.wait(memtables, stamped, reply);
                // Flushes that failed and pause are tried now. This caller is told how they end.
                self.failures.attempts.ask();
                self.due.flush.set();
                self.due.compaction.set();
            }
            Err(failure) => {
                reply.send(Err(failure));
            }
        }
    }
}
