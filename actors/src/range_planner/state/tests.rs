//! Decisions on imaginary ranges. The test says what is seen, and moves the clock.

use super::*;
use crate::runtime::{Runtime, ThreadRuntime};
use std::time::Duration;

const COOLDOWN: Duration = Duration::from_secs(40);
const PERIOD: Duration = Duration::from_secs(10);

fn policy() -> RangePolicy {
    RangePolicy {
        bytes_max: 1000,
        entries_max: 100,
        heat_max: 80,
        ranges_max: 8,
        merges: true,
        cooldown: COOLDOWN,
    }
}

fn id(number: u32) -> RangeId {
    RangeId(number)
}

/// A range with this many bytes, and a twentieth as many entries.
fn range(number: u32, bytes: u64) -> Seen {
    let limits = RangeLimits::of(&policy(), &KeyspaceOptions::default());
    let (entries, is_first) = (bytes / 20, number == 1);
    Seen { id: id(number), limits, is_first, bytes, entries, batches: 0, joins_next: true }
}

fn split(number: u32, cause: SplitCause) -> Order {
    Order::Split { range: id(number), cause }
}

fn merge(left: u32, right: u32) -> Order {
    Order::Merge { left: id(left), right: id(right) }
}

/// A history and its clock.
struct Told {
    history: History,
    now: Instant,
    policy: RangePolicy,
}

impl Told {
    fn new() -> Self {
        let now = ThreadRuntime::new(&[]).now();
        Self { history: History::default(), now, policy: policy() }
    }

    fn look(&mut self, seen: &[Seen]) -> Vec<Order> {
        self.decide(seen).orders
    }

    /// Decides by the current limits.
    fn decide(&mut self, seen: &[Seen]) -> RangeDecision {
        let limits = RangeLimits::of(&self.policy, &KeyspaceOptions::default());
        let seen: Vec<_> = seen.iter().map(|range| Seen { limits, ..*range }).collect();
        self.history.look(&seen, &self.policy, self.now)
    }

    /// Looks after each period, with these batches per second since the last look. Stops at the
    /// first order, or after `most` looks.
    fn looks(&mut self, seen: &mut [Seen], rates: &[u64], most: usize) -> (usize, Vec<Order>) {
        for looks in 1..=most {
            self.now += PERIOD;
            for (range, rate) in seen.iter_mut().zip(rates) {
                range.batches += rate * PERIOD.as_secs();
            }
            let orders = self.look(seen);
            if !orders.is_empty() {
                return (looks, orders);
            }
        }
        (most, Vec::new())
    }
}

/// Planted: a range at its limit is split; the first cause is named instead of the one that holds.
#[test]
fn a_range_is_split_above_a_limit_and_the_fullest_first() {
    let mut told = Told::new();
    told.policy.merges = false;
    assert_eq!(told.look(&[range(1, 1000), range(2, 1), range(3, 999)]), []);
    let seen = [range(1, 1001), range(2, 5000), Seen { entries: 300, ..range(3, 10) }];
    let wanted =
        [split(2, SplitCause::Bytes), split(3, SplitCause::Entries), split(1, SplitCause::Bytes)];
    assert_eq!(told.look(&seen), wanted);
    told.policy = RangePolicy { bytes_max: u64::MAX, entries_max: u64::MAX, ..told.policy };
    assert_eq!(told.look(&seen), []);
}

/// Planted: one look exceeds the limit of ranges.
#[test]
fn as_many_are_split_as_there_may_be_ranges() {
    let mut told = Told::new();
    let seen: Vec<_> = (1..=6).map(|number| range(number, 2000)).collect();
    assert_eq!(told.look(&seen).len(), 2);
    told.policy.ranges_max = 6;
    assert_eq!(told.look(&seen), []);
    told.policy.ranges_max = 1;
    assert_eq!(told.look(&seen), []);
    told.policy.ranges_max = 1000;
    let seen: Vec<_> = (1..=100).map(|number| range(number, 2000)).collect();
    assert_eq!(told.look(&seen).len(), ORDERS_MAX);
}

