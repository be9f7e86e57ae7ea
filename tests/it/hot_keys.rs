//! Overwritten entries free their memory without a flush, and no reader misses anything.

use crate::harness::{Home, Simulated, block_on};
use crate::kit::chance::Chance;
use crate::kit::disk::collect;
use crate::kit::settings;
use sluicedb::{Db, ErrorKind, Options, Stats, WriteOptions};
use sluicedb_actors::runtime::Runtime;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn options(buffer_compaction: bool) -> Options {
    let mut options = settings::tiny();
    options.write_buffer_bytes = Some(4 << 20);
    options.memory_budget_bytes = 8 << 20;
    options.memtable_bytes = Some(256 << 10);
    options.log_segment_bytes = 1 << 20;
    options.buffer_compaction = buffer_compaction;
    options
}

/// Writes twenty hot keys among a few cold ones. The actors run in between.
fn write_hot(home: &Simulated, db: &Db, rounds: u32) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut chance = Chance::new(7);
    let mut model = BTreeMap::new();
    for round in 0..rounds {
        home.run(async {
            for _ in 0..100 {
                let key = if chance.one_in(50) {
                    format!("cold{:03}", chance.below(500))
                } else {
                    format!("hot{:02}", chance.below(20))
                };
                let value = chance.bytes(300);
                db.put(&key, &value).await.unwrap();
                model.insert(key.into_bytes(), value);
            }
        });
        if round % 10 == 0 {
            home.simulator.settle();
        }
    }
    model
}

fn check(home: &Simulated, db: &Db, model: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let found = home.run(collect(db.scan(..))).unwrap();
    let found: BTreeMap<_, _> = found.into_iter().collect();
    assert!(found == *model);
}

fn run(buffer_compaction: bool) -> Stats {
    let home = Simulated::with(3, options(buffer_compaction));
    let db = home.open();
    let model = write_hot(&home, &db, 300);
    check(&home, &db, &model);
    let stats = db.stats();
    home.run(db.close()).unwrap();
    drop(db);
    let db = home.open();
    check(&home, &db, &model);
    stats
}

/// Planted: `OverlayState::reclaim` that does nothing.
#[test]
fn hot_keys_are_compacted_and_not_flushed() {
    let (on, off) = (run(true), run(false));
    assert!(on.ranges[0].buffer.compactions > 3, "{:?}", on.ranges[0]);
    assert!(on.ranges[0].buffer.reclaimed_bytes > 1 << 20, "{:?}", on.ranges[0]);
    assert_eq!(off.ranges[0].buffer.compactions, 0);
    assert!(off.flushes >= 5, "{} flushes", off.flushes);
    assert!(
        on.flush_bytes * 2 <= off.flush_bytes,
        "{} against {}",
        on.flush_bytes,
        off.flush_bytes
    );
    assert!(on.active_bytes < 512 << 10, "{}", on.active_bytes);
}

/// Goal: whoever does not wait for room, and tries again, gets it although nobody waits. A memtable
/// of which much is dead stays longer, but not if a write lacks the room of the dead entries.
///
/// Planted: `Relieve` that seals only what is full without somebody who lacks room.
#[test]
fn who_is_refused_for_the_room_of_dead_entries_gets_it_without_waiting() {
    for has_deadline in [false, true] {
        let mut options = options(true);
        options.idle_seal_after_ms = 0;
        let home = Simulated::with(6, options);
        let db = home.open();
        home.run(async {
            for number in (0..180).chain(0..80) {
                db.put(format!("key{number:03}"), [7; 1000]).await.unwrap();
            }
        });
        home.simulator.settle();
        let stats = db.stats();
        let sizes = 256 << 10..(256 << 10) / 8 * 15;
        assert!(sizes.contains(&stats.active_bytes) && stats.seals == 0, "{}", stats.active_bytes);
        let large = vec![1; 250 << 10];
        // A deadline that has passed acts like `no_wait`.
        let passed = WriteOptions::new().by(home.simulator.now());
        let options = if has_deadline { passed } else { settings::NO_WAIT };
        let error = home.run(db.put_with("large", &large, options)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded, "{error:?}");
        home.simulator.settle();
        home.run(db.put_with("large", &large, options)).unwrap();
        assert_eq!(db.stats().seals, 1);
    }
}

