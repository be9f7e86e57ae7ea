//! A cursor without what lies in some spans.

use crate::error::Result;
use crate::iter::Cursor;
use crate::key::{Kind, Seqno, Span};
use std::sync::Arc;

/// So many spans are passed in one step. A seek costs as much as several steps do.
const SPANS_PASSED_MAX: usize = 16;

/// The span that contains `key`; `spans` ascend.
pub(super) fn find<'a>(spans: &'a [Span], key: &[u8]) -> Option<&'a Span> {
    let after = spans.partition_point(|span| &span.lo[..] <= key);
    let span = &spans[after.checked_sub(1)?];
    span.contains(key).then_some(span)
}

// To where a cursor leaves a span.
const FORWARD: bool = true;
const BACKWARD: bool = false;

/// A position outside of the spans that are cut out. To pass such a span costs a seek. After very
/// many spans the cursor rests in one of them (see `Cursor`), so each call is bounded.
#[derive(Debug)]
pub struct CutOut<C> {
    cursor: C,
    /// Ascending, and they do not touch; `None` if there are none.
    spans: Option<Arc<[Span]>>,
    /// Does it stand on a key that is cut out, which it does not show?
    rests: bool,
}

impl<C: Cursor> CutOut<C> {
    /// `cursor` without `spans`, which ascend and do not touch.
    pub fn new(cursor: C, spans: Arc<[Span]>) -> Self {
        Self { cursor, spans: Some(spans).filter(|spans| !spans.is_empty()), rests: false }
    }

    /// All of `cursor`.
    pub(super) fn whole(cursor: C) -> Self {
        Self { cursor, spans: None, rests: false }
    }

    #[inline]
    fn leave<const WAY: bool>(&mut self) -> Result<()> {
        if self.spans.is_none() { Ok(()) } else { self.pass_spans::<WAY>() }
    }

    #[cold]
    fn pass_spans<const WAY: bool>(&mut self) -> Result<()> {
        self.rests = false;
        let spans = self.spans.as_deref().unwrap_or_default();
        let mut passed = 0;
        while let Some(span) = span_of(spans, &self.cursor) {
            if is_enough(passed, &self.cursor) {
                self.rests = true;
                break;
            }
            passed += 1;
            match (WAY, &span.hi) {
                (BACKWARD, _) => self.cursor.seek_before(&span.lo)?,
                (FORWARD, Some(hi)) => self.cursor.seek(hi)?,
                (FORWARD, None) => run_out(&mut self.cursor)?,
            }
        }
        Ok(())
    }
}

/// Sends `cursor` behind its last entry.
fn run_out<C: Cursor>(cursor: &mut C) -> Result<()> {
    cursor.seek_last()?;
    // More than once if it rests.
    while cursor.valid() {
        cursor.next()?;
    }
    Ok(())
}

/// The span that `cursor` stands in.
fn span_of<'a, C: Cursor>(spans: &'a [Span], cursor: &C) -> Option<&'a Span> {
    if cursor.valid() { find(spans, cursor.key()) } else { None }
}

/// Has a call passed enough, after so many spans? It passes one in any case, so a walk goes on. If
/// `cursor` rests, it has passed very many keys itself.
fn is_enough<C: Cursor>(passed: usize, cursor: &C) -> bool {
    passed == SPANS_PASSED_MAX || passed > 0 && cursor.seqno() == Seqno::ZERO
}

