//! The memory in front of the tables: entries are found in every phase, the newest first; it is
//! bounded; no waiter is forgotten. Some tests stop the writing of tables. The clock is the
//! simulator's.
//!
//! Long because the rig that stops and slows the disk is shared by its tests.

use crate::harness::{Held, Simulated, block_on, check};
use crate::kit::chance::Chance;
use crate::kit::disk::{collect, content};
use crate::kit::oracle::{Entries, Map};
use crate::kit::settings;
use crate::kit::settings::NO_WAIT;
use futures::stream::{FuturesUnordered, StreamExt};
use sluicedb::{Db, Durability, ErrorKind, Options, Scan, Scope, WriteBatch, WriteOptions};
use sluicedb_actors::runtime::Runtime;
use sluicedb_storage::vfs::{CrashKind, Fault, OperationKind};
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio_test::task;

/// Ranges `[..a1)`, `[a1..a2)`, up to `count` of them, with memtables of 4 KiB.
fn ranges(count: usize) -> Options {
    let mut options = settings::tiny();
    options.initial_split_keys = (1..count).map(|n| range_key(n, 0)[..3].to_vec()).collect();
    options
}

/// A key of the range with this number.
fn range_key(range: usize, n: usize) -> Vec<u8> {
    format!("{range:03}/{n:06}").into_bytes()
}

/// A future to be polled by hand.
fn waiting<F: Future>(future: F) -> task::Spawn<Pin<Box<F>>> {
    task::spawn(Box::pin(future))
}

fn pause_flushes(home: &Simulated) {
    home.faults.arm(Fault::of(OperationKind::Create).named(".sst").sticky());
    home.faults.arm(Fault::of(OperationKind::Create).named(".tmp").sticky());
}

/// Puts into one range until a put is refused. Returns the content and which scope was full.
fn fill(home: &Simulated, db: &Db, range: usize, len: usize) -> (Map, Scope) {
    let mut map = Map::new();
    for n in 0..10_000 {
        let (key, value) = (range_key(range, n), vec![n as u8; len]);
        let mut put = home.run(db.put_with(&key, &value, NO_WAIT));
        if put.is_err() {
            // The log may have no segment ready, or a seal may be under way.
            home.simulator.settle();
            put = home.run(db.put_with(&key, &value, NO_WAIT));
        }
        if let Err(error) = put {
            assert_eq!(error.kind(), ErrorKind::Overloaded, "{error:?}");
            return (map, error.scope().unwrap());
        }
        map.insert(key, value);
    }
    panic!("there is always room");
}

#[test]
fn t002_01_a_write_is_read_in_every_phase_of_its_memtable() {
    let held = Held::new(ranges(2));
    let db = held.open();
    let mut expected = Map::new();
    let put = |expected: &mut Map, n: usize, value: u8| {
        for range in 0..2 {
            let (key, value) = (range_key(range, n), vec![value; 100]);
            block_on(db.put(&key, &value)).unwrap();
            assert_eq!(block_on(db.get(&key)).unwrap().as_deref(), Some(&value[..]));
            expected.insert(key, value);
        }
    };
    for n in 0..5 {
        put(&mut expected, n, 1);
    }
    block_on(check(&db, &expected)).unwrap();
    // Sealed, and being flushed.
    held.hold();
    for n in 5..60 {
        put(&mut expected, n, 2);
    }
    held.wait_until_held();
    assert!(db.stats().sealed_bytes > 0 && db.stats().flushes == 0);
    block_on(check(&db, &expected)).unwrap();
    // Some keys again, in the active memtable in front.
    for n in 0..10 {
        put(&mut expected, n, 3);
    }
    block_on(check(&db, &expected)).unwrap();
    held.release();
    block_on(db.flush()).unwrap();
    assert!(db.stats().flushes > 1 && db.stats().sealed_bytes == 0);
    block_on(check(&db, &expected)).unwrap();
}

