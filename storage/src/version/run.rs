//! Tables in a row, as the concatenating cursor walks them.

use super::TableHandle;
use crate::error::Result;
use crate::iter::Run;
use crate::table::{CursorOptions, TableCursor};
use std::sync::Arc;

/// Tables in key order, walked as one. Holds them.
#[derive(Clone, Debug)]
pub struct TableRun {
    tables: Arc<[Arc<TableHandle>]>,
    options: CursorOptions,
}

impl TableRun {
    /// Over sorted, disjoint tables.
    pub fn new(tables: Arc<[Arc<TableHandle>]>, options: CursorOptions) -> Self {
        Self { tables, options }
    }
}

impl Run for TableRun {
    type Cursor = TableCursor;
    fn count(&self) -> usize {
        self.tables.len()
    }
    fn min_key(&self, part: usize) -> &[u8] {
        &self.tables[part].meta().min_key
    }
    fn max_key(&self, part: usize) -> &[u8] {
        &self.tables[part].meta().max_key
    }
    fn open(&self, part: usize) -> Result<TableCursor> {
        Ok(self.tables[part].table(self.options.wait)?.cursor(self.options))
    }
}
