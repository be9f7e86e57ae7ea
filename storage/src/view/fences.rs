//! Where the ranges begin, in one piece of memory. The ranges' own bounds are allocations of their
//! own, three pointers away: a search through these waits for memory at each step.

use super::RangeEntry;
use crate::key::head;
use crate::keyspace::KeyspaceId;

/// The keyspace of each range, and the first eight bytes of its first key. In order.
#[derive(Clone, Debug)]
pub(super) struct Fences(Vec<(KeyspaceId, u64)>);

impl Fences {
    pub(super) fn of<O>(ranges: &[RangeEntry<O>]) -> Self {
        let fence = |range: &RangeEntry<O>| (range.stable.keyspace, head(&range.span().lo));
        Self(ranges.iter().map(fence).collect())
    }

    /// Index of the range that `key` of `keyspace` is routed to, among the ranges that these are
    /// the fences of. `None` if there is no such keyspace.
    #[inline]
    pub(super) fn route_index<O>(
        &self,
        ranges: &[RangeEntry<O>],
        keyspace: KeyspaceId,
        key: &[u8],
    ) -> Option<usize> {
        let Self(fences) = self;
        let fence = (keyspace, head(key));
        let below = fences.partition_point(|other| *other < fence);
        // The fences usually decide. Keys are compared only where fences tie; with a long common
        // prefix all of them may.
        let ties = fences[below..].partition_point(|other| *other == fence);
        let begins = |range: &RangeEntry<O>| &range.span().lo[..] <= key;
        let at = (below + ranges[below..below + ties].partition_point(begins)).checked_sub(1)?;
        (fences[at].0 == keyspace).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Superversion;
    use super::*;
    use crate::key::{Seqno, Span};
    use crate::memtable::memtable;
    use crate::version::{RangeId, RangeVersion, Shards};
    use bytes::Bytes;
    use std::sync::Arc;

    /// Bounds that differ before, in and behind the eighth byte, and in their length alone.
    const BOUNDS: [&[u8]; 9] = [
        b"a",
        b"aaaaaaa",
        b"aaaaaaa\0",
        b"aaaaaaa\0\0",
        b"aaaaaaaa",
        b"aaaaaaaab",
        b"aaaaaaaabc",
        b"b",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ];

    fn superversion(keyspaces: &[u32]) -> Superversion<()> {
        let mut ranges = Vec::new();
        for keyspace in keyspaces {
            let starts = std::iter::once(&b""[..]).chain(BOUNDS);
            let ends = BOUNDS.into_iter().map(Some).chain([None]);
            for (lo, hi) in starts.zip(ends) {
                let lo = Bytes::copy_from_slice(lo);
                let span = Span { lo, hi: hi.map(Bytes::copy_from_slice) };
                let shards = Shards::of(&span, 4);
                let id = RangeId(ranges.len() as u32 + 1);
                let mut range = RangeVersion::empty(id, span, shards);
                range.keyspace = KeyspaceId(*keyspace);
                ranges.push(RangeEntry::new(memtable(0).0, Arc::new(range), ()));
            }
        }
        Superversion::new(1, 1, Seqno::ZERO, Arc::default(), ranges)
    }

    #[test]
    fn fences_route_as_the_bounds_do() {
        let superversion = superversion(&[0, 2, 3]);
        let fences = Fences::of(&superversion.ranges);
        let mut keys = vec![Vec::new()];
        for bound in BOUNDS {
            // The bound, what is just below it and just above it.
            for length in 0..=bound.len() {
                for last in [None, Some(0), Some(b'a'), Some(b'b'), Some(0xff)] {
                    keys.push(bound[..length].iter().copied().chain(last).collect());
                }
            }
        }
        for keyspace in (0..5).map(KeyspaceId) {
            for key in &keys {
                let holds = |range: &RangeEntry<()>| range.stable.holds(keyspace, key);
                assert_eq!(
                    fences.route_index(&superversion.ranges, keyspace, key),
                    superversion.ranges.iter().position(holds),
                    "{keyspace:?} {key:?}"
                );
            }
        }
    }
}
