//! A cursor without what lies in some spans.

use crate::error::Result;
use crate::iter::Cursor;
use crate::key::{Kind, Seqno, Span};
use std::sync::Arc;

/// The span that contains `key`; `spans` ascend.
pub(super) fn find<'a>(spans: &'a [Span], key: &[u8]) -> Option<&'a Span> {
    let after = spans.partition_point(|span| &span.lo[..] <= key);
    let span = &spans[after.checked_sub(1)?];
    span.contains(key).then_some(span)
}

/// A position outside of the spans that are cut out. To pass such a span costs a seek.
#[derive(Debug)]
pub struct CutOut<C> {
    cursor: C,
    /// Ascending, and they do not touch; `None` if there are none.
    spans: Option<Arc<[Span]>>,
}

impl<C: Cursor> CutOut<C> {
    /// `cursor` without `spans`, which ascend and do not touch.
    pub fn new(cursor: C, spans: Arc<[Span]>) -> Self {
        Self { cursor, spans: Some(spans).filter(|spans| !spans.is_empty()) }
    }

    /// All of `cursor`.
    pub(super) fn whole(cursor: C) -> Self {
        Self { cursor, spans: None }
    }

    #[inline]
    fn leave_forward(&mut self) -> Result<()> {
        if self.spans.is_none() { Ok(()) } else { self.seek_behind() }
    }

    #[inline]
    fn leave_backward(&mut self) -> Result<()> {
        if self.spans.is_none() { Ok(()) } else { self.seek_in_front() }
    }

    #[cold]
    fn seek_behind(&mut self) -> Result<()> {
        while self.cursor.valid()
            && let Some(span) = find(self.spans.as_deref().unwrap_or_default(), self.cursor.key())
        {
            if let Some(hi) = &span.hi {
                self.cursor.seek(hi)?;
            } else {
                self.cursor.seek_last()?;
                self.cursor.next()?;
            }
        }
        Ok(())
    }

    #[cold]
    fn seek_in_front(&mut self) -> Result<()> {
        while self.cursor.valid()
            && let Some(span) = find(self.spans.as_deref().unwrap_or_default(), self.cursor.key())
        {
            self.cursor.seek_before(&span.lo)?;
        }
        Ok(())
    }
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
        self.cursor.seqno()
    }
    #[inline]
    fn kind(&self) -> Kind {
        self.cursor.kind()
    }
    #[inline]
    fn value(&self) -> &[u8] {
        self.cursor.value()
    }
    fn seek_first(&mut self) -> Result<()> {
        self.cursor.seek_first()?;
        self.leave_forward()
    }
    fn seek_last(&mut self) -> Result<()> {
        self.cursor.seek_last()?;
        self.leave_backward()
    }
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.cursor.seek(key)?;
        self.leave_forward()
    }
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.cursor.seek_before(key)?;
        self.leave_backward()
    }
    #[inline]
    fn next(&mut self) -> Result<()> {
        self.cursor.next()?;
        self.leave_forward()
    }
    #[inline]
    fn prev(&mut self) -> Result<()> {
        self.cursor.prev()?;
        self.leave_backward()
    }
}
