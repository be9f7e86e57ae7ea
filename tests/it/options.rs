use crate::harness::{Home, PATIENCE, block_on};
use crate::kit::settings;
use sluicedb::{Durability, ErrorKind, Options, Preset};

type Change = fn(&mut Options);

/// A bad value for every field that has a range, and the beginning of the message.
fn bad() -> Vec<(Change, &'static str)> {
    vec![
        (|o| o.memory_budget_bytes = (4 << 20) - 1, "memory_budget_bytes is 4194303; it must be"),
        (|o| o.memory_budget_bytes = u64::MAX, "memory_budget_bytes is"),
        (
            |o| o.write_buffer_bytes = Some((1 << 20) - 1),
            "write_buffer_bytes is 1048575; it must be",
        ),
        (|o| o.write_buffer_bytes = Some(0), "write_buffer_bytes is 0; it must be"),
        (
            |o| o.write_buffer_bytes = Some(1 << 40),
            "write_buffer_bytes is 1099511627776; it must be",
        ),
        (|o| o.memtable_bytes = Some(4095), "memtable_bytes is 4095; it must be 4096..="),
        (|o| o.memtable_bytes = Some((128 << 20) + 1), "memtable_bytes is 134217729; it must be"),
        (|o| o.value_bytes_max = Some(0), "value_bytes_max is 0; it must be 1..="),
        (|o| o.value_bytes_max = Some((64 << 20) + 1), "value_bytes_max is 67108865; it must be"),
        (|o| o.batch_bytes_max = Some(1000), "batch_bytes_max is 1000; it must be"),
        (|o| o.batch_bytes_max = Some((128 << 20) + 1), "batch_bytes_max is 134217729; it must be"),
        (
            |o| o.log_segment_bytes = (64 << 10) - 1,
            "log_segment_bytes is 65535; it must be 65536..=",
        ),
        (
            |o| {
                o.memory_budget_bytes = 16 << 30;
                o.batch_bytes_max = Some(3 << 30);
            },
            "batch_bytes_max is 3221225472; it must be 65607..=2147483647",
        ),
        (|o| o.log_segment_bytes = (4 << 30) + 1, "log_segment_bytes is 4294967297; it must be"),
        (|o| o.commits_in_flight_max = 15, "commits_in_flight_max is 15; it must be 16..=65536"),
        (|o| o.commits_in_flight_max = 131_072, "commits_in_flight_max is 131072; it must be"),
        (
            |o| o.commits_in_flight_max = 100,
            "commits_in_flight_max is 100; it must be a power of two",
        ),
        (|o| o.block_bytes = 255, "block_bytes is 255; it must be 256..=1048576"),
        (|o| o.block_bytes = (1 << 20) + 1, "block_bytes is 1048577; it must be"),
        (|o| o.restart_interval = 0, "restart_interval is 0; it must be 1..=128"),
        (|o| o.restart_interval = 129, "restart_interval is 129; it must be"),
        (|o| o.restart_interval = 24, "restart_interval is 24; it must be a power of two"),
        (|o| o.filter_bits_per_key = 25, "filter_bits_per_key is 25; it must be 0..=24"),
        (|o| o.l0_trigger_tables = 0, "l0_trigger_tables is 0; it must be 1..=1000"),
        (|o| o.l0_trigger_tables = 1001, "l0_trigger_tables is 1001; it must be"),
        (|o| o.l0_tables_max = 4, "l0_tables_max is 4; it must be 5..=10000"),
        (|o| o.shards_per_range = 0, "shards_per_range is 0; it must be 1..=64"),
        (|o| o.shards_per_range = 65, "shards_per_range is 65; it must be"),
        (|o| o.l0_tables_max = 10_001, "l0_tables_max is 10001; it must be"),
        (|o| o.level_base_bytes = 4095, "level_base_bytes is 4095; it must be 4096..="),
        (|o| o.level_base_bytes = u64::MAX, "level_base_bytes is"),
        (|o| o.level_ratio = 1, "level_ratio is 1; it must be 2..=1000"),
        (|o| o.level_ratio = 1001, "level_ratio is 1001; it must be"),
        (|o| o.l0_bytes_max = 0, "l0_bytes_max is 0; it must be 1..="),
        (|o| o.l0_entries_max = 0, "l0_entries_max is 0; it must be 1..="),
        (|o| o.level_base_entries = 0, "level_base_entries is 0; it must be 1..="),
        (|o| o.tombstone_percent_max = 0, "tombstone_percent_max is 0; it must be 1..=100"),
        (|o| o.tombstone_percent_max = 101, "tombstone_percent_max is 101; it must be"),
        (|o| o.table_bytes_max = 4095, "table_bytes_max is 4095; it must be 4096..="),
        (|o| o.landing_runs_max = 65, "landing_runs_max is 65; it must be 0..=64"),
        (|o| o.drain_ratio = 0, "drain_ratio is 0; it must be 1..="),
        (|o| o.rest_after_ms = 604_800_001, "rest_after_ms is 604800001; it must be 0..=604800000"),
        (|o| o.sync_polling_us = 1001, "sync_polling_us is 1001; it must be 0..=1000"),
        (|o| o.read_polling_us = 1001, "read_polling_us is 1001; it must be 0..=1000"),
        (|o| o.landing_batch = 0, "landing_batch is 0; it must be 1..=64"),
        (|o| o.keep_trigger = 0.5, "keep_trigger is 0.5; it must be at least 1.0"),
        (|o| o.keep_trigger = f64::NAN, "keep_trigger is NaN; it must be at least 1.0"),
        (|o| o.landing_parallelism = Some(0), "landing_parallelism is 0; it must be 1..=64"),
        (|o| o.compaction_threads = Some(0), "compaction_threads is 0; it must be 1..=64"),
        (|o| o.compaction_threads = Some(65), "compaction_threads is 65; it must be"),
        (
            |o| o.compaction_bytes_per_second = Some((64 << 10) - 1),
            "compaction_bytes_per_second is 65535; it must be 65536..=",
        ),
        (|o| o.read_threads = 0, "read_threads is 0; it must be 1..=64"),
        (|o| o.read_threads = 65, "read_threads is 65; it must be"),
        (
            |o| o.engine_cores = vec![5000],
            "engine_cores names core 5000, which this process may not use",
        ),
        (|o| o.initial_split_keys = vec![vec![]], "initial_split_keys[0] is empty; leave it out"),
        (
            |o| o.initial_split_keys = vec![vec![1; 65_536]],
            "initial_split_keys[0] is 65536 bytes long; give at most 65535",
        ),
        (
            |o| o.initial_split_keys = vec![b"a".to_vec(), b"a".to_vec()],
            "initial_split_keys[1] is the same as initial_split_keys[0]; leave one of them out",
        ),
        (
            |o| o.initial_split_keys = vec![b"b".to_vec(), b"c".to_vec(), b"a".to_vec()],
            "initial_split_keys[2] is less than initial_split_keys[1]; sort them",
        ),
        (
            |o| o.initial_split_keys = (0..16_384_u16).map(|n| n.to_be_bytes().to_vec()).collect(),
            "initial_split_keys has 16384 keys; give at most 16383",
        ),
        #[cfg(feature = "zstd")]
        (
            |o| o.compression = sluicedb::Compression::Zstd(23),
            "zstd level is 23; it must be 1..=22",
        ),
    ]
}