impl<C: Cursor> Cursor for CutOut<C> {
    #[inline]
    fn valid(&self) -> bool {
        self.cursor.valid()
    }
    #[inline]
    fn key(&self) -> &[u8] {
        self.cursor.key()
    }
    #[inline]
    fn seqno(&self) -> Seqno {
        if self.rests { Seqno::ZERO } else { self.cursor.seqno() }
    }
    #[inline]
    fn kind(&self) -> Kind {
        if self.rests { Kind::Delete } else { self.cursor.kind() }
    }
    #[inline]
    fn value(&self) -> &[u8] {
        if self.rests { &[] } else { self.cursor.value() }
    }
    #[inline]
    fn value_len(&self) -> usize {
        if self.rests { 0 } else { self.cursor.value_len() }
    }
    fn seek_first(&mut self) -> Result<()> {
        self.cursor.seek_first()?;
        self.leave::<FORWARD>()
    }
    fn seek_last(&mut self) -> Result<()> {
        self.cursor.seek_last()?;
        self.leave::<BACKWARD>()
    }
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.cursor.seek(key)?;
        self.leave::<FORWARD>()
    }
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.cursor.seek_before(key)?;
        self.leave::<BACKWARD>()
    }
    #[inline]
    fn next(&mut self) -> Result<()> {
        if !self.rests {
            self.cursor.next()?;
        }
        self.leave::<FORWARD>()
    }
    #[inline]
    fn prev(&mut self) -> Result<()> {
        if !self.rests {
            self.cursor.prev()?;
        }
        self.leave::<BACKWARD>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iter::model::{ModelEntry, VecCursor};
    use bytes::Bytes;
    use proptest::prelude::*;

    /// Counts how often it is sent somewhere.
    struct Counting {
        cursor: VecCursor,
        seeks: usize,
    }

    impl Cursor for Counting {
        fn valid(&self) -> bool {
            self.cursor.valid()
        }
        fn key(&self) -> &[u8] {
            self.cursor.key()
        }
        fn seqno(&self) -> Seqno {
            self.cursor.seqno()
        }
        fn kind(&self) -> Kind {
            self.cursor.kind()
        }
        fn value(&self) -> &[u8] {
            self.cursor.value()
        }
        fn seek_first(&mut self) -> Result<()> {
            self.seeks += 1;
            self.cursor.seek_first()
        }
        fn seek_last(&mut self) -> Result<()> {
            self.seeks += 1;
            self.cursor.seek_last()
        }
        fn seek(&mut self, key: &[u8]) -> Result<()> {
            self.seeks += 1;
            self.cursor.seek(key)
        }
        fn seek_before(&mut self, key: &[u8]) -> Result<()> {
            self.seeks += 1;
            self.cursor.seek_before(key)
        }
        fn next(&mut self) -> Result<()> {
            self.cursor.next()
        }
        fn prev(&mut self) -> Result<()> {
            self.cursor.prev()
        }
    }

    fn key(n: u16) -> Vec<u8> {
        n.to_be_bytes().to_vec()
    }

    /// The keys below `count`, without those for which `is_cut`: each of those has a span of its
    /// own.
    fn cursor(count: u16, is_cut: impl Fn(u16) -> bool) -> CutOut<Counting> {
        let entry =
            |n| ModelEntry { key: key(n), seqno: Seqno(7), kind: Kind::Put, value: vec![1] };
        let cursor = VecCursor::new((0..count).map(entry).collect());
        let span =
            |n| Span { lo: key(n).into(), hi: Some(Bytes::from([&key(n)[..], b"+"].concat())) };
        let spans: Vec<_> = (0..count).filter(|n| is_cut(*n)).map(span).collect();
        CutOut::new(Counting { cursor, seeks: 0 }, spans.into())
    }

    fn place(cursor: &CutOut<Counting>) -> Option<u16> {
        cursor.valid().then(|| u16::from_be_bytes(cursor.key().try_into().unwrap()))
    }

    fn rests(cursor: &CutOut<Counting>) -> bool {
        cursor.valid() && cursor.seqno() == Seqno::ZERO
    }

    /// Planted: a loop over all spans; a rest that shows the entry.
    #[test]
    fn very_many_spans_are_passed_a_bounded_number_at_a_time() {
        const COUNT: u16 = 10_000;
        for left in [0, COUNT - 1] {
            let mut cursor = cursor(COUNT, |n| n != left);
            let mut calls = 0;
            loop {
                let before = cursor.cursor.seeks;
                match (calls, left) {
                    (0, 0) => cursor.seek_last().unwrap(),
                    (0, _) => cursor.seek_first().unwrap(),
                    (_, 0) => cursor.prev().unwrap(),
                    (_, _) => cursor.next().unwrap(),
                }
                calls += 1;
                assert!(cursor.cursor.seeks - before <= SPANS_PASSED_MAX + 1);
                if !rests(&cursor) {
                    break;
                }
                assert_eq!((cursor.kind(), cursor.value()), (Kind::Delete, &[][..]));
            }
            assert_eq!((cursor.key(), cursor.seqno()), (&key(left)[..], Seqno(7)));
            assert_eq!((cursor.kind(), cursor.value()), (Kind::Put, &[1][..]));
            assert!(calls <= usize::from(COUNT) / SPANS_PASSED_MAX + 1, "{calls}");
        }
    }

    /// Planted: an open span behind which the cursor below is sent with one step.
    #[test]
    fn a_walk_ends_whatever_rests_below_it() {
        let open = Span { lo: key(5).into(), hi: None };
        let mut cursor = CutOut::new(cursor(1_000, |n| n >= 10), [open].into());
        for is_backward in [false, true] {
            let (mut found, mut calls) = (Vec::new(), 0);
            if is_backward { cursor.seek_last() } else { cursor.seek_first() }.unwrap();
            while cursor.valid() {
                if cursor.seqno() > Seqno::ZERO {
                    found.push(cursor.key().to_vec());
                }
                if is_backward { cursor.prev() } else { cursor.next() }.unwrap();
                calls += 1;
                assert!(calls < 100, "{found:?}");
            }
            if is_backward {
                found.reverse();
            }
            assert_eq!(found, (0..5).map(key).collect::<Vec<_>>());
        }
    }

    proptest! {
        /// Planted: a rest that is left by one step of the cursor below; a rest that is not over
        /// when the cursor is sent elsewhere.
        #[test]
        fn a_cursor_that_rests_passes_nothing_that_is_left(
            left in prop::collection::btree_set(0_u16..300, 0..12),
            moves in prop::collection::vec((0_u8..14, 0_u16..300), 1..60),
        ) {
            let mut cursor = cursor(300, |n| !left.contains(&n));
            for (what, to) in moves {
                let at = place(&cursor);
                let is_backward = match (what, at) {
                    (0, _) => cursor.seek_first().map(|()| false),
                    (1, _) => cursor.seek_last().map(|()| true),
                    (2, _) => cursor.seek(&key(to)).map(|()| false),
                    (3, _) => cursor.seek_before(&key(to)).map(|()| true),
                    (4..9, Some(_)) => cursor.next().map(|()| false),
                    (9.., Some(_)) => cursor.prev().map(|()| true),
                    (_, None) => continue,
                };
                let is_backward = is_backward.unwrap();
                // What the move may show.
                let ahead: Vec<u16> = match (what, at) {
                    (0 | 1, _) => left.iter().copied().collect(),
                    (2, _) => left.range(to..).copied().collect(),
                    (3, _) => left.range(..to).copied().collect(),
                    (4..9, at) => left.range(at.unwrap() + 1..).copied().collect(),
                    (_, at) => left.range(..at.unwrap()).copied().collect(),
                };
                let wanted = if is_backward { ahead.last() } else { ahead.first() }.copied();
                let found = place(&cursor);
                if rests(&cursor) {
                    let rest = found.unwrap();
                    prop_assert!(!left.contains(&rest));
                    let is_passed = |n: u16| if is_backward { n > rest } else { n < rest };
                    prop_assert!(!wanted.is_some_and(is_passed), "{rest} {wanted:?}");
                    let goes_on = at.is_none_or(|at| match what {
                        4..9 => rest > at,
                        9.. => rest < at,
                        _ => true,
                    });
                    prop_assert!(goes_on, "{at:?} {rest}");
                } else {
                    prop_assert_eq!(found, wanted);
                }
            }
        }
    }
}
