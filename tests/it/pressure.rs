use crate::harness::{Simulated, fill};
use crate::kit::settings;
use crate::kit::settings::NO_WAIT;
use futures::FutureExt;
use futures::future::BoxFuture;
use sluicedb::{Db, ErrorKind, Pressure, PressureCause, PressureWatch, Result, WriteOptions};
use sluicedb_actors::runtime::Runtime;
use sluicedb_storage::vfs::{Fault, OperationKind};
use std::task::Poll;
use std::time::Duration;
use tokio_test::task::{self, spawn};
use tokio_test::{assert_pending, assert_ready};

/// One range may have the whole write buffer.
fn roomy_range(seed: u64) -> Simulated {
    let mut options = settings::tiny();
    options.sealed_memtables_max = 1000;
    Simulated::with(seed, options)
}

/// From now on no table can be written, so memory fills up.
fn hold_tables(home: &Simulated) {
    home.faults.arm(Fault::of(OperationKind::Create).named(".sst").sticky());
    home.faults.arm(Fault::of(OperationKind::Create).named(".tmp").sticky());
}

fn about_memory(pressure: Pressure) -> bool {
    use PressureCause::{Memory, RangeMemory};
    matches!(pressure.cause, Some(Memory | RangeMemory { .. }))
}

/// The value that a watch has at once, if any.
fn told(watch: &mut PressureWatch) -> Poll<Option<Pressure>> {
    spawn(Box::pin(watch.changed())).poll()
}

#[test]
fn memory_fills_up_writers_wait_and_go_on() {
    let home = roomy_range(1);
    let db = home.open();
    home.simulator.settle();
    assert_eq!(db.pressure(), Pressure::default());
    let mut watch = db.pressure_watch();
    let mut asleep = db.pressure_watch();
    assert_eq!(told(&mut watch), Poll::Pending, "nothing has happened yet");

    hold_tables(&home);
    let (mut last, mut steps, mut rotations) = (Pressure::default(), 0, 0);
    for n in 0.. {
        match home.run(db.put_with(format!("fill{n:04}"), vec![n as u8; 4096], NO_WAIT)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Overloaded && last.level < 0.9 => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Overloaded);
                break;
            }
        }
        home.simulator.settle();
        let (exact, stats) = (db.pressure(), db.stats());
        assert_eq!(stats.pressure, exact);
        let used = stats.write_buffer_used_bytes as f64 / stats.write_buffer_bytes as f64;
        let range = &stats.ranges[0];
        let held = range.active_bytes + range.sealed_bytes;
        let of_range = held as f64 / range.memory_bytes_max as f64;
        let active = range.active_bytes as f64 / range.active_bytes_max as f64;
        let expected = used.max(of_range).max(active).min(1.0);
        assert!(about_memory(exact), "{exact:?}");
        assert!((exact.level - expected).abs() < 1e-9, "{exact:?}: {stats:?}");
        if let Poll::Ready(now) = told(&mut watch) {
            let now = now.unwrap();
            let step = (now.level - last.level).abs();
            assert!(step > 0.0499 || now.cause != last.cause, "{now:?} after {last:?}");
            (last, steps) = (now, steps + 1);
        }
        if range.rotations > rotations {
            // The version manager has just looked.
            rotations = range.rotations;
            assert!((exact.level - last.level).abs() < 0.05, "{last:?} is shown, {exact:?} is so");
        }
    }
    assert!(steps >= 10, "{steps} steps on the way up");
    assert!(rotations >= 5, "{rotations} times the version manager had something to do");
    let stats = db.stats();
    assert!(stats.overloaded_local + stats.overloaded_global > 0);

    // While a writer waits pressure is 1.0, however much room smaller writes would find.
    let mut put = {
        let db = db.clone();
        task::spawn(Box::pin(async move { db.put("late", vec![0; 100_000]).await }))
    };
    assert_pending!(put.poll());
    let full = db.pressure();
    assert!(full.level >= 1.0 && about_memory(full), "{full:?}");
    assert_eq!(told(&mut watch), Poll::Ready(Some(full)), "at once, without a turn of any actor");

    // A watch that was not polled sees only the newest value.
    assert_eq!(told(&mut asleep), Poll::Ready(Some(full)));
    assert_eq!(told(&mut asleep), Poll::Pending);

    home.faults.disarm();
    home.run(put.into_inner()).unwrap();
    home.run(db.flush()).unwrap();
    home.simulator.settle();
    let calm = watch.latest();
    assert!(calm.level < 0.5 && !about_memory(calm), "{calm:?}");
    assert_eq!(told(&mut watch), Poll::Pending, "`latest` counts as seen");
    assert_eq!(db.stats().write_buffer_used_bytes, 0);
}

