//! The structural invariants of a version, each a named function.
//!
//! Each function checks one rule, and fails with the first `Conflict` that it finds; that names the
//! rule and the tables. The version manager calls `check` after every swap in debug builds.
//! Recovery and `verify` always call it.

use super::{Keyspaces, Place, RangeVersion, Slice, Version};
use crate::key::Span;
use crate::keyspace::KeyspaceId;
use crate::limits::LEVELS_MAX;
use std::collections::{HashMap, HashSet};

/// A rule of the tree that an edit or a version breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {what}")]
pub struct Conflict {
    /// The rule's name, as in docs/invariants.md.
    pub rule: &'static str,
    /// The range, the place and the tables.
    pub what: String,
}

impl Conflict {
    pub(crate) fn new(rule: &'static str, what: impl Into<String>) -> Self {
        Self { rule, what: what.into() }
    }
}

/// Checks all rules on all ranges and returns the first that is broken. Costs a walk over all
/// tables.
///
/// # Errors
/// The first broken rule.
pub fn check(version: &Version) -> Result<(), Conflict> {
    ranges_cover_everything(version)?;
    slices_share_files(version)?;
    version.ranges().iter().try_for_each(|range| check_range(range))
}

/// Every rule that is broken, once per range.
pub(crate) fn all(version: &Version) -> Vec<Conflict> {
    let whole = [ranges_cover_everything(version), slices_share_files(version)];
    let within = version.ranges().iter().flat_map(|range| {
        [
            slices_are_sane(range),
            slices_inside_their_range(range),
            one_layer_order(range),
            newest_layer_first(range),
            one_run_per_level(range),
            landing_in_its_shard(range),
        ]
    });
    whole.into_iter().chain(within).filter_map(Result::err).collect()
}

/// Checks the rules within one range.
///
/// # Errors
/// The first broken rule.
pub fn check_range(range: &RangeVersion) -> Result<(), Conflict> {
    slices_are_sane(range)?;
    slices_inside_their_range(range)?;
    one_layer_order(range)?;
    newest_layer_first(range)?;
    one_run_per_level(range)?;
    landing_in_its_shard(range)
}

/// Ranges are sorted and adjacent, and every key of every keyspace has a range.
pub fn ranges_cover_everything(version: &Version) -> Result<(), Conflict> {
    let spans = version.ranges().iter().map(|range| (range.keyspace, &range.span));
    ranges_cover_keyspaces(&spans.collect::<Vec<_>>(), version.keyspaces())?;
    let mut ids = HashSet::new();
    match version.ranges().iter().find(|range| !ids.insert(range.id)) {
        Some(range) => {
            let what = format!("range {} occurs twice", range.id);
            Err(Conflict::new("ranges-cover-everything", what))
        }
        None => Ok(()),
    }
}

/// As `ranges_cover_everything`, of `spans` in order.
pub(super) fn ranges_cover_keyspaces(
    spans: &[(KeyspaceId, &Span)],
    keyspaces: &Keyspaces,
) -> Result<(), Conflict> {
    let fail = |what: String| Err(Conflict::new("ranges-cover-everything", what));
    let mut there = std::iter::once(KeyspaceId::DEFAULT).chain(keyspaces.named().map(|(id, _)| id));
    for theirs in spans.chunk_by(|(a, _), (b, _)| a == b) {
        if there.next() != Some(theirs[0].0) {
            return fail(format!("a range is of keyspace {}, which is not next", theirs[0].0));
        }
        let theirs: Vec<_> = theirs.iter().map(|(_, span)| *span).collect();
        spans_cover_everything(&theirs)?;
    }
    match there.next() {
        Some(id) => fail(format!("keyspace {id} has no range")),
        None => Ok(()),
    }
}

fn spans_cover_everything(spans: &[&Span]) -> Result<(), Conflict> {
    let fail = |what: String| Err(Conflict::new("ranges-cover-everything", what));
    let (Some(first), Some(last)) = (spans.first(), spans.last()) else {
        return fail("there is no range".to_owned());
    };
    if !first.lo.is_empty() {
        return fail("keys before the first range have no range".to_owned());
    }
    if last.hi.is_some() {
        return fail("keys after the last range have no range".to_owned());
    }
    for (at, pair) in spans.windows(2).enumerate() {
        if pair[0].hi.as_ref() != Some(&pair[1].lo) || pair[0].is_empty() {
            return fail(format!("ranges {at} and {} do not touch in order", at + 1));
        }
    }
    Ok(())
}

