//! The tables of a sorted run as one cursor.
//!
//! The tables of a run are sorted and share no key. So only one of them is open at a time. It is
//! opened when the walk reaches it. An empty one is skipped.

use super::Cursor;
use crate::error::Result;
use crate::key::{Kind, Seqno};

/// Sorted, disjoint parts, each of which can be walked. Indexes are below `count`.
pub trait SortedParts: Send {
    /// What walks one part.
    type Cursor: Cursor;
    /// How many parts there are.
    fn count(&self) -> usize;
    /// The smallest key of a part.
    fn min_key(&self, part: usize) -> &[u8];
    /// The largest key of a part.
    fn max_key(&self, part: usize) -> &[u8];
    /// A cursor over a part, which may have to be opened.
    fn open(&self, part: usize) -> Result<Self::Cursor>;

    /// The first part that ends at or after `key`.
    fn first_ending_at_or_after(&self, key: &[u8]) -> usize {
        let (mut lo, mut hi) = (0, self.count());
        while lo < hi {
            let middle = usize::midpoint(lo, hi);
            if self.max_key(middle) < key {
                lo = middle + 1;
            } else {
                hi = middle;
            }
        }
        lo
    }
}

/// A position in a run. It opens the cursor of a part when the walk reaches it.
#[derive(Debug)]
pub struct ConcatCursor<R: SortedParts> {
    run: R,
    part: usize,
    cursor: Option<R::Cursor>,
    valid: bool,
}

impl<R: SortedParts> ConcatCursor<R> {
    /// A cursor over `run`. It is not valid until the first seek.
    pub fn new(run: R) -> Self {
        Self { run, part: 0, cursor: None, valid: false }
    }

    /// The cursor over `part`. It is opened, unless it is the open one.
    fn enter(&mut self, part: usize) -> Result<&mut R::Cursor> {
        if self.part != part {
            self.cursor = None;
            self.part = part;
        }
        let cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => self.run.open(part)?,
        };
        Ok(self.cursor.insert(cursor))
    }

    /// Steps over empty parts until an entry is found at or after the current position.
    fn settle_forward(&mut self) -> Result<()> {
        loop {
            if self.cursor.as_ref().is_some_and(Cursor::valid) {
                self.valid = true;
                return Ok(());
            }
            if self.part + 1 >= self.run.count() {
                return Ok(());
            }
            self.enter(self.part + 1)?.seek_first()?;
        }
    }

    fn settle_backward(&mut self) -> Result<()> {
        loop {
            if self.cursor.as_ref().is_some_and(Cursor::valid) {
                self.valid = true;
                return Ok(());
            }
            if self.part == 0 {
                return Ok(());
            }
            self.enter(self.part - 1)?.seek_last()?;
        }
    }

    #[inline]
    fn open(&self) -> &R::Cursor {
        debug_assert!(self.valid, "the cursor is valid");
        self.cursor.as_ref().expect("a valid cursor has a part open")
    }
}

