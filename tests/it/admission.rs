//! Admission. No table can be written here (its creation fails), so unflushed data piles up as far
//! as the budget allows. The clock is the simulator's: a deadline of an hour takes no time.

use crate::harness::Simulated;
use crate::kit::disk::content;
use crate::kit::oracle::Map;
use crate::kit::settings;
use crate::kit::settings::NO_WAIT;
use sluicedb::{Db, Error, ErrorKind, Outcome, WriteBatch, WriteOptions};
use sluicedb_actors::runtime::Runtime;
use sluicedb_storage::vfs::{Fault, OperationKind};
use std::time::Duration;
use tokio_test::task;

/// A database in which only the engine's budget is ever full: one range may use all of it.
fn home(seed: u64) -> Simulated {
    let mut options = settings::tiny();
    options.sealed_memtables_max = 1000;
    Simulated::with(seed, options)
}

/// Writes until there is no room, and returns the content.
fn overfill(home: &Simulated, db: &Db) -> Map {
    home.faults.arm(Fault::of(OperationKind::Create).named(".sst").sticky());
    home.faults.arm(Fault::of(OperationKind::Create).named(".tmp").sticky());
    let mut map = Map::new();
    for n in 0.. {
        assert!(n < 2_000, "a budget of 1 MiB took {n} values of 4 KiB");
        let (key, value) = (format!("fill{n:04}").into_bytes(), vec![n as u8; 4096]);
        match home.run(db.put_with(&key, &value, NO_WAIT)) {
            Ok(_) => {
                map.insert(key, value);
            }
            // The log may have no segment ready yet. That is not the budget.
            Err(error) if error.kind() == ErrorKind::Overloaded && map.len() < 100 => {
                home.simulator.settle();
            }
            Err(error) => {
                overloaded(&error);
                return map;
            }
        }
        home.simulator.settle();
    }
    unreachable!()
}

fn overloaded(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error:?}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert!(error.scope().is_some());
    assert!(error.waited().is_some());
    let message = error.to_string();
    assert!(message.contains("has no room for more writes now (waited"), "{message}");
}

fn small_batch() -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put("late/1", vec![1; 5000]).put("late/2", vec![2; 5000]);
    batch
}

#[test]
fn try_never_waits_and_a_deadline_is_kept() {
    let home = home(1);
    let db = home.open();
    let expected = overfill(&home, &db);
    let stats = db.stats();
    let used = stats.active_bytes + stats.sealed_bytes;
    assert!(used <= stats.write_buffer_bytes, "{used} of {}", stats.write_buffer_bytes);
    assert!(used > stats.write_buffer_bytes / 2, "{used} of {}", stats.write_buffer_bytes);

    let before = home.simulator.now();
    overloaded(&home.run(db.put_with("late", vec![0; 5000], NO_WAIT)).unwrap_err());
    overloaded(&home.run(db.write_with(small_batch(), NO_WAIT)).unwrap_err());
    assert_eq!(home.simulator.now(), before, "try does not wait");

    let patience = Duration::from_secs(3600);
    let deadline = before + patience;
    let error =
        home.run(db.put_with("late", vec![0; 5000], WriteOptions::new().by(deadline))).unwrap_err();
    overloaded(&error);
    assert!(home.simulator.now() >= deadline);
    assert!(error.waited().unwrap() >= patience, "{error:?}");

    let deadline = home.simulator.now() + patience;
    overloaded(
        &home.run(db.write_with(small_batch(), WriteOptions::new().by(deadline))).unwrap_err(),
    );
    let deadline = home.simulator.now() + patience;
    let options = WriteOptions::default().by(deadline);
    overloaded(&home.run(db.submit_with(small_batch(), options)).unwrap_err());
    // A deadline that has passed acts like `try`.
    overloaded(
        &home.run(db.put_with("late", vec![0; 5000], WriteOptions::new().by(before))).unwrap_err(),
    );

    // Reads need no room.
    assert_eq!(home.run(content(&db)).unwrap(), expected);
    assert!(db.stats().waits_local + db.stats().waits_global >= 3);
    let stats = db.stats();
    assert!(stats.wait_micros_local + stats.wait_micros_global >= 3 * 3_600_000_000);

    // The log has none of the refused writes.
    drop(db);
    home.simulator.settle();
    home.faults.disarm();
    let db = home.open();
    assert_eq!(home.run(content(&db)).unwrap(), expected);
}

