//! How a version replaces another: edits are validated, made durable and swapped in; then memory is
//! released.
//!
//! Installs that wait one behind the other in the mailbox form a group: each is validated against
//! the version with those before it, and each is refused alone. One sync makes the edits durable,
//! and one swap shows them.
//!
//! INVARIANT(single-swapper): only `publish` below stores the superversion.
//! INVARIANT(manifest-before-swap): an edit is synced before the version it makes is published.

use super::message::{Flushed, Install, InstallFailure, Installed, VersionMessage, Work};
use super::{VersionManager, state};
use crate::failure::space::reserve_wanted;
use crate::failure::{Failure, Party};
use crate::log_writer::SegmentsNeeded;
use crate::range_owner::{RangeEntry, Superversion};
use sluicedb_kernel::reply::Reply;
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::version::check::check;
use sluicedb_storage::version::{RangeId, TableHandle, Version, VersionEdit};
use sluicedb_storage::view::put_behind;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A group has at most this many installs.
pub(crate) const GROUP_INSTALLS_MAX: usize = 32;
/// A group takes no further install once its edits have this many bytes.
pub(super) const GROUP_BYTES_MAX: u64 = 1 << 20;

/// Installs under one sync. Nobody sees any of it yet.
struct Group {
    /// The superversion that shows them.
    number: u64,
    /// What readers see, with the edits so far.
    next: Arc<Superversion>,
    version: Version,
    /// The installs so far. Told once all of the group is published.
    replies: Vec<(Reply<Installed>, Installed)>,
    appended: Vec<Appended>,
}

/// An edit that is in the manifest, and what follows once it is durable and published.
struct Appended {
    floor: FileNumber,
    /// Tables that it brought.
    tables: Vec<Arc<TableHandle>>,
    /// Tables that no slice names after it.
    dropped: Vec<Arc<TableHandle>>,
    flush: Option<AppendedFlush>,
}

struct AppendedFlush {
    flushed: Flushed,
    ranges: Vec<RangeId>,
    bytes: u64,
}

impl VersionManager {
    /// Installs `first`, and every install that waits right behind it, up to a limit.
    pub(super) async fn install(&mut self, first: Install) {
        if let Err(failed) = self.settle().await {
            first.reply.send(Err(InstallFailure::NotInstalled(failed.failure)));
            return;
        }
        let current = self.topology.superversion.load_full();
        let mut group = Group {
            number: current.number + 1,
            version: current.version(self.files.tables.obsolete_files()),
            next: current,
            replies: Vec::new(),
            appended: Vec::new(),
        };
        self.join(&mut group, first);
        let is_install = |message: &VersionMessage| matches!(message, VersionMessage::Install(_));
        while group.replies.len() < GROUP_INSTALLS_MAX
            && self.manifest.unsynced_bytes() < GROUP_BYTES_MAX
            && let Some(VersionMessage::Install(next)) = self.inbox.try_recv_if(is_install)
        {
            // A crash may leave the edits so far without the next one.
            self.check_rules(&group.next);
            self.join(&mut group, next);
        }
        let Group { next, version, mut replies, appended, .. } = group;
        drop(version);
        if !appended.is_empty() {
            match self.sync() {
                Ok(()) => self.show(next, appended),
                Err(failure) => {
                    for (_, installed) in replies.iter_mut().filter(|(_, end)| end.is_ok()) {
                        *installed = Err(InstallFailure::Failed(failure.clone()));
                    }
                }
            }
        }
        for (reply, installed) in replies {
            reply.send(installed);
        }
    }

    /// Takes an install into the group, or refuses it and leaves the group as it is.
    fn join(&mut self, group: &mut Group, install: Install) {
        let Install { edit, tables, work, reply } = install;
        let joined = self.append_to(group, *edit, tables, work);
        group.replies.push((reply, joined.map(|appended| group.appended.push(appended))));
    }

    /// Appends the edit of an install.
    fn append_to(
        &mut self,
        group: &mut Group,
        mut edit: VersionEdit,
        tables: Vec<Arc<TableHandle>>,
        work: Work,
    ) -> Result<Appended, InstallFailure> {
        if let Some(failure) = self.failures.health.failure() {
            return Err(InstallFailure::Failed(failure));
        }
        let before = &group.version;
        let flushed = match work {
            Work::Flushed(flushed) => {
                edit = state::bring_home(&group.next, &flushed, &tables)
                    .map_err(|error| InstallFailure::NotInstalled(Failure::storage(error)))?;
                Some(flushed)
            }
            Work::Merged(gone) => {
                state::are_there(before, &gone).map_err(InstallFailure::Conflict)?;
                None
            }
        };
        let version = before
            .apply(&edit, &tables)
            .map_err(|conflict| InstallFailure::Conflict(conflict.to_string()))?;
        let mut ranges = state::without(&group.next.ranges, flushed.as_ref());
        put_behind(ranges.iter_mut(), &version);
        let needed = self.log_needed(&ranges).map_err(InstallFailure::Failed)?;
        let floor = needed.put_into(&mut edit);
        // A memtable may have entries of batches that are not visible yet.
        let flushed_to = edit.flushed.iter().map(|(_, seqno)| *seqno).max();
        edit.last_seqno = Some(self.topology.visible().max(flushed_to.unwrap_or_default()));
        let flush = flushed.map(|flushed| AppendedFlush {
            flushed,
            ranges: edit.flushed.iter().map(|(range, _)| *range).collect(),
            bytes: edit.added.iter().map(|(_, _, slice)| slice.file_bytes()).sum(),
        });
        self.append_unsynced(&mut edit).map_err(|failure| match self.manifest.failure() {
            None => InstallFailure::NotInstalled(failure),
            Some(_) => InstallFailure::Failed(failure),
        })?;
        let mut dropped = before.dropped_by(&edit, &version);
        // All of a table may have been cut out meanwhile.
        let is_named = |table: &Arc<TableHandle>| {
            edit.added.iter().any(|(_, _, slice)| slice.number() == table.number())
        };
        dropped.extend(tables.iter().filter(|table| !is_named(table)).cloned());
        group.next = Arc::new(with_ranges(&group.next, group.number, ranges));
        group.version = version;
        Ok(Appended { floor, tables, dropped, flush })
    }

