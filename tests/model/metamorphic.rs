//! Options decide how work is done, never an answer: the same history under very different options
//! gives the same answers.

use crate::case::{self, Setup};
use crate::kit::chance::{Chance, Replay, seeds};
use crate::kit::settings;
use crate::operation;
use sluicedb::{Compression, Durability, Options};

fn variants() -> Vec<(&'static str, Options)> {
    let mut large = Options::default();
    large.durability = Durability::Synced;
    large.memory_budget_bytes = 16 << 20;
    large.log_segment_bytes = 1 << 20;

    let mut smallest = settings::tiny();
    smallest.cache_bytes = Some(0);
    smallest.l0_trigger_tables = 1;
    smallest.l0_tables_max = 2;
    smallest.shards_per_range = 64;
    smallest.level_base_bytes = 4096;
    smallest.level_ratio = 2;
    smallest.table_bytes_max = 4096;
    smallest.filter_bits_per_key = 0;
    smallest.restart_interval = 1;
    smallest.commits_in_flight_max = 16;
    smallest.compression = Compression::None;
    smallest.log_mapped = false;

    let mut no_levels = settings::tiny();
    no_levels.l0_trigger_tables = 500;
    no_levels.l0_tables_max = 1000;
    no_levels.filter_bits_per_key = 24;
    no_levels.l0_compression = Compression::Lz4;

    let mut one_table = settings::tiny();
    one_table.table_bytes_max = u64::MAX;
    one_table.shards_per_range = 1;
    one_table.restart_interval = 128;
    one_table.block_bytes = 64 << 10;

    let mut many_ranges = settings::tiny();
    many_ranges.initial_split_keys = ["cold/1", "cold/2", "hot", "hot/10", "hot/20", "p"]
        .map(|key| key.as_bytes().to_vec())
        .to_vec();

    let mut ranges_change = many_ranges.clone();
    ranges_change.ranges_max = Some(16);
    ranges_change.range_bytes_max = 8 << 10;
    ranges_change.range_heat_max = 10;
    ranges_change.ranges_merge = true;
    ranges_change.range_cooldown_ms = 10;

    vec![
        ("large", large),
        ("ranges change", ranges_change),
        ("many ranges", many_ranges),
        ("smallest", smallest),
        ("no levels", no_levels),
        ("one table", one_table),
    ]
}

#[test]
fn options_never_change_an_answer() {
    for seed in seeds(5_000, 30) {
        let _replay = Replay { binary: "model", test: "options_never_change_an_answer", seed };
        let mut chance = Chance::new(seed);
        let history = operation::history(&mut chance, 200, true);
        let mut first = None;
        for (name, options) in variants() {
            let setup = Setup {
                seed,
                options,
                threads: false,
                cold_reads: chance.one_in(2),
                can_map: true,
            };
            let (_, answers) = case::run(&setup, &history)
                .unwrap_or_else(|what| crate::shrink::report(name, &setup, &history, what));
            match &first {
                None => first = Some(answers),
                Some(first) => assert_eq!(*first, answers, "{name}"),
            }
        }
    }
}
