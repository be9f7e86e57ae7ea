//! Which ranges have something due, without looking at all of them each time.
//!
//! What is due in a range depends on its tables and on the time. Both are known when the range's
//! entry is made. So a range is examined again only when its tables change, or at the time that the
//! entry names. With many ranges, nearly all are unchanged, and to follow a version costs each of
//! these one comparison of pointers.

use super::backlog::IDLE_MS;
use super::claims::Claims;
use super::landing::Landing;
use super::options::CompactionOptions;
use super::pick::{Situation, newest_ms};
use super::rest::Rest;
use super::rewrite;
use super::score::score;
use crate::version::{RangeId, RangeVersion, Version};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

/// The due state of each range of the version that was followed last.
#[derive(Debug, Default)]
pub struct Agenda {
    /// In key order.
    entries: Vec<Entry>,
}

/// Times are in milliseconds since 1970.
#[derive(Debug)]
struct Entry {
    id: RangeId,
    /// Weak, so that it keeps no tables alive that nobody else needs.
    range: Weak<RangeVersion>,
    is_due: bool,
    /// When time alone may make something else due, while tables keep arriving. Later than the
    /// examination.
    next_ms: u64,
    /// From this time on, something is due if the database idles.
    idle_ms: u64,
    /// When the last table arrived.
    newest_ms: u64,
    /// How long nothing has been written to the range.
    rest: Rest,
}

impl Agenda {
    /// Examines the ranges of `version` that have changed, and those whose time has passed.
    /// `written` returns the number of batches written to a range, by its index. Returns whether
    /// the set of ranges has changed.
    pub fn follow(
        &mut self,
        version: &Version,
        written: impl Fn(usize) -> u64,
        options: &CompactionOptions,
        now_ms: u64,
    ) -> bool {
        let ranges = version.ranges();
        let same = self.entries.iter().zip(ranges).all(|(entry, range)| entry.id == range.id);
        let others = self.entries.len() != ranges.len() || !same;
        // A range that stays keeps its idle state when others are added or removed.
        let mut rests: HashMap<RangeId, Rest> = HashMap::new();
        if others {
            rests.extend(self.entries.drain(..).map(|entry| (entry.id, entry.rest)));
        }
        for (at, range) in ranges.iter().enumerate() {
            if let Some(entry) = self.entries.get_mut(at)
                && Weak::as_ptr(&entry.range) == Arc::as_ptr(range)
                && !entry.is_due
                && entry.next_ms > now_ms
            {
                entry.rest.written(written(at), now_ms);
                continue;
            }
            let mut entry = Entry::of(range, version, options, now_ms);
            if let Some(old) = self.entries.get_mut(at) {
                std::mem::swap(&mut entry.rest, &mut old.rest);
                *old = entry;
            } else {
                if let Some(rest) = rests.remove(&range.id) {
                    entry.rest = rest;
                }
                self.entries.push(entry);
            }
            let rest = &mut self.entries[at].rest;
            rest.written(written(at), now_ms);
            rest.changed(range, &range.own.compaction(options), now_ms);
        }
        others
    }

    /// When the last table arrived: see `quiet_since_ms`.
    pub fn quiet_since_ms(&self) -> u64 {
        self.entries.iter().map(|entry| entry.newest_ms).max().unwrap_or(0)
    }

    /// The ranges that are idle and have something to merge.
    pub fn resting(&self) -> BTreeSet<RangeId> {
        self.entries.iter().filter(|entry| entry.rest.is_due()).map(|entry| entry.id).collect()
    }

    /// The ranges of `version` that have something due. `version` must be the one that was followed
    /// last.
    pub fn due(&self, version: &Version, now_ms: u64) -> Vec<Arc<RangeVersion>> {
        let idles = now_ms.saturating_sub(self.quiet_since_ms()) >= IDLE_MS;
        let is_due = |entry: &Entry| {
            entry.is_due || entry.rest.is_due() || (idles && entry.idle_ms <= now_ms)
        };
        let ranges = self.entries.iter().zip(version.ranges());
        ranges.filter(|(entry, _)| is_due(entry)).map(|(_, range)| Arc::clone(range)).collect()
    }

