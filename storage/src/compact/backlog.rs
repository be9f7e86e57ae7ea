//! The backlog of a landing, and what follows from it. Pure arithmetic.
//!
//! One score says how urgent a shard is: its size, weighted by how long it has waited and by how
//! much of it a merge would remove. The score also decides how many shards are merged at once, and
//! how many tables each merge takes.

use std::cmp::Ordering;

/// Each minute of waiting adds the size once more, up to this many minutes.
const AGE_MINUTES_MAX: f64 = 4.0;
/// While tables keep arriving, a drain that has waited may cost up to this many times
/// `drain_ratio`. A larger factor would make the most expensive rewrite the rule wherever writes
/// are slow, which is most of the time.
const WAITED_MAX: f64 = 2.0;
/// Without new tables for this long, in milliseconds, the database idles: the disk is free, and age
/// counts fully.
pub(super) const IDLE_MS: u64 = 30 * 60_000;
/// From this age on, in milliseconds, a shard is kept with slightly fewer runs.
pub(super) const OLD_MS: u64 = 120_000;

/// What is known of one shard of a landing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ShardView {
    /// The shard's number.
    pub shard: u16,
    /// The number of runs that a read searches.
    pub runs: usize,
    /// The number of slices.
    pub tables: usize,
    /// Bytes of all slices.
    pub bytes: u64,
    /// Entries of all slices; an estimate if there are parts of tables.
    pub entries: u64,
    /// The age of the oldest slice in this landing, in milliseconds.
    pub age_ms: u64,
    /// The share of entries that a merge would drop, or that hide others: 0 to 1.
    pub density: f64,
    /// Bytes that the shard overlaps in the level behind it: what a drain of all of it rewrites.
    pub main_bytes: u64,
    /// The estimated share of entries that newer ones of the shard supersede: 0 to 1.
    pub superseded: f64,
    /// The urgency of a drain; due from 1.0 on.
    pub drain_score: f64,
    /// The urgency of a keep; due from 1.0 on.
    pub keep_score: f64,
}

impl ShardView {
    /// The bytes, weighted by age and density; 0 for an empty shard.
    pub(super) fn backlog(&self) -> f64 {
        self.bytes as f64 * weight(self.age_ms, self.density)
    }
}

/// Age weighs up to five times, density up to two times.
fn weight(age_ms: u64, density: f64) -> f64 {
    let minutes = (age_ms as f64 / 60_000.0).min(AGE_MINUTES_MAX);
    // NaN counts as 0.
    let density = if density > 0.0 { density.min(1.0) } else { 0.0 };
    (1.0 + minutes) * (1.0 + density)
}

/// The score of a drain of `bytes` that overlap `main_bytes` of the level; due from 1.0 on. A drain
/// rewrites the level. So it is due when it rewrites at most `drain_ratio` bytes per byte that
/// landed. A shard that has waited may cost twice that, and five times while the database `idles`.
pub(super) fn drain_score(
    bytes: u64,
    main_bytes: u64,
    drain_ratio: u64,
    age_ms: u64,
    idles: bool,
) -> f64 {
    if bytes == 0 {
        return 0.0;
    }
    let worth = bytes as f64 * drain_ratio as f64 / main_bytes.max(1) as f64;
    let minutes = (age_ms as f64 / 60_000.0).min(AGE_MINUTES_MAX);
    worth * (1.0 + minutes * patience(idles))
}

/// What each minute of waiting adds to the worth of a drain, as a share of it.
fn patience(idles: bool) -> f64 {
    if idles { 1.0 } else { (WAITED_MAX - 1.0) / AGE_MINUTES_MAX }
}

/// How long, in milliseconds, until a drain that is worth this much at age 0 is due. `None` if it
/// never is, or if it is due at once. At the returned time the drain certainly is due, so a planner
/// that wakes up then finds it.
pub(super) fn due_after_ms(worth: f64, idles: bool) -> Option<u64> {
    let most = worth * (1.0 + AGE_MINUTES_MAX * patience(idles));
    let minutes = (1.0 / worth - 1.0) / patience(idles);
    // One millisecond because of the rounding here, and one because of the rounding of the score.
    (worth < 1.0 && most >= 1.0).then(|| (minutes * 60_000.0) as u64 + 2)
}

/// The shards that are not empty, by falling backlog, then by number.
pub(super) fn order(shards: &[ShardView]) -> Vec<u16> {
    let mut order: Vec<_> = shards.iter().filter(|shard| shard.bytes > 0).collect();
    order.sort_by(|a, b| {
        let urgent = b.backlog().partial_cmp(&a.backlog()).unwrap_or(Ordering::Equal);
        urgent.then(a.shard.cmp(&b.shard))
    });
    order.into_iter().map(|shard| shard.shard).collect()
}

/// How many shards of a landing are merged at once: `base`, plus one per two points of a score
/// above 1, but at most the number of shards that are not empty.
pub(super) fn parallelism(base: usize, score: f64, shards_with_tables: usize) -> usize {
    let more = if score > 1.0 { (score / 2.0).ceil() as usize } else { 0 };
    base.saturating_add(more).min(shards_with_tables)
}

/// How many tables one merge takes: `base` per `target_bytes` of the shard's bytes, but at most all
/// of them.
pub(super) fn batch(base: usize, bytes: u64, target_bytes: u64, tables: usize) -> usize {
    let times = (bytes as f64 / target_bytes.max(1) as f64).ceil().max(1.0);
    base.saturating_mul(times as usize).min(tables)
}