/// One key that is always overwritten, and one that is written and deleted in turn: each layer
/// hides all older ones.
#[test]
fn t002_02_the_newest_layer_wins_also_where_it_deletes() {
    let mut options = ranges(1);
    (options.l0_trigger_tables, options.l0_tables_max) = (3, 30);
    let home = Simulated::with(1, options);
    let db = home.open();
    let mut expected = Map::new();
    let mut layer = |name: &str, present: bool, seal: bool| {
        let mut batch = WriteBatch::new();
        batch.put("k", name);
        expected.insert(b"k".to_vec(), name.as_bytes().to_vec());
        if present {
            batch.put("turn", name);
            expected.insert(b"turn".to_vec(), name.as_bytes().to_vec());
        } else {
            batch.delete("turn");
            expected.remove(&b"turn"[..]);
        }
        if seal {
            batch.put("x", vec![0; 5000]);
            expected.insert(b"x".to_vec(), vec![0; 5000]);
        }
        home.run(db.write(batch)).unwrap();
        expected.clone()
    };
    let look = |expected: &Map| {
        home.simulator.settle();
        home.run(check(&db, expected)).unwrap();
    };
    look(&layer("level", true, false));
    home.run(db.compact()).unwrap();
    look(&layer("l0", false, false));
    home.run(db.flush()).unwrap();
    let tables =
        |level| db.level_info().iter().filter(|i| i.level == level).map(|i| i.tables).sum();
    let below: u64 = (1..8).map(tables).sum();
    assert_eq!((tables(0), below), (1, 1), "{:?}", db.level_info());
    pause_flushes(&home);
    let seals = db.stats().seals;
    look(&layer("sealed 1", true, true));
    assert_eq!(db.stats().seals, seals + 1);
    look(&layer("sealed 2", false, true));
    assert_eq!(db.stats().seals, seals + 2);
    let last = layer("active", true, false);
    look(&last);
    assert!(db.stats().active_bytes > 0 && db.stats().sealed_bytes > 10_000);
    home.faults.disarm();
    home.run(db.compact()).unwrap();
    look(&last);
}

/// A range whose flushes fall behind is bounded, and delays only its own writers.
#[test]
fn t002_03_t003_10_a_hot_range_makes_only_its_own_writers_wait() {
    let home = Simulated::with(2, ranges(4));
    let memtable = home.options.memtable_bytes.unwrap();
    let db = home.open();
    pause_flushes(&home);
    let (mut expected, scope) = fill(&home, &db, 2, 200);
    assert_eq!(scope, Scope::Local);
    // One in flush, two behind it, and the active one at its hard limit.
    let stats = db.stats();
    assert_eq!(stats.seals, 3);
    assert!(stats.active_bytes <= 2 * memtable, "{}", stats.active_bytes);
    assert!(stats.active_bytes > 2 * memtable - 400, "{}", stats.active_bytes);
    // Writers go on while a seal is on its way, up to the hard limit.
    assert!(stats.sealed_bytes < 3 * 2 * memtable, "{}", stats.sealed_bytes);
    assert!(stats.active_bytes + stats.sealed_bytes <= home.options.effective_range_buffer_bytes());

    let mut hot = waiting(db.put(range_key(2, 77_777), vec![7; 200]));
    assert!(hot.poll().is_pending());
    let steps = home.simulator.steps();
    for n in 0..25 {
        for range in [0, 1, 3] {
            let mut cold = waiting(db.put(range_key(range, n), "cold"));
            assert!(cold.poll().is_ready(), "done by its caller at once, put {n}");
            expected.insert(range_key(range, n), b"cold".to_vec());
        }
    }
    assert_eq!(home.simulator.steps(), steps, "nobody else had to run");
    // A batch that touches the hot range waits for it, and none of it is visible until then.
    let mut batch = WriteBatch::new();
    batch.put(range_key(0, 88_888), "both").put(range_key(2, 88_888), vec![8; 200]);
    let mut both = waiting(db.write(batch));
    assert!(both.poll().is_pending());
    home.simulator.settle();
    assert!(both.poll().is_pending() && hot.poll().is_pending());
    assert_eq!(home.run(content(&db)).unwrap(), expected);
    home.faults.disarm();
    home.run(hot.into_inner()).unwrap();
    home.run(both.into_inner()).unwrap();
    expected.insert(range_key(2, 77_777), vec![7; 200]);
    expected.insert(range_key(0, 88_888), b"both".to_vec());
    expected.insert(range_key(2, 88_888), vec![8; 200]);
    assert_eq!(home.run(content(&db)).unwrap(), expected);
    assert!(db.stats().waits_local >= 2);
}

