//! The shape of the stable tree at one instant: ranges, their levels, their tables.
//!
//! A `Version` never changes. `apply` makes the next version from an edit, or names the rule that
//! the edit breaks. `check` proves the structural rules of a whole version. The manifest is what
//! makes edits durable. Only the version manager decides which version readers see.

mod apply;
pub mod check;
mod cut;
mod edit;
mod handle;
mod image;
mod keyspace_options;
mod keyspaces;
mod layers;
mod median;
mod place;
mod replace;
mod routes;
mod run;
mod run_parts;
mod shards;
mod slice;
mod slice_cursor;
mod table_cache;
#[cfg(test)]
pub(crate) mod testing;

pub use crate::change::ChangeId;
pub use check::Conflict;
pub(crate) use edit::EditError;
pub use edit::{NewRange, VersionEdit};
pub use handle::{ObsoleteFiles, OpenTable, TableHandle};
pub use image::{Image, RangeImage};
pub use keyspace_options::KeyspaceOptions;
pub use keyspaces::{DEFAULT_KEYSPACE, Keyspace, Keyspaces, check_name};
pub(crate) use layers::runs_of;
pub use layers::{Layer, Layers};
pub use median::median_of;
pub use place::Place;
pub use replace::Incoming;
pub use run::Run;
pub use run_parts::RunParts;
pub use shards::{ShardCuts, Shards};
pub use slice::{Landed, Slice, SliceMeta, SliceName, TablePart};
pub use slice_cursor::SliceCursor;
pub use table_cache::{TableCache, TableLimits};

use crate::key::{Seqno, Span};
use crate::keyspace::KeyspaceId;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// The identity of a range. It is valid as long as the range keeps this span. It is not reused
/// before the next open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeId(pub u32);

impl RangeId {
    /// The range with the smallest keys of a new database. The other ranges are numbered upwards.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for RangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The stable part of one range.
#[derive(Clone, Debug)]
pub struct RangeVersion {
    /// Its identity.
    pub id: RangeId,
    /// The keyspace of its keys.
    pub keyspace: KeyspaceId,
    /// The options of that keyspace that differ from the database's.
    pub own: Arc<KeyspaceOptions>,
    /// The keys routed to it.
    pub span: Span,
    /// The bounds between its shards. Flushes cut their tables at them, and they divide the
    /// landings.
    pub shards: Shards,
    /// All entries of the range up to this number are in its tables. Replay skips them.
    pub flushed_seqno: Seqno,
    /// Its tables, newest first.
    pub layers: Layers,
}

impl RangeVersion {
    /// A range of the default keyspace, without tables.
    pub fn empty(id: RangeId, span: Span, shards: Shards) -> Self {
        Self {
            id,
            keyspace: KeyspaceId::DEFAULT,
            own: Arc::default(),
            span,
            shards,
            flushed_seqno: Seqno::ZERO,
            layers: Layers::default(),
        }
    }

    /// Is `key` of `keyspace` routed to it?
    #[inline]
    pub fn holds(&self, keyspace: KeyspaceId, key: &[u8]) -> bool {
        self.keyspace == keyspace && self.span.contains(key)
    }

    /// The deepest level that has a table: 0 for L0 or an empty range.
    pub fn deepest(&self) -> u8 {
        self.layers.places().last().map_or(0, Place::level)
    }

    /// The largest epoch in the landing in front of `level`; 0 where nothing has landed.
    pub(crate) fn newest_landed(&self, level: u8) -> u64 {
        let slices = self.layers.landing(level).iter().flat_map(|layer| layer.run.slices().iter());
        slices.filter_map(|slice| slice.landed).max().map_or(0, |last| last.epoch)
    }

    /// Bytes of all slices.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.run.bytes()))
    }

    /// Entries of all slices, tombstones and overwritten ones included.
    pub fn entries(&self) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.run.entries()))
    }

    /// The slices of L0 that a change brought in while older entries of the range were still in
    /// memory. They are newer than everything that the next flush writes.
    pub fn ahead(&self) -> impl Iterator<Item = &Slice> {
        let runs = self.layers.at(Place::L0).iter();
        let slices = runs.flat_map(|layer| layer.run.slices().iter());
        slices.filter(|slice| self.is_ahead(slice))
    }

    /// Is this slice of L0 newer than what the range still has in memory?
    pub fn is_ahead(&self, slice: &SliceMeta) -> bool {
        slice.seqno.is_some_and(|at| at > self.flushed_seqno)
    }

    /// Is no key of the closed interval `[min, max]` in any place older than `place`?
    pub fn is_bottom_of(&self, place: Place, min: &[u8], max: &[u8]) -> bool {
        let mut older = self.layers.iter().filter(|layer| layer.place > place);
        older.all(|layer| layer.run.overlapping(min, max).is_empty())
    }

    /// The slices in a place that overlap the closed interval `[min, max]`: newest first in a tier,
    /// in key order in a level.
    pub fn overlapping(&self, place: Place, min: &[u8], max: &[u8]) -> Vec<Slice> {
        if let Place::Main(level) = place {
            let run = self.layers.main(level);
            return run
                .map_or_else(Vec::new, |run| run.slices()[run.overlapping(min, max)].to_vec());
        }
        let mut slices = self.layers.in_order(place);
        slices.retain(|slice| slice.overlaps(min, max));
        slices
    }
}