impl<R: SortedParts> Cursor for ConcatCursor<R> {
    #[inline]
    fn valid(&self) -> bool {
        self.valid
    }
    #[inline]
    fn key(&self) -> &[u8] {
        self.open().key()
    }
    #[inline]
    fn seqno(&self) -> Seqno {
        self.open().seqno()
    }
    #[inline]
    fn kind(&self) -> Kind {
        self.open().kind()
    }
    #[inline]
    fn value(&self) -> &[u8] {
        self.open().value()
    }
    fn seek_first(&mut self) -> Result<()> {
        self.valid = false;
        if self.run.count() == 0 {
            return Ok(());
        }
        self.enter(0)?.seek_first()?;
        self.settle_forward()
    }
    fn seek_last(&mut self) -> Result<()> {
        self.valid = false;
        let Some(last) = self.run.count().checked_sub(1) else {
            return Ok(());
        };
        self.enter(last)?.seek_last()?;
        self.settle_backward()
    }
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.valid = false;
        let part = self.run.first_ending_at_or_after(key);
        if part == self.run.count() {
            return Ok(());
        }
        self.enter(part)?.seek(key)?;
        self.settle_forward()
    }
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.valid = false;
        let Some(last) = self.run.count().checked_sub(1) else {
            return Ok(());
        };
        let part = self.run.first_ending_at_or_after(key);
        if part > last {
            self.enter(last)?.seek_last()?;
        } else if self.run.min_key(part) < key {
            self.enter(part)?.seek_before(key)?;
        } else if part > 0 {
            self.enter(part - 1)?.seek_last()?;
        } else {
            return Ok(());
        }
        self.settle_backward()
    }
    #[inline]
    fn next(&mut self) -> Result<()> {
        assert!(self.valid, "next on a cursor that is not valid");
        let cursor = self.cursor.as_mut().expect("a valid cursor has a part open");
        self.valid = false;
        cursor.next()?;
        if cursor.valid() {
            self.valid = true;
            return Ok(());
        }
        self.settle_forward()
    }
    #[inline]
    fn prev(&mut self) -> Result<()> {
        assert!(self.valid, "prev on a cursor that is not valid");
        let cursor = self.cursor.as_mut().expect("a valid cursor has a part open");
        self.valid = false;
        cursor.prev()?;
        if cursor.valid() {
            self.valid = true;
            return Ok(());
        }
        self.settle_backward()
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{ModelEntry, VecCursor, walk_alike};
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Rows {
        parts: Vec<Vec<ModelEntry>>,
        opened: Arc<AtomicUsize>,
    }

    impl super::SortedParts for Rows {
        type Cursor = VecCursor;
        fn count(&self) -> usize {
            self.parts.len()
        }
        fn min_key(&self, part: usize) -> &[u8] {
            &self.parts[part][0].key
        }
        fn max_key(&self, part: usize) -> &[u8] {
            &self.parts[part].last().unwrap().key
        }
        fn open(&self, part: usize) -> Result<VecCursor> {
            self.opened.fetch_add(1, Ordering::Relaxed);
            Ok(VecCursor::new(self.parts[part].clone()))
        }
    }

    fn entry(key: u8) -> ModelEntry {
        ModelEntry {
            key: vec![key],
            seqno: Seqno(u64::from(key)),
            kind: Kind::Put,
            value: vec![key],
        }
    }

    fn key_of(cursor: &dyn Cursor) -> Option<Vec<u8>> {
        cursor.valid().then(|| cursor.key().to_vec())
    }

    proptest! {
        #[test]
        fn a_run_walks_like_its_entries(
            keys in proptest::collection::btree_set(0_u8..60, 0..30),
            cuts in proptest::collection::vec(1_usize..6, 30),
            moves in proptest::collection::vec((0_u8..10, 0_u8..62), 1..60),
        ) {
            let entries: Vec<_> = keys.into_iter().map(entry).collect();
            let mut parts = Vec::new();
            let mut rest = &entries[..];
            for cut in cuts {
                if rest.is_empty() { break; }
                let (part, others) = rest.split_at(cut.min(rest.len()));
                parts.push(part.to_vec());
                rest = others;
            }
            prop_assert!(rest.is_empty());
            let mut oracle = VecCursor::new(entries);
            let mut cursor = ConcatCursor::new(Rows { parts, opened: Arc::default() });
            let same = |is, should| assert_eq!(is, should);
            walk_alike(&mut cursor, &mut oracle, moves, key_of, same);
        }
    }

    #[test]
    fn parts_open_when_the_walk_reaches_them() {
        let opened = Arc::new(AtomicUsize::new(0));
        let parts = (0..5).map(|part| vec![entry(part * 2), entry(part * 2 + 1)]).collect();
        let mut cursor = ConcatCursor::new(Rows { parts, opened: Arc::clone(&opened) });
        cursor.seek(&[4]).unwrap();
        assert_eq!(opened.load(Ordering::Relaxed), 1);
        cursor.next().unwrap();
        cursor.seek(&[4]).unwrap();
        assert_eq!(opened.load(Ordering::Relaxed), 1, "the open part is used again");
        cursor.next().unwrap();
        cursor.next().unwrap();
        assert_eq!(opened.load(Ordering::Relaxed), 2);
    }
}
