//! Shard bounds that follow the data.
//!
//! A new range divides the possible keys evenly. If all keys share a prefix, they are all in one
//! shard, and only one worker at a time can merge them. So the bounds move to quantiles of the
//! actual keys, as soon as those are known and the new bounds are much better.
//!
//! No byte is copied. Slices in landings are cut at the new bounds, and later flushes are cut
//! there. The levels do not depend on the bounds.

use super::job::{Inputs, Job};
use super::pick::Situation;
use super::why::{Choice, Why};
use crate::table::Table;
use crate::version::{RangeVersion, Shards, Slice};
use bytes::Bytes;

/// Keys sampled per shard that the range should have. Each key stands for the same number of bytes.
/// With this many, a bound that is off by a few of them does not double the size of a shard.
const KEYS: usize = 16;
/// At most one part in this many of the bytes may be unknown. Quantiles of the rest then leave no
/// shard with twice its share, whatever the unknown part turns out to be.
const UNKNOWN: usize = 4;
/// New bounds must reduce the largest shard to less than this share of its size.
const GAIN: f64 = 0.75;

/// A job that moves the shard bounds of a range, if that spreads its data much better.
pub(super) fn pick(range: &RangeVersion, situation: &Situation<'_>) -> Option<Job> {
    if situation.options.landing_runs_max == 0 || situation.options.shards < 2 {
        return None;
    }
    let wanted = situation.options.shards.max(range.shards.count());
    let slices = range.layers.slices();
    let bytes = slices.fold(0_u64, |sum, (_, slice)| sum.saturating_add(slice.file_bytes()));
    let mut sample = sample(range, bytes, wanted)?;
    let largest = largest_share(&range.shards, &sample);
    // Up to twice its share, a shard is large enough to tolerate.
    if largest <= 2.0 / wanted as f64 {
        return None;
    }
    sample.sort();
    let shards = quantiles(range, &sample, wanted)?;
    if largest_share(&shards, &sample) > largest * GAIN {
        return None;
    }
    let landings = (1..=range.deepest()).flat_map(|level| range.layers.landing(level));
    let mut places: Vec<_> = landings.map(|layer| layer.place).collect();
    places.dedup();
    let inputs = places.into_iter().map(|place| {
        let slices = range.layers.in_order(place);
        Inputs { place, slices }
    });
    let why = Why { choice: Choice::Reshard, score: largest, bytes, ..Why::default() };
    let job = Job::resharding(range, inputs.collect(), shards).because(why);
    situation.admits(&job).then_some(job)
}

/// Samples keys of the range, each of which stands for the same share of its `bytes`. `None` while
/// too little is known.
///
/// All tables are laid end to end, and keys are sampled at regular distances in bytes. So each
/// table counts by its size, and small changes in size change the sample little. This opens no
/// table. A table that is not open is represented by its first and last key if it is small and in a
/// level, where tables are narrow.
fn sample(range: &RangeVersion, bytes: u64, wanted: usize) -> Option<Vec<Bytes>> {
    let count = KEYS * wanted;
    let step = (bytes / count as u64).max(1);
    let small = step * KEYS as u64 / UNKNOWN as u64;
    let mut sample = Vec::with_capacity(count);
    let mut unknown = 0;
    // The offset of the next sample in the next table.
    let mut at = step / 2;
    for (place, slice) in range.layers.slices() {
        let has = slice.file_bytes();
        if at < has {
            let table = slice.handle().if_open();
            let ends_tell = !place.is_tier() && has <= small;
            while at < has {
                match &table {
                    Some(table) => sample.push(key_at(slice, table, at)),
                    None if ends_tell && at < has / 2 => sample.push(slice.min_key().clone()),
                    None if ends_tell => sample.push(slice.max_key().clone()),
                    None => unknown += 1,
                }
                at += step;
            }
        }
        at -= has;
    }
    (!sample.is_empty() && unknown * UNKNOWN <= sample.len() + unknown).then_some(sample)
}

/// The key of `slice` about `at` bytes after its first one.
fn key_at(slice: &Slice, table: &Table, at: u64) -> Bytes {
    let before = if slice.part.is_some() { table.bytes_before(slice.min_key()) } else { 0 };
    let all = slice.table.file_bytes.max(1);
    let key = table.key_at_fraction(before.saturating_add(at).min(all - 1), all);
    Bytes::copy_from_slice(key.clamp(slice.min_key(), slice.max_key()))
}

