//! ingest, excise, replace, split, ranges: whole spans at once, and a map of the ranges.

use crate::run::{Place, tree};
use sluicedb::TableWriter;

/// Keys 000 to 299.
fn filled(db: &str) -> Place {
    let place = Place::new();
    fill(&place, db, "old");
    place
}

fn fill(place: &Place, db: &str, value: &str) {
    let line = |n| format!("{{\"key\":\"{n:03}\",\"value\":\"{value}\"}}\n");
    let file = place.file(&format!("{db}.jsonl"), (0..300).map(line).collect::<String>());
    place.on(db, "import", &[&file]).ok();
}

fn count(place: &Place, value: &str) -> usize {
    place.dump("db").lines().filter(|line| line.contains(value)).count()
}

#[test]
fn tables_are_ingested_and_bad_ones_change_nothing() {
    let place = filled("db");
    let table = |name: &str, keys: std::ops::Range<u32>| {
        let path = place.path(name);
        let mut writer = TableWriter::create(&path).unwrap();
        for key in keys {
            writer.put(format!("{key:03}"), "new").unwrap();
        }
        writer.finish().unwrap();
        path.display().to_string()
    };
    let (one, two) = (table("one", 0..100), table("two", 100..150));
    let text = place.sluice("ingest", &[&one, &two]).ok().text();
    assert!(text.starts_with("ingested 150 entries of 2 tables in "), "{text}");
    assert_eq!((count(&place, "new"), count(&place, "old")), (150, 150));
    let before = place.dump("db");
    let bad = place.file("bad", "no table");
    place.sluice("ingest", &[&one, &bad]).fails(4, "bad");
    place.sluice("ingest", &[&one, &one]).fails(2, "keys in common");
    place.on("new", "ingest", &[&one, "no-such.table"]).fails(1, "no-such.table");
    place.on("new", "stats", &[]).fails(3, "no database there");
    assert_eq!(place.dump("db"), before);
    let json = place.on("fresh", "ingest", &[&two, "--json"]).ok().json();
    assert_eq!((&json["tables"], &json["entries"]), (&1.into(), &50.into()), "{json}");
    place.sluice("verify", &[]).ok();
}

#[test]
fn spans_are_cut_out() {
    let place = filled("db");
    // An unset variable of a script is an empty text.
    let unset = [
        &["--from", "", "--to", ""][..],
        &["--from", "1", "--to", ""],
        &["--from", "", "--to", "1"],
        &["--from-first", "--to", ""],
    ];
    let no_ends = [&[][..], &["--from", "1"], &["--to", "1"], &["--to-last"], &["--prefix", ""]];
    for no_end in unset.into_iter().chain(no_ends) {
        place.sluice("excise", no_end).fails(2, "say which keys");
    }
    place.sluice("excise", &["--prefix", "1"]).ok();
    assert_eq!(count(&place, "old"), 200);
    let keys = ["--from", r"\x30\x30\x30", "--to", "050", "--keys-as", "escaped", "--json"];
    let json = place.sluice("excise", &keys).ok().json();
    assert!(json["seconds"].is_number(), "{json}");
    assert_eq!(count(&place, "old"), 150);
    place.sluice("excise", &["--from", "29", "--to-last"]).ok();
    assert_eq!(count(&place, "old"), 140);
    place.sluice("excise", &["--to-last", "--prefix", "2"]).fails(2, "cannot be used with");
    place.sluice("excise", &["--from-first", "--to", "06"]).ok();
    assert_eq!(count(&place, "old"), 130);
    place.on("none", "excise", &["--prefix", "1"]).fails(3, "no database there");
    place.sluice("verify", &[]).ok();
}

#[test]
fn spans_become_what_another_database_has() {
    let place = filled("db");
    fill(&place, "source", "new");
    place.on("source", "excise", &["--prefix", "25"]).ok();
    let source = place.path("source").display().to_string();
    let from = |rest: &[&str]| place.sluice("replace", &[&["--from-db", &source], rest].concat());
    from(&[]).fails(2, "say which keys");
    from(&["--from", "1"]).fails(2, "--to for each --from");
    // An unset variable of a script is an empty text.
    let unset = [
        &["--prefix", ""][..],
        &["--prefix", "1", "--prefix", ""],
        &["--from", "", "--to", "1"],
        &["--from", "1", "--to", ""],
        &["--from", "", "--to", ""],
        &["--from-first", "--to", ""],
    ];
    for keys in unset {
        from(keys).fails(2, "say which keys");
    }
    from(&["--from-first"]).fails(2, "--to for each --from");
    from(&["--prefix", "25", "--refuse-empty"]).fails(2, "no key in any of the spans");
    assert_eq!(count(&place, "old"), 300);
    let before = tree(&place.path("source"));
    let text = from(&["--prefix", "2", "--from", "000", "--to", "050"]).ok().text();
    assert!(
        text.starts_with("2 spans replaced in ") && text.contains(": 140 entries now"),
        "{text}"
    );
    assert_eq!((count(&place, "new"), count(&place, "old")), (140, 150));
    assert!(tree(&place.path("source")) == before, "the source is only read");
    let json = from(&["--prefix", "25", "--json"]).ok().json();
    assert_eq!((&json["spans"], &json["entries"]), (&1.into(), &0.into()), "{json}");
    let ends = ["--from-first", "--to", "06", "--from", "29", "--to-last"];
    assert!(from(&ends).ok().text().contains(": 70 entries now"));
    assert!(from(&["--from-first", "--to-last"]).ok().text().contains(": 290 entries now"));
    assert_eq!((count(&place, "new"), count(&place, "old")), (290, 0));
    place.sluice("replace", &["--from-db", "/none", "--prefix", "1"]).fails(3, "no database there");
    place.sluice("verify", &[]).ok();
}

#[test]
fn ranges_are_split_and_drawn_in_eighty_columns() {
    let place = filled("db");
    place.sluice("compact", &[]).ok();
    let text = place.sluice("split", &["100"]).ok().text();
    assert!(text.starts_with("ranges meet at 100 now\n"), "{text}");
    assert!(place.sluice("split", &["100"]).ok().text().starts_with("ranges meet at 100 already"));
    let long = "2".repeat(200);
    let json = place.sluice("split", &[&long, "--json"]).ok().json();
    assert_eq!((&json["split"], json["ranges"].as_array().unwrap().len()), (&true.into(), 3));
    let before = tree(&place.db());
    let text = place.sluice("ranges", &[]).ok().text();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains('#')).count(), 3, "{text}");
    assert!(text.contains("\n       100\n") && text.contains("222..."), "{text}");
    let json = place.sluice("ranges", &["--json"]).ok().json();
    let entries = json.as_array().unwrap().iter().map(|range| range["entries"].as_u64().unwrap());
    assert!(entries.sum::<u64>() >= 300, "{json}");
    assert_eq!((&json[1]["start"], &json[0]["memtable_bytes"]), (&"100".into(), &0.into()));
    assert!(tree(&place.db()) == before, "ranges changes nothing");
    place.on("none", "ranges", &[]).fails(3, "no database there");
}
