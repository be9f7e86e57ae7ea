//! A run, as the parts that the concatenating cursor walks.

use super::{Run, SliceCursor};
use crate::error::Result;
use crate::iter::SortedParts;
use crate::table::CursorOptions;

/// The slices of a run as `Parts`. Keeps the run alive.
#[derive(Clone, Debug)]
pub struct RunParts {
    run: Run,
    options: CursorOptions,
}

impl RunParts {
    /// The slices of `run`, opened with `options`.
    pub fn new(run: Run, options: CursorOptions) -> Self {
        Self { run, options }
    }
}

impl SortedParts for RunParts {
    type Cursor = SliceCursor;
    fn count(&self) -> usize {
        self.run.slices().len()
    }
    fn min_key(&self, part: usize) -> &[u8] {
        self.run.slices()[part].min_key()
    }
    fn max_key(&self, part: usize) -> &[u8] {
        self.run.slices()[part].max_key()
    }
    fn first_ending_at_or_after(&self, key: &[u8]) -> usize {
        self.run.first_ending_at_or_after(key)
    }
    fn open(&self, part: usize) -> Result<SliceCursor> {
        self.run.slices()[part].cursor(self.options)
    }
}