/// A write larger than a whole memtable waits in line like others, and is admitted.
#[test]
fn a_large_write_fits_when_the_range_is_not_full() {
    let home = Simulated::with(3, ranges(2));
    let db = home.open();
    for n in 0..40 {
        let len = if n % 4 == 0 { 100_000 } else { 300 };
        home.run(db.put(range_key(1, n), vec![n as u8; len])).unwrap();
    }
    pause_flushes(&home);
    let (_, scope) = fill(&home, &db, 1, 300);
    assert_eq!(scope, Scope::Local);
    let mut large = waiting(db.put(range_key(1, 0), vec![9; 100_000]));
    assert!(large.poll().is_pending());
    home.faults.disarm();
    home.run(large.into_inner()).unwrap();
    assert_eq!(home.run(db.get(range_key(1, 0))).unwrap().unwrap().len(), 100_000);
    // A write that can never fit is refused at once.
    let mut batch = WriteBatch::new();
    for n in 0..14_000 {
        batch.put(range_key(1, n), "");
    }
    let error = home.run(db.write(batch)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
}

/// Memtables that never reach their size fill the whole write buffer. A writer gets room, because
/// they are sealed for it, one after the other and the largest first.
#[test]
fn t002_04_cold_ranges_that_hold_everything_starve_nobody() {
    let mut options = ranges(40);
    options.memtable_bytes = Some(512 << 10);
    let home = Simulated::with(4, options);
    let db = home.open();
    // No memtable is sealed for its size. The largest ones are in the middle.
    let mut expected = Map::new();
    'full: for n in 0.. {
        for range in 1..40 {
            let len = if range == 20 { 900 } else { 400 };
            let (key, value) = (range_key(range, n), vec![n as u8; len]);
            match home.run(db.put_with(&key, &value, NO_WAIT)) {
                Ok(_) => drop(expected.insert(key, value)),
                Err(error) => {
                    assert_eq!(error.scope(), Some(Scope::Global), "{error:?}");
                    if db.stats().active_bytes > 900_000 {
                        break 'full;
                    }
                    // The log had no segment ready.
                    home.simulator.settle();
                }
            }
        }
    }
    assert_eq!(db.stats().seals, 0);
    for n in 0..300 {
        let (key, value) = (range_key(0, n), vec![1; 3000]);
        home.run(db.put(&key, &value)).unwrap();
        expected.insert(key, value);
    }
    let stats = db.stats();
    assert!(stats.waits_global > 0 && stats.waits_local == 0, "{stats:?}");
    assert!(stats.seals > 3 && stats.flushes > 3, "{stats:?}");
    // 900 kB more needed room. Each time the largest memtable was sealed, not a crowd of small
    // ones.
    assert!(stats.flushes < 45, "{stats:?}");
    assert_eq!(home.run(content(&db)).unwrap(), expected);
}

/// The flush of one range has failed and pauses. Another range's memtable, half full, is sealed for
/// a waiting writer, and its flush does not wait for the pause.
#[test]
fn t002_04_a_range_that_cannot_be_flushed_stands_in_nobodys_way() {
    let mut options = ranges(6);
    options.memtable_bytes = Some(300 << 10);
    let home = Simulated::with(5, options);
    let db = home.open();
    let mut n = 0;
    let mut put = |range: usize, count: usize| {
        for _ in 0..count {
            n += 1;
            home.run(db.put(range_key(range, n), vec![1; 4000])).unwrap();
        }
        home.simulator.settle();
    };
    home.faults.arm(Fault::of(OperationKind::Create).named(".sst"));
    home.faults.arm(Fault::of(OperationKind::Create).named(".tmp"));
    // Sealed for its size. The only flush so far has failed. Nothing here moves the clock.
    let begin = home.simulator.now();
    put(1, 80);
    let stats = db.stats();
    assert_eq!((stats.seals, stats.flushes), (1, 0), "{stats:?}");
    assert!(stats.job_retries >= 1);
    for range in 2..6 {
        put(range, 36);
    }
    put(0, 60);
    home.simulator.settle();
    let stats = db.stats();
    assert!(stats.waits_global > 0 && stats.flushes > 0, "{stats:?}");
    assert_eq!(home.simulator.now(), begin, "nobody waited for the failed flush to be tried again");
}