/// A snapshot sees its instant while everything in it is overwritten many times. The memory it
/// pinned is freed with it.
/// Planted: `Engine::view` that pins no point.
#[test]
fn a_snapshot_outlives_the_overwriting_of_all_it_shows() {
    let home = Simulated::with(4, options(true));
    let db = home.open();
    let before = write_hot(&home, &db, 20);
    let snapshot = db.snapshot();
    let mut scan = snapshot.scan(..);
    let first = home.run(scan.next_chunk()).unwrap().unwrap();
    let after = write_hot(&home, &db, 200);
    for (key, value) in &before {
        assert!(home.run(snapshot.get(key)).unwrap().as_deref() == Some(&value[..]));
    }
    let mut shown: Vec<_> =
        first.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    while let Some(batch) = home.run(scan.next_chunk()).unwrap() {
        shown.extend(batch.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
    }
    assert!(shown.into_iter().eq(before));
    drop((scan, snapshot));
    // `write_hot` draws the same keys again, and more.
    check(&home, &db, &after);
}

/// Writes stop in the middle of a compaction in memory. The reclaimer finishes it, and memory
/// falls.
/// Planted: a reclaimer that is never woken.
#[test]
fn the_reclaimer_finishes_what_writers_left() {
    let home = Simulated::with(5, options(true));
    let db = home.open();
    let model = write_hot(&home, &db, 19);
    let mut chance = Chance::new(8);
    let mut model = model;
    let mut left = 20_000;
    while !db.stats().ranges[0].buffer.compacting {
        left -= 1;
        assert!(left > 0, "no compaction ever began");
        let (key, value) = (format!("hot{:02}", chance.below(20)), chance.bytes(300));
        home.run(db.put(&key, &value)).unwrap();
        model.insert(key.into_bytes(), value);
    }
    let before = db.stats();
    for _ in 0..200 {
        home.simulator.settle();
        home.simulator.advance(Duration::from_millis(20));
    }
    home.simulator.settle();
    let after = db.stats();
    assert!(!after.ranges[0].buffer.compacting);
    assert_eq!(after.seals, before.seals);
    assert!(
        after.active_bytes < before.active_bytes / 2,
        "{} {}",
        before.active_bytes,
        after.active_bytes
    );
    check(&home, &db, &model);
}

/// Lookups, scans and snapshots on threads of their own beside writers that overwrite all the time:
/// values are whole, no key is missing, and counters never fall.
#[test]
fn readers_beside_overwriting_writers_see_whole_new_values() {
    let home = Home::with(options(true));
    let db = home.open();
    let key = |number: u64| format!("key{number:02}");
    let value = |number: u64, round: u64| {
        let mut value = vec![(number ^ round) as u8; 24 + (round % 200) as usize];
        value[..8].copy_from_slice(&number.to_le_bytes());
        value[8..16].copy_from_slice(&round.to_le_bytes());
        value
    };
    let round_of = |number: u64, found: &[u8]| {
        let round = u64::from_le_bytes(found[8..16].try_into().unwrap());
        assert!(found == value(number, round), "a torn value of {number}");
        round
    };
    block_on(async {
        for number in 0..40 {
            db.put(key(number), value(number, 0)).await.unwrap();
        }
    });
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2_u64 {
            let (db, done, key, round_of) = (db.clone(), &done, &key, &round_of);
            scope.spawn(move || {
                let mut seen = [0; 40];
                let mut chance = Chance::new(reader);
                while !done.load(Ordering::Acquire) {
                    block_on(async {
                        let number = chance.below(40) as u64;
                        let found = db.get(key(number)).await.unwrap().expect("never deleted");
                        let round = round_of(number, &found);
                        assert!(round >= seen[number as usize], "an older value came back");
                        seen[number as usize] = round;
                        if chance.one_in(50) {
                            let all = collect(db.scan(..)).await.unwrap();
                            assert_eq!(all.len(), 40);
                            for (number, (_, found)) in all.iter().enumerate() {
                                assert!(round_of(number as u64, found) >= seen[number]);
                            }
                        }
                    });
                }
            });
        }
        block_on(async {
            let mut chance = Chance::new(99);
            let mut rounds = [0; 40];
            for _ in 0..40_000 {
                let number = chance.below(40);
                rounds[number] += 1;
                let number = number as u64;
                db.put(key(number), value(number, rounds[number as usize])).await.unwrap();
            }
        });
        done.store(true, Ordering::Release);
    });
    assert!(db.stats().ranges[0].buffer.compactions > 0);
    block_on(db.close()).unwrap();
}

/// A span is excised while its memtable is compacted in memory: some of its entries have been
/// copied, some have not, and some were written meanwhile. None is found afterwards, whatever the
/// state of the compaction, and nothing else is lost. Readers from before see all of them.
///
/// Planted: an excision that only the memtable's index knows; a seal in the middle of a compaction
/// that forgets the entries not yet copied.
#[test]
fn x_05_a_span_is_cut_out_while_its_memtable_is_compacted() {
    let mut while_compacting = 0;
    for round in 0..24_u64 {
        let home = Simulated::with(500 + round, options(true));
        let db = home.open();
        let mut model = write_hot(&home, &db, 19);
        let mut chance = Chance::new(round);
        let mut put = |model: &mut BTreeMap<_, _>| {
            let (key, value) = (format!("hot{:02}", chance.below(20)), chance.bytes(300));
            home.run(db.put(&key, &value)).unwrap();
            model.insert(key.into_bytes(), value);
        };
        for left in (0..20_000).rev() {
            if db.stats().ranges[0].buffer.compacting {
                break;
            }
            assert!(left > 0, "no compaction ever began");
            put(&mut model);
        }
        // The writes reach its middle, and at last beyond its end.
        (0..round * 4).for_each(|_| put(&mut model));
        while_compacting += usize::from(db.stats().ranges[0].buffer.compacting);
        let (snapshot, before) = (db.snapshot(), model.clone());
        home.run(db.excise("hot05".."hot15")).unwrap();
        model.retain(|key, _| !(&b"hot05"[..]..b"hot15").contains(&&key[..]));
        check(&home, &db, &model);
        (0..200).for_each(|_| put(&mut model));
        check(&home, &db, &model);
        let seen = home.run(collect(snapshot.scan(..))).unwrap();
        assert!(seen.into_iter().eq(before), "round {round}");
        let again = home.reborn(home.disk.kill_clone());
        let reopened = again.open();
        check(&again, &reopened, &model);
        home.run(db.flush()).unwrap();
        check(&home, &db, &model);
    }
    assert!(while_compacting >= 8, "{while_compacting}");
}
