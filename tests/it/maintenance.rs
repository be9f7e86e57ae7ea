use crate::harness::{Home, Simulated, block_on, check, fill};
use crate::kit::disk::content;
use crate::kit::settings;
use sluicedb::{ErrorKind, Options, Preset};
use sluicedb_storage::vfs::{Fault, OperationKind};
use std::future::IntoFuture;

#[test]
fn a_flush_empties_the_memtables() {
    let home = Simulated::new(1);
    let db = home.open();
    let expected = home.run(fill(&db, 30, 20));
    home.run(db.flush()).unwrap();
    let stats = db.stats();
    assert_eq!(stats.sealed_bytes, 0);
    assert!(stats.tables > 0 && stats.flushes > 0);
    // The count covers tables, not memory.
    assert!(stats.table_entries >= 30);
    home.run(check(&db, &expected)).unwrap();
    // Nothing to do the second time.
    let flushes = db.stats().flushes;
    home.run(db.flush()).unwrap();
    assert_eq!(db.stats().flushes, flushes);
    drop(db);
    home.simulator.settle();
    // The tables hold everything without the log.
    let db = home.open();
    assert_eq!(db.stats().recovered_entries, 0);
    home.run(check(&db, &expected)).unwrap();
}

#[test]
fn compact_leaves_one_sorted_run_without_tombstones() {
    let home = Simulated::new(2);
    let db = home.open();
    home.run(async {
        for round in 0..6 {
            fill(&db, 100, 20 + round).await;
            for n in (0..100).step_by(3) {
                db.delete(format!("key{n:04}")).await.unwrap();
            }
            db.flush().await.unwrap();
        }
        db.compact().await.unwrap();
    });
    let levels = db.level_info();
    let used: Vec<_> = levels.iter().filter(|info| info.tables > 0).collect();
    assert_eq!(used.len(), 1, "{levels:?}");
    assert!(used[0].level > 0);
    assert_eq!(used[0].tombstones, 0);
    assert_eq!(used[0].entries, 66, "each key once");
    assert_eq!(home.run(content(&db)).unwrap().len(), 66);
    // Everything deleted: nothing is left, not even a tombstone.
    home.run(async {
        for n in 0..100 {
            db.delete(format!("key{n:04}")).await.unwrap();
        }
        db.compact().await.unwrap();
    });
    assert_eq!(db.stats().table_entries, 0, "{:?}", db.level_info());
    assert!(home.run(content(&db)).unwrap().is_empty());
    home.run(db.compact()).unwrap();
    home.run(db.flush()).unwrap();
    home.run(db.sync()).unwrap();
}

#[test]
fn maintenance_of_an_empty_database_is_fine() {
    let home = Home::new();
    let db = home.open();
    block_on(async {
        db.flush().await.unwrap();
        db.compact().await.unwrap();
        db.sync().await.unwrap();
        assert_eq!(db.get("a").await.unwrap(), None);
        db.close().await.unwrap();
    });
}

#[test]
fn maintenance_goes_on_beside_writes_and_beside_itself() {
    let home = Simulated::new(3);
    let db = home.open();
    home.run(async {
        let writes = async {
            for n in 0..600 {
                db.put(format!("key{:04}", n % 200), vec![n as u8; 40]).await.unwrap();
            }
        };
        let maintenance = async {
            for _ in 0..6 {
                futures::try_join!(db.flush(), db.compact(), db.sync(), db.flush()).unwrap();
            }
        };
        futures::join!(writes, maintenance);
    });
    let found = home.run(content(&db)).unwrap();
    assert_eq!(found.len(), 200);
    for (n, value) in found.values().enumerate() {
        assert_eq!(*value, vec![(400 + n) as u8; 40]);
    }
}