/// Planted: one burst is enough; a new range counts at once.
#[test]
fn a_range_is_split_when_it_has_been_hot_for_a_cooldown() {
    let mut told = Told::new();
    let mut seen = [range(1, 10)];
    assert_eq!(told.look(&seen), []);
    let (looks, orders) = told.looks(&mut seen, &[100], 10);
    assert_eq!((looks, orders), (5, vec![split(1, SplitCause::Heat)]), "no sooner");
    assert!((95..=100).contains(&told.history.heat(id(1))));

    let mut told = Told::new();
    let mut seen = [range(1, 10)];
    told.looks(&mut seen, &[20], 10);
    assert_eq!(told.looks(&mut seen, &[1000], 1).1, [], "a burst");
    assert_eq!(told.looks(&mut seen, &[20], 10).1, []);
    assert_eq!(told.looks(&mut seen, &[130], 10), (6, vec![split(1, SplitCause::Heat)]));
}

/// Goal: one key that has all the heat costs a few splits, not one per cooldown. Planted: parts
/// count as new ranges.
#[test]
fn t002_13_heat_that_does_not_part_is_followed_ever_more_rarely() {
    let mut told = Told::new();
    let mut seen = [range(1, 10)];
    told.look(&seen);
    let mut looks = Vec::new();
    for n in 0..4 {
        let (count, orders) = told.looks(&mut seen, &[100], 1000);
        let [Order::Split { range, cause: SplitCause::Heat }] = orders[..] else {
            panic!("{orders:?}")
        };
        looks.push(count);
        let hot = id(100 + n);
        told.history.parted(range, [hot, id(200 + n)], SplitCause::Heat, told.now);
        seen[0] = Seen { id: hot, batches: 0, ..seen[0] };
    }
    assert_eq!(looks, [5, 17, 65, 257]);
    // If the heat does divide, a hot part counts like any range.
    let mut told = Told::new();
    let mut seen = [range(1, 10)];
    told.look(&seen);
    told.looks(&mut seen, &[400], 10);
    told.history.parted(id(1), [id(2), id(3)], SplitCause::Heat, told.now);
    let mut seen = [range(2, 10), range(3, 10)];
    let (looks, orders) = told.looks(&mut seen, &[250, 150], 10);
    assert_eq!((looks, orders), (5, vec![split(2, SplitCause::Heat), split(3, SplitCause::Heat)]));
}

/// Planted: what failed is tried again at each look.
#[test]
fn t002_13_a_range_that_cannot_be_split_is_left_alone_for_longer_each_time() {
    let mut told = Told::new();
    let mut seen = [range(1, 5000), range(2, 900)];
    let mut tries = Vec::new();
    for second in 0..4000 {
        if second % 10 == 0 {
            for order in told.look(&seen) {
                assert_eq!(order, split(1, SplitCause::Bytes));
                told.history.failed(order, &told.policy, told.now);
                tries.push(second);
            }
        }
        told.now += Duration::from_secs(1);
    }
    assert_eq!(tries, [0, 40, 120, 280, 600, 1240, 2520]);
    let decision = told.decide(&seen);
    assert_eq!(decision.again, Some(told.now + Duration::from_secs(5080 - 4000)));
    // Other ranges are not delayed.
    seen[1].bytes = 1001;
    assert_eq!(told.look(&seen), [split(2, SplitCause::Bytes)]);
}

/// Planted: one cold range of two is enough; one look is enough; a range is merged twice.
#[test]
fn small_neighbours_are_merged_when_both_have_been_cold_for_long() {
    let mut told = Told::new();
    let mut seen = [range(1, 100), range(2, 150), range(3, 101)];
    assert_eq!(told.look(&seen), []);
    assert_eq!(told.looks(&mut seen, &[50, 11, 0], 50).1, [], "an eighth of 80 is 10");
    let (looks, orders) = told.looks(&mut seen, &[0, 10, 0], 50);
    assert_eq!(orders, [merge(1, 2)], "and not 2 with 3 as well");
    // The heat of the first range fades: 25, 12, 6.
    assert_eq!(looks, 3 + 16);
    // Large ranges stay, and so do ranges with something in memory that is in the way.
    let mut seen = [range(1, 100), range(2, 151), Seen { joins_next: false, ..range(3, 50) }];
    assert_eq!(told.looks(&mut seen, &[0; 3], 20).1, [merge(2, 3)]);
    seen[1].joins_next = false;
    let decision = told.decide(&seen);
    assert_eq!(decision, RangeDecision { orders: vec![], again: None }, "a flush tells");
    told.policy.merges = false;
    assert_eq!(told.looks(&mut [range(1, 1), range(2, 1)], &[0; 2], 50).1, []);
}

