//! Ingested tables: beside writers that wait, beside each other, and as the last change before a
//! restart.

use crate::harness::{Home, PATIENCE, Simulated, block_on, check, outside};
use crate::kit::disk::{content, fresh_dir, shared};
use crate::kit::oracle::Map;
use crate::kit::settings;
use sluicedb::{Db, ErrorKind, IngestPlan, OnEmpty, Options, Scope, TableWriter, WriteOptions};
use sluicedb_storage::version::SliceMeta;
use sluicedb_storage::vfs::{MemVfs, OperationKind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

fn key(prefix: &str, n: usize) -> Vec<u8> {
    format!("{prefix}{n:05}").into_bytes()
}

fn entries(prefix: &str, numbers: std::ops::Range<usize>, value: &str) -> Map {
    numbers.map(|n| (key(prefix, n), value.as_bytes().to_vec())).collect()
}

/// Waits until it is so; panics after [`PATIENCE`].
fn wait_until(is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "it waits for ever");
        std::thread::yield_now();
    }
}

/// The result of a thread that has to end.
fn ended<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    wait_until(|| thread.is_finished());
    thread.join().unwrap()
}

/// A database whose flush worker can be held; all other actors run.
struct Flushless {
    disk: MemVfs,
    db: Db,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Flushless {
    fn new(options: Options) -> Self {
        let disk = MemVfs::new();
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let shut = Arc::clone(&gate);
        disk.on_operation(move |_, operation| {
            let is_flush = std::thread::current().name() == Some("sluice-flush");
            if is_flush && operation.kind == OperationKind::Create {
                let shut = shut.1.wait_while(shut.0.lock().unwrap(), |is_shut| *is_shut);
                drop(shut.unwrap());
            }
        });
        let builder = Db::builder(fresh_dir()).options(options).vfs(shared(&disk));
        let db = block_on(builder.open()).unwrap();
        Self { disk, db, gate }
    }

    /// Nothing is flushed while the returned value lives.
    fn shut(&self) -> Shut<'_> {
        *self.gate.0.lock().unwrap() = true;
        Shut(self)
    }

    /// Writes under `prefixes` in turn until there is no room, and returns which scope was full.
    fn fill_up(&self, prefixes: &[String], len: usize, map: &mut Map) -> Scope {
        let began = Instant::now();
        for n in 0.. {
            let prefix = &prefixes[n % prefixes.len()];
            let (key, value) = (key(prefix, n / prefixes.len()), vec![n as u8; len]);
            // The log may have no segment ready, or a seal may be under way.
            let patience = Instant::now() + Duration::from_millis(300);
            match block_on(self.db.put_with(&key, &value, WriteOptions::new().by(patience))) {
                Ok(_) => drop(map.insert(key, value)),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error:?}");
                    return error.scope().expect("it is about room");
                }
            }
            assert!(began.elapsed() < PATIENCE, "there is always room");
        }
        unreachable!("it ends")
    }

    fn table(&self, name: &str, map: &Map) -> PathBuf {
        outside(&self.disk, name, map.iter().map(|(key, value)| (key, Some(value))))
    }
}

struct Shut<'a>(&'a Flushless);

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        *self.0.gate.0.lock().unwrap() = false;
        self.0.gate.1.notify_all();
    }
}