#[test]
fn a_failing_flush_is_reported_and_tried_again() {
    let home = Simulated::new(4);
    let db = home.open();
    let expected = home.run(fill(&db, 40, 20));
    home.faults.arm(Fault::of(OperationKind::Create).named(".sst").times(3));
    home.faults.arm(Fault::of(OperationKind::Create).named(".tmp").times(3));
    let error = home.run(db.flush()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
    assert!(error.path().is_some());
    home.run(check(&db, &expected)).unwrap();
    // The engine compacts by itself, after a while.
    for _ in 0..5 {
        let _ = home.run(db.flush());
    }
    home.faults.disarm();
    home.run(db.flush()).unwrap();
    assert!(db.stats().job_retries > 0);
    assert!(db.health().state().is_running());
    home.run(check(&db, &expected)).unwrap();
}

/// Background work keeps the levels' shape without a call for it.
#[test]
fn levels_keep_their_limits_by_themselves() {
    let mut options = settings::tiny();
    options.compression = sluicedb::Compression::None;
    let home = Simulated::with(5, options);
    let db = home.open();
    let mut chance = crate::kit::chance::Chance::new(5);
    for _ in 0..30 {
        home.run(async {
            for _ in 0..100 {
                let key = format!("{:016x}", chance.next());
                db.put(key, chance.bytes(60)).await.unwrap();
            }
        });
        // Puts that find room do not yield, so the simulator need not run anyone else.
        home.simulator.settle();
    }
    home.run(db.flush()).unwrap();
    home.simulator.settle();
    let levels = db.level_info();
    let l0 = levels.iter().find(|info| info.level == 0).unwrap();
    assert!(l0.runs < 2, "{levels:?}");
    for info in &levels {
        assert!(info.score < 1.0 || info.level == levels.last().unwrap().level, "{levels:?}");
    }
    assert!(levels.last().unwrap().level >= 2, "{levels:?}");
    let stats = db.stats();
    assert!(stats.compactions > 0 && stats.tables_deleted > 0);
    assert_eq!(home.run(content(&db)).unwrap().len(), 3_000);
}

/// Random keys over the whole key space, with this many shards; nothing runs any more.
fn spread_out(seed: u64, shards: usize, l0_trigger: usize) -> (Simulated, sluicedb::Db) {
    let mut options = settings::tiny();
    (options.shards_per_range, options.l0_trigger_tables) = (shards, l0_trigger);
    options.l0_tables_max = l0_trigger + 4;
    options.landing_runs_max = 0;
    options.memtable_bytes = Some(16 << 10);
    let home = Simulated::with(seed, options);
    let db = home.open();
    let mut chance = crate::kit::chance::Chance::new(7);
    for _ in 0..40 {
        home.run(async {
            for _ in 0..100 {
                db.put(chance.bytes(16), chance.bytes(60)).await.unwrap();
            }
        });
        home.simulator.settle();
    }
    home.run(db.flush()).unwrap();
    home.simulator.settle();
    (home, db)
}

/// Each table of L0 is in one shard, so an edit alone can hand it on. The last flush, of half a
/// memtable or less, is exempt.
#[test]
fn flushes_are_cut_at_shard_bounds() {
    use sluicedb_storage::manifest;
    use sluicedb_storage::version::{Shards, SliceMeta};
    let (home, db) = spread_out(7, 4, 1_000);
    let stats = db.stats();
    assert!(stats.tables > 3 * stats.flushes, "{stats:?}");
    let l0 = db.level_info()[0].clone();
    assert!(l0.runs <= stats.flushes && l0.tables == stats.tables, "{l0:?}");
    home.run(db.close()).unwrap();
    let vfs = crate::kit::disk::shared(&home.disk);
    let current = manifest::read_current(&vfs, &home.dir).unwrap().unwrap();
    let image = manifest::load(&vfs, &home.dir, &current).unwrap().image;
    let shards = Shards::of(&sluicedb_storage::key::Span::all(), 4);
    let newest = image.slices.values().map(SliceMeta::max_seqno).max();
    for meta in image.slices.values().map(|slice| &slice.table) {
        let straddles = shards.index(&meta.min_key) != shards.index(&meta.max_key);
        assert!(!straddles || Some(meta.max_seqno) == newest, "{meta:?}");
    }
}

/// Goal: "half a memtable" follows from the ranges that exist, not from the options of this
/// opening.
/// Planted: half a memtable of a database with one range.
#[test]
fn flushes_are_cut_after_a_reopening_that_names_no_ranges() {
    let mut options = settings::tiny();
    (options.shards_per_range, options.l0_trigger_tables, options.l0_tables_max) = (4, 100, 200);
    (options.write_buffer_bytes, options.memtable_bytes) = (Some(16 << 20), None);
    options.initial_split_keys = (1..16).map(|n| vec![n * 16]).collect();
    let home = Simulated::with(8, options);
    home.run(home.open().close()).unwrap();
    let mut again = home.reborn(home.disk.clone());
    again.options.initial_split_keys.clear();
    let db = again.open();
    assert_eq!(db.stats().ranges.len(), 16);
    let mut chance = crate::kit::chance::Chance::new(8);
    // Two memtables all over the first range, and a remainder that need not be cut. None of them
    // would be half a memtable of a database with one range.
    again.run(async {
        for _ in 0..12_000 {
            let mut key = chance.bytes(16);
            key[0] &= 15;
            db.put(key, chance.bytes(100)).await.unwrap();
        }
    });
    again.run(db.flush()).unwrap();
    let stats = db.stats();
    assert!(stats.flushes >= 2 && stats.tables >= 2 * stats.flushes, "{stats:?}");
}

/// A flush that is cut into several files is one run: it neither starts compactions earlier nor
/// makes them rewrite more.
#[test]
fn shards_do_not_make_more_compactions() {
    // The number of jobs depends on the schedule, by a tenth and more among a few seeds.
    let work = |shards| {
        (0..64).fold((0, 0, 0), |(flushes, compactions, bytes), seed| {
            let (_home, db) = spread_out(seed, shards, 4);
            let stats = db.stats();
            (
                flushes + stats.flushes,
                compactions + stats.compactions,
                bytes + stats.compaction_bytes_written,
            )
        })
    };
    let (whole, cut) = (work(1), work(4));
    assert_eq!(whole.0, cut.0);
    assert!(
        cut.1 <= whole.1 + whole.1 / 10 && cut.2 <= whole.2 + whole.2 / 10,
        "{whole:?} {cut:?}"
    );
}

/// Log segments and tables that nothing needs any more are deleted.
#[test]
fn files_do_not_pile_up() {
    let home = Simulated::new(6);
    let db = home.open();
    home.run(async {
        for round in 0..40 {
            fill(&db, 100, 60 + round).await;
        }
        db.compact().await.unwrap();
    });
    home.simulator.settle();
    home.run(db.put("one", "more")).unwrap();
    home.run(db.flush()).unwrap();
    home.simulator.settle();
    use sluicedb_storage::vfs::Vfs;
    let files = home.disk.list(&home.dir).unwrap();
    let logs = files.iter().filter(|name| name.ends_with(".wal") || name.ends_with(".spare"));
    assert!(logs.count() <= 6, "{files:?}");
    let tables = files.iter().filter(|name| name.ends_with(".sst")).count() as u64;
    assert_eq!(tables, db.stats().tables, "{files:?}");
    assert!(!files.iter().any(|name| name.ends_with(".tmp")), "{files:?}");
    assert_eq!(files.iter().filter(|name| name.starts_with("MANIFEST")).count(), 1, "{files:?}");
}

/// Fills `a0000..` and `b0000..` into tables of their own, with tombstones.
async fn fill_two_areas(db: &sluicedb::Db) {
    for round in 0..3_u8 {
        for area in ["a", "b"] {
            for n in 0..200 {
                db.put(format!("{area}{n:04}"), vec![round; 100]).await.unwrap();
            }
            db.delete(format!("{area}0000")).await.unwrap();
            db.flush().await.unwrap();
        }
    }
}

#[test]
fn a_range_is_compacted_to_the_level_that_was_asked_for_and_others_are_left_alone() {
    let mut options = settings::tiny();
    // No compaction is due by itself.
    (options.l0_trigger_tables, options.l0_tables_max) = (1000, 2000);
    let home = Simulated::with(3, options);
    let db = home.open();
    home.run(fill_two_areas(&db));
    let before = home.run(content(&db)).unwrap();
    let l0 = |db: &sluicedb::Db| db.level_info()[0].tables;
    let tables = l0(&db);
    let compaction = db.compact_range("a".."b").to_level(2);
    let mut progress = compaction.progress();
    assert_eq!(progress.latest(), sluicedb::Progress::default());
    home.run(async { compaction.await.unwrap() });
    let reached = progress.latest();
    assert!(reached.total_bytes > 0 && reached.done_bytes == reached.total_bytes, "{reached:?}");
    assert_eq!(home.run(progress.changed()), None, "it has ended");
    let levels = db.level_info();
    let of_level = |level| levels.iter().find(|info| info.level == level);
    assert!(l0(&db) < tables && l0(&db) > 0, "{levels:?}");
    let reached = of_level(2).expect("something is there");
    assert_eq!((reached.entries, reached.tombstones), (199, 0));
    assert_eq!(home.run(content(&db)).unwrap(), before);
    // Deeper tables stay where they are.
    home.run(async { db.compact_range(..).to_level(1).await.unwrap() });
    let levels = db.level_info();
    let at: Vec<_> = levels.iter().filter(|i| i.tables > 0).map(|i| (i.level, i.entries)).collect();
    assert_eq!(at, [(1, 199), (2, 199)]);
    assert_eq!(home.run(content(&db)).unwrap(), before);
    // A level that does not exist; a range without keys.
    for level in [0, 8] {
        let refused = home.run(async { db.compact_range(..).to_level(level).await }).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert!(refused.to_string().contains("1..=7"), "{refused}");
    }
    home.run(async { db.compact_range("b".."a").await.unwrap() });
}

/// Planted: a worker that continues to merge.
#[test]
fn a_compaction_that_is_dropped_stops_and_changes_nothing() {
    let mut options = settings::tiny();
    (options.l0_trigger_tables, options.l0_tables_max) = (1000, 2000);
    let held = crate::harness::Held::new(options);
    let db = held.open();
    block_on(fill_two_areas(&db));
    let (before, levels) = (block_on(content(&db)).unwrap(), db.level_info());
    held.hold();
    let compaction = db.compact_range("a".."b");
    let mut progress = compaction.progress();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let running = runtime.spawn(compaction.into_future());
    held.wait_until_held();
    running.abort();
    assert!(runtime.block_on(running).unwrap_err().is_cancelled());
    held.release();
    assert!(progress.latest().total_bytes > 0);
    assert_eq!(block_on(progress.changed()), None, "it is over");
    // The next compaction has run, so the first one is over.
    block_on(async { db.compact_range("c"..).await.unwrap() });
    assert_eq!(db.level_info(), levels);
    assert_eq!(block_on(content(&db)).unwrap(), before);
    block_on(db.compact()).unwrap();
    assert_eq!(block_on(content(&db)).unwrap(), before);
    block_on(db.close()).unwrap();
}

/// A database with the toy numbers of `Preset::Seed`, filled for three levels, and at rest.
fn toy_levels() -> (Simulated, sluicedb::Db) {
    let toy = Options::preset(Preset::Seed);
    let mut options = settings::tiny();
    options.shards_per_range = toy.shards_per_range;
    options.l0_bytes_max = toy.l0_bytes_max;
    options.l0_entries_max = toy.l0_entries_max;
    options.level_base_bytes = toy.level_base_bytes;
    options.level_base_entries = toy.level_base_entries;
    options.level_ratio = toy.level_ratio;
    options.table_bytes_max = toy.table_bytes_max;
    options.landing_runs_max = toy.landing_runs_max;
    let home = Simulated::with(4, options);
    let db = home.open();
    home.run(async {
        for n in 0..14_000_u64 {
            let key = n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
            db.put(key, n.to_le_bytes()).await.unwrap();
        }
        db.flush().await.unwrap();
    });
    home.simulator.settle();
    (home, db)
}

#[test]
fn t003_03_levels_are_one_table_each_and_within_their_limits() {
    let (_home, db) = toy_levels();
    let levels = db.level_info();
    let deepest = levels.last().expect("there is a level").level;
    assert!(deepest >= 2, "{levels:?}");
    for level in &levels {
        assert!(level.level == deepest || level.score < 1.0, "{level:?}");
        assert!(level.level == 0 || level.tables <= 1, "{level:?}");
        assert_eq!(level.entries_max, 1000 * 10_u64.pow(level.level.into()));
        assert_eq!(level.bytes_max, (1 << 20) * 10_u64.pow(level.level.into()));
    }
}

#[test]
fn t003_04_a_cascade_ends_and_each_level_is_filled_from_the_one_above() {
    let (home, db) = toy_levels();
    let stats = db.stats();
    // Each flush leads to at most one job per level.
    assert!(stats.compactions <= 2 * stats.flushes, "{stats:?}");
    home.simulator.settle();
    assert_eq!(db.stats().compactions, stats.compactions, "nothing is left to do");
    assert_eq!(home.run(content(&db)).unwrap().len(), 14_000);
}

#[test]
fn t003_06_the_newest_wins_in_whatever_place_the_others_are() {
    let mut options = settings::tiny();
    (options.l0_trigger_tables, options.l0_tables_max) = (1000, 2000);
    let home = Simulated::with(5, options);
    let db = home.open();
    home.run(async {
        let places = ["in L2", "in L1", "L0", "L0", "L0", "the newest of L0"];
        for (at, value) in places.into_iter().enumerate() {
            db.put("k", value).await.unwrap();
            db.put(format!("of {at} only"), "x").await.unwrap();
            db.flush().await.unwrap();
            if at < 2 {
                db.compact_range(..).to_level(2 - at as u8).await.unwrap();
            }
            assert_eq!(db.get("k").await.unwrap().as_deref(), Some(value.as_bytes()));
        }
        let tables: Vec<_> = db.level_info().iter().map(|level| level.tables).collect();
        assert_eq!(tables, [4, 1, 1]);
        let newest = content(&db).await.unwrap().remove(&b"k"[..]);
        assert_eq!(newest.as_deref(), Some(&b"the newest of L0"[..]));
        // The same over a delete in L0; the value that it hides does not reappear from below.
        db.delete("k").await.unwrap();
        db.compact_range(..).to_level(1).await.unwrap();
        assert_eq!(db.get("k").await.unwrap(), None);
        db.compact().await.unwrap();
        assert_eq!((db.get("k").await.unwrap(), db.stats().table_entries), (None, 6));
    });
}

#[test]
fn t003_09_a_database_of_nothing_but_deletions_is_compacted_to_no_table() {
    let home = Simulated::new(6);
    let db = home.open();
    home.run(async {
        db.compact().await.unwrap();
        for n in 0..300 {
            db.put(format!("key{n:04}"), "x").await.unwrap();
        }
        db.compact().await.unwrap();
        assert!(db.stats().tables > 0);
        for n in 0..300 {
            db.delete(format!("key{n:04}")).await.unwrap();
        }
        db.compact().await.unwrap();
        assert_eq!((db.stats().tables, db.stats().table_bytes), (0, 0));
    });
    assert!(home.run(content(&db)).unwrap().is_empty());
}

#[test]
fn t003_12_the_fields_of_levels_and_stats_add_up() {
    let (home, db) = toy_levels();
    for compacted in [false, true] {
        let (levels, stats) = (db.level_info(), db.stats());
        let sum = |of: fn(&sluicedb::LevelInfo) -> u64| levels.iter().map(of).sum::<u64>();
        assert_eq!(sum(|level| level.tables), stats.tables);
        assert_eq!(sum(|level| level.entries), stats.table_entries);
        assert_eq!(sum(|level| level.bytes), stats.table_bytes);
        assert!(compacted || sum(|level| level.tables) > 1);
        home.run(db.compact()).unwrap();
    }
}
