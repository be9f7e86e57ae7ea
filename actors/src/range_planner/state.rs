//! Which ranges are to be split and merged now: a decision on what was seen and what is remembered.
//! No I/O, no clock.
//!
//! * A range is split when its bytes or its entries are above their limit, or its heat has been for
//!   a cooldown.
//! * Two neighbours are merged when they have a quarter of every limit together, have both been
//!   cold for four cooldowns, and have been there for as long. So neither undoes the other: what
//!   was merged is far from a limit, and what was split has more than a quarter of one, or was hot
//!   and has to be cold for long. Where it is hot and cold by turns it stays split.
//! * What could not be done is not tried again for a cooldown; for twice as long each time.
//! * A hot range of which a part is as hot as the whole was (one key has the heat) is hardly split
//!   on: that part has to be hot for four times as long each time.

use crate::config::RangePolicy;
use sluicedb_storage::version::{KeyspaceOptions, RangeId};
use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// Two ranges that are merged have a part in so many of each limit together.
const MERGED_PART: u64 = 4;
/// Cooldowns for which ranges that are merged have been cold.
const MERGED_AFTER: u32 = 4;
/// A cold range has a part in so many of the limit of heat.
const COLD_PART: u64 = 8;
/// Orders of one look, at most: each waits for a sync of the log.
const ORDERS_MAX: usize = 16;
/// Doublings of a pause, at most.
const DOUBLINGS_MAX: u32 = 8;

/// What is seen of a range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) id: RangeId,
    /// Those of its keyspace.
    pub(super) limits: Limits,
    /// Is it the first range of its keyspace?
    pub(super) is_first: bool,
    /// Of its tables.
    pub(super) bytes: u64,
    /// Of its tables.
    pub(super) entries: u64,
    /// Applied to it since it came to be or the database was opened.
    pub(super) batches: u64,
    /// What is in memory does not stand against a merge with the next range.
    pub(super) joins_next: bool,
}

/// What a range may have; `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    bytes: u64,
    entries: u64,
    heat: u64,
}

impl Limits {
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
pub(super) enum Cause {
    Bytes,
    Entries,
    Heat,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Split { range: RangeId, cause: Cause },
    Merge { left: RangeId, right: RangeId },
}

/// What a look came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// Most urgent first. They do not touch each other's ranges.
    pub(super) orders: Vec<Order>,
    /// When something may be due by time alone; not before the next period.
    pub(super) again: Option<Instant>,
}

/// What is remembered of a range.
#[derive(Clone, Copy, Debug)]
struct RangeHistory {
    since: Instant,
    batches: u64,
    /// Batches per second, and whether that was measured yet.
    heat: u64,
    measured: bool,
    cold_since: Option<Instant>,
    hot_since: Option<Instant>,
    /// Of which hot range it is a part, if it is.
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

    /// How often in a row a split has left a part as hot as the whole was.
    fn in_vain(&self) -> u32 {
        let as_hot = |whole: &Hot| self.heat.saturating_mul(4) >= whole.heat.saturating_mul(3);
        self.part_of.filter(as_hot).map_or(0, |whole| whole.in_vain + 1)
    }
}

/// All that is remembered.
#[derive(Debug, Default)]
pub(super) struct History {
    histories: HashMap<RangeId, RangeHistory>,
    looked: Option<Instant>,
}

impl History {
    /// Looks at all ranges, in key order, and decides.
    pub(super) fn look(&mut self, seen: &[Seen], policy: &RangePolicy, now: Instant) -> Decision {
        self.follow(seen, now);
        let mut again = None;
        let mut orders = self.splits(seen, policy, now, &mut again);
        if policy.merges {
            self.merges(seen, policy, now, &mut orders, &mut again);
        }
        Decision { orders, again }
    }

    /// Batches per second of late.
    pub(super) fn heat(&self, range: RangeId) -> u64 {
        self.histories.get(&range).map_or(0, |kept| kept.heat)
    }

    /// Is anything going on?
    pub(super) fn is_warm(&self) -> bool {
        self.histories.values().any(|kept| kept.heat > 0)
    }

    /// `range` was split into `parts`.
    pub(super) fn parted(
        &mut self,
        range: RangeId,
        parts: [RangeId; 2],
        cause: Cause,
        now: Instant,
    ) {
        let whole = self.histories.remove(&range).unwrap_or(RangeHistory::new(now));
        let hot = Hot { heat: whole.heat, in_vain: whole.in_vain() };
        for part in parts {
            let part_of = (cause == Cause::Heat).then_some(hot);
            let kept = RangeHistory { heat: whole.heat / 2, part_of, ..RangeHistory::new(now) };
            self.histories.insert(part, kept);
        }
    }

    /// Nothing came of an order.
    pub(super) fn failed(&mut self, order: Order, policy: &RangePolicy, now: Instant) {
        let (Order::Split { range, .. } | Order::Merge { left: range, .. }) = order;
        let kept = self.histories.entry(range).or_insert(RangeHistory::new(now));
        let pause = policy.cooldown.saturating_mul(1 << kept.tries.min(DOUBLINGS_MAX));
        kept.tries += 1;
        kept.next_try = Some(now + pause);
    }

    /// How hot each range has become, and which there are.
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
            // One that is seen for the first time tells how hot it is at the next look.
            if let Some(passed) = passed.filter(|_| kept.since < now) {
                let rate = u128::from(batches) * 1000 / passed.as_millis().max(1);
                let rate = u64::try_from(rate).unwrap_or(u64::MAX);
                // What lasts is what counts.
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
        // Each keyspace has one, whatever its size.
        let others = seen.iter().filter(|range| !range.is_first).count();
        due.truncate(ORDERS_MAX.min(policy.ranges_max.saturating_sub(others + 1)));
        due.into_iter().map(|(_, order)| order).collect()
    }

    /// What a range has too much of, how much of it, and from when on that counts.
    fn too_much(&self, range: &Seen, policy: &RangePolicy) -> Option<(Cause, f64, Instant)> {
        let kept = &self.histories[&range.id];
        let all = [
            (Cause::Bytes, range.bytes, range.limits.bytes),
            (Cause::Entries, range.entries, range.limits.entries),
            (Cause::Heat, kept.heat, range.limits.heat),
        ];
        let (cause, has, most) = all.into_iter().find(|(_, has, most)| has > most)?;
        let from = match kept.hot_since.filter(|_| cause == Cause::Heat) {
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
            // Otherwise a flush will tell.
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