/// The number of batches of runs from which a shard is kept. It is a fifth lower while the whole
/// landing has twice what makes a drain due, and a tenth lower if the shard is old.
pub(super) fn keep_trigger(base: f64, landing_score: f64, age_ms: u64) -> f64 {
    if landing_score >= 2.0 {
        base * 0.8
    } else if age_ms > OLD_MS {
        base * 0.9
    } else {
        base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(shard: u16, bytes: u64, age_s: u64, density: f64) -> ShardView {
        ShardView { shard, bytes, age_ms: age_s * 1000, density, tables: 1, ..ShardView::default() }
    }

    /// Planted: the age is not limited; a density of NaN is used as it is.
    #[test]
    fn t000_03_the_backlog_is_size_times_age_times_density() {
        let cases = [
            (0, 9_999, 1.0, 0.0),
            (10, 0, 0.0, 10.0),
            (10, 60, 0.0, 20.0),
            (10, 240, 0.0, 50.0),
            (10, 10_000, 0.0, 50.0),
            (10, 0, 1.0, 20.0),
            (10, 0, 7.5, 20.0),
            (10, 0, -1.0, 10.0),
            (10, 0, f64::NAN, 10.0),
            (10, 10_000, 7.5, 100.0),
            (20, 120, 0.5, 90.0),
        ];
        for (bytes, age_s, density, want) in cases {
            let backlog = view(0, bytes, age_s, density).backlog();
            assert!((backlog - want).abs() < 1e-9, "{bytes} {age_s} {density}: {backlog}");
        }
        assert!(view(0, u64::MAX, u64::MAX / 1000, 1.0).backlog().is_finite());
    }

    #[test]
    fn t000_04_the_order_is_by_backlog_and_by_number_where_that_is_equal() {
        let shards = [view(1, 10, 0, 0.0), view(2, 30, 0, 0.0), view(3, 20, 120, 0.5)];
        assert_eq!(order(&shards), [3, 2, 1]);
        let equal = [view(2, 10, 0, 0.0), view(0, 10, 0, 0.0), view(1, 0, 999, 1.0)];
        assert_eq!(order(&equal), [0, 2]);
        assert_eq!(order(&[]), [0_u16; 0]);
    }

    #[test]
    fn t000_05_a_merge_takes_more_tables_of_a_larger_shard() {
        assert_eq!(batch(4, 50, 100, 99), 4);
        assert_eq!(batch(4, 320, 100, 99), 16);
        assert_eq!(batch(4, 320, 100, 7), 7);
        assert_eq!(batch(1, 0, 100, 3), 1);
        assert_eq!(batch(4, u64::MAX, 0, 9), 9);
    }

    #[test]
    fn t000_06_more_shards_are_merged_at_once_when_more_waits() {
        assert_eq!(parallelism(2, 0.5, 4), 2);
        assert_eq!(parallelism(2, 1.0, 4), 2);
        assert_eq!(parallelism(2, 5.0, 4), 4);
        assert_eq!(parallelism(2, 5.0, 16), 5);
        assert_eq!(parallelism(2, 5.0, 1), 1);
        assert_eq!(parallelism(2, 5.0, 0), 0);
    }

    #[test]
    fn t000_07_the_keep_trigger_falls_with_the_backlog_of_the_landing_and_with_age() {
        let trigger = |score, age_s: u64| keep_trigger(2.0, score, age_s * 1000);
        for (score, age_s, want) in
            [(0.0, 0, 2.0), (1.9, 120, 2.0), (1.9, 121, 1.8), (2.0, 0, 1.6), (9.0, 500, 1.6)]
        {
            assert!((trigger(score, age_s) - want).abs() < 1e-9, "{score} {age_s}");
        }
    }

    #[test]
    fn t000_17_a_drain_is_due_when_the_level_behind_it_is_small_or_it_has_waited() {
        let score = |bytes, main, age_s: u64| drain_score(bytes, main, 4, age_s * 1000, false);
        let idle = |bytes, main, age_s: u64| drain_score(bytes, main, 4, age_s * 1000, true);
        assert!(score(1, 0, 0) >= 1.0, "a small database drains at once");
        assert!(score(10, 41, 0) < 1.0 && score(10, 40, 0) >= 1.0);
        assert!(score(10, 80, 240) >= 1.0 && score(10, 81, 99_999) < 1.0);
        assert!(idle(10, 200, 240) >= 1.0 && idle(10, 201, 99_999) < 1.0);
        assert!(score(0, 0, 99_999) < 1.0, "nothing is never due");
        for (worth, want) in [(0.0, None), (0.19, None), (1.0, None), (7.0, None)] {
            assert_eq!(due_after_ms(worth, true), want, "{worth}");
        }
        assert_eq!(due_after_ms(0.49, false), None);
        for (worth, idles) in
            [(0.2, true), (0.21, true), (0.5, true), (0.99, true), (0.5, false), (0.99, false)]
        {
            let wait = due_after_ms(worth, idles).expect("one day");
            let at = |wait| drain_score(1000, 1000, 1, wait, idles) * worth;
            assert!(at(wait) >= 1.0 && at(wait - 100) < 1.0, "{worth}: {wait}");
        }
        // For every size, the drain is due at the returned time.
        for main in 101..60_000 {
            let worth = drain_score(100, main, 1, 0, main % 2 == 0);
            if let Some(wait) = due_after_ms(worth, main % 2 == 0) {
                assert!(drain_score(100, main, 1, wait, main % 2 == 0) >= 1.0, "{main}: {wait}");
            }
        }
    }
}
