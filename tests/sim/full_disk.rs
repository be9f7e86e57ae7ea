//! A disk without space: a typed refusal, nothing lost, and work goes on by itself when there is
//! space again.

use crate::kit::disk::{content, fresh_dir, shared};
use crate::kit::oracle::Map;
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use sluicedb::{Db, Durability, ErrorKind, HealthState, Outcome, Party, WriteOptions};
use sluicedb_storage::vfs::fault::ENOSPC;
use sluicedb_storage::vfs::{CrashKind, Fault, FaultVfs, MemVfs, OperationKind};
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
        // Reads go on, with everything that was acknowledged and nothing that was refused.
        assert_eq!(simulator.run(content(&db)).unwrap(), expected);

        disk.set_capacity(None);
        let mut waited = Duration::ZERO;
        let mut n = 1000;
        // Until a flush has succeeded, a write that finds no room in memory is refused.
        while put(n, &mut expected).is_err() || !db.health().state().is_running() {
            n += 1;
            waited += Duration::from_millis(100);
            assert!(waited <= Duration::from_secs(3), "writes stay refused though there is space");
            simulator.advance(Duration::from_millis(100));
            simulator.settle();
        }
        // The flush worker has seen that there is space; who prepares log segments looks by itself.
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
fn opening_on_a_full_disk_fails_typed_and_works_later() {
    let disk = MemVfs::new();
    let simulator = Simulator::new(1);
    let dir = fresh_dir();
    let open = || {
        let builder = Db::builder(&dir).options(settings::tiny());
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

/// Tables find no room while the log does: a new log segment is no sign that a flush would succeed.
#[test]
fn a8e_a_new_log_segment_does_not_take_away_what_the_flush_worker_said() {
    let simulator = Simulator::new(13);
    let faulty = Arc::new(FaultVfs::over_mem(&MemVfs::new()));
    let control = faulty.control();
    let builder = Db::builder(fresh_dir()).options(settings::tiny());
    let db = simulator.run(builder.vfs(faulty).runtime(simulator.handle()).open()).unwrap();
    control.arm(Fault::of(OperationKind::Create).named(".tmp").errno(ENOSPC).sticky());
    let put = |n: u32| simulator.run(db.put(n.to_be_bytes(), vec![7; 3_000]));
    let degraded = (0..600).find(|n| put(*n).is_err() || !db.health().state().is_running());
    assert!(degraded.is_some(), "a flush was due");
    let segments = control.count(OperationKind::Create);
    for n in 1000..1100 {
        // Refused or not; small ones find room in memory for a while, and use up the log.
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