/// The share of the sampled keys in the fullest shard.
fn largest_share(shards: &Shards, sample: &[Bytes]) -> f64 {
    let mut keys = vec![0_u64; shards.count()];
    for key in sample {
        keys[shards.index(key)] += 1;
    }
    keys.into_iter().max().unwrap_or(0) as f64 / sample.len() as f64
}

/// Bounds that divide the sorted keys into `count` equal parts.
fn quantiles(range: &RangeVersion, sample: &[Bytes], count: usize) -> Option<Shards> {
    let mut bounds: Vec<Bytes> = Vec::new();
    for at in 1..count {
        let key = &sample[at * sample.len() / count];
        let ascends = bounds.last().is_none_or(|last| last < key) && *key > range.span.lo;
        if ascends && range.span.contains(key) {
            bounds.push(key.clone());
        }
    }
    Shards::at(&range.span, bounds).filter(|shards| shards.count() > 1)
}

#[cfg(test)]
mod tests {
    use super::super::{Claims, CompactionOptions};
    use super::*;
    use crate::version::testing::{slice, version_of};
    use crate::version::{ObsoleteFiles, Version};
    use std::collections::BTreeSet;

    const MIB: u64 = 1 << 20;

    fn picked(range: &RangeVersion, shards: usize) -> Option<Job> {
        let (claims, set_aside) = (Claims::new(), BTreeSet::new());
        let options = CompactionOptions { shards, ..CompactionOptions::balanced() };
        let version = Version::new(Vec::new(), ObsoleteFiles::new());
        let situation = Situation {
            version: &version,
            ranges: &[],
            options: &options,
            claims: &claims,
            set_aside: &set_aside,
            now_ms: 0,
            quiet_since_ms: 0,
            resting: None,
            bursts: None,
            merges: true,
        };
        pick(range, &situation)
    }

    /// 200 adjacent tables in L1; `bytes` gives the size of each.
    fn level(bytes: impl Fn(u64) -> u64) -> RangeVersion {
        let table = |n: u64| {
            let (min, max) = (format!("user:{n:03}a"), format!("user:{n:03}z"));
            slice(n + 1, min.as_bytes(), max.as_bytes(), bytes(n))
        };
        RangeVersion::clone(&version_of(vec![], vec![(0..200).map(table).collect()]).ranges()[0])
    }

    /// Planted: a sample of the largest tables only; of first keys only.
    #[test]
    fn bounds_that_spread_well_stay_whichever_tables_are_the_largest() {
        let mut range = level(|_| MIB);
        let job = picked(&range, 16).expect("all of it is in one shard");
        assert_eq!(job.shards.count(), 16);
        range.shards = job.shards.clone();
        let mut per_shard = [0; 16];
        for (_, slice) in range.layers.slices() {
            per_shard[range.shards.index(slice.min_key())] += 1;
        }
        assert!(per_shard.iter().all(|tables| (9..=16).contains(tables)), "{per_shard:?}");
        for first in (0..200).step_by(23) {
            let larger = |n: u64| MIB + u64::from((first..first + 16).contains(&n));
            let mut other = level(larger);
            other.shards = range.shards.clone();
            assert!(picked(&other, 16).is_none(), "from {first} on");
        }
        // Now one shard has more than twice its share.
        let mut other = level(|n| if n < 12 { 3 * MIB } else { MIB });
        other.shards = range.shards.clone();
        assert!(picked(&other, 16).is_some());
    }

    /// Planted: a wide table that is not open is represented by its first key.
    #[test]
    fn nothing_is_decided_by_tables_of_which_too_little_is_known() {
        let l0 = |count: u64| (0..count).rev().map(|n| slice(500 + n, b"a", b"z", MIB)).collect();
        let mut range = level(|_| MIB);
        let few = range.layers.with(crate::version::Place::L0, l0(60));
        range.layers = range.layers.with(crate::version::Place::L0, l0(70));
        assert!(picked(&range, 16).is_none());
        range.layers = few;
        assert!(picked(&range, 16).is_some());
        let large = version_of(vec![], vec![vec![slice(1, b"a", b"z", MIB)]]);
        assert!(picked(&large.ranges()[0], 4).is_none());
    }
}