    /// Publishes what a group has made durable, and forgets what nobody needs any more.
    fn show(&mut self, next: Arc<Superversion>, appended: Vec<Appended>) {
        let number = next.number;
        self.publish(next);
        // Readers hold obsolete tables from now on. The age of these reads counts from here at the
        // latest.
        self.owners.memory.points.notice(self.environment.now());
        let mut flushes = Vec::new();
        for Appended { floor, tables, dropped, flush } in appended {
            self.wal.raise_floor(floor);
            self.files.obsolete.added(&tables, number);
            // Deleted once their last reader is gone.
            self.files.obsolete.dropped(&dropped, number);
            flushes.extend(flush);
        }
        self.count_tables();
        for AppendedFlush { flushed, ranges, bytes } in flushes {
            // Counted before anybody who waits for the flush is told.
            self.counts.flush_bytes.add(bytes);
            self.counts.flushes.add(flushed.memtables.len() as u64);
            self.forget(&flushed, ranges);
        }
        self.due.compaction.set();
        self.due.flush.set();
        self.wal.due.keeping.set();
    }

    /// Publishes `ranges` in place of those of `current`. Routes and keyspaces stay.
    pub(super) fn swap(&self, current: &Superversion, ranges: Vec<RangeEntry>) {
        self.publish(Arc::new(with_ranges(current, current.number + 1, ranges)));
    }

    /// The only store of the superversion.
    pub(super) fn publish(&self, next: Arc<Superversion>) {
        self.check_rules(&next);
        self.topology.superversion.store(next);
    }

    /// Walks the rules of a version, in debug builds.
    fn check_rules(&self, next: &Superversion) {
        if cfg!(debug_assertions)
            && let Err(broken) = check(&next.version(self.files.tables.obsolete_files()))
        {
            panic!("the new version breaks a rule: {broken}");
        }
    }

    /// INVARIANT(publish-before-forget): the version with these entries is current, so new readers
    /// do not need their memtables. The charge goes back to the accounts. `ranges` had these
    /// memtables.
    fn forget(&mut self, flushed: &Flushed, ranges: Vec<RangeId>) {
        let (superversion, now) = (self.topology.superversion.load_full(), self.environment.now());
        let ranges: BTreeSet<_> = ranges.into_iter().collect();
        let is_one = |(_, entry): &(usize, &RangeEntry)| ranges.contains(&entry.id());
        let mut flushed_at = Vec::with_capacity(ranges.len());
        for (at, entry) in superversion.ranges.iter().enumerate().filter(is_one) {
            let (id, owner) = (entry.id(), &entry.owner);
            let bytes = owner.with_state(|state| state.forget(&flushed.memtables));
            self.accounts.global.release(bytes as u64);
            owner.flushes.add(1);
            self.seal_policy.published(id, now);
            self.failures.recover(Party::Flush.of(id));
            self.failing.remove(&id);
            flushed_at.push(at);
        }
        // The queues have room: a seal that waited for it happens now.
        self.seal_due(&superversion, flushed_at);
        // Whoever waits for the flush finds the memory released.
        self.waiters.published(&flushed.memtables);
    }

    pub(super) fn count_tables(&mut self) {
        let superversion = self.topology.superversion.load_full();
        self.table_bytes = superversion.ranges.iter().map(|range| range.stable.bytes()).sum();
    }

    /// The log segments from the lowest one on that holds an entry which is in no table. Entries
    /// above `visible` are still on their way. Every other entry that is in no table is in a
    /// memtable of `ranges` (INVARIANT(watermark-at-seal)). So `visible` is read before the
    /// memtables are.
    pub(super) fn log_needed(&self, ranges: &[RangeEntry]) -> Result<SegmentsNeeded, Failure> {
        let mut oldest = self.topology.visible().next();
        for range in ranges {
            if let Some(first) = range.memtables().filter_map(|table| table.first_seqno()).min() {
                oldest = oldest.min(first);
            }
        }
        let needed = self.wal.segments_from(oldest)?;
        debug_assert!(needed.floor >= self.manifest.image().log_floor, "counters-never-fall");
        Ok(needed)
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
        let needed = self.log_needed(&current.ranges)?;
        let mut edit = VersionEdit {
            last_seqno: Some(self.topology.visible()),
            clean_close: true,
            ..VersionEdit::default()
        };
        let floor = needed.put_into(&mut edit);
        self.append(edit)?;
        self.wal.raise_floor(floor);
        let max = self.environment.config.space_reserve_bytes;
        self.failures.cut_reserve(reserve_wanted(max, 0, self.table_bytes));
        Ok(())
    }
}

/// The superversion `number` with the routes and keyspaces of `current`, and these ranges.
fn with_ranges(current: &Superversion, number: u64, ranges: Vec<RangeEntry>) -> Superversion {
    let Superversion { epoch, born, .. } = *current;
    Superversion::new(number, epoch, born, Arc::clone(&current.keyspaces), ranges)
}
