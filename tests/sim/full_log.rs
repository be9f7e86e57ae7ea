//! A disk without space for the bytes of the log: possible where overwriting takes new blocks.

use crate::kit::disk::{content, fresh_dir, shared};
use crate::kit::oracle::Map;
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use futures::FutureExt;
use sluicedb::{Db, Durability, Error, ErrorKind, HealthState, Outcome, Party, WriteOptions};
use sluicedb_storage::vfs::fault::ENOSPC;
use sluicedb_storage::vfs::{CrashKind, Fault, FaultControl, FaultVfs, MemVfs, OperationKind, Vfs};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

struct Scene {
    disk: MemVfs,
    faults: FaultControl,
    simulator: Simulator,
    dir: PathBuf,
    db: Db,
    expected: Map,
}

impl Scene {
    /// An open database with a few entries in its log.
    fn new(mapped: bool) -> Self {
        let disk = MemVfs::new();
        let vfs = FaultVfs::over_mem(&disk);
        let faults = vfs.control();
        let simulator = Simulator::new(5);
        let dir = fresh_dir();
        let mut options = settings::tiny();
        options.log_mapped = mapped;
        options.memtable_bytes = Some(256 << 10);
        let vfs: Arc<dyn Vfs> = Arc::new(vfs);
        let builder = Db::builder(&dir).options(options).vfs(vfs).runtime(simulator.handle());
        let db = simulator.run(builder.open()).unwrap();
        let mut scene = Self { disk, faults, simulator, dir, db, expected: Map::new() };
        for n in 0..5 {
            scene.put(n, Durability::Synced).unwrap();
        }
        scene.simulator.settle();
        scene
    }

    /// Puts, and remembers the outcome: the write is visible unless it was refused.
    fn put(&mut self, n: usize, durability: Durability) -> Result<(), Error> {
        let (key, value) = (format!("key{n:04}").into_bytes(), vec![n as u8; 1_000]);
        let options = WriteOptions::durability(durability);
        let result = self.simulator.run(self.db.put_with(&key, &value, options));
        if result.as_ref().err().is_none_or(|error| error.outcome() == Outcome::Applied) {
            self.expected.insert(key, value);
        }
        result.map(drop)
    }

    /// From now on writes of the log fail. A file is matched by the name of its creation.
    fn fill_disk(&self, partly: bool) {
        let fault = Fault::of(OperationKind::Write).named(".spare").errno(ENOSPC).sticky();
        self.faults.arm(if partly { fault.partial_write() } else { fault });
    }

    fn troubled(&self) -> Vec<Party> {
        match self.db.health().state() {
            HealthState::Degraded(troubles) => {
                troubles.iter().map(|trouble| trouble.party).collect()
            }
            _ => Vec::new(),
        }
    }

    fn check_after(&self, disk: &MemVfs) {
        let simulator = Simulator::new(6);
        let builder = Db::builder(&self.dir).options(settings::tiny());
        let builder = builder.vfs(shared(disk)).runtime(simulator.handle());
        let db = simulator.run(builder.open()).unwrap();
        assert_eq!(simulator.run(content(&db)).unwrap(), self.expected);
        simulator.kill();
    }
}

/// Planted: a failed log write that is final; one that is dropped instead of repeated; callers that
/// are never answered; a log that continues to stamp; one that does not resume.
#[test]
fn a8c_a_log_write_without_room_is_repeated_when_there_is_room() {
    let (buffered, synced) = (Durability::Buffered, Durability::Synced);
    // With a mapping only syncs hit it.
    for (mapped, level) in [(false, buffered), (false, synced), (true, synced)] {
        for partly in [false, true] {
            let mut scene = Scene::new(mapped);
            scene.fill_disk(partly);
            let error = scene.put(100, level).unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::NoSpace, Outcome::Applied));
            assert!(error.path().is_some(), "{error:?}");
            assert!(scene.troubled().contains(&Party::LogWrites), "{:?}", scene.troubled());
            // Nothing new is accepted, and every waiter is answered.
            for n in 101..104 {
                for level in [buffered, synced] {
                    let error = scene.put(n, level).unwrap_err();
                    let told = (error.kind(), error.outcome());
                    assert_eq!(told, (ErrorKind::NoSpace, Outcome::NotApplied), "{error:?}");
                }
            }
            let error = scene.simulator.run(scene.db.sync()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
            // Applied writes are visible, and were not promised.
            assert_eq!(scene.simulator.run(content(&scene.db)).unwrap(), scene.expected);
            assert!(scene.troubled().contains(&Party::LogWrites), "{:?}", scene.troubled());

            scene.faults.disarm();
            scene.simulator.advance(Duration::from_secs(1));
            scene.simulator.settle();
            assert!(scene.db.health().state().is_running(), "{:?}", scene.db.health().state());
            scene.put(200, level).unwrap();
            scene.put(201, synced).unwrap();
            scene.check_after(&scene.disk.crash_clone(CrashKind::DropUnsynced));
            scene.simulator.run(scene.db.close()).unwrap();
            scene.check_after(&scene.disk.kill_clone());
        }
    }
}

