//! A database of several key ranges: what a user sees of them, and what stays hidden.

use crate::harness::{Home, Simulated, block_on};
use crate::kit::disk::content;
use crate::kit::oracle::{Map, difference};
use crate::kit::settings;
use sluicedb::{Db, ErrorKind, LevelInfo, Options, WriteBatch};
use sluicedb_storage::vfs::fault::EIO;
use sluicedb_storage::vfs::{CrashKind, Fault, OperationKind};
use std::time::Duration;

fn split_at(keys: &[&str]) -> Options {
    let mut options = settings::tiny();
    options.initial_split_keys = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
    options
}

/// The ranges, as pairs of ends, in key order.
fn ranges(db: &Db) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut ranges: Vec<_> = db
        .level_info()
        .into_iter()
        .map(|LevelInfo { range_start, range_end, .. }| (range_start, range_end))
        .collect();
    ranges.dedup();
    ranges
}

fn range(start: &str, end: Option<&str>) -> (Vec<u8>, Option<Vec<u8>>) {
    (start.as_bytes().to_vec(), end.map(|end| end.as_bytes().to_vec()))
}

/// Keys on both sides of each boundary, and on it, are routed as the boundaries say, and stay
/// there.
#[test]
fn t002_12_keys_at_the_boundaries_are_found_in_their_range_also_after_a_restart() {
    let home = Home::with(split_at(&["g", "n", "n\0"]));
    let wanted =
        [range("", Some("g")), range("g", Some("n")), range("n", Some("n\0")), range("n\0", None)];
    let keys = ["\0", "a", "f\u{7f}", "g", "g\0", "m", "n", "n\0", "n\0\0", "z", "\u{7f}"];
    let tables_of = |db: &Db| -> Vec<u64> {
        let entries = |(start, _): &(Vec<u8>, _)| {
            let infos = db.level_info();
            infos.iter().filter(|info| info.range_start == *start).map(|info| info.entries).sum()
        };
        ranges(db).iter().map(entries).collect()
    };
    block_on(async {
        let db = home.builder().open().await.unwrap();
        assert_eq!(ranges(&db), wanted);
        for key in keys {
            db.put(key, key).await.unwrap();
        }
        db.flush().await.unwrap();
        assert_eq!(tables_of(&db), [3, 3, 1, 4], "each entry is in its own range's tables");
        db.close().await.unwrap();
    });
    block_on(async {
        // Other split keys, or none, change nothing in a database that exists.
        let other = Home::path(&home);
        let db = Db::builder(other).options(split_at(&["b"])).open().await.unwrap();
        assert_eq!(ranges(&db), wanted);
        for key in keys {
            assert_eq!(db.get(key).await.unwrap().as_deref(), Some(key.as_bytes()));
        }
        let all = content(&db).await.unwrap();
        assert_eq!(all.len(), keys.len());
        db.close().await.unwrap();
    });
    let summary = sluicedb::verify(home.path(), |_, _| {}).unwrap();
    assert!(summary.is_sound(), "{:?}", summary.findings);
    assert!(summary.tables >= 4);
}

/// A database of 32 ranges, each with an entry in memory.
fn many_ranges(seed: u64) -> (Simulated, Db) {
    let bounds: Vec<_> = (1..32).map(|n| format!("{n:02}")).collect();
    let bounds: Vec<_> = bounds.iter().map(String::as_str).collect();
    let home = Simulated::with(seed, split_at(&bounds));
    let db = home.open();
    for n in 0..32 {
        home.run(db.put(format!("{n:02}"), "v")).unwrap();
    }
    (home, db)
}

/// Planted: a group of one flush.
#[test]
fn small_flushes_share_their_syncs() {
    let (home, db) = many_ranges(5);
    let before = db.stats();
    home.run(db.flush()).unwrap();
    let after = db.stats();
    assert_eq!(after.flushes - before.flushes, 32);
    // The first install may go alone.
    let syncs = after.manifest_syncs - before.manifest_syncs;
    assert!(syncs <= 4, "{syncs} syncs for 32 flushes");
}

/// Goal: what was written before the failure is installed, and no other flush pauses.
#[test]
fn a_flush_that_fails_among_others_fails_alone() {
    let (home, db) = many_ranges(6);
    home.faults.arm(Fault::of(OperationKind::Create).named(".tmp").after(5).errno(EIO));
    let failed = home.run(db.flush()).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Io, "{failed:?}");
    home.simulator.settle();
    assert_eq!(db.stats().flushes, 31, "it pauses, and no other does");
    home.simulator.advance(Duration::from_secs(1));
    home.run(db.flush()).unwrap();
    assert_eq!(db.stats().flushes, 32);
    assert_eq!(home.run(content(&db)).unwrap().len(), 32);
    assert!(db.health().state().is_running(), "{:?}", db.health().state());
}

