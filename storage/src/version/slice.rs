//! A table, or a part of one, in its place of a range's tree.
//!
//! Several slices may share a file (INVARIANT(slices-share-files)). When a range is split, or a
//! span is cut out of it, its tables stay as they are, and each side names its part of them. A key
//! of a file is in at most one slice.

use super::handle::TableHandle;
use super::slice_cursor::SliceCursor;
use crate::error::Result;
use crate::filename::FileNumber;
use crate::key::{Seqno, Span};
use crate::table::{CursorOptions, ReadTier, TableMeta};
use bytes::Bytes;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The bounds and sizes of a slice that covers only a part of its table.
#[derive(Clone, PartialEq, Eq)]
pub struct TablePart {
    /// The first key of the slice. The table contains it.
    pub min_key: Bytes,
    /// The last key of the slice. The table contains it.
    pub max_key: Bytes,
    /// Estimated bytes of the file, by the table's index.
    pub file_bytes: u64,
    /// Estimated number of entries, tombstones included.
    pub entries: u64,
    /// Estimated number of tombstones.
    pub tombstones: u64,
}

/// Keys are the user's, and appear in no message: only their lengths.
impl fmt::Debug for TablePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TablePart")
            .field("min_key", &format_args!("{} bytes", self.min_key.len()))
            .field("max_key", &format_args!("{} bytes", self.max_key.len()))
            .field("file_bytes", &self.file_bytes)
            .field("entries", &self.entries)
            .field("tombstones", &self.tombstones)
            .finish()
    }
}

/// What the manifest records of a slice. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceMeta {
    /// The table.
    pub table: Arc<TableMeta>,
    /// The part of the table; `None`: the whole table.
    pub part: Option<Arc<TablePart>>,
    /// The sequence number of every entry, where it differs from the table's: a table from outside
    /// gets the number of the change that ingested it.
    pub seqno: Option<Seqno>,
    /// When the slice entered its landing; `None` if it is not in a landing.
    pub landed: Option<Landed>,
}

/// When a slice entered a landing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Landed {
    /// Greater than the epoch of everything that the range's landings held before. Slices that
    /// enter by one edit share an epoch, except for adopted tables that overlap: each of their
    /// layers has its own.
    pub epoch: u64,
    /// In milliseconds since 1970.
    pub at_ms: u64,
}

/// Identifies a slice within its place: the file, and the key at which the slice starts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceName {
    /// The file's number.
    pub table: FileNumber,
    /// The first key of the slice.
    pub min_key: Bytes,
}

impl fmt::Display for SliceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {} from a key of {} bytes on", self.table, self.min_key.len())
    }
}

impl SliceMeta {
    /// The value of `seqno` while its change is being prepared. No entry has this number.
    pub const SEQNO_PENDING: Seqno = Seqno::ZERO;

    /// The whole of a table.
    pub fn whole(table: TableMeta) -> Self {
        Self { table: Arc::new(table), part: None, seqno: None, landed: None }
    }

    /// The file's number.
    #[inline]
    pub fn number(&self) -> FileNumber {
        self.table.number
    }

    /// Its name within its place.
    pub fn name(&self) -> SliceName {
        SliceName { table: self.number(), min_key: self.min_key().clone() }
    }

    /// The first key.
    #[inline]
    pub fn min_key(&self) -> &Bytes {
        match &self.part {
            None => &self.table.min_key,
            Some(part) => &part.min_key,
        }
    }

    /// The last key.
    #[inline]
    pub fn max_key(&self) -> &Bytes {
        match &self.part {
            None => &self.table.max_key,
            Some(part) => &part.max_key,
        }
    }

    /// Bytes of the file that the slice takes. Exact for a whole table, else an estimate.
    pub fn file_bytes(&self) -> u64 {
        self.part.as_ref().map_or(self.table.file_bytes, |part| part.file_bytes)
    }

    /// Entries, tombstones included. Exact for a whole table, else an estimate.
    pub fn entries(&self) -> u64 {
        self.part.as_ref().map_or(self.table.entries, |part| part.entries)
    }

    /// Tombstones. Exact for a whole table, else an estimate.
    pub fn tombstones(&self) -> u64 {
        self.part.as_ref().map_or(self.table.tombstones, |part| part.tombstones)
    }

