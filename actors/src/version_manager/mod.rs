//! The version manager: every change of what readers see goes through here, one at a time.
//!
//! Owns:      the manifest, the current superversion, the deletion of tables.
//! Receives:  Install (flush worker, compaction workers), Seal (range owners), Relieve (the gate), LogGrown
//!            (the log's keeper), Flush, FlushFailed, Bury, Close.
//! Sends:     nothing; wakes the flush worker, and runs range owners' seats as their caller.
//! Publishes: `Superversion`, the log floor.
//! Stops:     after Close, or when its mailbox is closed and empty.
//!
//! INVARIANT(single-swapper): only `publish` below stores the superversion.
//! INVARIANT(manifest-before-swap): an edit is synced before the version it makes is published.

mod change;
mod manifest;
pub mod message;
pub(crate) mod outputs;
pub mod relief;
mod state;
#[cfg(test)]
mod tests;
mod upkeep;

use crate::failure::space::reserve_wanted;
use crate::failure::{Failure, Party, Scope};
use crate::flush_worker::l0_has_room;
use crate::kernel::jobs::Jobs;
use crate::kernel::mailbox::{Inbox, Mailbox};
use crate::kernel::reply::Reply;
use crate::log_writer::WalWriter;
use crate::range_owner::RangeOwner;
use crate::range_owner::state::OverlayState;
use crate::shared::{Counters, RangeEntry, Shared, Superversion};
use change::{Outcomes, Prepared, Stamped};
use futures::FutureExt;
use message::{Flushed, InstallFailure, VersionMessage};
use relief::{Candidate, Relief};
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::manifest::ManifestWriter;
use sluicedb_storage::memtable::{Memtable, MemtableWriter, memtable_with};
#[cfg(debug_assertions)]
use sluicedb_storage::version::check::check;
use sluicedb_storage::version::{RangeId, TableHandle, VersionEdit};
use sluicedb_storage::view::put_behind;
use state::FlushWaiters;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use upkeep::{SealCause, Upkeep};

/// The actor. Driven by a thread of its own: it syncs the manifest.
#[derive(Debug)]
pub struct VersionManager {
    shared: Arc<Shared>,
    wal: Arc<WalWriter>,
    inbox: Inbox<VersionMessage>,
    manifest: ManifestWriter,
    waiters: FlushWaiters,
    /// Ranges whose last flush failed, or that cannot be flushed.
    failing: BTreeSet<RangeId>,
    /// Writers wait for room in the engine, and none of what holds it can be flushed: is that shown?
    hopeless: bool,
    /// Bytes of all tables.
    table_bytes: u64,
    /// When the reserve was first seen to be in use, if it is.
    reserve_spent_since: Option<Instant>,
    upkeep: Upkeep,
    next_memtable_id: u64,
    next_range_id: u32,
    /// Changes that wait for their turn.
    prepared: VecDeque<Prepared>,
    /// Those that have had it, oldest first.
    stamped: VecDeque<Stamped>,
    outcomes: Outcomes,
    /// For the owners of new ranges.
    versions: Mailbox<VersionMessage>,
    turns: Jobs,
}

impl VersionManager {
    /// The manager of what `shared.superversion` publishes.
    pub fn new(
        shared: Arc<Shared>,
        wal: Arc<WalWriter>,
        (versions, inbox): (Mailbox<VersionMessage>, Inbox<VersionMessage>),
        turns: Jobs,
        manifest: ManifestWriter,
        next_memtable_id: u64,
    ) -> Self {
        let ids = manifest.image().ranges.keys();
        let next_range_id = ids.last().map_or(RangeId::FIRST.0, |last| last.0 + 1);
        Self {
            shared,
            wal,
            inbox,
            manifest,
            waiters: FlushWaiters::default(),
            failing: BTreeSet::new(),
            hopeless: false,
            table_bytes: 0,
            reserve_spent_since: None,
            upkeep: Upkeep::default(),
            next_memtable_id,
            next_range_id,
            prepared: VecDeque::new(),
            stamped: VecDeque::new(),
            outcomes: Outcomes::default(),
            versions,
            turns,
        }
    }