/// Writers write into a span while it is excised again and again. A write acknowledged before the
/// call is gone, a write begun after it is found. Of each writer's writes in between those up to
/// some point are gone, and a restart agrees about that point.
///
/// Planted: a change that lets writes in flight be applied behind it; a replay that skips the batch
/// stamped after a change.
#[test]
fn t004_07_writes_beside_a_replacement_are_before_or_after_it_and_a_restart_agrees() {
    const WRITERS: usize = 2;
    const WRITES: usize = 50;
    let (disk, dir) = (MemVfs::new(), fresh_dir());
    let mut options = settings::tiny();
    options.initial_split_keys = vec![b"a1".to_vec()];
    let open = |disk: &MemVfs| {
        let builder = Db::builder(&dir).options(options.clone()).vfs(shared(disk));
        block_on(builder.open()).unwrap()
    };
    let db = open(&disk);
    let counters = || -> [AtomicUsize; WRITERS] { Default::default() };
    let (begun, acked) = (counters(), counters());
    let load = |all: &[AtomicUsize; WRITERS]| all.each_ref().map(|n| n.load(Ordering::SeqCst));
    let (done, mut between) = (AtomicBool::new(false), [0, 0]);
    let each_writes = |count: usize| {
        let before = load(&acked);
        wait_until(|| {
            std::iter::zip(load(&acked), before).all(|(now, before)| now >= before + count)
        });
    };
    // The numbers of each writer that are found.
    let found = |db: &Db| {
        let mut found: [Vec<usize>; WRITERS] = Default::default();
        for key in block_on(content(db)).unwrap().into_keys() {
            let text = std::str::from_utf8(&key).unwrap();
            found[usize::from(key[1] - b'0')].push(text[3..].parse().unwrap());
        }
        found
    };
    for round in 0..30 {
        done.store(false, Ordering::SeqCst);
        let (before, after) = std::thread::scope(|threads| {
            for writer in 0..WRITERS {
                let (db, begun, acked, done) = (&db, &begun[writer], &acked[writer], &done);
                threads.spawn(move || {
                    while !done.load(Ordering::SeqCst) {
                        let n = begun.fetch_add(1, Ordering::SeqCst);
                        block_on(db.put(format!("a{writer}/{n:07}"), "v")).unwrap();
                        acked.store(n + 1, Ordering::SeqCst);
                    }
                });
            }
            each_writes(WRITES);
            let before = load(&acked);
            block_on(db.excise("a".."b")).unwrap();
            let after = load(&begun);
            each_writes(WRITES);
            done.store(true, Ordering::SeqCst);
            (before, after)
        });
        let all = load(&acked);
        let live = found(&db);
        for writer in 0..WRITERS {
            let first = live[writer].first().copied().unwrap_or(all[writer]);
            assert!(
                before[writer] <= first && first <= after[writer],
                "{round}: {before:?} {first}"
            );
            assert!(live[writer].iter().copied().eq(first..all[writer]), "{round}: a gap");
            between[0] += first - before[writer];
            between[1] += after[writer] - first;
        }
        if round % 3 == 0 {
            assert_eq!(found(&open(&disk.kill_clone())), live, "{round}: after a restart");
        }
    }
    assert!(between.iter().all(|count| *count > 0), "none raced with a change: {between:?}");
    block_on(db.close()).unwrap();
}

