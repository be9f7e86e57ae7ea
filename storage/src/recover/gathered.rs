//! The replayed operations of one range, in the order of the log, until they go into tables.
//!
//! Nobody reads them before that. So they are in no index: they are appended, and sorted once.
//!
//! ```text
//! areas     operation | operation | ...      encoded as in the log
//! entries   head u64, order u64, place u64   one for each operation
//! ```
//! Sorting looks at eight bytes of each key at a time, the *head*. Keys that have the same head are
//! sorted by their next eight bytes, and so on. So each byte of a key is fetched once, whatever the
//! keys have in common.
//!
//! What counts is the memory that is allocated, whether it is full or not. An area is half as large
//! as what there is, up to 2 MiB, and a large operation has an area of its own. So most of the
//! memory is used.

use crate::batch::{PointOperation, PointOperations};
use crate::buffer::{Area, ChunkClass, LINE_BYTES, prefetch};
use crate::key::{Seqno, head};
use crate::limits::SEQNO_MAX;
use bytes::Bytes;
use std::cmp::Ordering;
use std::ops::Range;

/// Bytes of the largest areas for several operations, which have huge pages. With these an area is
/// resident at once, so it must not be most of what there is.
const DENSE_BYTES: usize = ChunkClass::Large.bytes();
/// Bytes of the smallest areas for several operations.
const AREA_BYTES_MIN: usize = 1 << 10;
/// An operation that takes more than such a part of the next area gets one of its own.
const OWN_AREA_PART: usize = 8;
/// Room for so many entries is allocated at first.
const ENTRIES_MIN: usize = 16;
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
    /// The area, and in the lower half the offset in it.
    place: u64,
}

impl OperationPlace {
    #[inline]
    fn of(place: u64, operation: &PointOperation<'_>, seqno: Seqno) -> Self {
        let mut entry = Self { head: 0, order: !seqno.0 & SEQNO_MAX, place };
        entry.look(operation.key, 0);
        entry
    }

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
    areas: Vec<Area>,
    /// The area that is being filled.
    filling: usize,
    /// Bytes of operations.
    bytes: usize,
    /// Bytes of areas.
    allocated: usize,
}

impl OperationBytes {
    /// Bytes of the area that an operation of `len` bytes needs; 0 if there is room for it.
    #[inline]
    fn growth(&self, len: usize) -> usize {
        match self.areas.get(self.filling) {
            Some(area) if area.room() >= len => 0,
            _ => self.next_area(len),
        }
    }

    /// Bytes of the next area for an operation of `len` bytes: one for several operations, or
    /// exactly `len`.
    fn next_area(&self, len: usize) -> usize {
        let shared = (self.bytes / 2).clamp(AREA_BYTES_MIN, DENSE_BYTES);
        if len > shared / OWN_AREA_PART { len } else { shared }
    }

    /// Copies an operation, and returns its place; `None` if that takes another area.
    #[inline]
    fn push(&mut self, operation: &[u8]) -> Option<u64> {
        let offset = self.areas.get_mut(self.filling)?.push(operation)?;
        self.bytes += operation.len();
        Some((self.filling as u64) << 32 | offset as u64)
    }

    /// As `push`, into a new area.
    fn push_into_next(&mut self, operation: &[u8]) -> u64 {
        let bytes = self.next_area(operation.len());
        let dense = bytes == DENSE_BYTES && operation.len() < bytes;
        let mut area = if dense { Area::dense() } else { Area::with_room(bytes) };
        let offset = area.push(operation).expect("it has room");
        let at = self.areas.len();
        if bytes > operation.len() {
            self.filling = at;
        }
        self.areas.push(area);
        self.allocated += bytes;
        self.bytes += operation.len();
        (at as u64) << 32 | offset as u64
    }

    fn bytes_at(&self, entry: &OperationPlace) -> &[u8] {
        &self.areas[(entry.place >> 32) as usize].bytes()[entry.place as u32 as usize..]
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
}

impl Gathered {
    /// Adds an operation, which `encoded` consists of, if that takes no more memory. Otherwise
    /// returns `false`, and nothing has changed.
    #[inline]
    pub(super) fn add(
        &mut self,
        encoded: &[u8],
        operation: &PointOperation<'_>,
        seqno: Seqno,
    ) -> bool {
        if self.entries.len() == self.entries.capacity() {
            return false;
        }
        let Some(place) = self.operations.push(encoded) else { return false };
        self.entries.push(OperationPlace::of(place, operation, seqno));
        true
    }

