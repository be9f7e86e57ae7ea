//! Walking a span in key order, across layers and ranges: into batches, or entry by entry.
//!
//! Each live key of the view comes out once, in order. Tombstones do not come out. A cursor is
//! owned and `Send`.
//!
//! When a block is cold and the cursor may not wait, `fill` and `advance` return `WouldBlock`. What
//! came out before stays valid. The caller then lets the cursor wait (`set_tier`), or forks it and
//! lets the fork wait on another thread. The walk continues after the last key that was looked at,
//! whether or not that key came out. So every call makes progress, and a walk ends, however many
//! tombstones are on its way.

use super::range_walk::{End, Inside, RangeWalk, Start, Stop, first_range, seek};
use super::source::{self, Source, Walker, each_source};
use super::{ScanBatchBuilder, View};
use crate::error::Result;
use crate::iter::Cursor;
use crate::key::Span;
use crate::keyspace::{KeyspaceId, no_keyspace};
use crate::table::ReadTier;
use std::fmt;

/// A call returns after looking at so many keys, even if most were deleted or are newer than the
/// view. So its time is bounded.
const STEPS_MAX: usize = 4096;
/// To go on to the next range, which opens other layers, counts as so many steps.
const RANGE_STEPS: usize = 16;

/// What to walk, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanSpec {
    /// Whose keys.
    pub keyspace: KeyspaceId,
    /// Which.
    pub span: Span,
    /// From the last key to the first?
    pub reverse: bool,
    /// Leave values out (they are empty in the batches)?
    pub keys_only: bool,
    /// Put blocks that had to be read into the block cache?
    pub fill_cache: bool,
    /// How far to read ahead, in bytes.
    pub readahead_bytes: usize,
    /// How many entries will be taken, if that is known. It bounds what is read ahead, and no more.
    pub entries_wanted: Option<u64>,
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
            entries_wanted: None,
        }
    }
}