#[test]
fn a_dropped_wait_misses_nothing() {
    let home = roomy_range(2);
    let db = home.open();
    let (mut first, mut second) = (db.pressure_watch(), db.pressure_watch());
    let mut changed = spawn(Box::pin(first.changed()));
    assert_pending!(changed.poll());
    drop(changed);
    hold_tables(&home);
    home.run(async {
        for n in 0..60_u32 {
            db.put(n.to_be_bytes(), vec![0; 4096]).await.unwrap();
        }
    });
    home.simulator.settle();
    let told_first = told(&mut first);
    assert_eq!(told(&mut second), told_first);
    let Poll::Ready(told_first) = told_first else { panic!("it has changed") };
    assert!(told_first.is_some_and(|pressure| pressure.level > 0.1));
}

#[test]
fn the_depth_of_l0_presses() {
    let mut options = settings::tiny();
    (options.l0_trigger_tables, options.l0_tables_max) = (19, 20);
    let home = Simulated::with(3, options);
    let db = home.open();
    let range = db.stats().ranges[0].range;
    let mut watch = db.pressure_watch();
    for tables in 1..=10_u32 {
        home.run(fill(&db, 3, 10));
        home.run(db.flush()).unwrap();
        home.simulator.settle();
        assert_eq!(db.stats().ranges[0].l0_runs, u64::from(tables));
        let level = f64::from(tables) / 20.0;
        let expected = Pressure { level, cause: Some(PressureCause::L0 { range }) };
        assert_eq!(db.pressure(), expected);
        assert_eq!(watch.latest(), expected);
    }
    home.run(db.compact()).unwrap();
    home.simulator.settle();
    assert_eq!((db.pressure(), watch.latest()), Default::default());
}

#[test]
fn a_pinned_log_presses() {
    let mut options = settings::tiny();
    options.memory_budget_bytes = 32 << 20;
    options.write_buffer_bytes = Some(16 << 20);
    options.initial_split_keys = vec![b"m".to_vec()];
    options.idle_seal_after_ms = 0;
    let max = 8 * options.log_segment_bytes;
    options.log_retained_bytes_max = Some(max);
    let home = Simulated::with(8, options);
    let db = home.open();
    home.run(db.put("a cold one", "pins the log")).unwrap();
    let mut highest = 0.0_f64;
    for n in 0..800_u32 {
        home.run(db.put(format!("z{n:04}"), vec![0; 1_000])).unwrap();
        home.simulator.settle();
        let share = (db.stats().log_retained_bytes as f64 / max as f64).min(1.0);
        let pressure = db.pressure();
        assert!(pressure.level >= share, "{pressure:?}, {share}");
        if pressure.cause == Some(PressureCause::Log) {
            highest = highest.max(pressure.level);
        }
    }
    assert!(highest > 0.8, "{highest}");
    assert!(db.stats().seals_log > 0 && db.pressure().level < 1.0, "it was let go");
}