    /// The loop.
    pub async fn run(mut self) {
        self.count_tables();
        self.look_after_reserve();
        while let Some(message) = self.next_message().await {
            match message {
                VersionMessage::Install { edit, tables, flushed, reply } => {
                    let settled = self.settle().await.map_err(InstallFailure::NotInstalled);
                    reply.send(settled.and_then(|()| self.install(*edit, &tables, flushed)));
                }
                VersionMessage::Seal { range, memtable } => {
                    if self.active_id(range) == Some(memtable) {
                        self.seal_if_due(range);
                    }
                }
                VersionMessage::Relieve { scope: Scope::Local, .. } => self.seal_what_is_due(),
                VersionMessage::Relieve { scope: Scope::Global, bytes } => {
                    self.relieve_if_short(bytes);
                }
                VersionMessage::Flush { reply } => self.flush_all(reply),
                VersionMessage::FlushFailed { range, memtables, failure } => {
                    self.waiters.failed(&memtables, &failure);
                    if self.shared.superversion.load().range(range).is_some() {
                        self.failing.insert(range);
                    }
                }
                VersionMessage::Change { change, reply } => self.prepare(change, reply),
                // What these ask for is looked after below, after every message.
                VersionMessage::LogGrown | VersionMessage::Bury => {}
                VersionMessage::Close { reply } => {
                    let settled = self.settle().await;
                    let result = settled.and_then(|()| self.close());
                    self.bury();
                    reply.send(result);
                    break;
                }
            }
            self.look_after_changes().await;
            self.bury();
            self.look_after_waiters();
            self.look_after_memtables();
            self.look_after_reserve();
            self.shared.show_pressure();
        }
        self.waiters.fail(&Failure::Closed);
        self.refuse_changes(&Failure::Closed);
    }

    /// The next message; the alarm, and that the reserve is in use, are one that says that something may
    /// be due.
    async fn next_message(&mut self) -> Option<VersionMessage> {
        futures::select_biased! {
            message = self.inbox.recv().fuse() => message,
            () = self.shared.reserve_due.wait().fuse() => Some(VersionMessage::LogGrown),
            () = pin!(self.shared.until(self.upkeep.alarm).fuse()) => Some(VersionMessage::LogGrown),
        }
    }

    /// Edit -> durable -> swap -> forget.
    fn install(
        &mut self,
        mut edit: VersionEdit,
        tables: &[Arc<TableHandle>],
        mut flushed: Option<Flushed>,
    ) -> Result<(), InstallFailure> {
        if let Some(failure) = self.shared.health.failure() {
            return Err(InstallFailure::Failed(failure));
        }
        let current = self.shared.superversion.load_full();
        let before = current.version(self.shared.tables.graveyard());
        if let Some(flushed) = &mut flushed {
            state::follow(&current, flushed, &mut edit);
        }
        let flushed = flushed.as_ref();
        let version = before
            .apply(&edit, tables)
            .map_err(|conflict| InstallFailure::Conflict(conflict.to_string()))?;
        let mut ranges = state::without(&current.ranges, flushed);
        put_behind(&mut ranges, &version);
        let (floor, newest) = self.log_needed(&ranges).map_err(InstallFailure::Failed)?;
        edit.log_floor = Some(floor);
        edit.newest_segment = Some(newest);
        edit.next_file_number = Some(self.shared.file_numbers.high_water());
        // A memtable may have entries of batches that are not visible yet.
        let flushed_to = edit.flushed.iter().map(|(_, seqno)| *seqno).max();
        edit.last_seqno = Some(self.shared.visible().max(flushed_to.unwrap_or_default()));
        self.append(&mut edit)?;
        Counters::add(&self.shared.counters.edits, 1);
        self.shared.log_floor.store(floor.0, Ordering::Release);

        self.swap(&current, ranges);
        for handle in before.dropped_by(&edit, &version) {
            // Buried once its last reader is gone.
            handle.mark_obsolete();
        }
        drop((current, before, version));
        self.count_tables();

        if let Some(flushed) = flushed {
            // Before anybody who waits for the flush is told.
            let bytes = edit.added.iter().map(|(_, _, slice)| slice.file_bytes()).sum();
            Counters::add(&self.shared.counters.flush_bytes, bytes);
            Counters::add(&self.shared.counters.flushes, flushed.memtables.len() as u64);
            self.forget(flushed);
        }
        self.shared.compaction_due.set();
        self.shared.flush_due.set();
        self.shared.log_keeping_due.set();
        Ok(())
    }

