//! The replayed operations of one range, in the order of the log, until they go into tables.
//!
//! Nobody reads them before that. So they are in no index: they are appended, and sorted once.
//!
//! ```text
//! chunks    operation | operation | ...      encoded as in the log
//! entries   head u64, order u64, place u64   one for each operation
//! ```
//! Sorting looks at eight bytes of each key at a time, the *head*. Keys that have the same head are
//! sorted by their next eight bytes, and so on. So each byte of a key is fetched once, whatever the
//! keys have in common.

use crate::batch::{PointOperation, PointOperations};
use crate::buffer::{Area, ChunkClass, LINE_BYTES, prefetch};
use crate::key::{Seqno, head};
use crate::limits::SEQNO_MAX;
use bytes::Bytes;
use std::cmp::Ordering;
use std::ops::Range;

/// Bytes of a chunk, unless one operation is larger.
const CHUNK_BYTES_MAX: usize = ChunkClass::Large.bytes();
/// A range that has so many gets its next chunks with huge pages.
const DENSE_FROM_BYTES: usize = 2 * CHUNK_BYTES_MAX;
/// Bytes of a head.
const HEAD_BYTES: usize = 8;
/// So many operations are on their way from memory at the same time.
const AHEAD: usize = 16;
/// So many keys are looked at for each part, to find the bounds between parts.
const SAMPLES: usize = 32;
/// So many cache lines of each.
const LINES: usize = 3;

/// Where an operation is, and what it is sorted by.
#[derive(Clone, Copy, Debug)]
pub(super) struct OperationPlace {
    /// Eight bytes of the key, filled up with zeros.
    head: u64,
    /// How many bytes of the key are left from the head on, up to nine; below that, in 56 bits, the
    /// inverted sequence number. So equal keys are in order, newest first.
    order: u64,
    /// The chunk, and in the lower half the offset in it.
    place: u64,
}

impl OperationPlace {
    fn seqno(&self) -> Seqno {
        Seqno(!self.order & SEQNO_MAX)
    }

    /// Sets what `key` is sorted by from `depth` on.
    fn look(&mut self, key: &[u8], depth: usize) {
        let rest = &key[depth..];
        self.head = head(rest);
        let left = rest.len().min(HEAD_BYTES + 1) as u64;
        self.order = left << 56 | self.order & SEQNO_MAX;
    }

    /// Does the key go on after its head?
    fn goes_on(&self) -> bool {
        self.order >> 56 > HEAD_BYTES as u64
    }

    fn rank(&self) -> u128 {
        u128::from(self.head) << 64 | u128::from(self.order)
    }
}

/// Encoded operations.
#[derive(Debug, Default)]
pub(super) struct OperationBytes {
    chunks: Vec<Area>,
    bytes: usize,
}

impl OperationBytes {
    /// Copies an operation, and returns its place.
    fn push(&mut self, operation: &[u8]) -> u64 {
        let offset = self.chunks.last_mut().and_then(|chunk| chunk.push(operation));
        let offset = offset.unwrap_or_else(|| {
            // As much again, so that a range with little takes little.
            let room = self.bytes.clamp(1, CHUNK_BYTES_MAX).max(operation.len());
            // With huge pages a chunk is resident at once, so it must not be most of what there is.
            let dense = self.bytes >= DENSE_FROM_BYTES;
            self.chunks.push(Area::with_room(room, dense));
            let chunk = self.chunks.last_mut().expect("just pushed");
            chunk.push(operation).expect("it has room")
        });
        self.bytes += operation.len();
        (self.chunks.len() as u64 - 1) << 32 | offset as u64
    }

    fn bytes_at(&self, entry: &OperationPlace) -> &[u8] {
        &self.chunks[(entry.place >> 32) as usize].bytes()[entry.place as u32 as usize..]
    }

