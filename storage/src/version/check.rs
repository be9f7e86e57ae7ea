//! The structural invariants of a version, each a named function.
//!
//! The version manager calls `check` after every swap in debug builds; recovery and `verify` call it
//! always. A finding names the rule and the tables.

use super::{RangeVersion, TableHandle, Version};
use crate::key::Span;
use crate::limits::LEVELS_MAX;
use std::collections::HashSet;
use std::sync::Arc;

/// A rule of the tree that an edit would break or a version breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {what}")]
pub struct Conflict {
    /// The rule's name, as in docs/invariants.md.
    pub rule: &'static str,
    /// Which range, level and tables.
    pub what: String,
}

impl Conflict {
    pub(crate) fn new(rule: &'static str, what: impl Into<String>) -> Self {
        Self { rule, what: what.into() }
    }
}

/// All rules on all ranges; the first broken one. Costs a walk over all tables.
pub fn check(version: &Version) -> Result<(), Conflict> {
    ranges_cover_everything(version)?;
    no_table_twice(version)?;
    version.ranges().iter().try_for_each(|range| check_range(range))
}

/// Every rule that is broken, once per range.
pub(crate) fn all(version: &Version) -> Vec<Conflict> {
    let whole = [ranges_cover_everything(version), no_table_twice(version)];
    let within = version.ranges().iter().flat_map(|range| {
        [
            tables_are_sane(range),
            tables_inside_their_range(range),
            newest_layer_first(range),
            one_run_per_level(range),
        ]
    });
    whole.into_iter().chain(within).filter_map(Result::err).collect()
}

/// The rules within one range.
pub fn check_range(range: &RangeVersion) -> Result<(), Conflict> {
    tables_are_sane(range)?;
    tables_inside_their_range(range)?;
    newest_layer_first(range)?;
    one_run_per_level(range)
}

/// Ranges are sorted, touch each other, and leave no key without a range.
pub fn ranges_cover_everything(version: &Version) -> Result<(), Conflict> {
    let spans = version.ranges().iter().map(|range| (range.id, &range.span));
    let spans: Vec<_> = spans.collect();
    spans_cover_everything(&spans.iter().map(|(_, span)| *span).collect::<Vec<_>>())?;
    let mut ids = HashSet::new();
    match spans.iter().find(|(id, _)| !ids.insert(*id)) {
        Some((id, _)) => {
            Err(Conflict::new("ranges-cover-everything", format!("range {id} occurs twice")))
        }
        None => Ok(()),
    }
}

