//! Applies an edit to a version: the result is the next version, or the rule that the edit breaks.

use super::check::{self, Conflict};
use super::{
    Keyspaces, Place, RangeId, RangeVersion, Shards, Slice, SliceName, TableHandle, Version,
    VersionEdit,
};
use crate::key::Seqno;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

impl Version {
    /// The version after `edit`. The tables of added slices come from `added`; if the edit only
    /// moves or cuts slices, they come from this version. Only the touched ranges are checked; the
    /// others are shared with this version. Changes that the edit prepares or settles are ignored:
    /// a change is applied on its own, when the log has stamped it.
    ///
    /// # Errors
    /// The rule that the edit breaks. It means that the edit was made for an older version, and
    /// that the job must be planned again.
    pub fn apply(&self, edit: &VersionEdit, added: &[Arc<TableHandle>]) -> Result<Self, Conflict> {
        let moved = self.deleted_slices(edit).map(|(name, slice)| (name.table, slice.handle()));
        let given = added.iter().map(|handle| (handle.number(), handle));
        let known: HashMap<_, _> = given.chain(moved).collect();
        let mut handles = Vec::with_capacity(edit.added.len());
        for (_, _, slice) in &edit.added {
            let number = slice.number();
            let Some(&handle) = known.get(&number) else {
                let what = format!("table {number} is added but nobody has it");
                return Err(Conflict::new("write-before-add", what));
            };
            if *handle.meta() != slice.table {
                let what = format!("table {number} differs from what the edit says");
                return Err(Conflict::new("write-before-add", what));
            }
            handles.push(Arc::clone(handle));
        }
        self.apply_handles(edit, &handles)
    }

    /// `apply` with a handle for each added slice, in the edit's order.
    pub(crate) fn apply_handles(
        &self,
        edit: &VersionEdit,
        handles: &[Arc<TableHandle>],
    ) -> Result<Self, Conflict> {
        let keyspaces = if edit.changes_keyspaces() {
            Arc::new(self.keyspaces().after(edit)?)
        } else {
            Arc::clone(self.keyspaces())
        };
        let mut ranges = self.ranges().to_vec();
        self.apply_routes(edit, &keyspaces, &mut ranges)?;
        let touched: HashSet<_> = (edit.deleted.iter().map(|(range, _, _)| *range))
            .chain(edit.added.iter().map(|(range, _, _)| *range))
            .chain(edit.flushed.iter().map(|(range, _)| *range))
            .chain(edit.shards_moved.iter().map(|(range, _)| *range))
            .chain(edit.ranges_added.iter().map(|range| range.id))
            .collect();
        let mut parts = parts_by_range(edit, handles);
        let mut applied = 0;
        for slot in &mut ranges {
            if touched.contains(&slot.id) {
                applied += 1;
                let part = parts.remove(&slot.id).unwrap_or_default();
                *slot = Arc::new(apply_range(slot, part)?);
            }
        }
        let removed: HashSet<_> = edit.ranges_removed.iter().collect();
        let removed = touched.iter().filter(|id| removed.contains(id)).count();
        if applied + removed != touched.len() {
            return Err(Conflict::new(
                "ranges-cover-everything",
                "the edit names an unknown range",
            ));
        }
        let version =
            Version::new(ranges, Arc::clone(self.obsolete_files())).with_keyspaces(keyspaces);
        if edit.changes_routes() {
            check::ranges_cover_everything(&version)?;
        }
        Ok(version)
    }

    fn apply_routes(
        &self,
        edit: &VersionEdit,
        keyspaces: &Keyspaces,
        ranges: &mut Vec<Arc<RangeVersion>>,
    ) -> Result<(), Conflict> {
        if !edit.changes_routes() {
            return Ok(());
        }
        let fail = |what| Err(Conflict::new("ranges-cover-everything", what));
        let there: HashMap<_, _> = self.ranges().iter().map(|range| (range.id, range)).collect();
        let deleted: HashSet<_> = edit.deleted.iter().cloned().collect();
        let removed: HashSet<_> = edit.ranges_removed.iter().copied().collect();
        for id in &removed {
            let Some(range) = there.get(id) else {
                return fail(format!("range {id} is not there to be removed"));
            };
            let mut slices = range.layers.slices();
            if !slices.all(|(place, slice)| deleted.contains(&(*id, place, slice.name()))) {
                return fail(format!("range {id} still has tables"));
            }
        }
        ranges.retain(|range| !removed.contains(&range.id));
        for range in edit.ranges_added.iter().cloned() {
            ranges.push(Arc::new(range.into_empty(keyspaces)));
        }
        for range in ranges.iter_mut() {
            let own = keyspaces.options(range.keyspace);
            if range.own != *own {
                let own = Arc::clone(own);
                *range = Arc::new(RangeVersion { own, ..(**range).clone() });
            }
        }
        ranges.sort_by(|a, b| (a.keyspace, &a.span.lo).cmp(&(b.keyspace, &b.span.lo)));
        Ok(())
    }
}

