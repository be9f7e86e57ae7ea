//! A sorted run: disjoint slices, found by key.

use super::slice::{Slice, SliceMeta};
use crate::key::{common_prefix_len, head};
use std::ops::Range;
use std::sync::Arc;

/// Slices in key order. No two share a key (INVARIANT(one-run-per-level)). Cheap to clone.
#[derive(Clone, Debug)]
pub struct Run {
    slices: Arc<[Slice]>,
    /// The first eight bytes of each slice's largest key, after the prefix that all largest keys
    /// share. A search touches this array and then one or two keys, instead of one key per step.
    fences: Arc<[u64]>,
    /// The same for each slice's smallest key. 0 if the key does not start with the shared prefix:
    /// only the first slice can have such a key, and it sorts before every key with the prefix.
    starts: Arc<[u64]>,
    shared: usize,
    bytes: u64,
    entries: u64,
    tombstones: u64,
}

impl Run {
    /// A run of slices that are in key order and disjoint. This is not checked here; `check` proves
    /// it.
    pub fn new(slices: Vec<Slice>) -> Self {
        let shared = match (slices.first(), slices.last()) {
            (Some(first), Some(last)) => common_prefix_len(first.max_key(), last.max_key()),
            _ => 0,
        };
        // A run that is out of order must still be representable, so that `check` can report it.
        let fence = |slice: &Slice| head(slice.max_key().get(shared..).unwrap_or(&[]));
        let prefix = slices.first().map_or(&[][..], |first| &first.max_key()[..shared]);
        let start = |slice: &Slice| slice.min_key().strip_prefix(prefix).map_or(0, head);
        let sum = |of: fn(&SliceMeta) -> u64| {
            slices.iter().fold(0_u64, |sum, slice| sum.saturating_add(of(slice)))
        };
        Self {
            fences: slices.iter().map(fence).collect(),
            starts: slices.iter().map(start).collect(),
            shared,
            bytes: sum(SliceMeta::file_bytes),
            entries: sum(SliceMeta::entries),
            tombstones: sum(SliceMeta::tombstones),
            slices: slices.into(),
        }
    }

    /// The slices in key order.
    #[inline]
    pub fn slices(&self) -> &Arc<[Slice]> {
        &self.slices
    }

    /// Bytes of all slices.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Entries in all slices.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Tombstones in all slices.
    pub fn tombstones(&self) -> u64 {
        self.tombstones
    }

    /// Index of the first slice whose largest key is at or after `key`; the number of slices if
    /// none is.
    #[inline]
    pub fn first_ending_at_or_after(&self, key: &[u8]) -> usize {
        self.locate(key).0
    }

    /// Index as `first_ending_at_or_after`; also the head of `key` that fences are compared with,
    /// if `key` starts with the shared prefix.
    #[inline]
    fn locate(&self, key: &[u8]) -> (usize, Option<u64>) {
        let Some(first) = self.slices.first() else {
            return (0, None);
        };
        if self.shared > 0 {
            let prefix = &first.max_key()[..self.shared];
            match key.get(..self.shared) {
                Some(start) if start == prefix => {}
                _ if key < prefix => return (0, None),
                _ => return (self.slices.len(), None),
            }
        }
        let head = head(&key[self.shared..]);
        let lo = self.fences.partition_point(|&fence| fence < head);
        // The fences usually decide. Keys are compared only where fences tie.
        let ties = self.fences[lo..].iter().take_while(|&&fence| fence == head).count();
        (lo + self.slices[lo..lo + ties].partition_point(|slice| slice.max_key() < key), Some(head))
    }

    /// The only slice that may contain `key`.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<&Slice> {
        let (at, head) = self.locate(key);
        let slice = self.slices.get(at)?;
        let begins = match head {
            Some(head) if self.starts[at] != head => self.starts[at] < head,
            _ => slice.min_key() <= key,
        };
        begins.then_some(slice)
    }

    /// Indexes of the slices that overlap the closed interval `[min, max]`.
    pub fn overlapping(&self, min: &[u8], max: &[u8]) -> Range<usize> {
        let start = self.first_ending_at_or_after(min);
        let count = self.slices[start..].partition_point(|slice| slice.min_key() <= max);
        start..start + count
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::slice;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fences_find_what_a_scan_finds(
            keys in proptest::collection::btree_set("(user:)?[a-b\0]{0,11}", 2..40),
            probes in proptest::collection::vec("(user:?)?[a-c\0]{0,11}", 30),
        ) {
            let keys: Vec<_> = keys.into_iter().collect();
            let tables: Vec<_> = keys
                .chunks_exact(2)
                .enumerate()
                .map(|(i, pair)| slice(i as u64 + 1, pair[0].as_bytes(), pair[1].as_bytes(), 1))
                .collect();
            let run = Run::new(tables.clone());
            for probe in probes.iter().chain(&keys) {
                let probe = probe.as_bytes();
                let scan = tables.iter().position(|t| t.max_key() >= probe);
                prop_assert_eq!(run.first_ending_at_or_after(probe), scan.unwrap_or(tables.len()));
                let found = tables.iter().find(|t| t.overlaps(probe, probe));
                prop_assert_eq!(run.find(probe).map(|t| t.number()), found.map(|t| t.number()));
            }
            for pair in probes.chunks_exact(2) {
                let (one, other) = (pair[0].as_bytes(), pair[1].as_bytes());
                let (min, max) = (one.min(other), one.max(other));
                let found = run.slices()[run.overlapping(min, max)].iter().map(|t| t.number());
                let scan = tables.iter().filter(|t| t.overlaps(min, max)).map(|t| t.number());
                prop_assert_eq!(found.collect::<Vec<_>>(), scan.collect::<Vec<_>>());
            }
        }
    }
}
