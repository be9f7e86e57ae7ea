//! Shard bounds that follow the data.
//!
//! A new range is divided evenly over the keys that it may have. Keys with a common prefix all lie in one
//! shard then, and are merged by one compactor at a time. So the bounds are moved to quantiles of what
//! is there, as soon as that is known and would spread much better. No byte is copied: what lies in a landing is
//! cut at the new bounds, later flushes cut there, and what is in levels does not depend on them.

use super::job::{Inputs, Job};
use super::pick::Situation;
use super::why::{Choice, Why};
use crate::table::Wait;
use crate::version::{RangeVersion, Shards, Slice};
use bytes::Bytes;

/// Of each table so many keys are looked at.
const SAMPLES: u64 = 16;
/// Of a range so many tables are, the largest ones.
const TABLES: usize = 16;
/// The largest shard must get smaller than this share of what it was.
const GAIN: f64 = 0.75;

/// New bounds for the shards of a range, if they spread what it has much better.
pub(super) fn pick(range: &RangeVersion, situation: &Situation<'_>) -> Option<Job> {
    let count = range.shards.count();
    if situation.options.landing_runs_max == 0 || situation.options.shards < 2 {
        return None;
    }
    let mut sample = sample(range);
    sample.sort();
    let all: u64 = sample.iter().map(|(_, weight)| weight).sum();
    let largest = largest_share(&range.shards, &sample, all);
    let wanted = situation.options.shards.max(count);
    // Twice its part is not worth a word.
    if all == 0 || largest <= 2.0 / wanted as f64 {
        return None;
    }
    let shards = quantiles(range, &sample, all, wanted)?;
    if largest_share(&shards, &sample, all) > largest * GAIN {
        return None;
    }
    let landings = (1..=range.deepest()).flat_map(|level| range.layers.landing(level));
    let mut places: Vec<_> = landings.map(|layer| layer.place).collect();
    places.dedup();
    let inputs = places.into_iter().map(|place| {
        let slices = range.layers.in_order(place);
        Inputs { place, slices }
    });
    let why = Why { choice: Choice::Reshard, score: largest, bytes: all, ..Why::default() };
    let job = Job::resharding(range, inputs.collect(), shards).because(why);
    situation.admits(&job).then_some(job)
}

/// Keys of the range with the bytes that each stands for. Looks into no table that is not open.
fn sample(range: &RangeVersion) -> Vec<(Bytes, u64)> {
    let mut slices: Vec<&Slice> = range.layers.slices().map(|(_, slice)| slice).collect();
    slices.sort_by_key(|slice| std::cmp::Reverse(slice.file_bytes()));
    let mut sample = Vec::new();
    for slice in slices.into_iter().take(TABLES) {
        let Ok(table) = slice.handle().table(Wait::Never) else { continue };
        for at in 0..SAMPLES {
            let key = table.key_at_fraction(at, SAMPLES);
            if slice.overlaps(key, key) {
                sample.push((Bytes::copy_from_slice(key), slice.table.file_bytes / SAMPLES));
            }
        }
    }
    sample
}

/// Which share of the bytes lies in the shard that has the most.
fn largest_share(shards: &Shards, sample: &[(Bytes, u64)], all: u64) -> f64 {
    let mut bytes = vec![0_u64; shards.count()];
    for (key, weight) in sample {
        bytes[shards.index(key)] += weight;
    }
    bytes.into_iter().max().unwrap_or(0) as f64 / all.max(1) as f64
}

/// Bounds between parts of equal weight.
fn quantiles(
    range: &RangeVersion,
    sample: &[(Bytes, u64)],
    all: u64,
    count: usize,
) -> Option<Shards> {
    let mut bounds: Vec<Bytes> = Vec::new();
    let mut before = 0_u128;
    for (key, weight) in sample {
        let next = bounds.len() as u128 + 1;
        let full = before * count as u128 >= u128::from(all) * next;
        let ascends = bounds.last().is_none_or(|last| last < key) && *key > range.span.lo;
        if full && ascends && bounds.len() + 1 < count && range.span.contains(key) {
            bounds.push(key.clone());
        }
        before += u128::from(*weight);
    }
    Shards::at(&range.span, bounds).filter(|shards| shards.count() > 1)
}
