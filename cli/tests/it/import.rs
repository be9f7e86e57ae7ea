//! import: formats, guesses, precise errors, bounded work, the last of two records winning.

use crate::run::Place;
use serde_json::json;

#[test]
fn json_lines_by_path() {
    let place = Place::new();
    let file = place.file(
        "events.jsonl",
        "{\"user\":{\"id\":7},\"n\":1}\n\n{\"user\":{\"id\":8},\"n\":[1,2]}\r\n",
    );
    let ran = place.sluice("import", &[&file, "--key", "user.id", "--json"]).ok();
    let summary = ran.json();
    assert_eq!((&summary["entries"], &summary["skipped"]), (&json!(2), &json!(0)));
    assert_eq!(place.sluice("get", &["7"]).ok().text(), "{\"user\":{\"id\":7},\"n\":1}");
    place.sluice("import", &[&file, "--key", "user.id", "--value", "n", "--key-prefix", "n/"]).ok();
    assert_eq!(place.sluice("get", &["n/8"]).ok().text(), "[1,2]");
}

#[test]
fn bad_json_names_its_line_and_can_be_skipped() {
    let place = Place::new();
    let text =
        "{\"id\":\"a\"}\n{\"id\":\n{\"other\":1}\n{\"id\":null}\n{\"id\":\"\"}\n{\"id\":\"b\"}\n";
    let file = place.file("bad.jsonl", text);
    let stopped = place.sluice("import", &[&file, "--key", "id"]);
    stopped.fails(1, "bad.jsonl, line 2: not JSON");
    let skipping = ["--key", "id", "--on-error", "skip", "--json"];
    let ran = place.sluice("import", &[&[&*file], &skipping[..]].concat()).ok();
    assert_eq!((&ran.json()["entries"], &ran.json()["skipped"]), (&json!(2), &json!(4)));
    for told in [
        "line 2: not JSON",
        "line 3: there is no `id`",
        "line 4: `id` is null, which cannot be a key",
        "line 5: the key is empty",
    ] {
        assert!(ran.err.contains(told), "no {told:?} in {}", ran.err);
    }
    place.sluice("import", &[&file]).fails(1, "name the fields with --key and --value");
}

