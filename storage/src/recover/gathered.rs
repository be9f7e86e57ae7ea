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
use crate::side_by_side::{Piece, SideBySide};
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
    /// empty. Those below the middle bound and those above are cut side by side.
    pub(super) fn parts(
        &mut self,
        bounds: &[Bytes],
        bytes_max: usize,
        side_by_side: &dyn SideBySide,
    ) -> (&OperationBytes, Vec<&mut [OperationPlace]>) {
        let entries_max = (self.entries.len() * bytes_max / self.content_bytes().max(1)).max(1);
        let operations = &self.operations;
        let sides = match Middle::of(bounds) {
            None => vec![(&mut self.entries[..], bounds)],
            Some(middle) => {
                let (before, after) = divide(operations, &mut self.entries, middle.bound);
                vec![(before, middle.lower), (after, middle.upper)]
            }
        };
        let mut parts: Vec<_> = sides.iter().map(|_| Vec::new()).collect();
        let pieces = sides.into_iter().zip(&mut parts);
        let pieces = pieces.map(|((entries, bounds), parts)| -> Piece<'_> {
            Box::new(move || {
                let mut between = Vec::new();
                cut(operations, entries, bounds, &mut between);
                for entries in between {
                    let bounds = operations.quantiles(entries, entries.len().div_ceil(entries_max));
                    cut(operations, entries, &bounds, parts);
                }
            })
        });
        side_by_side.run(pieces.collect());
        (operations, parts.into_iter().flatten().collect())
    }
}

/// Bounds that ascend, halved.
struct Middle<'a> {
    lower: &'a [Bytes],
    bound: &'a Bytes,
    upper: &'a [Bytes],
}

impl<'a> Middle<'a> {
    /// `None` if there are none.
    fn of(bounds: &'a [Bytes]) -> Option<Self> {
        let (lower, rest) = bounds.split_at(bounds.len() / 2);
        rest.split_first().map(|(bound, upper)| Self { lower, bound, upper })
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
    let Some(middle) = Middle::of(bounds) else {
        parts.push(entries);
        return;
    };
    let (before, after) = divide(operations, entries, middle.bound);
    cut(operations, before, middle.lower, parts);
    cut(operations, after, middle.upper, parts);
}

/// Divides unsorted `entries` into those before `bound` and the others.
fn divide<'a>(
    operations: &OperationBytes,
    entries: &'a mut [OperationPlace],
    bound: &[u8],
) -> (&'a mut [OperationPlace], &'a mut [OperationPlace]) {
    let bound_head = head(bound);
    let is_before = |entry: &OperationPlace| match entry.head.cmp(&bound_head) {
        Ordering::Equal => operations.at(entry).key < bound,
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
    entries.split_at_mut(lo)
}

#[cfg(test)]
mod tests;
