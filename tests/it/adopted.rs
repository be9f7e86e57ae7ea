//! Replacements that adopt some source tables as they are, by a link. Only the files show the
//! difference.

use crate::harness::{Home, Simulated, block_on, check, files};
use crate::kit::chance::{Chance, cases_factor, replayed};
use crate::kit::disk::{content, shared};
use crate::kit::oracle::Map;
use crate::kit::settings;
use sluicedb::{Compression, Db, OnEmpty, Options, Replacement, Snapshot, WriteBatch};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

fn key(n: usize) -> Vec<u8> {
    format!("key{n:05}").into_bytes()
}

/// The tables of this directory whose file has another name as well.
fn adopted(dir: &Path) -> usize {
    let tables = files(dir, ".sst");
    tables.iter().filter(|path| path.metadata().is_ok_and(|file| file.nlink() > 1)).count()
}

/// Fills a source with some writes of one kind.
async fn some_writes(db: &Db, map: &mut Map, chance: &mut Chance) {
    let (first, count) = (chance.below(2000), chance.between(1, 400));
    let put = |map: &mut Map, batch: &mut WriteBatch, key: Vec<u8>, chance: &mut Chance| {
        let len = chance.between(0, 60);
        let value = chance.text(len);
        batch.put(&key, &value);
        map.insert(key, value);
    };
    let mut batch = WriteBatch::new();
    match chance.below(4) {
        0 => (first..first + count).for_each(|n| put(map, &mut batch, key(n), chance)),
        1 => (0..count).for_each(|_| put(map, &mut batch, key(chance.below(2400)), chance)),
        2 => {
            for n in (first..first + count).step_by(chance.between(1, 5)) {
                batch.delete(key(n));
                map.remove(&key(n));
            }
        }
        _ => {
            let (lo, hi) = (key(first), key(first + count));
            map.retain(|key, _| !(lo <= *key && *key < hi));
            db.excise(lo..hi).await.unwrap();
        }
    }
    db.write(batch).await.unwrap();
    match chance.below(8) {
        0..=2 => db.flush().await.unwrap(),
        3 => db.compact().await.unwrap(),
        4 => {
            let (lo, hi) = (key(first), key(first + count));
            db.compact_range(lo..hi).to_level(chance.between(1, 3) as u8).await.unwrap();
        }
        5 if chance.one_in(3) => drop(db.split_at(key(chance.below(2400))).await),
        _ => {}
    }
}

/// Ascending spans that do not overlap.
fn some_spans(chance: &mut Chance) -> Vec<std::ops::Range<Vec<u8>>> {
    let mut ends: Vec<usize> = (0..2 * chance.between(1, 2)).map(|_| chance.below(2500)).collect();
    ends.sort_unstable();
    ends.dedup();
    let spans = ends.chunks_exact(2).map(|ends| key(ends[0])..key(ends[1]));
    let all = vec![b"a".to_vec()..b"z".to_vec()];
    if chance.one_in(3) { all } else { spans.collect() }
}