#[test]
fn tables_by_name_and_number() {
    let place = Place::new();
    let csv = place.file("people.csv", "id,name\n1,\"Ada, Countess\"\n2,\"two\nlines\"\n");
    place.sluice("import", &[&csv, "--key-column", "id"]).ok();
    assert_eq!(place.sluice("get", &["1"]).ok().text(), r#"{"id":"1","name":"Ada, Countess"}"#);
    place.sluice("import", &[&csv, "--key-column", "1", "--value-column", "name"]).ok();
    assert_eq!(place.sluice("get", &["2"]).ok().text(), "two\nlines");
    let tsv = place.file("plain.tsv", "x\t1\ny\t2\n");
    let columns = ["--no-headers", "--key-column", "1", "--value-column", "2"];
    place.sluice("import", &[&[&*tsv], &columns[..]].concat()).ok();
    assert_eq!(place.sluice("get", &["y"]).ok().text(), "2");
    place.sluice("import", &[&csv]).fails(2, "no column `key`; there are: id, name");
    place.sluice("import", &[&csv, "--key-column", "9"]).fails(2, "no column `9`");
    let short = place.file("short.csv", "key,value\na,1\nb\n");
    place.sluice("import", &[&short]).fails(1, "short.csv, line 3: 1 fields");
}

#[test]
fn lines_are_values_or_keys() {
    let place = Place::new();
    let file = place.file("words.txt", "one\n\nthree");
    place.sluice("import", &[&file]).ok();
    let scanned = place.sluice("scan", &[]).ok().text();
    assert_eq!(scanned, "000000000001\tone\n000000000002\t\n000000000003\tthree\n");
    let args = ["-", "--format", "lines", "--line-key", "whole", "--on-error", "skip"];
    place.fed("import", &[&args[..], &["--key-prefix", "w/"]].concat(), b"one\nthree").ok();
    assert_eq!(place.sluice("scan", &["--prefix", "w/"]).ok().text(), "w/one\t\nw/three\t\n");
}

#[test]
fn trees_become_paths() {
    let place = Place::new();
    place.file("tree/a.txt", "A");
    place.file("tree/sub/b.bin", [0, 255]);
    place.file("tree/sub/empty", "");
    #[cfg(unix)]
    std::os::unix::fs::symlink("/etc/passwd", place.path("tree/link")).unwrap();
    let root = place.path("tree").display().to_string();
    place.sluice("import", &[&root]).ok();
    let scanned = place.sluice("scan", &[]).ok().text();
    assert_eq!(scanned, "a.txt\tA\nsub/b.bin\t\\x00\\xff\nsub/empty\t\n");
    place.sluice("import", &["-", "--format", "tree"]).fails(2, "not stdin");
    place.sluice("import", &[&root, "--format", "jsonl"]).fails(2, "is a directory");
}

#[test]
fn what_cannot_be_guessed_is_asked() {
    let place = Place::new();
    let odd = place.file("data.bin", "x");
    place.sluice("import", &[&odd]).fails(2, "add --format");
    place.sluice("import", &["-"]).fails(2, "add --format");
    place
        .sluice("import", &[&odd, "--format", "lines", "--key", "id"])
        .fails(2, "--key is for jsonl");
    let missing = place.path("none.jsonl").display().to_string();
    place.sluice("import", &[&missing]).fails(1, "none.jsonl: ");
    assert!(!place.db().exists(), "a failed import must not leave a new database behind");
}

/// Goal: several writers do what one would do.
/// Method: every key many times; the last line of each key must win.
#[test]
fn the_last_record_of_a_key_wins_with_many_writers() {
    let place = Place::new();
    let mut text = String::new();
    for round in 0..200 {
        for key in 0..50 {
            text += &format!("{{\"key\":\"k{key}\",\"value\":\"{round}\"}}\n");
        }
    }
    let file = place.file("rounds.jsonl", text);
    place.sluice("import", &[&file, "--writers", "8", "--batch", "1KiB"]).ok();
    let scanned = place.sluice("scan", &[]).ok().text();
    assert_eq!(scanned.lines().count(), 50);
    assert!(scanned.lines().all(|line| line.ends_with("\t199")), "{scanned}");
}

#[test]
fn oversized_records_are_named() {
    let place = Place::new();
    let long = place.file("long.txt", format!("ok\n{}\n", "k".repeat(70_000)));
    let ran = place.sluice("import", &[&long, "--line-key", "whole"]);
    ran.fails(1, "long.txt, line 2: the key kkkkkkkk");
    assert!(ran.err.contains("has 70000 bytes"), "{}", ran.err);
    let big = place.file("big.txt", vec![b'v'; 3 << 20]);
    place
        .sluice("import", &[&big, "--memory", "8MiB"])
        .fails(1, "line 1: the value has 3145728 bytes");
}

#[test]
fn o7_a_quote_that_is_not_closed_is_an_error_with_its_line() {
    let place = Place::new();
    let csv = place.file("open.csv", "key,value\na,1\nb,\"2\nc,3\n");
    place.sluice("import", &[&csv]).fails(1, "open.csv, line 3: a quote is not closed");
    let ran = place.sluice("import", &[&csv, "--on-error", "skip", "--json"]).ok();
    assert_eq!((&ran.json()["entries"], &ran.json()["skipped"]), (&json!(1), &json!(1)));
}

#[cfg(unix)]
#[test]
fn o10_links_and_special_files_of_a_tree_are_told() {
    let place = Place::new();
    let file = place.file("tree/a/file", "content");
    std::os::unix::fs::symlink(&file, place.path("tree/link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.path("tree/a/socket")).unwrap();
    let tree = place.path("tree").display().to_string();
    let ran = place.sluice("import", &[&tree, "--format", "tree"]).ok();
    assert!(ran.err.contains("passed over: 2 symbolic links and special files"), "{}", ran.err);
    let ran = place.sluice("import", &[&tree, "--format", "tree", "--json"]).ok();
    let json = ran.json();
    assert_eq!((&json["entries"], &json["passed_over"]), (&json!(1), &json!(2)));
}
