//! A disk without space: a typed refusal, nothing lost, and the engine continues by itself when
//! there is space again.

use crate::kit::disk::{content, fresh_dir, shared};
use crate::kit::oracle::Map;
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use sluicedb::{Db, Durability, ErrorKind, HealthState, Outcome, Party, WriteOptions};
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::vfs::fault::ENOSPC;
use sluicedb_storage::vfs::{CrashKind, Fault, FaultVfs, MemVfs, OperationKind, Vfs};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn a_full_disk_refuses_writes_and_resumes_without_a_reopen() {
    for (mapped, level) in [
        (true, Durability::Buffered),
        (true, Durability::Synced),
        (false, Durability::Buffered),
        (false, Durability::Synced),
    ] {
        let disk = MemVfs::new();
        let simulator = Simulator::new(11);
        let dir = fresh_dir();
        let mut options = settings::tiny();
        options.log_mapped = mapped;
        let open = || {
            let builder = Db::builder(&dir).options(options.clone());
            builder.vfs(shared(&disk)).runtime(simulator.handle()).open()
        };
        let db = simulator.run(open()).unwrap();
        let options_of_writes = WriteOptions::durability(level);
        let mut expected = Map::new();
        let put = |n: usize, expected: &mut Map| {
            let (key, value) = (format!("key{n:04}").into_bytes(), vec![n as u8; 3_000]);
            let result = simulator.run(db.put_with(&key, &value, options_of_writes));
            if result.is_ok() {
                expected.insert(key, value);
            }
            result
        };
        for n in 0..20 {
            put(n, &mut expected).unwrap();
        }
        disk.set_capacity(Some(disk.used_bytes() + (40 << 10)));
        let mut refused = None;
        for n in 20..600 {
            if let Err(error) = put(n, &mut expected) {
                refused = Some(error);
                break;
            }
        }
        let refused = refused.expect("a full disk cannot take all of it");
        assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused:?}");
        assert_eq!(refused.outcome(), Outcome::NotApplied, "{refused:?}");
        assert!(refused.path().is_some(), "{refused:?}");
        let state = db.health().state();
        assert!(matches!(state, HealthState::Degraded(_)), "{state:?}");
        // Reads continue, with every acknowledged write and no refused one.
        assert_eq!(simulator.run(content(&db)).unwrap(), expected);

        disk.set_capacity(None);
        let mut waited = Duration::ZERO;
        let mut n = 1000;
        // Until a flush succeeds, a write that finds no room in memory is refused.
        while put(n, &mut expected).is_err() || !db.health().state().is_running() {
            n += 1;
            waited += Duration::from_millis(100);
            assert!(waited <= Duration::from_secs(3), "writes stay refused though there is space");
            simulator.advance(Duration::from_millis(100));
            simulator.settle();
        }
        // The flush worker has seen the space. The log keeper looks by itself.
        simulator.advance(Duration::from_secs(1));
        simulator.settle();
        for n in 2000..2040 {
            put(n, &mut expected).unwrap();
        }
        simulator.run(db.flush()).unwrap();
        simulator.run(db.sync()).unwrap();
        assert!(db.health().state().is_running(), "{:?}", db.health().state());
        assert_eq!(simulator.run(content(&db)).unwrap(), expected);
        drop(db);
        simulator.settle();
        let left = disk.crash_clone(CrashKind::DropUnsynced);
        let again = Simulator::new(12);
        let builder = Db::builder(&dir).options(options.clone());
        let db = again.run(builder.vfs(shared(&left)).runtime(again.handle()).open()).unwrap();
        assert_eq!(again.run(content(&db)).unwrap(), expected);
        again.kill();
    }
}

