use crate::harness::{Held, Home, Simulated, block_on, files, fill, fingerprint};
use crate::kit::disk::{collect, content, fresh_dir, shared, verify};
use crate::kit::oracle::Map;
use crate::kit::settings;
use futures::FutureExt;
use sluicedb::{
    Db, Durability, ErrorKind, IngestPlan, PinHolder, ReadOnlyDb, TableWriter, WriteBatch,
    WriteOptions,
};
use sluicedb_storage::verify::verify_directory;
use sluicedb_storage::vfs::{CrashKind, Vfs};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

async fn shown(db: &ReadOnlyDb) -> Map {
    collect(db.scan(..)).await.unwrap().into_iter().collect()
}

/// Returns the content of the checkpoint in `dir`, and checks that it is sound and has no file that
/// it does not need.
fn checkpointed(home: &Home, dir: &Path) -> Map {
    let summary = verify(dir).unwrap();
    assert!(summary.strays.is_empty(), "{summary:?}");
    closed(home, dir)
}

/// Returns the content of the closed database in `dir`, and checks that it is sound.
fn closed(home: &Home, dir: &Path) -> Map {
    let builder = ReadOnlyDb::builder(dir).options(home.options.clone());
    let db = block_on(builder.open_read_only()).unwrap();
    let map = block_on(shown(&db));
    drop(db);
    let summary = verify(dir).unwrap();
    assert!(summary.is_sound(), "{summary:?}");
    map
}

/// A database with several ranges and levels, landings, and data in memory.
fn filled() -> (Home, Db, Map) {
    let mut options = settings::tiny();
    options.initial_split_keys = vec![b"key0100".to_vec(), b"key0300".to_vec()];
    let home = Home::with(options);
    let db = home.open();
    let map = block_on(async {
        fill(&db, 400, 60).await;
        db.compact().await.unwrap();
        fill(&db, 300, 50).await;
        db.flush().await.unwrap();
        db.delete("key0007").await.unwrap();
        db.put("in memory", "only").await.unwrap();
        content(&db).await.unwrap()
    });
    (home, db, map)
}

#[test]
fn a_checkpoint_is_a_database_with_what_was_there() {
    let (home, db, expected) = filled();
    let to = home.path().with_file_name("copy");
    let made = block_on(db.checkpoint(&to).into_future()).unwrap();
    assert!(
        made.tables_linked > 3 && made.tables_written > 0 && made.tables_copied == 0,
        "{made:?}"
    );
    assert_eq!(made.seqno, db.stats().visible_seqno);
    let stats = db.stats();
    assert_eq!((stats.checkpoints, stats.checkpoint_bytes_linked), (1, made.bytes_linked));
    block_on(async {
        fill(&db, 400, 33).await;
        db.delete("in memory").await.unwrap();
        db.compact().await.unwrap();
    });
    let later = block_on(content(&db)).unwrap();
    assert_eq!(checkpointed(&home, &to), expected, "what came later is not in it");

    // The checkpoint is a database like any other. Neither harms the other.
    let copy = block_on(Db::builder(&to).options(home.options.clone()).open()).unwrap();
    block_on(async {
        assert_eq!(copy.ranges().len(), 3);
        copy.put("mine", "alone").await.unwrap();
        fill(&copy, 200, 20).await;
        copy.compact().await.unwrap();
        copy.close().await.unwrap();
    });
    assert_eq!(block_on(content(&db)).unwrap(), later);
    block_on(db.close()).unwrap();
    assert_eq!(closed(&home, &home.path()), later);
    assert!(closed(&home, &to).contains_key(&b"mine"[..]));
}

