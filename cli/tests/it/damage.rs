//! Damaged and foreign directories, and a database that is in use: exit codes a script can trust.

use crate::run::{Place, command};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// The newest table of a compacted database.
fn table_of(place: &Place) -> std::path::PathBuf {
    let files = std::fs::read_dir(place.db()).unwrap().map(|file| file.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|e| e == "sst"))
        .max()
        .expect("there is a table")
}

fn compacted() -> Place {
    let place = Place::new();
    let text: String = (0..20_000).map(|i| format!("value number {i}\n")).collect();
    place.fed("import", &["-", "--format", "lines"], text.as_bytes()).ok();
    place.sluice("compact", &[]).ok();
    place.sluice("verify", &[]).ok();
    place
}

#[test]
fn a_flipped_bit_is_found_and_named() {
    let place = compacted();
    let table = table_of(&place);
    let mut bytes = std::fs::read(&table).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 0x10;
    std::fs::write(&table, bytes).unwrap();
    let name = table.file_name().unwrap().to_str().unwrap();
    let ran = place.sluice("verify", &[]);
    assert_eq!(ran.code, 4, "{} {}", ran.text(), ran.err);
    assert!(ran.text().contains(name) && ran.text().contains("offset"), "{}", ran.text());
    let ran = place.sluice("verify", &["--json"]);
    assert_eq!(ran.code, 4);
    let json = ran.json();
    assert_eq!(json["ok"], false);
    assert!(json["findings"][0]["file"].as_str().unwrap().ends_with(name), "{json}");
    let findings = json["findings"].as_array().unwrap().len();
    let told =
        if findings == 1 { "1 finding in".into() } else { format!("{findings} findings in") };
    assert!(ran.err.contains(&told), "{}", ran.err);
    let ran = place.sluice("scan", &[]);
    assert_eq!(ran.code, 4, "damage is not served: {}", ran.err);
    assert!(ran.err.contains(name), "{}", ran.err);
}

#[test]
fn a_missing_table_is_refused() {
    let place = compacted();
    std::fs::remove_file(table_of(&place)).unwrap();
    assert_eq!(place.sluice("get", &["000000000001"]).code, 4);
    assert_eq!(place.sluice("verify", &[]).code, 4);
}

#[test]
fn a_foreign_current_is_refused() {
    let place = Place::new();
    place.file("db/CURRENT", "not ours at all");
    let ran = place.sluice("get", &["k"]);
    assert!(matches!(ran.code, 4 | 8), "{} {}", ran.code, ran.err);
    assert!(ran.err.contains("CURRENT"), "{}", ran.err);
}

#[test]
fn a_database_in_use_is_locked() {
    let place = Place::new();
    place.sluice("put", &["k", "v"]).ok();
    let db = place.db();
    // The demo's child opens the database and writes until it is killed.
    let args = [
        "demo-child",
        db.to_str().unwrap(),
        "--round",
        "0",
        "--tasks",
        "1",
        "--memory",
        "16777216",
    ];
    let mut child = command(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "0 0\n", "it writes, so it holds the database");
    place.sluice("get", &["k"]).fails(5, "in use");
    place.sluice("verify", &[]).fails(5, "in use");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(place.sluice("get", &["k"]).ok().out, b"v");
    assert!(
        place
            .sluice("scan", &["--prefix", "crash/"])
            .ok()
            .text()
            .starts_with("crash/0/000/0000000000\t")
    );
}

/// Planted: a directory without `CURRENT` has no database, whatever else is there.
#[test]
fn a_database_without_its_pointer_is_damaged_and_not_absent() {
    let place = compacted();
    std::fs::remove_file(place.db().join("CURRENT")).unwrap();
    for command in ["stats", "scan"] {
        place.sluice(command, &[]).fails(4, "CURRENT");
    }
    let ran = place.sluice("verify", &[]);
    assert!(ran.code == 4 && ran.text().contains("CURRENT"), "{} {}", ran.text(), ran.err);
}
