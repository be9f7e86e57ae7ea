//! Landings, the tables that wait in front of a level: shown, counted, and the same after a
//! restart.

use crate::harness::{Home, PATIENCE, Simulated, block_on, check, fill};
use crate::kit::oracle::Map;
use crate::kit::settings;
use futures::future::BoxFuture;
use sluicedb::{Db, ErrorKind, Options};
use sluicedb_actors::runtime::{Runtime, Task};
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::side_by_side::SideBySide;
use sluicedb_storage::version::{Image, Place, SliceMeta};
use sluicedb_storage::vfs::Vfs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Options under which a drain would rewrite much for a few keys, and no level is ever too large.
fn options() -> Options {
    let mut options = settings::tiny();
    options.level_base_bytes = 16 << 20;
    options.table_bytes_max = 4 << 10;
    options.drain_ratio = 1;
    options.keep_trigger = f64::INFINITY;
    options.rest_after_ms = 0;
    options
}

/// Fills L1 so much that later tables land.
async fn fill_l1(db: &Db) -> Map {
    let map = fill(db, 600, 100).await;
    db.compact_range(..).to_level(1).await.unwrap();
    map
}

/// Flushes a few keys that are spread over L1.
async fn land_a_few(db: &Db, map: &mut Map, round: u8) {
    for n in (0..600).step_by(40) {
        let (key, value) = (format!("key{n:04}").into_bytes(), vec![round; 20]);
        db.put(&key, &value).await.unwrap();
        map.insert(key, value);
    }
    db.flush().await.unwrap();
}

/// A database with tables in the landing of L1, and no work to do.
fn landed(home: &Simulated) -> (Db, Map) {
    let db = home.open();
    let mut map = home.run(fill_l1(&db));
    for round in 0..6 {
        home.run(land_a_few(&db, &mut map, round));
        home.simulator.settle();
    }
    assert!(db.stats().landing_tables > 0, "{:?}", db.stats().decisions);
    (db, map)
}

fn in_landings(image: &Image) -> Vec<SliceMeta> {
    let landed =
        image.slices.iter().filter(|((_, place, _), _)| matches!(place, Place::Landing(..)));
    landed.map(|(_, slice)| slice.clone()).collect()
}

#[test]
fn t000_12_x_12_a_landing_is_the_same_after_a_restart() {
    let home = Simulated::with(12, options());
    let (db, mut map) = landed(&home);
    home.simulator.advance(Duration::from_secs(90));
    home.simulator.settle();
    let clock = || home.simulator.handle().unix_ms();
    let then = clock();
    let (before, levels, seqno) = (home.image(), db.level_info(), db.stats().visible_seqno);
    home.run(db.close()).unwrap();
    drop(db);
    let db = home.open();
    home.simulator.settle();
    assert_eq!(home.image().slices, before.slices, "when each landed is recorded with it");
    let shape = |levels: &[sluicedb::LevelInfo]| {
        let of = |shard: &sluicedb::ShardInfo| (shard.shard, shard.tables, shard.runs, shard.bytes);
        let of = |level: &sluicedb::LevelInfo| level.shards.iter().map(of).collect::<Vec<_>>();
        levels.iter().map(|level| (level.tables, level.runs, of(level))).collect::<Vec<_>>()
    };
    assert_eq!(shape(&db.level_info()), shape(&levels));
    let ages = |levels: &[sluicedb::LevelInfo]| {
        levels.iter().flat_map(|level| &level.shards).map(|shard| shard.age_ms).max()
    };
    let age = ages(&levels).expect("something has landed");
    let (aged, passed) = (ages(&db.level_info()).expect("it is the same"), clock() - then);
    assert!(age >= 90_000 && aged >= age, "it has not become younger");
    assert!(aged - age <= passed + 1000, "x_12: {aged} ms old, {age} ms before, {passed} ms since");
    assert!(db.stats().visible_seqno >= seqno);
    home.run(check(&db, &map)).unwrap();
    // Tables that land now are newer than all that was there.
    let old = in_landings(&home.image());
    let newest = old.iter().map(|slice| slice.landed.expect("it has landed").epoch).max();
    for round in 6..10 {
        home.run(land_a_few(&db, &mut map, round));
        home.simulator.settle();
    }
    let new = in_landings(&home.image());
    let mut new = new.iter().filter(|slice| !old.contains(slice)).peekable();
    assert!(new.peek().is_some(), "{:?}", db.stats().decisions);
    assert!(new.all(|slice| slice.landed.map(|landed| landed.epoch) > newest));
    home.run(check(&db, &map)).unwrap();
    home.run(db.close()).unwrap();
}

