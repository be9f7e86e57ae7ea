//! Seals that no writer asked for: of a range that pins the log, and of ranges that lie idle.
//!
//! Looked at after every message, and when the alarm set here goes off. Nothing in here is on a
//! writer's path: that a range is idle is read off a counter that it keeps anyway.

use super::VersionManager;
use crate::failure::Party;
use crate::failure::cooldown::Cooldown;
use crate::range_owner::{RangeEntry, Superversion};
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::version::{RangeId, VersionEdit};
use std::collections::HashMap;
use std::time::Instant;

/// Why a memtable was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SealCause {
    /// It was full.
    Size,
    /// Writers waited for room.
    Pressure,
    /// It pinned more of the log than may be retained.
    Log,
    /// Nobody wrote to it, and it pinned log or memory.
    Idle,
    /// Somebody called `flush`.
    Flush,
}

/// What the manager remembers about each range.
#[derive(Debug, Default)]
pub(super) struct SealPolicy {
    ranges: HashMap<RangeId, RangeSeals>,
    /// When to look again although nothing has happened.
    pub(super) alarm: Option<Instant>,
    /// The last segment of which the manifest was to be told that nothing before it is needed.
    let_go: FileNumber,
}

#[derive(Debug, Default)]
struct RangeSeals {
    cooldown: Cooldown,
    /// Why it is to be sealed, if somebody has asked.
    asked: Option<SealCause>,
    /// The number of batches applied when it was last seen to have changed, and when that was.
    quiet: Option<(u64, Instant)>,
}

impl SealPolicy {
    /// The range is to be sealed because of `cause`, now or when its queue has room.
    pub(super) fn asked(&mut self, range: RangeId, cause: SealCause) {
        self.ranges.entry(range).or_default().asked.get_or_insert(cause);
    }

    /// Why the range is being sealed: what was asked first, or else that it is full.
    pub(super) fn why(&mut self, range: RangeId) -> SealCause {
        let asked = self.ranges.get_mut(&range).and_then(|kept| kept.asked.take());
        asked.unwrap_or(SealCause::Size)
    }

    /// Memtables of the range are published.
    pub(super) fn published(&mut self, range: RangeId, now: Instant) {
        if let Some(kept) = self.ranges.get_mut(&range) {
            kept.cooldown.published(now);
        }
    }

    /// The range has gone.
    pub(super) fn forget(&mut self, range: RangeId) {
        self.ranges.remove(&range);
    }

    pub(super) fn look_again(&mut self, at: Instant) {
        self.alarm = Some(self.alarm.map_or(at, |alarm| alarm.min(at)));
    }

    /// Since when has nothing been written to the range?
    fn quiet_since(&mut self, range: RangeId, batches: u64, now: Instant) -> Instant {
        let quiet = &mut self.ranges.entry(range).or_default().quiet;
        match quiet {
            Some((seen, since)) if *seen == batches => *since,
            _ => {
                *quiet = Some((batches, now));
                now
            }
        }
    }
}

impl VersionManager {
    /// Seals what has to be sealed although nobody asked for it.
    pub(super) fn look_after_memtables(&mut self) {
        if self.failures.health.failure().is_some() {
            self.seal_policy.alarm = None;
            return;
        }
        let now = self.environment.now();
        self.seal_policy.alarm = None;
        self.bound_the_log(now);
        self.let_go_of_log();
        self.seal_idle(now);
    }

    /// One step towards a log within its limit: the range whose unflushed data is the oldest is
    /// sealed. The next step follows when that is published (INVARIANT(log-bounded)).
    fn bound_the_log(&mut self, now: Instant) {
        let max = self.environment.config.log_retained_bytes_max;
        // Written by the thread that keeps the log, which also wakes this one; may be out of date.
        if self.wal.counts.log_retained_bytes.get() <= max {
            return;
        }
        let floor = self.wal.floor();
        let log = self.wal.with_log(|log| {
            (log.segments.retained_bytes(floor), log.segments.current_first_seqno())
        });
        // A failed log has failed the engine.
        let Ok((retained, current)) = log else { return };
        let superversion = self.topology.superversion.load_full();
        let Some((first, range, is_active)) = oldest_unflushed(&superversion) else { return };
        // Sealed already: it is on its way. In the current segment: nothing in memory pins more.
        if retained <= max || !is_active || first >= current {
            return;
        }
        let cooldown = &mut self.seal_policy.ranges.entry(range).or_default().cooldown;
        if cooldown.is_over(now) {
            cooldown.sealed(now);
            self.seal(range, SealCause::Log);
        } else if let Some(at) = cooldown.ends(now) {
            self.seal_policy.look_again(at);
        }
    }

