//! The shape of the stable tree at one instant: ranges, their levels, their tables.
//!
//! A `Version` never changes. `apply` makes the next one from an edit or says which rule the edit
//! would break; `check` proves the structural rules of a whole version. What is durable is the edit
//! log (`manifest`); which version readers see is decided by the version manager alone.

mod apply;
pub mod check;
mod edit;
mod handle;
mod image;
mod l0;
mod level;
mod run;
mod shards;
mod table_cache;
#[cfg(test)]
pub(crate) mod testing;

pub use check::Conflict;
pub(crate) use edit::EditError;
pub use edit::VersionEdit;
pub use handle::{Graveyard, OpenTable, TableHandle};
pub use image::Image;
pub use l0::L0;
pub use level::Level;
pub use run::TableRun;
pub use shards::{ShardCuts, Shards};
pub use table_cache::{TableCache, TableLimits};

use crate::filename::FileNumber;
use crate::key::{Seqno, Span};
use std::fmt;
use std::sync::Arc;

/// A range's name: stable while its span is; never used again after a split retired it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeId(pub u32);

impl RangeId {
    /// The range that holds the least keys of a new database; the others are numbered upwards.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for RangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The stable part of one range: L0 and the levels below it.
#[derive(Clone, Debug)]
pub struct RangeVersion {
    /// Its name.
    pub id: RangeId,
    /// The keys routed to it.
    pub span: Span,
    /// Every entry of the range up to here is in its tables; replay skips them.
    pub flushed_seqno: Seqno,
    /// Tables that may overlap, newest first.
    pub l0: L0,
    /// L1 and deeper: `levels[0]` is L1. Trailing empty levels are not kept.
    pub levels: Vec<Level>,
}

impl RangeVersion {
    /// A range without tables.
    pub fn empty(id: RangeId, span: Span) -> Self {
        Self { id, span, flushed_seqno: Seqno::ZERO, l0: L0::default(), levels: Vec::new() }
    }

    /// A level by its number, counted from 1; `None` where the range has no such level yet.
    pub fn level(&self, number: u8) -> Option<&Level> {
        self.levels.get(usize::from(number).checked_sub(1)?)
    }

    /// The deepest level that has a table: 0 for L0 or an empty range.
    pub fn deepest(&self) -> u8 {
        self.levels.iter().rposition(|level| !level.is_empty()).map_or(0, |at| at as u8 + 1)
    }

    /// All tables with their levels, newest layers first.
    pub fn tables(&self) -> impl Iterator<Item = (u8, &Arc<TableHandle>)> {
        let deeper = self.levels.iter().zip(1_u8..);
        let deeper = deeper.flat_map(|(level, n)| level.tables().iter().map(move |t| (n, t)));
        self.l0.iter().map(|table| (0, table)).chain(deeper)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.tables().fold(0, |sum, (_, table)| sum.saturating_add(table.meta().file_bytes))
    }

    /// The tables of a level that share a key with the closed interval `[min, max]`, in the level's
    /// order.
    pub fn overlapping(&self, level: u8, min: &[u8], max: &[u8]) -> Vec<Arc<TableHandle>> {
        if level == 0 {
            return self.l0.iter().filter(|table| table.overlaps(min, max)).cloned().collect();
        }
        match self.level(level) {
            Some(level) => level.tables()[level.overlapping(min, max)].to_vec(),
            None => Vec::new(),
        }
    }
}

/// All ranges. Immutable; share it by `Arc`.
#[derive(Clone, Debug)]
pub struct Version {
    ranges: Vec<Arc<RangeVersion>>,
    graveyard: Arc<Graveyard>,
}

impl Version {
    /// A version of these ranges, sorted by span. Use `check` before trusting it.
    pub fn new(ranges: Vec<Arc<RangeVersion>>, graveyard: Arc<Graveyard>) -> Self {
        Self { ranges, graveyard }
    }

    /// The ranges in key order; together they cover every key.
    #[inline]
    pub fn ranges(&self) -> &[Arc<RangeVersion>] {
        &self.ranges
    }

    /// The range with this name.
    pub fn range(&self, id: RangeId) -> Option<&Arc<RangeVersion>> {
        self.ranges.iter().find(|range| range.id == id)
    }

    /// Index of the range that `key` is routed to.
    #[inline]
    pub fn route_index(&self, key: &[u8]) -> usize {
        if self.ranges.len() == 1 {
            return 0;
        }
        self.ranges.partition_point(|range| range.span.lo <= key).saturating_sub(1)
    }

    /// The range that `key` is routed to.
    #[inline]
    pub fn route(&self, key: &[u8]) -> &Arc<RangeVersion> {
        &self.ranges[self.route_index(key)]
    }

    /// Where the numbers of unneeded tables gather.
    pub fn graveyard(&self) -> &Arc<Graveyard> {
        &self.graveyard
    }

    /// All tables of all ranges.
    pub fn tables(&self) -> impl Iterator<Item = (RangeId, u8, &Arc<TableHandle>)> {
        self.ranges
            .iter()
            .flat_map(|range| range.tables().map(move |(level, table)| (range.id, level, table)))
    }

    /// The handles that `edit` takes out of this version and does not put back elsewhere: what the
    /// version manager marks obsolete once the edit is durable and swapped in.
    pub fn dropped_by(&self, edit: &VersionEdit) -> Vec<Arc<TableHandle>> {
        let kept = |number: FileNumber| edit.added.iter().any(|(_, _, m)| m.number == number);
        let gone = edit.deleted.iter().filter(|(_, _, number)| !kept(*number));
        gone.filter_map(|&(range, level, number)| self.find_table(range, level, number).cloned())
            .collect()
    }

    /// The table with this number, if the level of the range has it.
    pub fn find_table(
        &self,
        range: RangeId,
        level: u8,
        number: FileNumber,
    ) -> Option<&Arc<TableHandle>> {
        let range = self.range(range)?;
        let tables = if level == 0 { &range.l0[..] } else { range.level(level)?.tables() };
        tables.iter().find(|table| table.number() == number)
    }
}