/// Nobody writes to a database after it was opened. What became due by its options is merged, and
/// so is what waits in front of the levels when the time for a rest has come.
///
/// Planted: the planner first looks when somebody wakes it.
#[test]
fn a_database_that_is_only_opened_merges_what_is_due_and_comes_to_rest() {
    let mut home = Simulated::with(20, options());
    let (db, map) = landed(&home);
    home.run(db.close()).unwrap();
    drop(db);
    home.options.rest_after_ms = 5000;
    let db = home.open();
    home.simulator.settle();
    assert!(db.stats().landing_tables > 0, "it is not the time yet");
    let needed = db.level_info().iter().find_map(|level| level.rest_ms).expect("something waits");
    home.simulator.advance(Duration::from_millis(needed + 1));
    home.simulator.settle();
    assert_eq!(db.stats().landing_tables, 0, "{:?}", db.stats().decisions);
    home.run(db.close()).unwrap();
    drop(db);
    home.options = Options { rest_after_ms: 0, level_base_bytes: 4096, ..home.options };
    let deepest = |db: &Db| db.level_info().iter().rposition(|level| level.tables > 0);
    let before = home.image();
    assert!(!before.slices.keys().any(|(_, place, _)| *place == Place::Main(2)));
    let db = home.open();
    home.simulator.settle();
    assert!(deepest(&db) > Some(1), "L1 is too large now: {:?}", db.level_info());
    home.run(check(&db, &map)).unwrap();
    home.run(db.close()).unwrap();
}

#[test]
fn t000_18_the_shards_add_up_to_the_landings_and_those_to_the_statistics() {
    let home = Simulated::with(18, options());
    let (db, _) = landed(&home);
    let (stats, levels) = (db.stats(), db.level_info());
    for level in &levels {
        let bytes: u64 = level.shards.iter().map(|shard| shard.bytes).sum();
        assert_eq!(bytes, level.landing_bytes, "{level:?}");
        assert!(level.tables >= level.shards.iter().map(|shard| shard.tables).sum(), "{level:?}");
    }
    let sum = |of: fn(&sluicedb::LevelInfo) -> u64| levels.iter().map(of).sum::<u64>();
    assert_eq!(sum(|level| level.landing_bytes), stats.landing_bytes);
    let tables = sum(|level| level.shards.iter().map(|shard| shard.tables).sum());
    assert_eq!(tables, stats.landing_tables);
    assert!(stats.tables_landed >= tables && stats.landing_bytes > 0, "{stats:?}");
    home.run(db.close()).unwrap();
}

#[test]
fn t000_18_keeps_and_drains_are_counted_apart() {
    for keeps in [true, false] {
        let mut options = options();
        options.keep_trigger = if keeps { 1.0 } else { f64::INFINITY };
        options.landing_batch = 2;
        options.drain_ratio = if keeps { 1 } else { 1000 };
        let home = Home::with(options);
        let db = home.open();
        let mut map = block_on(fill_l1(&db));
        let (began, mut round) = (Instant::now(), 0_u8);
        let counted = loop {
            block_on(land_a_few(&db, &mut map, round));
            round = round.wrapping_add(1);
            let stats = db.stats();
            let (counted, other) =
                if keeps { (stats.keeps, stats.drains) } else { (stats.drains, stats.keeps) };
            assert_eq!((other.runs, other.tables, other.bytes, other.micros), (0, 0, 0, 0));
            if counted.runs >= 2 {
                break counted;
            }
            assert!(began.elapsed() < PATIENCE, "{:?}", stats.decisions);
        };
        let least = if keeps { 2 * counted.runs } else { counted.runs };
        assert!(counted.tables >= least, "{counted:?}");
        assert!(counted.bytes > 0 && counted.micros > 0, "{counted:?}");
        block_on(check(&db, &map)).unwrap();
        block_on(db.close()).unwrap();
    }
}