/// A write is refused in time, is found nowhere, and is still absent after a crash and a restart.
#[test]
fn t002_05_a_write_refused_at_its_deadline_is_absent_after_a_restart() {
    for (global, seed) in [(false, 6), (true, 7)] {
        let mut options = ranges(3);
        if global {
            options.sealed_memtables_max = 1000;
        }
        let home = Simulated::with(seed, options);
        let db = home.open();
        pause_flushes(&home);
        let (mut expected, mut scope) = fill(&home, &db, 1, 300);
        if global {
            // This fills the part of the write buffer that one range may not use.
            let (rest, short) = fill(&home, &db, 0, 300);
            expected.extend(rest);
            scope = short;
        }
        assert_eq!(scope, if global { Scope::Global } else { Scope::Local });
        let patience = Duration::from_secs(60);
        let started = home.simulator.now();
        let how = WriteOptions::durability(Durability::Synced).by(started + patience);
        let mut batch = WriteBatch::new();
        let full = usize::from(!global);
        batch.put(range_key(full, 99_999), vec![9; 9_000]).put(range_key(2, 1), vec![9; 200]);
        let error = home.run(db.write_with(batch, how)).unwrap_err();
        assert_eq!((error.kind(), error.scope()), (ErrorKind::Overloaded, Some(scope)));
        assert!(home.simulator.now() >= started + patience);
        assert!(error.waited().unwrap() >= patience);
        home.run(db.sync()).unwrap();
        let disks = [home.disk.kill_clone(), home.disk.crash_clone(CrashKind::DropUnsynced)];
        home.simulator.kill();
        drop(db);
        for disk in disks {
            let reborn = home.reborn(disk);
            let db = reborn.open();
            assert_eq!(reborn.run(content(&db)).unwrap(), expected);
            reborn.simulator.kill();
        }
    }
}

/// A write that is dropped while it waits leaves nothing behind and gives its place away. One that
/// is dropped after it was sent happens whole.
#[test]
fn t002_06_a_dropped_write_happens_whole_or_not_at_all() {
    let home = Simulated::with(8, ranges(2));
    let db = home.open();
    // The write is stamped and not yet synced when its future is dropped.
    let synced = WriteOptions::durability(Durability::Synced);
    let mut batch = WriteBatch::new();
    batch.put(range_key(0, 0), "whole").put(range_key(1, 500), "whole");
    let mut sent = waiting(db.write_with(batch, synced));
    assert!(sent.poll().is_pending());
    drop(sent);
    home.simulator.settle();
    let mut expected = home.run(content(&db)).unwrap();
    assert_eq!(expected.len(), 2);

    pause_flushes(&home);
    let (filled, scope) = fill(&home, &db, 1, 300);
    assert_eq!(scope, Scope::Local);
    expected.extend(filled);
    let late = |n: usize| {
        let mut batch = WriteBatch::new();
        batch.put(range_key(0, n), "late").put(range_key(1, n), vec![1; 3000]);
        batch
    };
    let mut writes: Vec<_> = (10_000..10_040).map(|n| waiting(db.write(late(n)))).collect();
    for write in &mut writes {
        assert!(write.poll().is_pending());
    }
    home.simulator.settle();
    // The first in line, the last, and most of those between are dropped.
    let all = writes.into_iter().zip(10_000..);
    let kept: Vec<_> = all.filter(|(_, n)| n % 10 == 5).collect();
    home.faults.disarm();
    for (write, n) in kept {
        home.run(write.into_inner()).unwrap();
        expected.insert(range_key(0, n), b"late".to_vec());
        expected.insert(range_key(1, n), vec![1; 3000]);
    }
    home.run(db.flush()).unwrap();
    let stats = db.stats();
    assert_eq!((stats.active_bytes, stats.sealed_bytes), (0, 0));
    assert_eq!(home.run(content(&db)).unwrap(), expected);
    // All room was returned: the range takes as much as in the beginning.
    pause_flushes(&home);
    assert_eq!(fill(&home, &db, 1, 300).1, Scope::Local);
    assert_eq!(db.stats().seals, stats.seals + 3);
    let disk = home.disk.kill_clone();
    home.simulator.kill();
    drop(db);
    let reborn = home.reborn(disk);
    let found = reborn.run(content(&reborn.open())).unwrap();
    assert!(
        expected
            .iter()
            .all(|(key, value)| found.get(key).is_some_and(|v| v == value || key[..3] == *b"001"))
    );
    assert!(!found.contains_key(&range_key(0, 10_000)));
    reborn.simulator.kill();
}

