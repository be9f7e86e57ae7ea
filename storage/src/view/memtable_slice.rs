//! A sealed memtable without the spans that were cut out of it.
//!
//! An excise takes effect in memory at once, and waits for no flush. Every memtable of the range is
//! sealed before it. So everything that such a memtable has in the span is older than the change
//! (INVARIANT(mask-covers-replay)), and is skipped. A memtable that several ranges share has a
//! slice in each of them.

use super::cut_out::{CutOut, find};
use crate::key::{Seqno, Span};
use crate::memtable::{Memtable, MemtableCursor};
use std::ops::Deref;
use std::sync::Arc;

/// A position in a slice of a memtable.
pub type MemtableSliceCursor = CutOut<MemtableCursor>;

/// A sealed memtable, and the spans that were cut out of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MemtableSlice {
    table: Arc<Memtable>,
    /// Ascending, and they do not touch.
    cut_out: Arc<[Span]>,
}

impl MemtableSlice {
    /// The whole memtable.
    pub fn whole(table: Arc<Memtable>) -> Self {
        Self { table, cut_out: Arc::default() }
    }

    /// The memtable.
    pub fn table(&self) -> &Arc<Memtable> {
        &self.table
    }

    /// The spans that were cut out.
    pub fn cut_out(&self) -> &[Span] {
        &self.cut_out
    }

    /// The same slice without `spans`.
    #[must_use]
    pub fn without<'a>(&self, spans: impl IntoIterator<Item = &'a Span>) -> Self {
        let spans = spans.into_iter().filter(|span| !span.is_empty()).cloned();
        let cut_out = Span::united(self.cut_out.iter().cloned().chain(spans).collect());
        Self { table: Arc::clone(&self.table), cut_out: cut_out.into() }
    }

    /// Was `key` cut out?
    #[inline]
    pub fn lacks(&self, key: &[u8]) -> bool {
        !self.cut_out.is_empty() && find(&self.cut_out, key).is_some()
    }

    /// A cursor over what a reader at `upto` sees.
    pub fn cursor(&self, upto: Seqno) -> MemtableSliceCursor {
        let cursor = self.table.cursor(upto);
        if self.cut_out.is_empty() {
            // An empty list is not cloned: all readers would write to its reference count.
            return CutOut::whole(cursor);
        }
        CutOut::new(cursor, Arc::clone(&self.cut_out))
    }
}

impl Deref for MemtableSlice {
    type Target = Memtable;

    #[inline]
    fn deref(&self) -> &Memtable {
        &self.table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iter::Cursor;
    use crate::key::Kind;
    use crate::memtable::memtable;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn span(lo: u8, hi: Option<u8>) -> Span {
        let bytes = |byte: u8| Bytes::copy_from_slice(&[byte]);
        Span { lo: bytes(lo), hi: hi.map(bytes) }
    }

    fn keys(mut cursor: MemtableSliceCursor, reverse: bool) -> Vec<u8> {
        let mut keys = Vec::new();
        if reverse {
            cursor.seek_last().unwrap();
        } else {
            cursor.seek_first().unwrap();
        }
        while cursor.valid() {
            keys.push(cursor.key()[0]);
            if reverse { cursor.prev().unwrap() } else { cursor.next().unwrap() }
        }
        keys
    }

    proptest! {
        /// Planted: a span that is left behind its first key; spans that touch and are taken for
        /// one that ends with the first of them.
        #[test]
        fn t004_08_what_was_cut_out_of_a_memtable_is_not_found_in_either_direction(
            cuts in prop::collection::vec((0_u8..40, prop::option::of(0_u8..40)), 0..5),
            from in 0_u8..40,
        ) {
            let (table, mut writer) = memtable(1);
            for (key, seqno) in (0..40_u8).zip(1..) {
                writer.insert(&[key], Seqno(seqno), Kind::Put, b"v");
            }
            let spans: Vec<Span> = cuts.iter().map(|(lo, hi)| span(*lo, *hi)).collect();
            let slice = MemtableSlice::whole(table).without(&spans);
            let left: Vec<u8> =
                (0..40).filter(|key| !spans.iter().any(|span| span.contains(&[*key]))).collect();
            prop_assert_eq!(keys(slice.cursor(Seqno::MAX), false), left.clone());
            let reversed: Vec<u8> = left.iter().rev().copied().collect();
            prop_assert_eq!(keys(slice.cursor(Seqno::MAX), true), reversed);
            for key in 0..40 {
                prop_assert_eq!(slice.lacks(&[key]), !left.contains(&key));
            }
            let mut cursor = slice.cursor(Seqno::MAX);
            cursor.seek(&[from]).unwrap();
            let next = left.iter().find(|key| **key >= from);
            prop_assert_eq!(cursor.valid().then(|| cursor.key()[0]), next.copied());
            cursor.seek_before(&[from]).unwrap();
            let before = left.iter().rfind(|key| **key < from);
            prop_assert_eq!(cursor.valid().then(|| cursor.key()[0]), before.copied());
        }
    }
}
