//! Flushes and compactions that cannot succeed. A caller that needs them is answered, nobody else
//! notices, everything ends, and the engine continues by itself after a repair.

use crate::kit::disk::{content, fresh_dir, shared};
use crate::kit::oracle::Map;
use crate::kit::settings;
use crate::kit::settings::NO_WAIT;
use crate::kit::simulator::Simulator;
use sluicedb::{Db, Error, ErrorKind, HealthState, Options, Party, WriteOptions};
use sluicedb_actors::runtime::Runtime;
use sluicedb_storage::vfs::fault::{EIO, EMFILE, ENOSPC, EROFS};
use sluicedb_storage::vfs::{Fault, FaultVfs, MemVfs, OperationKind, Vfs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Two ranges, below and from "m" on.
fn options() -> Options {
    let mut options = settings::tiny();
    options.initial_split_keys = vec![b"m".to_vec()];
    options.cache_bytes = Some(0);
    options.compression = sluicedb::Compression::None;
    options.l0_compression = sluicedb::Compression::None;
    options
}

fn key(range: char, n: u32) -> Vec<u8> {
    format!("{range}{:03}", n % 200).into_bytes()
}

fn value(n: u32) -> Vec<u8> {
    vec![n as u8; 300]
}

fn tables(disk: &MemVfs, dir: &std::path::Path) -> Vec<PathBuf> {
    let mut names = disk.list(dir).unwrap();
    names.retain(|name| name.ends_with(".sst"));
    names.sort();
    names.into_iter().map(|name| dir.join(name)).collect()
}

/// Damages the first block of a table.
fn damage(disk: &MemVfs, path: &std::path::Path) {
    let file = disk.open_rw(path).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, 40).unwrap();
    file.write_all_at(&[byte[0] ^ 0x20], 40).unwrap();
}

#[test]
fn a7_a_damaged_table_hurts_its_own_range_only_and_everything_ends() {
    for seed in 0..3 {
        let (disk, dir) = (MemVfs::new(), fresh_dir());
        let simulator = Simulator::new(seed);
        simulator.limit_steps(2_000_000);
        let open = || {
            let builder = Db::builder(&dir).options(options());
            simulator.run(builder.vfs(shared(&disk)).runtime(simulator.handle()).open())
        };
        let db = open().unwrap();
        simulator.run(async {
            for n in 0..3 {
                db.put(key('a', n * 99), value(n)).await.unwrap();
            }
            db.flush().await.unwrap();
        });
        let damaged = tables(&disk, &dir).pop().expect("one table was flushed");
        damage(&disk, &damaged);

        // Both ranges are filled. Writes to the first one fail in the end, with the cause.
        let mut expected = Map::new();
        let mut failed: Option<Error> = None;
        for n in 0..3_000 {
            let deadline = simulator.now() + Duration::from_secs(3600);
            if failed.is_none() {
                failed = simulator
                    .run(db.put_with(key('a', n), value(n), WriteOptions::new().by(deadline)))
                    .err();
            }
            simulator
                .run(db.put_with(key('z', n), value(n), WriteOptions::new().by(deadline)))
                .unwrap();
            expected.insert(key('z', n), value(n));
        }
        let failed = failed.expect("its L0 is full and cannot be merged");
        assert_eq!(
            (failed.kind(), failed.path()),
            (ErrorKind::Corrupt, Some(&*damaged)),
            "{failed:?}"
        );
        let HealthState::Degraded(troubles) = db.health().state() else { panic!("{seed}") };
        let named: Vec<_> = troubles.iter().map(|one| (one.party, one.range)).collect();
        assert!(named.contains(&(Party::Compaction, Some(1))), "{troubles:?}");
        assert!(named.contains(&(Party::Flush, Some(1))), "{troubles:?}");
        assert!(troubles.iter().all(|one| one.error.path() == Some(&*damaged)), "{troubles:?}");
        let stats = db.stats();
        assert_eq!(stats.damaged.len(), 1, "{:?}", stats.damaged);
        assert_eq!((&stats.damaged[0].path, stats.damaged[0].offset), (&damaged, failed.offset()));
        assert!(stats.compactions > 0 && stats.ranges[1].l0_runs < 6, "the other one is merged");
        let tried = simulator.run(db.put_with(key('a', 1), value(1), NO_WAIT)).unwrap_err();
        assert_eq!(tried.kind(), ErrorKind::Corrupt, "{tried:?}");

        // Every call that waits for the first range ends with the same error.
        for error in [
            simulator.run(db.flush()).unwrap_err(),
            simulator.run(db.compact()).unwrap_err(),
            simulator.run(db.close()).unwrap_err(),
        ] {
            assert_eq!(
                (error.kind(), error.path()),
                (ErrorKind::Corrupt, Some(&*damaged)),
                "{error:?}"
            );
        }
        // The lock is free although a handle is left, and acknowledged writes are found.
        let again = open().unwrap();
        let found: Map = simulator
            .run(crate::kit::disk::collect(again.scan(b"m".to_vec()..)))
            .unwrap()
            .into_iter()
            .collect();
        assert_eq!(found, expected);
        drop(db);
        drop(again);
        simulator.settle();
        assert!(simulator.names().is_empty(), "{:?}", simulator.names());
    }
}

