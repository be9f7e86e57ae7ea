//! How much of the log is kept, and which ranges are flushed to free it. The clock is the
//! simulator's.

use crate::harness::Simulated;
use crate::kit::disk::content;
use crate::kit::oracle::Map;
use crate::kit::settings;
use sluicedb::{Db, Options, WriteBatch};
use sluicedb_storage::vfs::{CrashKind, Vfs};
use std::time::Duration;

const SEGMENT: u64 = 64 << 10;

/// Ranges `..b`, `b..c` and `c..`, with memtables that do not fill by themselves.
fn three_ranges() -> Options {
    let mut options = settings::tiny();
    options.initial_split_keys = vec![b"b".to_vec(), b"c".to_vec()];
    options.log_segment_bytes = SEGMENT;
    options.write_buffer_bytes = Some(16 << 20);
    options.memory_budget_bytes = 32 << 20;
    options.memtable_bytes = Some(64 << 10);
    options
}

/// Writes about `bytes` under `prefix` in small steps, and lets the engine work in between.
fn write(home: &Simulated, db: &Db, map: &mut Map, prefix: &str, bytes: usize) {
    for n in 0..bytes.div_ceil(1_000) {
        let (key, value) = (format!("{prefix}{n:05}").into_bytes(), vec![n as u8; 1_000]);
        home.run(db.put(&key, &value)).unwrap();
        map.insert(key, value);
        if n % 8 == 0 {
            home.simulator.settle();
        }
    }
    home.simulator.settle();
}

fn one(home: &Simulated, db: &Db, map: &mut Map, key: &str) {
    home.run(db.put(key, "cold")).unwrap();
    map.insert(key.into(), b"cold".to_vec());
}

/// Checks that the content survives the death of the process.
fn survives(home: &Simulated, map: &Map) {
    let home = home.reborn(home.disk.kill_clone());
    let db = home.open();
    assert_eq!(&home.run(content(&db)).unwrap(), map);
}

#[test]
fn x_09_a_cold_range_that_pins_the_log_is_flushed_by_itself() {
    for bounded in [true, false] {
        let mut options = three_ranges();
        options.idle_seal_after_ms = 0;
        options.log_retained_bytes_max = Some(if bounded { 4 * SEGMENT } else { 64 * SEGMENT });
        let (home, mut map) = (Simulated::with(11, options), Map::new());
        let db = home.open();
        one(&home, &db, &mut map, "a");
        one(&home, &db, &mut map, "c");
        write(&home, &db, &mut map, "b", 1 << 20);
        let stats = db.stats();
        if bounded {
            assert_eq!(stats.seals_log, 2, "each of the cold ones once: {stats:?}");
            assert!(stats.log_retained_bytes <= 4 * SEGMENT, "{stats:?}");
            assert!(stats.log_segments <= 5, "{stats:?}");
        } else {
            assert_eq!(stats.seals_log, 0);
            assert!(stats.log_retained_bytes > 8 * SEGMENT, "it would grow: {stats:?}");
        }
        assert!(stats.seals_size > 4, "{stats:?}");
        let causes = [stats.seals_size, stats.seals_log, stats.seals_flush, stats.seals_idle];
        assert_eq!(stats.seals, causes.iter().sum::<u64>() + stats.seals_pressure);
        assert_eq!(home.run(content(&db)).unwrap(), map);
        survives(&home, &map);
    }
}

/// Ranges are flushed one after the other, the oldest first, until the log is within its limit.
#[test]
fn many_cold_ranges_let_go_of_the_log_one_by_one() {
    let mut options = three_ranges();
    options.idle_seal_after_ms = 0;
    options.initial_split_keys = (b'b'..=b'y').map(|letter| vec![letter]).collect();
    options.log_retained_bytes_max = Some(2 * SEGMENT);
    let (home, mut map) = (Simulated::with(12, options), Map::new());
    let db = home.open();
    for letter in 'b'..='y' {
        one(&home, &db, &mut map, &letter.to_string());
    }
    write(&home, &db, &mut map, "a", 512 << 10);
    // These flushes were held back until their range had cooled down.
    home.simulator.advance(Duration::from_secs(10));
    home.simulator.settle();
    let stats = db.stats();
    assert!(stats.seals_log >= 24, "{stats:?}");
    assert!(stats.log_retained_bytes <= 2 * SEGMENT, "{stats:?}");
    survives(&home, &map);
}

