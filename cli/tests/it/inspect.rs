//! stats, levels, verify, compact: tables for people, JSON for machines.

use crate::run::Place;

fn filled() -> Place {
    let place = Place::new();
    let text: String = (0..5000).map(|i| format!("value {i}\n")).collect();
    place.fed("import", &["-", "--format", "lines"], text.as_bytes()).ok();
    place
}

#[test]
fn stats_tell_counters_levels_and_mailboxes() {
    let place = filled();
    let text = place.sluice("stats", &[]).ok().text();
    for word in ["visible seqno", "cache hits", "pressure", "range 1 [..)", "actor", "waiting"] {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
    for word in ["tables landed", "keeps", "drains", "runs per read", "written per byte", "paced"] {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
    let json = place.sluice("stats", &["--json"]).ok().json();
    assert!(json["keeps"]["runs"].is_number() && json["write_amplification"].is_number());
    assert!(json["visible_seqno"].is_number() && json["levels"].is_array(), "{json}");
    let range = &json["ranges"][0];
    assert_eq!(
        (&range["range_start"], &range["range_end"]),
        (&"".into(), &serde_json::Value::Null),
        "{json}"
    );
    assert!(range["sealed_memtables"].is_number() && range["level_bytes"].is_array(), "{json}");
    assert!(
        json["pressure"]["level"].is_number() && json["overloaded_local"].is_number(),
        "{json}"
    );
    let actors = json["actors"].as_array().unwrap();
    assert!(!actors.is_empty());
    assert!(actors.iter().all(|actor| actor["mailbox_capacity"].is_number()), "{json}");
}

#[test]
fn levels_hold_what_was_imported() {
    let place = filled();
    place.sluice("compact", &[]).ok();
    let json = place.sluice("levels", &["--json"]).ok().json();
    let entries: u64 =
        json.as_array().unwrap().iter().map(|level| level["entries"].as_u64().unwrap()).sum();
    assert_eq!(entries, 5000);
    let text = place.sluice("levels", &[]).ok().text();
    assert!(text.contains("L0") && text.contains("5,000"), "{text}");
}

#[test]
fn levels_are_drawn_in_eighty_columns_and_say_why() {
    let place = filled();
    place.sluice("compact", &["--to-level", "1"]).ok();
    let text = place.sluice("levels", &[]).ok().text();
    let (_, picture) = text.split_once("range 1 [..)\n").expect("the picture follows the table");
    assert!(picture.contains("landing of L1     -") && picture.contains(" of 320.0 MiB"), "{text}");
    assert!(picture.lines().all(|line| line.len() <= 80), "{text}");
    assert!(!text.contains("Due now"), "{text}");
    let text = place.sluice("levels", &["--why"]).ok().text();
    for word in ["Due now", "Not due:\n  L0: waits; 0 of 4 runs"] {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
    let json = place.sluice("levels", &["--why", "--json"]).ok().json();
    let why = json["why"].as_array().unwrap();
    assert_eq!((&why[0]["level"], &why[0]["choice"]), (&0.into(), &"wait".into()), "{json}");
    assert!(why[0]["words"].as_str().unwrap().starts_with("waits; "), "{json}");
    assert!(json["levels"][1]["shards"].is_array(), "{json}");
}

#[test]
fn a_compaction_says_what_it_chose() {
    let place = filled();
    let text = place.sluice("compact", &["--why"]).ok().text();
    for word in ["choice", "manual", "\n  drain       a part"] {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
    place.sluice("put", &["a", "b"]).ok();
    let json = place.sluice("compact", &["--json"]).ok().json();
    assert_eq!(json["decisions"][0]["choice"], "manual", "{json}");
}

#[test]
fn options_may_come_from_a_file() {
    let place = filled();
    let file = place.path("options.json");
    std::fs::write(&file, r#"{"level_base_bytes": 1048576, "keep_trigger": null}"#).unwrap();
    let file = file.to_str().unwrap();
    place.sluice("compact", &["--options", file]).ok();
    let json = place.sluice("levels", &["--json", "--options", file]).ok().json();
    assert_eq!(json[1]["bytes_max"], 10 << 20, "{json}");
    std::fs::write(file, r#"{"level_base": 1}"#).unwrap();
    place.sluice("levels", &["--options", file]).fails(2, "level_base");
}

#[test]
fn a_sound_database_verifies() {
    let place = filled();
    place.sluice("compact", &[]).ok();
    let text = place.sluice("verify", &[]).ok().text();
    assert!(text.starts_with("ok: "), "{text}");
    let json = place.sluice("verify", &["--json"]).ok().json();
    assert_eq!((&json["ok"], &json["entries"]), (&true.into(), &5000.into()), "{json}");
    assert!(json["findings"].as_array().unwrap().is_empty());
}

#[test]
fn compaction_leaves_only_what_lives() {
    let place = filled();
    let keys: Vec<String> = (1..=100).map(|i| format!("{i:012}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    place.sluice("del", &keys).ok();
    let json = place.sluice("compact", &["--json"]).ok().json();
    let after = json["after"].as_array().unwrap();
    let sum = |field: &str| after.iter().map(|level| level[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("entries"), sum("tombstones")), (4900, 0), "{json}");
    let again = place.sluice("scan", &["--limit", "1", "--keys-only"]).ok().text();
    assert_eq!(again, "000000000101\n");
}

#[test]
fn a_compaction_may_be_of_some_keys_and_into_a_level() {
    let place = filled();
    let count = |json: &serde_json::Value, level: usize, field: &str| {
        json["after"][level][field].as_u64().unwrap_or(0)
    };
    let json = place.sluice("compact", &["--to-level", "2", "--json"]).ok().json();
    assert_eq!((count(&json, 1, "entries"), count(&json, 2, "entries")), (0, 5000), "{json}");
    let merged = &json["merged"];
    assert!(merged["done_bytes"].as_u64().unwrap() > 0, "{json}");
    assert_eq!(merged["done_bytes"], merged["total_bytes"], "{json}");
    // A deleted key stays a tombstone where nobody compacts.
    place.sluice("del", &["000000000001", "000000004000"]).ok();
    let json = place.sluice("compact", &["--prefix", "z", "--json"]).ok().json();
    assert_eq!(json["merged"]["done_bytes"], 0, "{json}");
    let json = place.sluice("compact", &["--to", "000000000002", "--json"]).ok().json();
    assert!(json["merged"]["done_bytes"].as_u64().unwrap() > 0, "{json}");
    place.sluice("compact", &["--to-level", "8"]).fails(2, "8 is not in 1..=7");
    place.sluice("compact", &["--from", "b", "--to", "a"]).fails(2, "--from is after --to");
    place.sluice("compact", &["--from", "b", "--prefix", "a"]).fails(2, "cannot be used with");
}

#[test]
fn tables_have_no_colour_in_a_pipe() {
    let place = filled();
    for command in ["stats", "levels", "verify"] {
        assert!(!place.sluice(command, &[]).ok().text().contains('\x1b'));
    }
}
