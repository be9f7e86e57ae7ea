//! Walking a span in key order, across layers and ranges, into chunks.
//!
//! Each live key of the view comes out once, in order. Tombstones do not come out. A cursor is
//! owned and `Send`.
//!
//! When a block is cold and the cursor may not wait, `fill` says `WouldBlock` and keeps what it
//! has. Allow it to wait (`set_tier`), on another thread, and fill again. The walk goes on after
//! the last key that was looked at, whether or not that key came out. So every call gets further,
//! and a walk ends, however many tombstones lie on its way.

use super::source::{self, Walker};
use super::{ChunkBuilder, RangeEntry, Superversion, View};
use crate::error::Result;
use crate::iter::Cursor;
use crate::key::{Kind, Seqno, Span};
use crate::keyspace::{KeyspaceId, no_keyspace};
use crate::memtable::PASSED_MAX;
use crate::table::ReadTier;
use std::fmt;

/// A chunk ends at this many bytes, whatever the caller allows.
const CHUNK_BYTES_CAP: usize = 1 << 30;
/// `fill` returns after looking at this many keys even if most were deleted or younger than the
/// view, so that its time is bounded.
const STEPS_MAX: usize = 4096;

/// What to walk, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanSpec {
    /// Whose keys.
    pub keyspace: KeyspaceId,
    /// Which.
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
    pub fn new(keyspace: KeyspaceId, span: Span) -> Self {
        Self {
            keyspace,
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
    /// The layers of the range that is walked, positioned on the next entry; `None` before the
    /// first seek, after an error and after `set_tier`. Goes before the view, whose table handles
    /// see to it that a file is closed when it is removed: the last to close it would free its
    /// blocks, and may be an executor.
    walker: Option<Walker>,
    view: View,
    spec: ScanSpec,
    tier: ReadTier,
    /// That range, by index.
    range: usize,
    /// What of the span is in it: its memtables may have more.
    inside: Span,
    /// Continue after this key.
    last: Option<Vec<u8>>,
    /// The last key that this `fill` looked at and did not put out; empty if there is none.
    passed: Vec<u8>,
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
    pub fn new(view: View, spec: ScanSpec, tier: ReadTier) -> Self {
        // A view of before there was the keyspace shows nothing of it.
        let first = first_range(&view.superversion, &spec);
        let (range, done) = (first.unwrap_or_default(), spec.span.is_empty() || first.is_none());
        let inside = spec.span.clone();
        let (walker, last, passed) = (None, None, Vec::new());
        Self { walker, view, spec, tier, range, inside, last, passed, done }
    }

    /// From now on, may it wait for the disk? The next `fill` seeks again.
    pub fn set_tier(&mut self, tier: ReadTier) {
        if self.tier != tier {
            self.tier = tier;
            // `last` has the position.
            self.walker = None;
        }
    }

    /// Appends entries until `out` has `entries_max` entries or `bytes_max` bytes, or a bounded
    /// amount of work is done. `Ok(false)` when the walk is over; `Ok(true)` otherwise, also with
    /// nothing appended (a stretch of tombstones, or of younger keys): call again.
    ///
    /// After an error what was appended stays good, and the next call continues after it.
    pub fn fill(
        &mut self,
        out: &mut ChunkBuilder,
        bytes_max: usize,
        entries_max: usize,
    ) -> Result<bool> {
        if self.view.superversion.keyspaces.has_gone(self.spec.keyspace) {
            return Err(no_keyspace());
        }
        let before = out.len();
        let result = self.fill_some(out, bytes_max.min(CHUNK_BYTES_CAP), entries_max);
        self.remember(out.last_key().filter(|_| out.len() > before));
        if result.is_err() {
            self.walker = None;
        }
        result
    }

    /// The walk continues after what was looked at last: `came_out`, or what was passed after it.
    fn remember(&mut self, came_out: Option<&[u8]>) {
        let passed = Some(&self.passed[..]).filter(|passed| !passed.is_empty());
        let looked_at = if self.spec.reverse {
            came_out.into_iter().chain(passed).min()
        } else {
            came_out.max(passed)
        };
        if let Some(key) = looked_at {
            let last = self.last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(key);
        }
        self.passed.clear();
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
            let mut turn = Turn {
                spec: &self.spec,
                inside: &self.inside,
                upto: self.view.upto,
                bytes_max,
                entries_max,
                steps: &mut steps,
                passed: &mut self.passed,
            };
            let stop = match self.walker.as_mut().expect("entered") {
                Walker::One(cursor) => match cursor {
                    source::Source::Own(c) => turn.drain(c, out),
                    source::Source::Under(c) => turn.drain(c, out),
                    source::Source::Memory(c) => turn.drain(c, out),
                    source::Source::Slice(c) => turn.drain(c, out),
                    source::Source::Run(c) => turn.drain(c, out),
                },
                Walker::Many(c) => turn.drain(c, out),
            }?;
            if let Stop::RangeEnd = stop {
                self.leave();
            }
        }
        Ok(false)
    }

    /// Opens the layers of the current range and seeks; false if no layer has anything.
    fn enter(&mut self) -> Result<bool> {
        let range = &self.view.superversion.ranges[self.range];
        self.inside = self.spec.span.intersection(range.span());
        let opened =
            source::open(range, self.view.own.as_ref(), self.view.upto, &self.spec, self.tier)?;
        let Some(mut walker) = opened else { return Ok(false) };
        // What this call appended before is in other ranges: `last` is enough to seek in this one.
        let after = self.last.as_deref();
        match &mut walker {
            Walker::One(cursor) => seek(cursor, &self.inside, self.spec.reverse, after)?,
            Walker::Many(cursor) => seek(cursor, &self.inside, self.spec.reverse, after)?,
        }
        self.walker = Some(walker);
        Ok(true)
    }

    /// Goes on to the next range in the direction of travel.
    fn leave(&mut self) {
        self.walker = None;
        let span = self.view.superversion.ranges[self.range].span();
        if self.spec.reverse {
            self.done = span.lo.is_empty() || span.lo <= self.spec.span.lo;
            self.range = self.range.saturating_sub(1);
        } else {
            self.done = match (&span.hi, &self.spec.span.hi) {
                (None, _) => true,
                (Some(end), Some(hi)) => end >= hi,
                (Some(_), None) => false,
            };
            self.range += 1;
        }
    }
}

