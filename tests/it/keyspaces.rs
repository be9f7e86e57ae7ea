//! Goal: keyspaces have keys of their own and one order of writes. A batch over several keyspaces
//! is one write for readers, for snapshots and after a restart. A dropped keyspace is gone,
//! whatever was under way in it.
//!
//! Long because each promise about keyspaces is a test.

use crate::harness::{Held, Home, Simulated, block_on};
use crate::kit::settings;
use crate::kit::settings::NO_WAIT;
use futures::TryStreamExt;
use sluicedb::{
    Compression, Db, ErrorKind, IngestPlan, KeyspaceOptions, OnEmpty, ReadOnlyDb, Replacement,
    TableWriter, WriteBatch,
};
use sluicedb_storage::batch::operations_decoded;
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::vfs::{Fault, MemVfs, OperationKind, Vfs};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_test::task;

async fn entries(db: &Db) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let entries: Vec<_> = db.scan(..).try_collect().await.unwrap();
    entries.iter().map(|(key, value)| (text(key), text(value))).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Planted: an operation that is routed by its key alone; a scan that continues into the next
/// keyspace.
#[test]
fn the_same_key_has_a_value_in_each_keyspace() {
    let home = Home::new();
    let db = home.open();
    block_on(async {
        let (one, two) = (db.keyspace("one").await.unwrap(), db.keyspace("two").await.unwrap());
        for (handle, value) in [(&db, "default"), (&one, "one"), (&two, "two")] {
            handle.put("k", value).await.unwrap();
            handle.put(format!("only in {value}"), "").await.unwrap();
        }
        for flushed in [false, true] {
            for (handle, value) in [(&db, "default"), (&one, "one"), (&two, "two")] {
                assert_eq!(handle.get("k").await.unwrap().as_deref(), Some(value.as_bytes()));
                let only = format!("only in {value}");
                assert_eq!(entries(handle).await, pairs(&[("k", value), (&only, "")]));
                let back: Vec<_> = handle.scan(..).rev().try_collect().await.unwrap();
                assert_eq!(back.len(), 2, "{value}");
                assert_eq!(handle.keyspace_name().as_deref(), Some(value));
            }
            if !flushed {
                db.flush().await.unwrap();
                one.compact().await.unwrap();
            }
        }
        one.delete("k").await.unwrap();
        let found = db.multi_get_in(&[(&db, "k"), (&one, "k"), (&two, "k")]).await.unwrap();
        let found: Vec<_> = found.iter().map(|value| value.as_deref()).collect();
        assert_eq!(found, [Some(&b"default"[..]), None, Some(b"two")]);
    });
}

#[test]
fn keyspaces_are_there_after_a_restart_with_or_without_a_close() {
    let home = Home::new();
    let mut db = home.open();
    block_on(async {
        let index = db.keyspace("index").await.unwrap();
        index.put("flushed", "1").await.unwrap();
        db.flush().await.unwrap();
        let mut batch = WriteBatch::new();
        batch.put("user", "2").put_in(&index, "in the log", "2").delete_in(&index, "flushed");
        db.write(batch).await.unwrap();
        db.sync().await.unwrap();
    });
    for round in 0..2 {
        if round == 1 {
            block_on(db.close()).unwrap();
        }
        drop(db);
        db = home.open();
        assert_eq!(db.keyspaces(), ["default", "index"]);
        block_on(async {
            let index = db.keyspace("index").await.unwrap();
            assert_eq!(entries(&index).await, pairs(&[("in the log", "2")]), "{round}");
            assert_eq!(entries(&db).await, pairs(&[("user", "2")]), "{round}");
        });
    }
}

