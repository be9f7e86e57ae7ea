//! Ranges that the engine splits and merges by itself: when, where, and that callers do not notice.
//!
//! The clock is the simulator's: the planner looks whenever the test lets ten seconds pass.

use crate::harness::{Simulated, check, fill};
use crate::kit::oracle::{Map, difference};
use crate::kit::settings;
use futures::StreamExt;
use sluicedb::{Compression, Db, KeyspaceOptions, Options, RangeInfo};
use std::time::Duration;

const LOOK: Duration = Duration::from_secs(10);

/// The planner looks every ten seconds, and no limit is set.
fn options() -> Options {
    let mut options = settings::tiny();
    options.compression = Compression::None;
    options.ranges_max = Some(8);
    options.range_bytes_max = u64::MAX;
    options.range_cooldown_ms = 40_000;
    options
}

fn looks(home: &Simulated, count: usize) {
    for _ in 0..count {
        home.simulator.advance(LOOK);
        home.simulator.settle();
    }
}

fn starts(db: &Db) -> Vec<Vec<u8>> {
    db.ranges().into_iter().map(|range| range.start).collect()
}

/// Puts `rate` keys a second, of `prefix000` to `prefix199`, for `looks` looks.
fn heat(home: &Simulated, db: &Db, map: &mut Map, prefix: &str, rate: usize, looks: usize) {
    for _ in 0..looks {
        for n in 0..rate * LOOK.as_secs() as usize {
            let (key, value) = (format!("{prefix}{:03}", n * 7 % 200), format!("{n}"));
            home.run(db.put(&key, &value)).unwrap();
            map.insert(key.into_bytes(), value.into_bytes());
        }
        self::looks(home, 1);
    }
}

