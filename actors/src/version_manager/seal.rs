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
        let current = self.topology.superversion.load_full();
        self.seal_for(&current, position(&current, range), cause);
    }

    /// Does so for the ranges at these places of `current`, which is the current superversion.
    fn seal_for(
        &mut self,
        current: &Superversion,
        at: impl IntoIterator<Item = usize>,
        cause: SealCause,
    ) {
        let asked = at.into_iter().inspect(|&at| {
            let owner = &current.ranges[at].owner;
            owner.with_state(OverlayState::seal_soon);
            self.seal_policy.asked(owner.id, cause);
        });
        let asked: Vec<_> = asked.collect();
        self.seal_due(current, asked);
    }

    pub(super) fn seal_if_due(&mut self, range: RangeId) {
        let current = self.topology.superversion.load_full();
        self.seal_due(&current, position(&current, range));
    }

    /// Seals the active memtables at these places of `current`, the current superversion, where
    /// they are full and the queue has room; elsewhere that happens when this is asked again. Each
    /// range gets a fresh memtable, and its old one, which is not empty, goes to the flush worker.
    /// Costs one superversion, however many are sealed. INVARIANT(bounded-overlay): a seal waits
    /// for room in the queue.
    pub(super) fn seal_due(&mut self, current: &Superversion, at: impl IntoIterator<Item = usize>) {
        let is_due = |at: &usize| current.ranges[*at].owner.with_state(OverlayState::is_seal_due);
        let due: Vec<_> = at.into_iter().filter(is_due).collect();
        if due.is_empty() {
            return;
        }
        let mut ranges = current.ranges.clone();
        let fresh = due.into_iter().map(|at| {
            let (active, writer) = self.fresh_memtable(&current.ranges[at].owner);
            let old = std::mem::replace(&mut ranges[at].active, active);
            ranges[at].sealed.insert(0, MemtableSlice::whole(old));
            (&current.ranges[at].owner, writer)
        });
        let fresh: Vec<_> = fresh.collect();
        // INVARIANT(published-before-used): readers find a new memtable before its owner writes to
        // it.
        self.swap(current, ranges);
        for (owner, writer) in fresh {
            let local_bytes = owner.with_state(|state| state.seal(writer));
            owner.local.release(local_bytes);
            owner.rotations.add(1);
            let counts = &self.counts;
            let counter = match self.seal_policy.why(owner.id) {
                SealCause::Size => &counts.seals_size,
                SealCause::Pressure => &counts.seals_pressure,
                SealCause::Log => &counts.seals_log,
                SealCause::Idle => &counts.seals_idle,
                SealCause::Flush => &counts.seals_flush,
            };
            counter.add(1);
        }
        self.due.flush.set();
    }

    pub(super) fn fresh_memtable(&mut self, of: &RangeOwner) -> (Arc<Memtable>, MemtableWriter) {
        let id = self.next_memtable_id;
        self.next_memtable_id += 1;
        self.owners.memory.memtable(id, of.budget)
    }

    /// Seals for those who wait. Whoever began to wait before this look is seen. Whoever begins
    /// later asks for another look (`requests.rs`, `somebody_waits`). So nobody waits while
    /// something could be sealed for him. A waiter that was woken and has not polled has room, as
    /// far as anybody knows. If it finds none, it begins to wait anew.
    pub(super) fn look_after_waiters(&mut self) {
        let current = self.topology.superversion.load_full();
        let owners = current.ranges.iter().map(|range| &range.owner).enumerate();
        let short = owners.filter(|(_, owner)| owner.local.is_short()).map(|(at, owner)| {
            // Dead entries in there occupy room that somebody wants now.
            owner.with_state(OverlayState::seal_when_full);
            at
        });
        self.seal_due(&current, short);
        self.relieve_if_short(0);
    }

    /// Seals for a write that lacks `bytes` of the range's account and does not wait for them. If
    /// they are there meanwhile, seals only what is full.
    pub(super) fn relieve_range(&mut self, range: RangeId, bytes: u64) {
        let current = self.topology.superversion.load_full();
        let Some(at) = position(&current, range) else { return };
        let owner = &current.ranges[at].owner;
        if owner.local.used().saturating_add(bytes) > owner.local.limit() {
            // Dead entries in there occupy the room that this write wants.
            owner.with_state(OverlayState::seal_when_full);
        }
        self.seal_due(&current, [at]);
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
        let candidates = current.ranges.iter().enumerate().map(|(at, range)| {
            let active = |state: &mut OverlayState| (state.active_bytes(), state.may_seal());
            let (active_bytes, may_seal) = range.owner.with_state(active);
            let sealed_bytes = range.owner.sizes.sealed_bytes();
            accounted += active_bytes + sealed_bytes;
            Candidate {
                at,
                active_bytes: if may_seal { active_bytes } else { 0 },
                oldest: range.active.first_seqno(),
                sealed: range.sealed.len(),
                sealed_bytes,
                can_flush: self.can_flush(&current, &holders, range),
            }
        });
        let enough_bytes = self.environment.config.flush_group_bytes();
        let plan = memory_pressure::choose(candidates, enough_bytes);
        self.show_hope(&current, &plan);
        match plan {
            RoomPlan::FlushIsDue => {}
            RoomPlan::Seal(at) => self.seal_for(&current, at, SealCause::Pressure),
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
    pub(super) fn show_hope(&mut self, current: &Superversion, plan: &RoomPlan) {
        let trouble = |owner: &Arc<RangeOwner>| self.failures.trouble_of(Party::Flush.of(owner.id));
        let holds =
            |owner: &&Arc<RangeOwner>| owner.sizes.active_bytes() + owner.sizes.sealed_bytes() > 0;
        let mut why = None;
        if *plan == RoomPlan::Nothing && !self.failures.health.is_running() {
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
        let (mut memtables, mut written) = (HashSet::new(), Vec::new());
        for (at, range) in current.ranges.iter().enumerate() {
            memtables.extend(range.sealed.iter().map(|table| table.id()));
            if range.active.entries() > 0 {
                memtables.insert(range.active.id());
                written.push(at);
            }
        }
        self.seal_for(&current, written, SealCause::Flush);
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

/// Where the range is, if it is still there.
fn position(current: &Superversion, range: RangeId) -> Option<usize> {
    current.ranges.iter().position(|entry| entry.id() == range)
}
