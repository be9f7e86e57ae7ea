//! The contents of a manifest as data: routes, slices and counters, without open files.
//!
//! The manifest's reader folds edits into an image. The manifest's writer keeps one, because a
//! snapshot record must contain all of it. A version is made from an image by opening its tables.

use super::check::{Conflict, ranges_cover_keyspaces};
use super::{
    ChangeId, Keyspaces, NewRange, ObsoleteFiles, Place, RangeId, Shards, SliceMeta, SliceName,
    TableHandle, Version, VersionEdit,
};
use crate::filename::FileNumber;
use crate::key::{Seqno, Span};
use crate::keyspace::{KeyspaceId, KeyspaceSpan};
use crate::limits::{COUNTERS_AT_OPEN_MAX, RANGE_ID_AT_OPEN_MAX};
use crate::table::TableMeta;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// What a manifest records of a range, without its slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeImage {
    /// The keyspace of its keys.
    pub keyspace: KeyspaceId,
    /// The keys routed to it.
    pub span: Span,
    /// The bounds between its shards.
    pub shards: Shards,
    /// All entries of the range up to this number are in its tables.
    pub flushed: Seqno,
}

impl RangeImage {
    fn as_new(&self, id: RangeId) -> NewRange {
        let Self { keyspace, span, shards, .. } = self;
        NewRange { id, keyspace: *keyspace, span: span.clone(), shards: shards.clone() }
    }

    /// Does it have keys of this span?
    fn overlaps(&self, span: &KeyspaceSpan) -> bool {
        self.keyspace == span.keyspace && !self.span.intersection(&span.span).is_empty()
    }
}

/// Identifies a slice among all slices of the database.
type SliceKey = (RangeId, Place, SliceName);

/// Everything that a manifest records. It starts empty and grows by edits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// All ranges.
    pub ranges: BTreeMap<RangeId, RangeImage>,
    /// All slices, by range and place.
    pub slices: BTreeMap<SliceKey, SliceMeta>,
    /// Prepared changes: the edit that takes effect if the log has the change's record.
    pub prepared: BTreeMap<ChangeId, VersionEdit>,
    /// Log entries of these spans with sequence numbers below the mask's are excised. A mask stays
    /// until all ranges with its keys are flushed that far (INVARIANT(mask-covers-replay)).
    pub masks: Vec<(KeyspaceSpan, Seqno)>,
    /// All keyspaces.
    pub keyspaces: Keyspaces,
    /// The lowest log segment that recovery needs.
    pub log_floor: FileNumber,
    /// Above every file number in use.
    pub next_file_number: FileNumber,
    /// The largest sequence number known to be stamped.
    pub last_seqno: Seqno,
    /// Is the last edit that of a clean close?
    pub clean_close: bool,
    /// The newest log segment known to be in use. Below the log floor: no segment is needed.
    pub newest_segment: FileNumber,
    /// The log is durable at least up to this number. `None` if no edit has said so: those of
    /// earlier builds did not.
    pub log_synced: Option<Seqno>,
    /// The first number in the segment at the floor, if its beginning may be missing after a power
    /// cut: unless the log is durable up to this number.
    pub log_unbegun: Option<Seqno>,
}

impl Image {
    /// The image of a new database: ranges that meet at `split_keys` (without keys: one range for
    /// everything), each with at most `shards` shards. If the keys do not ascend, `to_version`
    /// refuses the image.
    pub fn of_new_database(
        next_file_number: FileNumber,
        split_keys: &[Bytes],
        shards: usize,
    ) -> Self {
        let starts = std::iter::once(Bytes::new()).chain(split_keys.iter().cloned());
        let ends = split_keys.iter().cloned().map(Some).chain([None]);
        let ids = (RangeId::FIRST.0..).map(RangeId);
        let ranges = starts.zip(ends).map(|(lo, hi)| {
            let span = Span { lo, hi };
            let shards = Shards::of(&span, shards);
            RangeImage { keyspace: KeyspaceId::DEFAULT, span, shards, flushed: Seqno::ZERO }
        });
        Self { ranges: ids.zip(ranges).collect(), next_file_number, ..Self::default() }
    }