/// A plan with no table and an empty span, with no table and a span, with a table without entries,
/// and with both and a span.
///
/// Planted: a plan without tables that does nothing.
#[test]
fn t004_15_nothing_comes_in_for_a_span_or_for_none() {
    let home = Home::new();
    let db = home.open();
    block_on(async {
        for prefix in ["a", "b"] {
            for (key, value) in entries(prefix, 0..40, "old") {
                db.put(key, value).await.unwrap();
            }
        }
        let none = Vec::<PathBuf>::new;
        assert_eq!(db.ingest(none()).await.unwrap(), 0);
        assert_eq!(db.ingest_and_excise(IngestPlan::new()).await.unwrap(), 0);
        let nowhere = IngestPlan::new().replace("a".."a", none()).replace("z".."b", none());
        assert_eq!(db.ingest_and_excise(nowhere).await.unwrap(), 0);
        let nothing_there = IngestPlan::new().replace("x".."y", none());
        assert_eq!(db.ingest_and_excise(nothing_there).await.unwrap(), 0);
        assert_eq!(content(&db).await.unwrap().len(), 80);
        // A table has at least one entry: without any it would have no bounds, so its writer
        // refuses to finish it.
        let path = home.path().with_file_name("empty.table");
        let empty = TableWriter::create(&path).unwrap().finish().unwrap_err();
        assert_eq!((empty.kind(), path.exists()), (ErrorKind::Invalid, false));
        assert_eq!(db.ingest([&path]).await.unwrap_err().kind(), ErrorKind::Io);
        let of_none = IngestPlan::new().replace("a".."b", [&path]);
        assert_eq!(db.ingest_and_excise(of_none).await.unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(content(&db).await.unwrap().len(), 80, "nothing has happened");
        // A span without tables.
        let plan = IngestPlan::new().replace("a".."b", none());
        assert_eq!(db.ingest_and_excise(plan).await.unwrap(), 0);
        assert_eq!(content(&db).await.unwrap(), entries("b", 0..40, "old"));
        db.close().await.unwrap();
    });
    assert_eq!(block_on(content(&home.open())).unwrap(), entries("b", 0..40, "old"));
}

/// The range into which tables are ingested has no room: its writer waits, and nothing is flushed.
/// An ingestion into another range does not wait. One into this range waits for the flush as its
/// writers do, delays none of them, and all of them continue after the flush.
///
/// Planted: a change that keeps the log's seat while it waits; one that waits for all ranges; one
/// that never retries.
#[test]
fn t004_17_tables_come_in_while_writers_wait_for_room() {
    let mut options = settings::tiny();
    options.initial_split_keys = vec![b"b".to_vec(), b"c".to_vec()];
    let stalled = Flushless::new(options);
    let (db, mut map) = (&stalled.db, Map::new());
    let shut = stalled.shut();
    assert_eq!(stalled.fill_up(&["a".to_owned()], 200, &mut map), Scope::Local);
    let beside = entries("b", 0..50, "came");
    let (into, cut) = (entries("a", 2..6, "came"), entries("a", 8..12, "replaced"));
    let tables = [("b", &beside), ("a", &into), ("c", &cut)]
        .map(|(name, map)| stalled.table(&format!("{name}.table"), map));
    let plan = || IngestPlan::new().replace(key("a", 8)..key("a", 12), [&tables[2]]);
    let soon = || Instant::now() + Duration::from_millis(300);
    std::thread::scope(|threads| {
        // A change may seal one memtable more. Then the next change has no room either.
        let mut changes = Vec::new();
        while changes.is_empty() {
            let change = threads.spawn(|| block_on(db.ingest([&tables[1]])).unwrap());
            let deadline = soon();
            while !change.is_finished() && Instant::now() < deadline {
                std::thread::yield_now();
            }
            if change.is_finished() {
                assert_eq!(stalled.fill_up(&["a".to_owned()], 200, &mut map), Scope::Local);
                assert!(map.len() < 1000, "there is always room");
            } else {
                changes.push(change);
            }
        }
        changes.push(threads.spawn(|| block_on(db.ingest_and_excise(plan())).unwrap()));
        let patient = threads.spawn(|| block_on(db.put("a99999", "waited")));
        let beside = threads.spawn(|| block_on(db.ingest([&tables[0]])).unwrap());
        assert_eq!(ended(beside), 50, "another range waits for nobody");
        for (key, value) in [("b00050", "written"), ("c", "written")] {
            block_on(db.put_with(key, value, WriteOptions::new().by(soon()))).unwrap();
        }
        ended(threads.spawn(|| block_on(db.excise("c".."d")).unwrap()));
        assert!(changes.iter().all(|change| !change.is_finished()) && !patient.is_finished());
        drop(shut);
        ended(patient).unwrap();
        assert_eq!(changes.drain(..).map(ended).sum::<u64>(), 8);
    });
    map.extend(beside.into_iter().chain(into).chain(cut));
    map.insert(b"a99999".to_vec(), b"waited".to_vec());
    map.insert(b"b00050".to_vec(), b"written".to_vec());
    block_on(check(db, &map)).unwrap();
    block_on(db.close()).unwrap();
}

/// Two threads ingest adjacent and overlapping tables, with and without a span. Levels stay sorted
/// runs (debug builds check each swap), and the keys that both have are all of the one or all of
/// the other.
///
/// Planted: tables that go to the level that was free when they were written.
#[test]
fn t004_18_tables_that_come_in_at_once_do_not_overlap_in_a_level() {
    let home = Home::new();
    let db = home.open();
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        for (key, value) in entries("k", 0..300, "old") {
            db.put(key, value).await.unwrap();
        }
    });
    let table = |name: &str, map: &Map| {
        let path = dir.path().join(name);
        let mut table = TableWriter::create(&path).unwrap();
        for (key, value) in map {
            table.put(key, value).unwrap();
        }
        table.finish().unwrap().path
    };
    // Both have 100 to 200 in the even rounds. In the odd ones the second begins where the first
    // ends.
    let numbers = |thread: usize, round: usize| match (thread, round % 2) {
        (0, 0) => 0..200,
        (0, _) => 0..150,
        (_, 0) => 100..300,
        (..) => 150..300,
    };
    let (most, under_way) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut now = block_on(content(&db)).unwrap();
    for round in 0..40 {
        let cuts = round % 4 < 2;
        let both = [0, 1].map(|thread| {
            let numbers = numbers(thread, round);
            let span = key("k", numbers.start)..key("k", numbers.end);
            let mut map = entries("k", numbers, &format!("{round} of {thread}"));
            // This shows whether the other thread's keys in between are removed.
            map.retain(|key, _| !cuts || key[5] % 2 == thread as u8);
            (table(&format!("{round}-{thread}"), &map), span, map)
        });
        std::thread::scope(|threads| {
            for (path, span, map) in &both {
                let (db, most, under_way) = (&db, &most, &under_way);
                threads.spawn(move || {
                    most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let came = if cuts {
                        let plan = IngestPlan::new().replace(span.clone(), [path]);
                        block_on(db.ingest_and_excise(plan))
                    } else {
                        block_on(db.ingest([path]))
                    };
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    assert_eq!(came.unwrap() as usize, map.len());
                });
            }
        });
        let after = |order: [usize; 2]| {
            let mut all = now.clone();
            for (_, span, map) in order.map(|at| &both[at]) {
                all.retain(|key, _| !cuts || !span.contains(key));
                all.extend(map.clone());
            }
            all
        };
        let found = block_on(content(&db)).unwrap();
        assert!(found == after([0, 1]) || found == after([1, 0]), "round {round}");
        now = found;
        if round % 10 == 5 {
            block_on(db.compact()).unwrap();
        }
    }
    assert_eq!(most.load(Ordering::SeqCst), 2, "two came in at once");
    block_on(db.close()).unwrap();
    drop(db);
    let verified = crate::kit::disk::verify(&home.path()).unwrap();
    assert!(verified.is_sound(), "{:?}", verified.findings);
}

