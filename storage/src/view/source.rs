//! What a scan walks: a memtable, a table, a level, or a merge of them, without dynamic dispatch.

use super::{Overlay, ScanSpec};
use crate::error::Result;
use crate::iter::{ConcatCursor, Cursor, MergeCursor};
use crate::key::{Kind, Seqno, Span};
use crate::memtable::MemtableCursor;
use crate::table::{CursorOptions, TableCursor, Wait};
use crate::version::{Level, RangeVersion, TableRun};
use std::sync::Arc;

/// One layer.
pub(super) enum Source {
    Memory(MemtableCursor),
    Table(TableCursor),
    Level(ConcatCursor<TableRun>),
}

macro_rules! each {
    ($self:expr, $cursor:ident => $call:expr) => {
        match $self {
            Source::Memory($cursor) => $call,
            Source::Table($cursor) => $call,
            Source::Level($cursor) => $call,
        }
    };
}

impl Cursor for Source {
    #[inline]
    fn valid(&self) -> bool {
        each!(self, cursor => cursor.valid())
    }
    #[inline]
    fn key(&self) -> &[u8] {
        each!(self, cursor => cursor.key())
    }
    #[inline]
    fn seqno(&self) -> Seqno {
        each!(self, cursor => cursor.seqno())
    }
    #[inline]
    fn kind(&self) -> Kind {
        each!(self, cursor => cursor.kind())
    }
    #[inline]
    fn value(&self) -> &[u8] {
        each!(self, cursor => cursor.value())
    }
    fn seek_first(&mut self) -> Result<()> {
        each!(self, cursor => cursor.seek_first())
    }
    fn seek_last(&mut self) -> Result<()> {
        each!(self, cursor => cursor.seek_last())
    }
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        each!(self, cursor => cursor.seek(key))
    }
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        each!(self, cursor => cursor.seek_before(key))
    }
    #[inline]
    fn next(&mut self) -> Result<()> {
        each!(self, cursor => cursor.next())
    }
    #[inline]
    fn prev(&mut self) -> Result<()> {
        each!(self, cursor => cursor.prev())
    }
}

/// All layers of a range as one cursor.
pub(super) enum Walker {
    One(Source),
    Many(MergeCursor<Source>),
}

/// The layers of a range that can have a key inside the span; `None` if none can.
pub(super) fn open(
    range: &RangeVersion,
    overlay: &Overlay,
    upto: Seqno,
    spec: &ScanSpec,
    wait: Wait,
) -> Result<Option<Walker>> {
    let options =
        CursorOptions { wait, fill_cache: spec.fill_cache, readahead_bytes: spec.readahead_bytes };
    let mut sources = Vec::new();
    for memtable in std::iter::once(&overlay.active).chain(&overlay.sealed) {
        // What is visible was inserted before `upto` was chosen: an empty memtable stays empty
        // for this view.
        if memtable.first_seqno().is_some_and(|first| first <= upto) {
            sources.push(Source::Memory(memtable.cursor(upto)));
        }
    }
    let runs = range.l0.runs().iter().chain(&range.levels);
    for run in runs.filter(|run| overlaps(run, &spec.span)) {
        let source = if let [table] = &run.tables()[..] {
            Source::Table(table.table(wait)?.cursor(options))
        } else {
            let run = TableRun::new(Arc::clone(run.tables()), options);
            Source::Level(ConcatCursor::new(run))
        };
        sources.push(source);
    }
    Ok(match sources.len() {
        0 => None,
        1 => sources.pop().map(Walker::One),
        _ => Some(Walker::Many(MergeCursor::new(sources))),
    })
}

fn overlaps(level: &Level, span: &Span) -> bool {
    let first = level.tables().get(level.first_ending_at_or_after(&span.lo));
    first.is_some_and(|table| span.overlaps_closed(&table.meta().min_key, &table.meta().max_key))
}