#[test]
fn tables_are_linked_not_copied() {
    let (home, db, _) = filled();
    let to = home.path().with_file_name("copy");
    let made = block_on(db.checkpoint(&to).into_future()).unwrap();
    let ours: Vec<u64> =
        home.files(".sst").iter().map(|path| path.metadata().unwrap().ino()).collect();
    let theirs = crate::harness::files(&to, ".sst");
    let shared = theirs.iter().filter(|path| ours.contains(&path.metadata().unwrap().ino()));
    assert_eq!(shared.count() as u64, made.tables_linked);
    assert_eq!(theirs.len() as u64, made.tables_linked + made.tables_written);
    assert_eq!(to.metadata().unwrap().mode() & 0o777, 0o700, "for this user alone");
}

#[test]
fn tables_are_copied_where_links_fail() {
    let home = Simulated::new(5);
    home.disk.set_can_link(false);
    let db = home.open();
    let to = fresh_dir();
    let expected = home.run(async {
        fill(&db, 300, 60).await;
        db.compact().await.unwrap();
        fill(&db, 20, 10).await;
        content(&db).await.unwrap()
    });
    let made = home.run(db.checkpoint(&to).into_future()).unwrap();
    assert!(made.tables_copied > 0 && made.tables_linked == 0, "{made:?}");
    let reborn = home.reborn(home.disk.crash_clone(CrashKind::DropUnsynced));
    let builder = ReadOnlyDb::builder(&to).options(home.options.clone());
    let builder = builder.vfs(shared(&reborn.disk)).runtime(reborn.simulator.handle());
    let copy = reborn.run(builder.open_read_only()).unwrap();
    assert_eq!(reborn.run(shown(&copy)), expected);
    assert!(verify_directory(&shared(&reborn.disk), &to, &mut |_, _| {}).unwrap().is_sound());

    // A file that an older checkpoint has is not copied again.
    home.run(db.put("one", "more")).unwrap();
    let again = home.run(db.checkpoint(&to).incremental().into_future()).unwrap();
    assert_eq!((again.tables_copied, again.tables_kept), (0, made.tables_copied), "{again:?}");
}

#[test]
fn what_is_only_buffered_is_durable_in_a_checkpoint() {
    let home = Simulated::new(6);
    let db = home.open();
    let to = fresh_dir();
    home.run(async {
        let options = WriteOptions::durability(Durability::Buffered);
        db.put_with("buffered", "only", options).await.unwrap();
        db.checkpoint(&to).await.unwrap();
    });
    let reborn = home.reborn(home.disk.crash_clone(CrashKind::DropUnsynced));
    let builder = ReadOnlyDb::builder(&to).options(home.options.clone());
    let builder = builder.vfs(shared(&reborn.disk)).runtime(reborn.simulator.handle());
    let copy = reborn.run(builder.open_read_only()).unwrap();
    assert_eq!(reborn.run(copy.get("buffered")).unwrap().as_deref(), Some(&b"only"[..]));
}

#[test]
fn an_empty_database_has_a_checkpoint() {
    let home = Home::new();
    let db = home.open();
    let to = home.path().with_file_name("copy");
    let made = block_on(db.checkpoint(&to).into_future()).unwrap();
    assert_eq!((made.tables_linked, made.tables_written, made.seqno), (0, 0, 0));
    assert_eq!(checkpointed(&home, &to), Map::new());
}

