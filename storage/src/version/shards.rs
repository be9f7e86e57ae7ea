//! How a range's keys are divided into shards.
//!
//! A shard is a part of a range's span. Flushes cut their tables at shard bounds. So a table of L0
//! lies in one shard, and can move to the landing of that shard by an edit alone.
//!
//! The bounds follow the data. A new range derives them from its span. They move to quantiles of
//! the data when that is spread unevenly over the shards. The manifest stores them. So every flush
//! of a range cuts at the same keys until the bounds move, even after a restart with other options.

use crate::key::{Span, head};
use crate::limits::SHARDS_MAX;
use bytes::Bytes;
use std::ops::RangeInclusive;

/// The bounds between the shards of one range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards {
    /// The first key of each shard but the first, ascending.
    bounds: Vec<Bytes>,
}

impl Shards {
    /// Shards with these `bounds`. `None` unless they ascend, lie inside `span`, and make at most
    /// `SHARDS_MAX` shards.
    pub fn at(span: &Span, bounds: Vec<Bytes>) -> Option<Self> {
        let shards = Self { bounds };
        let sound = shards.count() <= SHARDS_MAX
            && shards.bounds.is_sorted_by(|a, b| a < b)
            && shards.fit(span);
        sound.then_some(shards)
    }

    /// Do all bounds lie inside `span`?
    pub(super) fn fit(&self, span: &Span) -> bool {
        self.bounds.iter().all(|bound| span.contains(bound) && *bound != span.lo)
    }

    /// The first key of each shard but the first, ascending.
    pub fn bounds(&self) -> &[Bytes] {
        &self.bounds
    }

    /// One shard, so that nothing is cut.
    pub fn one() -> Self {
        Self { bounds: Vec::new() }
    }

    /// `count` shards (at least 1) that divide `span` evenly, by the eight bytes after the common
    /// prefix of both ends. For the whole key space and four shards, these are the top two bits of
    /// the first byte. There are fewer shards if the ends are too close for `count - 1` different
    /// bounds.
    pub fn of(span: &Span, count: usize) -> Self {
        let shared = match &span.hi {
            Some(hi) => span.lo.iter().zip(hi).take_while(|(lo, hi)| lo == hi).count(),
            None => 0,
        };
        let lo = u128::from(head(&span.lo[shared..]));
        let hi = match &span.hi {
            Some(hi) => u128::from(head(&hi[shared..])),
            None => 1 << 64,
        };
        let width = hi.saturating_sub(lo);
        let mut bounds: Vec<Bytes> = Vec::new();
        for at in 1..count as u128 {
            let deciding = (lo + width * at / count as u128) as u64;
            let mut bound = span.lo[..shared].to_vec();
            bound.extend_from_slice(&deciding.to_be_bytes());
            // Trailing zero bytes are dropped to keep the keys short.
            bound.truncate(bound.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            let ascends = bounds.last().is_none_or(|last| *last < bound);
            if bound[..] > span.lo[..] && span.hi.as_ref().is_none_or(|hi| bound < *hi) && ascends {
                bounds.push(bound.into());
            }
        }
        Self { bounds }
    }

    /// The bounds inside `span`, a part of this range.
    pub(super) fn within(&self, span: &Span) -> Self {
        let inside = |bound: &&Bytes| span.contains(bound) && **bound != span.lo;
        Self { bounds: self.bounds.iter().filter(inside).cloned().collect() }
    }

    /// The shards of a merged range: `self` before the key `at`, `next` from there on. While there
    /// are more than `count_max`, neighbouring shards are joined in pairs.
    pub(super) fn joined(&self, at: &Bytes, next: &Self, count_max: usize) -> Self {
        let bounds = self.bounds.iter().chain([at]).chain(&next.bounds);
        let mut bounds: Vec<Bytes> = bounds.cloned().collect();
        while bounds.len() + 1 > count_max.clamp(1, SHARDS_MAX) {
            bounds = bounds.into_iter().skip(1).step_by(2).collect();
        }
        Self { bounds }
    }

    /// The number of shards.
    pub fn count(&self) -> usize {
        self.bounds.len() + 1
    }

    /// The index of the shard that contains `key`.
    pub fn index(&self, key: &[u8]) -> usize {
        self.bounds.partition_point(|bound| bound <= key)
    }

    /// The indexes of the shards that have keys from `min` to `max`, which both count.
    pub fn touched(&self, min: &[u8], max: &[u8]) -> RangeInclusive<usize> {
        self.index(min)..=self.index(max)
    }

    /// The keys at which a flush of `bytes` is cut. A flush smaller than `cut_bytes_min` is not
    /// cut: each piece would cost a file, to save the rewrite of little data.
    /// INVARIANT(shard-disjoint).
    pub fn for_flush(&self, bytes: u64, cut_bytes_min: u64) -> &[Bytes] {
        if bytes < cut_bytes_min { &[] } else { &self.bounds }
    }

    /// A walk over the bounds in step with ascending keys.
    pub fn cuts(&self) -> ShardCuts<'_> {
        ShardCuts::at(&self.bounds)
    }
}

