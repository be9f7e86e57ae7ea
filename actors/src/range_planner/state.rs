//! Which ranges are split and merged now: a decision on what is seen and what is remembered. No
//! I/O, no clock.
//!
//! * A range is split when its bytes or entries are above their limit, or its heat has been above
//!   its limit for a cooldown.
//! * Two neighbours are merged when both together are below a quarter of each limit, and both have
//!   existed and been cold for four cooldowns. So neither undoes the other: what was merged is far
//!   from a limit. What was split has more than a quarter of one, or was hot and must be cold for
//!   long. A range that is hot and cold by turns stays split.
//! * An order that failed is not tried again for a cooldown, and for twice as long after each
//!   failure.
//! * If one part of a split hot range is as hot as the whole was (one key has the heat), that part
//!   is split later and later: it must be hot for four times as long after each such split.

use crate::config::RangePolicy;
use sluicedb_storage::version::{KeyspaceOptions, RangeId};
use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// Two ranges are merged only if together they have at most this part of each limit.
const MERGED_PART: u64 = 4;
/// Ranges are merged after they have been cold for this many cooldowns.
const MERGED_AFTER: u32 = 4;
/// A cold range has at most this part of the limit of heat.
const COLD_PART: u64 = 8;
/// Most orders of one look. Each waits for a sync of the log.
const ORDERS_MAX: usize = 16;
/// Most doublings of a pause.
const DOUBLINGS_MAX: u32 = 8;

/// What the planner sees of a range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) id: RangeId,
    /// The limits of its keyspace.
    pub(super) limits: RangeLimits,
    /// Is it the first range of its keyspace?
    pub(super) is_first: bool,
    /// Bytes of its tables.
    pub(super) bytes: u64,
    /// Entries of its tables.
    pub(super) entries: u64,
    /// Batches applied to it since it was created or the database was opened.
    pub(super) batches: u64,
    /// Could it be merged with the next range now, as far as memory is concerned?
    pub(super) joins_next: bool,
}

/// What a range may have. `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct RangeLimits {
    bytes: u64,
    entries: u64,
    heat: u64,
}

impl RangeLimits {
    pub(super) fn of(policy: &RangePolicy, own: &KeyspaceOptions) -> Self {
        Self {
            bytes: own.range_bytes_max.unwrap_or(policy.bytes_max),
            entries: own.range_entries_max.unwrap_or(policy.entries_max),
            heat: own.range_heat_max.unwrap_or(policy.heat_max),
        }
    }
}

/// Why a range is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SplitCause {
    Bytes,
    Entries,
    Heat,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Split { range: RangeId, cause: SplitCause },
    Merge { left: RangeId, right: RangeId },
}

/// The result of a look.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RangeDecision {
    /// The most urgent first. No range is in two of them.
    pub(super) orders: Vec<Order>,
    /// When something may be due by time alone.
    pub(super) again: Option<Instant>,
}

/// What the planner remembers of a range.
#[derive(Clone, Copy, Debug)]
struct RangeHistory {
    since: Instant,
    batches: u64,
    /// Batches per second; and whether that has been measured yet.
    heat: u64,
    measured: bool,
    cold_since: Option<Instant>,
    hot_since: Option<Instant>,
    /// The hot range that it is a part of, if any.
    part_of: Option<Hot>,
    tries: u32,
    next_try: Option<Instant>,
}

/// A range that was split because it was hot.
#[derive(Clone, Copy, Debug)]
struct Hot {
    heat: u64,
    in_vain: u32,
}

impl RangeHistory {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            batches: 0,
            heat: 0,
            measured: false,
            cold_since: None,
            hot_since: None,
            part_of: None,
            tries: 0,
            next_try: None,
        }
    }

    /// How often in a row a split has left one part as hot as the whole was.
    fn in_vain(&self) -> u32 {
        let as_hot = |whole: &Hot| self.heat.saturating_mul(4) >= whole.heat.saturating_mul(3);
        self.part_of.filter(as_hot).map_or(0, |whole| whole.in_vain + 1)
    }
}

/// Everything that the planner remembers.
#[derive(Debug, Default)]
pub(super) struct History {
    histories: HashMap<RangeId, RangeHistory>,
    looked: Option<Instant>,
}

impl History {
    /// Looks at all ranges, in key order, and decides.
    pub(super) fn look(
        &mut self,
        seen: &[Seen],
        policy: &RangePolicy,
        now: Instant,
    ) -> RangeDecision {
        self.follow(seen, now);
        let mut again = None;
        let mut orders = self.splits(seen, policy, now, &mut again);
        if policy.merges {
            self.merges(seen, policy, now, &mut orders, &mut again);
        }
        RangeDecision { orders, again }
    }

    /// Batches per second, smoothed.
    pub(super) fn heat(&self, range: RangeId) -> u64 {
        self.histories.get(&range).map_or(0, |kept| kept.heat)
    }

    /// Is any range written to?
    pub(super) fn is_warm(&self) -> bool {
        self.histories.values().any(|kept| kept.heat > 0)
    }

    /// `range` was split into `parts`.
    pub(super) fn parted(
        &mut self,
        range: RangeId,
        parts: [RangeId; 2],
        cause: SplitCause,
        now: Instant,
    ) {
        let whole = self.histories.remove(&range).unwrap_or(RangeHistory::new(now));
        let hot = Hot { heat: whole.heat, in_vain: whole.in_vain() };
        for part in parts {
            let part_of = (cause == SplitCause::Heat).then_some(hot);
            let kept = RangeHistory { heat: whole.heat / 2, part_of, ..RangeHistory::new(now) };
            self.histories.insert(part, kept);
        }
    }

