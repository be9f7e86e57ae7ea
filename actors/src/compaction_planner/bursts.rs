//! Which ranges are in a burst of writes, so that their L0 had better wait for the next flush.
//!
//! A merge of L0 takes about as many times as long as a flush as it has runs. So where the next
//! memtable got more than such a part of its size while the last one was flushed, it will be
//! flushed before the merge ends. That is looked at once per flush. The flush after it is then
//! expected as soon as the last one came after the one before. If twice as much time passes without
//! it, the burst is over, and L0 waits no longer.

use sluicedb_storage::key::Seqno;
use sluicedb_storage::version::RangeId;
use sluicedb_storage::view::{RangeEntry, Superversion};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Flushes further apart than this are no burst: a merge of L0 does not take as long.
const APART_MAX: Duration = Duration::from_secs(10);

/// The last flush of a range.
#[derive(Debug)]
struct LastFlush {
    flushed: Seqno,
    at: Instant,
    /// Until when the next one is waited for, if at all.
    until: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bursts(BTreeMap<RangeId, LastFlush>);

impl Bursts {
    /// Looks for flushes since the last call. `fills`: did the next memtable of the range get so
    /// much meanwhile?
    pub(super) fn follow<O>(
        &mut self,
        superversion: &Superversion<O>,
        now: Instant,
        fills: impl Fn(&RangeEntry<O>) -> bool,
    ) {
        for entry in &superversion.ranges {
            let flushed = entry.stable.flushed_seqno;
            let first = || LastFlush { flushed, at: now, until: None };
            let last = self.0.entry(entry.id()).or_insert_with(first);
            if last.flushed != flushed {
                let apart = now.saturating_duration_since(last.at);
                let until = (apart <= APART_MAX && fills(entry)).then(|| now + 2 * apart);
                *last = LastFlush { flushed, at: now, until };
            }
        }
        // All that are there have an entry, so only more than that means that one is gone.
        if self.0.len() > superversion.ranges.len() {
            let live: BTreeSet<_> = superversion.ranges.iter().map(RangeEntry::id).collect();
            self.0.retain(|range, _| live.contains(range));
        }
    }

    /// The ranges whose L0 waits now.
    pub(super) fn ranges(&self, now: Instant) -> BTreeSet<RangeId> {
        self.ends(now).map(|(range, _)| range).collect()
    }

    /// When the first of them waits no longer.
    pub(super) fn next_end(&self, now: Instant) -> Option<Instant> {
        self.ends(now).map(|(_, end)| end).min()
    }

    fn ends(&self, now: Instant) -> impl Iterator<Item = (RangeId, Instant)> {
        let ends = self.0.iter().filter_map(|(range, last)| Some((*range, last.until?)));
        ends.filter(move |(_, end)| *end > now)
    }
}