/// Planted: a change whose sequence number is not in the manifest when the log has been deleted; an
/// open that counts batches alone.
#[test]
fn t004_21_numbers_go_on_after_a_restart_that_follows_an_ingest() {
    for closed in [false, true] {
        for flushed in [false, true] {
            let home = Simulated::new(421);
            let db = home.open();
            let mut map = entries("a", 0..20, "old");
            for (key, value) in &map {
                home.run(db.put(key, value)).unwrap();
            }
            if flushed {
                home.run(db.flush()).unwrap();
            }
            let came = entries("a", 5..15, "came");
            let table = home.outside("t", came.iter().map(|(key, value)| (key, Some(value))));
            home.run(db.ingest([table])).unwrap();
            map.extend(came);
            let before = db.stats().visible_seqno;
            assert_eq!(before, 21, "the ingest has a number");
            if closed {
                home.run(db.close()).unwrap();
            }
            let home = home.reborn(home.disk.kill_clone());
            let db = home.open();
            assert!(db.stats().visible_seqno >= before, "{closed}, {flushed}");
            home.run(check(&db, &map)).unwrap();
            // Writes that are newer than the ingested tables, in every place.
            for n in [5, 9] {
                home.run(db.put(key("a", n), "after")).unwrap();
                map.insert(key("a", n), b"after".to_vec());
            }
            assert!(db.stats().visible_seqno >= before + 2);
            home.run(check(&db, &map)).unwrap();
            home.run(db.flush()).unwrap();
            home.run(check(&db, &map)).unwrap();
            home.run(db.compact()).unwrap();
            home.run(check(&db, &map)).unwrap();
            home.run(db.close()).unwrap();
        }
    }
}