/// What an edit removes from a place and adds to it.
#[derive(Default)]
struct Moves<'a> {
    gone: HashSet<&'a SliceName>,
    added: Vec<Slice>,
}

/// What an edit says of one range.
#[derive(Default)]
struct Part<'a> {
    moves: BTreeMap<Place, Moves<'a>>,
    flushed: Vec<Seqno>,
    shards: Option<&'a Shards>,
}

fn parts_by_range<'a>(
    edit: &'a VersionEdit,
    handles: &[Arc<TableHandle>],
) -> HashMap<RangeId, Part<'a>> {
    let mut parts: HashMap<_, Part<'_>> = HashMap::new();
    for (range, place, name) in &edit.deleted {
        let part = parts.entry(*range).or_default();
        part.moves.entry(*place).or_default().gone.insert(name);
    }
    for ((range, place, meta), handle) in edit.added.iter().zip(handles) {
        let slice = Slice::new(meta.clone(), Arc::clone(handle));
        let part = parts.entry(*range).or_default();
        part.moves.entry(*place).or_default().added.push(slice);
    }
    for (range, seqno) in &edit.flushed {
        parts.entry(*range).or_default().flushed.push(*seqno);
    }
    for (range, shards) in &edit.shards_moved {
        parts.entry(*range).or_default().shards = Some(shards);
    }
    parts
}