/// An operation that makes tables fails, for ever or for a while.
#[test]
fn a7_a_failing_flush_or_compaction_is_told_and_resumes() {
    for errno in [EIO, ENOSPC, EMFILE, EROFS] {
        for kind in [
            OperationKind::Create,
            OperationKind::Write,
            OperationKind::Sync,
            OperationKind::Rename,
        ] {
            for for_ever in [false, true] {
                // Tables have this ending until they are whole.
                fails(errno, Fault::of(kind).named(".tmp").errno(errno).sticky(), for_ever, kind);
            }
        }
    }
}

fn fails(errno: i32, fault: Fault, for_ever: bool, kind: OperationKind) {
    let what = format!("{kind:?} with {errno}, for ever: {for_ever}");
    let (mem, dir) = (MemVfs::new(), fresh_dir());
    let faulty = Arc::new(FaultVfs::over_mem(&mem));
    let control = faulty.control();
    let simulator = Simulator::new(7);
    simulator.limit_steps(3_000_000);
    let builder = Db::builder(&dir).options(options()).vfs(faulty).runtime(simulator.handle());
    let db = simulator.run(builder.open()).unwrap();
    let mut expected = Map::new();
    let mut put = |n: u32, range| {
        let result = simulator.run(db.put(key(range, n), value(n)));
        if result.is_ok() {
            expected.insert(key(range, n), value(n));
        }
        result
    };
    for n in 0..100 {
        put(n, 'a').unwrap();
    }
    simulator.settle();
    control.arm(fault);
    let failed = (0..3_000).find_map(|n| put(n, ['a', 'z'][n as usize % 2]).err());
    let failed = failed.unwrap_or_else(|| panic!("{what}: writes go on for ever"));
    let fits = |error: &Error| match errno {
        ENOSPC => error.kind() == ErrorKind::NoSpace,
        EMFILE => error.kind() == ErrorKind::TooManyOpenFiles,
        _ => error.kind() == ErrorKind::Io,
    };
    assert!(fits(&failed), "{what}: {failed:?}");
    // Repeated failures of table syncs end the engine; no other failure does. Without space or
    // without a descriptor, nothing was synced.
    let ended = kind == OperationKind::Sync && ![ENOSPC, EMFILE].contains(&errno);
    let error = simulator.run(db.flush()).unwrap_err();
    assert!(fits(&error), "{what}: {error:?}");
    simulator.advance(Duration::from_secs(60));
    simulator.settle();
    match db.health().state() {
        HealthState::Failed(_) => assert!(ended, "{what}: failed"),
        HealthState::Degraded(_) => assert!(!ended, "{what}: only degraded"),
        other => panic!("{what}: {other:?}"),
    }
    assert_eq!(simulator.run(content(&db)).unwrap(), expected, "{what}");
    if for_ever || ended {
        for error in
            [simulator.run(db.compact()).unwrap_err(), simulator.run(db.close()).unwrap_err()]
        {
            assert!(fits(&error), "{what}: {error:?}");
        }
        control.disarm();
    } else {
        control.disarm();
        let longest = if errno == ENOSPC { 1 } else { 31 };
        simulator.advance(Duration::from_secs(longest));
        simulator.settle();
        assert!(db.health().state().is_running(), "{what}: {:?}", db.health().state());
        for n in 0..300 {
            let range = ['a', 'z'][n as usize % 2];
            simulator.run(db.put(key(range, n), value(n))).unwrap();
            expected.insert(key(range, n), value(n));
        }
        simulator.run(db.close()).unwrap();
    }
    let again = Db::builder(&dir).options(options()).vfs(shared(&mem)).runtime(simulator.handle());
    let again = simulator.run(again.open()).unwrap();
    assert_eq!(simulator.run(content(&again)).unwrap(), expected, "{what}");
}
