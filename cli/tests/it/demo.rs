//! demo: good data gives a good verdict; the demo itself can fail.

use crate::run::{Place, sluice};

fn corpus() -> (Place, String) {
    let place = Place::new();
    for i in 0..40 {
        let text: String = (0..50).map(|line| format!("file {i} line {line}\n")).collect();
        place.file(&format!("data/{}/{i}.txt", i % 3), text);
    }
    let folder = place.path("data").display().to_string();
    (place, folder)
}

#[test]
fn a_small_folder_passes() {
    let (_place, folder) = corpus();
    let ran = sluice(&["demo", "--folder", &folder, "--kills", "1"], b"").ok();
    let text = ran.text();
    for step in [
        "import, 4 tasks",
        "overwrite and delete",
        "they meet at file/m, line/",
        "checkpoint, opened read-only",
        "replace in another database",
        "compare every value",
        "kill -9 a writer, reopen",
        "scan in reverse",
        "compact",
        "verify every checksum",
        "acknowledged batches, all there",
        "mailbox",
    ] {
        let step = if step == "mailbox" { "waiting" } else { step };
        assert!(text.contains(step), "no {step:?} in:\n{text}");
    }
    assert!(text.trim_end().lines().last().unwrap().starts_with("OK: "), "{text}");
}

#[test]
fn the_json_report_is_complete() {
    let (place, folder) = corpus();
    let keep = place.path("kept").display().to_string();
    let args = ["demo", "--folder", &folder, "--kills", "1", "--json", "--keep", &keep];
    let json = sluice(&args, b"").ok().json();
    assert_eq!((&json["ok"], &json["mismatches"]), (&true.into(), &0.into()), "{json}");
    assert!(json["steps"].as_array().unwrap().len() >= 10);
    assert!(json["levels"].is_array() && json["actors"].is_array());
    place.on("kept", "verify", &[]).ok();
    sluice(&args, b"").fails(2, "exists");
}

#[test]
fn an_empty_folder_is_a_usage_error() {
    let place = Place::new();
    std::fs::create_dir(place.path("empty")).unwrap();
    let folder = place.path("empty").display().to_string();
    sluice(&["demo", "--folder", &folder], b"").fails(2, "no files to import");
}