#[test]
fn a_keyspace_that_is_dropped_is_gone_for_good() {
    let home = Simulated::new(1);
    let db = home.open();
    home.run(async {
        let index = db.keyspace("index").await.unwrap();
        for n in 0..200 {
            index.put(format!("{n:03}"), vec![b'v'; 900]).await.unwrap();
        }
        db.flush().await.unwrap();
        index.put("in memory", "1").await.unwrap();
        let before = db.snapshot();
        let mut open_scan = index.scan("1"..);
        let first = open_scan.next_chunk().await.unwrap().unwrap().len();
        assert!(db.drop_keyspace("index").await.unwrap());
        assert!(!db.drop_keyspace("index").await.unwrap(), "it has gone");
        assert_eq!((db.keyspaces(), index.keyspace_name()), (vec!["default".to_owned()], None));
        // Every call through its handle is refused, and does nothing.
        let refused = |error: sluicedb::Error| {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.to_string().contains("dropped"), "{error}");
        };
        refused(index.put("k", "v").await.unwrap_err());
        refused(index.get("000").await.unwrap_err());
        refused(index.contains_key("000").await.unwrap_err());
        refused(index.multi_get(&["000"]).await.unwrap_err());
        refused(index.scan(..).next_chunk().await.unwrap_err());
        refused(index.snapshot().get("000").await.unwrap_err());
        refused(index.split_at("m").await.unwrap_err());
        refused(index.excise(..).await.unwrap_err());
        let mut batch = WriteBatch::new();
        batch.put("beside", "v").put_in(&index, "k", "v");
        refused(db.write(batch.clone()).await.unwrap_err());
        refused(db.write_with(batch.clone(), NO_WAIT).await.unwrap_err());
        batch.delete_range("x".."y");
        refused(db.write(batch).await.unwrap_err());
        assert_eq!(db.get("beside").await.unwrap(), None, "a batch is refused as a whole");
        // Snapshots and scans from before still see it.
        let then = before.of(&index).unwrap();
        assert!(
            then.get("000").await.unwrap().is_some()
                && then.contains_key("in memory").await.unwrap()
        );
        let mut seen = first;
        while let Some(batch) = open_scan.next_chunk().await.unwrap() {
            seen += batch.len();
        }
        assert_eq!(seen, 101);
        // A new keyspace of the same name is empty, and is another keyspace.
        let again = db.keyspace("index").await.unwrap();
        again.put("new", "1").await.unwrap();
        assert_eq!(entries(&again).await, pairs(&[("new", "1")]));
        refused(index.get("new").await.unwrap_err());
        assert_eq!(before.of(&again).unwrap().get("new").await.unwrap(), None);
        drop((then, before, open_scan));
        db.flush().await.unwrap();
        let stats = db.stats();
        assert_eq!(stats.pinned_obsolete_bytes, 0);
        assert!(stats.table_bytes < 10_000, "{}", stats.table_bytes);
    });
    let reborn = home.reborn(home.disk.kill_clone());
    home.simulator.kill();
    drop(db);
    let db = reborn.open();
    reborn.run(async {
        assert_eq!(db.keyspaces(), ["default", "index"]);
        let index = db.keyspace("index").await.unwrap();
        assert_eq!(entries(&index).await, pairs(&[("new", "1")]));
        db.close().await.unwrap();
    });
}

/// A dropped keyspace's memory is free for others at once, and waiters for its flush are answered.
/// Planted: charges that stay; a flush that waits for memtables that nobody has.
#[test]
fn dropping_a_keyspace_gives_its_memory_back_and_answers_who_waits_for_its_flush() {
    let held = Held::new(settings::tiny());
    let db = held.open();
    let index = block_on(db.keyspace("index")).unwrap();
    held.hold();
    block_on(index.put("k", vec![0; 2000])).unwrap();
    let flush = std::thread::spawn({
        let db = db.clone();
        move || block_on(db.flush())
    });
    held.wait_until_held();
    block_on(index.put("more", vec![0; 3000])).unwrap();
    let before = db.stats().write_buffer_used_bytes;
    assert!(before >= 5000, "{before}");
    assert!(block_on(db.drop_keyspace("index")).unwrap());
    flush.join().unwrap().unwrap();
    assert_eq!(db.stats().write_buffer_used_bytes, 0);
    // The flush under way ends with tables that nobody wants.
    held.release();
    block_on(db.put("k", "v")).unwrap();
    block_on(db.flush()).unwrap();
    assert_eq!(db.stats().tables, 1);
    block_on(db.close()).unwrap();
    assert_eq!(tables_of(&held.disk, &held.dir).len(), 1);
}