#[test]
fn a_directory_that_is_not_empty_is_refused_and_left_alone() {
    let (home, db, expected) = filled();
    let beside = |name: &str| home.path().with_file_name(name);
    let refused = |to: &Path| {
        let refusal = block_on(db.checkpoint(to).into_future()).unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Exists, "{refusal}");
        assert!(refusal.path().is_some_and(|path| path.ends_with(to.file_name().unwrap())));
        let refusal = block_on(db.checkpoint(to).incremental().into_future()).unwrap_err();
        assert!(matches!(refusal.kind(), ErrorKind::Exists | ErrorKind::Locked), "{refusal}");
    };
    let foreign = beside("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("letter"), "dear reader").unwrap();
    refused(&foreign);
    assert_eq!(fingerprint(&foreign).len(), 1);
    assert!(!foreign.join("LOCK").exists());

    let file = beside("file");
    std::fs::write(&file, "no directory").unwrap();
    refused(&file);
    assert_eq!(std::fs::read(&file).unwrap(), b"no directory");

    refused(&home.path());

    let other = Home::new();
    block_on(other.open().close()).unwrap();
    let before = fingerprint(&other.path());
    refused(&other.path());
    assert_eq!(fingerprint(&other.path()), before);

    // The target is refused when it is open, or when it was opened for writing.
    let to = beside("copy");
    std::fs::create_dir(&to).unwrap();
    block_on(db.checkpoint(&to).into_future()).unwrap();
    let reader = block_on(ReadOnlyDb::open(&to)).unwrap();
    let refusal = block_on(db.checkpoint(&to).incremental().into_future()).unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Locked, "{refusal}");
    drop(reader);
    let copy = block_on(Db::builder(&to).options(home.options.clone()).open()).unwrap();
    block_on(copy.close()).unwrap();
    let before = fingerprint(&to);
    refused(&to);
    assert_eq!(fingerprint(&to), before);
    assert_eq!(block_on(content(&db)).unwrap(), expected);
    assert!(db.stats().checkpoints_failed > 8);

    block_on(db.close()).unwrap();
    let refusal = block_on(db.checkpoint(beside("late")).into_future()).unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Closed);
    assert!(!beside("late").exists());
}

#[test]
fn an_incremental_one_links_what_is_new_and_removes_what_is_not_needed() {
    let (home, db, expected) = filled();
    let to = home.path().with_file_name("copy");
    let incremental = || block_on(db.checkpoint(&to).incremental().into_future()).unwrap();
    let first = incremental();
    assert_eq!((first.tables_kept, first.files_removed), (0, 0), "nothing was there: {first:?}");
    assert_eq!(checkpointed(&home, &to), expected);

    let same = incremental();
    assert_eq!((same.tables_kept, same.tables_linked), (first.tables_linked, 0), "{same:?}");
    assert_eq!(same.seqno, first.seqno);

    block_on(db.put("key0001", "changed")).unwrap();
    block_on(db.flush()).unwrap();
    let few = incremental();
    assert!(few.tables_kept >= 3 && few.tables_linked > 0, "{few:?}");
    assert_eq!(checkpointed(&home, &to), block_on(content(&db)).unwrap());

    block_on(db.compact()).unwrap();
    let all = incremental();
    assert!(all.files_removed > few.tables_kept, "{all:?}");
    assert_eq!(checkpointed(&home, &to), block_on(content(&db)).unwrap());

    // Table numbers that only checkpoints use are not reused after a crash either.
    drop(db);
    let db = home.open();
    block_on(fill(&db, 50, 20));
    block_on(db.flush()).unwrap();
    block_on(db.checkpoint(&to).incremental().into_future()).unwrap();
    assert_eq!(checkpointed(&home, &to), block_on(content(&db)).unwrap());
}

/// The names of the tables in `dir`.
fn tables(dir: &Path) -> BTreeSet<OsString> {
    files(dir, ".sst").iter().map(|path| path.file_name().unwrap().to_owned()).collect()
}

