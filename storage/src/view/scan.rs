//! Walking a span in key order, across layers and ranges, into chunks.
//!
//! Each live key of the view comes out once, in order; tombstones do not. A cursor is owned and
//! `Send`. When a block is cold and waiting is not allowed, `fill` says `WouldBlock` and keeps what it
//! has: allow waiting (`set_wait`) on another thread and fill again, and the walk goes on after the
//! last entry that came out.

use super::source::{self, Walker};
use super::{ChunkBuilder, View};
use crate::error::Result;
use crate::iter::Cursor;
use crate::key::{Kind, Seqno, Span};
use crate::table::Wait;
use std::fmt;

/// A chunk ends at this many bytes, whatever the caller allows.
const CHUNK_BYTES_CAP: usize = 1 << 30;
/// `fill` returns after looking at this many entries even if most were tombstones, so that its time
/// is bounded.
const STEPS_MAX: usize = 4096;

/// What to walk, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanSpec {
    /// The keys.
    pub span: Span,
    /// From the last key to the first?
    pub reverse: bool,
    /// Leave values out (they are empty in the chunks)?
    pub keys_only: bool,
    /// Put blocks that had to be read into the block cache?
    pub fill_cache: bool,
    /// How far to read ahead, in bytes.
    pub readahead_bytes: usize,
}

impl ScanSpec {
    /// Forward over `span`, with values, through the cache.
    pub fn new(span: Span) -> Self {
        Self {
            span,
            reverse: false,
            keys_only: false,
            fill_cache: true,
            readahead_bytes: 128 << 10,
        }
    }
}

/// A position in a view.
pub struct ScanCursor {
    view: View,
    spec: ScanSpec,
    wait: Wait,
    /// The range that is walked, by index.
    range: usize,
    /// Its layers, positioned on the next entry; `None` before the first seek and after an error.
    walker: Option<Walker>,
    /// Continue after this key.
    last: Option<Vec<u8>>,
    done: bool,
}

impl fmt::Debug for ScanCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanCursor")
            .field("superversion", &self.view.superversion.number)
            .field("upto", &self.view.upto)
            .field("reverse", &self.spec.reverse)
            .field("range", &self.range)
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

/// Why a walk over one range stopped.
enum Stop {
    /// The chunk is full, or the turn is over.
    Full,
    /// There is nothing more in this range.
    RangeEnd,
}

impl ScanCursor {
    /// Over `view`. Does nothing yet.
    pub fn new(view: View, spec: ScanSpec, wait: Wait) -> Self {
        let done = spec.span.is_empty();
        let mut cursor = Self { view, spec, wait, range: 0, walker: None, last: None, done };
        cursor.range = cursor.first_range();
        cursor
    }

    /// Is everything out?
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// From now on, may it wait for the disk? The next `fill` seeks again.
    pub fn set_wait(&mut self, wait: Wait) {
        if self.wait != wait {
            self.wait = wait;
            // Without a position there is nothing to remember; with one, `last` has it.
            self.walker = None;
        }
    }

    /// Continues after `key` (before it, when walking backward), or from the start.
    pub fn resume_after(&mut self, key: Option<&[u8]>, wait: Wait) {
        self.wait = wait;
        self.walker = None;
        self.last = key.map(<[u8]>::to_vec);
        self.done = self.spec.span.is_empty();
        self.range = self.first_range();
    }

    /// The range that the walk starts in, or continues in.
    fn first_range(&self) -> usize {
        let version = &self.view.superversion.version;
        match (&self.last, self.spec.reverse) {
            (Some(last), _) => version.route_index(last),
            (None, false) => version.route_index(&self.spec.span.lo),
            (None, true) => match &self.spec.span.hi {
                None => version.ranges().len() - 1,
                Some(hi) => {
                    let at = version.route_index(hi);
                    // `hi` is outside the span: if it opens a range, that range is not needed.
                    if at > 0 && version.ranges()[at].span.lo == *hi { at - 1 } else { at }
                }
            },
        }
    }

    /// Appends entries until `out` has `entries_max` entries or `bytes_max` bytes, or a bounded
    /// amount of work is done. `Ok(false)` when the walk is over; `Ok(true)` otherwise, also with
    /// nothing appended (a stretch of tombstones): call again.
    ///
    /// After an error what was appended stays good, and the next call continues after it.
    pub fn fill(
        &mut self,
        out: &mut ChunkBuilder,
        bytes_max: usize,
        entries_max: usize,
    ) -> Result<bool> {
        let before = out.len();
        let result = self.fill_some(out, bytes_max.min(CHUNK_BYTES_CAP), entries_max);
        if out.len() > before
            && let Some(key) = out.last_key()
        {
            let last = self.last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(key);
        }
        if result.is_err() {
            self.walker = None;
        }
        result
    }