/// A walk over bounds in step with ascending keys.
#[derive(Debug, Default)]
pub struct ShardCuts<'a> {
    ahead: &'a [Bytes],
}

impl<'a> ShardCuts<'a> {
    /// A walk over `bounds`, which ascend.
    pub fn at(bounds: &'a [Bytes]) -> Self {
        Self { ahead: bounds }
    }

    /// Advances to `key`, which is not before the previous one. Returns whether it crossed a bound.
    #[inline]
    pub fn passes(&mut self, key: &[u8]) -> bool {
        let mut passed = false;
        while let Some((bound, ahead)) = self.ahead.split_first()
            && key >= &bound[..]
        {
            self.ahead = ahead;
            passed = true;
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(lo: &[u8], hi: Option<&[u8]>) -> Span {
        Span { lo: Bytes::copy_from_slice(lo), hi: hi.map(Bytes::copy_from_slice) }
    }

    fn bounds(span: &Span, count: usize) -> Vec<Vec<u8>> {
        Shards::of(span, count).bounds.iter().map(|bound| bound.to_vec()).collect()
    }

    #[test]
    fn the_whole_key_space_is_divided_by_the_top_bits_of_the_first_byte() {
        assert_eq!(bounds(&Span::all(), 4), [[0x40], [0x80], [0xC0]]);
        let shards = Shards::of(&Span::all(), 4);
        for byte in 0..=255_u8 {
            assert_eq!(shards.index(&[byte, 1, 2]), usize::from(byte >> 6));
        }
        assert_eq!(Shards::of(&Span::all(), 1), Shards::one());
    }

    /// Planted: a bound belongs to the shard before it.
    #[test]
    fn t000_01_a_key_at_a_bound_is_in_the_shard_that_begins_there() {
        let shards = Shards::of(&Span::all(), 4);
        let first = [0x00, 0x3F, 0x40, 0x7F, 0x80, 0xBF, 0xC0, 0xFF];
        assert_eq!(first.map(|byte: u8| shards.index(&[byte])), [0, 0, 1, 1, 2, 2, 3, 3]);
        assert_eq!(shards.index(b""), 0);
    }

    #[test]
    fn a_range_is_divided_after_what_its_ends_share() {
        let users = span(b"user:a", Some(b"user:i"));
        assert_eq!(bounds(&users, 4), [b"user:c", b"user:e", b"user:g"]);
        let first = span(b"", Some(b"\x10"));
        assert_eq!(bounds(&first, 2), [b"\x08"]);
        let last = span(b"\xF0", None);
        assert_eq!(bounds(&last, 2), [b"\xF8"]);
        assert_eq!(bounds(&span(b"a", Some(b"a\0")), 4), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn cuts_come_between_the_keys_of_two_shards() {
        let shards = Shards::of(&Span::all(), 4);
        let mut cuts = shards.cuts();
        let keys: [&[u8]; 5] = [b"\x3F\xFF", b"\x40", b"\x41", b"\xC0", b"\xFF"];
        assert_eq!(keys.map(|key| cuts.passes(key)), [false, true, false, true, false]);
    }

    proptest! {
        #[test]
        fn bounds_ascend_inside_the_span_and_cuts_agree_with_the_index(
            lo in proptest::collection::vec(any::<u8>(), 0..12),
            hi in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..12)),
            keys in proptest::collection::btree_set(
                proptest::collection::vec(any::<u8>(), 1..12), 1..40),
            count in 1_usize..17,
        ) {
            let (lo, hi) = match hi {
                Some(hi) if hi <= lo => (hi, Some([lo, vec![0]].concat())),
                hi => (lo, hi),
            };
            let span = span(&lo, hi.as_deref());
            let shards = Shards::of(&span, count);
            prop_assert!(shards.count() <= count);
            prop_assert!(shards.bounds.is_sorted_by(|a, b| a < b));
            for bound in &shards.bounds {
                prop_assert!(span.contains(bound) && *bound != span.lo);
            }
            let (mut cuts, mut shard) = (shards.cuts(), 0);
            for key in &keys {
                let index = shards.index(key);
                prop_assert_eq!(cuts.passes(key), index != shard);
                shard = index;
            }
        }
    }
}
