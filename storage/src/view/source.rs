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
    /// A layer, without what those writes delete by range.
    Under(Box<CutOut<Source>>),
    Memory(MemtableSliceCursor),
    Slice(SliceCursor),
    Run(ConcatCursor<RunParts>),
}

/// Calls with the cursor of a source.
macro_rules! each_source {
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

pub(super) use each_source;

impl Cursor for Source {
    #[inline]
    fn valid(&self) -> bool {
        each_source!(self, cursor => cursor.valid())
    }
    #[inline]
    fn key(&self) -> &[u8] {
        each_source!(self, cursor => cursor.key())
    }
    #[inline]
    fn seqno(&self) -> Seqno {
        each_source!(self, cursor => cursor.seqno())
    }
    #[inline]
    fn kind(&self) -> Kind {
        each_source!(self, cursor => cursor.kind())
    }
    #[inline]
    fn value(&self) -> &[u8] {
        each_source!(self, cursor => cursor.value())
    }
    #[inline]
    fn value_len(&self) -> usize {
        each_source!(self, cursor => cursor.value_len())
    }
    fn seek_first(&mut self) -> Result<()> {
        each_source!(self, cursor => cursor.seek_first())
    }
    fn seek_last(&mut self) -> Result<()> {
        each_source!(self, cursor => cursor.seek_last())
    }
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        each_source!(self, cursor => cursor.seek(key))
    }
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        each_source!(self, cursor => cursor.seek_before(key))
    }
    #[inline]
    fn next(&mut self) -> Result<()> {
        each_source!(self, cursor => cursor.next())
    }
    #[inline]
    fn prev(&mut self) -> Result<()> {
        each_source!(self, cursor => cursor.prev())
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
    let mut sources = Sources::default();
    if let Some(own) = own {
        sources.cut_out = own.cut_out(spec.keyspace);
        // They come first: if a key is in both, the own write is the newer one.
        if let Some(own) = OwnWritesCursor::new(own, spec.keyspace, upto) {
            sources.push_as_is(Source::Own(own));
        }
    }
    // What is visible was inserted before `upto` was chosen. So an empty memtable stays empty for
    // this view.
    let has = |memtable: &Memtable| memtable.first_seqno().is_some_and(|first| first <= upto);
    for layer in range.in_front() {
        match layer {
            InFront::Active(memtable) if has(memtable) => {
                sources.push(Source::Memory(CutOut::whole(memtable.cursor(upto))));
            }
            InFront::Sealed(memtable) if has(memtable) => {
                sources.push(Source::Memory(memtable.cursor(upto)));
            }
            InFront::Tables(run) if overlaps(run, &spec.span) => {
                sources.push(of_run(run, spec, tier)?);
            }
            InFront::Active(_) | InFront::Sealed(_) | InFront::Tables(_) => {}
        }
    }
    for run in range.stable.layers.runs().iter().filter(|run| overlaps(run, &spec.span)) {
        sources.push(of_run(run, spec, tier)?);
    }
    Ok(sources.into_walker())
}

/// Layers that are being opened, newest first. A single one is walked without a merge.
#[derive(Default)]
struct Sources<'a> {
    only: Option<Source>,
    several: Vec<Source>,
    /// What the view's own writes delete by range in the layers below them.
    cut_out: Option<&'a Arc<[Span]>>,
}

impl Sources<'_> {
    fn push(&mut self, source: Source) {
        self.push_as_is(match self.cut_out {
            Some(spans) => Source::Under(Box::new(CutOut::new(source, Arc::clone(spans)))),
            None => source,
        });
    }

    fn push_as_is(&mut self, source: Source) {
        if self.several.is_empty() {
            match self.only.take() {
                None => self.only = Some(source),
                Some(first) => self.several.extend([first, source]),
            }
        } else {
            self.several.push(source);
        }
    }

    fn into_walker(self) -> Option<Walker> {
        match self.only {
            Some(only) => Some(Walker::One(only)),
            None if self.several.is_empty() => None,
            None => Some(Walker::Many(MergeCursor::new(self.several))),
        }
    }
}

fn of_run(run: &Run, spec: &ScanSpec, tier: ReadTier) -> Result<Source> {
    let mut readahead_bytes = spec.readahead_bytes;
    if let Some(entries) = spec.entries_wanted {
        // So many entries take about so many bytes of this run.
        let share =
            u128::from(entries) * u128::from(run.bytes()) / u128::from(run.entries().max(1));
        readahead_bytes = readahead_bytes.min(usize::try_from(share).unwrap_or(usize::MAX));
    }
    let options = CursorOptions { tier, fill_cache: spec.fill_cache, readahead_bytes };
    Ok(match &run.slices()[..] {
        [slice] => Source::Slice(slice.cursor(options)?),
        _ => Source::Run(ConcatCursor::new(RunParts::new(run.clone(), options))),
    })
}

fn overlaps(run: &Run, span: &Span) -> bool {
    let first = run.slices().get(run.first_ending_at_or_after(&span.lo));
    first.is_some_and(|slice| span.overlaps_closed(slice.min_key(), slice.max_key()))
}
