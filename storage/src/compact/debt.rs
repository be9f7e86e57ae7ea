//! Compaction debt, and the live share of the bytes on disk. Both are estimates for people: no
//! choice depends on them.

use super::pick::{Situation, landing_of};
use super::score::score;
use crate::table::KeySketch;
use crate::version::{Place, RangeVersion, Run, Slice};
use std::collections::BTreeMap;

/// The estimated bytes that merges must write until nothing is due, for L0 and each level up to the
/// deepest.
///
/// The debt of a level has two parts. The first is its landing: shards that are due for a drain or
/// a keep. The second is the excess of the level over its limit, with the bytes of the next level
/// that are rewritten for it; these are at most `drain_ratio` per byte, because what costs more may
/// wait in a landing. The excess of one level counts as a part of the next one, which may exceed
/// its own limit because of it.
pub fn debt(range: &RangeVersion, situation: &Situation<'_>) -> Vec<u64> {
    let options = &*range.own.compaction(situation.options);
    let lands = options.landing_runs_max > 0;
    let bytes_at = |place| range.layers.at(place).iter().map(|layer| layer.run.bytes()).sum();
    let mut coming: u64 = 0;
    let levels = (0..=range.deepest()).map(|level| {
        let place = if level == 0 { Place::L0 } else { Place::Main(level) };
        let there: u64 = bytes_at(place);
        let (mut debt, mut here) = (0_u64, there.saturating_add(coming));
        if level > 0 {
            for shard in landing_of(range, level, situation) {
                if shard.drain_score >= 1.0 {
                    debt = debt.saturating_add(shard.bytes).saturating_add(shard.main_bytes);
                    here = here.saturating_add(shard.bytes);
                } else if shard.keep_score >= 1.0 {
                    debt = debt.saturating_add(shard.bytes);
                }
            }
        }
        // The score is that of the level before the excess from above was added.
        let grown = here as f64 / there.max(1) as f64;
        let score = score(range, place, options).unwrap_or(0.0) * grown.max(1.0);
        let share = match place {
            Place::L0 => f64::from(u8::from(score >= 1.0)),
            _ => (1.0 - 1.0 / score).max(0.0),
        };
        coming = (here as f64 * share) as u64;
        let below: u64 = bytes_at(Place::Main(level + 1));
        if below > 0 || (level == 0 && range.layers.at(place).len() > 1) {
            let overlapped = (below as f64 * share) as u64;
            let most = if lands { coming.saturating_mul(options.drain_ratio) } else { u64::MAX };
            debt = debt.saturating_add(coming).saturating_add(overlapped.min(most));
        }
        debt
    });
    levels.collect()
}

/// The estimated bytes of the range that a reader can still get: entries that are neither
/// superseded nor tombstones. The sketches of the tables estimate the number of different keys.
pub fn live_bytes(range: &RangeVersion) -> u64 {
    // A file has one sketch, even if several slices use parts of it.
    let mut files: BTreeMap<_, &Slice> = BTreeMap::new();
    let (mut bytes, mut entries, mut tombstones) = (0_u64, 0_u64, 0_u64);
    for (_, slice) in range.layers.slices() {
        files.insert(slice.number(), slice);
        bytes = bytes.saturating_add(slice.file_bytes());
        entries = entries.saturating_add(slice.entries());
        tombstones = tombstones.saturating_add(slice.tombstones());
    }
    let mut all = KeySketch::default();
    let mut each = 0.0;
    for slice in files.values() {
        all.join(&slice.table.keys);
        each += slice.table.keys.keys();
    }
    // A run has one entry per key, so there are at least as many keys as entries in the largest
    // run.
    let least = range.layers.runs().iter().map(Run::entries).max().unwrap_or(0);
    let share = if each > 0.0 { all.keys() / each } else { 1.0 };
    let share = share.clamp(least as f64 / entries.max(1) as f64, 1.0);
    let alive = (share - tombstones as f64 / entries.max(1) as f64).max(0.0);
    (bytes as f64 * alive) as u64
}

#[cfg(test)]
mod tests {
    use super::super::{Claims, CompactionOptions};
    use super::*;
    use crate::codec::hash64;
    use crate::version::testing::{meta, slice, version_of};
    use crate::version::{Landed, ObsoleteFiles, SliceMeta, TableHandle, TablePart};
    use std::collections::BTreeSet;
    use std::sync::Arc;

    const MIB: u64 = 1 << 20;

    fn debt_of(range: &RangeVersion, options: &CompactionOptions) -> Vec<u64> {
        let situation = Situation {
            version: &crate::version::testing::empty_version(ObsoleteFiles::new()),
            ranges: &[],
            options,
            claims: &Claims::new(),
            set_aside: &BTreeSet::new(),
            now_ms: 0,
            quiet_since_ms: 0,
            resting: None,
            bursts: None,
            merges: true,
        };
        debt(range, &situation).into_iter().map(|bytes| bytes / MIB).collect()
    }

    /// L1 may have 10 MiB, L2 100 MiB.
    fn options() -> CompactionOptions {
        CompactionOptions {
            level_base_bytes: MIB,
            l0_trigger: 2,
            drain_ratio: 3,
            landing_runs_max: 0,
            ..CompactionOptions::balanced()
        }
    }

