//! How urgently each level needs a compaction.

use super::options::CompactionOptions;
use crate::version::{Place, RangeVersion};

/// The score of one place of a range: how urgent its compaction is, and due from 1.0 on. `None` for
/// the deepest level, and for landings, which are scored elsewhere.
pub fn score(range: &RangeVersion, place: Place, options: &CompactionOptions) -> Option<f64> {
    let layers = range.layers.at(place);
    let bytes = layers.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.run.bytes()));
    let entries = layers.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.run.entries()));
    match place {
        Place::L0 => {
            let by_depth = layers.len() as f64 / options.l0_trigger as f64;
            // Tables that do not overlap cost a read nothing, but their number must still be
            // bounded.
            let by_count = range.layers.count(place) as f64 / options.l0_files_trigger() as f64;
            let by_bytes = over(bytes, options.l0_bytes_max);
            let by_entries = over(entries, options.l0_entries_max);
            Some(by_depth.max(by_count).max(by_bytes).max(by_entries))
        }
        // The range may be deeper than the options now allow. Those levels are left as they are.
        Place::Main(level) if level < options.levels_max => {
            let by_bytes = over(bytes, options.level_bytes(level));
            Some(by_bytes.max(over(entries, options.level_entries(level))))
        }
        Place::Main(_) | Place::Landing(..) => None,
    }
}

fn over(size: u64, limit: u64) -> f64 {
    if limit == u64::MAX { 0.0 } else { size as f64 / limit.max(1) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Version;
    use crate::version::testing::{slice, version_of};

    fn score_of(version: &Version, options: &CompactionOptions, place: Place) -> f64 {
        score(&version.ranges()[0], place, options).unwrap_or(0.0)
    }

    #[test]
    fn t003_02_each_trigger_fires_at_its_limit_and_not_before() {
        let options = CompactionOptions::seed();
        for (count, due) in [(3, false), (4, true), (5, true)] {
            let l0 = (0..count).map(|n| slice(9 - n, b"a", b"z", 10)).collect();
            assert_eq!(
                score_of(&version_of(l0, vec![]), &options, Place::L0) >= 1.0,
                due,
                "{count}"
            );
        }
        let limit = 10 << 20;
        for (bytes, due) in [(limit - 1, false), (limit, true), (limit + 1, true)] {
            let entries = CompactionOptions { level_base_entries: u64::MAX, ..options.clone() };
            let version = version_of(vec![], vec![vec![slice(1, b"a", b"z", bytes)]]);
            assert_eq!(score_of(&version, &entries, Place::Main(1)) >= 1.0, due, "{bytes}");
        }
        // A test table has one entry per 100 bytes.
        for (entries, due) in [(9_999, false), (10_000, true), (10_001, true)] {
            let version = version_of(vec![], vec![vec![slice(1, b"a", b"z", entries * 100)]]);
            assert_eq!(score_of(&version, &options, Place::Main(1)) >= 1.0, due, "{entries}");
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
            (0..flushes).flat_map(of).map(|(n, min, max)| slice(n, min, max, 10)).collect()
        };
        for (flushes, due) in [(1, false), (3, false), (4, true)] {
            let version = version_of(l0(flushes), vec![]);
            assert_eq!(version.ranges()[0].layers.at(Place::L0).len() as u64, flushes);
            assert_eq!(score_of(&version, &options, Place::L0) >= 1.0, due, "{flushes} flushes");
        }
        // Flushes that do not overlap form one run, but the number of its tables is limited.
        for (count, due) in [(15, false), (16, true)] {
            let key = |n: u64| format!("{n:03}").into_bytes();
            let l0 = (0..count).rev().map(|n| slice(n + 1, &key(n), &key(n), 10)).collect();
            let version = version_of(l0, vec![]);
            assert_eq!(version.ranges()[0].layers.at(Place::L0).len(), 1);
            assert_eq!(score_of(&version, &options, Place::L0) >= 1.0, due, "{count} tables");
        }
    }

    #[test]
    fn the_deepest_level_wants_nothing() {
        let options = CompactionOptions { levels_max: 2, ..CompactionOptions::seed() };
        let levels = vec![vec![], vec![slice(1, b"a", b"z", u64::MAX / 2)]];
        let version = version_of(vec![], levels);
        assert_eq!(score(&version.ranges()[0], Place::Main(2), &options), None);
    }
}
