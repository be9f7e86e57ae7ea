//! How a change alters the ranges in memory, under the log's seat: who gets which memtables, and
//! what is cut out of them.

use super::VersionManager;
use crate::admission::RangeBudget;
use crate::log_writer::NoRoom;
use crate::range_owner::{RangeEntry, RangeOwner, Superversion};
use sluicedb_storage::key::Seqno;
use sluicedb_storage::version::{Place, RangeId, RangeVersion, Run, Slice, Version, VersionEdit};
use sluicedb_storage::view::{MemtableSlice, PendingRun};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A range after a change.
pub(super) struct EntryAfter {
    pub(super) range: RangeEntry,
    is_new: bool,
}

/// Charge to release in local accounts once no seat is held. Releasing it wakes waiters.
type Released = Vec<(Arc<RangeOwner>, u64)>;

impl VersionManager {
    /// The ranges of `version`: those that stay, and new ones with an owner and an empty memtable.
    pub(super) fn entries_after(
        &mut self,
        current: &Superversion,
        version: &Version,
    ) -> Vec<EntryAfter> {
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

    /// Hands the memtables of removed ranges to all new ranges that get their keys
    /// (INVARIANT(parent-drains-first)). So a range has every memtable that may hold an older entry
    /// for a key than one it has. If the keyspace is removed too, nobody gets them; returns their
    /// charge in bytes, and their ids.
    pub(super) fn hand_over(
        &mut self,
        current: &Superversion,
        edit: &VersionEdit,
        ranges: &mut [EntryAfter],
    ) -> Result<(u64, Vec<u64>), NoRoom> {
        let (mut bytes_left, mut left) = (0, Vec::new());
        let gone: HashSet<_> = edit.ranges_removed.iter().copied().collect();
        for from in current.ranges.iter().filter(|range| gone.contains(&range.id())) {
            let nowhere = self.fresh_memtable(&from.owner).1;
            let handed = from.owner.seat.run_last(|actor| actor.state().hand_over(nowhere));
            let handed = handed.ok_or_else(|| self.stopped())?;
            if edit.keyspaces_removed.contains(&from.stable.keyspace) {
                for (id, bytes) in handed {
                    bytes_left += bytes as u64;
                    left.push(id);
                }
                continue;
            }
            let charged = |id| handed.iter().any(|(sealed, _)| *sealed == id);
            let active = MemtableSlice::whole(Arc::clone(&from.active));
            let slices = std::iter::once(&active).chain(&from.sealed);
            let slices: Vec<_> = slices.filter(|slice| charged(slice.id())).collect();
            assert_eq!(slices.len(), handed.len(), "each sealed memtable was charged for");
            let is_heir = |entry: &&mut EntryAfter| {
                entry.is_new
                    && entry.range.stable.keyspace == from.stable.keyspace
                    && !entry.range.span().intersection(from.span()).is_empty()
            };
            let heirs = ranges.iter_mut().filter(is_heir).map(|entry| &mut entry.range);
            let heirs: Vec<_> = heirs.collect();
            let count = heirs.len();
            for (at, heir) in heirs.into_iter().enumerate() {
                for slice in &slices {
                    match heir.sealed.iter_mut().find(|has| has.id() == slice.id()) {
                        Some(has) => *has = has.without(slice.cut_out()),
                        None => heir.sealed.push((*slice).clone()),
                    }
                }
                heir.sealed.sort_by_key(|slice| Reverse(slice.id()));
                heir.pending.clone_from(&from.pending);
                renew_pending(heir);
                let share = |bytes: usize| bytes / count + usize::from(at < bytes % count);
                let shares = handed.iter().map(|(id, bytes)| (*id, share(*bytes)));
                heir.owner.with_state(|state| state.take_over(shares));
            }
        }
        Ok((bytes_left, left))
    }

    /// For each range that stays and that the change touches, seals what it has in memory, and cuts
    /// the change's spans out of it (INVARIANT(mask-covers-replay)). All of that is older than the
    /// change `edit` with the number `seqno`. Also returns the ranges that have nothing older left
    /// in memory.
    pub(super) fn step_back(
        &mut self,
        edit: &VersionEdit,
        seqno: Seqno,
        ranges: &mut [EntryAfter],
    ) -> Result<(Released, Vec<(RangeId, Seqno)>), NoRoom> {
        let (mut released, mut flushed) = (Vec::new(), Vec::new());
        for EntryAfter { range, is_new } in ranges {
            if *is_new || !edit.reaches_into(&range.stable) {
                continue;
            }
            let (active, writer) = self.fresh_memtable(&range.owner);
            let old = std::mem::replace(&mut range.active, active);
            // Nothing is applied before this is published: that would need the log's seat.
            let began = range.owner.seat.run_last(|actor| actor.state().begin_anew(writer));
            released.push((Arc::clone(&range.owner), began.ok_or_else(|| self.stopped())?));
            if old.entries() > 0 {
                range.sealed.insert(0, MemtableSlice::whole(old));
                range.owner.rotations.add(1);
            }
            let cut = edit.excised_from(&range.stable);
            for slice in &mut range.sealed {
                *slice = slice.without(&cut);
            }
            match range.sealed.first() {
                None => {
                    let stable = RangeVersion { flushed_seqno: seqno, ..(*range.stable).clone() };
                    range.stable = Arc::new(stable);
                    flushed.push((range.id(), seqno));
                }
                Some(newest) => {
                    let behind = newest.id();
                    let run = Run::new(Vec::new());
                    range.pending.insert(0, PendingRun { behind, seqno, run });
                }
            }
            renew_pending(range);
        }
        Ok((released, flushed))
    }
}

/// Takes the tables ahead of memtables from the range's current layers.
fn renew_pending(range: &mut RangeEntry) {
    let l0 = range.stable.layers.in_order(Place::L0);
    for pending in &mut range.pending {
        let came = |slice: &&Slice| slice.seqno == Some(pending.seqno);
        let mut slices: Vec<_> = l0.iter().filter(came).cloned().collect();
        slices.sort_by(|a, b| a.min_key().cmp(b.min_key()));
        pending.run = Run::new(slices);
    }
    range.pending.retain(|pending| !pending.run.slices().is_empty());
}