async fn replace(
    db: &Db,
    map: &mut Map,
    from: &(Snapshot, Map),
    spans: &[std::ops::Range<Vec<u8>>],
) -> usize {
    // Where tables overlap, some keys count more than once.
    let mut stacks = 0;
    let (source, there) = from;
    let is_in = |key: &Vec<u8>| spans.iter().any(|span| span.contains(key));
    let new: Map =
        there.iter().filter(|(key, _)| is_in(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let done = db.replace_from(source, spans.iter().cloned(), OnEmpty::Wipe).await.unwrap();
    let least = new.len() as u64;
    match done {
        Replacement::Emptied => assert!(least == 0 && !spans.is_empty()),
        Replacement::Replaced { entries } => {
            assert!(entries >= least && (least > 0 || spans.is_empty()), "{entries} of {least}");
            stacks += usize::from(entries > least);
        }
    }
    map.retain(|key, _| !is_in(key));
    map.extend(new);
    stacks
}

/// Checks that all of `map` is found after an open, and again after a full compaction.
fn check_reopened(home: &Home, map: &Map) {
    let db = home.open();
    block_on(async {
        check(&db, map).await.unwrap();
        db.compact().await.unwrap();
        check(&db, map).await.unwrap();
        db.close().await.unwrap();
    });
}

/// Returns how many tables were adopted, and how often overlapping tables were adopted together.
fn case(seed: u64) -> (usize, usize) {
    let chance = &mut Chance::new(seed);
    let mut options = settings::drawn(chance);
    // The files show which tables were adopted.
    options.compression = chance.pick(&[Compression::None, Compression::Lz4]);
    let (new, mut live) = (Home::with(options), Home::with(settings::drawn(chance)));
    live.options.compression = chance.pick(&[Compression::None, Compression::Lz4]);
    let (source, db) = (new.open(), live.open());
    let (mut there, mut map) = (Map::new(), Map::new());
    let (mut found, mut stacks) = (0, 0);
    block_on(async {
        let mut snapshots = Vec::new();
        for round in 0..chance.between(5, 25) {
            some_writes(&source, &mut there, chance).await;
            if chance.one_in(2) {
                some_writes(&db, &mut map, chance).await;
            }
            if round == 4 || chance.one_in(5) {
                snapshots.push((source.snapshot(), there.clone()));
            }
            if chance.one_in(4) && !snapshots.is_empty() {
                let from = &snapshots[chance.below(snapshots.len())];
                stacks += replace(&db, &mut map, from, &some_spans(chance)).await;
                found += adopted(&live.path());
                check(&db, &map).await.unwrap();
            }
            if chance.one_in(8) {
                // The source is the database itself, at an earlier instant.
                let before = (db.snapshot(), map.clone());
                some_writes(&db, &mut map, chance).await;
                stacks += replace(&db, &mut map, &before, &some_spans(chance)).await;
            }
        }
        let from = (source.snapshot(), there.clone());
        stacks += replace(&db, &mut map, &from, &some_spans(chance)).await;
        found += adopted(&live.path());
        drop((from, snapshots));
        source.close().await.unwrap();
        drop(source);
        check(&db, &map).await.unwrap();
        db.close().await.unwrap();
    });
    drop((db, new));
    let report = sluicedb::verify(live.path(), |_, _| {}).unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
    check_reopened(&live, &map);
    (found, stacks)
}

/// Planted: each of the conditions of `View::stacks` left out; entries that are not counted; a
/// second walk over the keys behind an adopted table.
#[test]
fn what_replaces_spans_is_what_the_source_has_whatever_its_tables() {
    if let Some(seed) = replayed() {
        case(seed);
        return;
    }
    let (mut found, mut stacks) = (0, 0);
    for seed in 0..24 * cases_factor() as u64 {
        eprintln!("SLUICE_SEED={seed}");
        let (tables, over) = case(seed);
        (found, stacks) = (found + tables, stacks + over);
    }
    assert!(found > 20, "only {found} tables were taken over");
    eprintln!("{stacks} times tables were that lie over each other, and hide some entries");
}

/// Three flushes overlap, and a landing that is half full takes them.
fn stacked() -> Options {
    let mut options = settings::tiny();
    (options.l0_trigger_tables, options.l0_tables_max) = (8, 16);
    (options.landing_runs_max, options.table_bytes_max) = (6, 16 << 10);
    options.memory_budget_bytes = 64 << 20;
    (options.write_buffer_bytes, options.memtable_bytes) = (Some(32 << 20), Some(1 << 20));
    options
}

/// Makes overlapping tables in a database with `stacked` options, and returns its content.
async fn fill_stack(db: &Db) -> Map {
    let mut map = Map::new();
    for (round, step) in [3, 7, 11].into_iter().enumerate() {
        let mut batch = db.batch();
        for n in (round..600).step_by(step) {
            let value = format!("round {round} of number {n:060}").into_bytes();
            batch.put(key(n), &value);
            map.insert(key(n), value);
        }
        db.write(batch).await.unwrap();
        db.flush().await.unwrap();
    }
    map
}

/// Data that is older than a stack, and lies on both sides of its span, is flushed after the stack
/// was adopted.
///
/// Planted: a stack in the first landing, below the tables that are flushed later.
#[test]
fn what_memory_has_beside_a_stack_is_flushed_over_it_whatever_crashes() {
    let scene = Simulated::with(5, stacked());
    let db = scene.open();
    let source = scene.run(db.keyspace("source")).unwrap();
    let mut map = scene.run(fill_stack(&source));
    let replace = || {
        let span = [key(0)..key(9999)];
        scene.run(db.replace_from(&source.snapshot(), span, OnEmpty::Wipe)).unwrap();
    };
    replace();
    for name in ["a", "z"] {
        scene.run(db.put(name, name)).unwrap();
        map.insert(name.into(), name.into());
    }
    let images = scene.disk.record_images(1);
    // This replacement drops the tables of the first one, and publishes that at once.
    replace();
    assert!(db.level_info().iter().any(|level| level.landing_bytes > 0), "a stack");
    scene.run(db.flush()).unwrap();
    scene.disk.clear_hook();
    let images = images.take();
    assert!(images.len() > 30, "{} images", images.len());
    for (operation, image) in images {
        eprintln!("before {operation:?}");
        let scene = scene.reborn(image.kill_clone());
        let db = scene.open();
        let found = scene.run(content(&db)).unwrap();
        assert_eq!(found, map);
        scene.simulator.kill();
    }
    assert_eq!(scene.run(content(&db)).unwrap(), map);
    scene.run(db.close()).unwrap();
}

/// Planted: the newest table at the bottom; all tables in one layer.
#[test]
fn tables_that_lie_over_each_other_are_taken_over_in_their_order() {
    let (new, live) = (Home::with(stacked()), Home::with(stacked()));
    let (source, db) = (new.open(), live.open());
    let mut map = Map::new();
    block_on(async {
        let there = fill_stack(&source).await;
        some_writes(&db, &mut map, &mut Chance::new(7)).await;
        let (snapshot, before) = (db.snapshot(), map.clone());
        let from = (source.snapshot(), there);
        let spans = [key(0)..key(9999)];
        assert_eq!(replace(&db, &mut map, &from, &spans).await, 1, "some are hidden");
        assert_eq!(adopted(&live.path()), 3);
        assert!(db.level_info().iter().any(|level| level.landing_bytes > 0));
        check(&db, &map).await.unwrap();
        for (key, value) in &before {
            assert_eq!(snapshot.get(key).await.unwrap().as_deref(), Some(&value[..]));
        }
        drop((snapshot, from));
        source.close().await.unwrap();
        db.close().await.unwrap();
    });
    drop(db);
    check_reopened(&live, &map);
}

/// A database with adopted tables: its checkpoint, and an open for reading only.
#[test]
fn a_table_that_was_taken_over_is_a_table_like_others() {
    let (new, live) = (Home::new(), Home::new());
    let (source, db) = (new.open(), live.open());
    block_on(async {
        let map = crate::harness::fill(&source, 2000, 30).await;
        source.compact().await.unwrap();
        db.replace_from(&source.snapshot(), [b"k".to_vec()..b"l".to_vec()], OnEmpty::Refuse)
            .await
            .unwrap();
        assert!(adopted(&live.path()) > 0);
        source.close().await.unwrap();
        std::fs::remove_dir_all(new.path()).unwrap();
        check(&db, &map).await.unwrap();
        let copy = live.path().with_extension("copy");
        db.checkpoint(&copy).await.unwrap();
        db.close().await.unwrap();
        let copy = Db::builder(&copy).options(live.options.clone()).open().await.unwrap();
        check(&copy, &map).await.unwrap();
        copy.close().await.unwrap();
    });
}

/// Planted: an adopted table counted as one more in L0; a filter that is damaged on the disk, but
/// was still good where it was read before.
#[test]
fn a_table_ahead_of_memory_is_taken_over_once_and_one_with_a_broken_filter_never() {
    let scene = Simulated::with(6, stacked());
    let db = scene.open();
    let source = scene.run(db.keyspace("source")).unwrap();
    let all: Map = (0..200).map(|n| (key(n), vec![n as u8; 60])).collect();
    let path = scene.outside("all.table", all.iter().map(|(key, value)| (key, Some(value))));
    scene.run(source.put("zz", "in memory, and older than the table")).unwrap();
    scene.run(source.ingest([&path])).unwrap();
    let linked = || db.stats().bulk_tables_linked;
    let replace = || {
        let span = [key(0)..key(9999)];
        let done = scene.run(db.replace_from(&source.snapshot(), span, OnEmpty::Wipe)).unwrap();
        assert_eq!(done, Replacement::Replaced { entries: 200 });
        assert_eq!(scene.run(content(&db)).unwrap(), all);
    };
    replace();
    assert_eq!(linked(), 1);
    // The footer has the filter's offset.
    let file = shared(&scene.disk).open_rw(&scene.dir.join(&scene.tables()[0])).unwrap();
    let mut offset = [0; 8];
    file.read_at(&mut offset, file.len().unwrap() - 128 + 32).unwrap();
    file.write_all_at(&[0x5A; 4], u64::from_le_bytes(offset) + 5).unwrap();
    replace();
    assert_eq!(linked(), 1, "it is written anew");
    scene.run(db.close()).unwrap();
}

/// Planted: a table that is linked without a check.
#[test]
fn a_damaged_table_is_not_taken_over_and_what_was_there_stays() {
    let (new, live) = (Home::new(), Home::new());
    let (source, db) = (new.open(), live.open());
    block_on(async {
        crate::harness::fill(&source, 2000, 30).await;
        source.compact().await.unwrap();
        source.close().await.unwrap();
        drop(source);
        let table = new.files(".sst").into_iter().max_by_key(|path| path.metadata().unwrap().len());
        let table = table.unwrap();
        let mut bytes = std::fs::read(&table).unwrap();
        let middle = bytes.len() / 3;
        bytes[middle] ^= 0x40;
        std::fs::write(&table, bytes).unwrap();
        let source = new.builder().open().await.unwrap();
        db.put("key0000", "good").await.unwrap();
        let spans = [b"k".to_vec()..b"l".to_vec()];
        let replaced = db.replace_from(&source.snapshot(), spans, OnEmpty::Refuse).await;
        let error = replaced.unwrap_err();
        assert_eq!(error.kind(), sluicedb::ErrorKind::Corrupt, "{error}");
        assert_eq!(error.path(), Some(&*table), "{error}");
        assert_eq!(db.get("key0000").await.unwrap().unwrap(), "good");
        assert_eq!((adopted(&live.path()), db.ranges()[0].tables), (0, 0));
        db.close().await.unwrap();
    });
}
