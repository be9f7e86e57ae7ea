//! The edit that replaces the contents of spans of keys.
//!
//! It cuts the spans out of all tables and adds new tables. No byte is copied: what remains of a
//! table on either side of a span stays as slices of its file (INVARIANT(slices-share-files)).
//! Entries in memory and in the log are masked by the number that the change gets
//! (mask-covers-replay).

use super::{
    Landed, Place, RangeId, RangeVersion, Slice, SliceMeta, TableHandle, Version, VersionEdit,
};
use crate::compact::CompactionOptions;
use crate::error::Result;
use crate::key::{Seqno, Span};
use crate::keyspace::{KeyspaceId, KeyspaceSpan, no_keyspace};
use crate::limits::LEVELS_MAX;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The first level whose landing may take overlapping tables.
const LANDING_MIN: u8 = 2;

/// The kind of place that a piece of an incoming table enters.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Entry {
    L0,
    /// Above the pieces with a smaller number (INVARIANT(adopted-as-written)).
    Landing(usize),
    Main,
}

/// An incoming table.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The keyspace of its keys.
    pub keyspace: KeyspaceId,
    /// The table.
    pub table: Arc<TableHandle>,
    /// `None`: it overlaps no other incoming table. Otherwise it lies inside a span, and where two
    /// tables overlap, the one with the larger number is newer.
    pub layer: Option<usize>,
}

impl Version {
    /// The edit after which `spans` contain only the entries of `tables`. The spans ascend and do
    /// not touch.
    ///
    /// - A piece of a table inside a span goes to the deepest level with room for it. Nothing above
    ///   that level has keys of it any more.
    /// - Pieces that overlap each other go to the landing in front of that level.
    /// - A piece outside the spans goes to L0.
    ///
    /// The new entries get the sequence number of the change, which is `SliceMeta::SEQNO_PENDING`
    /// until it is known. Blocks on the disk: it reads the tables that it cuts.
    ///
    /// # Errors
    /// As `Slice::cut`; `Invalid` if a keyspace does not exist.
    pub fn replace(
        &self,
        spans: &[KeyspaceSpan],
        tables: &[Incoming],
        options: &CompactionOptions,
        now_ms: u64,
    ) -> Result<VersionEdit> {
        if spans.iter().any(|span| !self.keyspaces().has(span.keyspace)) {
            return Err(no_keyspace());
        }
        let mut edit = VersionEdit { excised: spans.to_vec(), ..VersionEdit::default() };
        for range in self.ranges() {
            let spans = KeyspaceSpan::of(spans, range.keyspace);
            for (place, slice) in range.layers.slices() {
                let Some(left) = slice.without(&spans)? else { continue };
                edit.deleted.push((range.id, place, slice.name()));
                let left = left.into_iter().map(|piece| (range.id, place, piece.meta().clone()));
                edit.added.extend(left);
            }
        }
        let mut new: BTreeMap<usize, Vec<(Entry, Slice)>> = BTreeMap::new();
        for Incoming { keyspace, table, layer } in tables {
            let spans = KeyspaceSpan::of(spans, *keyspace);
            let route = |key: &[u8]| self.route_index(*keyspace, key).ok_or_else(no_keyspace);
            let whole = Slice::whole(table);
            let meta = SliceMeta { seqno: Some(SliceMeta::SEQNO_PENDING), ..whole.meta().clone() };
            let slice = Slice::new(meta, Arc::clone(table));
            let inside = &self.ranges()[route(slice.min_key())?..=route(slice.max_key())?];
            let mut bounds: Vec<Bytes> = Span::ends(&spans).cloned().collect();
            bounds.extend(inside.iter().map(|range| range.span.lo.clone()));
            bounds.sort();
            for piece in slice.cut(&bounds)? {
                let is_inside = spans.iter().any(|span| span.contains(piece.min_key()));
                let entry = match layer {
                    Some(layer) => Entry::Landing(*layer),
                    None if is_inside => Entry::Main,
                    None => Entry::L0,
                };
                debug_assert!(is_inside || entry == Entry::L0, "others lie over nothing");
                let at = route(piece.min_key())?;
                new.entry(at).or_default().push((entry, piece));
            }
        }
        for (at, pieces) in new {
            let range = &self.ranges()[at];
            let bytes = pieces.iter().map(|(_, piece)| piece.file_bytes()).sum();
            let level = level_for(range, bytes, &range.own.compaction(options));
            // The landing of L1 must be older than L0. But memory may still have entries outside
            // the spans, older than this change, that a flush brings into L0. So L2 is the first
            // possible landing.
            let landing = level.max(LANDING_MIN);
            let newest = range.newest_landed(landing);
            for (entry, piece) in pieces {
                let place = match entry {
                    Entry::L0 => Place::L0,
                    Entry::Main => Place::Main(level),
                    Entry::Landing(layer) => {
                        let epoch = newest + 1 + layer as u64;
                        let landed = Some(Landed { epoch, at_ms: now_ms });
                        for part in piece.cut(range.shards.bounds())? {
                            let shard = range.shards.index(part.min_key()) as u16;
                            let meta = SliceMeta { landed, ..part.meta().clone() };
                            edit.added.push((range.id, Place::Landing(landing, shard), meta));
                        }
                        continue;
                    }
                };
                edit.added.push((range.id, place, piece.meta().clone()));
            }
        }
        Ok(edit)
    }
}

