//! What the manifest says, as data: routes, tables and counters, without open files.
//!
//! The manifest's reader folds edits into an image, its writer keeps one to know what a snapshot
//! must contain, and a version is made from one by opening its tables.

use super::check::{Conflict, spans_cover_everything};
use super::{Graveyard, RangeId, RangeVersion, TableHandle, Version, VersionEdit};
use crate::filename::FileNumber;
use crate::key::{Seqno, Span};
use crate::table::TableMeta;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Everything a manifest records. Starts from nothing and grows by edits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Span and flushed sequence number of each range.
    pub ranges: BTreeMap<RangeId, (Span, Seqno)>,
    /// All tables by place.
    pub tables: BTreeMap<(RangeId, u8, FileNumber), TableMeta>,
    /// The lowest log segment that recovery needs.
    pub log_floor: FileNumber,
    /// A number above every file number in use.
    pub next_file_number: FileNumber,
    /// The highest sequence number known to be stamped.
    pub last_seqno: Seqno,
    /// Was the last edit a clean close?
    pub clean_close: bool,
    /// The newest log segment known to be in use; below the log floor: none that is needed.
    pub newest_segment: FileNumber,
}

impl Image {
    /// Of a new database: ranges that meet at `split_keys` (none: one range over everything),
    /// nothing else. Keys that do not ascend make an image that `to_version` refuses.
    pub fn of_new_database(next_file_number: FileNumber, split_keys: &[Bytes]) -> Self {
        let starts = std::iter::once(Bytes::new()).chain(split_keys.iter().cloned());
        let ends = split_keys.iter().cloned().map(Some).chain([None]);
        let ids = (RangeId::FIRST.0..).map(RangeId);
        let spans = starts.zip(ends).map(|(lo, hi)| (Span { lo, hi }, Seqno::ZERO));
        Self { ranges: ids.zip(spans).collect(), next_file_number, ..Self::default() }
    }

    /// Applies an edit, or refuses it and stays as it was. Costs the edit's size, not the image's,
    /// except that route changes check all routes.
    pub fn apply(&mut self, edit: &VersionEdit) -> Result<(), Conflict> {
        self.admits(edit)?;
        for range in &edit.ranges_removed {
            self.ranges.remove(range);
        }
        for (range, span) in &edit.ranges_added {
            self.ranges.insert(*range, (span.clone(), Seqno::ZERO));
        }
        for place in &edit.deleted {
            self.tables.remove(place);
        }
        for (range, level, meta) in &edit.added {
            self.tables.insert((*range, *level, meta.number), meta.clone());
        }
        for (range, seqno) in &edit.flushed {
            self.ranges.get_mut(range).expect("admitted").1 = *seqno;
        }
        self.log_floor = edit.log_floor.unwrap_or(self.log_floor);
        self.next_file_number = edit.next_file_number.unwrap_or(self.next_file_number);
        self.last_seqno = edit.last_seqno.unwrap_or(self.last_seqno);
        self.clean_close = edit.clean_close;
        self.newest_segment = edit.newest_segment.unwrap_or(self.newest_segment);
        Ok(())
    }

