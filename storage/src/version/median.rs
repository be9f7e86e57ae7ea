//! The middle key of a range: by bytes, by entries, or of any weighted keys.
//!
//! The result is an estimate, and no entry is counted. A table's index yields keys that divide the
//! table evenly, and each key stands for its share of the table. Only the largest tables are
//! sampled in this way. For the others their first and last key suffice.

use super::{RangeVersion, Slice, SliceMeta};
use crate::key::Span;
use crate::table::ReadTier;
use bytes::Bytes;
use std::cmp::Reverse;

/// Keys that are sampled per table.
const SAMPLES: u64 = 16;
/// Tables that are sampled per range, the largest ones.
const TABLES: usize = 16;

impl RangeVersion {
    /// A key that divides the range's tables about evenly by `weight`. Some of the weight is before
    /// the key and some is not. `None` if all of it is under one key, or if the range is empty.
    /// Opens tables that are not open, so it blocks on the disk.
    pub fn median(&self, weight: impl Fn(&SliceMeta) -> u64) -> Option<Bytes> {
        let mut sample = Vec::new();
        let mut slices: Vec<&Slice> = self.layers.slices().map(|(_, slice)| slice).collect();
        slices.sort_by_key(|slice| Reverse(slice.file_bytes()));
        for (at, slice) in slices.into_iter().enumerate() {
            let whole = SliceMeta { part: None, ..slice.meta().clone() };
            let looked_into = at < TABLES && look_into(slice, weight(&whole), &mut sample);
            let end = if looked_into { 0 } else { weight(slice).div_ceil(2) };
            sample.extend([(slice.min_key().clone(), end), (slice.max_key().clone(), end)]);
        }
        median_of(sample, &self.span)
    }
}

/// Adds sampled keys of a slice, each with its share of the whole table's `weight`. Returns whether
/// any was added.
fn look_into(slice: &Slice, weight: u64, sample: &mut Vec<(Bytes, u64)>) -> bool {
    // Whoever reads the table will report the damage.
    let Ok(table) = slice.handle().table(ReadTier::Disk) else { return false };
    let before = sample.len();
    for at in 0..SAMPLES {
        let key = table.key_at_fraction(at, SAMPLES);
        if slice.overlaps(key, key) {
            sample.push((Bytes::copy_from_slice(key), weight.div_ceil(SAMPLES)));
        }
    }
    sample.len() > before
}

/// The key of `sample` that divides its weight most evenly, with at least one key on both sides.
/// `None` unless two different keys lie inside `span`.
pub fn median_of(mut sample: Vec<(Bytes, u64)>, span: &Span) -> Option<Bytes> {
    sample.retain(|(key, _)| span.contains(key));
    sample.sort();
    let all: u128 = sample.iter().map(|(_, weight)| u128::from(*weight)).sum();
    let mut before = 0;
    let mut best: Option<(u128, &Bytes)> = None;
    for same in sample.chunk_by(|(a, _), (b, _)| a == b) {
        let key = &same[0].0;
        // The first key has nothing before it.
        if *key != sample[0].0 {
            let off = all.abs_diff(2 * before);
            if best.is_none_or(|(least, _)| off < least) {
                best = Some((off, key));
            }
        }
        before += same.iter().map(|(_, weight)| u128::from(*weight)).sum::<u128>();
    }
    best.map(|(_, key)| key.clone())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{slice, version_of};
    use super::*;

    fn sample(keys: &[(&'static str, u64)]) -> Vec<(Bytes, u64)> {
        keys.iter().map(|(key, weight)| (Bytes::from_static(key.as_bytes()), *weight)).collect()
    }

    fn middle(keys: &[(&'static str, u64)]) -> Option<Bytes> {
        median_of(sample(keys), &Span::all())
    }

    #[test]
    fn a_median_has_half_of_the_weight_before_it() {
        assert_eq!(middle(&[("c", 1), ("a", 1), ("d", 1), ("b", 1)]).unwrap(), "c");
        assert_eq!(middle(&[("a", 1), ("b", 1), ("c", 8), ("d", 1)]).unwrap(), "c");
        assert_eq!(middle(&[("a", 1), ("b", 9), ("c", 1), ("d", 1)]).unwrap(), "c");
        assert_eq!(middle(&[("a", u64::MAX), ("b", u64::MAX), ("c", 1)]).unwrap(), "b");
        let part = Span { lo: "b".into(), hi: Some("d".into()) };
        let keys = sample(&[("a", 9), ("b", 1), ("c", 1), ("d", 9)]);
        assert_eq!(median_of(keys, &part).unwrap(), "c", "others have the rest");
    }

    /// Goal: both sides always get at least one key. Planted: the median is returned even if it is
    /// the first key.
    #[test]
    fn t002_13_a_median_that_is_the_first_key_is_the_second_one() {
        assert_eq!(middle(&[("a", 9), ("b", 1)]).unwrap(), "b");
        assert_eq!(middle(&[("a", 0), ("b", 0)]).unwrap(), "b", "nothing weighs anything");
        assert_eq!(middle(&[("a", 9), ("a", 9), ("a", 1)]), None, "one key");
        assert_eq!(middle(&[]), None);
        let one = Span { lo: "b".into(), hi: Some("c".into()) };
        assert_eq!(median_of(sample(&[("a", 1), ("b", 1), ("c", 1)]), &one), None);
    }

    /// A table that cannot be opened is represented by its first and last key.
    #[test]
    fn a_range_has_a_median_although_no_table_opens() {
        let mut range = RangeVersion::clone(&version_of(Vec::new(), Vec::new()).ranges()[0]);
        assert_eq!(range.median(SliceMeta::file_bytes), None, "it is empty");
        let table = |number, min: &str, max: &str, bytes| {
            slice(number, min.as_bytes(), max.as_bytes(), bytes)
        };
        let main =
            vec![table(1, "a", "c", 2000), table(2, "d", "f", 2000), table(3, "g", "i", 2000)];
        range.layers =
            version_of(vec![table(4, "x", "x", 2000)], vec![main]).ranges()[0].layers.clone();
        assert_eq!(range.median(SliceMeta::entries).unwrap(), "g");
        assert_eq!(range.median(SliceMeta::file_bytes).unwrap(), "g");
    }
}
