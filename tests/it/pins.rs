use crate::harness::{Home, Simulated, block_on, fill};
use crate::kit::disk::collect;
use futures::StreamExt;
use sluicedb::{Db, Pin, PinHolder};
use sluicedb_storage::vfs::Vfs;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The tables in the directory, with their lengths.
fn tables(home: &Simulated) -> BTreeMap<PathBuf, u64> {
    let names = home.disk.list(&home.dir).unwrap();
    let paths = names.iter().filter(|name| name.ends_with(".sst")).map(|name| home.dir.join(name));
    paths.map(|path| (path.clone(), home.disk.len(&path).unwrap())).collect()
}

/// Checks that every statistic agrees about the replaced files that are still on the disk.
fn consistent(home: &Simulated, db: &Db) -> Vec<Pin> {
    home.simulator.settle();
    let (pins, stats, tables) = (db.pins(), db.stats(), tables(home));
    let sum = |of: fn(&Pin) -> u64| pins.iter().map(of).sum::<u64>();
    let shown = format!("{pins:?}, {tables:?}");
    assert_eq!(sum(|pin| pin.obsolete_tables), stats.pinned_obsolete_tables, "{shown}");
    assert_eq!(sum(|pin| pin.obsolete_bytes), stats.pinned_obsolete_bytes, "{shown}");
    let bytes: u64 = tables.values().sum();
    assert_eq!(stats.pinned_obsolete_tables, tables.len() as u64 - stats.tables, "{shown}");
    assert_eq!(stats.pinned_obsolete_bytes, bytes - stats.table_bytes, "{shown}");
    assert!(pins.iter().all(|pin| pin.shared_bytes <= pin.obsolete_bytes), "{shown}");
    assert!(pins.windows(2).all(|pair| pair[0].age >= pair[1].age), "the oldest first: {shown}");
    let oldest = pins.first().map_or(0, |pin| pin.age.as_micros() as u64);
    assert_eq!(stats.oldest_pin_micros, oldest, "{shown}");
    pins
}

/// Replaces all tables of the database, and returns the new ones.
fn replace(home: &Simulated, db: &Db, len: usize) -> BTreeMap<PathBuf, u64> {
    let before = tables(home);
    home.run(fill(db, 200, len));
    home.run(db.compact()).unwrap();
    home.simulator.settle();
    let mut after = tables(home);
    after.retain(|path, _| !before.contains_key(path));
    after
}

/// Planted: a table that is deleted as soon as the version without it is published.
#[test]
fn t000_15_tables_are_deleted_only_after_the_last_iterator_is_dropped() {
    let home = Simulated::new(15);
    let db = home.open();
    let old = replace(&home, &db, 60);
    let (mut scan, other) = (db.scan(..), db.scan("key0100"..));
    let first = home.run(scan.next()).unwrap().unwrap();
    assert_eq!(&first.0[..], b"key0000");
    let new = replace(&home, &db, 61);
    let left = |those: &BTreeMap<PathBuf, u64>| {
        let there = tables(&home);
        those.keys().filter(|path| there.contains_key(*path)).count()
    };
    assert_eq!((left(&old), left(&new)), (old.len(), new.len()));
    assert!(!old.is_empty() && !new.is_empty());
    drop(other);
    home.simulator.settle();
    assert_eq!(left(&old), old.len(), "an iterator is left");
    assert_eq!(home.run(collect(scan)).unwrap().len(), 199, "which was dropped at its end");
    home.simulator.settle();
    assert_eq!((left(&old), left(&new)), (0, new.len()));
    assert_eq!(consistent(&home, &db), []);
    home.run(db.close()).unwrap();
}

#[test]
fn every_holder_is_told_with_its_label_as_long_as_it_is_there() {
    let home = Simulated::new(1);
    let db = home.open();
    home.run(fill(&db, 20, 20));
    assert_eq!(consistent(&home, &db), []);
    let backup = db.snapshot_labelled("backup");
    let seqno = backup.seqno();
    home.run(db.put("one", "more")).unwrap();
    let (unnamed, scan) = (db.snapshot(), db.scan(..));
    let copy = backup.clone();
    let of_snapshot = backup.scan(..);
    let told = || {
        let pins = consistent(&home, &db);
        let one = |pin: Pin| (pin.holder, pin.label, pin.seqno.unwrap() - seqno);
        pins.into_iter().map(one).collect::<Vec<_>>()
    };
    let named = (PinHolder::Snapshot, Some("backup".to_owned()), 0);
    let other = (PinHolder::Snapshot, None, 1);
    assert_eq!(told(), [named.clone(), other.clone(), (PinHolder::Scan, None, 1)]);
    assert_eq!(db.stats().read_points, 3);
    drop(scan);
    assert_eq!(told(), [named.clone(), other.clone()]);
    // A snapshot, its clones and its scans are one holder.
    drop((backup, copy));
    assert_eq!(told(), [named, other.clone()]);
    drop(of_snapshot);
    assert_eq!(told(), [other]);
    drop(unnamed);
    assert_eq!(told(), []);
    home.run(db.close()).unwrap();
}