#[test]
fn another_history_of_the_same_database_is_found_out() {
    let mut options = settings::tiny();
    // Nothing is compacted, so each flushed table keeps its number.
    (options.l0_trigger_tables, options.l0_tables_max) = (1000, 2000);
    let home = Home::with(options);
    let (one, two) = (home.path().with_file_name("one"), home.path().with_file_name("two"));
    let db = home.open();
    let flushed = |db: &Db, value: &str| {
        block_on(db.put("key", value)).unwrap();
        block_on(db.flush()).unwrap();
    };
    flushed(&db, "common");
    block_on(db.checkpoint(&one).into_future()).unwrap();
    let fork = block_on(Db::builder(&one).options(home.options.clone()).open()).unwrap();
    let common = tables(&one);
    for _ in 0..8 {
        flushed(&db, "one history");
    }
    block_on(db.checkpoint(&two).into_future()).unwrap();
    let before = fingerprint(&two);
    // The other history gives the same numbers to other tables once it has made as many.
    while tables(&one).intersection(&tables(&two)).all(|table| common.contains(table)) {
        flushed(&fork, "another history");
        assert!(tables(&one).len() < 100, "no number in common");
    }
    let refusal = block_on(fork.checkpoint(&two).incremental().into_future()).unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Exists, "{refusal}");
    assert!(refusal.to_string().contains("another history"), "{refusal}");
    assert_eq!(fingerprint(&two), before);
}

#[test]
fn a_checkpoint_that_nobody_waits_for_any_more_leaves_nothing() {
    let held = Held::new(settings::tiny());
    let db = held.open();
    block_on(fill(&db, 20, 20));
    let to = fresh_dir();
    held.hold();
    let mut checkpoint = db.checkpoint(&to).into_future();
    assert!(checkpoint.as_mut().now_or_never().is_none());
    held.wait_until_held();
    let pins = db.pins();
    assert!(pins.iter().any(|pin| pin.holder == PinHolder::Checkpoint), "{pins:?}");
    drop(checkpoint);
    held.release();
    // The next checkpoint waits for this one.
    let other = fresh_dir();
    block_on(db.checkpoint(&other).into_future()).unwrap();
    assert_eq!(held.disk.list(&to).unwrap(), ["LOCK"]);
    assert_eq!(db.stats().checkpoints_failed, 1);
    assert_eq!(db.pins(), []);
    block_on(db.checkpoint(&to).into_future()).unwrap();
}

#[test]
fn closing_ends_a_checkpoint() {
    let held = Held::new(settings::tiny());
    let db = held.open();
    let to = fresh_dir();
    block_on(async {
        fill(&db, 20, 20).await;
        db.flush().await.unwrap();
        db.put("in", "memory").await.unwrap();
    });
    held.hold();
    let mut checkpoint = db.checkpoint(&to).into_future();
    assert!(checkpoint.as_mut().now_or_never().is_none());
    held.wait_until_held();
    let closing = db.clone();
    let closer = std::thread::spawn(move || block_on(closing.close()));
    held.release();
    closer.join().unwrap().unwrap();
    match block_on(checkpoint) {
        Ok(_) => {}
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Closed);
            assert_eq!(held.disk.list(&to).unwrap(), ["LOCK"]);
        }
    }
}