    /// Makes `edit` durable, and with it what became of changes.
    fn append(&mut self, edit: &mut VersionEdit) -> Result<(), InstallFailure> {
        self.outcomes.put_into(edit);
        let edit = &*edit;
        let mut appended = manifest::append(&mut self.manifest, edit, &self.shared);
        if let Err(failure) = &appended
            && self.manifest.failure().is_none()
            && self.shared.use_reserve(failure)
        {
            appended = manifest::append(&mut self.manifest, edit, &self.shared);
        }
        let Err(failure) = appended else {
            self.shared.recover(Party::Manifest);
            self.outcomes.clear();
            return Ok(());
        };
        if self.manifest.failure().is_none() {
            self.shared.degrade(Party::Manifest, failure.clone());
            return Err(InstallFailure::NotInstalled(failure));
        }
        // The manifest may or may not hold the edit after a power cut: nothing can be deleted and nothing
        // acknowledged any more in this incarnation.
        self.shared.fail(failure.clone());
        Err(InstallFailure::Failed(failure))
    }

    /// `ranges`, which are those of `current`, take their place.
    fn swap(&self, current: &Superversion, ranges: Vec<RangeEntry>) {
        let Superversion { number, epoch, born, .. } = *current;
        self.publish(Superversion::new(number + 1, epoch, born, ranges));
    }

    /// The one store of the superversion.
    fn publish(&self, next: Superversion) {
        #[cfg(debug_assertions)]
        if let Err(broken) = check(&next.version(self.shared.tables.graveyard())) {
            panic!("the new version breaks a rule: {broken}");
        }
        self.shared.superversion.store(Arc::new(next));
    }

    /// INVARIANT(publish-before-forget): the version with these entries is current, so their memory
    /// is no longer needed by new readers and its charge goes back to the accounts.
    fn forget(&mut self, flushed: &Flushed) {
        let superversion = self.shared.superversion.load_full();
        let range = superversion.range(flushed.range).expect("ranges outlive their memtables");
        let owner = &range.owner;
        for id in &flushed.memtables {
            let bytes = owner.with_state(|state| state.forget(*id)) as u64;
            self.shared.global.release(bytes);
        }
        Counters::add(&owner.flushes, 1);
        self.waiters.published(&flushed.memtables);
        self.upkeep.published(flushed.range, self.shared.runtime.now());
        self.shared.recover(Party::Flush.of(flushed.range));
        self.failing.remove(&flushed.range);
        // The queue has room: a seal that waited for it happens now.
        self.seal_if_due(flushed.range);
    }

    fn count_tables(&mut self) {
        let superversion = self.shared.superversion.load_full();
        self.table_bytes = superversion.ranges.iter().map(|range| range.stable.bytes()).sum();
    }

    fn look_after_reserve(&mut self) {
        let (max, memory) = (self.shared.config.space_reserve_bytes, self.shared.global.used());
        let wanted = reserve_wanted(max, memory, self.table_bytes);
        let spent_since = &mut self.reserve_spent_since;
        if let Some(at) = self.shared.tend_reserve(wanted, spent_since) {
            self.upkeep.look_again(at);
        }
    }

