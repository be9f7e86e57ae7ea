//! What export writes, import reads back: in every format, for text and for any bytes.

use crate::run::{Place, tree};

/// Keys and values with everything that formats stumble over.
fn awkward(place: &Place) -> String {
    let mut text = String::new();
    let odd = [
        "plain",
        "with,comma",
        "with\"quote",
        "line\nbreak",
        "tab\there",
        "b\\\\ack",
        "\u{fc}\u{1F600}",
        "",
    ];
    for (i, value) in odd.iter().enumerate() {
        let key = if value.is_empty() { "empty" } else { value };
        text += &serde_json::json!({"key": format!("{i}{key}"), "value": value}).to_string();
        text.push('\n');
    }
    text += "{\"key_base64\":\"/wAK\",\"value_base64\":\"gP8i\"}\n";
    place.file("awkward.jsonl", text)
}

fn round_trip(format: &str, encoding: &str) {
    let place = Place::new();
    place.sluice("import", &[&awkward(&place)]).ok();
    let before = place.dump("db");
    assert_eq!(before.lines().count(), 9);
    let args: &[&str] = if encoding.is_empty() { &[] } else { &["--encoding", encoding] };
    let exported = place.sluice("export", &[&["--format", format], args].concat()).ok().out;
    let file = place.file("exported", &exported);
    place.on("again", "import", &[&file, "--format", format]).ok();
    assert_eq!(place.dump("again"), before, "{format} {encoding}");
}

#[test]
fn jsonl() {
    round_trip("jsonl", "");
}

#[test]
fn csv_in_every_encoding() {
    for encoding in ["raw", "escaped", "hex", "base64"] {
        round_trip("csv", encoding);
    }
}

#[test]
fn tsv_in_every_encoding() {
    for encoding in ["raw", "escaped", "hex", "base64"] {
        round_trip("tsv", encoding);
    }
}

#[test]
fn lines_by_number() {
    let place = Place::new();
    let text = "one\n\nthree \u{fc}\n";
    let file = place.file("in.txt", text);
    place.sluice("import", &[&file]).ok();
    assert_eq!(place.sluice("export", &["--format", "lines"]).ok().text(), text);
    place.sluice("put", &["x", "two\nlines"]).ok();
    let ran = place.sluice("export", &["--format", "lines"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("the value of x has a line break"), "{}", ran.err);
    let escaped = place.sluice("export", &["--format", "lines", "--encoding", "escaped"]).ok();
    assert!(escaped.text().ends_with("two\\nlines\n"));
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let place = Place::new();
    for (name, content) in [("a", &b"A"[..]), ("d/e/f.bin", &[0, 1, 255]), ("d/empty", b"")] {
        place.file(&format!("in/{name}"), content);
    }
    let from = place.path("in").display().to_string();
    let to = place.path("out").display().to_string();
    place.sluice("import", &[&from]).ok();
    place.sluice("export", &["--format", "tree", "--output", &to]).ok();
    assert_eq!(tree(&place.path("out")), tree(&place.path("in")));
}

#[test]
fn hostile_keys_do_not_leave_the_directory() {
    for key in ["../evil", "/tmp/sluice-evil", "a/../../evil", "a//b"] {
        let place = Place::new();
        place.sluice("put", &[key, "x"]).ok();
        let to = place.path("out/deep").display().to_string();
        let ran = place.sluice("export", &["--format", "tree", "--output", &to]);
        ran.fails(1, "is not a plain relative path");
        assert!(!place.path("out/evil").exists() && !place.path("evil").exists());
    }
}

#[test]
fn files_selections_and_summaries() {
    let place = Place::new();
    for key in ["a1", "a2", "b1"] {
        place.sluice("put", &[key, "v"]).ok();
    }
    let to = place.path("out.csv").display().to_string();
    let args = ["--output", &to, "--prefix", "a", "--json"];
    let summary = place.sluice("export", &args).ok().json();
    assert_eq!(summary["entries"], 2);
    let written = std::fs::read_to_string(place.path("out.csv")).unwrap();
    assert_eq!(written, "key,value\na1,v\na2,v\n", "the extension decides the format");
    place.sluice("export", &["--json"]).fails(2, "add --output");
    place.sluice("export", &["--format", "tree"]).fails(2, "--output DIR");
    place.sluice("export", &["--encoding", "hex"]).fails(2, "--encoding is for csv");
}

/// Planted: a bound on a record that only base64 was thought of for.
#[test]
fn a_long_value_of_control_bytes() {
    let place = Place::new();
    let value = place.file("value", vec![1; 33 << 20]);
    place.sluice("put", &["key", "--file", &value]).ok();
    let exported = place.sluice("export", &["--format", "jsonl"]).ok().out;
    assert!(exported.len() > 6 * (33 << 20), "each byte has six");
    let file = place.file("exported", &exported);
    place.on("again", "import", &[&file, "--format", "jsonl"]).ok();
    let back = place.on("again", "get", &["key", "--print", "raw"]).ok().out;
    assert_eq!(back.len(), 33 << 20);
}

/// Where the data goes to a file, the message names that file.
#[test]
#[cfg(target_os = "linux")]
fn an_export_that_cannot_be_written_names_its_file() {
    let place = Place::new();
    place.sluice("put", &["key", &"v".repeat(5000)]).ok();
    for format in ["jsonl", "csv", "lines"] {
        let ran = place.sluice("export", &["--format", format, "--output", "/dev/full"]);
        assert_eq!(ran.code, 7, "{}", ran.err);
        assert!(ran.err.contains("/dev/full: "), "{}", ran.err);
    }
}
