//! get, put, del, scan, and the command line itself.

use crate::run::{Place, sluice};
use serde_json::json;

#[test]
fn a_value_comes_back_byte_for_byte() {
    let place = Place::new();
    place.sluice("put", &["k", "v"]).ok();
    assert_eq!(place.sluice("get", &["k"]).ok().out, b"v");
    let bytes: Vec<u8> = (0..=255).collect();
    place.fed("put", &["bin"], &bytes).ok();
    assert_eq!(place.sluice("get", &["bin"]).ok().out, bytes);
    let file = place.file("value", b"from a file\n");
    place.sluice("put", &["file", "--file", &file]).ok();
    assert_eq!(place.sluice("get", &["file"]).ok().out, b"from a file\n");
    place.fed("put", &["dash", "--file", "-"], b"").ok();
    assert_eq!(place.sluice("get", &["dash"]).ok().out, b"");
    assert_eq!(place.sluice("get", &["bin", "--print", "hex"]).ok().text().len(), 513);
    assert_eq!(
        place.sluice("get", &["k", "--json"]).ok().json(),
        json!({"key": "k", "value": "v"})
    );
}

#[test]
fn keys_may_be_any_bytes() {
    let place = Place::new();
    place.sluice("put", &["ff00", "01", "--keys-as", "hex"]).ok();
    assert_eq!(place.sluice("get", &["\\xff\\x00", "--keys-as", "escaped"]).ok().out, [1]);
    assert_eq!(place.sluice("scan", &[]).ok().text(), "\\xff\\x00\t\\x01\n");
    let json = place.sluice("scan", &["--json"]).ok().json();
    assert_eq!(json, json!({"key_base64": "/wA=", "value": "\u{1}"}));
    place.sluice("get", &["xyz", "--keys-as", "hex"]).fails(2, "`xyz`");
}

#[test]
fn absent_things_are_not_found() {
    let place = Place::new();
    for command in ["get", "del"] {
        place.sluice(command, &["k"]).fails(3, "no database there");
    }
    for command in ["scan", "export", "stats", "levels", "verify", "compact"] {
        place.sluice(command, &[]).fails(3, "no database there");
    }
    assert!(!place.db().exists(), "looking must not create");
    place.sluice("put", &["k", "v"]).ok();
    place.sluice("get", &["x"]).fails(3, "no such key: x");
    place.sluice("del", &["k", "x", "--must-exist"]).fails(3, "no such key: x");
    place.sluice("get", &["k"]).ok();
    place.sluice("del", &["k", "x"]).ok();
    place.sluice("get", &["k"]).fails(3, "no such key: k");
}

#[test]
fn bad_requests_are_usage_errors() {
    let place = Place::new();
    place.sluice("put", &["", "v"]).fails(2, "key");
    place.sluice("put", &["k", "v", "--file", "x"]).fails(2, "cannot be used with");
    place.sluice("put", &[&"k".repeat(70_000), "v"]).fails(2, "65535");
    place.sluice("scan", &["--limit", "many"]).fails(2, "does not begin with a number");
    place.sluice("put", &["k", "v", "--memory", "5 parsecs"]).fails(2, "not a unit of size");
    sluice(&["frobnicate"], b"").fails(2, "unrecognized subcommand");
    // `verify` reads every file as it is, of all keyspaces.
    for ignored in [["--memory", "1MiB"], ["--options", "x"], ["--keyspace", "k"]] {
        let unexpected = format!("unexpected argument '{}'", ignored[0]);
        place.sluice("verify", &ignored).fails(2, &unexpected);
    }
    assert_eq!(sluice(&[], b"").code, 2);
    let help = sluice(&["--help"], b"").ok();
    assert!(help.text().contains("Exit codes: 0 ok, 1 failed, 2 usage, 3 not found"));
    assert!(sluice(&["--version"], b"").ok().text().starts_with("sluice "));
}

#[test]
fn scans_choose_order_and_bounds() {
    let place = Place::new();
    for key in ["a", "b", "ba", "bb", "c"] {
        place.sluice("put", &[key, "v"]).ok();
    }
    let keys = |args: &[&str]| {
        let args = [&["--keys-only"], args].concat();
        place.sluice("scan", &args).ok().text().replace('\n', " ")
    };
    assert_eq!(keys(&[]), "a b ba bb c ");
    assert_eq!(keys(&["--reverse"]), "c bb ba b a ");
    assert_eq!(keys(&["--prefix", "b"]), "b ba bb ");
    assert_eq!(keys(&["--prefix", "b", "--reverse", "--limit", "2"]), "bb ba ");
    assert_eq!(keys(&["--from", "b", "--to", "bb"]), "b ba ");
    assert_eq!(keys(&["--from", "bb"]), "bb c ");
    assert_eq!(keys(&["--to", "b", "--limit", "9"]), "a ");
    assert_eq!(keys(&["--limit", "0"]), "");
    place.sluice("scan", &["--from", "c", "--to", "a"]).fails(2, "--from is after --to");
    place.sluice("scan", &["--prefix", "b", "--from", "a"]).fails(2, "cannot be used with");
    assert_eq!(
        place.sluice("scan", &["--print", "base64", "--limit", "1"]).ok().text(),
        "YQ==\tdg==\n"
    );
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let place = Place::new();
    let lines = "some line of text\n".repeat(50_000);
    place.fed("import", &["-", "--format", "lines"], lines.as_bytes()).ok();
    let db = place.db();
    let mut child = crate::run::command(&["scan", db.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), &*ended.stderr), (Some(0), &b""[..]));
}