fn apply_range(range: &RangeVersion, part: Part<'_>) -> Result<RangeVersion, Conflict> {
    let Part { moves, flushed, shards } = part;
    let mut next = range.clone();
    let mut changed = BTreeMap::new();
    for (place, Moves { gone, added }) in moves {
        for name in &gone {
            if range.layers.find(place, name).is_none() {
                let what = format!("{name} is not in range {}, {place}", range.id);
                return Err(Conflict::new("delete-what-is-there", what));
            }
        }
        let mut slices = range.layers.in_order(place);
        slices.retain(|slice| !gone.contains(&slice.name()));
        slices.extend(added);
        changed.insert(place, slices);
    }
    next.layers = range.layers.with_places(changed);
    for seqno in flushed {
        if seqno < next.flushed_seqno {
            let before = next.flushed_seqno;
            let what = format!("range {} was flushed to {before}, not to {seqno}", range.id);
            return Err(Conflict::new("flushed-never-falls", what));
        }
        next.flushed_seqno = seqno;
    }
    if let Some(shards) = shards {
        next.shards = shards.clone();
    }
    let mut names = HashSet::new();
    if let Some((place, twice)) = next.layers.slices().find(|(_, s)| !names.insert(s.name())) {
        let what = format!("table {} again in range {}, {place}", twice.number(), range.id);
        return Err(Conflict::new("slices-share-files", what));
    }
    check::check_range(&next)?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{empty_version, meta, part_of, slice, version_of};
    use super::super::{Image, NewRange, ObsoleteFiles, SliceMeta};
    use super::*;
    use crate::filename::FileNumber;
    use crate::key::Span;
    use crate::keyspace::KeyspaceId;
    use bytes::Bytes;

    const R: RangeId = RangeId::FIRST;

    fn apply(version: &Version, edit: &VersionEdit) -> Result<Version, Conflict> {
        let obsolete_files = version.obsolete_files();
        let moved = |number| version.slices().find(|(_, _, slice)| slice.number() == number);
        let handles = edit.added.iter().map(|(_, _, meta)| match moved(meta.number()) {
            Some((_, _, slice)) => Arc::clone(slice.handle()),
            None => TableHandle::unopened(Arc::clone(&meta.table), Arc::clone(obsolete_files)),
        });
        version.apply_handles(edit, &handles.collect::<Vec<_>>())
    }

    fn place(level: u8) -> Place {
        if level == 0 { Place::L0 } else { Place::Main(level) }
    }

    fn added(level: u8, number: u64, min: &[u8], max: &[u8]) -> (RangeId, Place, SliceMeta) {
        (R, place(level), SliceMeta::whole(meta(number, min, max, 100)))
    }

    fn edit(
        added: Vec<(RangeId, Place, SliceMeta)>,
        deleted: Vec<(u8, u64, &'static [u8])>,
    ) -> VersionEdit {
        VersionEdit {
            added,
            deleted: deleted
                .into_iter()
                .map(|(level, number, min)| {
                    let (table, min_key) = (FileNumber(number), Bytes::from_static(min));
                    (R, place(level), SliceName { table, min_key })
                })
                .collect(),
            ..VersionEdit::default()
        }
    }

    fn numbers(version: &Version) -> Vec<(u8, u64)> {
        version.slices().map(|(_, place, slice)| (place.level(), slice.number().0)).collect()
    }

    #[test]
    fn edits_build_the_tree_and_the_image_alike() {
        let mut version = empty_version(ObsoleteFiles::new());
        let mut image = Image::of_new_database(FileNumber(1), &[], 1);
        let steps = [
            edit(vec![added(0, 2, b"a", b"m")], vec![]),
            edit(vec![added(0, 3, b"c", b"z")], vec![]),
            edit(
                vec![added(1, 4, b"a", b"f"), added(1, 5, b"g", b"z")],
                vec![(0, 2, b"a"), (0, 3, b"c")],
            ),
            edit(vec![added(2, 4, b"a", b"f")], vec![(1, 4, b"a")]),
            edit(vec![], vec![(1, 5, b"g")]),
        ];
        let shapes: [&[(u8, u64)]; 5] =
            [&[(0, 2)], &[(0, 3), (0, 2)], &[(1, 4), (1, 5)], &[(1, 5), (2, 4)], &[(2, 4)]];
        for (step, shape) in steps.iter().zip(shapes) {
            version = apply(&version, step).unwrap();
            check::check(&version).unwrap();
            assert_eq!(numbers(&version), shape);
            image.apply(step).unwrap();
            let unopened = |meta: &Arc<_>| {
                Ok::<_, Conflict>(TableHandle::unopened(Arc::clone(meta), ObsoleteFiles::new()))
            };
            let rebuilt = image.to_version(ObsoleteFiles::new(), unopened).unwrap();
            assert_eq!(numbers(&rebuilt), shape);
            let mut again = Image::default();
            again.apply(&image.to_edit()).unwrap();
            assert_eq!(again, image);
        }
    }

    #[test]
    fn stale_edits_conflict_and_change_nothing() {
        let version = version_of(
            vec![slice(9, b"a", b"z", 1)],
            vec![vec![slice(3, b"a", b"c", 1), slice(4, b"e", b"f", 1)]],
        );
        let cases: [(VersionEdit, &str); 6] = [
            (edit(vec![], vec![(1, 7, b"a")]), "delete-what-is-there"),
            (edit(vec![], vec![(2, 3, b"a")]), "delete-what-is-there"),
            (edit(vec![added(1, 5, b"c", b"d")], vec![]), "one-run-per-level"),
            (edit(vec![added(2, 3, b"a", b"c")], vec![]), "slices-share-files"),
            (edit(vec![added(1, 5, b"d", b"b")], vec![]), "slices-are-sane"),
            (
                VersionEdit { flushed: vec![(RangeId(9), Seqno(1))], ..VersionEdit::default() },
                "ranges-cover-everything",
            ),
        ];
        for (edit, rule) in cases {
            assert_eq!(apply(&version, &edit).unwrap_err().rule, rule, "{edit:?}");
        }
        let unopened = edit(vec![added(2, 30, b"a", b"c")], vec![]);
        assert_eq!(version.apply(&unopened, &[]).unwrap_err().rule, "write-before-add");
        let fall = |to| VersionEdit { flushed: vec![(R, Seqno(to))], ..VersionEdit::default() };
        let version = apply(&version, &fall(5)).unwrap();
        assert_eq!(apply(&version, &fall(4)).unwrap_err().rule, "flushed-never-falls");
    }

    #[test]
    fn a_range_splits_and_its_tables_move() {
        let version =
            version_of(vec![], vec![vec![slice(3, b"a", b"c", 1), slice(4, b"n", b"p", 1)]]);
        let span = |lo: &'static [u8], hi: Option<&'static [u8]>| Span {
            lo: Bytes::from_static(lo),
            hi: hi.map(Bytes::from_static),
        };
        let keyspace = KeyspaceId::DEFAULT;
        let new =
            |id, span: Span| NewRange { id: RangeId(id), keyspace, span, shards: Shards::one() };
        let moved: Vec<_> = version.slices().map(|(_, _, slice)| slice.meta().clone()).collect();
        let mut split = VersionEdit {
            ranges_removed: vec![R],
            ranges_added: vec![new(2, span(b"", Some(b"m"))), new(3, span(b"m", None))],
            deleted: moved.iter().map(|slice| (R, Place::Main(1), slice.name())).collect(),
            added: vec![
                (RangeId(2), Place::Main(1), moved[0].clone()),
                (RangeId(3), Place::Main(1), moved[1].clone()),
            ],
            ..VersionEdit::default()
        };
        let next = version.apply(&split, &[]).unwrap();
        check::check(&next).unwrap();
        assert_eq!(next.route(keyspace, b"b").unwrap().id, RangeId(2));
        assert_eq!(next.route(keyspace, b"m").unwrap().id, RangeId(3));
        assert!(version.dropped_by(&split, &next).is_empty(), "moved tables are not obsolete");
        split.deleted.pop();
        split.added.pop();
        assert_eq!(version.apply(&split, &[]).unwrap_err().rule, "ranges-cover-everything");
    }

    #[test]
    fn an_obsolete_table_is_told_when_the_last_handle_goes() {
        let obsolete_files = ObsoleteFiles::new();
        let rings = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let bell = Arc::clone(&rings);
        obsolete_files.on_obsolete(move || {
            bell.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        let old = apply(
            &empty_version(Arc::clone(&obsolete_files)),
            &edit(vec![added(1, 3, b"a", b"c")], vec![]),
        )
        .unwrap();
        let drop_it = edit(vec![], vec![(1, 3, b"a")]);
        let new = apply(&old, &drop_it).unwrap();
        for handle in old.dropped_by(&drop_it, &new) {
            handle.mark_obsolete();
        }
        assert_eq!(obsolete_files.take(), vec![], "the old version still holds it");
        drop(old);
        assert_eq!(obsolete_files.take(), vec![FileNumber(3)]);
        assert_eq!(rings.load(std::sync::atomic::Ordering::Relaxed), 1);
        drop(new);
        assert_eq!(obsolete_files.take(), vec![]);
    }

    #[test]
    fn slices_share_files_a_table_stays_until_its_last_slice_is_dropped() {
        let whole = version_of(vec![], vec![vec![slice(3, b"a", b"z", 100)]]);
        let (_, _, table) = whole.slices().next().unwrap();
        let (left, right) =
            (part_of(table.handle(), b"a", b"f"), part_of(table.handle(), b"m", b"z"));
        let of = |slice: &Slice| (R, Place::Main(1), slice.name());
        let cut = VersionEdit {
            deleted: vec![of(table)],
            added: [&left, &right].map(|s| (R, Place::Main(1), s.meta().clone())).into(),
            ..VersionEdit::default()
        };
        let both = whole.apply(&cut, &[]).unwrap();
        check::check(&both).unwrap();
        assert!(whole.dropped_by(&cut, &both).is_empty());
        let drop_left = VersionEdit { deleted: vec![of(&left)], ..VersionEdit::default() };
        let one = both.apply(&drop_left, &[]).unwrap();
        assert!(both.dropped_by(&drop_left, &one).is_empty(), "the right one needs it");
        let drop_right = VersionEdit { deleted: vec![of(&right)], ..VersionEdit::default() };
        let none = one.apply(&drop_right, &[]).unwrap();
        assert_eq!(one.dropped_by(&drop_right, &none).len(), 1);
        let drop_both =
            VersionEdit { deleted: vec![of(&left), of(&right)], ..VersionEdit::default() };
        let none = both.apply(&drop_both, &[]).unwrap();
        assert_eq!(both.dropped_by(&drop_both, &none).len(), 1, "once");
    }
}