    /// Everything is in tables and the log has gone on in another segment since: no flush will come
    /// that says that the closed ones are not needed.
    fn let_go_of_log(&mut self) {
        // May be out of date, as above. The record of a change is needed until an edit can say that
        // it has happened (INVARIANT(prepared-needs-its-record)).
        if self.wal.counts.log_retained_bytes.get() == 0 || !self.stamped.is_empty() {
            return;
        }
        let superversion = self.topology.superversion.load_full();
        if oldest_unflushed(&superversion).is_some() {
            return;
        }
        // A failed log has failed the engine.
        let Ok((floor, newest)) = self.log_needed(&superversion.ranges) else { return };
        // Once for each segment: where it does not succeed they stay until the next edit.
        let in_trouble = self.failures.trouble_of(Party::Manifest).is_some();
        if floor <= self.wal.floor().max(self.seal_policy.let_go) || in_trouble {
            return;
        }
        self.seal_policy.let_go = floor;
        let mut edit = VersionEdit {
            log_floor: Some(floor),
            newest_segment: Some(newest),
            next_file_number: Some(self.files.numbers.high_water()),
            last_seqno: Some(self.topology.visible().max(self.manifest.image().last_seqno)),
            ..VersionEdit::default()
        };
        if self.append(&mut edit).is_ok() {
            self.counts.edits.add(1);
            self.wal.raise_floor(floor);
            self.wal.due.keeping.set();
        } else {
            // Nobody needs it.
            self.failures.recover(Party::Manifest);
        }
    }

    /// Seals ranges that nobody has written to for a while, where that frees something: segments of
    /// the log, or memory when more than half of it is taken. Others may stay as they are for ever:
    /// they cost nobody anything.
    fn seal_idle(&mut self, now: Instant) {
        let Some(after) = self.environment.config.idle_seal_after else { return };
        let superversion = self.topology.superversion.load_full();
        let mut idle = Vec::new();
        for RangeEntry { active, owner, .. } in &superversion.ranges {
            let Some(first) = active.first_seqno() else { continue };
            let since = self.seal_policy.quiet_since(owner.id, owner.sizes.batches(), now);
            if since + after > now {
                self.seal_policy.look_again(since + after);
            } else {
                idle.push((owner, first));
            }
        }
        if idle.is_empty() {
            return;
        }
        let Ok(current) = self.wal.with_log(|log| log.segments.current_first_seqno()) else {
            return;
        };
        let ranges = superversion.ranges.iter();
        let sealed: u64 = ranges.map(|range| range.owner.sizes.sealed_bytes() as u64).sum();
        let half = self.accounts.global.limit() / 2;
        let mut staying = self.accounts.global.used().saturating_sub(sealed);
        for (owner, first) in idle {
            if first < current || staying > half {
                staying = staying.saturating_sub(owner.sizes.active_bytes() as u64);
                self.seal(owner.id, SealCause::Idle);
            }
        }
    }
}

/// The oldest entry that is in no table: its number, its range, and whether it is in the active
/// memtable.
fn oldest_unflushed(superversion: &Superversion) -> Option<(Seqno, RangeId, bool)> {
    let memtables = superversion.ranges.iter().flat_map(|range| {
        let sealed = range.sealed.iter().map(|slice| (slice.table(), false));
        let all = sealed.chain([(&range.active, true)]);
        all.filter_map(|(table, active)| Some((table.first_seqno()?, range.id(), active)))
    });
    memtables.min_by_key(|(first, _, _)| *first)
}
