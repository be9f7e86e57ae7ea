//! Walkers that hold keys of other ranges: a batch over the view is in the walker of each range,
//! and ranges share memtables after a split.

use super::*;

const KEYS: [&str; 7] = ["b", "c", "d", "e", "n", "p", "q"];
const SPLIT: &str = "m";

/// All keys in two ranges. Each has some of the other's keys in its walker, or none.
fn views() -> [(&'static str, View); 3] {
    let mut toy = Toy::new(&[SPLIT.as_bytes()]);
    let mut batch = WriteBatch::new();
    for key in KEYS {
        if ["d", "p"].contains(&key) {
            batch.put(key, "v");
        } else {
            toy.write(key.as_bytes(), Some(b"v"));
        }
    }
    let own = toy.view().with(OwnWrites::new(&batch)).unwrap();
    for key in ["d", "p"] {
        toy.write(key.as_bytes(), Some(b"v"));
        (0..2).for_each(|range| toy.seal(range));
    }
    let both = shared(&toy.view());
    [("a batch over it", own), ("memtables of both", both), ("its own keys", toy.view())]
}

fn keys(cursor: &mut ScanCursor, entries_max: usize) -> Vec<String> {
    let mut out = ScanBatchBuilder::new();
    cursor.fill(&mut out, 1 << 20, entries_max).unwrap();
    let text = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
    out.freeze().iter().map(|(key, _)| text(key)).collect()
}

fn begun(view: &View, reverse: bool, entries: usize, lent: bool) -> (ScanCursor, Vec<String>) {
    let spec = ScanSpec { reverse, ..ScanSpec::new(KeyspaceId::DEFAULT, Span::all()) };
    let mut cursor = view.cursor(spec, ReadTier::Disk);
    let mut found = Vec::new();
    if lent {
        for _ in 0..entries {
            assert!(matches!(cursor.advance().unwrap(), Advanced::Entry { .. }));
            found.push(String::from_utf8(cursor.entry().0.to_vec()).unwrap());
        }
    } else {
        found = keys(&mut cursor, entries);
    }
    (cursor, found)
}

/// Planted: a place on a key of another range that is noted, in the range or behind it.
#[test]
fn wherever_a_walk_is_closed_it_goes_on_with_the_next_key() {
    for (what, view) in views() {
        for reverse in [false, true] {
            let mut all: Vec<_> = KEYS.map(String::from).into();
            if reverse {
                all.reverse();
            }
            for entries in 0..=KEYS.len() {
                for (how, lent) in (0..3).flat_map(|how| [(how, false), (how, true)]) {
                    let (mut cursor, mut found) = begun(&view, reverse, entries, lent);
                    match how {
                        0 => cursor.close(),
                        1 => cursor = cursor.fork(),
                        _ => cursor.set_tier(ReadTier::Memory),
                    }
                    found.extend(keys(&mut cursor, 100));
                    assert_eq!(found, all, "{what}, {reverse}, {entries}, {how}, {lent}");
                }
            }
        }
    }
}

/// Planted: a walk that turns round in the range that it has not entered yet.
#[test]
fn a_walk_that_turns_round_passes_what_it_has_passed() {
    for (what, view) in views() {
        for reverse in [false, true] {
            let mut all: Vec<_> = KEYS.map(String::from).into();
            if reverse {
                all.reverse();
            }
            for (entries, lent) in (1..KEYS.len()).flat_map(|n| [(n, false), (n, true)]) {
                let (mut cursor, found) = begun(&view, reverse, entries, lent);
                assert_eq!(found, all[..entries]);
                cursor.turn(false);
                let back = keys(&mut cursor, 100);
                let mut passed = all[..entries - usize::from(lent)].to_vec();
                passed.reverse();
                // It may have come to the next key.
                let is_back = back == passed || back[1..] == passed && back[0] == all[entries];
                assert!(is_back, "{what}, {reverse}, {entries}, {lent}: {back:?}");
            }
        }
    }
}

/// Keys of the range, and of the view, are behind the span, at either end.
///
/// Planted: a walk that has left its last range when it turns round.
#[test]
fn a_walk_that_turns_round_at_its_end_goes_back_over_all() {
    let inside = ["c", "d", "e", "n"];
    for (what, view) in views() {
        for reverse in [false, true] {
            let span = Span { lo: "c".into(), hi: Some("p".into()) };
            let spec = ScanSpec { reverse, ..ScanSpec::new(KeyspaceId::DEFAULT, span) };
            let mut cursor = view.cursor(spec, ReadTier::Disk);
            let mut found = keys(&mut cursor, inside.len());
            cursor.turn(false);
            let back = keys(&mut cursor, 100);
            found.reverse();
            assert_eq!(back, found, "{what}, {reverse}");
            assert_eq!(back.len(), inside.len());
        }
    }
}