    fn at(&self, entry: &OperationPlace) -> PointOperation<'_> {
        PointOperations::new(self.bytes_at(entry))
            .next()
            .expect("it was decoded when it was gathered")
    }

    /// Prepares the processor's cache for the operation that is `AHEAD` of number `at`.
    fn look_ahead(&self, entries: &[OperationPlace], at: usize) {
        if let Some(entry) = entries.get(at + AHEAD) {
            let start = self.bytes_at(entry).as_ptr();
            (0..LINES).for_each(|line| prefetch(start.wrapping_add(line * LINE_BYTES)));
        }
    }

    /// Keys that divide `entries` into about as many parts, about as large.
    fn quantiles(&self, entries: &[OperationPlace], parts: usize) -> Vec<Bytes> {
        if parts < 2 {
            return Vec::new();
        }
        let every = entries.len().div_ceil(parts * SAMPLES);
        let keys = entries.iter().step_by(every).map(|entry| self.at(entry).key);
        let mut keys: Vec<_> = keys.collect();
        keys.sort_unstable();
        keys.dedup();
        let each = keys.len().div_ceil(parts);
        keys.into_iter().step_by(each).skip(1).map(Bytes::copy_from_slice).collect()
    }

    /// Sorts by key and, for each key, newest first.
    fn sort(&self, entries: &mut [OperationPlace]) {
        // Entries that have the first so many bytes of their keys in common.
        let mut groups: Vec<(Range<usize>, usize)> = vec![(0..entries.len(), 0)];
        while let Some((group, depth)) = groups.pop() {
            let (start, group) = (group.start, &mut entries[group]);
            if depth > 0 {
                for at in 0..group.len() {
                    self.look_ahead(group, at);
                    let key = self.at(&group[at]).key;
                    group[at].look(key, depth);
                }
            }
            group.sort_unstable_by_key(OperationPlace::rank);
            let mut at = start;
            for equal in group.chunk_by(|a, b| a.head == b.head && a.goes_on() && b.goes_on()) {
                if equal.len() > 1 {
                    groups.push((at..at + equal.len(), depth + HEAD_BYTES));
                }
                at += equal.len();
            }
        }
    }

    /// Passes the newest operation of each key to `each`, in the order of the keys.
    pub(super) fn in_order<E>(
        &self,
        entries: &mut [OperationPlace],
        mut each: impl FnMut(&PointOperation<'_>, Seqno) -> Result<(), E>,
    ) -> Result<(), E> {
        self.sort(entries);
        let mut last: &[u8] = &[];
        for (at, entry) in entries.iter().enumerate() {
            self.look_ahead(entries, at);
            let operation = self.at(entry);
            if operation.key != last {
                last = operation.key;
                each(&operation, entry.seqno())?;
            }
        }
        Ok(())
    }
}

/// The operations of one range.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    operations: OperationBytes,
    entries: Vec<OperationPlace>,
    bytes: usize,
}

impl Gathered {
    /// Adds an operation, which `encoded` consists of.
    pub(super) fn add(&mut self, encoded: &[u8], operation: &PointOperation<'_>, seqno: Seqno) {
        let place = self.operations.push(encoded);
        let mut entry = OperationPlace { head: 0, order: !seqno.0 & SEQNO_MAX, place };
        entry.look(operation.key, 0);
        self.entries.push(entry);
        self.bytes += encoded.len() + size_of::<OperationPlace>();
    }

    /// Bytes of memory that are used.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The operations, and the entries in parts, in the order of their keys. A part has no key on
    /// both sides of one of `bounds`, which ascend, and about `bytes_max` bytes at most. None is
    /// empty.
    pub(super) fn parts(
        &mut self,
        bounds: &[Bytes],
        bytes_max: usize,
    ) -> (&OperationBytes, Vec<&mut [OperationPlace]>) {
        let entries_max = (self.entries.len() * bytes_max / self.bytes.max(1)).max(1);
        let operations = &self.operations;
        let (mut between, mut parts) = (Vec::new(), Vec::new());
        cut(operations, &mut self.entries, bounds, &mut between);
        for entries in between {
            let bounds = operations.quantiles(entries, entries.len().div_ceil(entries_max));
            cut(operations, entries, &bounds, &mut parts);
        }
        (operations, parts)
    }
}