#[test]
fn every_field_out_of_range_is_named_and_nothing_is_created() {
    for (change, message) in bad() {
        let mut options = Options::default();
        change(&mut options);
        let home = Home::with(options.clone());
        let error = block_on(home.builder().open()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().starts_with(message), "{error} should begin with {message}");
        assert_eq!(options.validate().unwrap_err().to_string(), error.to_string());
        assert!(!home.path().exists());
    }
}

/// The ends of every range are accepted.
#[test]
fn every_field_at_its_ends_works() {
    let ends: Vec<Change> = vec![
        |o| o.memory_budget_bytes = 4 << 20,
        |o| o.cache_bytes = Some(0),
        |o| o.memtable_bytes = Some(4096),
        |o| o.memtable_bytes = Some(512 << 10),
        |o| o.value_bytes_max = Some(100),
        |o| o.batch_bytes_max = Some(65_535 + 4096),
        |o| o.commits_in_flight_max = 16,
        |o| o.commits_in_flight_max = 65_536,
        |o| o.block_bytes = 256,
        |o| o.block_bytes = 1 << 20,
        |o| o.restart_interval = 1,
        |o| o.restart_interval = 128,
        |o| o.filter_bits_per_key = 0,
        |o| o.filter_bits_per_key = 24,
        |o| {
            o.l0_trigger_tables = 1;
            o.l0_tables_max = 2;
        },
        |o| o.level_base_bytes = 4096,
        |o| o.level_ratio = 1000,
        |o| o.table_bytes_max = 4096,
        |o| o.table_bytes_max = u64::MAX,
        |o| o.landing_runs_max = 0,
        |o| o.landing_runs_max = 64,
        |o| o.drain_ratio = u64::MAX,
        |o| o.rest_after_ms = 0,
        |o| o.rest_after_ms = 1,
        |o| o.landing_batch = 64,
        |o| o.keep_trigger = f64::INFINITY,
        |o| o.landing_parallelism = Some(64),
        |o| o.tombstone_age_max_ms = 0,
        |o| o.tombstone_age_max_ms = 1,
        |o| o.compaction_threads = Some(1),
        |o| o.compaction_threads = Some(64),
        |o| o.compaction_bytes_per_second = Some(64 << 10),
        |o| o.compaction_bytes_per_second = Some(u64::MAX),
        |o| o.read_threads = 64,
        |o| o.engine_cores = vec![usable_cores()[0]],
        |o| o.initial_split_keys = vec![b"key0030".to_vec()],
        |o| o.initial_split_keys = (1..=255).map(|n| format!("key{n:04}").into_bytes()).collect(),
        |o| o.initial_split_keys = vec![b"k".to_vec(), vec![0xFF; 65_535]],
        |o| o.log_mapped = false,
        |o| o.durability = Durability::Synced,
        |o| {
            o.durability = Durability::Synced;
            o.sync_polling_us = 1000;
        },
        |o| {
            o.durability = Durability::Synced;
            o.sync_polling_us = 0;
        },
    ];
    for change in ends {
        let mut options = settings::tiny();
        change(&mut options);
        let home = Home::with(options);
        let db = home.open();
        block_on(async {
            for n in 0..120 {
                db.put(format!("key{:04}", n % 60), vec![n as u8; 90]).await.unwrap();
            }
            db.compact().await.unwrap();
            for n in 60..120 {
                let value = db.get(format!("key{:04}", n % 60)).await.unwrap().unwrap();
                assert_eq!(value[..], [n as u8; 90]);
            }
            db.close().await.unwrap();
        });
    }
}