    /// The order was not carried out.
    pub(super) fn failed(&mut self, order: Order, policy: &RangePolicy, now: Instant) {
        let (Order::Split { range, .. } | Order::Merge { left: range, .. }) = order;
        let kept = self.histories.entry(range).or_insert(RangeHistory::new(now));
        let pause = policy.cooldown.saturating_mul(1 << kept.tries.min(DOUBLINGS_MAX));
        kept.tries += 1;
        kept.next_try = Some(now + pause);
    }

    /// Follows which ranges exist and how hot each is.
    fn follow(&mut self, seen: &[Seen], now: Instant) {
        let passed = self.looked.map(|before| now.saturating_duration_since(before));
        self.looked = Some(now);
        let there: HashSet<_> = seen.iter().map(|range| range.id).collect();
        self.histories.retain(|id, _| there.contains(id));
        for range in seen {
            let heat_max = range.limits.heat;
            let cold_max = if heat_max == u64::MAX { 0 } else { heat_max / COLD_PART };
            let new = RangeHistory { batches: range.batches, ..RangeHistory::new(now) };
            let kept = self.histories.entry(range.id).or_insert(new);
            let batches = range.batches.saturating_sub(kept.batches);
            kept.batches = range.batches;
            // The heat of a new range is measured at the next look.
            if let Some(passed) = passed.filter(|_| kept.since < now) {
                let rate = u128::from(batches) * 1000 / passed.as_millis().max(1);
                let rate = u64::try_from(rate).unwrap_or(u64::MAX);
                // Smoothing makes heat count only if it lasts.
                kept.heat = if kept.measured { kept.heat.midpoint(rate) } else { rate };
                kept.measured = true;
            }
            kept.cold_since = (kept.heat <= cold_max).then(|| kept.cold_since.unwrap_or(now));
            kept.hot_since = (kept.heat > heat_max).then(|| kept.hot_since.unwrap_or(now));
        }
    }

    fn splits(
        &self,
        seen: &[Seen],
        policy: &RangePolicy,
        now: Instant,
        again: &mut Option<Instant>,
    ) -> Vec<Order> {
        let mut due: Vec<_> = seen
            .iter()
            .filter_map(|range| {
                let (cause, urgency, from) = self.too_much(range, policy)?;
                let at = from.max(self.histories[&range.id].next_try.unwrap_or(from));
                if at > now {
                    sooner(again, at);
                    return None;
                }
                Some((urgency, Order::Split { range: range.id, cause }))
            })
            .collect();
        due.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        // Each keyspace has a first range, which does not count.
        let others = seen.iter().filter(|range| !range.is_first).count();
        due.truncate(ORDERS_MAX.min(policy.ranges_max.saturating_sub(others + 1)));
        due.into_iter().map(|(_, order)| order).collect()
    }

    /// What a range has too much of, in which proportion, and from when on that counts.
    fn too_much(&self, range: &Seen, policy: &RangePolicy) -> Option<(SplitCause, f64, Instant)> {
        let kept = &self.histories[&range.id];
        let all = [
            (SplitCause::Bytes, range.bytes, range.limits.bytes),
            (SplitCause::Entries, range.entries, range.limits.entries),
            (SplitCause::Heat, kept.heat, range.limits.heat),
        ];
        let (cause, has, most) = all.into_iter().find(|(_, has, most)| has > most)?;
        let from = match kept.hot_since.filter(|_| cause == SplitCause::Heat) {
            Some(hot) => {
                let times = 1 << (2 * kept.in_vain().min(DOUBLINGS_MAX));
                hot + policy.cooldown.saturating_mul(times)
            }
            None => kept.since,
        };
        Some((cause, has as f64 / most as f64, from))
    }

    fn merges(
        &self,
        seen: &[Seen],
        policy: &RangePolicy,
        now: Instant,
        orders: &mut Vec<Order>,
        again: &mut Option<Instant>,
    ) {
        let is_split = |id, orders: &[Order]| {
            orders.iter().any(|order| matches!(order, Order::Split { range, .. } if *range == id))
        };
        let mut at = 0;
        while let Some([left, right]) = seen.get(at..at + 2).and_then(|pair| pair.first_chunk())
            && orders.len() < ORDERS_MAX
        {
            at += 1;
            let Some(ripe) = self.ripe(left, right, policy) else { continue };
            if ripe > now {
                sooner(again, ripe);
            // If memory is in the way, the next flush brings another look.
            } else if left.joins_next && !is_split(left.id, orders) && !is_split(right.id, orders) {
                orders.push(Order::Merge { left: left.id, right: right.id });
                at += 1;
            }
        }
    }

    /// From when on two neighbours may be merged, if they are small and cold.
    fn ripe(&self, left: &Seen, right: &Seen, policy: &RangePolicy) -> Option<Instant> {
        let fits = |of: fn(&Seen) -> u64, most: u64| {
            of(left).saturating_add(of(right)) <= most / MERGED_PART
        };
        if !fits(|range| range.bytes, left.limits.bytes)
            || !fits(|range| range.entries, left.limits.entries)
        {
            return None;
        }
        let (left, right) = (&self.histories[&left.id], &self.histories[&right.id]);
        let times = [left.since, right.since, left.cold_since?, right.cold_since?];
        let ripe = times.into_iter().max()? + policy.cooldown * MERGED_AFTER;
        Some(left.next_try.map_or(ripe, |next| ripe.max(next)))
    }
}

fn sooner(again: &mut Option<Instant>, at: Instant) {
    *again = Some(again.map_or(at, |again| again.min(at)));
}

#[cfg(test)]
mod tests;