/// Iterators from every phase, each half-way through, continue over the content of their creation.
#[test]
fn t002_16_an_iterator_sees_its_instant_across_seal_and_flush() {
    let home = Simulated::with(9, ranges(3));
    let db = home.open();
    let mut map = Map::new();
    let mut open: Vec<(Scan, Entries)> = Vec::new();
    let mut chance = Chance::new(9);
    let step = async |scan: &mut Scan, rest: &mut Entries, count: usize| {
        for _ in 0..count.min(rest.len()) {
            let (key, value) = scan.next().await.unwrap().unwrap();
            assert_eq!((key.to_vec(), value.to_vec()), rest.remove(0));
        }
    };
    for round in 0..60_u8 {
        for _ in 0..12 {
            let key = range_key(chance.below(3), chance.below(30));
            if chance.one_in(4) {
                home.run(db.delete(&key)).unwrap();
                map.remove(&key);
            } else {
                let value = vec![round; chance.between(1, 150)];
                home.run(db.put(&key, &value)).unwrap();
                map.insert(key, value);
            }
        }
        let mut entries: Entries = map.clone().into_iter().collect();
        let (mut forth, mut forth_rest) = (db.scan(..), entries.clone());
        entries.reverse();
        let (mut back, mut back_rest) = (db.snapshot().scan(..).rev(), entries);
        if round % 2 == 0 {
            home.run(step(&mut forth, &mut forth_rest, chance.below(40)));
            home.run(step(&mut back, &mut back_rest, chance.below(40)));
        }
        open.extend([(forth, forth_rest), (back, back_rest)]);
        match round % 6 {
            // Between seal and publication.
            1 => pause_flushes(&home),
            3 => home.faults.disarm(),
            4 => home.run(db.flush()).unwrap(),
            5 => home.run(db.compact()).unwrap(),
            _ => home.simulator.settle(),
        }
        for (scan, rest) in &mut open {
            home.run(step(scan, rest, 1));
        }
    }
    assert!(db.stats().seals > 20 && db.stats().compactions > 5);
    for (scan, rest) in open {
        let left = home.run(collect(scan)).unwrap();
        assert_eq!(left, rest);
    }
}

/// Producers of every kind are faster than the disk. The charged memory never exceeds the budget,
/// and each producer finishes.
#[test]
fn the_budget_is_never_passed_and_every_producer_gets_on() {
    for seed in 0..16 {
        let mut chance = Chance::new(seed);
        let mut options = ranges(chance.pick(&[1, 2, 7, 30]));
        options.memtable_bytes = Some(chance.pick(&[4 << 10, 16 << 10, 128 << 10, 512 << 10]));
        options.sealed_memtables_max = chance.pick(&[0, 1, 2, 1000]);
        options.commits_in_flight_max = chance.pick(&[16, 64]);
        options.l0_tables_max = options.l0_trigger_tables + chance.pick(&[1, 10]);
        let ranges = options.initial_split_keys.len() + 1;
        let home = Simulated::with(seed, options);
        let db = home.open();
        let budget = db.stats().write_buffer_bytes;
        let producer = |producer: usize| {
            let (db, mut chance) = (db.clone(), Chance::new(seed * 1000 + producer as u64));
            async move {
                let mut written = 0;
                for round in 0..12 {
                    let mut batch = WriteBatch::new();
                    // Some producers write one range, some all. Some write large values.
                    for _ in 0..chance.pick(&[1, 1, 1, 4]) {
                        let range =
                            if producer.is_multiple_of(3) { 0 } else { chance.below(ranges) };
                        let most = if producer % 8 == 1 { 100_000 } else { 2_000 };
                        let len = chance.below(most);
                        written += len as u64;
                        batch.put(range_key(range, producer * 100 + round), vec![1; len]);
                    }
                    db.write(batch).await.unwrap();
                }
                written
            }
        };
        let mut producers: FuturesUnordered<_> = (0..40).map(producer).collect();
        let mut written = 0;
        let mut most = 0;
        // A waiter that is never polled again blocks nobody.
        let mut parked = waiting(db.put(range_key(0, 999), vec![1; 9_000]));
        let mut polls = 0;
        home.run(async {
            let mut all = pin!(async {
                while let Some(bytes) = producers.next().await {
                    written += bytes;
                }
            });
            std::future::poll_fn(|context| {
                let stats = db.stats();
                let accounted = stats.active_bytes + stats.sealed_bytes;
                assert!(accounted <= budget, "seed {seed}: {accounted} of {budget}");
                most = most.max(accounted);
                polls += 1;
                if polls == 3 {
                    let _ = parked.poll();
                }
                all.as_mut().poll(context)
            })
            .await;
        });
        assert!(written > budget / 2, "seed {seed}: {written}");
        home.run(db.flush()).unwrap();
        let stats = db.stats();
        assert_eq!((stats.active_bytes, stats.sealed_bytes), (0, 0), "seed {seed}");
        drop(parked);
        home.simulator.kill();
    }
}
