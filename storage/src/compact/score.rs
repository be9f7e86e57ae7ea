//! How badly each level wants to be compacted.

use super::options::CompactionOptions;
use crate::version::{RangeId, RangeVersion, Version};
use std::cmp::Ordering;

/// A level's wish: 1.0 and more is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelScore {
    /// The range.
    pub range: RangeId,
    /// The level, 0 for L0.
    pub level: u8,
    /// The largest of its sizes over their limits.
    pub score: f64,
}

/// The scores of all levels that have tables and may be compacted into a deeper one, most urgent
/// first; of equal ones the shallower first.
pub fn scores(version: &Version, options: &CompactionOptions) -> Vec<LevelScore> {
    let mut scores: Vec<_> =
        version.ranges().iter().flat_map(|range| range_scores(range, options)).collect();
    scores.sort_by(|a, b| {
        let urgent = b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
        urgent.then(a.level.cmp(&b.level)).then(a.range.cmp(&b.range))
    });
    scores
}

fn range_scores(range: &RangeVersion, options: &CompactionOptions) -> Vec<LevelScore> {
    let mut scores = Vec::new();
    let mut push = |level, score| scores.push(LevelScore { range: range.id, level, score });
    if !range.l0.is_empty() {
        let metas = || range.l0.iter().map(|table| table.meta());
        // Files that do not overlap cost nobody a look, but there may not be any number of them.
        let by_depth = range.l0.depth() as f64 / options.l0_trigger as f64;
        let by_count = range.l0.len() as f64 / options.l0_files_trigger() as f64;
        let by_bytes = over(metas().map(|meta| meta.file_bytes).sum(), options.l0_bytes_max);
        let by_entries = over(metas().map(|meta| meta.entries).sum(), options.l0_entries_max);
        push(0, by_depth.max(by_count).max(by_bytes).max(by_entries));
    }
    for (level, number) in range.levels.iter().zip(1..) {
        // A range may be deeper than the options now allow; what lies there stays there.
        if level.is_empty() || number >= options.levels_max {
            continue;
        }
        let by_bytes = over(level.bytes(), options.level_bytes(number));
        let by_entries = over(level.entries(), options.level_entries(number));
        push(number, by_bytes.max(by_entries));
    }
    scores
}

fn over(size: u64, limit: u64) -> f64 {
    if limit == u64::MAX { 0.0 } else { size as f64 / limit.max(1) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::testing::{handle, version_of};

    fn score_of(version: &Version, options: &CompactionOptions, level: u8) -> f64 {
        let scores = scores(version, options);
        scores.iter().find(|score| score.level == level).map_or(0.0, |score| score.score)
    }

    #[test]
    fn each_trigger_fires_at_its_limit_and_not_before() {
        let options = CompactionOptions::seed();
        for (count, due) in [(3, false), (4, true), (5, true)] {
            let l0 = (0..count).map(|n| handle(9 - n, b"a", b"z", 10)).collect();
            assert_eq!(score_of(&version_of(l0, vec![]), &options, 0) >= 1.0, due, "{count}");
        }
        let limit = 10 << 20;
        for (bytes, due) in [(limit - 1, false), (limit, true), (limit + 1, true)] {
            let entries = CompactionOptions { level_base_entries: u64::MAX, ..options.clone() };
            let version = version_of(vec![], vec![vec![handle(1, b"a", b"z", bytes)]]);
            assert_eq!(score_of(&version, &entries, 1) >= 1.0, due, "{bytes}");
        }
        // A test table has an entry per 100 bytes.
        for (entries, due) in [(9_999, false), (10_000, true), (10_001, true)] {
            let version = version_of(vec![], vec![vec![handle(1, b"a", b"z", entries * 100)]]);
            assert_eq!(score_of(&version, &options, 1) >= 1.0, due, "{entries}");
        }
    }

    #[test]
    fn pieces_of_flushes_count_as_the_flushes_they_are_of() {
        let options = CompactionOptions::balanced();
        let pieces: [(&[u8], &[u8]); 4] = [(b"a", b"b"), (b"c", b"d"), (b"e", b"f"), (b"g", b"h")];
        let l0 = |flushes: u64| {
            let number = |flush, piece| 100 - 4 * flush - piece;
            let of =
                |flush| (0..).zip(pieces).map(move |(n, (min, max))| (number(flush, n), min, max));
            (0..flushes).flat_map(of).map(|(n, min, max)| handle(n, min, max, 10)).collect()
        };
        for (flushes, due) in [(1, false), (3, false), (4, true)] {
            let version = version_of(l0(flushes), vec![]);
            assert_eq!(version.ranges()[0].l0.depth() as u64, flushes);
            assert_eq!(score_of(&version, &options, 0) >= 1.0, due, "{flushes} flushes");
        }
        // Flushes that do not overlap form one run, but not an endless one.
        for (count, due) in [(15, false), (16, true)] {
            let key = |n: u64| format!("{n:03}").into_bytes();
            let l0 = (0..count).rev().map(|n| handle(n + 1, &key(n), &key(n), 10)).collect();
            let version = version_of(l0, vec![]);
            assert_eq!(version.ranges()[0].l0.depth(), 1);
            assert_eq!(score_of(&version, &options, 0) >= 1.0, due, "{count} tables");
        }
    }

    #[test]
    fn the_deepest_level_wants_nothing() {
        let options = CompactionOptions { levels_max: 2, ..CompactionOptions::seed() };
        let levels = vec![vec![], vec![handle(1, b"a", b"z", u64::MAX / 2)]];
        assert_eq!(scores(&version_of(vec![], levels), &options), vec![]);
    }

    #[test]
    fn the_most_urgent_comes_first() {
        let options = CompactionOptions::seed();
        let l0 = (0..4).map(|n| handle(9 - n, b"a", b"z", 10)).collect();
        let levels = vec![vec![handle(1, b"a", b"z", 30 << 20)]];
        let order: Vec<_> =
            scores(&version_of(l0, levels), &options).iter().map(|score| score.level).collect();
        assert_eq!(order, [1, 0]);
    }
}