#[test]
fn a8f_opening_on_a_full_disk_uses_the_reserve() {
    let (disk, simulator, dir) = (MemVfs::new(), Simulator::new(1), fresh_dir());
    let open = || {
        let builder = Db::builder(&dir).options(settings::tiny());
        builder.vfs(shared(&disk)).runtime(simulator.handle()).open()
    };
    let db = simulator.run(open()).unwrap();
    let sync = WriteOptions::durability(Durability::Synced);
    simulator.run(db.put_with("a", "1", sync)).unwrap();
    simulator.settle();
    assert!(db.stats().space_reserve_bytes > 0);
    drop(db);
    simulator.settle();
    disk.set_capacity(Some(disk.used_bytes()));
    let db = simulator.run(open()).unwrap();
    assert_eq!(simulator.run(db.get("a")).unwrap().as_deref(), Some(&b"1"[..]));
    simulator.run(db.delete("a")).unwrap();
    let refused = simulator.run(db.put("b", "2")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoSpace, "the reserve is in use: {refused:?}");
    // The disk fills again and again. Each time there is space the reserve is created anew.
    for round in 0..3 {
        disk.set_capacity(None);
        simulator.advance(Duration::from_secs(1));
        simulator.settle();
        assert!(db.health().state().is_running(), "{round}: {:?}", db.health().state());
        assert!(db.stats().space_reserve_bytes > 0, "{round}");
        disk.set_capacity(Some(disk.used_bytes()));
        let full =
            (0..600_u32).find(|n| simulator.run(db.put(n.to_be_bytes(), vec![7; 3_000])).is_err());
        assert!(full.is_some(), "{round}: it becomes full");
        simulator.settle();
    }
    simulator.run(db.close()).unwrap_or_else(|error| assert_eq!(error.kind(), ErrorKind::NoSpace));
}