    /// Applies an edit, or refuses it and stays as it was. A prepared change takes effect here,
    /// when it is settled, and nowhere else (INVARIANT(prepared-needs-its-record)). The cost is
    /// that of the edit, not of the image, with two exceptions: a change of routes checks all
    /// routes, and settling a change copies the image.
    ///
    /// # Errors
    /// The rule that the edit breaks.
    pub fn apply(&mut self, edit: &VersionEdit) -> Result<(), Conflict> {
        if !edit.settled.is_empty() {
            *self = self.clone().into_applied(edit)?;
            return Ok(());
        }
        self.admits_plain(edit)?;
        for range in &edit.ranges_removed {
            self.ranges.remove(range);
        }
        for NewRange { id, keyspace, span, shards } in &edit.ranges_added {
            let (keyspace, span, shards) = (*keyspace, span.clone(), shards.clone());
            self.ranges.insert(*id, RangeImage { keyspace, span, shards, flushed: Seqno::ZERO });
        }
        if edit.changes_keyspaces() {
            self.keyspaces = self.keyspaces.after(edit)?;
        }
        for key in &edit.deleted {
            self.slices.remove(key);
        }
        for (range, place, slice) in &edit.added {
            self.slices.insert((*range, *place, slice.name()), slice.clone());
        }
        for (range, shards) in &edit.shards_moved {
            self.ranges.get_mut(range).expect("admitted").shards = shards.clone();
        }
        for (range, seqno) in &edit.flushed {
            self.ranges.get_mut(range).expect("admitted").flushed = *seqno;
        }
        for id in &edit.abandoned {
            self.prepared.remove(id);
        }
        self.masks.extend(edit.masked.iter().cloned());
        if !self.masks.is_empty() {
            let ranges = &self.ranges;
            self.masks.retain(|(span, seqno)| {
                let needs = |range: &RangeImage| range.flushed < *seqno && range.overlaps(span);
                ranges.values().any(needs)
            });
        }
        self.prepared.extend(edit.prepared.iter().cloned());
        if let Some(floor) = edit.log_floor {
            (self.log_floor, self.log_unbegun) = (floor, edit.log_unbegun);
        }
        self.next_file_number = edit.next_file_number.unwrap_or(self.next_file_number);
        self.last_seqno = edit.last_seqno.unwrap_or(self.last_seqno);
        self.clean_close = edit.clean_close;
        self.newest_segment = edit.newest_segment.unwrap_or(self.newest_segment);
        self.log_synced = self.log_synced.max(edit.log_synced);
        Ok(())
    }

    /// As `apply`, for somebody who has no use for the image if it refuses the edit. So nothing is
    /// copied.
    ///
    /// # Errors
    /// The rule that the edit breaks.
    pub fn into_applied(mut self, edit: &VersionEdit) -> Result<Self, Conflict> {
        for (id, seqno) in &edit.settled {
            let Some(change) = self.prepared.remove(id) else {
                let what = format!("change {id} was not prepared");
                return Err(Conflict::new("prepared-needs-its-record", what));
            };
            self.apply(&change.stamped(*seqno))?;
        }
        if edit.settled.is_empty() {
            self.apply(edit)?;
        } else {
            self.apply(&VersionEdit { settled: Vec::new(), ..edit.clone() })?;
        }
        Ok(self)
    }

    /// Would `apply` accept this edit? Returns the resulting image if the check had to compute it,
    /// which it must for an edit that settles changes.
    ///
    /// # Errors
    /// The rule that the edit breaks.
    pub fn admits(&self, edit: &VersionEdit) -> Result<Option<Self>, Conflict> {
        if edit.settled.is_empty() {
            return self.admits_plain(edit).map(|()| None);
        }
        self.clone().into_applied(edit).map(Some)
    }