fn tables_of(disk: &MemVfs, dir: &Path) -> Vec<String> {
    let names = disk.list(dir).unwrap();
    let is_table = |name: &String| matches!(FileKind::parse(name), Some(FileKind::Table(_)));
    names.into_iter().filter(is_table).collect()
}

/// Writers that wait for room in a keyspace, and queued batches, are answered when it is dropped.
/// Planted: a commit of older routes that is applied to whatever range is there.
#[test]
fn writers_that_wait_for_room_in_a_keyspace_are_told_when_it_goes() {
    let held = Held::new(settings::tiny());
    let db = held.open();
    let index = block_on(db.keyspace("index")).unwrap();
    held.hold();
    // Writes batches over both keyspaces, until one of them has to wait.
    let (mut written, mut waiting) = (0, Vec::new());
    let waits = || db.stats().waits_local;
    while waiting.len() < 3 {
        let (before, db, index) = (waits(), db.clone(), index.clone());
        let mut write = task::spawn(Box::pin(async move {
            let mut batch = WriteBatch::new();
            batch.put_in(&index, format!("{written}"), vec![0; 4000]);
            batch.put_in(&db, format!("{written:04}"), "1");
            db.write(batch).await
        }));
        match write.poll() {
            std::task::Poll::Ready(done) => done.map(drop).unwrap(),
            std::task::Poll::Pending if waits() > before => waiting.push(write),
            // It has its room. An engine thread is about to apply it.
            std::task::Poll::Pending => drop(block_on(write.into_inner()).unwrap()),
        }
        written += 1;
    }
    assert!(block_on(db.drop_keyspace("index")).unwrap());
    for write in waiting {
        let error = block_on(write.into_inner()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert_eq!(block_on(entries(&db)).len(), written - 3, "whole batches only");
    held.release();
    block_on(db.close()).unwrap();
}

#[test]
fn what_is_said_of_spans_is_said_of_those_of_one_keyspace() {
    let home = Home::new();
    let db = home.open();
    block_on(async {
        let index = db.keyspace("index").await.unwrap();
        for handle in [&db, &index] {
            for key in ["a", "b", "c"] {
                handle.put(key, "old").await.unwrap();
            }
        }
        assert!(index.split_at("b").await.unwrap());
        assert_eq!((db.ranges().len(), index.ranges().len()), (1, 2));
        assert_eq!(index.ranges()[1].keyspace, "index");
        index.excise("a".."b").await.unwrap();
        assert_eq!(entries(&index).await, pairs(&[("b", "old"), ("c", "old")]));
        // One change with spans and tables of both keyspaces.
        let table = |name: &str, keys: &[&str]| {
            let path = home.path().with_file_name(name);
            let mut writer = TableWriter::create(&path).unwrap();
            for key in keys {
                writer.put(key, "new").unwrap();
            }
            writer.finish().unwrap();
            path
        };
        let (one, two) = (table("one", &["a", "b"]), table("two", &["b"]));
        let plan = IngestPlan::new().replace("a".."c", [one]).replace_in(&index, .., [two]);
        assert_eq!(db.ingest_and_excise(plan).await.unwrap(), 3);
        assert_eq!(entries(&db).await, pairs(&[("a", "new"), ("b", "new"), ("c", "old")]));
        assert_eq!(entries(&index).await, pairs(&[("b", "new")]));
        // A replacement of a span in one keyspace from the other.
        let from = db.snapshot();
        let done = index.replace_from(&from, [..], OnEmpty::Refuse).await.unwrap();
        assert_eq!(done, Replacement::Replaced { entries: 3 });
        assert_eq!(entries(&index).await, entries(&db).await);
        index.delete_prefix("a").await.unwrap();
        let mut batch = WriteBatch::new();
        batch.delete_range_in(&index, "b"..).delete_range("b".."c").put_in(&index, "z", "1");
        db.write(batch).await.unwrap();
        assert_eq!(entries(&index).await, pairs(&[("z", "1")]));
        assert_eq!(entries(&db).await, pairs(&[("a", "new"), ("c", "old")]));
        assert!(index.merge_at("b").await.unwrap());
    });
    block_on(db.close()).unwrap();
    drop(db);
    let db = home.open();
    block_on(async {
        let index = db.keyspace("index").await.unwrap();
        assert_eq!(entries(&index).await, pairs(&[("z", "1")]));
        assert_eq!(entries(&db).await, pairs(&[("a", "new"), ("c", "old")]));
    });
}

#[test]
fn a_batch_belongs_to_the_keyspace_of_its_handle() {
    let home = Home::new();
    let db = home.open();
    block_on(async {
        let index = db.keyspace("index").await.unwrap();
        let mut batch = WriteBatch::new();
        batch.put("k", "1").put_in(&db, "k", "2");
        index.write(batch).await.unwrap();
        let mut batch = index.batch();
        batch.put("other", "3");
        db.write(batch).await.unwrap();
        assert_eq!(entries(&index).await, pairs(&[("k", "1"), ("other", "3")]));
        assert_eq!(entries(&db).await, pairs(&[("k", "2")]));
    });
}

#[test]
fn bad_names_and_handles_of_other_databases_are_refused() {
    let (home, other) = (Home::new(), Home::new());
    let (db, stranger) = (home.open(), other.open());
    block_on(async {
        let invalid = |error: sluicedb::Error, what: &str| {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.to_string().contains(what), "{error}");
        };
        invalid(db.keyspace("").await.unwrap_err(), "0 bytes");
        invalid(db.keyspace("x".repeat(256)).await.unwrap_err(), "256 bytes");
        db.keyspace("x".repeat(255)).await.unwrap();
        assert_eq!(db.keyspace("default").await.unwrap().keyspace_name().unwrap(), "default");
        invalid(db.drop_keyspace("default").await.unwrap_err(), "default");
        assert!(!db.drop_keyspace("nobody").await.unwrap());
        let theirs = stranger.keyspace("index").await.unwrap();
        let mut batch = WriteBatch::new();
        batch.put("k", "v").put_in(&theirs, "k", "v");
        invalid(db.write(batch.clone()).await.unwrap_err(), "another database");
        batch.put_in(&db, "k", "v");
        invalid(db.write(batch).await.unwrap_err(), "two databases");
        invalid(db.snapshot().of(&theirs).unwrap_err(), "another database");
        invalid(db.multi_get_in(&[(&theirs, "k")]).await.unwrap_err(), "another database");
        let plan = IngestPlan::new().replace_in(&theirs, .., Vec::<String>::new());
        invalid(db.ingest_and_excise(plan).await.unwrap_err(), "another database");
        assert_eq!(db.get("k").await.unwrap(), None);
    });
}

#[test]
fn checkpoints_and_readers_have_all_keyspaces() {
    let home = Home::new();
    let db = home.open();
    let to = home.path().with_file_name("copy");
    block_on(async {
        let index = db.keyspace("index").await.unwrap();
        db.put("k", "default").await.unwrap();
        index.put("k", "in a table").await.unwrap();
        db.flush().await.unwrap();
        index.put("m", "in memory").await.unwrap();
        db.put("m", "in memory, too").await.unwrap();
        db.checkpoint(&to).await.unwrap();
        let copy = ReadOnlyDb::open(&to).await.unwrap();
        assert_eq!(copy.keyspaces(), ["default", "index"]);
        assert!(copy.keyspace("other").is_none());
        let theirs = copy.keyspace("index").unwrap();
        let found = theirs.multi_get(&["k", "m"]).await.unwrap();
        let found: Vec<_> = found.iter().map(|value| value.as_deref().unwrap()).collect();
        assert_eq!(found, [&b"in a table"[..], b"in memory"]);
        let both = copy.snapshot().of(&theirs).unwrap();
        assert_eq!(both.get("m").await.unwrap().unwrap(), "in memory");
        assert_eq!(copy.get("m").await.unwrap().unwrap(), "in memory, too");
        assert_eq!(theirs.ranges().len(), 1);
    });
    assert!(sluicedb::verify(&to, |_, _| {}).unwrap().is_sound());
}

/// Much churn of keyspaces leaves no range, no file and no memory behind.
#[test]
fn keyspaces_come_and_go_without_a_trace() {
    let home = Home::new();
    let db = home.open();
    block_on(async {
        for n in 0..30 {
            let one = db.keyspace(format!("tenant {n}")).await.unwrap();
            one.put("k", vec![0; 500]).await.unwrap();
            if n % 3 == 0 {
                db.flush().await.unwrap();
            }
            assert!(db.drop_keyspace(format!("tenant {n}")).await.unwrap());
        }
        db.flush().await.unwrap();
        let stats = db.stats();
        assert_eq!((stats.ranges.len(), stats.tables, stats.write_buffer_used_bytes), (1, 0, 0));
        db.put("k", "v").await.unwrap();
    });
    block_on(db.close()).unwrap();
    drop(db);
    assert_eq!(home.files(".sst").len(), 1);
}

/// Each option shows in the keyspace's shape, beside the default keyspace that gets the same keys.
/// Planted: each option ignored in turn.
#[test]
fn a_keyspace_does_what_its_own_options_say() {
    let mut options = settings::tiny();
    options.compression = Compression::Lz4;
    options.ranges_max = Some(16);
    options.range_cooldown_ms = 40_000;
    let home = Simulated::with(3, options);
    let db = home.open();
    let mut own = KeyspaceOptions::default();
    own.compression = Some(Compression::None);
    own.filter_bits_per_key = Some(0);
    own.shards_per_range = Some(2);
    own.level_base_bytes = Some(9000);
    own.level_ratio = Some(7);
    own.landing_runs_max = Some(0);
    own.range_entries_max = Some(300);
    let index = home.run(db.keyspace_with("index", own)).unwrap();
    home.run(async {
        for n in 0..1000 {
            let mut batch = WriteBatch::new();
            batch.put(key(n), [b'v'; 200]).put_in(&index, key(n), [b'v'; 200]);
            db.write(batch).await.unwrap();
        }
        db.compact().await.unwrap();
        index.compact().await.unwrap();
    });
    let bytes = |of: &Db| of.ranges().iter().map(|range| range.table_bytes).sum::<u64>();
    assert!(bytes(&index) > 3 * bytes(&db), "{} and {}", bytes(&index), bytes(&db));
    for _ in 0..20 {
        home.simulator.advance(Duration::from_secs(60));
        home.simulator.settle();
    }
    assert_eq!(db.ranges().len(), 1);
    assert!(index.ranges().len() >= 4, "{:?}", index.ranges());
    let levels = db.level_info();
    let of_index: BTreeSet<u32> = index.ranges().iter().map(|range| range.range).collect();
    let (theirs, others): (Vec<_>, Vec<_>) =
        levels.iter().partition(|info| of_index.contains(&info.range));
    assert!(theirs.iter().any(|info| info.level == 1 && info.bytes_max == 63_000), "{theirs:?}");
    assert!(others.iter().all(|info| info.bytes_max != 63_000), "{others:?}");
    home.run(db.close()).unwrap();
    drop((db, index));
    // Keyspace options are stored in the database.
    let db = home.open();
    home.run(async {
        let index = db.keyspace("index").await.unwrap();
        assert_eq!(index.keyspace_options(), Some(own));
        // They can be changed.
        own.level_ratio = None;
        own.range_entries_max = Some(u64::MAX);
        assert_eq!(db.keyspace_with("index", own).await.unwrap().keyspace_options(), Some(own));
        assert_eq!(index.keyspace_options(), Some(own), "whoever had it open sees them");
        assert_eq!(index.get(key(7)).await.unwrap().unwrap().len(), 200);
        for (name, bad, what) in [
            ("index", with(|bad| bad.level_ratio = Some(1)), "level_ratio is 1"),
            ("new", with(|bad| bad.shards_per_range = Some(65)), "shards_per_range is 65"),
            ("default", own, "default"),
        ] {
            let error = db.keyspace_with(name, bad).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.to_string().contains(what), "{error}");
        }
        assert_eq!(db.keyspaces(), ["default", "index"]);
        assert_eq!(db.keyspace_options(), Some(KeyspaceOptions::default()));
    });
}