/// Goal: a write that is told `Applied` is written as soon as there is room, although nobody waits
/// for it any more, and nobody writes or syncs.
/// Method: the second write is appended while the first is being written, so it belongs to a later
/// group.
///
/// Planted: a log that looks only for those who wait.
#[test]
fn what_was_appended_beside_a_log_write_without_room_is_written_when_there_is_room() {
    for (mapped, level) in
        [(false, Durability::Buffered), (false, Durability::Synced), (true, Durability::Synced)]
    {
        let mut scene = Scene::new(mapped);
        // Part of the bytes reach the disk, whose hook is called.
        scene.fill_disk(true);
        let (key, value) = (b"beside".to_vec(), vec![1; 1_000]);
        let beside = {
            let (db, key, value) = (scene.db.clone(), key.clone(), value.clone());
            async move { db.put_with(key, value, WriteOptions::durability(level)).await }.boxed()
        };
        let (not_begun, begun) = (Mutex::new(Some(beside)), Arc::new(Mutex::new(None)));
        let polled = begun.clone();
        scene.disk.on_operation(move |_, operation| {
            if operation.kind == OperationKind::Write
                && let Some(mut beside) = not_begun.lock().unwrap().take()
            {
                let first = beside.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(first.is_pending());
                *polled.lock().unwrap() = Some(beside);
            }
        });
        let error = scene.put(100, level).unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::NoSpace, Outcome::Applied));
        let beside = begun.lock().unwrap().take().expect("it came while the log was written");
        let error = scene.simulator.run(beside).unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::NoSpace, Outcome::Applied));
        scene.expected.insert(key, value);

        scene.faults.disarm();
        scene.simulator.advance(Duration::from_secs(1));
        scene.simulator.settle();
        assert!(scene.db.health().state().is_running(), "{:?}", scene.db.health().state());
        scene.check_after(&scene.disk.kill_clone());
        scene.check_after(&scene.disk.crash_clone(CrashKind::DropUnsynced));
    }
}

/// Goal: the log uses the reserve before it refuses a write.
/// Method: one log write finds no space, and the retry does. Only the statistics show it.
///
/// Planted: a log write that does not release the reserve.
#[test]
fn a8f_a_log_write_without_room_uses_the_reserve() {
    for level in [Durability::Buffered, Durability::Synced] {
        let mut scene = Scene::new(false);
        assert!(scene.db.stats().space_reserve_bytes > 0);
        let fault = Fault::of(OperationKind::Write).named(".spare").errno(ENOSPC);
        scene.faults.arm(fault.partial_write());
        scene.put(100, level).unwrap();
        assert_eq!(scene.faults.fired().len(), 1);
        assert_eq!(scene.troubled(), [Party::Reserve]);
        assert_eq!(scene.db.stats().space_reserve_bytes, 0);
        scene.simulator.settle();
        scene.simulator.advance(Duration::from_secs(1));
        scene.simulator.settle();
        assert!(scene.db.health().state().is_running(), "{:?}", scene.db.health().state());
        assert!(scene.db.stats().space_reserve_bytes > 0, "it is set aside anew");
        scene.put(101, Durability::Synced).unwrap();
        scene.check_after(&scene.disk.crash_clone(CrashKind::DropUnsynced));
    }
}

/// A close ends with the failure instead of hanging. Acknowledged writes are found.
#[test]
fn a8c_a_full_log_closes() {
    let mut scene = Scene::new(false);
    scene.fill_disk(false);
    scene.put(100, Durability::Synced).unwrap_err();
    let error = scene.simulator.run(scene.db.close()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    scene.faults.disarm();
    // The write reached a table or is lost: it was visible, and not promised.
    let simulator = Simulator::new(7);
    let builder = Db::builder(&scene.dir).options(settings::tiny());
    let builder = builder.vfs(shared(&scene.disk)).runtime(simulator.handle());
    let db = simulator.run(builder.open()).unwrap();
    let found = simulator.run(content(&db)).unwrap();
    for n in 0..5 {
        assert!(found.contains_key(format!("key{n:04}").as_bytes()), "{n}");
    }
    simulator.kill();
}

/// Planted: a sync without space that is retried, as a write is.
#[test]
fn a8c_a_log_sync_without_room_is_final() {
    let mut scene = Scene::new(false);
    scene.faults.arm(Fault::of(OperationKind::Sync).named(".spare").errno(ENOSPC));
    let error = scene.put(100, Durability::Synced).unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::NoSpace, Outcome::Unknown));
    scene.simulator.advance(Duration::from_secs(60));
    scene.simulator.settle();
    let state = scene.db.health().state();
    assert!(matches!(state, HealthState::Failed(_)), "{state:?}");
    scene.put(101, Durability::Buffered).unwrap_err();
    assert_eq!(scene.simulator.run(scene.db.get("key0004")).unwrap().unwrap().len(), 1_000);
}
