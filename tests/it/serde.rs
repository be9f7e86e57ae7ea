use sluicedb::{Compression, Durability, Options, Preset};

#[test]
fn options_survive_a_round_trip() {
    let mut options = crate::kit::settings::tiny();
    options.compression = Compression::None;
    options.cache_bytes = None;
    let text = serde_json::to_string(&options).unwrap();
    assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), options);
}

#[test]
fn what_has_no_limit_survives_formats_without_such_numbers() {
    let mut options = Options::default();
    options.keep_trigger = f64::INFINITY;
    let written = serde_json::to_value(&options).unwrap();
    let numbers = written.as_object().unwrap().values().filter_map(serde_json::Value::as_u64);
    assert!(numbers.max() <= Some(i64::MAX as u64), "TOML has no larger ones: {written}");
    assert_eq!((&written["range_bytes_max"], &written["keep_trigger"]), (&().into(), &().into()));
    assert_eq!(serde_json::from_value::<Options>(written).unwrap(), options);
    let told = r#"{"range_bytes_max": 18446744073709551615, "l0_bytes_max": 1048576}"#;
    let told: Options = serde_json::from_str(told).unwrap();
    assert_eq!((told.range_bytes_max, told.l0_bytes_max), (u64::MAX, 1 << 20));
}

/// Planted: a number that TOML does not have; a field that is left out although its default is
/// another limit.
#[test]
fn every_preset_goes_through_toml_and_back() {
    for preset in [Preset::Balanced, Preset::WriteHeavy, Preset::ReadHeavy, Preset::Seed] {
        let mut options = Options::preset(preset);
        for keep_trigger in [options.keep_trigger, f64::INFINITY] {
            options.keep_trigger = keep_trigger;
            let text = toml::to_string(&options).unwrap();
            assert_eq!(toml::from_str::<Options>(&text).unwrap(), options, "{preset:?}: {text}");
            let json = serde_json::to_string(&options).unwrap();
            assert_eq!(serde_json::from_str::<Options>(&json).unwrap(), options, "{preset:?}");
        }
    }
    // As it was written in JSON.
    let told = r#"{"table_bytes_max": 18446744073709551615}"#;
    assert_eq!(serde_json::from_str::<Options>(told).unwrap().table_bytes_max, u64::MAX);
}

#[test]
fn a_misspelt_option_is_named() {
    let error = serde_json::from_str::<Options>(r#"{"memory_buget_bytes": 1}"#).unwrap_err();
    assert!(error.to_string().contains("memory_buget_bytes"), "{error}");
}

#[test]
fn a_part_of_the_options_is_enough() {
    let text = r#"{"memory_budget_bytes": 67108864, "durability": "Buffered", "cache_bytes": 0}"#;
    let options: Options = serde_json::from_str(text).unwrap();
    let mut wanted = Options::default();
    wanted.memory_budget_bytes = 64 << 20;
    wanted.durability = Durability::Buffered;
    wanted.cache_bytes = Some(0);
    assert_eq!(options, wanted);
    options.validate().unwrap();
}

#[test]
fn stats_and_levels_can_be_written_down() {
    let home = crate::harness::Home::new();
    let db = home.open();
    crate::harness::block_on(crate::harness::fill(&db, 200, 60));
    crate::harness::block_on(db.compact()).unwrap();
    let stats = serde_json::to_value(db.stats()).unwrap();
    assert_eq!(stats["commits"], 200);
    let levels = serde_json::to_value(db.level_info()).unwrap();
    assert!(levels.as_array().is_some_and(|levels| !levels.is_empty()));
}

#[test]
fn pins_can_be_written_down() {
    let home = crate::harness::Home::new();
    let db = home.open();
    let _snapshot = db.snapshot_labelled("backup");
    let pins = serde_json::to_value(db.pins()).unwrap();
    assert_eq!((&pins[0]["holder"], &pins[0]["label"]), (&"Snapshot".into(), &"backup".into()));
    let stats = serde_json::to_value(db.stats()).unwrap();
    assert_eq!(stats["pinned_obsolete_tables"], 0);
}

#[test]
fn an_unknown_option_of_a_keyspace_is_refused() {
    let told = r#"{"filter_bits_per_kye": 0}"#;
    let error = serde_json::from_str::<sluicedb::KeyspaceOptions>(told).unwrap_err();
    assert!(error.to_string().contains("filter_bits_per_kye"), "{error}");
}