/// Cuts unsorted `entries` at `bounds`. Each step halves the bounds.
fn cut<'a>(
    operations: &OperationBytes,
    entries: &'a mut [OperationPlace],
    bounds: &[Bytes],
    parts: &mut Vec<&'a mut [OperationPlace]>,
) {
    if entries.is_empty() {
        return;
    }
    let Some(middle) = bounds.get(bounds.len() / 2) else {
        parts.push(entries);
        return;
    };
    let bound = head(middle);
    let is_before = |entry: &OperationPlace| match entry.head.cmp(&bound) {
        Ordering::Equal => operations.at(entry).key < &middle[..],
        unequal => unequal.is_lt(),
    };
    let (mut lo, mut hi) = (0, entries.len());
    loop {
        while lo < hi && is_before(&entries[lo]) {
            lo += 1;
        }
        while lo < hi && !is_before(&entries[hi - 1]) {
            hi -= 1;
        }
        if lo == hi {
            break;
        }
        entries.swap(lo, hi - 1);
    }
    let (before, after) = entries.split_at_mut(lo);
    let (lower, upper) = bounds.split_at(bounds.len() / 2);
    cut(operations, before, lower, parts);
    cut(operations, after, &upper[1..], parts);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::WriteBatch;
    use crate::key::Kind;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    /// What a key has: the number and the value that was written last.
    type Model = BTreeMap<Vec<u8>, (Seqno, Option<Vec<u8>>)>;

    /// Gathers one write to each of `keys`, in this order; each fifth is a delete.
    fn gathered(keys: &[Vec<u8>]) -> (Gathered, Model) {
        let (mut gathered, mut model) = (Gathered::default(), Model::new());
        for (at, key) in keys.iter().enumerate() {
            let (mut batch, seqno) = (WriteBatch::new(), Seqno(at as u64 + 1));
            let value = (at % 5 != 4).then(|| vec![at as u8; at % 300]);
            match &value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            };
            let operation = batch.points().next().unwrap();
            gathered.add(batch.encoded(), &operation, seqno);
            model.insert(key.clone(), (seqno, value));
        }
        (gathered, model)
    }

    /// All parts in their order. Checks that each is between its bounds.
    fn content(
        gathered: &mut Gathered,
        bounds: &[Bytes],
        bytes_max: usize,
    ) -> Vec<(Vec<u8>, Seqno, Option<Vec<u8>>)> {
        let of = |key: &[u8]| bounds.partition_point(|bound| bound <= key);
        let (operations, parts) = gathered.parts(bounds, bytes_max);
        let mut content = Vec::new();
        for entries in parts {
            assert!(!entries.is_empty());
            let part = of(operations.at(&entries[0]).key);
            let add = |operation: &PointOperation<'_>, seqno| {
                assert_eq!(of(operation.key), part);
                let value = (operation.kind == Kind::Put).then(|| operation.value.to_vec());
                content.push((operation.key.to_vec(), seqno, value));
                Ok::<_, Infallible>(())
            };
            operations.in_order(entries, add).unwrap();
        }
        content
    }

    fn check(keys: &[Vec<u8>], bounds: &[Vec<u8>], bytes_max: usize) {
        let mut bounds: Vec<_> = bounds.iter().map(|bound| Bytes::from(bound.clone())).collect();
        bounds.sort();
        bounds.dedup();
        let (mut gathered, model) = gathered(keys);
        let wanted: Vec<_> = model.into_iter().map(|(key, (at, value))| (key, at, value)).collect();
        assert_eq!(content(&mut gathered, &bounds, bytes_max), wanted);
    }

    /// Keys that differ late, or only in how many zeros they end with.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let tail = || proptest::collection::vec(prop_oneof![3 => Just(0), 1 => 0..3_u8], 0..12);
        (0..4_usize, tail()).prop_map(|(eights, tail)| [vec![7; 1 + 8 * eights], tail].concat())
    }

    proptest! {
        /// Planted: the order of two keys with one head is not looked into; a key and one that goes
        /// on with zeros count as one; the oldest write wins; a key at a bound is before it.
        #[test]
        fn the_newest_write_of_each_key_comes_out_in_the_order_of_the_keys(
            keys in proptest::collection::vec(key(), 1..200),
            bounds in proptest::collection::vec(key(), 0..9),
            bytes_max in 1..40_000_usize,
        ) {
            check(&keys, &bounds, bytes_max);
        }
    }

    #[test]
    fn the_longest_keys_and_values_larger_than_a_chunk_come_out() {
        let long = |last: u8| [vec![1; crate::limits::KEY_BYTES_MAX - 1], vec![last]].concat();
        check(&[long(2), long(1), long(2), vec![1], long(0)], &[long(1)], 1 << 20);
        let (mut gathered, mut model) = (Gathered::default(), Vec::new());
        for (at, bytes) in [1, CHUNK_BYTES_MAX + 1, 7, CHUNK_BYTES_MAX, 1 << 20].iter().enumerate()
        {
            let (mut batch, key, seqno) = (WriteBatch::new(), vec![at as u8], Seqno(at as u64 + 1));
            batch.put(&key, vec![at as u8; *bytes]);
            gathered.add(batch.encoded(), &batch.points().next().unwrap(), seqno);
            model.push((key, seqno, Some(vec![at as u8; *bytes])));
        }
        assert_eq!(content(&mut gathered, &[], usize::MAX / 8), model);
    }

    /// Planted: one part, whatever its size.
    #[test]
    fn much_between_two_bounds_is_cut_into_parts_of_similar_size() {
        let key = |at: u32| [b"user", &at.wrapping_mul(0x9E37_79B9).to_be_bytes()[..]].concat();
        let keys: Vec<_> = (0..20_000).map(key).collect();
        for sorted in [false, true] {
            let mut keys = keys.clone();
            if sorted {
                keys.sort();
            }
            let mut gathered = gathered(&keys).0;
            let (_, parts) = gathered.parts(&["user".into(), "users".into()], gathered.bytes / 8);
            assert!((7..=9).contains(&parts.len()), "{}", parts.len());
            assert!(parts.iter().all(|part| part.len() < 2 * 20_000 / 8));
        }
    }
}