#[test]
fn presets_and_the_one_number() {
    assert_eq!(Options::default(), Options::preset(Preset::Balanced));
    for preset in [Preset::WriteHeavy, Preset::ReadHeavy, Preset::Seed] {
        assert_ne!(Options::preset(preset), Options::default());
        let home = Home::with(Options::preset(preset));
        block_on(home.open().put("a", "1")).unwrap();
    }
    let home = Home::with(Options::default());
    let db = block_on(home.builder().memory_budget(8 << 20).open()).unwrap();
    let stats = db.stats();
    assert_eq!(stats.write_buffer_bytes, 4 << 20);
    assert_eq!(stats.cache_capacity_bytes, 4 << 20);
    let home = Home::new();
    let db = block_on(home.builder().durability(Durability::Synced).open()).unwrap();
    block_on(db.put("a", "1")).unwrap();
    assert_eq!(db.durable_seqno(), 1);
}

/// Options belong to an open, not to the files: each of them may change at the next open.
#[test]
fn options_may_change_between_opens() {
    let mut home = Home::new();
    let mut chance = crate::kit::chance::Chance::new(8);
    let mut expected = crate::kit::oracle::Map::new();
    for round in 0..12 {
        home.options = settings::drawn(&mut chance);
        let db = home.open();
        block_on(async {
            crate::harness::check(&db, &expected).await.unwrap();
            for n in 0..60 {
                let key = format!("key{:03}", (n * 7 + round * 13) % 200).into_bytes();
                db.put(&key, vec![round as u8; 50]).await.unwrap();
                expected.insert(key, vec![round as u8; 50]);
            }
            if round % 2 == 0 {
                db.close().await.unwrap();
            }
        });
    }
    block_on(crate::harness::check(&home.open(), &expected)).unwrap();
}

/// The cores that this process may use.
fn usable_cores() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    cores_in(&status).unwrap_or_else(|| vec![0])
}

/// The cores in the `status` of a thread.
fn cores_in(status: &str) -> Option<Vec<usize>> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut cores = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cores)
}

/// Planted: an option that goes nowhere.
#[cfg(target_os = "linux")]
#[test]
fn the_threads_of_an_engine_stay_on_its_cores() {
    let core = *usable_cores().last().unwrap();
    if usable_cores().len() == 1 {
        eprintln!("SKIPPED: this process may use one core only");
        return;
    }
    let mut options = settings::tiny();
    options.engine_cores = vec![core];
    let home = Home::with(options);
    let db = home.open();
    // Databases of other tests are open in this process, and run anywhere. A thread has its name
    // some time after it was started.
    let kept = || {
        let mut kept = Vec::new();
        for thread in std::fs::read_dir("/proc/self/task").unwrap() {
            let path = thread.unwrap().path();
            let file = |name: &str| std::fs::read_to_string(path.join(name));
            let (Ok(name), Ok(status)) = (file("comm"), file("status")) else { continue };
            if cores_in(&status).is_some_and(|cores| cores == [core]) {
                kept.push(name.trim().to_owned());
            }
        }
        kept
    };
    let names = ["sluice-wal", "sluice-flush", "sluice-merge-0", "sluice-read-0", "sluice-wake"];
    let begun = std::time::Instant::now();
    while !names.iter().all(|name| kept().iter().any(|kept| kept == name)) {
        assert!(begun.elapsed() < PATIENCE, "{names:?} are not all among {:?}", kept());
        std::thread::yield_now();
    }
    drop(db);
    assert!(usable_cores().len() > 1, "the caller's thread goes where it went");
}

/// Planted: half of a large write buffer, which no record of the log can hold.
#[test]
fn the_default_limits_of_a_large_budget_are_valid() {
    let options = Options { memory_budget_bytes: 64 << 30, ..Options::default() };
    options.validate().unwrap();
    assert_eq!(options.effective_batch_bytes_max(), (2 << 30) - 1);
}