    /// Can it have a tombstone? Its own number of them is an estimate, which may be 0 although
    /// there is one.
    pub fn may_have_tombstones(&self) -> bool {
        self.table.tombstones > 0
    }

    /// A lower bound of the sequence numbers of the entries.
    pub fn min_seqno(&self) -> Seqno {
        self.seqno.unwrap_or(self.table.min_seqno)
    }

    /// An upper bound of the sequence numbers of the entries.
    pub fn max_seqno(&self) -> Seqno {
        self.seqno.unwrap_or(self.table.max_seqno)
    }

    /// Does the closed interval between its first and last key overlap `[min, max]`?
    #[inline]
    pub fn overlaps(&self, min: &[u8], max: &[u8]) -> bool {
        max >= &self.min_key()[..] && min <= &self.max_key()[..]
    }

    /// Orders the slices of a tier: greater is newer. In a landing the epoch decides, not the
    /// sequence number: a slice that came down from a level may have older entries than one that
    /// landed before it, under other keys.
    pub fn age(&self) -> (u64, Seqno, FileNumber) {
        let epoch = self.landed.map_or(0, |landed| landed.epoch);
        (epoch, self.max_seqno(), self.number())
    }

    /// Is it consistent with itself and with its table?
    pub(super) fn is_sane(&self) -> bool {
        let table = &self.table;
        let table_is_sane = table.number.0 > 0
            && table.entries > 0
            && table.tombstones <= table.entries
            && !table.min_key.is_empty()
            && table.min_key <= table.max_key
            && table.min_seqno <= table.max_seqno;
        let part_is_sane = self.part.as_ref().is_none_or(|part| {
            table.min_key <= part.min_key
                && part.min_key <= part.max_key
                && part.max_key <= table.max_key
                && part.file_bytes <= table.file_bytes
                && part.entries <= table.entries
                && part.tombstones <= table.tombstones
        });
        table_is_sane && part_is_sane
    }
}

/// A slice that can be read: its metadata and its table. Derefs to `SliceMeta`.
#[derive(Clone, Debug)]
pub struct Slice {
    meta: SliceMeta,
    handle: Arc<TableHandle>,
}

impl Slice {
    /// The slice `meta` of the table of `handle`.
    pub fn new(meta: SliceMeta, handle: Arc<TableHandle>) -> Self {
        debug_assert_eq!(meta.number(), handle.number(), "a slice and its table");
        Self { meta, handle }
    }

    /// The whole table of `handle`.
    pub fn whole(handle: &Arc<TableHandle>) -> Self {
        let table = Arc::clone(handle.meta());
        let meta = SliceMeta { table, part: None, seqno: None, landed: None };
        Self { meta, handle: Arc::clone(handle) }
    }

    /// The metadata that the manifest records.
    pub fn meta(&self) -> &SliceMeta {
        &self.meta
    }

    /// Its table.
    #[inline]
    pub fn handle(&self) -> &Arc<TableHandle> {
        &self.handle
    }

    /// Estimates the file bytes of its keys inside `span`. If the table is not open and only part
    /// of the slice lies inside, the estimate is half of the slice. Does not wait.
    pub fn bytes_in(&self, span: &Span) -> u64 {
        if span.is_empty() || !span.overlaps_closed(self.min_key(), self.max_key()) {
            return 0;
        }
        if span.contains(self.min_key()) && span.contains(self.max_key()) {
            return self.file_bytes();
        }
        let Ok(table) = self.handle.table(ReadTier::Memory) else { return self.file_bytes() / 2 };
        let before = |key: &[u8]| table.bytes_before(key);
        let from = before((&span.lo[..]).max(&self.min_key()[..]));
        let to = match &span.hi {
            Some(hi) if hi <= self.max_key() => before(hi),
            _ => before(self.max_key()) + 1,
        };
        to.saturating_sub(from).clamp(1, self.file_bytes().max(1))
    }

    /// A cursor over its entries.
    ///
    /// # Errors
    /// As `TableHandle::table`.
    pub fn cursor(&self, options: CursorOptions) -> Result<SliceCursor> {
        let table = self.handle.table(options.tier)?;
        Ok(SliceCursor::new(table.cursor(options), self.part.clone(), self.seqno))
    }
}

impl Deref for Slice {
    type Target = SliceMeta;

    #[inline]
    fn deref(&self) -> &SliceMeta {
        &self.meta
    }
}