    /// `admits` for an edit that settles no change.
    fn admits_plain(&self, edit: &VersionEdit) -> Result<(), Conflict> {
        let mut gone = BTreeSet::new();
        for key in &edit.deleted {
            if !self.slices.contains_key(key) || !gone.insert(key) {
                let (range, place, name) = key;
                let what = format!("{name} is not in range {range}, {place}");
                return Err(Conflict::new("delete-what-is-there", what));
            }
        }
        self.admit_ranges(edit, &gone)?;
        let ranges_added: HashSet<_> = edit.ranges_added.iter().map(|range| range.id).collect();
        let ranges_removed: HashSet<_> = edit.ranges_removed.iter().copied().collect();
        let routed = |range: &RangeId| {
            ranges_added.contains(range)
                || (self.ranges.contains_key(range) && !ranges_removed.contains(range))
        };
        let mut new = BTreeSet::new();
        for (range, place, slice) in &edit.added {
            let name = slice.name();
            if !routed(range) {
                let what = format!("{name} is added to no range {range}");
                return Err(Conflict::new("slices-inside-their-range", what));
            }
            let key = (*range, *place, name);
            let there = self.slices.contains_key(&key) && !gone.contains(&key);
            if there || !new.insert(key.clone()) {
                let what = format!("{} again in range {range}, {place}", key.2);
                return Err(Conflict::new("slices-share-files", what));
            }
        }
        for (range, seqno) in &edit.flushed {
            let before = self.ranges.get(range).map_or(Seqno::ZERO, |range| range.flushed);
            if !routed(range) || *seqno < before {
                let what = format!("range {range} was flushed to {before}, not back to {seqno}");
                return Err(Conflict::new("flushed-never-falls", what));
            }
        }
        for (range, shards) in &edit.shards_moved {
            let fits = |range: &RangeImage| shards.fit(&range.span);
            if ranges_removed.contains(range) || !self.ranges.get(range).is_some_and(fits) {
                let what = format!("new shard bounds of range {range} do not lie in it");
                return Err(Conflict::new("landing-in-its-shard", what));
            }
        }
        let there = |id| self.prepared.contains_key(id);
        let twice = edit.prepared.iter().any(|(id, _)| there(id) && !edit.abandoned.contains(id));
        if twice || !edit.abandoned.iter().all(there) {
            let what = "a change is prepared twice, or abandoned and was not prepared";
            return Err(Conflict::new("prepared-needs-its-record", what));
        }
        let falls = edit.log_floor.is_some_and(|number| number < self.log_floor)
            || edit.next_file_number.is_some_and(|number| number < self.next_file_number)
            || edit.last_seqno.is_some_and(|seqno| seqno < self.last_seqno)
            || edit.newest_segment.is_some_and(|number| number < self.newest_segment);
        if falls {
            let what = "log floor, newest segment, next file number or last seqno would fall";
            return Err(Conflict::new("counters-never-fall", what));
        }
        Ok(())
    }

    fn admit_ranges(&self, edit: &VersionEdit, gone: &BTreeSet<&SliceKey>) -> Result<(), Conflict> {
        if !edit.changes_routes() {
            return Ok(());
        }
        let keyspaces = self.keyspaces.after(edit)?;
        let fail = |what: String| Err(Conflict::new("ranges-cover-everything", what));
        let mut spans: BTreeMap<RangeId, (KeyspaceId, &Span)> =
            self.ranges.iter().map(|(id, range)| (*id, (range.keyspace, &range.span))).collect();
        for range in &edit.ranges_removed {
            if spans.remove(range).is_none() {
                return fail(format!("range {range} is not there to be removed"));
            }
        }
        let removed: BTreeSet<_> = edit.ranges_removed.iter().collect();
        let left = |key: &&SliceKey| removed.contains(&key.0) && !gone.contains(key);
        if let Some((range, _, _)) = self.slices.keys().find(left) {
            return fail(format!("range {range} still has tables"));
        }
        for NewRange { id, keyspace, span, .. } in &edit.ranges_added {
            if self.ranges.contains_key(id) || spans.insert(*id, (*keyspace, span)).is_some() {
                return fail(format!("range {id} is there already"));
            }
        }
        let mut sorted: Vec<_> = spans.into_values().collect();
        sorted.sort_by(|(a, x), (b, y)| (a, &x.lo).cmp(&(b, &y.lo)));
        ranges_cover_keyspaces(&sorted, &keyspaces)
    }

    /// The edit that makes this image from an empty one: the first record of a manifest.
    pub fn to_edit(&self) -> VersionEdit {
        let ranges = || self.ranges.iter();
        VersionEdit {
            ranges_added: ranges().map(|(id, range)| range.as_new(*id)).collect(),
            added: self.slices.iter().map(|((r, p, _), slice)| (*r, *p, slice.clone())).collect(),
            flushed: ranges().map(|(id, range)| (*id, range.flushed)).collect(),
            prepared: self.prepared.iter().map(|(id, edit)| (*id, edit.clone())).collect(),
            masked: self.masks.clone(),
            keyspaces_set: self.keyspaces.named().map(|(id, of)| (id, of.clone())).collect(),
            log_floor: Some(self.log_floor),
            next_file_number: Some(self.next_file_number),
            last_seqno: Some(self.last_seqno),
            clean_close: self.clean_close,
            newest_segment: Some(self.newest_segment),
            log_synced: self.log_synced,
            log_unbegun: self.log_unbegun,
            ..VersionEdit::default()
        }
    }

    /// The slices that prepared changes bring if they happen, each with its change.
    pub(crate) fn prepared_slices(&self) -> impl Iterator<Item = (ChangeId, &SliceMeta)> + Clone {
        self.prepared
            .iter()
            .flat_map(|(id, edit)| edit.added.iter().map(|(_, _, slice)| (*id, slice)))
    }

