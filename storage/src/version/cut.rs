//! Cutting slices at keys, without rewriting a byte.
//!
//! The pieces name the same file. Each begins and ends with a key that the table has, so a cut
//! looks into the two blocks beside it; nothing else is read.

use super::{Slice, SliceMeta, TablePart};
use crate::error::{Error, Result};
use crate::iter::Cursor;
use crate::table::{CursorOptions, ReadTier, Table};
use bytes::Bytes;
use std::sync::Arc;

impl Slice {
    /// The pieces of this slice between `bounds`, which ascend: those of its keys before the first
    /// bound, then those from each bound to the next. Pieces without a key are left out; a slice
    /// that no bound divides is its own only piece. How much a piece has is told by the table's
    /// index. Blocks on the disk.
    ///
    /// # Errors As `TableHandle::table`, and what a look into its blocks finds; `Corrupt` if the
    /// slice does not begin and end with the keys that the manifest says.
    pub fn cut(&self, bounds: &[Bytes]) -> Result<Vec<Self>> {
        let inside = |bound: &&Bytes| *bound > self.min_key() && *bound <= self.max_key();
        let mut bounds = bounds.iter().filter(inside).peekable();
        if bounds.peek().is_none() {
            return Ok(vec![self.clone()]);
        }
        let table = self.handle().table(ReadTier::Disk)?;
        let how = CursorOptions { tier: ReadTier::Disk, fill_cache: false, readahead_bytes: 0 };
        let mut cursor = self.cursor(how)?;
        let mut pieces = Vec::new();
        let mut min_key = self.min_key().clone();
        for bound in bounds {
            cursor.seek(bound)?;
            if !cursor.valid() {
                return Err(has_no(self.max_key(), &table));
            }
            let next = Bytes::copy_from_slice(cursor.key());
            if next == min_key {
                // The last bound was here already: nothing is between them.
                continue;
            }
            cursor.prev()?;
            if !cursor.valid() {
                return Err(has_no(self.min_key(), &table));
            }
            let max_key = Bytes::copy_from_slice(cursor.key());
            pieces.push(self.piece(&table, min_key, max_key));
            min_key = next;
        }
        pieces.push(self.piece(&table, min_key, self.max_key().clone()));
        Ok(pieces)
    }

    fn piece(&self, table: &Table, min_key: Bytes, max_key: Bytes) -> Self {
        let (from, to) = (table.bytes_before(&min_key), table.bytes_before(&max_key));
        let whole = &self.table;
        // At least the block in which both ends lie.
        let blocks = table.data_blocks().max(1) as u64;
        let bytes = (to - from).max(whole.file_bytes / blocks).min(self.file_bytes());
        let share = |count: u64| {
            let part = u128::from(count) * u128::from(bytes) / u128::from(whole.file_bytes.max(1));
            part as u64
        };
        let part = TablePart {
            min_key,
            max_key,
            file_bytes: bytes,
            entries: share(whole.entries).clamp(1, whole.entries),
            tombstones: share(whole.tombstones),
        };
        let meta = SliceMeta { part: Some(Arc::new(part)), ..self.meta().clone() };
        Self::new(meta, Arc::clone(self.handle()))
    }
}

/// A slice should begin or end with `end`, and does not.
fn has_no(end: &[u8], table: &Table) -> Error {
    let key = end.escape_ascii();
    let what = format!("there is no key {key}, where a part ends by the manifest");
    Error::corrupt(table.path(), table.bytes_before(end), what)
}