/// The range that a walk starts in; none if there is no such keyspace.
fn first_range<O>(superversion: &Superversion<O>, spec: &ScanSpec) -> Option<usize> {
    let ScanSpec { keyspace, span, reverse, .. } = spec;
    match &span.hi {
        _ if !reverse => superversion.route_index(*keyspace, &span.lo),
        None => {
            let theirs = |range: &RangeEntry<O>| range.stable.keyspace <= *keyspace;
            let last = superversion.ranges.partition_point(theirs).checked_sub(1)?;
            (superversion.ranges[last].stable.keyspace == *keyspace).then_some(last)
        }
        Some(hi) => {
            let at = superversion.route_index(*keyspace, hi)?;
            // `hi` is outside the span: if it opens a range, that range is not needed.
            let opens = !hi.is_empty() && superversion.ranges[at].span().lo == *hi;
            Some(if opens { at - 1 } else { at })
        }
    }
}

/// Moves to the first entry inside the span, in the direction of travel, that lies beyond `after`,
/// if that is in the span as well.
fn seek<C: Cursor>(
    cursor: &mut C,
    inside: &Span,
    reverse: bool,
    after: Option<&[u8]>,
) -> Result<()> {
    if reverse {
        let below = |last: &&[u8]| inside.hi.as_ref().is_none_or(|hi| last < &&hi[..]);
        return match (after.filter(below), &inside.hi) {
            (Some(last), _) => cursor.seek_before(last),
            (None, Some(hi)) => cursor.seek_before(hi),
            (None, None) => cursor.seek_last(),
        };
    }
    match after.filter(|last| *last >= &inside.lo[..]) {
        Some(last) => {
            cursor.seek(last)?;
            if cursor.valid() && cursor.key() == last {
                cursor.next()?;
            }
            Ok(())
        }
        None if inside.lo.is_empty() => cursor.seek_first(),
        None => cursor.seek(&inside.lo),
    }
}

/// What one call may do, and how far it has come.
struct Turn<'a> {
    spec: &'a ScanSpec,
    inside: &'a Span,
    upto: Seqno,
    bytes_max: usize,
    entries_max: usize,
    /// Entries that it may still look at.
    steps: &'a mut usize,
    passed: &'a mut Vec<u8>,
}

impl Turn<'_> {
    /// The hot loop, compiled once per kind of cursor.
    fn drain<C: Cursor>(&mut self, cursor: &mut C, out: &mut ChunkBuilder) -> Result<Stop> {
        let (spec, inside) = (self.spec, self.inside);
        let lo = (spec.reverse && !inside.lo.is_empty()).then_some(&inside.lo);
        let hi = if spec.reverse { None } else { inside.hi.as_ref() };
        while cursor.valid() {
            if out.len() >= self.entries_max || out.bytes() >= self.bytes_max || *self.steps == 0 {
                return Ok(Stop::Full);
            }
            *self.steps -= 1;
            let key = cursor.key();
            if hi.is_some_and(|hi| key >= &hi[..]) || lo.is_some_and(|lo| key < &lo[..]) {
                return Ok(Stop::RangeEnd);
            }
            debug_assert!(cursor.seqno() <= self.upto, "a layer shows nothing above the view");
            if cursor.kind() == Kind::Put {
                if spec.keys_only {
                    out.push_key(key, cursor.value().len());
                } else {
                    out.push(key, cursor.value());
                }
            } else {
                if cursor.seqno() == Seqno::ZERO {
                    // It rests, after so many keys.
                    *self.steps = self.steps.saturating_sub(PASSED_MAX);
                }
                // The next step may fail, and the key is gone then.
                self.passed.clear();
                self.passed.extend_from_slice(key);
            }
            if spec.reverse {
                cursor.prev()?;
            } else {
                cursor.next()?;
            }
        }
        Ok(Stop::RangeEnd)
    }
}