#[test]
fn who_waits_goes_on_when_there_is_room() {
    let home = home(2);
    let db = home.open();
    let mut expected = overfill(&home, &db);
    let mut waiting: Vec<_> = (0..5)
        .map(|n| {
            let db = db.clone();
            task::spawn(Box::pin(async move { db.put(format!("late{n}"), vec![n; 5000]).await }))
        })
        .collect();
    for put in &mut waiting {
        assert!(put.poll().is_pending());
    }
    home.simulator.settle();
    for put in &mut waiting {
        assert!(put.poll().is_pending(), "there is no room yet");
    }
    // One waiter gives up: nothing of its write happens, and it does not block the others.
    drop(waiting.remove(0));
    home.faults.disarm();
    home.run(async {
        for put in waiting {
            put.into_inner().await.unwrap();
        }
    });
    for n in 1..5 {
        expected.insert(format!("late{n}").into_bytes(), vec![n; 5000]);
    }
    assert_eq!(home.run(content(&db)).unwrap(), expected);
    home.run(db.close()).unwrap();
}

/// A waiter that is neither polled nor dropped blocks nobody.
#[test]
fn a_future_that_nobody_polls_delays_nobody() {
    let home = home(3);
    let db = home.open();
    overfill(&home, &db);
    let mut parked = {
        let db = db.clone();
        task::spawn(Box::pin(async move { db.put("parked", vec![0; 5000]).await }))
    };
    assert!(parked.poll().is_pending());
    home.faults.disarm();
    home.run(async {
        for n in 0..400 {
            db.put(format!("other{n}"), vec![0; 5000]).await.unwrap();
        }
    });
    assert_eq!(home.run(db.get("parked")).unwrap(), None);
    home.run(parked.into_inner()).unwrap();
    assert!(home.run(db.contains_key("parked")).unwrap());
}

#[test]
fn close_wakes_who_waits_for_room() {
    let home = home(4);
    let db = home.open();
    overfill(&home, &db);
    let mut waiting = {
        let db = db.clone();
        task::spawn(Box::pin(async move { db.put("late", vec![0; 5000]).await }))
    };
    assert!(waiting.poll().is_pending());
    home.simulator.settle();
    home.faults.disarm();
    home.run(db.close()).unwrap();
    let result = home.run(waiting.into_inner());
    match result {
        Err(error) => {
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::NotApplied));
            assert_eq!(home.run(db.get("late")).unwrap(), None);
        }
        // Correct as well: it was admitted before the doors closed.
        Ok(_) => assert!(home.run(db.contains_key("late")).unwrap()),
    }
}

#[test]
fn a_thousand_tasks_share_a_small_budget() {
    let home = home(5);
    let db = home.open();
    home.run(async {
        let puts = (0..1_000_u32).map(|n| {
            let db = db.clone();
            async move { db.put(n.to_be_bytes(), vec![n as u8; 3_000]).await }
        });
        futures::future::try_join_all(puts).await.unwrap();
    });
    let found = home.run(content(&db)).unwrap();
    assert_eq!(found.len(), 1_000);
    let stats = db.stats();
    assert!(stats.waits_local + stats.waits_global > 0, "3 MB through 1 MiB: somebody waited");
    home.run(db.close()).unwrap();
}

/// A waiter for room, woken or not, keeps no memtable alive that was flushed meanwhile: the memory
/// is free for other writers.
/// Planted: `admit_and_send` that keeps its superversion while it waits.
#[test]
fn b5_who_waits_for_room_keeps_no_old_memtables() {
    let mut options = settings::tiny();
    options.sealed_memtables_max = 1000;
    options.memtable_bytes = Some(128 << 10);
    let home = Simulated::with(0xB5, options);
    let db = home.open();
    overfill(&home, &db);
    let mut late = task::spawn(Box::pin(db.put("late", vec![0; 4096])));
    assert!(late.poll().is_pending());
    home.simulator.settle();
    assert_eq!(db.stats().spare_chunk_bytes, 0, "everything is in use");
    home.faults.disarm();
    home.run(db.flush()).unwrap();
    home.simulator.settle();
    assert!(late.is_woken(), "nobody has polled it");
    let spare = db.stats().spare_chunk_bytes;
    assert!(spare >= 128 << 10, "{spare} bytes came back");
    home.run(&mut *late).unwrap();
}