/// A power cut leaves a batch over all ranges whole or absent, also when the tables of some ranges
/// are durable and no writer has synced the log.
#[test]
fn x_11_a_batch_over_many_ranges_is_one_batch_also_in_a_crash() {
    let home = Simulated::with(3, split_at(&["2", "4", "6", "8"]));
    let db = home.open();
    let mut promised = Map::new();
    let mut disks = Vec::new();
    for round in 0..40_u8 {
        let mut batch = WriteBatch::new();
        for key in 0..10 {
            // One range is hot: it is flushed over and over while the others are not.
            let len = if key == 5 { 900 } else { 30 };
            let value = vec![round; len];
            batch.put([b'0' + key], &value);
            promised.insert(vec![b'0' + key], value);
        }
        home.run(db.write(batch)).unwrap();
        home.simulator.settle();
        if round % 5 == 4 {
            disks.extend(CrashKind::each(9).map(|kind| (kind, home.disk.crash_clone(kind))));
        }
    }
    let found = home.run(content(&db)).unwrap();
    assert_eq!(difference(&promised, &found), None);
    assert!(db.stats().flushes > 5, "the hot range was flushed");
    home.simulator.kill();
    drop(db);
    for (kind, disk) in disks {
        let reborn = home.reborn(disk);
        let db = reborn.open();
        let found = reborn.run(content(&db)).unwrap();
        let rounds: std::collections::BTreeSet<_> = found.values().map(|value| value[0]).collect();
        assert_eq!((found.len(), rounds.len()), (10, 1), "{kind:?}: parts of batches: {rounds:?}");
        assert_eq!(ranges(&db).len(), 5);
        reborn.simulator.kill();
    }
}

/// Goal: while the routes change again and again, nobody notices. Every later get, scan and
/// snapshot, also of another task, finds an acknowledged write; sequence numbers rise; a restart
/// finds all of it.
/// Method: writers of single keys and of batches over all ranges, each with a counter per key.
/// Readers check that no counter is behind the value acknowledged before they began.
///
/// Planted: a new owner without the former one's sealed memtables; a flush that is installed for a
/// range that is gone. (The model checker shows that readers need `born`:
/// `a_get_finds_what_came_before_a_change`.)
#[test]
fn changes_of_routes_beside_writers_and_readers_lose_nothing() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    const WRITERS: usize = 4;
    const ROUNDS: u64 = 400;
    let home = Home::with(split_at(&["b", "c", "d"]));
    let db = home.open();
    let acknowledged: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
    let (acknowledged, done) = (&acknowledged, &AtomicBool::new(false));
    let keys = |writer: usize| ["a", "b", "c", "d"].map(|range| format!("{range}{writer}"));
    let number = |value: Option<bytes::Bytes>| {
        value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse::<u64>().unwrap())
    };
    std::thread::scope(|threads| {
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let db = &db;
            threads.spawn(move || {
                for round in 1..=ROUNDS {
                    if writer % 2 == 0 {
                        let mut batch = WriteBatch::new();
                        for key in keys(writer) {
                            batch.put(key, round.to_string());
                        }
                        block_on(db.write(batch)).unwrap();
                    } else {
                        for key in keys(writer) {
                            block_on(db.put(key, round.to_string())).unwrap();
                        }
                    }
                    acknowledged.store(round, Ordering::SeqCst);
                }
            });
        }
        for reader in 0..2 {
            let db = &db;
            threads.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    for (writer, least) in acknowledged.iter().enumerate() {
                        let least = least.load(Ordering::SeqCst);
                        let snapshot = db.snapshot();
                        for key in keys(writer) {
                            let now = number(block_on(db.get(&key)).unwrap());
                            assert!(now >= least, "{key} is {now}, {least} was acknowledged");
                            let then = number(block_on(snapshot.get(&key)).unwrap());
                            assert!(then >= least, "{key} was {then}, {least} was acknowledged");
                        }
                        if reader == 1 && writer % 2 == 0 {
                            let all = keys(writer)
                                .map(|key| number(block_on(snapshot.get(key)).unwrap()));
                            assert!(all.iter().all(|one| *one == all[0]), "half a batch: {all:?}");
                        }
                    }
                }
            });
        }
        let all_written = || acknowledged.iter().all(|one| one.load(Ordering::SeqCst) == ROUNDS);
        let mut changes = 0;
        while !all_written() || changes <= 30 {
            changes += 1;
            let at = ["a2", "b", "b1", "c", "c3", "d"][changes % 6];
            let there = db.ranges().iter().any(|range| range.start == at.as_bytes());
            block_on(async { if there { db.merge_at(at).await } else { db.split_at(at).await } })
                .unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    let stats = db.stats();
    assert!(stats.changes > 2 && stats.flushes > 0, "{stats:?}");
    block_on(db.close()).unwrap();
    let db = home.open();
    for writer in 0..WRITERS {
        for key in keys(writer) {
            assert_eq!(number(block_on(db.get(&key)).unwrap()), ROUNDS, "{key}");
        }
    }
    block_on(db.close()).unwrap();
}