#[test]
fn an_idle_range_is_sealed_where_that_frees_the_log() {
    let mut options = three_ranges();
    options.idle_seal_after_ms = 60_000;
    options.log_segment_bytes = 8 * SEGMENT;
    let (home, mut map) = (Simulated::with(13, options), Map::new());
    let db = home.open();
    one(&home, &db, &mut map, "a");
    // The log is in its second segment, and has used enough of it to leave it when idle.
    write(&home, &db, &mut map, "b", 640 << 10);
    home.simulator.advance(Duration::from_secs(59));
    home.simulator.settle();
    let stats = db.stats();
    assert_eq!((stats.seals_idle, stats.seals_log), (0, 0), "not yet: {stats:?}");
    assert!(stats.log_retained_bytes >= 8 * SEGMENT, "{stats:?}");
    home.simulator.advance(Duration::from_secs(121));
    home.simulator.settle();
    // An idle log is noticed after one to two periods.
    home.simulator.advance(Duration::from_secs(61));
    home.simulator.settle();
    let stats = db.stats();
    assert!(stats.seals_idle >= 1 && stats.log_retained_bytes == 0, "{stats:?}");
    assert!(stats.log_segments == 1, "{stats:?}");
    survives(&home, &map);

    // A memtable that pins no segment stays in memory, however often the engine looks.
    one(&home, &db, &mut map, "a2");
    one(&home, &db, &mut map, "c2");
    write(&home, &db, &mut map, "b", 70 << 10);
    let before = db.stats();
    assert!(before.seals_size > stats.seals_size && before.log_retained_bytes == 0, "{before:?}");
    for _ in 0..10 {
        home.simulator.advance(Duration::from_secs(3_600));
        home.simulator.settle();
    }
    let stats = db.stats();
    assert_eq!(stats.seals, before.seals);
    assert!(stats.active_bytes > 0);
}

#[test]
fn idle_ranges_give_memory_back_when_more_than_half_is_taken() {
    for (milliseconds, sealed) in [(60_000, true), (0, false)] {
        let mut options = three_ranges();
        options.idle_seal_after_ms = milliseconds;
        options.log_segment_bytes = 2 << 20;
        options.write_buffer_bytes = Some(1 << 20);
        options.memtable_bytes = Some(300 << 10);
        let (home, mut map) = (Simulated::with(14, options), Map::new());
        let db = home.open();
        // Much memory and little log: no closed segment exists, so nothing pins one.
        for (prefix, entries) in [("a", 3_500), ("b", 3_500), ("c", 4_000)] {
            let mut batch = WriteBatch::new();
            for n in 0..entries {
                let key = format!("{prefix}{n:04}").into_bytes();
                batch.put(key.clone(), []);
                map.insert(key, Vec::new());
            }
            home.run(db.write(batch)).unwrap();
        }
        home.simulator.settle();
        let stats = db.stats();
        let seals = (stats.seals, stats.seals_size);
        assert_eq!((seals, stats.log_retained_bytes), ((1, 1), 0), "{stats:?}");
        assert!(stats.active_bytes > 512 << 10, "{stats:?}");
        home.simulator.advance(Duration::from_secs(61));
        home.simulator.settle();
        home.simulator.advance(Duration::from_secs(61));
        home.simulator.settle();
        let stats = db.stats();
        assert_eq!(stats.seals_idle, u64::from(sealed), "as few as it takes: {stats:?}");
        assert_eq!(stats.active_bytes < 512 << 10, sealed, "{stats:?}");
        assert_eq!(home.run(content(&db)).unwrap(), map);
    }
}

/// `flush` is a checkpoint: nothing before it is replayed, whatever a crash leaves of the log, and
/// the segments closed by then are deleted.
#[test]
fn t002_07_what_was_flushed_needs_no_log() {
    for seed in 0..8 {
        let mut options = three_ranges();
        options.idle_seal_after_ms = 0;
        options.memtable_bytes = Some(1 << 20);
        let (home, mut map) = (Simulated::with(seed, options), Map::new());
        let db = home.open();
        for prefix in ["a", "b", "c"] {
            write(&home, &db, &mut map, prefix, 300 << 10);
        }
        let before = segments(&home);
        assert!(db.stats().log_segments > 10 && before > 10);
        home.run(db.flush()).unwrap();
        // This holds at its return, before any other actor runs.
        let stats = db.stats();
        assert_eq!((stats.log_segments, stats.log_retained_bytes), (1, 0), "{stats:?}");
        let left = segments(&home);
        assert!(left <= before, "they are kept for recycling, or gone: {left} of {before}");
        home.run(db.put("b later", "not flushed")).unwrap();
        for kind in CrashKind::each(seed) {
            let again = home.reborn(home.disk.crash_clone(kind));
            let db = again.open();
            assert!(db.stats().recovered_entries <= 1, "{kind:?}: {:?}", db.stats());
            let mut found = again.run(content(&db)).unwrap();
            found.remove(&b"b later"[..]);
            assert_eq!(found, map, "{kind:?}");
            drop(db);
            again.simulator.settle();
        }
    }
}

/// Planted: the log keeper does not get the old log; it keeps it for recycling.
#[test]
fn the_log_that_an_open_replayed_is_removed_behind_it() {
    for at_once in [true, false] {
        let mut options = three_ranges();
        options.memtable_bytes = Some(1 << 20);
        let (home, mut map) = (Simulated::with(21, options), Map::new());
        let db = home.open();
        write(&home, &db, &mut map, "b", 200 << 10);
        drop(db);
        home.simulator.settle();
        let log = segments(&home);
        assert!(log > 2, "{log}");
        let db = home.open();
        assert_eq!(db.stats().recovered_entries, map.len() as u64);
        if at_once {
            home.run(db.close()).unwrap();
        }
        home.simulator.settle();
        assert_eq!(segments(&home), 1);
        survives(&home, &map);
    }
}

/// The number of log files, spares included.
fn segments(home: &Simulated) -> usize {
    let names = home.disk.list(&home.dir).unwrap();
    names.iter().filter(|name| name.ends_with(".wal") || name.ends_with(".spare")).count()
}