/// INVARIANT(slices-share-files): slices of one file agree about its metadata, and no two of them
/// share a key.
pub fn slices_share_files(version: &Version) -> Result<(), Conflict> {
    let fail = |what: String| Err(Conflict::new("slices-share-files", what));
    let mut seen: HashMap<_, Vec<&Slice>> = HashMap::new();
    for (range, place, slice) in version.slices() {
        let number = slice.number();
        let others = seen.entry(number).or_default();
        if others.iter().any(|other| other.table != slice.table) {
            return fail(format!("table {number} is another one in range {range}, {place}"));
        }
        if others.iter().any(|other| other.overlaps(slice.min_key(), slice.max_key())) {
            return fail(format!("keys of table {number} again in range {range}, {place}"));
        }
        others.push(slice);
    }
    Ok(())
}

/// The metadata of each slice is consistent with itself and with its table.
pub fn slices_are_sane(range: &RangeVersion) -> Result<(), Conflict> {
    match range.layers.slices().find(|(_, slice)| !slice.is_sane()) {
        Some((_, slice)) => {
            let what =
                format!("table {} of range {}: {:?}", slice.number(), range.id, slice.meta());
            Err(Conflict::new("slices-are-sane", what))
        }
        None => Ok(()),
    }
}

/// No slice has a key that is routed to another range.
pub fn slices_inside_their_range(range: &RangeVersion) -> Result<(), Conflict> {
    let inside = |slice: &Slice| {
        range.span.contains(slice.min_key()) && range.span.contains(slice.max_key())
    };
    match range.layers.slices().find(|(_, slice)| !inside(slice)) {
        Some((place, slice)) => {
            let what = format!("table {} in range {}, {place}", slice.number(), range.id);
            Err(Conflict::new("slices-inside-their-range", what))
        }
        None => Ok(()),
    }
}

/// INVARIANT(one-layer-order): layers are in reading order, no layer is empty, and no level is
/// deeper than `LEVELS_MAX`.
pub fn one_layer_order(range: &RangeVersion) -> Result<(), Conflict> {
    let fail = |what: String| Err(Conflict::new("one-layer-order", what));
    let mut before = None;
    for layer in range.layers.iter() {
        let place = layer.place;
        if layer.run.slices().is_empty() || usize::from(place.level()) > LEVELS_MAX {
            return fail(format!("range {} has an impossible layer in {place}", range.id));
        }
        if before.is_some_and(|before| before > place) {
            return fail(format!("range {} has {place} too late", range.id));
        }
        before = Some(place);
    }
    Ok(())
}

/// INVARIANT(newest-layer-first): where two slices of L0 overlap, all entries of the one in the
/// earlier layer are newer. No slice of L0 is older throughout than one that it overlaps in the
/// landing of L1. Within a landing the epochs say what is newer, and are not checked here: a slice
/// that came from a level has entries of any age.
pub fn newest_layer_first(range: &RangeVersion) -> Result<(), Conflict> {
    let l0 = range.layers.at(Place::L0);
    let fail = |newer: &Slice, older: &Slice| {
        let what = format!(
            "range {}: table {} before {} overlaps it in keys and in sequence numbers",
            range.id,
            newer.number(),
            older.number()
        );
        Err(Conflict::new("newest-layer-first", what))
    };
    for (at, newer) in l0.iter().enumerate() {
        for newer in newer.run.slices().iter() {
            let overlaps = |older: &&Slice| newer.overlaps(older.min_key(), older.max_key());
            let mut older = l0[at + 1..].iter().flat_map(|layer| layer.run.slices().iter());
            let mixed = |older: &&Slice| newer.min_seqno() <= older.max_seqno() && overlaps(older);
            if let Some(older) = older.find(mixed) {
                return fail(newer, older);
            }
            let landed = range.layers.landing(1).iter();
            let mut landed = landed.flat_map(|layer| layer.run.slices().iter());
            let passed = |older: &&Slice| newer.max_seqno() < older.min_seqno() && overlaps(older);
            if let Some(older) = landed.find(passed) {
                return fail(newer, older);
            }
        }
    }
    Ok(())
}

