//! Reads of one entry, and scans that seek.

use crate::harness::Simulated;
use crate::kit::chance::Chance;
use crate::kit::oracle::Map;
use crate::kit::settings;
use futures::stream::FusedStream;
use futures::{StreamExt, TryStreamExt};
use sluicedb::{Db, Options, ReadOnlyDb, WriteBatch};
use sluicedb_storage::vfs::{Fault, OperationKind};

fn key(n: usize) -> Vec<u8> {
    format!("k{n:04}").into_bytes()
}

/// Fills the database: half in tables, some deleted and overwritten.
async fn fill(db: &Db, chance: &mut Chance) -> Map {
    let mut map = Map::new();
    for round in 0..600 {
        let key = key(chance.below(400) * 2);
        if chance.one_in(5) {
            db.delete(&key).await.unwrap();
            map.remove(&key);
        } else {
            let value = vec![round as u8; chance.below(200)];
            db.put(&key, &value).await.unwrap();
            map.insert(key, value);
        }
        if round == 300 {
            db.flush().await.unwrap();
        }
    }
    map
}

/// A batch of anything, now and then, and what a view shows with it.
fn over(map: &Map, chance: &mut Chance) -> (WriteBatch, Map) {
    let (mut batch, mut map) = (WriteBatch::new(), map.clone());
    let operations = if chance.one_in(2) { chance.below(60) } else { 0 };
    for _ in 0..operations {
        let at = chance.below(900);
        match chance.below(4) {
            0 => {
                batch.delete(key(at));
                map.remove(&key(at));
            }
            1 => {
                let end = at + chance.below(20);
                batch.delete_range(key(at)..key(end));
                map.retain(|one, _| !(key(at)..key(end)).contains(one));
            }
            _ => {
                batch.put(key(at), "mine");
                map.insert(key(at), b"mine".to_vec());
            }
        }
    }
    (batch, map)
}

/// Goal: after any seek a scan continues from there, at its instant and in its range, also with a
/// batch over it, and in ranges that share memtables.
///
/// Planted: a walk that enters a range at a key of the one before; a limit that counts the skipped
/// entries; a seek inside the read-ahead that does not compare its first entry with the key; a seek
/// that leaves the scan's range; one that goes on behind an entry that is lent.
#[test]
fn a_scan_goes_on_where_it_is_told() {
    for seed in 0..10 {
        let mut chance = Chance::new(seed);
        let mut options = settings::tiny();
        if seed % 2 == 1 {
            options.initial_split_keys = vec![key(200), key(500)];
        }
        let home = Simulated::with(seed, options);
        let db = home.open();
        home.run(async {
            let written = fill(&db, &mut chance).await;
            for turn in 0..30 {
                if turn % 10 == 5 {
                    db.split_at(key(chance.below(800))).await.unwrap();
                }
                let (lo, hi) = (chance.below(300), 400 + chance.below(500));
                let (batch, map) = over(&written, &mut chance);
                let mut scan = db.snapshot().with_batch(&batch).unwrap().scan(key(lo)..key(hi));
                let reverse = chance.one_in(2);
                if reverse {
                    scan = scan.rev();
                }
                let mut left = chance.one_in(2).then(|| 1 + chance.below(60));
                if let Some(left) = left {
                    scan = scan.limit(left as u64);
                }
                // Written later, so not seen, under a key that did not exist.
                db.put(key(lo | 1), "later").await.unwrap();
                let inside = || map.range(key(lo)..key(hi)).map(|(key, _)| key.clone());
                let mut wanted: Vec<_> = inside().collect();
                if reverse {
                    wanted.reverse();
                }
                for _ in 0..12 {
                    let most = if chance.one_in(4) { 300 } else { 8 };
                    let lends = chance.one_in(2);
                    for _ in 0..chance.below(most) {
                        let next = if left == Some(0) { None } else { wanted.first().cloned() };
                        let found = if lends || chance.one_in(8) {
                            let entry = scan.next_entry().await.unwrap();
                            assert!(entry.is_none_or(|(key, value)| map[key] == value));
                            entry.map(|(key, _)| key.to_vec())
                        } else {
                            scan.try_next().await.unwrap().map(|(key, _)| key.to_vec())
                        };
                        assert_eq!(found, next, "seed {seed}");
                        if next.is_some() {
                            wanted.remove(0);
                            left = left.map(|left| left - 1);
                        }
                    }
                    // Often to what was read already and not handed out.
                    let ahead = wanted.get(chance.below(12)).filter(|_| chance.one_in(2));
                    let to = ahead.cloned().unwrap_or_else(|| key(chance.below(1000)));
                    scan.seek(&to);
                    wanted = if reverse {
                        inside().filter(|key| *key <= to).rev().collect()
                    } else {
                        inside().filter(|key| *key >= to).collect()
                    };
                }
                db.delete(key(lo | 1)).await.unwrap();
            }
        });
    }
}

#[test]
fn a_scan_that_has_ended_says_so_and_may_be_sent_back() {
    let home = Simulated::new(1);
    let db = home.open();
    home.run(async {
        for n in 0..3 {
            db.put(key(n), "v").await.unwrap();
        }
        let mut scan = db.scan(..);
        assert!(!scan.is_terminated());
        assert_eq!(scan.by_ref().count().await, 3);
        assert!(scan.is_terminated());
        assert!(scan.next().await.is_none());
        scan.seek(key(2));
        assert!(!scan.is_terminated());
        assert_eq!(scan.count().await, 1);
    });
}

