//! How a version replaces another: the edit is validated, made durable and swapped in; then memory
//! is released.
//!
//! INVARIANT(single-swapper): only `publish` below stores the superversion.
//! INVARIANT(manifest-before-swap): an edit is synced before the version it makes is published.

use super::message::{Flushed, InstallFailure, Work};
use super::{VersionManager, manifest, state};
use crate::failure::space::reserve_wanted;
use crate::failure::{Failure, Party};
use crate::range_owner::{RangeEntry, Superversion};
use sluicedb_storage::filename::FileNumber;
#[cfg(debug_assertions)]
use sluicedb_storage::version::check::check;
use sluicedb_storage::version::{RangeId, TableHandle, VersionEdit};
use sluicedb_storage::view::put_behind;
use std::sync::Arc;

impl VersionManager {
    /// Edit, durable, swap, forget: in this order.
    pub(super) fn install(
        &mut self,
        mut edit: VersionEdit,
        tables: &[Arc<TableHandle>],
        work: &Work,
    ) -> Result<(), InstallFailure> {
        if let Some(failure) = self.failures.health.failure() {
            return Err(InstallFailure::Failed(failure));
        }
        let current = self.topology.superversion.load_full();
        let before = current.version(self.files.tables.obsolete_files());
        let flushed = match work {
            Work::Flushed(flushed) => {
                edit = state::bring_home(&current, flushed, tables)
                    .map_err(|error| InstallFailure::NotInstalled(Failure::storage(error)))?;
                Some(flushed)
            }
            Work::Merged(gone) => {
                state::are_there(&before, gone).map_err(InstallFailure::Conflict)?;
                None
            }
        };
        let version = before
            .apply(&edit, tables)
            .map_err(|conflict| InstallFailure::Conflict(conflict.to_string()))?;
        let mut ranges = state::without(&current.ranges, flushed);
        put_behind(ranges.iter_mut(), &version);
        let (floor, newest) = self.log_needed(&ranges).map_err(InstallFailure::Failed)?;
        edit.log_floor = Some(floor);
        // INVARIANT(no-log-file-missing): every edit names the newest segment.
        edit.newest_segment = Some(newest);
        // INVARIANT(counters-agree): each edit says how far the counters are.
        edit.next_file_number = Some(self.files.numbers.high_water());
        // A memtable may have entries of batches that are not visible yet.
        let flushed_to = edit.flushed.iter().map(|(_, seqno)| *seqno).max();
        edit.last_seqno = Some(self.topology.visible().max(flushed_to.unwrap_or_default()));
        let flushed_ranges: Vec<_> = edit.flushed.iter().map(|(range, _)| *range).collect();
        self.append(&mut edit)?;
        self.counts.edits.add(1);
        self.wal.raise_floor(floor);

        self.swap(&current, ranges);
        // Readers hold obsolete tables from now on. The age of these reads counts from here at the
        // latest.
        self.owners.memory.points.notice(self.environment.now());
        let number = current.number + 1;
        self.files.obsolete.added(tables, number);
        // All of a table may have been cut out meanwhile.
        let is_named = |table: &Arc<TableHandle>| {
            edit.added.iter().any(|(_, _, slice)| slice.number() == table.number())
        };
        let unnamed: Vec<_> = tables.iter().filter(|table| !is_named(table)).cloned().collect();
        self.files.obsolete.dropped(&unnamed, number);
        // Deleted once their last reader is gone.
        self.files.obsolete.dropped(&before.dropped_by(&edit, &version), number);
        drop((current, before, version));
        self.count_tables();

        if let Some(flushed) = flushed {
            // Counted before anybody who waits for the flush is told.
            let bytes = edit.added.iter().map(|(_, _, slice)| slice.file_bytes()).sum();
            self.counts.flush_bytes.add(bytes);
            self.counts.flushes.add(flushed.memtables.len() as u64);
            self.forget(flushed, flushed_ranges);
        }
        self.due.compaction.set();
        self.due.flush.set();
        self.wal.due.keeping.set();
        Ok(())
    }

    /// Makes `edit` durable, and with it the outcomes of changes.
    pub(super) fn append(&mut self, edit: &mut VersionEdit) -> Result<(), InstallFailure> {
        self.outcomes.put_into(edit);
        // An earlier edit may have named a larger number: those of flushes and changes need not be
        // visible yet. The manifest refuses one that falls.
        let recorded = self.manifest.image().last_seqno;
        edit.last_seqno = edit.last_seqno.map(|last| last.max(recorded));
        let edit = &*edit;
        let mut appended = manifest::append(&mut self.manifest, edit, &self.files);
        if let Err(failure) = &appended
            && self.manifest.failure().is_none()
            && self.failures.use_reserve(failure)
        {
            appended = manifest::append(&mut self.manifest, edit, &self.files);
        }
        let Err(failure) = appended else {
            self.failures.recover(Party::Manifest);
            self.outcomes.clear(&self.files.obsolete);
            return Ok(());
        };
        if self.manifest.failure().is_none() {
            self.failures.degrade(Party::Manifest, failure.clone());
            return Err(InstallFailure::NotInstalled(failure));
        }
        // After a power cut the manifest may or may not hold the edit. So nothing may be deleted or
        // acknowledged any more in this incarnation.
        self.failures.fail(failure.clone());
        Err(InstallFailure::Failed(failure))
    }

