//! How much waits in a landing, and what follows from it. Numbers in, numbers out.
//!
//! One score says how urgent a shard is: its size, weighed by how long it has waited and by how
//! much of it a merge would remove. The score also decides how many shards are merged at once, and
//! how many tables each merge takes.

use std::cmp::Ordering;

/// Waiting weighs up to this much more; each of these minutes adds its size once.
const AGE_MINUTES_MAX: f64 = 4.0;
/// A drain of what has waited may cost up to so many times `drain_ratio`, as long as anything
/// comes: more than rewriting the most for the least would be the rule where writes come slowly,
/// and they come slowly most of the time.
const WAITED_MAX: f64 = 2.0;
/// When nothing has come for so long, in milliseconds, the disk has time for what age asks for.
pub(super) const IDLE_MS: u64 = 30 * 60_000;
/// From this age on, in milliseconds, a shard is kept a little earlier.
pub(super) const OLD_MS: u64 = 120_000;

/// What is known of one shard of a landing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ShardView {
    /// Its number.
    pub shard: u16,
    /// Runs: places where a read has to look.
    pub runs: usize,
    /// Slices.
    pub tables: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Their entries; of parts of tables about.
    pub entries: u64,
    /// How long its oldest slice has been there, in milliseconds.
    pub age_ms: u64,
    /// The share of its entries that a merge would drop, or that hide others: 0 to 1.
    pub density: f64,
    /// Bytes of the level behind it that it overlaps: what a drain of all of it rewrites.
    pub main_bytes: u64,
    /// About which share of its entries newer ones of it hide: 0 to 1.
    pub superseded: f64,
    /// How urgent it is to merge it into its level. Due from 1.0 on.
    pub drain_score: f64,
    /// Likewise, into itself.
    pub keep_score: f64,
}

impl ShardView {
    /// Its bytes, weighed by age and density. 0 for an empty one.
    pub(super) fn backlog(&self) -> f64 {
        self.bytes as f64 * weight(self.age_ms, self.density)
    }
}

/// Size counts up to five times for age and up to two times for density.
fn weight(age_ms: u64, density: f64) -> f64 {
    let minutes = (age_ms as f64 / 60_000.0).min(AGE_MINUTES_MAX);
    // A density that is no number counts as none.
    let density = if density > 0.0 { density.min(1.0) } else { 0.0 };
    (1.0 + minutes) * (1.0 + density)
}

/// How much a drain of so many bytes over so many bytes of its level is worth: from 1.0 on it is
/// due. It rewrites the level, so it is due when that costs at most `drain_ratio` bytes for each
/// byte that lands; for one that has waited, at most twice that, and while the database `idles`
/// five times.
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

/// What a minute of waiting adds to a drain.
fn patience(idles: bool) -> f64 {
    if idles { 1.0 } else { (WAITED_MAX - 1.0) / AGE_MINUTES_MAX }
}

/// After how long, in milliseconds, a drain that is worth this much at first is due; `None` if
/// never, or if it is at once. Then it is: who is woken for it finds it.
pub(super) fn due_after_ms(worth: f64, idles: bool) -> Option<u64> {
    let most = worth * (1.0 + AGE_MINUTES_MAX * patience(idles));
    let minutes = (1.0 / worth - 1.0) / patience(idles);
    // The next millisecond, because this one is rounded, and one more, because so is what it is
    // worth then.
    (worth < 1.0 && most >= 1.0).then(|| (minutes * 60_000.0) as u64 + 2)
}

/// The shards that have something, the one with the largest backlog first; of equal ones the lower
/// number.
pub(super) fn order(shards: &[ShardView]) -> Vec<u16> {
    let mut order: Vec<_> = shards.iter().filter(|shard| shard.bytes > 0).collect();
    order.sort_by(|a, b| {
        let urgent = b.backlog().partial_cmp(&a.backlog()).unwrap_or(Ordering::Equal);
        urgent.then(a.shard.cmp(&b.shard))
    });
    order.into_iter().map(|shard| shard.shard).collect()
}

/// How many shards of a landing are merged at once: `base`, and one more per two of score above 1,
/// but not more than have something.
pub(super) fn parallelism(base: usize, score: f64, shards_with_tables: usize) -> usize {
    let more = if score > 1.0 { (score / 2.0).ceil() as usize } else { 0 };
    base.saturating_add(more).min(shards_with_tables)
}

/// How many tables one merge takes: `base` for each `target_bytes` that the shard has, but not more
/// than there are.
pub(super) fn batch(base: usize, bytes: u64, target_bytes: u64, tables: usize) -> usize {
    let times = (bytes as f64 / target_bytes.max(1) as f64).ceil().max(1.0);
    base.saturating_mul(times as usize).min(tables)
}

/// The runs of a shard over the batch, from which it is kept: merged within the landing. The
/// trigger falls by a fifth while the whole landing has twice what would be drained, and by a tenth
/// where something is old. Both are other quantities than the one that is compared, so lowering it
/// matters.
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

    /// Planted: no cap of the age; a density of NaN that is not caught.
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
        // Whatever the sizes, it is due when it is said to be.
        for main in 101..60_000 {
            let worth = drain_score(100, main, 1, 0, main % 2 == 0);
            if let Some(wait) = due_after_ms(worth, main % 2 == 0) {
                assert!(drain_score(100, main, 1, wait, main % 2 == 0) >= 1.0, "{main}: {wait}");
            }
        }
    }
}
