//! Reading: what is visible at one instant, across memory and tables.
//!
//! A `Superversion` is what readers load through one pointer (INVARIANT(one-pointer)): the stable
//! version and, per range, the memtables in front of it. A `View` is a superversion and a sequence
//! number: it sees the newest entry at or below that number, for ever, whatever is flushed or
//! compacted meanwhile.
//!
//! Layers are asked newest first and the first answer wins (INVARIANT(newest-layer-first)): the active
//! memtable, the sealed ones, L0 newest first, then one table per level. Tables keep only the newest
//! entry of a key, so a table may be published only when everything in it is visible; the version
//! manager waits for that.
//!
//! With `Wait::Never` nothing here waits for the disk: a cold block is `Error::WouldBlock`, and the
//! caller repeats the read on a thread that may wait.

mod chunk;
mod get;
mod scan;
mod source;
#[cfg(test)]
mod tests;

pub use chunk::{Chunk, ChunkBuilder};
pub use get::{Instant, contains_key, get};
pub use scan::{ScanCursor, ScanSpec};

use crate::error::Result;
use crate::key::Seqno;
use crate::memtable::Memtable;
use crate::points::ReadPoint;
use crate::table::Wait;
use crate::version::{RangeId, Version};
use bytes::Bytes;
use std::sync::Arc;

/// The memtables of one range.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// The range.
    pub range: RangeId,
    /// The one that takes writes.
    pub active: Arc<Memtable>,
    /// Those that wait for flush, newest first.
    pub sealed: Vec<Arc<Memtable>>,
}

/// Everything a reader needs, in one allocation behind one pointer.
#[derive(Clone, Debug)]
pub struct Superversion {
    /// Rises with every swap.
    pub number: u64,
    /// Routes and tables.
    pub version: Arc<Version>,
    /// One per range, in the order of `version.ranges()`.
    pub overlays: Vec<Overlay>,
}

impl Superversion {
    /// Puts overlays in front of a version; there must be one for each range, in key order.
    pub fn new(number: u64, version: Arc<Version>, overlays: Vec<Overlay>) -> Self {
        let ranges = version.ranges().iter().map(|range| range.id);
        assert!(
            ranges.eq(overlays.iter().map(|overlay| overlay.range)),
            "one overlay per range, in key order"
        );
        Self { number, version, overlays }
    }

    /// Index of the range, and of its overlay, that `key` is routed to.
    #[inline]
    pub fn route_index(&self, key: &[u8]) -> usize {
        self.version.route_index(key)
    }

    /// The overlay of the range that `key` is routed to.
    #[inline]
    pub fn route(&self, key: &[u8]) -> &Overlay {
        &self.overlays[self.route_index(key)]
    }

    /// The overlay of this range.
    pub fn overlay(&self, range: RangeId) -> Option<&Overlay> {
        self.overlays.iter().find(|overlay| overlay.range == range)
    }
}

/// One instant of the database. Holds its memtables and files, and what was visible then in them;
/// cheap to clone.
#[derive(Clone, Debug)]
pub struct View {
    /// What there is.
    pub superversion: Arc<Superversion>,
    /// Entries above it are not seen.
    pub upto: Seqno,
    /// Keeps what is overwritten from here on, while memtables reclaim.
    _point: Option<Arc<ReadPoint>>,
}

impl View {
    /// `superversion` as of `upto`, where no memtable reclaims. Load the superversion first and
    /// `visible` after it.
    pub fn new(superversion: Arc<Superversion>, upto: Seqno) -> Self {
        Self { superversion, upto, _point: None }
    }

    /// `superversion` as of a point, which is held as long as the view.
    pub fn at(superversion: Arc<Superversion>, point: ReadPoint) -> Self {
        Self { superversion, upto: point.seqno(), _point: Some(Arc::new(point)) }
    }

    fn instant(&self) -> Instant<fn() -> Seqno> {
        Instant::Held(self.upto)
    }

    /// The value of `key`. See `get`.
    pub fn get(&self, key: &[u8], wait: Wait) -> Result<Option<Bytes>> {
        get(&self.superversion, key, &self.instant(), wait)
    }

    /// Has `key` a value? See `contains_key`.
    pub fn contains_key(&self, key: &[u8], wait: Wait) -> Result<bool> {
        contains_key(&self.superversion, key, &self.instant(), wait)
    }

    /// A walk over the entries of a span.
    pub fn cursor(&self, spec: ScanSpec, wait: Wait) -> ScanCursor {
        ScanCursor::new(self.clone(), spec, wait)
    }
}