/// Without a limit of heat, a range is cold only if nothing is written to it.
#[test]
fn without_a_limit_of_heat_one_batch_is_too_many() {
    let mut told = Told::new();
    told.policy.heat_max = u64::MAX;
    let mut seen = [range(1, 1), range(2, 1)];
    told.look(&seen);
    assert_eq!(told.looks(&mut seen, &[1, 0], 50).1, []);
    assert_eq!(told.looks(&mut seen, &[1_000_000, 0], 20).1, []);
    assert!(!told.looks(&mut seen, &[0, 0], 60).1.is_empty());
}

/// Goal: ranges do not flap. Method: a hot range is split, then its two parts are hot and cold by
/// turns, for every length of a turn; the range's bytes are around the limit.
///
/// Planted: ranges merge at half a limit; coldness counts at once.
#[test]
fn what_was_split_is_not_merged_at_once_and_the_other_way_round() {
    for on in 1..8_u64 {
        let mut told = Told::new();
        let (mut ids, mut next) = (vec![1], 2);
        let mut batches = HashMap::new();
        let mut changes = Vec::new();
        for look in 0..10_000_u64 {
            told.now += PERIOD;
            let total = if look % (2 * on) < on { 1000 } else { 0 };
            let count = ids.len() as u64;
            let seen: Vec<_> = ids
                .iter()
                .map(|&range| {
                    let all: &mut u64 = batches.entry(range).or_default();
                    *all += total * PERIOD.as_secs() / count;
                    // The data is just too much for one range.
                    Seen { batches: *all, ..self::range(range, 1040 / count) }
                })
                .collect();
            for order in told.look(&seen) {
                changes.push(look);
                match order {
                    Order::Split { range, cause } => {
                        let at = ids.iter().position(|&other| id(other) == range).expect("there");
                        ids.splice(at..=at, [next, next + 1]);
                        told.history.parted(range, [id(next), id(next + 1)], cause, told.now);
                        next += 2;
                    }
                    Order::Merge { left, .. } => {
                        let at = ids.iter().position(|&other| id(other) == left).expect("there");
                        ids.splice(at..at + 2, [next]);
                        next += 1;
                    }
                }
            }
        }
        // Up to eight ranges, and then no change any more.
        assert!(changes.len() <= 7, "{on}: {changes:?}");
        assert!(changes.iter().all(|look| *look < 500), "{on}: {changes:?}");
    }
}

/// Planted: an alarm is set at each look.
#[test]
fn nothing_is_looked_at_while_nothing_happens() {
    let mut told = Told::new();
    told.policy.merges = false;
    let mut seen = [range(1, 10), range(2, 900)];
    let decision = told.decide(&seen);
    assert_eq!(decision, RangeDecision { orders: vec![], again: None });
    assert!(!told.history.is_warm());
    told.looks(&mut seen, &[5, 0], 2);
    assert!(told.history.is_warm());
    told.looks(&mut seen, &[0, 0], 3);
    assert!(!told.history.is_warm(), "{}", told.history.heat(id(1)));
    // A merge is due by time alone.
    let mut told = Told::new();
    let small = [range(1, 1), range(2, 1)];
    let again = told.decide(&small).again;
    assert!(again == Some(told.now + 4 * COOLDOWN), "{again:?}");
}

/// Prints what a look at very many ranges costs. It asserts nothing: `cargo test --release --
/// --ignored looks_at`.
#[test]
#[ignore = "it measures"]
#[allow(clippy::print_stderr, clippy::disallowed_methods, reason = "it measures")]
fn looks_at_ten_thousand_ranges() {
    let mut told = Told::new();
    let mut seen: Vec<_> = (1..=10_000).map(|number| range(number, 500)).collect();
    told.look(&seen);
    let began = Instant::now();
    told.looks(&mut seen, &vec![5; 10_000], 100);
    eprintln!("{:?} for each look", began.elapsed() / 100);
}

/// Planted: the first range of each keyspace counts against `ranges_max`.
#[test]
fn empty_keyspaces_take_no_split_from_a_range_that_is_too_large() {
    let mut told = Told::new();
    told.policy.ranges_max = 2;
    let mut seen: Vec<_> = (1..=9).map(|n| Seen { is_first: true, ..range(n, 0) }).collect();
    seen[4].bytes = 5000;
    assert_eq!(told.look(&seen), [split(5, SplitCause::Bytes)]);
    seen.push(Seen { is_first: false, ..range(10, 0) });
    assert_eq!(told.look(&seen), [], "there is one beside them");
}