    /// Whoever began to wait before this look is seen, and whoever begins later asks for another one
    /// (`relief::on_wait`): so nobody waits while something could be sealed for him. Who was woken and
    /// has not come has room, as far as anybody knows; if he finds none when he comes, he begins anew.
    fn look_after_waiters(&mut self) {
        let superversion = self.shared.superversion.load_full();
        let owners = superversion.ranges.iter().map(|range| &range.owner);
        for owner in owners.filter(|owner| owner.local.is_short()) {
            // What is dead in there is room that somebody wants now.
            owner.with_state(OverlayState::seal_when_full);
            self.seal_if_due(owner.id);
        }
        self.relieve_if_short(0);
    }

    /// Nothing is sealed at less than its size for room that is there by now.
    fn relieve_if_short(&mut self, bytes: u64) {
        let global = &self.shared.global;
        if self.hopeless
            || global.is_short()
            || global.used().saturating_add(bytes) > global.limit()
        {
            self.relieve();
        }
    }

    /// The lowest log segment that holds an entry which is in no table, and the newest segment of all:
    /// everything above `visible` is still on its way, everything else that is not in a table is in a memtable of `ranges`
    /// (INVARIANT(watermark-at-seal)). `visible` is read before the memtables are looked at.
    fn log_needed(&self, ranges: &[RangeEntry]) -> Result<(FileNumber, FileNumber), Failure> {
        let mut oldest = self.shared.visible().next();
        for range in ranges {
            if let Some(first) = range.memtables().filter_map(|table| table.first_seqno()).min() {
                oldest = oldest.min(first);
            }
        }
        self.wal.segments_from(oldest)
    }

    fn active_id(&self, range: RangeId) -> Option<u64> {
        let superversion = self.shared.superversion.load_full();
        superversion.range(range).map(|range| range.active.id())
    }

    /// Seals the range's active memtable as soon as it has an entry and the queue has room.
    fn seal(&mut self, range: RangeId, cause: SealCause) {
        let superversion = self.shared.superversion.load_full();
        let Some(entry) = superversion.range(range) else { return };
        entry.owner.with_state(OverlayState::seal_soon);
        self.upkeep.asked(range, cause);
        self.seal_if_due(range);
    }

    fn seal_what_is_due(&mut self) {
        for range in &self.shared.superversion.load_full().ranges {
            self.seal_if_due(range.id());
        }
    }

    /// A fresh active memtable for `range`; its old one, which is not empty, goes to the flush
    /// worker. Unless it is not time, or the queue is full: then when that has changed.
    fn seal_if_due(&mut self, range: RangeId) {
        let current = self.shared.superversion.load_full();
        let Some(at) = current.ranges.iter().position(|entry| entry.id() == range) else { return };
        let owner = &current.ranges[at].owner;
        if !owner.with_state(|state| state.is_seal_due()) {
            return;
        }
        let (active, writer) = self.fresh_memtable();
        let mut ranges = current.ranges.clone();
        let old = std::mem::replace(&mut ranges[at].active, active);
        ranges[at].sealed.insert(0, old);
        // INVARIANT(published-before-used): readers find the new memtable before its owner writes
        // to it.
        self.swap(&current, ranges);
        let local_bytes = owner.with_state(|state| state.seal(writer));
        owner.local.release(local_bytes);
        Counters::add(&owner.rotations, 1);
        let counters = &self.shared.counters;
        let counter = match self.upkeep.why(range) {
            SealCause::Size => &counters.seals_size,
            SealCause::Pressure => &counters.seals_pressure,
            SealCause::Log => &counters.seals_log,
            SealCause::Idle => &counters.seals_idle,
            SealCause::Flush => &counters.seals_flush,
        };
        Counters::add(counter, 1);
        self.shared.flush_due.set();
    }

    fn fresh_memtable(&mut self) -> (Arc<Memtable>, MemtableWriter) {
        let id = self.next_memtable_id;
        self.next_memtable_id += 1;
        memtable_with(id, self.shared.memtables.clone())
    }