#[test]
fn a_full_disk_presses_until_there_is_space() {
    // Only the log hits the full disk: no flush is due, so no message reaches the version manager.
    let mut options = settings::tiny();
    options.memtable_bytes = Some(512 << 10);
    let home = Simulated::with(4, options);
    let db = home.open();
    let mut watch = db.pressure_watch();
    home.disk.set_capacity(Some(home.disk.used_bytes() + (40 << 10)));
    let refused = (0..600_u32).any(|n| home.run(db.put(n.to_be_bytes(), vec![0; 3000])).is_err());
    assert!(refused && !db.health().state().is_running());
    let full = Pressure { level: 1.0, cause: Some(PressureCause::Disk) };
    assert_eq!((db.pressure(), watch.latest()), (full, full));
    // The reserve is created again some time after the engine saw it spent.
    home.simulator.settle();
    home.disk.set_capacity(None);
    home.simulator.advance(Duration::from_secs(60));
    home.simulator.settle();
    let state = db.health().state();
    assert!(state.is_running(), "{state:?} {:?}", db.stats().troubles);
    let now = (db.pressure(), watch.latest());
    assert!(now.0.cause != full.cause && now.1.cause != full.cause, "{now:?}");
}

#[test]
fn the_watch_ends_with_the_database() {
    let home = Simulated::new(5);
    let db = home.open();
    let mut watch = db.pressure_watch();
    let mut late = db.pressure_watch();
    let mut changed = spawn(Box::pin(async move { while watch.changed().await.is_some() {} }));
    assert_pending!(changed.poll());
    home.run(db.close()).unwrap();
    assert!(changed.is_woken());
    assert_ready!(changed.poll());
    late.latest();
    assert_eq!(told(&mut late), Poll::Ready(None), "also for those who were told by `latest`");
    assert_eq!(told(&mut late), Poll::Ready(None), "and again");
    assert_eq!(told(&mut db.pressure_watch()), Poll::Ready(None));

    let home = Simulated::new(6);
    let db = home.open();
    let mut watch = db.pressure_watch();
    drop(db);
    home.simulator.settle();
    assert_eq!(told(&mut watch), Poll::Ready(None), "a watch keeps no database open");
    home.run(home.open().close()).unwrap();
}

#[test]
fn waits_and_refusals_are_counted_where_they_happen() {
    let mut options = settings::tiny();
    options.initial_split_keys = vec![b"m".to_vec()];
    let home = Simulated::with(7, options);
    let db = home.open();
    hold_tables(&home);
    while home.run(db.put_with("key", vec![0; 3000], NO_WAIT)).is_ok() || db.pressure().level < 0.7
    {
        home.simulator.settle();
    }
    let range = db.stats().ranges[0].range;
    let cause = Some(PressureCause::RangeMemory { range });
    assert_eq!(db.pressure().cause, cause, "one range is full, the database is not");
    assert!(home.run(db.put_with("other range", vec![0; 3000], NO_WAIT)).is_ok());
    let before = db.stats();
    let patience = Duration::from_secs(100);
    let deadline = home.simulator.now() + patience;
    home.run(db.put_with("late", vec![0; 60_000], WriteOptions::new().by(deadline))).unwrap_err();
    let after = db.stats();
    let scope = |stats: &sluicedb::Stats| {
        let local = (stats.waits_local, stats.wait_micros_local, stats.overloaded_local);
        let global = (stats.waits_global, stats.wait_micros_global, stats.overloaded_global);
        let range = (stats.ranges[0].waits, stats.ranges[0].wait_micros);
        (local, global, range)
    };
    let ((before_local, _, before_range), (local, _, range)) = (scope(&before), scope(&after));
    assert_eq!(local.0 - before_local.0, 1);
    assert!(local.1 - before_local.1 >= patience.as_micros() as u64);
    assert_eq!(local.2 - before_local.2, 1);
    assert_eq!((range.0 - before_range.0, range.1 - before_range.1), (1, local.1 - before_local.1));
    assert_eq!((range.0, range.1), (local.0, local.1), "all of it in this range");
    assert_eq!((after.ranges[1].waits, after.ranges[1].wait_micros), (0, 0));
    assert_eq!(db.pressure(), Pressure { level: after.pressure.level, cause });

    // A wait that is given up counts too.
    let mut put = {
        let (db, far) = (db.clone(), deadline + 2 * patience);
        task::spawn(Box::pin(async move {
            db.put_with("late", vec![0; 60_000], WriteOptions::new().by(far)).await
        }))
    };
    assert_pending!(put.poll());
    assert_eq!(db.pressure(), Pressure { level: 1.0, cause });
    home.simulator.advance(patience);
    drop(put);
    let dropped = scope(&db.stats());
    assert_eq!(dropped.0.0 - local.0, 1);
    assert!(dropped.0.1 - local.1 >= patience.as_micros() as u64);
    assert_eq!(dropped.0.2, local.2, "nobody was refused");
}