/// The name of a limit, how to set it, and whether a range keeps it.
type Limited = (&'static str, fn(&mut Options), fn(&RangeInfo) -> bool);

/// Goal: large ranges are split until none is large. Scans under way continue as they were, and a
/// restart finds the same ranges.
/// Planted: the first key as the median; a look that is not repeated.
#[test]
fn a_range_that_is_too_large_is_split_and_nobody_notices() {
    let by: [Limited; 2] = [
        ("bytes", |o| o.range_bytes_max = 24 << 10, |range| range.table_bytes <= 24 << 10),
        ("entries", |o| o.range_entries_max = 150, |range| range.entries <= 150),
    ];
    for (cause, limit, fits) in by {
        let mut options = options();
        limit(&mut options);
        let home = Simulated::with(1, options);
        let db = home.open();
        let before = home.run(fill(&db, 300, 80));
        let snapshot = db.snapshot();
        let mut scan = db.scan(..);
        let first = home.run(scan.next()).unwrap().unwrap();
        assert_eq!(first.0, b"key0000"[..]);
        let map = home.run(fill(&db, 600, 100));
        home.run(db.flush()).unwrap();
        looks(&home, 5);
        let (stats, ranges) = (db.stats(), db.ranges());
        let splits = [stats.splits_bytes, stats.splits_entries, stats.splits_heat];
        let ours = ["bytes", "entries", "heat"].map(|other| u64::from(other == cause));
        let wanted = ours.map(|ours| ours * (ranges.len() as u64 - 1));
        assert_eq!((splits, stats.changes), (wanted, ranges.len() as u64 - 1), "{cause}");
        assert!(ranges.len() > 2 && ranges.iter().all(fits), "{cause}: {ranges:?}");
        home.run(check(&db, &map)).unwrap();
        let mut found = Map::from([(first.0.to_vec(), first.1.to_vec())]);
        home.run(async {
            while let Some(entry) = scan.next().await {
                let (key, value) = entry.unwrap();
                found.insert(key.to_vec(), value.to_vec());
            }
        });
        assert_eq!(difference(&before, &found), None, "{cause}");
        for (key, value) in &before {
            assert_eq!(home.run(snapshot.get(key)).unwrap().as_deref(), Some(&value[..]));
        }
        drop((scan, snapshot));
        home.run(db.close()).unwrap();
        let parted = ranges.into_iter().map(|range| range.start).collect::<Vec<_>>();
        let db = home.open();
        looks(&home, 5);
        assert_eq!(starts(&db), parted, "as it was");
        home.run(check(&db, &map)).unwrap();
        home.run(db.close()).unwrap();
    }
}

/// Planted: a limit of ranges that is one too high.
#[test]
fn where_there_may_be_no_more_ranges_none_is_split() {
    for most in [1, 3] {
        let mut options = options();
        options.range_bytes_max = 4096;
        options.range_entries_max = 16;
        options.range_heat_max = 1;
        options.ranges_max = Some(most);
        let home = Simulated::with(2, options);
        let db = home.open();
        let mut map = home.run(fill(&db, 500, 100));
        home.run(db.flush()).unwrap();
        heat(&home, &db, &mut map, "key0", 50, 10);
        assert_eq!((db.ranges().len(), db.stats().changes), (most, most as u64 - 1));
        home.run(check(&db, &map)).unwrap();
        home.run(db.close()).unwrap();
    }
}

/// Goal: a hot range is split among the keys that are written now, not among the stored ones. The
/// reported heat is true.
/// Planted: the median of the tables; heat as the total number of batches.
#[test]
fn a_hot_range_is_split_between_the_keys_that_are_written() {
    let mut options = options();
    options.range_heat_max = 40;
    options.memtable_bytes = Some(64 << 10);
    let home = Simulated::with(3, options);
    let db = home.open();
    let mut map = home.run(fill(&db, 1000, 100));
    home.run(db.flush()).unwrap();
    looks(&home, 10);
    assert_eq!(db.ranges().len(), 1, "a burst");
    heat(&home, &db, &mut map, "hot", 60, 3);
    let [range] = &db.ranges()[..] else { panic!("{:?}", starts(&db)) };
    assert!((40..=60).contains(&range.batches_per_second), "{range:?}");
    heat(&home, &db, &mut map, "hot", 60, 4);
    let stats = db.stats();
    let tries = stats.range_tries_failed;
    assert_eq!((stats.splits_heat, stats.changes), (1, 1), "{tries} failed; {:?}", db.ranges());
    let at = starts(&db).remove(1);
    assert!(at > b"hot060".to_vec() && at < b"hot140".to_vec(), "{:?}", at.escape_ascii());
    // Each half has some of the heat.
    heat(&home, &db, &mut map, "hot", 60, 10);
    let ranges = db.ranges();
    assert!(ranges.iter().all(|range| (10..40).contains(&range.batches_per_second)), "{ranges:?}");
    assert_eq!(ranges.len(), 2);
    home.run(check(&db, &map)).unwrap();
    looks(&home, 20);
    assert!(db.ranges().iter().all(|range| range.batches_per_second == 0), "it has cooled down");
    home.run(db.close()).unwrap();
}

/// Goal: ranges that were hot are merged again, also after a restart. Ranges at a caller's boundary
/// are merged only where an option asks for it.
/// Planted: a merge while one of them is warm.
#[test]
fn small_ranges_are_merged_when_they_have_cooled_down() {
    for merges in [true, false] {
        let mut options = options();
        options.range_heat_max = 40;
        options.ranges_merge = merges;
        options.initial_split_keys = ["b", "f", "hot100"].map(Vec::from).to_vec();
        let home = Simulated::with(4, options);
        let db = home.open();
        let mut map = Map::new();
        heat(&home, &db, &mut map, "hot", 30, 20);
        // Writers use both sides of the last bound.
        let left: &[&str] = if merges { &["", "f", "hot100"] } else { &["", "b", "f", "hot100"] };
        assert_eq!(starts(&db), left.iter().map(|at| Vec::from(*at)).collect::<Vec<_>>());
        home.run(db.close()).unwrap();
        let db = home.open();
        looks(&home, 60);
        assert_eq!(db.ranges().len(), if merges { 1 } else { 4 }, "{:?}", db.ranges());
        assert_eq!(db.stats().merges_cold > 0, merges);
        home.run(check(&db, &map)).unwrap();
        home.run(db.close()).unwrap();
    }
}

/// Goal: a single key, however hot or large, does not make the planner try for ever.
/// Planted: a pause that does not grow; a split with nothing on one side; a look that waits for
/// work that is not due yet.
#[test]
fn t002_13_what_cannot_be_split_is_hardly_tried() {
    let mut options = options();
    options.range_bytes_max = 4096;
    options.l0_trigger_tables = 100;
    options.l0_tables_max = 200;
    options.ranges_merge = true;
    // All its data stays in L0.
    options.rest_after_ms = 0;
    let home = Simulated::with(5, options);
    let db = home.open();
    let mut map = Map::new();
    for n in 0..20_u8 {
        home.run(db.put("one", [n; 3000])).unwrap();
        home.run(db.flush()).unwrap();
    }
    map.insert(b"one".to_vec(), vec![19; 3000]);
    looks(&home, 100);
    let stats = db.stats();
    assert_eq!((stats.changes, db.ranges().len()), (0, 1));
    assert!((3..=6).contains(&stats.range_tries_failed), "{}", stats.range_tries_failed);
    // A postponed split does not stop the looks.
    for n in 0..500_u32 {
        home.run(db.put("one", n.to_be_bytes())).unwrap();
    }
    home.run(db.put("one", [19; 3000])).unwrap();
    home.run(db.flush()).unwrap();
    looks(&home, 1);
    assert!(db.ranges()[0].batches_per_second > 0);
    // Two keys: one range for each, and no more.
    home.run(db.put("two", [2; 5000])).unwrap();
    map.insert(b"two".to_vec(), vec![2; 5000]);
    home.run(db.flush()).unwrap();
    looks(&home, 1000);
    let [_, at] = &starts(&db)[..] else { panic!("{:?}", starts(&db)) };
    assert!(at > &b"one".to_vec() && at <= &b"two".to_vec(), "{}", at.escape_ascii());
    assert_eq!(db.stats().changes, 1);
    home.run(check(&db, &map)).unwrap();
    home.run(db.close()).unwrap();

    let mut options = self::options();
    options.range_heat_max = 20;
    let home = Simulated::with(7, options);
    let db = home.open();
    for look in 0..60 {
        for n in 0..400 {
            home.run(db.put("one", [look; 100])).unwrap();
            assert!(n > 0 || db.ranges().len() == 1, "one hot key");
        }
        looks(&home, 1);
    }
    let stats = db.stats();
    assert_eq!(stats.changes, 0);
    assert!((3..=5).contains(&stats.range_tries_failed), "{}", stats.range_tries_failed);
    home.run(db.close()).unwrap();
}

/// Goal: over a long time with bursts of heat here and there, ranges change now and then and do not
/// flap. All data is found at each moment.
/// Planted: a cooldown that is ignored.
#[test]
fn ranges_do_not_flap() {
    let mut options = options();
    options.range_bytes_max = 256 << 10;
    options.range_heat_max = 10;
    options.ranges_merge = true;
    let home = Simulated::with(6, options);
    let mut db = home.open();
    let (mut map, mut changes) = (Map::new(), 0);
    for round in 0..20 {
        // A minute in one place, a minute in the other, then a rest that is shorter than a
        // cooldown.
        heat(&home, &db, &mut map, if round % 2 == 0 { "a" } else { "b" }, 30, 6);
        looks(&home, 2);
        home.run(check(&db, &map)).unwrap();
        if round == 10 {
            changes += db.stats().changes;
            home.run(db.close()).unwrap();
            db = home.open();
        }
    }
    changes += db.stats().changes;
    assert!((2..=8).contains(&changes), "{changes} in 40 cooldowns");
    looks(&home, 100);
    assert_eq!(db.ranges().len(), 1, "it is cold, and there is little: {:?}", db.ranges());
    home.run(check(&db, &map)).unwrap();
    home.run(db.close()).unwrap();
}

/// Goal: a limit that is set has an effect, however small the memory: the database's, and a
/// keyspace's own. Only `ranges_max` switches it off.
/// Planted: a derived `ranges_max` of 1.
#[test]
fn a_limit_splits_a_range_also_where_memory_is_small() {
    for of_keyspace in [false, true] {
        let mut options = options();
        options.ranges_max = None;
        if !of_keyspace {
            options.range_bytes_max = 24 << 10;
        }
        let home = Simulated::with(4, options);
        let db = home.open();
        let own = KeyspaceOptions { range_bytes_max: Some(24 << 10), ..KeyspaceOptions::default() };
        let db = if of_keyspace { home.run(db.keyspace_with("own", own)).unwrap() } else { db };
        home.run(fill(&db, 600, 100));
        home.run(db.flush()).unwrap();
        looks(&home, 5);
        assert_eq!(db.ranges().len(), 2);
        home.run(db.close()).unwrap();
    }
}