/// All ranges. Immutable; share it by `Arc`.
#[derive(Clone, Debug)]
pub struct Version {
    ranges: Vec<Arc<RangeVersion>>,
    keyspaces: Arc<Keyspaces>,
    obsolete_files: Arc<ObsoleteFiles>,
}

impl Version {
    /// A version of these ranges, sorted by keyspace and span. It has only the default keyspace.
    /// Nothing is checked here: call `check` before trusting the version.
    pub fn new(ranges: Vec<Arc<RangeVersion>>, obsolete_files: Arc<ObsoleteFiles>) -> Self {
        Self { ranges, keyspaces: Arc::default(), obsolete_files }
    }

    /// This version with these keyspaces.
    #[must_use]
    pub fn with_keyspaces(self, keyspaces: Arc<Keyspaces>) -> Self {
        Self { keyspaces, ..self }
    }

    /// Its keyspaces.
    pub fn keyspaces(&self) -> &Arc<Keyspaces> {
        &self.keyspaces
    }

    /// The ranges, by keyspace and key. The ranges of a keyspace cover all its keys.
    #[inline]
    pub fn ranges(&self) -> &[Arc<RangeVersion>] {
        &self.ranges
    }

    /// The range with this identity.
    pub fn range(&self, id: RangeId) -> Option<&Arc<RangeVersion>> {
        self.ranges.iter().find(|range| range.id == id)
    }

    /// Index of the range that `key` of `keyspace` is routed to; `None` if there is no such
    /// keyspace.
    pub fn route_index(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<usize> {
        // An empty bound is nowhere in memory. Some processors take 50 ns to compare none of its
        // bytes.
        let is_behind = |range: &Arc<RangeVersion>| {
            let lo = &range.span.lo[..];
            range.keyspace < keyspace || range.keyspace == keyspace && (lo.is_empty() || lo <= key)
        };
        let at = self.ranges.partition_point(is_behind).checked_sub(1)?;
        (self.ranges[at].keyspace == keyspace).then_some(at)
    }

    /// The range that `key` of `keyspace` is routed to; `None` if there is no such keyspace.
    pub fn route(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<&Arc<RangeVersion>> {
        Some(&self.ranges[self.route_index(keyspace, key)?])
    }

    /// INVARIANT(ahead-waits): the version as compactions see it, without the tables of L0 that are
    /// newer than entries in memory. If such a table moved to a deeper level, the flush of those
    /// older entries would later be placed above it.
    #[must_use]
    pub fn without_ahead(mut self) -> Self {
        for range in &mut self.ranges {
            if range.ahead().next().is_some() {
                let mut l0 = range.layers.in_order(Place::L0);
                l0.retain(|slice| !range.is_ahead(slice));
                let layers = range.layers.with(Place::L0, l0);
                *range = Arc::new(RangeVersion { layers, ..(**range).clone() });
            }
        }
        self
    }

    /// The list of tables that no version, view or job needs any more.
    pub fn obsolete_files(&self) -> &Arc<ObsoleteFiles> {
        &self.obsolete_files
    }

    /// All slices of all ranges.
    pub fn slices(&self) -> impl Iterator<Item = (RangeId, Place, &Slice)> {
        self.ranges
            .iter()
            .flat_map(|range| range.layers.slices().map(|(place, slice)| (range.id, place, slice)))
    }

    /// The tables that `edit` drops from this version and that no slice of `next`, the version
    /// after it, names. The version manager marks them obsolete after the edit is durable and
    /// swapped in.
    pub fn dropped_by(&self, edit: &VersionEdit, next: &Self) -> Vec<Arc<TableHandle>> {
        let mut dropped: Vec<Arc<TableHandle>> = Vec::new();
        let kept: HashSet<_> = edit.added.iter().map(|(_, _, meta)| meta.number()).collect();
        // INVARIANT(slices-share-files): other slices may still name the file of a part.
        let mut parts = HashSet::new();
        let mut named = None;
        let gone = self.deleted_slices(edit).filter(|(name, _)| !kept.contains(&name.table));
        for (name, slice) in gone {
            if slice.part.is_some() {
                let others = || next.slices().map(|(_, _, other)| other.number()).collect();
                let named: &HashSet<_> = named.get_or_insert_with(others);
                if named.contains(&name.table) || !parts.insert(name.table) {
                    continue;
                }
            }
            dropped.push(Arc::clone(slice.handle()));
        }
        dropped
    }

    /// The slices that `edit` deletes, with their names, in its order. Those that are not there are
    /// left out.
    fn deleted_slices<'a>(
        &'a self,
        edit: &'a VersionEdit,
    ) -> impl Iterator<Item = (&'a SliceName, &'a Slice)> {
        let ids: HashSet<_> = edit.deleted.iter().map(|(range, _, _)| *range).collect();
        let ranges = self.ranges.iter().filter(|range| ids.contains(&range.id));
        let ranges: HashMap<_, _> = ranges.map(|range| (range.id, range)).collect();
        edit.deleted.iter().filter_map(move |(range, place, name)| {
            Some((name, ranges.get(range)?.layers.find(*place, name)?))
        })
    }

    /// The slice with this name in the given place of the range.
    pub fn find(&self, range: RangeId, place: Place, name: &SliceName) -> Option<&Slice> {
        self.range(range)?.layers.find(place, name)
    }
}