/// Sixteen ranges, none of which is full when all memory is used.
fn many_warm_ranges(seed: u64) -> Simulated {
    let mut options = settings::tiny();
    options.memtable_bytes = Some(256 << 10);
    options.log_segment_bytes = 16 << 20;
    options.initial_split_keys = (1..16).map(|n| vec![16 * n as u8]).collect();
    Simulated::with(seed, options)
}

fn key(n: usize) -> [u8; 5] {
    ((n as u64 % 16 * 16) << 32 | n as u64).to_be_bytes()[3..].try_into().unwrap()
}

/// Puts the keys from `n` on until a put finds no room in memory. The log has room, because its
/// keeper runs.
fn first_that_waits(
    home: &Simulated,
    db: &Db,
    n: &mut usize,
) -> task::Spawn<BoxFuture<'static, Result<u64>>> {
    loop {
        home.simulator.settle();
        let (db, key) = (db.clone(), key(*n));
        let mut put = spawn(async move { db.put(key, vec![7; 2000]).await }.boxed());
        *n += 1;
        if put.poll().is_pending() {
            return put;
        }
    }
}

/// Seed 41. A waiter that was woken and is not polled for now has room: no memtable is sealed for
/// it.
#[test]
fn b4_nothing_is_sealed_for_a_waiter_that_has_been_woken() {
    let home = many_warm_ranges(41);
    let db = home.open();
    home.simulator.settle();
    let mut n = 0;
    let waiting = first_that_waits(&home, &db, &mut n);
    home.simulator.settle();
    assert!(waiting.is_woken());
    let sealed = db.stats().seals_pressure;
    assert!((1..=2).contains(&sealed), "{sealed} memtables were sealed for one waiter");
    // The waiter is not polled. Others write a little, and the manager looks again and again.
    for n in 0..64 {
        home.run(db.put_with(key(n), "little", NO_WAIT)).unwrap();
        home.simulator.advance(Duration::from_secs(1));
        home.simulator.settle();
    }
    assert_eq!(db.stats().seals_pressure, sealed, "sealed for a waiter that has room");
    home.run(waiting.into_inner()).unwrap();
}

/// Seed 42. A waiter is not forgotten when others take the room for which it was woken.
#[test]
fn b4_a_waiter_that_comes_too_late_asks_again() {
    let home = many_warm_ranges(42);
    let db = home.open();
    home.simulator.settle();
    let mut n = 0;
    for _ in 0..20 {
        let mut late = first_that_waits(&home, &db, &mut n);
        home.simulator.settle();
        // Room was freed, and others take it before the woken waiter is polled.
        while home.run(db.put_with(key(n), vec![7; 2000], NO_WAIT)).is_ok() {
            n += 1;
        }
        if late.poll().is_pending() {
            home.run(late.into_inner()).unwrap();
        }
    }
}

/// The process may have too many files open.
#[test]
fn o10_files_that_cannot_be_written_are_not_called_a_full_disk() {
    let said = PressureCause::Disk.to_string();
    assert_eq!(said, "files cannot be written (the health says why)");
}
