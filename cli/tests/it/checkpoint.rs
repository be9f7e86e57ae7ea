//! checkpoint: a copy, brought up to date; and that commands which read change nothing.

use crate::run::{Place, tree};

fn filled() -> Place {
    let place = Place::new();
    let text: String = (0..3000).map(|i| format!("value {i}\n")).collect();
    place.fed("import", &["-", "--format", "lines"], text.as_bytes()).ok();
    place
}

#[test]
fn a_checkpoint_is_made_and_brought_up_to_date() {
    let place = filled();
    let to = place.path("copy").display().to_string();
    let text = place.sluice("checkpoint", &[&to]).ok().text();
    assert!(text.contains("checkpoint of seqno 3,000") && text.contains("linked"), "{text}");
    let before = place.dump("db");
    assert_eq!(place.dump("copy"), before);
    place.on("copy", "verify", &[]).ok();

    place.sluice("checkpoint", &[&to]).fails(2, "empty");
    place.sluice("put", &["new", "value"]).ok();
    let json = place.sluice("checkpoint", &[&to, "--incremental", "--json"]).ok().json();
    assert!(json["tables_kept"].as_u64().unwrap() > 0 && json["seconds"].is_number(), "{json}");
    assert_eq!(place.dump("copy"), place.dump("db"));
    assert_ne!(place.dump("copy"), before);
    place.on("copy", "verify", &[]).ok();
    place.on("none", "checkpoint", &[&to]).fails(3, "no database there");
}

#[test]
fn commands_that_read_change_nothing() {
    let place = filled();
    let before = tree(&place.db());
    place.sluice("get", &["0"]);
    place.sluice("scan", &["--limit", "3"]).ok();
    place.sluice("export", &[]).ok();
    place.sluice("levels", &["--why"]).ok();
    place.sluice("verify", &[]).ok();
    let json = place.sluice("stats", &["--read-only", "--json"]).ok().json();
    assert_eq!(json["visible_seqno"], 3000, "{json}");
    assert!(json["ranges"][0]["level_bytes"].is_array(), "{json}");
    assert!(tree(&place.db()) == before, "something changed");
}
