//! Version x edit -> next version, or the rule that the edit would break.

use super::check::{self, Conflict, l0_rank};
use super::{L0, Level, RangeVersion, TableHandle, Version, VersionEdit};
use crate::filename::FileNumber;
use crate::limits::LEVELS_MAX;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

impl Version {
    /// The version after `edit`. Added tables come from `added`, or from this version when the edit
    /// only moves them. Checks the touched ranges; untouched ones are shared with this version.
    ///
    /// A conflict means that the edit was made against an older version: the job must be planned
    /// again. This version is not changed.
    pub fn apply(&self, edit: &VersionEdit, added: &[Arc<TableHandle>]) -> Result<Self, Conflict> {
        let moved: HashMap<FileNumber, Arc<TableHandle>> = edit
            .deleted
            .iter()
            .filter_map(|&(range, level, number)| {
                Some((number, Arc::clone(self.find_table(range, level, number)?)))
            })
            .collect();
        let mut handles = Vec::with_capacity(edit.added.len());
        for (_, _, meta) in &edit.added {
            let given = || added.iter().find(|handle| handle.number() == meta.number);
            let Some(handle) = moved.get(&meta.number).or_else(given) else {
                let what = format!("table {} is added but nobody has it", meta.number);
                return Err(Conflict::new("write-before-add", what));
            };
            if handle.meta() != meta {
                let what = format!("table {} differs from what the edit says", meta.number);
                return Err(Conflict::new("write-before-add", what));
            }
            handles.push(Arc::clone(handle));
        }
        self.apply_handles(edit, &handles)
    }

    /// `apply` with a handle for each added table, in the edit's order.
    pub(crate) fn apply_handles(
        &self,
        edit: &VersionEdit,
        handles: &[Arc<TableHandle>],
    ) -> Result<Self, Conflict> {
        let mut ranges = self.ranges().to_vec();
        self.apply_routes(edit, &mut ranges)?;
        let touched: HashSet<_> = (edit.deleted.iter().map(|(range, _, _)| *range))
            .chain(edit.added.iter().map(|(range, _, _)| *range))
            .chain(edit.flushed.iter().map(|(range, _)| *range))
            .chain(edit.ranges_added.iter().map(|(range, _)| *range))
            .collect();
        let mut applied = 0;
        for slot in &mut ranges {
            if touched.contains(&slot.id) {
                applied += 1;
                *slot = Arc::new(apply_range(slot, edit, handles)?);
            }
        }
        let removed = touched.iter().filter(|id| edit.ranges_removed.contains(id)).count();
        if applied + removed != touched.len() {
            return Err(Conflict::new(
                "ranges-cover-everything",
                "the edit names an unknown range",
            ));
        }
        Ok(Version::new(ranges, Arc::clone(self.graveyard())))
    }

    fn apply_routes(
        &self,
        edit: &VersionEdit,
        ranges: &mut Vec<Arc<RangeVersion>>,
    ) -> Result<(), Conflict> {
        if edit.ranges_removed.is_empty() && edit.ranges_added.is_empty() {
            return Ok(());
        }
        for id in &edit.ranges_removed {
            let fail = |what| Err(Conflict::new("ranges-cover-everything", what));
            let Some(range) = self.range(*id) else {
                return fail(format!("range {id} is not there to be removed"));
            };
            let deleted = |level, number| edit.deleted.contains(&(*id, level, number));
            if !range.tables().all(|(level, table)| deleted(level, table.number())) {
                return fail(format!("range {id} still has tables"));
            }
        }
        ranges.retain(|range| !edit.ranges_removed.contains(&range.id));
        for (id, span) in &edit.ranges_added {
            ranges.push(Arc::new(RangeVersion::empty(*id, span.clone())));
        }
        ranges.sort_by(|a, b| a.span.lo.cmp(&b.span.lo));
        check::ranges_cover_everything(&Version::new(ranges.clone(), Arc::clone(self.graveyard())))
    }
}