/// A position in a view.
pub struct ScanCursor {
    /// The open layers of the range that is walked; `None` if they are not open. It is dropped
    /// before the view. The view's table handles close a removed file on an engine thread; a walker
    /// that outlived them would close it, and free its blocks, on an executor.
    walker: Option<Walker>,
    /// Does the walker stand on the next entry? If not, `start` says where to put it.
    is_placed: bool,
    /// Does it stand on an entry that `advance` has lent?
    is_lent: bool,
    view: View,
    spec: ScanSpec,
    tier: ReadTier,
    /// The index of the range that is walked; `None` before the first step.
    range: Option<usize>,
    /// Where the walk over the range ends. Valid once the walker is in place.
    end: End,
    /// Where the walk continues, if the walker is not in place.
    start: Start,
    /// The key that `start` means.
    last: Vec<u8>,
    /// The last key that this call looked at and did not hand out; empty if there is none.
    passed: Vec<u8>,
    /// Entries that `fill` walked over since that was last asked.
    steps_taken: usize,
    done: bool,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advanced {
    /// The cursor stands on an entry: see `entry`.
    Entry {
        /// Keys before it that do not come out. A range before it counts as some keys.
        passed: usize,
    },
    /// The cursor has looked at very many keys that do not come out. Let others run, and call
    /// again.
    Rest,
    /// The walk is over.
    End,
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

/// Calls with the walker's cursor, compiled once per kind of cursor.
macro_rules! each_walker {
    ($walker:expr, $cursor:ident => $call:expr) => {
        match $walker {
            Walker::One(source) => each_source!(source, $cursor => $call),
            Walker::Many($cursor) => $call,
        }
    };
}

impl ScanCursor {
    /// A cursor over `view`. It opens nothing yet.
    pub fn new(view: View, spec: ScanSpec, tier: ReadTier) -> Self {
        Self {
            walker: None,
            is_placed: false,
            is_lent: false,
            view,
            spec,
            tier,
            range: None,
            end: End::Open,
            start: Start::Bound,
            last: Vec::new(),
            passed: Vec::new(),
            steps_taken: 0,
            done: false,
        }
    }

    /// What it walks.
    pub fn spec(&self) -> &ScanSpec {
        &self.spec
    }

    /// What it walks, to be changed before the first step.
    pub fn spec_mut(&mut self) -> &mut ScanSpec {
        &mut self.spec
    }

    /// Walks in the other direction from here on: back over what it has passed. `from_end`: all of
    /// the walk, from its other end, wherever it is.
    pub fn turn(&mut self, from_end: bool) {
        // It has passed all that its range has, and goes back over it.
        let is_behind = self.is_placed && !self.stands_inside();
        if is_behind {
            self.start = Start::Bound;
            self.is_placed = false;
        }
        // Where the walk ends depends on its direction.
        self.close();
        self.spec.reverse = !self.spec.reverse;
        if from_end {
            *self = Self::new(self.view.clone(), self.spec.clone(), self.tier);
        } else if !self.done && !is_behind {
            match self.start {
                // It has not gone into this range yet.
                Start::Bound => self.leave(),
                // A walk that was given up may have gone on to the next range.
                Start::At | Start::After => {
                    let superversion = &self.view.superversion;
                    self.range = superversion.route_index(self.spec.keyspace, &self.last);
                }
            }
        }
    }

    /// Another cursor where this one is. It has opened nothing.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        self.note_place();
        Self {
            range: self.range,
            start: self.start,
            last: self.last.clone(),
            done: self.done,
            ..Self::new(self.view.clone(), self.spec.clone(), self.tier)
        }
    }

    /// Sets whether it may wait for the disk. Layers are opened again if that changes.
    pub fn set_tier(&mut self, tier: ReadTier) {
        if self.tier != tier {
            self.close();
            self.tier = tier;
        }
    }

    /// Closes the layers, and frees the memory that they pin. The next step opens them again.
    pub fn close(&mut self) {
        self.note_place();
        self.walker = None;
        self.is_placed = false;
        self.is_lent = false;
    }

    /// Continues at `key`, or at the next key in the direction of travel: forward or back, also
    /// after the end or an error. The walk never leaves the span. Open layers stay open.
    pub fn seek(&mut self, key: &[u8]) {
        self.is_placed = false;
        self.is_lent = false;
        let span = &self.spec.span;
        let is_above = span.hi.as_ref().is_some_and(|hi| key >= &hi[..]);
        let is_below = key < &span.lo[..];
        let (is_behind, is_in_front) =
            if self.spec.reverse { (is_below, is_above) } else { (is_above, is_below) };
        self.done = is_behind || span.is_empty();
        if self.done {
            self.walker = None;
            return;
        }
        let superversion = &self.view.superversion;
        let range = if is_in_front {
            self.start = Start::Bound;
            first_range(superversion, &self.spec)
        } else {
            self.start = Start::At;
            self.last.clear();
            self.last.extend_from_slice(key);
            superversion.route_index(self.spec.keyspace, key)
        };
        if range != self.range {
            self.walker = None;
            self.range = range;
        }
    }

    /// Notes where the walker stands. The walker may be dropped then.
    fn note_place(&mut self) {
        if !self.is_placed {
            return;
        }
        if self.stands_inside() {
            self.start = if self.is_lent { Start::After } else { Start::At };
            self.last.clear();
            let walker = self.walker.as_ref().expect("it is in place");
            each_walker!(walker, c => self.last.extend_from_slice(c.key()));
        } else {
            // The last step reached the end of the range. There may be keys of other ranges behind
            // it, but not all that these ranges have.
            self.leave();
        }
    }

    /// Does the walker, which is in place, stand on a key of its range and of the span?
    fn stands_inside(&mut self) -> bool {
        let (walker, walk) = self.range_walk();
        each_walker!(walker, c => c.valid() && !walk.is_outside(c.key()))
    }

    /// Appends entries until `out` has `entries_max` entries or `bytes_max` bytes, or a bounded
    /// amount of work is done. `Ok(false)` when the walk is over; `Ok(true)` otherwise, also with
    /// nothing appended (a stretch of tombstones, or of younger keys): call again.
    ///
    /// # Errors
    /// What was appended stays valid, and the next call continues after it.
    pub fn fill(
        &mut self,
        out: &mut ScanBatchBuilder,
        bytes_max: usize,
        entries_max: usize,
    ) -> Result<bool> {
        self.check_keyspace()?;
        let before = out.len();
        let steps_max = STEPS_MAX.max(entries_max.saturating_mul(2).min(STEPS_MAX * 16));
        let mut steps = steps_max;
        let result = self.fill_some(out, bytes_max, entries_max, &mut steps);
        self.steps_taken += steps_max - steps;
        if result.is_err() {
            self.give_up(out.last_key().filter(|_| out.len() > before));
        }
        self.passed.clear();
        result
    }

    /// How many entries `fill` walked over since this was last asked: those that it appended, and
    /// tombstones and younger keys between them. A range counts as some entries.
    pub fn take_steps(&mut self) -> usize {
        std::mem::take(&mut self.steps_taken)
    }

    /// Steps to the next entry. `entry` returns it until the next call. A key of a table is put
    /// together from two pieces. Anything else is copied only if it is not in one piece.
    ///
    /// # Errors
    /// The next call continues where this one stopped.
    pub fn advance(&mut self) -> Result<Advanced> {
        let result = self.advance_some();
        if result.is_err() {
            self.give_up(None);
        }
        self.passed.clear();
        result
    }

    /// The entry that `advance` has found. In a walk over keys the value is empty.
    ///
    /// # Panics
    /// If the last call was not an `advance` that found an entry.
    #[inline]
    pub fn entry(&self) -> (&[u8], &[u8]) {
        assert!(self.is_lent, "advance has come to an entry");
        let walker = self.walker.as_ref().expect("the entry is lent by a walker");
        let keys_only = self.spec.keys_only;
        each_walker!(walker, c => (c.key(), if keys_only { &[] } else { c.value() }))
    }

    fn check_keyspace(&self) -> Result<()> {
        if self.view.superversion.keyspaces.has_gone(self.spec.keyspace) {
            return Err(no_keyspace());
        }
        Ok(())
    }

    /// After an error the walk continues behind the key that was looked at last: `came_out`, or one
    /// that was passed after it.
    #[cold]
    fn give_up(&mut self, came_out: Option<&[u8]>) {
        let passed = Some(&self.passed[..]).filter(|passed| !passed.is_empty());
        let looked_at = if self.spec.reverse {
            came_out.into_iter().chain(passed).min()
        } else {
            came_out.max(passed)
        };
        if let Some(key) = looked_at {
            self.start = Start::After;
            self.last.clear();
            self.last.extend_from_slice(key);
        }
        self.walker = None;
        self.is_placed = false;
        self.is_lent = false;
    }

    fn fill_some(
        &mut self,
        out: &mut ScanBatchBuilder,
        bytes_max: usize,
        entries_max: usize,
        steps: &mut usize,
    ) -> Result<bool> {
        self.leave_lent()?;
        while !self.done {
            if out.len() >= entries_max || out.bytes() >= bytes_max || *steps == 0 {
                return Ok(true);
            }
            if !self.is_placed && !self.enter()? {
                self.go_on(steps);
                continue;
            }
            let (walker, mut walk) = self.range_walk();
            let stop = each_walker!(walker, c => walk.drain(c, out, bytes_max, entries_max, steps));
            if let Stop::RangeEnd = stop? {
                self.go_on(steps);
            }
        }
        Ok(false)
    }

    fn advance_some(&mut self) -> Result<Advanced> {
        self.leave_lent()?;
        let mut steps = STEPS_MAX;
        while !self.done {
            if steps == 0 {
                return Ok(Advanced::Rest);
            }
            if !self.is_placed {
                self.check_keyspace()?;
                if !self.enter()? {
                    self.go_on(&mut steps);
                    continue;
                }
            }
            let (walker, mut walk) = self.range_walk();
            let steps = &mut steps;
            match each_walker!(walker, c => walk.find(c, steps))? {
                Stop::Entry => {
                    self.is_lent = true;
                    return Ok(Advanced::Entry { passed: STEPS_MAX - *steps });
                }
                Stop::Full => {}
                Stop::RangeEnd => self.go_on(steps),
            }
        }
        Ok(Advanced::End)
    }

    /// Steps off an entry that is lent.
    #[inline]
    fn leave_lent(&mut self) -> Result<()> {
        if !self.is_lent {
            return Ok(());
        }
        self.is_lent = false;
        let walker = self.walker.as_mut().expect("the entry is lent by a walker");
        let (passed, reverse) = (&mut self.passed, self.spec.reverse);
        each_walker!(walker, c => {
            // If the step fails, the key is lost.
            passed.clear();
            passed.extend_from_slice(c.key());
            if reverse { c.prev() } else { c.next() }
        })
    }

    /// Puts the walker where the walk continues in this range. Opens the range's layers if they are
    /// closed. False if no layer has an entry.
    fn enter(&mut self) -> Result<bool> {
        let range = match self.range {
            Some(range) => range,
            // A view that is older than the keyspace shows nothing of it.
            None => match first_range(&self.view.superversion, &self.spec) {
                Some(first) if !self.spec.span.is_empty() => *self.range.insert(first),
                _ => return Ok(false),
            },
        };
        let entry = &self.view.superversion.ranges[range];
        if self.walker.is_none() {
            let own = self.view.own.as_ref();
            self.walker = source::open(entry, own, self.view.upto, &self.spec, self.tier)?;
        }
        let Some(walker) = &mut self.walker else { return Ok(false) };
        let inside = Inside::of(entry, &self.spec);
        // What this call appended before is in other ranges, so `last` is enough to seek in this
        // one.
        let (start, last, reverse) = (self.start, &self.last[..], self.spec.reverse);
        each_walker!(walker, c => seek(c, &inside, reverse, start, last))?;
        self.end = inside.end(&self.spec);
        self.is_placed = true;
        Ok(true)
    }

    /// What a call walks in the range that was entered.
    #[inline]
    fn range_walk(&mut self) -> (&mut Walker, RangeWalk<'_>) {
        fn end(span: &Span, reverse: bool) -> Option<&[u8]> {
            if reverse { Some(&span.lo) } else { span.hi.as_deref() }
        }
        let (reverse, keys_only) = (self.spec.reverse, self.spec.keys_only);
        let bound = match self.end {
            End::Open => None,
            End::OfSpan => end(&self.spec.span, reverse),
            End::OfRange => {
                let range = self.range.expect("a range was entered");
                end(self.view.superversion.ranges[range].span(), reverse)
            }
        };
        let upto = self.view.upto;
        let walk = RangeWalk { reverse, keys_only, bound, upto, passed: &mut self.passed };
        (self.walker.as_mut().expect("a range was entered"), walk)
    }

    /// Leaves the range, as a part of a walk.
    fn go_on(&mut self, steps: &mut usize) {
        self.leave();
        if !self.done {
            *steps = steps.saturating_sub(RANGE_STEPS);
        }
    }

    /// Goes on to the next range in the direction of travel.
    fn leave(&mut self) {
        self.walker = None;
        self.is_placed = false;
        self.start = Start::Bound;
        let Some(range) = self.range else {
            self.done = true;
            return;
        };
        let span = self.view.superversion.ranges[range].span();
        if self.spec.reverse {
            self.done = span.lo.is_empty() || span.lo <= self.spec.span.lo;
            self.range = Some(range.saturating_sub(1));
        } else {
            self.done = match (&span.hi, &self.spec.span.hi) {
                (None, _) => true,
                (Some(end), Some(hi)) => end >= hi,
                (Some(_), None) => false,
            };
            self.range = Some(range + 1);
        }
    }
}