    fn fill_some(
        &mut self,
        out: &mut ChunkBuilder,
        bytes_max: usize,
        entries_max: usize,
    ) -> Result<bool> {
        let mut steps = STEPS_MAX.max(entries_max.saturating_mul(2).min(STEPS_MAX * 16));
        while !self.done {
            if out.len() >= entries_max || out.bytes() >= bytes_max || steps == 0 {
                return Ok(true);
            }
            if self.walker.is_none() && !self.enter()? {
                self.leave();
                continue;
            }
            let upto = self.view.upto;
            let stop = match self.walker.as_mut().expect("entered") {
                Walker::One(cursor) => match cursor {
                    source::Source::Memory(c) => {
                        drain(c, &self.spec, upto, out, bytes_max, entries_max, &mut steps)
                    }
                    source::Source::Table(c) => {
                        drain(c, &self.spec, upto, out, bytes_max, entries_max, &mut steps)
                    }
                    source::Source::Level(c) => {
                        drain(c, &self.spec, upto, out, bytes_max, entries_max, &mut steps)
                    }
                },
                Walker::Many(c) => {
                    drain(c, &self.spec, upto, out, bytes_max, entries_max, &mut steps)
                }
            }?;
            if let Stop::RangeEnd = stop {
                self.leave();
            }
        }
        Ok(false)
    }

    /// Opens the layers of the current range and seeks; false if no layer has anything.
    fn enter(&mut self) -> Result<bool> {
        let range = &self.view.superversion.version.ranges()[self.range];
        let overlay = &self.view.superversion.overlays[self.range];
        let Some(mut walker) = source::open(range, overlay, self.view.upto, &self.spec, self.wait)?
        else {
            return Ok(false);
        };
        // What this call appended before is in other ranges: `last` is enough to seek in this one.
        let after = self.last.as_deref();
        match &mut walker {
            Walker::One(cursor) => seek(cursor, &self.spec, after)?,
            Walker::Many(cursor) => seek(cursor, &self.spec, after)?,
        }
        self.walker = Some(walker);
        Ok(true)
    }

    /// Goes on to the next range in the direction of travel.
    fn leave(&mut self) {
        self.walker = None;
        let ranges = self.view.superversion.version.ranges();
        if self.spec.reverse {
            self.done = self.range == 0 || ranges[self.range].span.lo <= self.spec.span.lo;
            self.range = self.range.saturating_sub(1);
        } else {
            let end = &ranges[self.range].span.hi;
            self.done = match (end, &self.spec.span.hi) {
                (None, _) => true,
                (Some(end), Some(hi)) => end >= hi,
                (Some(_), None) => false,
            };
            self.range += 1;
        }
    }
}

fn seek<C: Cursor>(cursor: &mut C, spec: &ScanSpec, after: Option<&[u8]>) -> Result<()> {
    if spec.reverse {
        return match (after, &spec.span.hi) {
            (Some(last), _) => cursor.seek_before(last),
            (None, Some(hi)) => cursor.seek_before(hi),
            (None, None) => cursor.seek_last(),
        };
    }
    match after {
        Some(last) => {
            cursor.seek(last)?;
            if cursor.valid() && cursor.key() == last {
                cursor.next()?;
            }
            Ok(())
        }
        None if spec.span.lo.is_empty() => cursor.seek_first(),
        None => cursor.seek(&spec.span.lo),
    }
}

/// The hot loop, compiled once per kind of cursor.
fn drain<C: Cursor>(
    cursor: &mut C,
    spec: &ScanSpec,
    upto: Seqno,
    out: &mut ChunkBuilder,
    bytes_max: usize,
    entries_max: usize,
    steps: &mut usize,
) -> Result<Stop> {
    let lo = (spec.reverse && !spec.span.lo.is_empty()).then_some(&spec.span.lo);
    let hi = if spec.reverse { None } else { spec.span.hi.as_ref() };
    while cursor.valid() {
        if out.len() >= entries_max || out.bytes() >= bytes_max || *steps == 0 {
            return Ok(Stop::Full);
        }
        *steps -= 1;
        let key = cursor.key();
        if hi.is_some_and(|hi| key >= &hi[..]) || lo.is_some_and(|lo| key < &lo[..]) {
            return Ok(Stop::RangeEnd);
        }
        debug_assert!(cursor.seqno() <= upto, "a layer shows nothing above the view");
        if cursor.kind() == Kind::Put {
            out.push(key, if spec.keys_only { &[] } else { cursor.value() });
        }
        if spec.reverse {
            cursor.prev()?;
        } else {
            cursor.next()?;
        }
    }
    Ok(Stop::RangeEnd)
}