    /// Would `apply` take this edit?
    pub fn admits(&self, edit: &VersionEdit) -> Result<(), Conflict> {
        let mut gone = BTreeSet::new();
        for place in &edit.deleted {
            if !self.tables.contains_key(place) || !gone.insert(*place) {
                let (range, level, number) = place;
                let what = format!("table {number} is not in range {range} level {level}");
                return Err(Conflict::new("delete-what-is-there", what));
            }
        }
        self.admit_ranges(edit, &gone)?;
        let routed = |range: &RangeId| {
            edit.ranges_added.iter().any(|(added, _)| added == range)
                || (self.ranges.contains_key(range) && !edit.ranges_removed.contains(range))
        };
        let mut new = BTreeSet::new();
        for (range, level, meta) in &edit.added {
            let place = (*range, *level, meta.number);
            if !routed(range) {
                let what = format!("table {} is added to no range {range}", meta.number);
                return Err(Conflict::new("tables-inside-their-range", what));
            }
            let there = self.tables.contains_key(&place) && !gone.contains(&place);
            if there || !new.insert(meta.number) {
                let what = format!("table {} again in range {range} level {level}", meta.number);
                return Err(Conflict::new("no-table-twice", what));
            }
        }
        for (range, seqno) in &edit.flushed {
            let before = self.ranges.get(range).map_or(Seqno::ZERO, |(_, flushed)| *flushed);
            if !routed(range) || *seqno < before {
                let what = format!("range {range} was flushed to {before}, not back to {seqno}");
                return Err(Conflict::new("flushed-never-falls", what));
            }
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

    fn admit_ranges(
        &self,
        edit: &VersionEdit,
        gone: &BTreeSet<(RangeId, u8, FileNumber)>,
    ) -> Result<(), Conflict> {
        if edit.ranges_removed.is_empty() && edit.ranges_added.is_empty() {
            return Ok(());
        }
        let fail = |what: String| Err(Conflict::new("ranges-cover-everything", what));
        let mut spans: BTreeMap<RangeId, &Span> =
            self.ranges.iter().map(|(id, (span, _))| (*id, span)).collect();
        for range in &edit.ranges_removed {
            if spans.remove(range).is_none() {
                return fail(format!("range {range} is not there to be removed"));
            }
            let first = (*range, 0, FileNumber(0));
            let mut left = self.tables.range(first..).take_while(|((r, _, _), _)| r == range);
            if left.any(|(place, _)| !gone.contains(place)) {
                return fail(format!("range {range} still has tables"));
            }
        }
        for (range, span) in &edit.ranges_added {
            if self.ranges.contains_key(range) || spans.insert(*range, span).is_some() {
                return fail(format!("range {range} is there already"));
            }
        }
        let mut sorted: Vec<_> = spans.into_values().collect();
        sorted.sort_by(|a, b| a.lo.cmp(&b.lo));
        spans_cover_everything(&sorted)
    }

    /// The edit that makes this image from nothing: a manifest's first record.
    pub fn to_edit(&self) -> VersionEdit {
        let ranges = || self.ranges.iter();
        VersionEdit {
            ranges_added: ranges().map(|(id, (span, _))| (*id, span.clone())).collect(),
            added: self.tables.iter().map(|(&(r, l, _), meta)| (r, l, meta.clone())).collect(),
            flushed: ranges().map(|(id, (_, flushed))| (*id, *flushed)).collect(),
            log_floor: Some(self.log_floor),
            next_file_number: Some(self.next_file_number),
            last_seqno: Some(self.last_seqno),
            clean_close: self.clean_close,
            newest_segment: Some(self.newest_segment),
            ..VersionEdit::default()
        }
    }

    /// What its numbers say against each other (INVARIANT(counters-agree)): a range was flushed up to
    /// a sequence number that was given out, its tables have nothing newer, no number in use is free.
    pub fn contradictions(&self) -> Vec<Conflict> {
        let mut found = Vec::new();
        let mut tell = |what: String| found.push(Conflict::new("counters-agree", what));
        let (last, next) = (self.last_seqno, self.next_file_number);
        for (range, (_, flushed)) in &self.ranges {
            if *flushed > last {
                tell(format!("range {range} was flushed to {flushed}, the last seqno is {last}"));
            }
        }
        for ((range, _, number), meta) in &self.tables {
            let flushed = self.ranges.get(range).map_or(Seqno::ZERO, |(_, flushed)| *flushed);
            if meta.max_seqno > flushed {
                let newest = meta.max_seqno;
                tell(format!("table {number} has {newest}, its range was flushed to {flushed}"));
            }
        }
        let tables = self.tables.keys().map(|(_, _, number)| *number);
        for number in tables.chain([self.log_floor, self.newest_segment]) {
            if number >= next && number > FileNumber(0) {
                tell(format!("file {number} is in use, but {next} is the next number"));
            }
        }
        let sizes = self.tables.values().flat_map(|t| [t.file_bytes, t.raw_bytes, t.entries]);
        if sizes.map(u128::from).sum::<u128>() > u128::from(u64::MAX) {
            tell("the tables' sizes are more than 64 bits can add up".to_owned());
        }
        found
    }

    /// The version that this image describes; `open` provides each table's handle. The result has
    /// passed `check`.
    pub fn to_version<E: From<Conflict>>(
        &self,
        graveyard: Arc<Graveyard>,
        open: impl FnMut(&TableMeta) -> Result<Arc<TableHandle>, E>,
    ) -> Result<Version, E> {
        let version = self.to_version_unchecked(graveyard, open)?;
        super::check::check(&version)?;
        Ok(version)
    }

    /// As `to_version`, for who wants to name every broken rule.
    pub(crate) fn to_version_unchecked<E: From<Conflict>>(
        &self,
        graveyard: Arc<Graveyard>,
        mut open: impl FnMut(&TableMeta) -> Result<Arc<TableHandle>, E>,
    ) -> Result<Version, E> {
        let mut edit = self.to_edit();
        edit.ranges_added.sort_by(|a, b| a.1.lo.cmp(&b.1.lo));
        let empty = |(id, span): &(RangeId, Span)| RangeVersion::empty(*id, span.clone());
        let ranges = edit.ranges_added.iter().map(empty).map(Arc::new).collect();
        edit.ranges_added.clear();
        let mut handles = Vec::with_capacity(edit.added.len());
        for (_, _, meta) in &edit.added {
            handles.push(open(meta)?);
        }
        Ok(Version::new(ranges, graveyard).apply_handles(&edit, &handles)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(split_keys: &[Bytes]) -> Version {
        let image = Image::of_new_database(FileNumber(1), split_keys);
        let none = |_: &TableMeta| -> Result<_, Conflict> { unreachable!("there are no tables") };
        image.to_version(Graveyard::new(), none).unwrap()
    }

    /// One range per key, whose span contains it; next to a boundary, the one that begins there.
    #[test]
    fn t002_12_routes_have_no_gap_and_no_overlap_and_are_found_at_each_boundary() {
        for count in [0_u16, 1, 2, 3, 7, 255] {
            let split_keys: Vec<Bytes> =
                (1..=count).map(|n| Bytes::copy_from_slice(&(n * 200).to_be_bytes())).collect();
            let version = routes(&split_keys);
            super::super::check::ranges_cover_everything(&version).unwrap();
            let ranges = version.ranges();
            assert_eq!(ranges.len(), usize::from(count) + 1);
            assert!(ranges[0].span.lo.is_empty(), "the first range begins before every key");
            assert_eq!(ranges[ranges.len() - 1].span.hi, None, "the last one takes all above");
            for pair in ranges.windows(2) {
                assert_eq!(pair[0].span.hi.as_ref(), Some(&pair[1].span.lo));
                assert!(pair[0].id < pair[1].id);
            }
            let mut probes = vec![Bytes::from_static(b"\0"), Bytes::from_static(&[0xFF; 9])];
            for key in &split_keys {
                let (mut below, mut above) = (key.to_vec(), key.to_vec());
                let number = u16::from_be_bytes([key[0], key[1]]) - 1;
                below[..2].copy_from_slice(&number.to_be_bytes());
                below.push(0xFF);
                above.push(0);
                probes.extend([Bytes::from(below), key.clone(), Bytes::from(above)]);
            }
            for key in probes {
                let inside: Vec<_> =
                    (0..ranges.len()).filter(|at| ranges[*at].span.contains(&key)).collect();
                assert_eq!(inside, [version.route_index(&key)], "{key:?} of {count}");
            }
        }
    }

    #[test]
    fn a_manifest_of_many_ranges_is_read_back() {
        let split_keys: Vec<Bytes> = (1..=255_u8).map(|n| Bytes::from(vec![n; 1000])).collect();
        let image = Image::of_new_database(FileNumber(2), &split_keys);
        let mut copy = Image::default();
        copy.apply(&image.to_edit()).unwrap();
        assert_eq!(copy, image);
    }
}