    /// Planted: what is not due counts; the excess from above is forgotten; `drain_ratio` is no
    /// limit.
    #[test]
    fn the_debt_is_what_is_too_much_and_what_is_rewritten_for_it() {
        let main = |number, mib| vec![slice(number, b"a", b"z", mib * MIB)];
        let l0 = |runs| (0..runs).map(|n| slice(99 - n, b"a", b"z", 2 * MIB)).collect::<Vec<_>>();
        let debt = |l0, levels, options: &CompactionOptions| {
            debt_of(&version_of(l0, levels).ranges()[0], options)
        };
        let off = options();
        let lands = CompactionOptions { landing_runs_max: 12, ..options() };
        assert_eq!(debt(l0(1), vec![main(1, 10), main(2, 90)], &off), [0, 0, 0], "just full");
        // All of L0 with all of L1. That makes L1 14 MiB: 4 of them move, over 4/14 of the 90 in
        // L2.
        assert_eq!(debt(l0(2), vec![main(1, 10), main(2, 90)], &off), [14, 4 + 25, 0]);
        // If they may land instead, they cost at most `drain_ratio` bytes of L2 per byte.
        assert_eq!(debt(l0(2), vec![main(1, 10), main(2, 90)], &lands), [14, 4 + 12, 0]);
        assert_eq!(debt(vec![], vec![main(1, 40)], &off), [0, 0], "nothing is below: it moves");
        assert_eq!(debt(l0(2), vec![], &off), [4], "they overlap each other");
    }

    #[test]
    fn what_is_due_in_a_landing_is_owed() {
        let landed = |number, mib| {
            let whole = slice(number, b"a", b"z", mib * MIB);
            let landed = Some(Landed { epoch: number, at_ms: 0 });
            Slice::new(SliceMeta { landed, ..whole.meta().clone() }, Arc::clone(whole.handle()))
        };
        let mut range = RangeVersion::clone(
            &version_of(vec![], vec![vec![slice(1, b"a", b"z", 9 * MIB)]]).ranges()[0],
        );
        let lands = CompactionOptions { landing_runs_max: 12, ..options() };
        range.layers = range.layers.with(Place::Landing(1, 0), vec![landed(7, 2)]);
        assert_eq!(debt_of(&range, &lands), [0, 0], "too little for what it would rewrite");
        range.layers = range.layers.with(Place::Landing(1, 0), vec![landed(7, 2), landed(6, 2)]);
        assert_eq!(debt_of(&range, &lands), [0, 4 + 9]);
    }

    fn keys(number: u64, keys: std::ops::Range<u64>, tombstones: u64) -> Arc<TableHandle> {
        let mut meta = meta(number, b"a", b"z", 0);
        for key in keys.clone() {
            meta.keys.add(hash64(&key.to_be_bytes()));
        }
        meta.entries = keys.end - keys.start;
        (meta.tombstones, meta.file_bytes) = (tombstones, meta.entries * 100);
        TableHandle::unopened(meta.into(), ObsoleteFiles::new())
    }

    /// Planted: a sketch for each part; tombstones counted as alive.
    #[test]
    fn what_is_hidden_or_deleted_is_not_alive() {
        let live = |l0: Vec<Slice>, levels| {
            let version = version_of(l0, levels);
            live_bytes(&version.ranges()[0]) as f64 / 100.0
        };
        let whole = |handle: &Arc<TableHandle>| Slice::whole(handle);
        let (base, same) = (keys(1, 0..10_000, 0), keys(2, 0..10_000, 0));
        let (half, gone) = (keys(3, 5_000..15_000, 0), keys(4, 0..5_000, 5_000));
        let near = |found: f64, want: f64| (found / want - 1.0).abs() < 0.15;
        assert!(live(vec![], vec![]) < 1.0);
        assert!(near(live(vec![], vec![vec![whole(&base)]]), 10_000.0));
        let all_twice = live(vec![whole(&same)], vec![vec![whole(&base)]]);
        assert!(near(all_twice, 10_000.0), "{all_twice}");
        let half_twice = live(vec![whole(&half)], vec![vec![whole(&base)]]);
        assert!(near(half_twice, 15_000.0), "{half_twice}");
        let half_deleted = live(vec![whole(&gone)], vec![vec![whole(&base)]]);
        assert!(near(half_deleted, 5_000.0), "{half_deleted}");
        let part = |min: &'static [u8], max: &'static [u8]| {
            let part = TablePart {
                min_key: min.into(),
                max_key: max.into(),
                file_bytes: 500_000,
                entries: 5_000,
                tombstones: 0,
            };
            let table = Arc::clone(base.meta());
            let part = Some(Arc::new(part));
            Slice::new(SliceMeta { table, part, seqno: None, landed: None }, Arc::clone(&base))
        };
        let parts = live(vec![], vec![vec![part(b"a", b"f"), part(b"m", b"z")]]);
        assert!(near(parts, 10_000.0), "parts of one file hide nothing: {parts}");
    }
}