    /// Somebody waits for room in the engine (design: cold memtables can never starve a writer).
    fn relieve(&mut self) {
        let current = self.shared.superversion.load_full();
        let mut accounted = 0;
        let candidates = current.ranges.iter().map(|range| {
            let active_bytes = range.owner.with_state(|state| state.active_bytes());
            accounted += active_bytes + range.owner.sizes.sealed_bytes();
            Candidate {
                range: range.id(),
                active_bytes,
                oldest: range.active.first_seqno(),
                has_sealed: !range.sealed.is_empty(),
                can_flush: self.can_flush(range),
            }
        });
        let relief = relief::choose(candidates);
        self.show_hope(&current, relief);
        match relief {
            Relief::Coming => {}
            Relief::Seal(range) => self.seal(range, SealCause::Pressure),
            Relief::None => {
                // What is on its way into a memtable was not counted: then its arrival is the time.
                if self.shared.global.used() > accounted as u64 {
                    for range in &current.ranges {
                        if self.can_flush(range) {
                            range.owner.with_state(OverlayState::seal_soon);
                        }
                    }
                }
            }
        }
    }

    /// Says to those who wait for room in the engine whether it can come: not if all that holds it belongs
    /// to ranges that cannot be flushed.
    fn show_hope(&mut self, current: &Superversion, relief: Relief) {
        let trouble = |owner: &Arc<RangeOwner>| self.shared.trouble_of(Party::Flush.of(owner.id));
        let holds =
            |owner: &&Arc<RangeOwner>| owner.sizes.active_bytes() + owner.sizes.sealed_bytes() > 0;
        let mut why = None;
        if relief == Relief::None && !self.shared.health.is_running() {
            let mut holders = current.ranges.iter().map(|range| &range.owner).filter(holds);
            why = holders.next().and_then(trouble);
            why = why.filter(|_| holders.all(|owner| trouble(owner).is_some()));
        }
        match why {
            Some(failure) if !self.hopeless => {
                self.shared.degrade(Party::Flush, failure);
                self.hopeless = true;
            }
            None if self.hopeless => {
                self.shared.recover(Party::Flush);
                self.hopeless = false;
            }
            _ => {}
        }
    }

    /// Does nothing keep the flush worker from this range?
    fn can_flush(&self, range: &RangeEntry) -> bool {
        let room = l0_has_room(&range.stable, &self.shared.config);
        room && !self.failing.contains(&range.id())
    }

    fn flush_all(&mut self, reply: Reply<Result<Seqno, Failure>>) {
        let current = self.shared.superversion.load_full();
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
                // What failed before and pauses is tried for this caller, who is told what comes of it.
                self.shared.try_now();
            }
            Err(failure) => {
                reply.send(Err(failure));
            }
        }
    }

    /// INVARIANT(delete-only-by-version-manager): tables that no version names and no reader pins.
    fn bury(&mut self) {
        if self.shared.health.failure().is_some() {
            // The durable manifest is uncertain: it may still name them.
            return;
        }
        for number in self.shared.tables.graveyard().take() {
            manifest::delete_table(&self.shared, number);
        }
    }

    fn close(&mut self) -> Result<(), Failure> {
        if let Some(failure) = self.shared.health.failure() {
            return Err(failure);
        }
        let current = self.shared.superversion.load_full();
        let (floor, newest) = self.log_needed(&current.ranges)?;
        let mut edit = VersionEdit {
            log_floor: Some(floor),
            newest_segment: Some(newest),
            next_file_number: Some(self.shared.file_numbers.high_water()),
            last_seqno: Some(self.shared.visible()),
            clean_close: true,
            ..VersionEdit::default()
        };
        match self.append(&mut edit) {
            Ok(()) => Ok(()),
            Err(InstallFailure::Failed(failure) | InstallFailure::NotInstalled(failure)) => {
                Err(failure)
            }
            Err(InstallFailure::Conflict(what)) => unreachable!("no table is in it, yet: {what}"),
        }
    }
}
