//! bench: every workload runs, counts right, and says what it was measured on.

use crate::run::{Place, sluice};

fn bench(args: &[&str]) -> serde_json::Value {
    let common =
        ["bench", "--json", "--tasks", "3", "--entries", "2000", "--durability", "buffered"];
    sluice(&[&common[..], args].concat(), b"").ok().json()
}

#[test]
fn every_workload_counts_right() {
    for (workload, order) in [
        ("fill", "random"),
        ("fill", "sequential"),
        ("fill", "zipf"),
        ("read", "random"),
        ("read", "zipf"),
        ("read", "sequential"),
        ("scan", "random"),
        ("mixed", "random"),
    ] {
        let json = bench(&["--workload", workload, "--order", order, "--count", "500"]);
        assert_eq!(
            (&json["operations"], &json["missing"]),
            (&500.into(), &0.into()),
            "{workload} {order}"
        );
        assert!(json["latency_ns"]["p99.9"].as_u64().unwrap() > 0);
        assert!(json["machine"]["cores"].as_u64().unwrap() > 0);
        assert_eq!(json["durability"], "buffered");
    }
    let json = bench(&["--workload", "fill", "--count", "50", "--batch", "10"]);
    assert_eq!((&json["operations"], &json["entries"]), (&50.into(), &500.into()));
    let json = bench(&["--workload", "read", "--count", "50", "--batch", "10", "--settle"]);
    assert_eq!((&json["entries"], &json["missing"]), (&500.into(), &0.into()));
}

#[test]
fn the_table_names_hardware_durability_and_sizes() {
    let args = ["bench", "--count", "100", "--tasks", "2", "--durability", "synced"];
    let text = sluice(&args, b"").ok().text();
    for word in
        ["machine", "cores", "durability  synced", "the budget of 512.0 MiB", "p99.9", "heartbeat"]
    {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
}

#[test]
fn a_duration_ends_it_and_a_path_is_kept() {
    let place = Place::new();
    let path = place.path("bench.db").display().to_string();
    let args = ["--duration", "200ms", "--path", &path];
    let json = bench(&args);
    assert!(json["seconds"].as_f64().unwrap() < 20.0);
    assert!(json["operations"].as_u64().unwrap() > 0);
    place.on("bench.db", "verify", &[]).ok();
    sluice(&["bench", "--path", &path], b"").fails(2, "exists");
}

#[test]
fn impossible_plans_are_usage_errors() {
    sluice(&["bench", "--key-bytes", "0"], b"").fails(2, "--key-bytes must be");
    sluice(&["bench", "--key-bytes", "4"], b"").fails(2, "need --key-bytes 8");
    sluice(&["bench", "--theta", "1"], b"").fails(2, "--theta");
    sluice(&["bench", "--workload", "dance"], b"").fails(2, "invalid value");
    sluice(&["bench", "--count", "5", "--duration", "5s"], b"").fails(2, "cannot be used with");
}

#[test]
fn o10_the_smallest_plans_are_plans_and_none_is_less() {
    let one = ["--workload", "read", "--order", "zipf", "--entries", "1", "--count", "20"];
    let common = ["bench", "--json", "--tasks", "1", "--durability", "buffered"];
    let json = sluice(&[&common[..], &one].concat(), b"").ok().json();
    assert_eq!((&json["entries"], &json["missing"]), (&20.into(), &0.into()));
    let scan = ["--workload", "scan", "--scan-entries", "1", "--entries", "9", "--count", "5"];
    let json = sluice(&[&common[..], &scan].concat(), b"").ok().json();
    assert_eq!((&json["entries"], &json["missing"]), (&5.into(), &0.into()));
    sluice(&["bench", "--workload", "scan", "--scan-entries", "0"], b"").fails(2, "scan-entries");
}