    /// Where its numbers contradict each other (INVARIANT(counters-agree)). A range is flushed at
    /// most up to a stamped sequence number, its tables have nothing newer, and every file number
    /// in use is below the next one.
    pub fn contradictions(&self) -> Vec<Conflict> {
        let mut found = Vec::new();
        let mut tell = |what: String| found.push(Conflict::new("counters-agree", what));
        let (last, next) = (self.last_seqno, self.next_file_number);
        for (id, RangeImage { flushed, .. }) in &self.ranges {
            if *flushed > last {
                tell(format!("range {id} was flushed to {flushed}, the last seqno is {last}"));
            }
        }
        for (_, seqno) in &self.masks {
            // Such a mask would hide entries that are written from now on.
            if *seqno > last {
                tell(format!("what is older than {seqno} is cut out, the last seqno is {last}"));
            }
        }
        for ((range, place, name), slice) in &self.slices {
            let flushed = self.ranges.get(range).map_or(Seqno::ZERO, |range| range.flushed);
            let (newest, number) = (slice.max_seqno(), name.table);
            // Tables that a change brought in, and tables merged from them, may be newer than
            // entries that are still in memory.
            let was_flushed = *place == Place::L0 && slice.seqno.is_none();
            let most = if was_flushed { flushed } else { last };
            if newest > most {
                tell(format!("table {number} has {newest}, its range was flushed to {flushed}"));
            }
        }
        let prepared = self.prepared_slices().map(|(_, slice)| slice);
        let slices = self.slices.values().chain(prepared);
        let tables = slices.clone().map(SliceMeta::number);
        for number in tables.chain([self.log_floor, self.newest_segment]) {
            if number >= next && number > FileNumber(0) {
                tell(format!("file {number} is in use, but {next} is the next number"));
            }
        }
        let landed = slices.clone().filter_map(|slice| slice.landed);
        if let Some(last) = landed.max().filter(|last| last.epoch > COUNTERS_AT_OPEN_MAX) {
            let what = "a table landed with epoch";
            tell(format!("{what} {}, larger than can have been given out", last.epoch));
        }
        let sizes =
            slices.flat_map(|slice| [slice.file_bytes(), slice.table.raw_bytes, slice.entries()]);
        if sizes.map(u128::from).sum::<u128>() > u128::from(u64::MAX) {
            tell("the tables' sizes are more than 64 bits can add up".to_owned());
        }
        let added = self.prepared.values().flat_map(|edit| &edit.ranges_added);
        let last_id = self.ranges.keys().copied().chain(added.map(|range| range.id)).max();
        if let Some(id) = last_id.filter(|id| id.0 > RANGE_ID_AT_OPEN_MAX) {
            tell(format!("range {id} has a larger id than can have been given out"));
        }
        found
    }

    /// The version of this image. `open` provides the handle of each table. The result has passed
    /// `check`.
    ///
    /// # Errors
    /// The first rule that the image breaks; else what `open` returns.
    pub fn to_version<E: From<Conflict>>(
        &self,
        obsolete_files: Arc<ObsoleteFiles>,
        open: impl FnMut(&Arc<TableMeta>) -> Result<Arc<TableHandle>, E>,
    ) -> Result<Version, E> {
        let version = self.to_version_unchecked(obsolete_files, open)?;
        super::check::check(&version)?;
        Ok(version)
    }

    /// As `to_version`, but without `check`, for a caller that reports every broken rule.
    pub(crate) fn to_version_unchecked<E: From<Conflict>>(
        &self,
        obsolete_files: Arc<ObsoleteFiles>,
        mut open: impl FnMut(&Arc<TableMeta>) -> Result<Arc<TableHandle>, E>,
    ) -> Result<Version, E> {
        let mut edit = self.to_edit();
        edit.ranges_added.sort_by(|a, b| (a.keyspace, &a.span.lo).cmp(&(b.keyspace, &b.span.lo)));
        let ranges = std::mem::take(&mut edit.ranges_added);
        edit.keyspaces_set.clear();
        let ranges =
            ranges.into_iter().map(|range| Arc::new(range.into_empty(&self.keyspaces))).collect();
        // Slices of one file share its handle.
        let mut opened: BTreeMap<FileNumber, Arc<TableHandle>> = BTreeMap::new();
        let mut handles = Vec::with_capacity(edit.added.len());
        for (_, _, slice) in &edit.added {
            let handle = match opened.get(&slice.number()) {
                Some(handle) => Arc::clone(handle),
                None => open(&slice.table)?,
            };
            if slice.part.is_some() {
                opened.insert(slice.number(), Arc::clone(&handle));
            }
            handles.push(handle);
        }
        let version = Version::new(ranges, obsolete_files);
        let version = version.with_keyspaces(Arc::new(self.keyspaces.clone()));
        Ok(version.apply_handles(&edit, &handles)?)
    }
}

#[cfg(test)]
mod tests;