/// Only a compaction finds the disk full. The reserve that it uses is created anew without a write.
#[test]
fn a8f_a_reserve_that_a_compaction_used_comes_back_by_itself() {
    let simulator = Simulator::new(2);
    simulator.limit_steps(3_000_000);
    let faulty = Arc::new(FaultVfs::over_mem(&MemVfs::new()));
    let control = faulty.control();
    let builder = Db::builder(fresh_dir()).options(settings::tiny()).vfs(faulty);
    let db = simulator.run(builder.runtime(simulator.handle()).open()).unwrap();
    for n in 0..600_u32 {
        simulator.run(db.put((n % 50).to_be_bytes(), vec![n as u8; 3_000])).unwrap();
    }
    simulator.run(db.flush()).unwrap();
    simulator.settle();
    control.arm(Fault::of(OperationKind::Create).named(".tmp").errno(ENOSPC).sticky());
    let error = simulator.run(db.compact()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    control.disarm();
    for _ in 0..4 {
        simulator.advance(Duration::from_millis(500));
        simulator.settle();
    }
    simulator.run(db.put("a", "1")).unwrap();
    assert!(db.stats().space_reserve_bytes > 0);
}

/// A reserve of an earlier incarnation, and an option that wants none.
#[test]
fn a8f_who_wants_no_reserve_has_none() {
    let (disk, simulator, dir) = (MemVfs::new(), Simulator::new(4), fresh_dir());
    let open = |bytes| {
        let mut options = settings::tiny();
        options.space_reserve_bytes = bytes;
        let builder = Db::builder(&dir).options(options).vfs(shared(&disk));
        simulator.run(builder.runtime(simulator.handle()).open()).unwrap()
    };
    let db = open(None);
    simulator.settle();
    assert!(db.stats().space_reserve_bytes > 0);
    simulator.run(db.close()).unwrap();
    drop(db);
    let db = open(Some(0));
    simulator.settle();
    assert_eq!(db.stats().space_reserve_bytes, 0);
    assert!(disk.open(&FileKind::Reserve.path(&dir)).is_err(), "the file is gone");
    disk.set_capacity(Some(disk.used_bytes()));
    let full =
        (0..600_u32).find(|n| simulator.run(db.put(n.to_be_bytes(), vec![7; 3_000])).is_err());
    assert!(full.is_some());
    disk.set_capacity(None);
    simulator.advance(Duration::from_secs(1));
    simulator.settle();
    simulator.run(db.put("a", "1")).unwrap();
}

/// There is no reserve, or the need is larger.
#[test]
fn opening_on_a_full_disk_fails_typed_and_works_later() {
    let disk = MemVfs::new();
    let simulator = Simulator::new(1);
    let dir = fresh_dir();
    let open = || {
        let mut options = settings::tiny();
        options.space_reserve_bytes = Some(0);
        let builder = Db::builder(&dir).options(options);
        builder.vfs(shared(&disk)).runtime(simulator.handle()).open()
    };
    let db = simulator.run(open()).unwrap();
    let sync = WriteOptions::durability(Durability::Synced);
    simulator.run(db.put_with("a", "1", sync)).unwrap();
    drop(db);
    simulator.settle();
    disk.set_capacity(Some(disk.used_bytes()));
    let error = simulator.run(open()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    simulator.settle();
    disk.set_capacity(None);
    let db = simulator.run(open()).unwrap();
    assert_eq!(simulator.run(db.get("a")).unwrap().as_deref(), Some(&b"1"[..]));
}

/// Tables find no space while the log does: a new log segment is no sign that a flush would
/// succeed.
#[test]
fn a8e_a_new_log_segment_does_not_take_away_what_the_flush_worker_said() {
    let simulator = Simulator::new(13);
    let faulty = Arc::new(FaultVfs::over_mem(&MemVfs::new()));
    let control = faulty.control();
    let mut options = settings::tiny();
    // While the reserve is in use writes are refused, and the log is not used up.
    options.space_reserve_bytes = Some(0);
    let builder = Db::builder(fresh_dir()).options(options);
    let db = simulator.run(builder.vfs(faulty).runtime(simulator.handle()).open()).unwrap();
    control.arm(Fault::of(OperationKind::Create).named(".tmp").errno(ENOSPC).sticky());
    let put = |n: u32| simulator.run(db.put(n.to_be_bytes(), vec![7; 3_000]));
    let degraded = (0..600).find(|n| put(*n).is_err() || !db.health().state().is_running());
    assert!(degraded.is_some(), "a flush was due");
    let segments = control.count(OperationKind::Create);
    for n in 1000..1100 {
        // Refused or not: small writes find room in memory for a while, and use up the log.
        drop(simulator.run(db.put((n % 7_u32).to_be_bytes(), vec![9; 3_000])));
        let state = db.health().state();
        let HealthState::Degraded(troubles) = &state else { panic!("{n}: {state:?}") };
        assert_eq!(troubles[0].party, Party::Flush, "{troubles:?}");
        assert_eq!(troubles[0].error.kind(), ErrorKind::NoSpace, "{troubles:?}");
        let stats = db.stats().troubles;
        assert_eq!(stats[0].party, Party::Flush, "{stats:?}");
    }
    assert!(control.count(OperationKind::Create) > segments, "no log segment was prepared");
    control.disarm();
    simulator.advance(std::time::Duration::from_secs(1));
    simulator.settle();
    assert!(db.health().state().is_running(), "{:?}", db.health().state());
    assert!(db.stats().troubles.is_empty());
    simulator.run(db.close()).unwrap();
}

/// One run with `spare` bytes of space: writes, deletes, flushes and compactions until long after
/// it is used up. With `l0_full` compactions find no space from the start, so that flushes have to
/// wait for them too. Returns how many writes were refused.
fn with_little_space(seed: u64, spare: u64, l0_full: bool) -> u32 {
    let what = format!("SLUICE_SEED={seed} spare {spare}, L0 full: {l0_full}");
    let mem = MemVfs::new();
    let faulty = Arc::new(FaultVfs::over_mem(&mem));
    let (control, simulator, dir) = (faulty.control(), Simulator::new(seed), fresh_dir());
    simulator.limit_steps(2_000_000);
    let mut options = settings::tiny();
    options.initial_split_keys = vec![b"key0200".to_vec()];
    let open = |vfs| {
        let builder = Db::builder(&dir).options(options.clone());
        simulator.run(builder.vfs(vfs).runtime(simulator.handle()).open())
    };
    let db = open(faulty).unwrap();
    let mut expected = Map::new();
    let key = |n: u64| format!("key{:04}", n * 7 % 400).into_bytes();
    for n in 0..60 {
        simulator.run(db.put(key(n), vec![n as u8; 900])).unwrap();
        expected.insert(key(n), vec![n as u8; 900]);
    }
    simulator.settle();
    mem.set_capacity(Some(mem.used_bytes() + spare));
    if l0_full {
        // Compactions write pieces of one entry; flushes write small tables.
        control
            .arm(Fault::of(OperationKind::Create).named(".tmp").errno(ENOSPC).after(6).times(40));
    }
    let check = |result: sluicedb::Result<()>| match result {
        Ok(()) => true,
        Err(error) => {
            let fits = error.kind() == ErrorKind::NoSpace && error.outcome() == Outcome::NotApplied;
            assert!(fits, "{what}: {error:?}");
            false
        }
    };
    let mut refused = 0;
    for n in 60..400_u64 {
        if n % 9 == 0 {
            if check(simulator.run(db.delete(key(n / 2))).map(drop)) {
                expected.remove(&key(n / 2));
            }
        } else if check(simulator.run(db.put(key(n), vec![n as u8; 900])).map(drop)) {
            expected.insert(key(n), vec![n as u8; 900]);
        } else {
            refused += 1;
        }
        if n % 50 == 0 {
            check(simulator.run(db.flush()));
        }
        if n % 170 == 0 {
            check(simulator.run(db.compact()));
        }
    }
    assert_eq!(simulator.run(content(&db)).unwrap(), expected, "{what}");
    let image = mem.kill_clone();
    if seed.is_multiple_of(2) {
        // It continues by itself, within about a second.
        mem.set_capacity(None);
        control.disarm();
        for _ in 0..3 {
            simulator.advance(Duration::from_millis(500));
            simulator.settle();
        }
        assert!(db.health().state().is_running(), "{what}: {:?}", db.health().state());
        simulator.run(db.put("last", "one")).unwrap();
        expected.insert(b"last".to_vec(), b"one".to_vec());
        simulator.run(db.close()).unwrap();
    } else {
        check(simulator.run(db.close()));
        // The disk of a kill opens with space, and also without it, as far as it can.
        let full = image.kill_clone();
        full.set_capacity(Some(full.used_bytes()));
        match open(shared(&full)) {
            Ok(db) => assert_eq!(simulator.run(content(&db)).unwrap(), expected, "{what}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{what}: {error:?}"),
        }
        full.set_capacity(None);
        let again = open(shared(&full)).unwrap();
        assert_eq!(simulator.run(content(&again)).unwrap(), expected, "{what}: killed");
        mem.set_capacity(None);
    }
    drop(db);
    simulator.settle();
    let again = open(shared(&mem)).unwrap();
    assert_eq!(simulator.run(content(&again)).unwrap(), expected, "{what}: reopened");
    refused
}

/// Any actor may hit the full disk: log, flush, compaction, manifest. `SLUICE_FULL_DISK_STEP` makes
/// the steps of the space finer.
#[test]
fn a8_any_amount_of_space_may_be_left() {
    let step = std::env::var("SLUICE_FULL_DISK_STEP").ok().and_then(|step| step.parse().ok());
    let step: usize = step.unwrap_or(8 << 10);
    for l0_full in [false, true] {
        let runs = (0..).zip((0..80 << 10).step_by(step));
        let refused: Vec<_> =
            runs.map(|(seed, spare)| with_little_space(seed, spare as u64, l0_full)).collect();
        let met = refused.iter().filter(|refused| **refused > 0).count();
        assert!(2 * met > refused.len(), "the disk was not full: {refused:?}");
    }
}

/// A user leaves a full disk from inside: delete, compact, continue.
#[test]
fn a8f_a_full_disk_takes_deletes_and_compacts_and_goes_on() {
    let (disk, simulator, dir) = (MemVfs::new(), Simulator::new(3), fresh_dir());
    simulator.limit_steps(3_000_000);
    let open = || {
        let builder = Db::builder(&dir).options(settings::tiny());
        simulator.run(builder.vfs(shared(&disk)).runtime(simulator.handle()).open())
    };
    let db = open().unwrap();
    let key = |n: u32| n.to_be_bytes();
    for n in 0..200 {
        simulator.run(db.put(key(n), vec![n as u8; 3_000])).unwrap();
    }
    simulator.settle();
    let reserve = db.stats().space_reserve_bytes;
    assert!(reserve >= 64 << 10, "{reserve} bytes are set aside");
    disk.set_capacity(Some(disk.used_bytes() + (100 << 10)));
    let full = (200..2_000).find(|n| simulator.run(db.put(key(*n), vec![9; 3_000])).is_err());
    let full = full.expect("it becomes full");
    simulator.settle();
    let troubles = db.stats().troubles;
    assert!(troubles.iter().any(|one| one.party == Party::Reserve), "{troubles:?}");
    assert_eq!(db.stats().space_reserve_bytes, 0);
    // Whether or not memory has room: only deletes are accepted.
    let refused = simulator.run(db.put("a", "1")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused:?}");
    for n in 0..full {
        simulator.run(db.delete(key(n))).unwrap();
    }
    simulator.run(db.compact()).unwrap();
    assert!(simulator.run(content(&db)).unwrap().is_empty());
    for _ in 0..3 {
        simulator.advance(Duration::from_millis(500));
        simulator.settle();
    }
    assert!(db.health().state().is_running(), "{:?}", db.health().state());
    assert!(db.stats().space_reserve_bytes >= 64 << 10, "it is set aside anew");
    for n in 0..20 {
        simulator.run(db.put(key(n), vec![1; 3_000])).unwrap();
    }
    simulator.run(db.close()).unwrap();
    drop(db);
    simulator.settle();
    assert_eq!(simulator.run(content(&open().unwrap())).unwrap().len(), 20);
}

/// A database whose manifest finds no space, once or for some time, continues by itself.
#[test]
fn a8a_a_manifest_without_space_degrades_and_resumes() {
    for (kind, name) in [
        (OperationKind::Write, "MANIFEST"),
        (OperationKind::Create, "MANIFEST"),
        (OperationKind::Sync, "MANIFEST-"),
        (OperationKind::Rename, "CURRENT"),
    ] {
        let simulator = Simulator::new(5);
        simulator.limit_steps(2_000_000);
        let mem = MemVfs::new();
        let faulty = Arc::new(FaultVfs::over_mem(&mem));
        let (control, dir) = (faulty.control(), fresh_dir());
        let mut options = settings::tiny();
        // No reserve is freed to make up for it.
        options.space_reserve_bytes = Some(0);
        let builder = Db::builder(&dir).options(options.clone());
        let db = simulator.run(builder.vfs(faulty).runtime(simulator.handle()).open()).unwrap();
        let mut expected = Map::new();
        let first = kind == OperationKind::Write;
        control.arm(Fault::of(OperationKind::Write).named("MANIFEST").errno(ENOSPC).times(1));
        control.arm(Fault::of(kind).named(name).errno(ENOSPC).times(if first { 4 } else { 2 }));
        let mut degraded = false;
        for n in 0..400_u32 {
            let key = format!("key{n:04}").into_bytes();
            match simulator.run(db.put(&key, vec![n as u8; 500])) {
                Ok(_) => drop(expected.insert(key, vec![n as u8; 500])),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{kind:?}: {error:?}"),
            }
            let troubles = db.stats().troubles;
            degraded |= troubles.iter().any(|one| one.party == Party::Manifest);
            let state = db.health().state();
            assert!(!matches!(state, HealthState::Failed(_)), "{kind:?} of {name}: {state:?}");
            simulator.advance(Duration::from_millis(20));
        }
        assert!(degraded, "{kind:?}: {:?}", control.fired());
        simulator.advance(Duration::from_secs(1));
        simulator.run(db.flush()).unwrap();
        assert!(db.health().state().is_running(), "{kind:?}: {:?}", db.health().state());
        simulator.run(db.close()).unwrap();
        drop(db);
        simulator.settle();
        let builder = Db::builder(&dir).options(options).vfs(shared(&mem));
        let db = simulator.run(builder.runtime(simulator.handle()).open()).unwrap();
        assert_eq!(simulator.run(content(&db)).unwrap(), expected);
    }
}

/// The manifest is long enough to be rewritten, and the rewrite finds no space. Its content is
/// durable where it is, so nobody notices.
#[test]
fn a8b_a_manifest_that_cannot_be_rewritten_goes_on_growing() {
    let (mem, simulator, dir) = (MemVfs::new(), Simulator::new(6), fresh_dir());
    let faulty = Arc::new(FaultVfs::over_mem(&mem));
    let control = faulty.control();
    let builder = Db::builder(&dir).options(settings::tiny()).vfs(faulty);
    let db = simulator.run(builder.runtime(simulator.handle()).open()).unwrap();
    control.arm(Fault::of(OperationKind::Create).named("MANIFEST").errno(ENOSPC).sticky());
    // Each table's entry in the manifest has one or two of these keys.
    let key = |n: u32| [vec![b'k'; 60_000], (n % 5).to_be_bytes().to_vec()].concat();
    let manifests = || {
        let names = mem.list(&dir).unwrap();
        names.into_iter().filter(|name| name.starts_with("MANIFEST")).collect::<Vec<_>>()
    };
    let mut rewritten = false;
    for n in 0..200_u32 {
        simulator.run(db.put(key(n), n.to_be_bytes())).unwrap();
        simulator.run(db.flush()).unwrap();
        assert!(db.health().state().is_running(), "{n}: {:?}", db.health().state());
        if control.fired().len() >= 3 {
            control.disarm();
        }
        rewritten |= manifests() != ["MANIFEST-000001"];
    }
    assert!(control.fired().len() >= 3, "it was never to be rewritten");
    assert!(rewritten, "{:?}", manifests());
    simulator.run(db.close()).unwrap();
    drop(db);
    simulator.settle();
    let builder = Db::builder(&dir).options(settings::tiny()).vfs(shared(&mem));
    let db = simulator.run(builder.runtime(simulator.handle()).open()).unwrap();
    for n in 195..200 {
        let found = simulator.run(db.get(key(n))).unwrap();
        assert_eq!(found.as_deref(), Some(&n.to_be_bytes()[..]));
    }
}