/// Checkpoints beside writers of batches over all ranges, flushes, compactions, splits, merges and
/// replaced spans. Each checkpoint shows whole batches only, every batch that was acknowledged
/// before the call, none that began after its return, and the same generation of two spans that are
/// replaced together.
#[test]
fn t004_22_a_checkpoint_beside_everything_else_is_one_instant() {
    let mut options = settings::tiny();
    options.initial_split_keys = vec![b"g".to_vec(), b"q".to_vec()];
    let home = Home::with(options);
    let db = home.open();
    let to = home.path().with_file_name("copy");
    let (stop, begun, acknowledged) =
        (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let came = AtomicU32::new(0);
    let goes_on = || !stop.load(Ordering::Relaxed);
    let keys: Vec<String> = ('a'..='z').map(|c| c.to_string()).collect();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while goes_on() {
                let round = begun.fetch_add(1, Ordering::SeqCst) + 1;
                let mut batch = WriteBatch::new();
                for key in &keys {
                    batch.put(key, format!("{round:080}"));
                    batch.put(format!("{key}/{round:06}"), "x");
                    batch.delete(format!("{key}/{:06}", round.saturating_sub(50)));
                }
                block_on(db.write(batch)).unwrap();
                acknowledged.store(round, Ordering::SeqCst);
            }
        });
        threads.spawn(|| {
            while goes_on() {
                block_on(db.flush()).unwrap();
                block_on(db.compact()).unwrap();
            }
        });
        threads.spawn(|| {
            while goes_on() {
                block_on(db.split_at("m")).unwrap();
                block_on(db.merge_at("m")).unwrap();
            }
        });
        let (home, db, goes_on, came) = (&home, &db, &goes_on, &came);
        threads.spawn(move || {
            let spans = ["0", "~"];
            while goes_on() {
                let generation = came.load(Ordering::SeqCst) + 1;
                let tables = spans.map(|span| {
                    let path = home.path().with_file_name(format!("{span}{generation}"));
                    let mut table = TableWriter::create(&path).unwrap();
                    for n in 0..20 {
                        table.put(format!("{span}{n:02}"), generation.to_string()).unwrap();
                    }
                    table.finish().unwrap().path
                });
                let plan = IngestPlan::new().replace("0".."1", [&tables[0]]);
                block_on(db.ingest_and_excise(plan.replace("~".., [&tables[1]]))).unwrap();
                came.store(generation, Ordering::SeqCst);
                for table in &tables {
                    std::fs::remove_file(table).unwrap();
                }
            }
        });
        for round in 0..12 {
            let (least, least_came) =
                (acknowledged.load(Ordering::SeqCst), came.load(Ordering::SeqCst));
            let checkpoint = db.checkpoint(&to).incremental();
            block_on(checkpoint.into_future()).unwrap();
            let most = begun.load(Ordering::SeqCst);
            let mut found = checkpointed(home, &to);
            let in_spans = found.extract_if(.., |key, _| matches!(key[0], b'0' | b'~'));
            let of_spans: Vec<_> = in_spans.map(|(_, value)| value).collect();
            let shown = of_spans
                .first()
                .map_or(0, |value| std::str::from_utf8(value).unwrap().parse::<u32>().unwrap());
            assert!((least_came..=came.load(Ordering::SeqCst) + 1).contains(&shown), "{shown}");
            assert!(of_spans.iter().all(|value| *value == of_spans[0]), "{round}: a part");
            assert_eq!(of_spans.len(), if shown == 0 { 0 } else { 40 }, "{round}: a part");
            let value = found.get(&b"a"[..]).map(|value| std::str::from_utf8(value).unwrap());
            let shown: u32 = value.map_or(0, |value| value.parse().unwrap());
            assert!((least..=most).contains(&shown), "{round}: {shown} of {least}..={most}");
            let mut expected = Map::new();
            for key in keys.iter().filter(|_| shown > 0) {
                expected.insert(key.clone().into(), format!("{shown:080}").into());
                for round in shown.saturating_sub(49).max(1)..=shown {
                    expected.insert(format!("{key}/{round:06}").into(), b"x".to_vec());
                }
            }
            assert_eq!(found, expected, "{round}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let stats = db.stats();
    assert!(stats.flushes > 20 && stats.compactions > 0 && stats.changes > 20, "{stats:?}");
    block_on(db.close()).unwrap();
}

#[test]
fn progress_is_told_up_to_the_end() {
    let (home, db, _) = filled();
    let checkpoint = db.checkpoint(home.path().with_file_name("copy"));
    let mut watch = checkpoint.progress();
    let (made, seen) = block_on(async {
        let shows = async {
            let mut seen = 0;
            while let Some(progress) = watch.changed().await {
                assert!(progress.done_bytes >= seen && progress.done_bytes <= progress.total_bytes);
                seen = progress.done_bytes;
            }
            seen
        };
        futures::join!(checkpoint.into_future(), shows)
    });
    made.unwrap();
    let last = watch.latest();
    assert_eq!(last.done_bytes, last.total_bytes);
    assert!(last.total_bytes > 0 && seen <= last.total_bytes);
}
