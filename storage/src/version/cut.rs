//! Cutting slices at keys, without rewriting a byte.
//!
//! All pieces name the same file. Each piece begins and ends with a key that the table contains. So
//! a cut reads the two blocks next to it, and nothing else.

use super::{Slice, SliceMeta, TablePart};
use crate::error::{Error, Result};
use crate::iter::Cursor;
use crate::table::{CursorOptions, ReadTier, Table};
use bytes::Bytes;
use std::sync::Arc;

impl Slice {
    /// Cuts this slice at `bounds`, which ascend. The first piece has the keys before the first
    /// bound; each further piece has the keys from one bound to the next. Pieces without a key are
    /// left out. A slice that no bound divides is returned whole. The sizes of the pieces are
    /// estimates from the table's index. Blocks on the disk.
    ///
    /// # Errors
    /// As `TableHandle::table` and as reading its blocks. `Corrupt` if the table does not contain
    /// the first or the last key of the slice that the manifest records.
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
                // No key lies between the previous bound and this one.
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
        // At least the size of one average block: both ends may lie in the same block.
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

/// The error for a slice whose table does not contain `end`, its first or last key.
fn has_no(end: &[u8], table: &Table) -> Error {
    let bytes = end.len();
    let what = format!("a key of {bytes} bytes, where a part ends by the manifest, is missing");
    Error::corrupt(table.path(), table.bytes_before(end), what)
}