fn with(set: impl Fn(&mut KeyspaceOptions)) -> KeyspaceOptions {
    let mut options = KeyspaceOptions::default();
    set(&mut options);
    options
}

fn key(n: usize) -> String {
    format!("{n:05}")
}

/// The engine frees a dropped keyspace's memory even while a writer that waits for room in it is
/// not polled.
/// Planted: an owner that keeps its writer.
#[test]
fn a_dropped_keyspace_leaves_no_memory_with_those_who_wait() {
    let mut options = settings::tiny();
    options.memtable_bytes = Some(128 << 10);
    let home = Simulated::with(9, options);
    let db = home.open();
    let index = home.run(db.keyspace("index")).unwrap();
    home.faults.arm(Fault::of(OperationKind::Create).named(".tmp").sticky());
    let mut waiting = loop {
        let index = index.clone();
        let put = async move { index.put("k", vec![0; 4000]).await };
        let mut put = task::spawn(Box::pin(put));
        if put.poll().is_pending() {
            home.simulator.settle();
            if put.poll().is_pending() {
                break put;
            }
        }
    };
    let before = db.stats();
    assert!(before.write_buffer_used_bytes >= 128 << 10, "{before:?}");
    assert!(home.run(db.drop_keyspace("index")).unwrap());
    home.simulator.settle();
    let after = db.stats();
    assert_eq!(after.write_buffer_used_bytes, 0);
    let came_back = after.spare_chunk_bytes - before.spare_chunk_bytes;
    assert!(came_back >= 64 << 10, "{came_back} bytes came back, and nobody has polled");
    assert!(home.run(&mut *waiting).is_err());
}