/// Cold ranges hold the whole write buffer, and nothing can be flushed. Ingested tables need no
/// room in it, so they are admitted; a writer continues after the flushes.
///
/// Planted: a change that charges its tables to the write buffer.
#[test]
fn x_08_tables_come_in_while_cold_ranges_hold_the_whole_budget() {
    let mut options = settings::tiny();
    options.initial_split_keys = (1..30).map(|n| format!("r{n:02}").into_bytes()).collect();
    options.memtable_bytes = Some(512 << 10);
    let full = Flushless::new(options);
    let (db, mut map) = (&full.db, Map::new());
    let shut = full.shut();
    let prefixes: Vec<_> = (1..30).map(|n| format!("r{n:02}/")).collect();
    assert_eq!(full.fill_up(&prefixes, 400, &mut map), Scope::Global);
    let (came, cut) = (entries("r05/", 3..40, "came"), entries("r06/", 0..7, "replaced"));
    let tables = [full.table("came", &came), full.table("cut", &cut)];
    let plan = || IngestPlan::new().replace("r06".."r07", [&tables[1]]);
    std::thread::scope(|threads| {
        let came = threads.spawn(|| block_on(db.ingest([&tables[0]])).unwrap());
        assert_eq!(ended(came), 37);
        let replaced = threads.spawn(|| block_on(db.ingest_and_excise(plan())).unwrap());
        assert_eq!(ended(replaced), 7);
        assert_eq!(db.stats().flushes, 0);
        let patient = threads.spawn(|| block_on(db.put("r29/x", vec![1; 2000])));
        drop(shut);
        ended(patient).unwrap();
    });
    map.extend(came);
    map.retain(|key, _| !key.starts_with(b"r06"));
    map.extend(cut);
    map.insert(b"r29/x".to_vec(), vec![1; 2000]);
    block_on(check(db, &map)).unwrap();
    block_on(db.close()).unwrap();
}

/// The sequence numbers continue after the largest one, wherever it is: in the log, L0, a landing,
/// a level, or an ingested table. `c7_numbers_that_contradict_each_other_are_found_and_refused`
/// shows that the manifest's own number cannot be too small.
///
/// Planted: an open that continues from the log alone; one that ignores changes.
#[test]
fn x_13_the_next_number_is_above_all_that_there_are_after_any_restart() {
    let (mut home, source) = (Simulated::new(13), Simulated::new(14));
    let (from, mut map) = (source.open(), Map::new());
    source.run(from.put("s", "replaced")).unwrap();
    let (mut db, mut last) = (home.open(), 0);
    for round in 0..36 {
        let value = format!("{round}").into_bytes();
        home.run(db.put("a", &value)).unwrap();
        map.insert(b"a".to_vec(), value.clone());
        match round % 6 {
            0 => {}
            1 => home.run(db.flush()).unwrap(),
            2 => home.run(db.compact()).unwrap(),
            3 => {
                let came =
                    Map::from([(b"a".to_vec(), value.clone()), (b"t".to_vec(), value.clone())]);
                let entries = came.iter().map(|(key, value)| (key, Some(value)));
                let table = home.outside(&format!("{round}"), entries);
                home.run(db.ingest([table])).unwrap();
                map.extend(came);
            }
            4 => {
                home.run(db.replace_from(&from.snapshot(), ["s".."t"], OnEmpty::Refuse)).unwrap();
                map.insert(b"s".to_vec(), b"replaced".to_vec());
            }
            _ => assert!(home.run(db.split_at(format!("m{round}"))).unwrap()),
        }
        home.run(db.sync()).unwrap();
        let now = db.stats().visible_seqno;
        assert!(now > last, "{now} after {last}");
        last = now;
        if round % 2 == 0 {
            home.run(db.close()).unwrap();
        }
        home.simulator.kill();
        drop(db);
        home = home.reborn(home.disk.kill_clone());
        db = home.open();
        let image = home.image();
        let largest = image.slices.values().map(SliceMeta::max_seqno).max().unwrap_or_default();
        let visible = db.stats().visible_seqno;
        assert!(visible >= last && visible >= largest.0, "{visible}, {last}, {largest:?}");
        home.run(check(&db, &map)).unwrap();
    }
    home.run(db.close()).unwrap();
    source.run(from.close()).unwrap();
}