pub(crate) fn spans_cover_everything(spans: &[&Span]) -> Result<(), Conflict> {
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

/// A file number is in one place only.
pub fn no_table_twice(version: &Version) -> Result<(), Conflict> {
    let mut seen = HashSet::new();
    for (range, level, table) in version.tables() {
        if !seen.insert(table.number()) {
            let what = format!("table {} again in range {range} level {level}", table.number());
            return Err(Conflict::new("no-table-twice", what));
        }
    }
    Ok(())
}

/// What a table says about itself does not contradict itself.
pub fn tables_are_sane(range: &RangeVersion) -> Result<(), Conflict> {
    for (_, table) in range.tables() {
        let meta = table.meta();
        let sane = meta.number.0 > 0
            && meta.entries > 0
            && meta.tombstones <= meta.entries
            && !meta.min_key.is_empty()
            && meta.min_key <= meta.max_key
            && meta.min_seqno <= meta.max_seqno;
        if !sane {
            let what = format!("table {} of range {}: {meta:?}", meta.number, range.id);
            return Err(Conflict::new("tables-are-sane", what));
        }
    }
    Ok(())
}

/// No table has a key that is routed to another range.
pub fn tables_inside_their_range(range: &RangeVersion) -> Result<(), Conflict> {
    for (level, table) in range.tables() {
        let meta = table.meta();
        if !range.span.contains(&meta.min_key) || !range.span.contains(&meta.max_key) {
            let what = format!("table {} in range {} level {level}", meta.number, range.id);
            return Err(Conflict::new("tables-inside-their-range", what));
        }
    }
    Ok(())
}

/// L0 is sorted newest first, and of two overlapping tables the newer one is newer throughout.
pub fn newest_layer_first(range: &RangeVersion) -> Result<(), Conflict> {
    let fail = |newer: &TableHandle, older: &TableHandle, why: &str| {
        let (newer, older) = (newer.number(), older.number());
        let what = format!("range {} L0: table {newer} before {older} {why}", range.id);
        Err(Conflict::new("newest-layer-first", what))
    };
    for (at, newer) in range.l0.iter().enumerate() {
        let meta = newer.meta();
        if let Some(older) = range.l0.get(at + 1)
            && l0_rank(newer) < l0_rank(older)
        {
            return fail(newer, older, "is out of order");
        }
        for older in &range.l0[at + 1..] {
            let mixed = meta.min_seqno <= older.meta().max_seqno;
            if mixed && older.overlaps(&meta.min_key, &meta.max_key) {
                return fail(newer, older, "overlaps it in keys and in sequence numbers");
            }
        }
    }
    Ok(())
}

/// Greater is newer.
pub(super) fn l0_rank(
    table: &Arc<TableHandle>,
) -> (crate::key::Seqno, crate::filename::FileNumber) {
    (table.meta().max_seqno, table.number())
}

/// Below L0 the tables of a level are sorted and disjoint.
pub fn one_run_per_level(range: &RangeVersion) -> Result<(), Conflict> {
    if range.levels.len() > LEVELS_MAX {
        let what = format!("range {} has {} levels", range.id, range.levels.len());
        return Err(Conflict::new("one-run-per-level", what));
    }
    for (level, number) in range.levels.iter().zip(1..) {
        for pair in level.tables().windows(2) {
            if pair[0].meta().max_key >= pair[1].meta().min_key {
                let (a, b) = (pair[0].number(), pair[1].number());
                let what = format!("range {} level {number}: tables {a} and {b} overlap", range.id);
                return Err(Conflict::new("one-run-per-level", what));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{handle, handle_at, version_of};
    use super::super::{Graveyard, Level, RangeId};
    use super::*;
    use bytes::Bytes;

    fn rule(version: &Version) -> &'static str {
        check(version).unwrap_err().rule
    }

    #[test]
    fn a_good_version_passes() {
        let levels = vec![vec![handle(3, b"a", b"c", 1), handle(4, b"d", b"f", 1)]];
        let l0 = vec![handle_at(2, b"a", b"z", 1, 11..=20), handle_at(1, b"b", b"c", 1, 1..=10)];
        assert_eq!(check(&version_of(l0, levels)), Ok(()));
    }

    #[test]
    fn each_rule_has_a_version_that_breaks_it() {
        let overlap = vec![vec![handle(3, b"a", b"d", 1), handle(4, b"d", b"f", 1)]];
        assert_eq!(rule(&version_of(vec![], overlap)), "one-run-per-level");
        let twice = vec![vec![handle(3, b"a", b"b", 1)], vec![handle(3, b"a", b"b", 1)]];
        assert_eq!(rule(&version_of(vec![], twice)), "no-table-twice");
        let order = vec![handle_at(1, b"b", b"c", 1, 1..=10), handle_at(2, b"x", b"z", 1, 11..=20)];
        assert_eq!(rule(&version_of(order, vec![])), "newest-layer-first");
        let mixed = vec![handle_at(2, b"a", b"z", 1, 5..=20), handle_at(1, b"b", b"c", 1, 1..=10)];
        assert_eq!(rule(&version_of(mixed, vec![])), "newest-layer-first");
        let backwards = vec![vec![handle(3, b"d", b"a", 1)]];
        assert_eq!(rule(&version_of(vec![], backwards)), "tables-are-sane");
    }

    #[test]
    fn gaps_and_strays_between_ranges_are_found() {
        let span = |lo: &'static [u8], hi: Option<&'static [u8]>| Span {
            lo: Bytes::from_static(lo),
            hi: hi.map(Bytes::from_static),
        };
        let range = |id, span| Arc::new(RangeVersion::empty(RangeId(id), span));
        let version = |ranges| Version::new(ranges, Graveyard::new());
        assert_eq!(rule(&version(vec![])), "ranges-cover-everything");
        let gap = vec![range(1, span(b"", Some(b"m"))), range(2, span(b"n", None))];
        assert_eq!(rule(&version(gap)), "ranges-cover-everything");
        let open = vec![range(1, span(b"", Some(b"m")))];
        assert_eq!(rule(&version(open)), "ranges-cover-everything");
        let same = vec![range(1, span(b"", Some(b"m"))), range(1, span(b"m", None))];
        assert_eq!(rule(&version(same)), "ranges-cover-everything");
        let mut stray = RangeVersion::empty(RangeId(1), span(b"", Some(b"m")));
        stray.levels = vec![Level::new(vec![handle(3, b"a", b"m", 1)])];
        let stray = vec![Arc::new(stray), range(2, span(b"m", None))];
        assert_eq!(rule(&version(stray)), "tables-inside-their-range");
    }
}