/// A heavy batch of another keyspace is copied by an engine thread. One that is too large is not
/// copied at all.
/// Planted: `within` on the caller's thread.
#[test]
fn a_heavy_batch_is_not_copied_by_its_caller() {
    let home = Simulated::new(4);
    let db = home.open();
    let index = home.run(db.keyspace("index")).unwrap();
    let batch = |operations: u32| {
        let mut batch = WriteBatch::new();
        for n in 0..operations {
            batch.put(key(n as usize), "v");
        }
        batch
    };
    let (few, many) = (batch(5000), batch(100_000));
    assert!(many.encoded_len() > 512 << 10);
    let before = operations_decoded();
    let mut write = task::spawn(Box::pin(index.write(few)));
    assert!(write.poll().is_pending());
    assert_eq!(operations_decoded(), before, "decoded by the caller");
    home.run(&mut *write).unwrap();
    drop(write);
    let before = operations_decoded();
    let error = home.run(index.write(many)).unwrap_err();
    assert_eq!((error.kind(), operations_decoded()), (ErrorKind::Invalid, before), "{error}");
    assert_eq!(home.run(entries(&index)).len(), 5000);
    assert_eq!(home.run(entries(&db)).len(), 0);
}

/// A caller that finds a keyspace which another caller is just making has it durably too.
/// Planted: a second opener that is answered as soon as the keyspace is published, before it is
/// synced.
#[test]
fn a_keyspace_is_durable_when_it_is_opened_whoever_made_it() {
    let home = Simulated::new(5);
    let db = home.open();
    let (seen, other) = (Arc::new(Mutex::new(Vec::new())), db.clone());
    let told = Arc::clone(&seen);
    home.disk.on_operation(move |_, operation| {
        // A segment's file is opened while it is still a spare.
        let is_log = operation.path.extension().is_some_and(|of| of == "wal" || of == "spare");
        if is_log && operation.kind == OperationKind::Sync && other.keyspaces().len() == 2 {
            // The keyspace is published, and its record is about to be synced.
            let mut second = task::spawn(Box::pin(other.keyspace("index")));
            told.lock().unwrap().push(second.poll().is_ready());
        }
    });
    home.run(db.keyspace("index")).unwrap();
    home.disk.clear_hook();
    assert_eq!(seen.lock().unwrap()[..], [false], "the second one waits for the sync as well");
    assert!(task::spawn(Box::pin(db.keyspace("index"))).poll().is_ready(), "then nobody waits");
}