/// Planted: an age by the time of day; an age of an earlier holder in the same place.
#[test]
fn ages_are_told_by_the_clock_of_the_engine() {
    let home = Simulated::new(2);
    let db = home.open();
    let ages = || consistent(&home, &db).iter().map(|pin| pin.age).collect::<Vec<_>>();
    let second = Duration::from_secs(1);
    let first = db.snapshot_labelled("first");
    home.simulator.advance(3600 * second);
    let second_one = db.snapshot_labelled("second");
    home.simulator.advance(5 * second);
    assert_eq!(ages(), [3605 * second, 5 * second]);
    drop(first);
    // Opening it reads no clock. Its age counts from the next flush on.
    let scan = db.scan(..);
    home.simulator.advance(10 * second);
    home.run(fill(&db, 5, 5));
    home.run(db.flush()).unwrap();
    let flushed = ages()[1];
    home.simulator.advance(20 * second);
    assert_eq!(ages(), [35 * second + flushed, 20 * second + flushed]);
    assert!(flushed < second, "{flushed:?}");
    drop((scan, second_one));
    assert_eq!(ages(), []);
    home.run(db.close()).unwrap();
}

/// Planted: a table that is charged to every holder; one that is charged to a holder from before it
/// existed; one that is no longer counted after its oldest holder is dropped.
#[test]
fn each_obsolete_table_is_counted_for_the_oldest_that_reads_it() {
    let home = Simulated::new(3);
    let db = home.open();
    let sum = |tables: &BTreeMap<PathBuf, u64>| tables.values().sum::<u64>();
    let first = sum(&replace(&home, &db, 60));
    let (one, too) = (db.snapshot_labelled("one"), db.snapshot_labelled("one too"));
    assert!(consistent(&home, &db).iter().all(|pin| pin.obsolete_tables == 0), "all is in use");
    let second = sum(&replace(&home, &db, 61));
    let two = db.scan(..);
    // The tables made and replaced here have no reader.
    replace(&home, &db, 62);
    replace(&home, &db, 63);
    let bytes = || {
        let pins = consistent(&home, &db);
        let of = |pin: &Pin| (pin.obsolete_bytes, pin.shared_bytes);
        pins.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(bytes(), [(first, first), (0, 0), (second, 0)]);
    drop(one);
    assert_eq!(bytes(), [(first, 0), (second, 0)]);
    drop(too);
    assert_eq!(bytes(), [(second, 0)]);
    home.run(db.close()).unwrap();
    let left = db.pins();
    assert_eq!((left.len(), left[0].obsolete_bytes), (1, second), "also of a closed database");
    drop(two);
    assert_eq!(db.pins(), []);
}

/// Random snapshots, scans and compactions, and tables that were found at the open.
#[test]
fn sums_are_right_whoever_comes_and_goes() {
    for seed in 0..6 {
        let home = Simulated::new(seed);
        let db = home.open();
        replace(&home, &db, 50);
        home.run(db.close()).unwrap();
        drop(db);
        let db = home.open();
        let mut chance = crate::kit::chance::Chance::new(seed);
        let (mut snapshots, mut scans) = (Vec::new(), Vec::new());
        let mut most = 0;
        for round in 0..60 {
            match chance.below(7) {
                0 => snapshots.push(db.snapshot()),
                1 => snapshots.push(db.snapshot_labelled(format!("round {round}"))),
                2 => scans.push(db.scan(..)),
                3 if !scans.is_empty() => drop(scans.swap_remove(chance.below(scans.len()))),
                4 if !snapshots.is_empty() => {
                    drop(snapshots.swap_remove(chance.below(snapshots.len())));
                }
                5 => home.run(async {
                    fill(&db, 60, 40 + round).await;
                    db.flush().await.unwrap();
                }),
                _ => drop(replace(&home, &db, 50 + round)),
            }
            home.simulator.advance(Duration::from_millis(10));
            let pins = consistent(&home, &db);
            assert_eq!(pins.len(), snapshots.len() + scans.len(), "{pins:?}");
            most = most.max(db.stats().pinned_obsolete_tables);
        }
        assert!(most > 2, "{most}");
        drop((snapshots, scans));
        assert_eq!(consistent(&home, &db), []);
        home.run(db.close()).unwrap();
    }
}

#[test]
fn a_pin_is_told_in_a_line() {
    let home = Home::new();
    let db = home.open();
    block_on(fill(&db, 7, 20));
    let _snapshot = db.snapshot_labelled("nightly \"backup\"");
    let line = db.pins()[0].to_string();
    let (begin, end) = line.split_once(", held for ").unwrap();
    assert_eq!(begin, r#"snapshot "nightly \"backup\"" of seqno 7"#);
    assert!(end.ends_with(" s: 0 obsolete tables, 0 bytes"), "{line}");
}