    /// Publishes `ranges` in place of those of `current`. Routes and keyspaces stay.
    pub(super) fn swap(&self, current: &Superversion, ranges: Vec<RangeEntry>) {
        let Superversion { number, epoch, born, .. } = *current;
        let keyspaces = Arc::clone(&current.keyspaces);
        self.publish(Superversion::new(number + 1, epoch, born, keyspaces, ranges));
    }

    /// The only store of the superversion.
    pub(super) fn publish(&self, next: Superversion) {
        #[cfg(debug_assertions)]
        if let Err(broken) = check(&next.version(self.files.tables.obsolete_files())) {
            panic!("the new version breaks a rule: {broken}");
        }
        self.topology.superversion.store(Arc::new(next));
    }

    /// INVARIANT(publish-before-forget): the version with these entries is current, so new readers
    /// do not need their memtables. The charge goes back to the accounts. `ranges` had these
    /// memtables.
    fn forget(&mut self, flushed: &Flushed, ranges: Vec<RangeId>) {
        let (superversion, now) = (self.topology.superversion.load_full(), self.environment.now());
        for id in ranges {
            let owner = &superversion.range(id).expect("it was just there").owner;
            let bytes = owner.with_state(|state| state.forget(&flushed.memtables));
            self.accounts.global.release(bytes as u64);
            owner.flushes.add(1);
            self.seal_policy.published(id, now);
            self.failures.recover(Party::Flush.of(id));
            self.failing.remove(&id);
            // The queue has room: a seal that waited for it happens now.
            self.seal_if_due(id);
        }
        // Whoever waits for the flush finds the memory released.
        self.waiters.published(&flushed.memtables);
    }

    pub(super) fn count_tables(&mut self) {
        let superversion = self.topology.superversion.load_full();
        self.table_bytes = superversion.ranges.iter().map(|range| range.stable.bytes()).sum();
    }

    /// The lowest log segment that holds an entry which is in no table, and the newest segment.
    /// Entries above `visible` are still on their way. Every other entry that is in no table is in
    /// a memtable of `ranges` (INVARIANT(watermark-at-seal)). So `visible` is read before the
    /// memtables are.
    pub(super) fn log_needed(
        &self,
        ranges: &[RangeEntry],
    ) -> Result<(FileNumber, FileNumber), Failure> {
        let mut oldest = self.topology.visible().next();
        for range in ranges {
            if let Some(first) = range.memtables().filter_map(|table| table.first_seqno()).min() {
                oldest = oldest.min(first);
            }
        }
        self.wal.segments_from(oldest)
    }

    /// INVARIANT(delete-only-by-version-manager): deletes the tables that no version names and no
    /// reader pins.
    pub(super) fn delete_obsolete(&mut self) {
        if self.failures.health.failure().is_some() {
            // The durable manifest is uncertain, and may still name them.
            return;
        }
        for number in self.files.tables.obsolete_files().take() {
            self.failures.damage.forget(number);
            match self.files.remove(number) {
                Ok(()) => self.counts.tables_deleted.add(1),
                // If it cannot be deleted, the next open deletes it.
                Err(error) => tracing::warn!(%error, "an obsolete table was left behind"),
            }
        }
    }

    pub(super) fn close(&mut self) -> Result<(), Failure> {
        if let Some(failure) = self.failures.health.failure() {
            return Err(failure);
        }
        let current = self.topology.superversion.load_full();
        let (floor, newest) = self.log_needed(&current.ranges)?;
        let mut edit = VersionEdit {
            log_floor: Some(floor),
            newest_segment: Some(newest),
            next_file_number: Some(self.files.numbers.high_water()),
            last_seqno: Some(self.topology.visible()),
            clean_close: true,
            ..VersionEdit::default()
        };
        match self.append(&mut edit) {
            Ok(()) => {
                self.wal.raise_floor(floor);
                let max = self.environment.config.space_reserve_bytes;
                self.failures.cut_reserve(reserve_wanted(max, 0, self.table_bytes));
                Ok(())
            }
            Err(InstallFailure::Failed(failure) | InstallFailure::NotInstalled(failure)) => {
                Err(failure)
            }
            Err(InstallFailure::Conflict(what)) => unreachable!("no table is in it, yet: {what}"),
        }
    }
}