#[test]
fn t000_19_a_table_of_a_landing_may_not_be_missing_and_what_is_left_over_goes_after_the_replay() {
    let home = Simulated::with(19, options());
    let (db, mut map) = landed(&home);
    // A write for the replay.
    home.run(db.put("key0000", "in the log")).unwrap();
    map.insert(b"key0000".to_vec(), b"in the log".to_vec());
    home.simulator.settle();
    let disk = home.disk.kill_clone();
    let number = in_landings(&home.image())[0].number();
    home.run(db.close()).unwrap();
    let table = FileKind::Table(number).path(&home.dir);
    let left_over =
        home.dir.join(FileKind::Table(sluicedb_storage::filename::FileNumber(99_999)).name());
    drop(disk.create(&left_over).unwrap());
    let whole = disk.kill_clone();
    disk.remove(&table).unwrap();
    let refused = home.reborn(disk);
    let error = refused.run(refused.builder().open()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let name = table.file_name().unwrap().to_string_lossy().into_owned();
    assert!(error.to_string().contains(&name), "{error}");
    assert!(refused.disk.len(&left_over).is_ok(), "a refused open removes nothing");
    let home = home.reborn(whole);
    let db = home.open();
    assert_eq!(db.stats().recovered_entries, 1);
    home.simulator.settle();
    assert!(home.disk.len(&left_over).is_err(), "it has gone");
    home.run(check(&db, &map)).unwrap();
    home.run(db.close()).unwrap();
}

/// A range is split inside the tables of a landing. Each half is merged by itself, and a file stays
/// until both halves are merged.
///
/// Planted: a file that is deleted with its first slice; halves that are taken for whole tables.
#[test]
fn x_03_a_table_of_a_landing_that_is_split_goes_when_both_halves_are_drained() {
    let home = Simulated::with(3, options());
    let (db, map) = landed(&home);
    let before = in_landings(&home.image());
    let cut_at = |at: &[u8]| -> Vec<_> {
        let is_cut = |slice: &&SliceMeta| slice.min_key()[..] < *at && *at <= slice.max_key()[..];
        before.iter().filter(is_cut).map(SliceMeta::number).collect()
    };
    // Inside a shard, wherever the bounds between shards are.
    let keys = (0..600).map(|n| format!("key{n:04}").into_bytes());
    let at = keys.max_by_key(|at| cut_at(at).len()).expect("there are keys");
    let (at, cut) = (&at[..], cut_at(&at));
    assert!(cut.len() > 1, "{before:?}");
    let left_over = || {
        let tables = home.tables();
        cut.iter().filter(|number| tables.contains(&FileKind::Table(**number).name())).count()
    };
    assert!(home.run(db.split_at(at)).unwrap());
    home.run(check(&db, &map)).unwrap();
    home.run(db.compact_range(..at).to_level(1).into_future()).unwrap();
    home.simulator.settle();
    let halves = in_landings(&home.image());
    let halves: Vec<_> = halves.iter().filter(|slice| cut.contains(&slice.number())).collect();
    let is_right = |slice: &&SliceMeta| slice.part.is_some() && slice.min_key()[..] >= *at;
    assert!(halves.len() >= cut.len() && halves.iter().all(is_right), "{halves:?}");
    assert_eq!(left_over(), cut.len(), "their right halves are needed");
    home.run(check(&db, &map)).unwrap();
    home.run(db.compact_range(at..).to_level(1).into_future()).unwrap();
    home.simulator.settle();
    assert_eq!((left_over(), in_landings(&home.image()).len()), (0, 0));
    home.run(check(&db, &map)).unwrap();
    let reborn = home.reborn(home.disk.kill_clone());
    let again = reborn.open();
    reborn.run(check(&again, &map)).unwrap();
    home.run(db.close()).unwrap();
}

/// The simulator's clock, with the time of day set back by an offset.
#[derive(Debug)]
struct SetBack {
    clock: Arc<dyn Runtime>,
    by_ms: AtomicU64,
}

impl SideBySide for SetBack {}

impl Runtime for SetBack {
    fn spawn(&self, name: &str, body: BoxFuture<'static, ()>) -> std::io::Result<Task> {
        self.clock.spawn(name, body)
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn unix_ms(&self) -> u64 {
        self.clock.unix_ms() - self.by_ms.load(Ordering::Relaxed)
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        self.clock.sleep_until(deadline)
    }
}

/// The time of day is set back while tables wait, and set right again. No table grows older than it
/// is, nothing stops, and due work is done.
///
/// Planted: an age without `saturating_sub` (a panic, or an age of centuries).
#[test]
fn x_19_a_clock_that_is_set_back_makes_nothing_old_and_stops_nobody() {
    const HOURS: u64 = 3 * 3_600_000;
    let mut options = options();
    options.tombstone_age_max_ms = 1000;
    let home = Simulated::with(19, options);
    let clock = Arc::new(SetBack { clock: home.simulator.handle(), by_ms: AtomicU64::new(0) });
    let open = || home.run(home.builder().runtime(clock.clone()).open()).unwrap();
    let mut db = open();
    let mut map = home.run(fill_l1(&db));
    for round in 0..24 {
        // Back, further back, right again.
        clock.by_ms.store([0, HOURS, 2 * HOURS, 0][round / 6], Ordering::Relaxed);
        home.run(land_a_few(&db, &mut map, round as u8));
        let gone = format!("key{:04}", round * 7).into_bytes();
        home.run(db.delete(&gone)).unwrap();
        map.remove(&gone);
        home.simulator.settle();
        home.simulator.advance(Duration::from_secs(2));
        home.simulator.settle();
        for level in db.level_info() {
            let ages = level.shards.iter().map(|shard| shard.age_ms);
            let most = if (6..18).contains(&round) { HOURS / 2 } else { 3 * HOURS };
            assert!(ages.max().unwrap_or(0) < most, "round {round}: {level:?}");
            assert!(level.score.is_finite(), "round {round}: {level:?}");
        }
        if round % 6 == 3 {
            home.run(db.close()).unwrap();
            drop(db);
            db = open();
        }
        home.run(check(&db, &map)).unwrap();
    }
    // Tombstones that are old enough are removed.
    home.run(db.flush()).unwrap();
    for _ in 0..20 {
        home.simulator.advance(Duration::from_secs(600));
        home.simulator.settle();
    }
    let tombstones: u64 =
        db.level_info().iter().filter(|level| level.level > 0).map(|level| level.tombstones).sum();
    assert_eq!(tombstones, 0, "{:?}", db.level_info());
    home.run(check(&db, &map)).unwrap();
    home.run(db.close()).unwrap();
}
