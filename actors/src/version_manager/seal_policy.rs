//! Seals that no writer asked for: of a range that pins the log, and of idle ranges.
//!
//! The manager looks after every message, and when the alarm set here goes off. Nothing in here is
//! on a writer's path: a range is found idle by a counter that it keeps anyway.

use super::VersionManager;
use super::cooldown::Cooldown;
use crate::failure::Party;
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

/// What the manager remembers of the seals of each range.
#[derive(Debug, Default)]
pub(super) struct SealPolicy {
    ranges: HashMap<RangeId, RangeSeals>,
    /// When to look again even if nothing happens.
    pub(super) alarm: Option<Instant>,
    /// The newest floor that the manifest was asked to record when no flush was due.
    let_go: FileNumber,
}

#[derive(Debug, Default)]
struct RangeSeals {
    cooldown: Cooldown,
    /// Why the range should be sealed, if somebody has asked.
    asked: Option<SealCause>,
    /// The count of applied batches when it was last seen to change, and when that was.
    quiet: Option<(u64, Instant)>,
}

impl SealPolicy {
    /// The range should be sealed because of `cause`, now or when its queue has room.
    pub(super) fn asked(&mut self, range: RangeId, cause: SealCause) {
        self.ranges.entry(range).or_default().asked.get_or_insert(cause);
    }

    /// Why the range is being sealed: the cause that was named first, or else its size.
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

    /// The range is gone.
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
    /// Seals what must be sealed although nobody asked for it.
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

    /// Takes one step towards a log within its limit: seals the range whose unflushed data is the
    /// oldest. The next step follows when that is published (INVARIANT(log-bounded)).
    fn bound_the_log(&mut self, now: Instant) {
        let max = self.environment.config.log_retained_bytes_max;
        // The log keeper writes this count and then wakes this thread. It may be out of date.
        if self.wal.counts.log_retained_bytes.get() <= max {
            return;
        }
        let floor = self.wal.floor();
        let log = self.wal.with_log(|log| {
            (log.segments.retained_bytes(floor), log.segments.current_first_seqno())
        });
        // If the log's seat has failed, the engine has failed.
        let Ok((retained, current)) = log else { return };
        let superversion = self.topology.superversion.load_full();
        let Some((first, range, is_active)) = oldest_unflushed(&superversion) else { return };
        // If that memtable is sealed, its flush is due. If its oldest entry is in the current
        // segment, nothing in memory pins more.
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

    /// Releases closed log segments if everything is in tables and no flush is due that would
    /// release them.
    fn let_go_of_log(&mut self) {
        // The count may be out of date, as above. The record of a change is needed until an edit
        // can say that the change has happened (INVARIANT(prepared-needs-its-record)).
        if self.wal.counts.log_retained_bytes.get() == 0 || !self.stamped.is_empty() {
            return;
        }
        let superversion = self.topology.superversion.load_full();
        if oldest_unflushed(&superversion).is_some() {
            return;
        }
        // If the log's seat has failed, the engine has failed.
        let Ok(needed) = self.log_needed(&superversion.ranges) else { return };
        // Tried once per segment. If it fails, the segments stay until the next edit.
        let in_trouble = self.failures.trouble_of(Party::Manifest).is_some();
        if needed.floor <= self.wal.floor().max(self.seal_policy.let_go) || in_trouble {
            return;
        }
        let mut edit =
            VersionEdit { last_seqno: Some(self.topology.visible()), ..VersionEdit::default() };
        let floor = needed.put_into(&mut edit);
        self.seal_policy.let_go = floor;
        if self.append(edit).is_ok() {
            self.wal.raise_floor(floor);
            self.wal.due.keeping.set();
        } else {
            // The edit was optional, so its failure is no trouble.
            self.failures.recover(Party::Manifest);
        }
    }

    /// Seals ranges that nobody has written to for a while, where that frees log segments, or
    /// memory while more than half of it is used. Other idle ranges cost nobody anything and stay
    /// as they are.
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