/// INVARIANT(one-run-per-level): the slices of a run are sorted and disjoint, and a level is one
/// run.
pub fn one_run_per_level(range: &RangeVersion) -> Result<(), Conflict> {
    let fail = |what: String| Err(Conflict::new("one-run-per-level", what));
    for layer in range.layers.iter() {
        let (id, place) = (range.id, layer.place);
        if matches!(place, Place::Main(_)) && range.layers.at(place).len() > 1 {
            return fail(format!("range {id} has several runs in {place}"));
        }
        for pair in layer.run.slices().windows(2) {
            if pair[0].max_key() >= pair[1].min_key() {
                let (a, b) = (pair[0].number(), pair[1].number());
                return fail(format!("range {id}, {place}: tables {a} and {b} overlap"));
            }
        }
    }
    Ok(())
}

/// INVARIANT(landing-in-its-shard): a slice of a landing lies in its shard and records when it
/// landed. Slices elsewhere have not landed.
pub fn landing_in_its_shard(range: &RangeVersion) -> Result<(), Conflict> {
    let fits = |place: Place, slice: &Slice| match place {
        Place::Landing(_, shard) => {
            let shard_of = |key| range.shards.index(key);
            slice.landed.is_some()
                && shard_of(slice.min_key()) == usize::from(shard)
                && shard_of(slice.max_key()) == usize::from(shard)
        }
        Place::L0 | Place::Main(_) => slice.landed.is_none(),
    };
    match range.layers.slices().find(|(place, slice)| !fits(*place, slice)) {
        Some((place, slice)) => {
            let what = format!("table {} of range {} in {place}", slice.number(), range.id);
            Err(Conflict::new("landing-in-its-shard", what))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{meta, part_of, slice, slice_at, version_of};
    use super::super::{
        Landed, ObsoleteFiles, RangeId, Shards, SliceMeta, TableHandle, VersionEdit,
    };
    use super::*;
    use bytes::Bytes;
    use std::sync::Arc;

    fn rule(version: &Version) -> &'static str {
        check(version).unwrap_err().rule
    }

    #[test]
    fn a_good_version_passes() {
        let levels = vec![vec![slice(3, b"a", b"c", 1), slice(4, b"d", b"f", 1)]];
        let l0 = vec![slice_at(2, b"a", b"z", 1, 11..=20), slice_at(1, b"b", b"c", 1, 1..=10)];
        assert_eq!(check(&version_of(l0, levels)), Ok(()));
    }

    #[test]
    fn each_rule_has_a_version_that_breaks_it() {
        let overlap = vec![vec![slice(3, b"a", b"d", 1), slice(4, b"d", b"f", 1)]];
        assert_eq!(rule(&version_of(vec![], overlap)), "one-run-per-level");
        let twice = vec![vec![slice(3, b"a", b"b", 1)], vec![slice(3, b"a", b"b", 1)]];
        assert_eq!(rule(&version_of(vec![], twice)), "slices-share-files");
        let mixed = vec![slice_at(2, b"a", b"z", 1, 5..=20), slice_at(1, b"b", b"c", 1, 1..=10)];
        assert_eq!(rule(&version_of(mixed, vec![])), "newest-layer-first");
        let backwards = vec![vec![slice(3, b"d", b"a", 1)]];
        assert_eq!(rule(&version_of(vec![], backwards)), "slices-are-sane");
    }

    #[test]
    fn no_conflict_has_a_key() {
        let backwards = check(&version_of(vec![], vec![vec![slice(3, b"sesame", b"oats", 1)]]));
        let text = backwards.unwrap_err().to_string();
        assert!(text.contains("table 000003"), "{text}");
        let slice = slice(5, b"sesame", b"zest", 100);
        let part = part_of(slice.handle(), b"sesame", b"zest");
        for text in [text, slice.name().to_string(), format!("{:?}", part.meta())] {
            assert!(!text.contains("sesame") && !text.contains("zest"), "{text}");
        }
    }

    /// The newer of two overlapping tables of L0 may not move to the landing before the older one,
    /// whichever job wants it.
    ///
    /// Planted: slices in the landing are not compared.
    #[test]
    fn t000_11_an_edit_that_lands_the_newer_of_two_tables_is_refused() {
        let (new, old) = (slice(22, b"k", b"z", 1), slice(21, b"a", b"m", 1));
        let version = version_of(vec![new.clone(), old.clone()], vec![]);
        let land = |slice: &Slice| {
            let landed = Some(Landed { epoch: 1, at_ms: 0 });
            let meta = SliceMeta { landed, ..slice.meta().clone() };
            VersionEdit {
                deleted: vec![(RangeId::FIRST, Place::L0, slice.name())],
                added: vec![(RangeId::FIRST, Place::Landing(1, 0), meta)],
                ..VersionEdit::default()
            }
        };
        let refused = version.apply(&land(&new), &[]).unwrap_err();
        assert_eq!(refused.rule, "newest-layer-first");
        let first = version.apply(&land(&old), &[]).expect("the older one may go");
        first.apply(&land(&new), &[]).expect("and the newer one after it");
    }

    #[test]
    fn gaps_and_strays_between_ranges_are_found() {
        let span = |lo: &'static [u8], hi: Option<&'static [u8]>| Span {
            lo: Bytes::from_static(lo),
            hi: hi.map(Bytes::from_static),
        };
        let range = |id, span| Arc::new(RangeVersion::empty(RangeId(id), span, Shards::one()));
        let version = |ranges| Version::new(ranges, ObsoleteFiles::new());
        assert_eq!(rule(&version(vec![])), "ranges-cover-everything");
        let gap = vec![range(1, span(b"", Some(b"m"))), range(2, span(b"n", None))];
        assert_eq!(rule(&version(gap)), "ranges-cover-everything");
        let open = vec![range(1, span(b"", Some(b"m")))];
        assert_eq!(rule(&version(open)), "ranges-cover-everything");
        let same = vec![range(1, span(b"", Some(b"m"))), range(1, span(b"m", None))];
        assert_eq!(rule(&version(same)), "ranges-cover-everything");
        let mut stray = RangeVersion::empty(RangeId(1), span(b"", Some(b"m")), Shards::one());
        stray.layers = stray.layers.with(Place::Main(1), vec![slice(3, b"a", b"m", 1)]);
        let stray = vec![Arc::new(stray), range(2, span(b"m", None))];
        assert_eq!(rule(&version(stray)), "slices-inside-their-range");
    }

    #[test]
    fn slices_share_a_file_as_long_as_they_share_no_key() {
        let handle = |number, bytes| {
            let meta = meta(number, b"a", b"z", bytes);
            TableHandle::unopened(Arc::new(meta), ObsoleteFiles::new())
        };
        let file = handle(3, 100);
        let of =
            |right: Slice| version_of(vec![], vec![vec![part_of(&file, b"a", b"f")], vec![right]]);
        assert_eq!(check(&of(part_of(&file, b"g", b"z"))), Ok(()));
        assert_eq!(rule(&of(part_of(&file, b"f", b"z"))), "slices-share-files");
        assert_eq!(rule(&of(Slice::whole(&file))), "slices-share-files");
        assert_eq!(rule(&of(part_of(&handle(3, 200), b"g", b"z"))), "slices-share-files");
        assert_eq!(rule(&of(part_of(&handle(4, 100), b"g", b"zz"))), "slices-are-sane");
    }

    #[test]
    fn layers_out_of_order_are_found() {
        let layers = |places: &[Place]| {
            let mut range = RangeVersion::empty(RangeId::FIRST, Span::all(), Shards::one());
            for (place, number) in places.iter().zip(1..) {
                let key = [b'a' + number as u8];
                range.layers = range.layers.with(*place, vec![slice(number, &key, &key, 1)]);
            }
            range
        };
        let good = layers(&[Place::Main(1), Place::L0, Place::Landing(1, 0)]);
        assert_eq!(one_layer_order(&good), Ok(()));
        let deep = layers(&[Place::Main(LEVELS_MAX as u8 + 1)]);
        assert_eq!(one_layer_order(&deep).unwrap_err().rule, "one-layer-order");
    }
}