fn apply_range(
    range: &RangeVersion,
    edit: &VersionEdit,
    handles: &[Arc<TableHandle>],
) -> Result<RangeVersion, Conflict> {
    let mut next = range.clone();
    for level in 0..=LEVELS_MAX as u8 {
        let gone: HashSet<FileNumber> = (edit.deleted.iter())
            .filter(|(r, l, _)| *r == range.id && *l == level)
            .map(|(_, _, number)| *number)
            .collect();
        let added: Vec<_> = (edit.added.iter().zip(handles))
            .filter(|((r, l, _), _)| *r == range.id && *l == level)
            .map(|(_, handle)| Arc::clone(handle))
            .collect();
        if gone.is_empty() && added.is_empty() {
            continue;
        }
        let there: &[_] = match level {
            0 => &range.l0,
            _ => range.level(level).map_or(&[], |level| &level.tables()[..]),
        };
        for number in &gone {
            if !there.iter().any(|table| table.number() == *number) {
                let what = format!("table {number} is not in range {} level {level}", range.id);
                return Err(Conflict::new("delete-what-is-there", what));
            }
        }
        if level == 0 {
            let kept = next.l0.iter().filter(|table| !gone.contains(&table.number()));
            let mut tables: Vec<_> = kept.cloned().chain(added).collect();
            tables.sort_by_key(|table| std::cmp::Reverse(l0_rank(table)));
            next.l0 = L0::new(tables);
        } else {
            let index = usize::from(level) - 1;
            if next.levels.len() <= index {
                next.levels.resize_with(index + 1, Level::default);
            }
            next.levels[index] =
                next.levels[index].edited(|table| gone.contains(&table.number()), added);
        }
    }
    while next.levels.last().is_some_and(Level::is_empty) {
        next.levels.pop();
    }
    for (_, seqno) in edit.flushed.iter().filter(|(r, _)| *r == range.id) {
        if *seqno < next.flushed_seqno {
            let before = next.flushed_seqno;
            let what = format!("range {} was flushed to {before}, not to {seqno}", range.id);
            return Err(Conflict::new("flushed-never-falls", what));
        }
        next.flushed_seqno = *seqno;
    }
    let mut numbers = HashSet::new();
    if let Some((level, twice)) = next.tables().find(|(_, t)| !numbers.insert(t.number())) {
        let what = format!("table {} again in range {} level {level}", twice.number(), range.id);
        return Err(Conflict::new("no-table-twice", what));
    }
    check::check_range(&next)?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{empty_version, handle, meta, version_of};
    use super::super::{Graveyard, Image, RangeId};
    use super::*;
    use crate::key::{Seqno, Span};
    use bytes::Bytes;

    const R: RangeId = RangeId::FIRST;

    fn apply(version: &Version, edit: &VersionEdit) -> Result<Version, Conflict> {
        let graveyard = version.graveyard();
        let moved = |number| version.tables().find(|(_, _, t)| t.number() == number);
        let handles = edit.added.iter().map(|(_, _, meta)| match moved(meta.number) {
            Some((_, _, table)) => Arc::clone(table),
            None => TableHandle::unopened(meta.clone(), Arc::clone(graveyard)),
        });
        version.apply_handles(edit, &handles.collect::<Vec<_>>())
    }

    fn edit(added: Vec<(u8, u64, &[u8], &[u8])>, deleted: Vec<(u8, u64)>) -> VersionEdit {
        VersionEdit {
            added: added
                .into_iter()
                .map(|(level, number, min, max)| (R, level, meta(number, min, max, 100)))
                .collect(),
            deleted: deleted.into_iter().map(|(l, n)| (R, l, FileNumber(n))).collect(),
            ..VersionEdit::default()
        }
    }

    fn numbers(version: &Version) -> Vec<(u8, u64)> {
        version.tables().map(|(_, level, table)| (level, table.number().0)).collect()
    }

    #[test]
    fn edits_build_the_tree_and_the_image_alike() {
        let mut version = empty_version(Graveyard::new());
        let mut image = Image::of_new_database(FileNumber(1), &[]);
        let steps = [
            edit(vec![(0, 2, b"a", b"m")], vec![]),
            edit(vec![(0, 3, b"c", b"z")], vec![]),
            edit(vec![(1, 4, b"a", b"f"), (1, 5, b"g", b"z")], vec![(0, 2), (0, 3)]),
            edit(vec![(2, 4, b"a", b"f")], vec![(1, 4)]),
            edit(vec![], vec![(1, 5)]),
        ];
        let shapes: [&[(u8, u64)]; 5] =
            [&[(0, 2)], &[(0, 3), (0, 2)], &[(1, 4), (1, 5)], &[(1, 5), (2, 4)], &[(2, 4)]];
        for (step, shape) in steps.iter().zip(shapes) {
            version = apply(&version, step).unwrap();
            check::check(&version).unwrap();
            assert_eq!(numbers(&version), shape);
            image.apply(step).unwrap();
            let unopened = |meta: &_| {
                Ok::<_, Conflict>(TableHandle::unopened(Clone::clone(meta), Graveyard::new()))
            };
            let rebuilt = image.to_version(Graveyard::new(), unopened).unwrap();
            assert_eq!(numbers(&rebuilt), shape);
            let mut again = Image::default();
            again.apply(&image.to_edit()).unwrap();
            assert_eq!(again, image);
        }
    }

    #[test]
    fn stale_edits_conflict_and_change_nothing() {
        let version = version_of(
            vec![handle(9, b"a", b"z", 1)],
            vec![vec![handle(3, b"a", b"c", 1), handle(4, b"e", b"f", 1)]],
        );
        let cases: [(VersionEdit, &str); 6] = [
            (edit(vec![], vec![(1, 7)]), "delete-what-is-there"),
            (edit(vec![], vec![(2, 3)]), "delete-what-is-there"),
            (edit(vec![(1, 5, b"c", b"d")], vec![]), "one-run-per-level"),
            (edit(vec![(2, 3, b"a", b"c")], vec![]), "no-table-twice"),
            (edit(vec![(1, 5, b"d", b"b")], vec![]), "tables-are-sane"),
            (
                VersionEdit { flushed: vec![(RangeId(9), Seqno(1))], ..VersionEdit::default() },
                "ranges-cover-everything",
            ),
        ];
        for (edit, rule) in cases {
            assert_eq!(apply(&version, &edit).unwrap_err().rule, rule, "{edit:?}");
        }
        let unopened = edit(vec![(2, 30, b"a", b"c")], vec![]);
        assert_eq!(version.apply(&unopened, &[]).unwrap_err().rule, "write-before-add");
        let fall = |to| VersionEdit { flushed: vec![(R, Seqno(to))], ..VersionEdit::default() };
        let version = apply(&version, &fall(5)).unwrap();
        assert_eq!(apply(&version, &fall(4)).unwrap_err().rule, "flushed-never-falls");
    }

    #[test]
    fn a_range_splits_and_its_tables_move() {
        let version =
            version_of(vec![], vec![vec![handle(3, b"a", b"c", 1), handle(4, b"n", b"p", 1)]]);
        let span = |lo: &'static [u8], hi: Option<&'static [u8]>| Span {
            lo: Bytes::from_static(lo),
            hi: hi.map(Bytes::from_static),
        };
        let mut split = VersionEdit {
            ranges_removed: vec![R],
            ranges_added: vec![(RangeId(2), span(b"", Some(b"m"))), (RangeId(3), span(b"m", None))],
            deleted: vec![(R, 1, FileNumber(3)), (R, 1, FileNumber(4))],
            added: vec![
                (RangeId(2), 1, meta(3, b"a", b"c", 1)),
                (RangeId(3), 1, meta(4, b"n", b"p", 1)),
            ],
            ..VersionEdit::default()
        };
        let next = version.apply(&split, &[]).unwrap();
        check::check(&next).unwrap();
        assert_eq!(next.route(b"b").id, RangeId(2));
        assert_eq!(next.route(b"m").id, RangeId(3));
        assert!(version.dropped_by(&split).is_empty(), "moved tables are not obsolete");
        split.deleted.pop();
        split.added.pop();
        assert_eq!(version.apply(&split, &[]).unwrap_err().rule, "ranges-cover-everything");
    }

    #[test]
    fn an_obsolete_table_is_buried_when_the_last_handle_goes() {
        let graveyard = Graveyard::new();
        let rings = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let bell = Arc::clone(&rings);
        graveyard.on_burial(move || {
            bell.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        let old =
            apply(&empty_version(Arc::clone(&graveyard)), &edit(vec![(1, 3, b"a", b"c")], vec![]))
                .unwrap();
        let drop_it = edit(vec![], vec![(1, 3)]);
        let new = apply(&old, &drop_it).unwrap();
        for handle in old.dropped_by(&drop_it) {
            handle.mark_obsolete();
        }
        assert_eq!(graveyard.take(), vec![], "the old version still holds it");
        drop(old);
        assert_eq!(graveyard.take(), vec![FileNumber(3)]);
        assert_eq!(rings.load(std::sync::atomic::Ordering::Relaxed), 1);
        drop(new);
        assert_eq!(graveyard.take(), vec![]);
    }
}
