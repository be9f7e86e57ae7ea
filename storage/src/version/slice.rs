//! A table, or a part of one, in its place of a range's tree.
//!
//! Several slices may share a file. A range that is split keeps its tables, and so does one out of
//! which a span is cut: each side names its part of them (INVARIANT(slices-share-files)). A key of
//! a file is in one slice at most.

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

/// What is known of the entries in a slice that does not take its whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePart {
    /// The first key of the slice; the table has it.
    pub min_key: Bytes,
    /// The last key of the slice; the table has it.
    pub max_key: Bytes,
    /// About how many bytes of the file it takes, by the table's index.
    pub file_bytes: u64,
    /// About how many entries it has, tombstones included.
    pub entries: u64,
    /// About how many of those are tombstones.
    pub tombstones: u64,
}

/// What the manifest records of a slice. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceMeta {
    /// The table.
    pub table: Arc<TableMeta>,
    /// Which part of it; `None`: all of it.
    pub part: Option<Arc<TablePart>>,
    /// The sequence number of every entry, where it is not the one that the table says: that of the
    /// change which brought a table in from outside.
    pub seqno: Option<Seqno>,
    /// When it entered the landing where it lies.
    pub landed: Option<Landed>,
}

/// When a slice entered a landing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Landed {
    /// Greater than that of everything that its range's landings had then. What entered by one edit
    /// has one, but for tables that were taken over in layers: each of these has its own.
    pub epoch: u64,
    /// In milliseconds since 1970.
    pub at_ms: u64,
}

/// What tells one slice from the others in its place: the file, and where the slice begins in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceName {
    /// The file's number.
    pub table: FileNumber,
    /// The first key of the slice.
    pub min_key: Bytes,
}

impl fmt::Display for SliceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {} from {}", self.table, self.min_key.escape_ascii())
    }
}

impl SliceMeta {
    /// As `seqno`: that of the change which is being prepared. No entry has it.
    pub const AT_CHANGE: Seqno = Seqno::ZERO;

    /// All of a table.
    pub fn whole(table: TableMeta) -> Self {
        Self { table: Arc::new(table), part: None, seqno: None, landed: None }
    }

    /// The file's number.
    #[inline]
    pub fn number(&self) -> FileNumber {
        self.table.number
    }

    /// Its name in its place.
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

    /// Bytes of the file that it takes; exact for all of it.
    pub fn file_bytes(&self) -> u64 {
        self.part.as_ref().map_or(self.table.file_bytes, |part| part.file_bytes)
    }

    /// Its entries, tombstones included; exact for all of the table.
    pub fn entries(&self) -> u64 {
        self.part.as_ref().map_or(self.table.entries, |part| part.entries)
    }

    /// Its tombstones; exact for all of the table.
    pub fn tombstones(&self) -> u64 {
        self.part.as_ref().map_or(self.table.tombstones, |part| part.tombstones)
    }

    /// The smallest sequence number that an entry may have.
    pub fn min_seqno(&self) -> Seqno {
        self.seqno.unwrap_or(self.table.min_seqno)
    }

    /// The largest sequence number that an entry may have.
    pub fn max_seqno(&self) -> Seqno {
        self.seqno.unwrap_or(self.table.max_seqno)
    }

    /// Is there a key inside both its bounds and the closed interval `[min, max]`?
    #[inline]
    pub fn overlaps(&self, min: &[u8], max: &[u8]) -> bool {
        max >= &self.min_key()[..] && min <= &self.max_key()[..]
    }

    /// Greater is newer, among the runs of a tier. In a landing the order is that in which they
    /// came: one from a level may have older entries than one that came before, under other keys.
    pub fn age(&self) -> (u64, Seqno, FileNumber) {
        let epoch = self.landed.map_or(0, |landed| landed.epoch);
        (epoch, self.max_seqno(), self.number())
    }

    /// Does it contradict neither itself nor its table?
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

/// A slice that can be read: what is known of it, and the table. Derefs to the former.
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

    /// All of the table of `handle`.
    pub fn whole(handle: &Arc<TableHandle>) -> Self {
        let table = Arc::clone(handle.meta());
        let meta = SliceMeta { table, part: None, seqno: None, landed: None };
        Self { meta, handle: Arc::clone(handle) }
    }

    /// What the manifest records of it.
    pub fn meta(&self) -> &SliceMeta {
        &self.meta
    }

    /// The table it is of.
    #[inline]
    pub fn handle(&self) -> &Arc<TableHandle> {
        &self.handle
    }

    /// About how many bytes of the file its keys inside `span` take. Of a table that is not open
    /// half is taken where a part of it lies inside. Does not wait.
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

    /// A walk over its entries.
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