    /// As `add`, with the memory that it takes.
    pub(super) fn add_with_growth(
        &mut self,
        encoded: &[u8],
        operation: &PointOperation<'_>,
        seqno: Seqno,
    ) {
        self.entries.reserve_exact(self.more_entries());
        let place = self.operations.push(encoded);
        let place = place.unwrap_or_else(|| self.operations.push_into_next(encoded));
        self.entries.push(OperationPlace::of(place, operation, seqno));
    }

    /// For how many entries more there must be room before the next one; 0 if there is.
    #[inline]
    fn more_entries(&self) -> usize {
        let (len, capacity) = (self.entries.len(), self.entries.capacity());
        if len < capacity { 0 } else { (capacity / 2).max(ENTRIES_MIN) }
    }

    /// Bytes of memory that are allocated.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.operations.allocated + self.entries.capacity() * size_of::<OperationPlace>()
    }

    /// Bytes of memory that an operation of `len` bytes adds.
    #[inline]
    pub(super) fn growth(&self, len: usize) -> usize {
        self.operations.growth(len) + self.more_entries() * size_of::<OperationPlace>()
    }

    /// Bytes of operations, and of what they are sorted by.
    pub(super) fn content_bytes(&self) -> usize {
        self.operations.bytes + self.entries.len() * size_of::<OperationPlace>()
    }

    /// The operations, and the entries in parts, in the order of their keys. A part has no key on
    /// both sides of one of `bounds`, which ascend, and about `bytes_max` bytes at most. None is
    /// empty.
    pub(super) fn parts(
        &mut self,
        bounds: &[Bytes],
        bytes_max: usize,
    ) -> (&OperationBytes, Vec<&mut [OperationPlace]>) {
        let entries_max = (self.entries.len() * bytes_max / self.content_bytes().max(1)).max(1);
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
            gathered.add_with_growth(batch.encoded(), &operation, seqno);
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
        for (at, bytes) in [1, DENSE_BYTES + 1, 7, DENSE_BYTES, 1 << 20].iter().enumerate() {
            let (mut batch, key, seqno) = (WriteBatch::new(), vec![at as u8], Seqno(at as u64 + 1));
            batch.put(&key, vec![at as u8; *bytes]);
            gathered.add_with_growth(batch.encoded(), &batch.points().next().unwrap(), seqno);
            model.push((key, seqno, Some(vec![at as u8; *bytes])));
        }
        assert_eq!(content(&mut gathered, &[], usize::MAX / 8), model);
    }

    /// Planted: large operations share chunks; what counts is what was asked for.
    #[test]
    fn what_counts_is_what_is_allocated_and_most_of_it_is_used() {
        let values = [1 << 20, 100 << 10, 3000, 100];
        for (value, count) in values.into_iter().zip([64, 300, 4000, 100_000_u32]) {
            let (mut gathered, mut batch) = (Gathered::default(), WriteBatch::new());
            let mut written = 0;
            for at in 1..=count {
                batch.clear();
                batch.put(at.to_be_bytes(), vec![at as u8; value]);
                let (before, growth) = (gathered.bytes(), gathered.growth(batch.encoded_len()));
                let operation = batch.points().next().unwrap();
                let seqno = Seqno(u64::from(at));
                let added = gathered.add(batch.encoded(), &operation, seqno);
                assert_eq!(added, growth == 0);
                if !added {
                    gathered.add_with_growth(batch.encoded(), &operation, seqno);
                }
                assert_eq!(gathered.bytes(), before + growth);
                written += batch.encoded_len();
                let areas = gathered.operations.areas.iter();
                let areas: usize = areas.map(|area| area.bytes().len() + area.room()).sum();
                assert_eq!(areas, gathered.operations.allocated);
                assert!(areas <= written * 7 / 4 + AREA_BYTES_MIN, "{value}: {areas} of {written}");
            }
            let areas = gathered.operations.allocated;
            assert!(areas * 4 <= written * 5, "{value}: {areas} bytes of areas for {written}");
            let entries = gathered.entries.capacity() * size_of::<OperationPlace>();
            assert_eq!(gathered.bytes(), areas + entries);
        }
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
            let (_, parts) =
                gathered.parts(&["user".into(), "users".into()], gathered.content_bytes() / 8);
            assert!((7..=9).contains(&parts.len()), "{}", parts.len());
            assert!(parts.iter().all(|part| part.len() < 2 * 20_000 / 8));
        }
    }
}