#[test]
fn the_first_and_the_last_entry_of_a_range() {
    for seed in 0..4 {
        let mut chance = Chance::new(seed);
        let home = Simulated::new(seed);
        let db = home.open();
        let map = home.run(async {
            let map = fill(&db, &mut chance).await;
            for _ in 0..100 {
                let (a, b) = (key(chance.below(900)), key(chance.below(900)));
                let inside = || map.iter().filter(|(key, _)| **key >= a && **key < b);
                let told = |entry: Option<(bytes::Bytes, bytes::Bytes)>| {
                    entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
                };
                let first = inside().next().map(|(key, value)| (key.clone(), value.clone()));
                let last = inside().next_back().map(|(key, value)| (key.clone(), value.clone()));
                let (snapshot, range) = (db.snapshot(), &a..&b);
                assert_eq!(told(db.first(&range).await.unwrap()), first);
                assert_eq!(told(db.last(&range).await.unwrap()), last);
                assert_eq!(told(snapshot.first(&range).await.unwrap()), first);
                assert_eq!(told(snapshot.last(range).await.unwrap()), last);
            }
            db.close().await.unwrap();
            map
        });
        drop(db);
        let (first, last) = (map.keys().next(), map.keys().next_back());
        let db: ReadOnlyDb = home.run(home.builder().open_read_only()).unwrap();
        let found = home.run(db.first(..)).unwrap().map(|(key, _)| key.to_vec());
        assert_eq!(found.as_ref(), first);
        let found = home.run(db.last(..)).unwrap().map(|(key, _)| key.to_vec());
        assert_eq!(found.as_ref(), last);
    }
}

#[test]
fn lengths_are_told_without_the_values() {
    let mut options: Options = settings::tiny();
    options.cache_bytes = Some(0);
    let home = Simulated::with(2, options);
    let db = home.open();
    home.run(async {
        let map = fill(&db, &mut Chance::new(2)).await;
        let snapshot = db.snapshot();
        for n in 0..800 {
            let wanted = map.get(&key(n)).map(|value| value.len() as u64);
            assert_eq!(db.value_len(key(n)).await.unwrap(), wanted);
            assert_eq!(snapshot.value_len(key(n)).await.unwrap(), wanted);
        }
        let mut batch = db.batch();
        batch.put("mine", [1; 7]).delete(key(2));
        let mine = snapshot.with_batch(&batch).unwrap();
        assert_eq!(mine.value_len("mine").await.unwrap(), Some(7));
        assert_eq!(mine.value_len(key(2)).await.unwrap(), None);

        let (mut scan, mut found) = (db.scan(..).keys_only(), Vec::new());
        // One entry by the stream, and the rest of its batch as a batch.
        let (first, empty) = scan.try_next().await.unwrap().unwrap();
        assert!(empty.is_empty());
        while let Some(batch) = scan.next_chunk().await.unwrap() {
            for at in 0..batch.len() {
                assert!(batch.value(at).is_empty());
                found.push((batch.key(at).to_vec(), batch.value_len(at)));
            }
        }
        let lengths = map.iter().map(|(key, value)| (key.clone(), value.len()));
        let wanted: Vec<_> = lengths.filter(|(key, _)| *key != first[..]).collect();
        assert_eq!(found, wanted);
        let batch = db.scan(..).next_chunk().await.unwrap().unwrap();
        assert_eq!(batch.value_len(0), batch.value(0).len());
    });
    home.faults.arm(Fault::of(OperationKind::Read).named(".sst").sticky());
    home.faults.arm(Fault::of(OperationKind::Read).sticky());
    let failed = (0..800).filter(|n| home.run(db.value_len(key(*n))).is_err()).count();
    assert!(failed > 0, "tables are read");
}

#[test]
fn an_open_database_tells_its_limits() {
    let options =
        Options { value_bytes_max: Some(5000), batch_bytes_max: Some(100_000), ..settings::tiny() };
    let home = Simulated::with(3, options);
    let db = home.open();
    let limits = db.limits();
    assert_eq!((limits.value_bytes_max, limits.batch_bytes_max), (5000, 100_000));
    home.run(async {
        db.put(vec![1; limits.key_bytes_max as usize], vec![1; 5000]).await.unwrap();
        db.put(vec![1; limits.key_bytes_max as usize + 1], "").await.unwrap_err();
        db.put("k", vec![1; 5001]).await.unwrap_err();
    });
}

/// Planted: the place that `seek` has noted for a walk forward is kept for a walk back.
#[test]
fn a_scan_that_turns_before_its_first_entry_begins_at_its_other_end() {
    let home = Simulated::new(9);
    let db = home.open();
    home.run(async {
        db.split_at("m").await.unwrap();
        for key in ["c", "x"] {
            db.put(key, "").await.unwrap();
        }
        for target in ["a", "c", "n", "z"] {
            let mut scan = db.scan("b"..);
            scan.seek(target);
            let entries: Vec<_> = scan.rev().try_collect().await.unwrap();
            let keys: Vec<_> = entries.iter().map(|(key, _)| &key[..]).collect();
            assert_eq!(keys, [&b"x"[..], b"c"], "{target}");
        }
    });
}