    /// The next time at which something becomes due or must be examined, if no table changes.
    /// Ranges that have something due already are included: that may be blocked by a table that is
    /// set aside, but what becomes due later is not.
    pub fn next_ms(&self, now_ms: u64) -> Option<u64> {
        // From that time on, everything is due that is due only in an idle database.
        let idle_ms = self.quiet_since_ms().saturating_add(IDLE_MS);
        let times = self.entries.iter().flat_map(|entry| {
            let idle = Some(entry.idle_ms.max(idle_ms)).filter(|_| entry.idle_ms < u64::MAX);
            let rests = entry.rest.begins_ms().unwrap_or(u64::MAX);
            [entry.next_ms, idle.unwrap_or(u64::MAX), rests]
        });
        times.filter(|at| *at > now_ms && *at < u64::MAX).min()
    }
}

impl Entry {
    fn of(
        range: &Arc<RangeVersion>,
        version: &Version,
        options: &CompactionOptions,
        now_ms: u64,
    ) -> Self {
        let (claims, set_aside) = (Claims::new(), BTreeSet::new());
        let options = &*range.own.compaction(options);
        let situation = Situation {
            version,
            ranges: &[],
            options,
            claims: &claims,
            set_aside: &set_aside,
            now_ms,
            quiet_since_ms: now_ms,
            resting: None,
            bursts: None,
            merges: true,
        };
        let mut is_due = rewrite::is_due(range, &situation);
        is_due |=
            range.layers.places().any(|at| score(range, at, options).is_some_and(|s| s >= 1.0));
        let mut next_ms = rewrite::next_old_ms(range, options, now_ms);
        let mut idle_ms = None;
        let sooner = |at: Option<u64>, other: Option<u64>| at.into_iter().chain(other).min();
        for level in 1..=range.deepest() {
            let Some(landing) = Landing::of(range, level, &situation) else { continue };
            is_due |= !landing.due().is_empty();
            let (waited, idle) = landing.next_due_ms(&situation);
            (next_ms, idle_ms) = (sooner(next_ms, waited), sooner(idle_ms, idle));
        }
        Self {
            id: range.id,
            range: Arc::downgrade(range),
            is_due,
            next_ms: next_ms.unwrap_or(u64::MAX),
            idle_ms: idle_ms.unwrap_or(u64::MAX),
            newest_ms: newest_ms(range),
            rest: Rest::new(now_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Rounds, pick, quiet_since_ms};
    use super::*;
    use crate::key::Span;
    use crate::version::testing::slice;
    use crate::version::{Landed, ObsoleteFiles, Place, Shards, Slice, SliceMeta};
    use bytes::Bytes;
    use std::time::Instant;

    const MIB: u64 = 1 << 20;
    /// No range is written to.
    const NONE: fn(usize) -> u64 = |_| 0;

    fn key(n: usize) -> Bytes {
        Bytes::from(format!("{n:08}"))
    }

    /// `count` ranges with tables in L1 and in front of it, and nothing due.
    fn ranges(count: usize) -> Vec<Arc<RangeVersion>> {
        let range = |n: usize| {
            let lo = if n == 0 { Bytes::new() } else { key(n) };
            let hi = (n + 1 < count).then(|| key(n + 1));
            let span = Span { lo, hi };
            let mut range = RangeVersion::empty(RangeId(n as u32 + 1), span, Shards::one());
            let of = |at: u64, mib| slice(n as u64 * 10 + at, &key(n), &key(n), mib * MIB);
            let landed = |at| {
                let (whole, landed) = (of(at, 1), Some(Landed { epoch: at, at_ms: 1000 }));
                Slice::new(SliceMeta { landed, ..whole.meta().clone() }, Arc::clone(whole.handle()))
            };
            range.layers = range.layers.with(Place::L0, vec![of(5, 1)]);
            range.layers = range.layers.with(Place::Landing(1, 0), vec![landed(3), landed(2)]);
            range.layers = range.layers.with(Place::Main(1), vec![of(1, 100)]);
            Arc::new(range)
        };
        (0..count).map(range).collect()
    }

    fn with_l0(range: &RangeVersion, first: u64) -> Arc<RangeVersion> {
        let mut range = range.clone();
        let min = range.layers.main(1).expect("it has one").slices()[0].min_key().clone();
        let l0 = (0..4).map(|n| slice(first - n, &min, &min, MIB)).collect();
        range.layers = range.layers.with(Place::L0, l0);
        Arc::new(range)
    }

    fn version(ranges: &[Arc<RangeVersion>]) -> Version {
        Version::new(ranges.to_vec(), ObsoleteFiles::new())
    }

    fn ids(ranges: &[Arc<RangeVersion>]) -> Vec<u32> {
        ranges.iter().map(|range| range.id.0).collect()
    }

    /// Planted: an entry is kept when its range has changed; when its time has passed.
    #[test]
    fn ranges_are_looked_at_when_they_change_and_when_their_time_comes() {
        let balanced = CompactionOptions::balanced();
        let options = CompactionOptions { rest_after_ms: u64::MAX, ..balanced };
        let mut all = ranges(5);
        let mut agenda = Agenda::default();
        assert!(agenda.follow(&version(&all), NONE, &options, 2000), "they are new");
        assert!(!agenda.follow(&version(&all), NONE, &options, 2000));
        assert_eq!(ids(&agenda.due(&version(&all), 2000)), []);
        all[3] = with_l0(&all[3], 99_999);
        assert!(!agenda.follow(&version(&all), NONE, &options, 2000), "they are the same ranges");
        assert_eq!(ids(&agenda.due(&version(&all), 2000)), [4]);
        all[3] = Arc::clone(&ranges(5)[3]);
        agenda.follow(&version(&all), NONE, &options, 2000);
        assert_eq!(ids(&agenda.due(&version(&all), 2000)), []);
        // 2 MiB over 100 are not worth a drain, at twice nor at five times `drain_ratio`.
        assert_eq!(agenda.next_ms(2000), Some(121_001), "then a keep may be due earlier");
        agenda.follow(&version(&all), NONE, &options, 121_001);
        assert_eq!(agenda.next_ms(121_001), None);
        // 2 MiB over 11 are, when the database idles.
        let mut less = RangeVersion::clone(&all[1]);
        let min = key(1);
        less.layers = less.layers.with(Place::Main(1), vec![slice(90, &min, &min, 11 * MIB)]);
        all[1] = Arc::new(less);
        agenda.follow(&version(&all), NONE, &options, 121_001);
        let idle = 1000 + IDLE_MS;
        assert_eq!((agenda.quiet_since_ms(), quiet_since_ms(&version(&all))), (1000, 1000));
        assert_eq!(agenda.next_ms(121_001), Some(idle));
        assert_eq!(ids(&agenda.due(&version(&all), idle - 1)), []);
        assert_eq!(ids(&agenda.due(&version(&all), idle)), [2]);
        all.pop();
        assert!(agenda.follow(&version(&all), NONE, &options, idle), "one has gone");
    }

    /// Measures what a message costs the planner: `cargo test --release -- --ignored --nocapture
    /// agenda`.
    #[test]
    #[ignore = "a measurement"]
    #[allow(clippy::disallowed_methods, reason = "there is no runtime whose time it could be")]
    fn an_agenda_of_ten_thousand_ranges() {
        let options = CompactionOptions::balanced();
        let mut all = ranges(10_000);
        let mut agenda = Agenda::default();
        agenda.follow(&version(&all), NONE, &options, 2000);
        let (claims, set_aside) = (Claims::new(), BTreeSet::new());
        let rounds = 100;
        for whole in [true, false] {
            let began = Instant::now();
            for n in 0..rounds {
                let at = n * 97;
                let before = std::mem::replace(&mut all[at], with_l0(&ranges(1)[0], 99_999));
                let version = version(&all);
                let due = if whole {
                    version.ranges().to_vec()
                } else {
                    agenda.follow(&version, NONE, &options, 2000);
                    agenda.due(&version, 2000)
                };
                let situation = Situation {
                    version: &version,
                    ranges: &due,
                    options: &options,
                    claims: &claims,
                    set_aside: &set_aside,
                    now_ms: 2000,
                    quiet_since_ms: 2000,
                    resting: None,
                    bursts: None,
                    merges: true,
                };
                assert!(pick(&situation, &mut Rounds::default()).is_some());
                all[at] = before;
            }
            println!(
                "all of them: {whole}, {:?} for each message",
                began.elapsed() / rounds as u32
            );
        }
    }
}