impl Version {
    /// This version with the real number of a change. The prepared `edit` led to this version with
    /// `Seqno::MAX` as a placeholder; now the change has the number `seqno`. Costs a walk over the
    /// places that got tables from the edit.
    #[must_use]
    pub fn numbered(&self, edit: &VersionEdit, seqno: Seqno) -> Self {
        let mut next = self.clone();
        let came = |slice: &SliceMeta| slice.seqno == Some(SliceMeta::SEQNO_PENDING);
        let places = edit.added.iter().filter(|(_, _, slice)| came(slice));
        let mut places: Vec<_> = places.map(|(range, place, _)| (*range, *place)).collect();
        places.sort_unstable();
        places.dedup();
        for range in &mut next.ranges {
            let id = range.id;
            let from = places.partition_point(|(other, _)| *other < id);
            let theirs = places[from..].iter().take_while(|(other, _)| *other == id);
            let changed: BTreeMap<Place, Vec<Slice>> = theirs
                .map(|(_, place)| {
                    let mut slices = range.layers.in_order(*place);
                    for slice in &mut slices {
                        if slice.seqno == Some(Seqno::MAX) {
                            let meta = SliceMeta { seqno: Some(seqno), ..slice.meta().clone() };
                            *slice = Slice::new(meta, Arc::clone(slice.handle()));
                        }
                    }
                    (*place, slices)
                })
                .collect();
            if !changed.is_empty() {
                let layers = range.layers.with_places(changed);
                *range = Arc::new(RangeVersion { layers, ..(**range).clone() });
            }
        }
        next
    }
}

/// The deepest level of the range, or the next deeper one that is large enough for `bytes`.
fn level_for(range: &RangeVersion, bytes: u64, options: &CompactionOptions) -> u8 {
    let mut level = range.deepest().max(1);
    while usize::from(level) < LEVELS_MAX && bytes > options.level_bytes(level) {
        level += 1;
    }
    level
}

impl Slice {
    /// The pieces that remain outside `spans`, which ascend. `None` if the slice does not overlap
    /// them.
    ///
    /// # Errors
    /// As `Slice::cut`.
    pub fn without(&self, spans: &[Span]) -> Result<Option<Vec<Self>>> {
        let overlaps = |span: &&Span| span.overlaps_closed(self.min_key(), self.max_key());
        let spans: Vec<&Span> = spans.iter().filter(overlaps).collect();
        if spans.is_empty() {
            return Ok(None);
        }
        let bounds: Vec<Bytes> = Span::ends(spans.iter().copied()).cloned().collect();
        let mut pieces = self.cut(&bounds)?;
        let was_cut = pieces.len() > 1;
        pieces.retain(|piece| !spans.iter().any(|span| span.contains(piece.min_key())));
        Ok((was_cut || pieces.is_empty()).then_some(pieces))
    }
}

impl VersionEdit {
    /// Does this prepared change affect the memtables of a range: by removing the range, or by
    /// reaching into it?
    pub fn concerns(&self, range: &RangeVersion) -> bool {
        self.ranges_removed.contains(&range.id) || self.reaches_into(range)
    }

    /// Does this prepared change cut something out of a range that stays, or add tables to its L0?
    pub fn reaches_into(&self, range: &RangeVersion) -> bool {
        let is_over = |(id, place, slice): &(RangeId, Place, SliceMeta)| {
            *id == range.id && *place == Place::L0 && slice.seqno == Some(SliceMeta::SEQNO_PENDING)
        };
        self.cuts_into(range).next().is_some() || self.added.iter().any(is_over)
    }

    /// The spans that this prepared change cuts out of a range.
    pub fn excised_from(&self, range: &RangeVersion) -> Vec<Span> {
        self.cuts_into(range).collect()
    }

    /// As `excised_from`. The spans are in order, so most of them are not looked at.
    fn cuts_into<'a>(&'a self, range: &'a RangeVersion) -> impl Iterator<Item = Span> + 'a {
        let (keyspace, span) = (range.keyspace, &range.span);
        let begin = self.excised.partition_point(|cut| {
            let is_before = |hi: &Bytes| *hi <= span.lo;
            (cut.keyspace < keyspace)
                || cut.keyspace == keyspace && cut.span.hi.as_ref().is_some_and(is_before)
        });
        let theirs = self.excised[begin..].iter().take_while(move |cut| {
            cut.keyspace == keyspace && span.hi.as_ref().is_none_or(|hi| cut.span.lo < *hi)
        });
        theirs.map(move |cut| cut.span.intersection(span)).filter(|span| !span.is_empty())
    }

    /// This prepared change with its sequence number filled in.
    #[must_use]
    pub fn stamped(&self, seqno: Seqno) -> Self {
        let mut edit = self.clone();
        for (_, _, slice) in &mut edit.added {
            if slice.seqno == Some(SliceMeta::SEQNO_PENDING) {
                slice.seqno = Some(seqno);
            }
        }
        edit.masked.extend(self.excised.iter().map(|span| (span.clone(), seqno)));
        edit.excised.clear();
        edit
    }
}
