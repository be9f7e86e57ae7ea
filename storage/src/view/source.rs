//! What a scan walks: a memtable, a slice, a run, or a merge of them, without dynamic dispatch.

use super::cut_out::CutOut;
use super::{InFront, MemtableSliceCursor, OwnWrites, OwnWritesCursor, RangeEntry, ScanSpec};
use crate::error::Result;
use crate::iter::{ConcatCursor, Cursor, MergeCursor};
use crate::key::{Kind, Seqno, Span};
use crate::memtable::Memtable;
use crate::table::{CursorOptions, ReadTier};
use crate::version::{Run, RunParts, SliceCursor};
use std::sync::Arc;

/// One layer.
pub(super) enum Source {
    /// Writes that lie over the view.
    Own(OwnWritesCursor),
    /// A layer of which they delete something by range.
    Under(Box<CutOut<Source>>),
    Memory(MemtableSliceCursor),
    Slice(SliceCursor),
    Run(ConcatCursor<RunParts>),
}

macro_rules! each {
    ($self:expr, $cursor:ident => $call:expr) => {
        match $self {
            Source::Own($cursor) => $call,
            Source::Under($cursor) => $call,
            Source::Memory($cursor) => $call,
            Source::Slice($cursor) => $call,
            Source::Run($cursor) => $call,
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
#[allow(
    clippy::large_enum_variant,
    reason = "one per scan; in a box it would be one more allocation"
)]
pub(super) enum Walker {
    One(Source),
    Many(MergeCursor<Source>),
}

/// The layers of a range that can have a key inside the span; `None` if none can.
pub(super) fn open<O>(
    range: &RangeEntry<O>,
    own: Option<&Arc<OwnWrites>>,
    upto: Seqno,
    spec: &ScanSpec,
    tier: ReadTier,
) -> Result<Option<Walker>> {
    let options =
        CursorOptions { tier, fill_cache: spec.fill_cache, readahead_bytes: spec.readahead_bytes };
    let mut sources = Vec::new();
    // What is visible was inserted before `upto` was chosen: an empty memtable stays empty for this
    // view.
    let has = |memtable: &Memtable| memtable.first_seqno().is_some_and(|first| first <= upto);
    for layer in range.in_front() {
        match layer {
            InFront::Active(memtable) if has(memtable) => {
                sources.push(Source::Memory(CutOut::new(memtable.cursor(upto), Arc::default())));
            }
            InFront::Sealed(memtable) if has(memtable) => {
                sources.push(Source::Memory(memtable.cursor(upto)));
            }
            InFront::Tables(run) if overlaps(run, &spec.span) => {
                sources.push(of_run(run, options)?);
            }
            InFront::Active(_) | InFront::Sealed(_) | InFront::Tables(_) => {}
        }
    }
    for run in range.stable.layers.runs().iter().filter(|run| overlaps(run, &spec.span)) {
        sources.push(of_run(run, options)?);
    }
    if let Some(own) = own {
        if let Some(spans) = own.cut_out(spec.keyspace) {
            let under = |source| Source::Under(Box::new(CutOut::new(source, Arc::clone(spans))));
            sources = sources.into_iter().map(under).collect();
        }
        // In front, so that of a key which is in both it is the newer one.
        let own = OwnWritesCursor::new(own, spec.keyspace, upto);
        sources.splice(..0, own.map(Source::Own));
    }
    Ok(match sources.len() {
        0 => None,
        1 => sources.pop().map(Walker::One),
        _ => Some(Walker::Many(MergeCursor::new(sources))),
    })
}

fn of_run(run: &Run, options: CursorOptions) -> Result<Source> {
    Ok(match &run.slices()[..] {
        [slice] => Source::Slice(slice.cursor(options)?),
        _ => Source::Run(ConcatCursor::new(RunParts::new(run.clone(), options))),
    })
}

fn overlaps(run: &Run, span: &Span) -> bool {
    let first = run.slices().get(run.first_ending_at_or_after(&span.lo));
    first.is_some_and(|slice| span.overlaps_closed(slice.min_key(), slice.max_key()))
}
