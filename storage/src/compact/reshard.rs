//! Shard bounds that follow the data.
//!
//! A new range is divided evenly over the keys that it may have. Keys with a common prefix then all
//! lie in one shard, and one worker at a time merges them. So the bounds are moved to quantiles of
//! what is there, as soon as that is known and spreads much better.
//!
//! No byte is copied. What lies in a landing is cut at the new bounds, and later flushes cut there.
//! The levels do not depend on the bounds.

use super::job::{Inputs, Job};
use super::pick::Situation;
use super::why::{Choice, Why};
use crate::table::Table;
use crate::version::{RangeVersion, Shards, Slice};
use bytes::Bytes;

/// So many keys are looked at for each shard that a range should have, each of which stands for as
/// many bytes. A bound that is off by some of them does not make a shard twice as large as its
/// part.
const KEYS: usize = 16;
/// What is not known of the bytes may be one part in so many. Bounds between equal parts of the
/// rest then leave no shard with twice its part, whatever becomes known later.
const UNKNOWN: usize = 4;
/// The largest shard must get smaller than this share of what it was.
const GAIN: f64 = 0.75;

/// New bounds for the shards of a range, if they spread what it has much better.
pub(super) fn pick(range: &RangeVersion, situation: &Situation<'_>) -> Option<Job> {
    if situation.options.landing_runs_max == 0 || situation.options.shards < 2 {
        return None;
    }
    let wanted = situation.options.shards.max(range.shards.count());
    let slices = range.layers.slices();
    let bytes = slices.fold(0_u64, |sum, (_, slice)| sum.saturating_add(slice.file_bytes()));
    let mut sample = sample(range, bytes, wanted)?;
    let largest = largest_share(&range.shards, &sample);
    // Twice its part is not worth a word.
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

/// Keys of the range, each of which stands for as many of its `bytes`; `None` while too little is
/// known.
///
/// Every so many bytes of all tables, one after the other, a key is looked at: so each table counts
/// for what it has, and a few bytes more or less change little. Opens no table. One that is not
/// open is known by its ends if it is small and in a level, where it is narrow.
fn sample(range: &RangeVersion, bytes: u64, wanted: usize) -> Option<Vec<Bytes>> {
    let count = KEYS * wanted;
    let step = (bytes / count as u64).max(1);
    let small = step * KEYS as u64 / UNKNOWN as u64;
    let mut sample = Vec::with_capacity(count);
    let mut unknown = 0;
    // How far into the next table the next key is.
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

/// A key of `slice`, about so many bytes from its first one.
fn key_at(slice: &Slice, table: &Table, at: u64) -> Bytes {
    let before = if slice.part.is_some() { table.bytes_before(slice.min_key()) } else { 0 };
    let all = slice.table.file_bytes.max(1);
    let key = table.key_at_fraction(before.saturating_add(at).min(all - 1), all);
    Bytes::copy_from_slice(key.clamp(slice.min_key(), slice.max_key()))
}

/// Which share of the keys lies in the shard that has the most.
fn largest_share(shards: &Shards, sample: &[Bytes]) -> f64 {
    let mut keys = vec![0_u64; shards.count()];
    for key in sample {
        keys[shards.index(key)] += 1;
    }
    keys.into_iter().max().unwrap_or(0) as f64 / sample.len() as f64
}

/// Bounds that divide the keys, which are in order, into equal parts.
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
            merges: true,
        };
        pick(range, &situation)
    }

    /// 200 neighbours in L1; of each its bytes.
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
        // One shard has more than twice its part now.
        let mut other = level(|n| if n < 12 { 3 * MIB } else { MIB });
        other.shards = range.shards.clone();
        assert!(picked(&other, 16).is_some());
    }

    /// Planted: a table that is not open and wide, taken for one that lies where it begins.
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
