//! Goal: exactly the armed operations fail, as armed, and the counters are right.

use super::*;

const F: &str = "/f.wal";

fn disk() -> (MemVfs, FaultVfs, FaultControl) {
    let mem = MemVfs::new();
    let vfs = FaultVfs::over_mem(&mem);
    let control = vfs.control();
    (mem, vfs, control)
}

#[test]
fn the_kth_operation_fails_once_or_for_ever() {
    let (_, vfs, control) = disk();
    let file = vfs.create(Path::new(F)).unwrap();
    control.arm(Fault::of(OperationKind::Write).after(2).errno(ENOSPC));
    let results: Vec<bool> = (0..5).map(|i| file.write_all_at(b"x", i).is_ok()).collect();
    assert_eq!(results, [true, true, false, true, true]);
    control.arm(Fault::of(OperationKind::Write).after(1).sticky().error(ErrorKind::Other));
    let results: Vec<bool> = (0..4).map(|i| file.write_all_at(b"x", i).is_ok()).collect();
    assert_eq!(results, [true, false, false, false]);
    control.disarm();
    file.write_all_at(b"x", 0).unwrap();
    assert_eq!(control.count(OperationKind::Write), 10);
    assert_eq!(control.fired().len(), 4);
    assert_eq!(control.fired()[0].path, Path::new(F));
}

#[test]
fn every_kind_that_can_fail_does() {
    for kind in OperationKind::ALL.into_iter().filter(|kind| kind.can_fail()) {
        let (_, vfs, control) = disk();
        let p = Path::new(F);
        let file = vfs.create(p).unwrap();
        control.arm(Fault::of(kind).sticky().errno(EROFS));
        let mut buf = [0; 1];
        let lock = |taken: Result<Box<dyn FileLock>, LockError>| match taken {
            Ok(_) => Ok(()),
            Err(LockError::Io(error)) => Err(error),
            Err(LockError::Held { .. }) => unreachable!("nobody else is here"),
        };
        let results = [
            (OperationKind::CreateDir, vfs.create_dir_all(Path::new("/d"))),
            (OperationKind::Create, vfs.create(Path::new("/new")).map(drop)),
            (OperationKind::Open, vfs.open(p).map(drop)),
            (OperationKind::Open, vfs.open_rw(p).map(drop)),
            (OperationKind::Inspect, vfs.list(Path::new("/")).map(drop)),
            (OperationKind::Inspect, vfs.len(p).map(drop)),
            (OperationKind::Inspect, file.len().map(drop)),
            (OperationKind::SyncDir, vfs.sync_dir(Path::new("/"))),
            (OperationKind::Lock, lock(vfs.lock(p))),
            (OperationKind::Lock, lock(vfs.lock_shared(p))),
            (OperationKind::Link, vfs.hard_link(p, Path::new("/l.wal"))),
            (OperationKind::Read, file.read_at(&mut buf, 0).map(drop)),
            (OperationKind::Read, file.try_read_exact_at(&mut buf, 0).map(drop)),
            (OperationKind::Write, file.write_all_at(b"x", 0)),
            (OperationKind::Sync, file.sync_data()),
            (OperationKind::Sync, file.sync_all()),
            (OperationKind::WriteBack, file.write_back(0, 1)),
            (OperationKind::SetLen, file.set_len(1)),
            (OperationKind::Allocate, file.allocate(1).map(drop)),
            (OperationKind::Map, file.map_for_writing(1).map(drop)),
            (OperationKind::Rename, vfs.rename(p, Path::new("/g"))),
        ];
        for (tried, result) in results {
            let code = result.err().and_then(|error| error.raw_os_error());
            assert_eq!(code, (tried == kind).then_some(EROFS), "{tried:?} under {kind:?}");
        }
        let gone = if kind == OperationKind::Rename { p } else { Path::new("/g") };
        assert_eq!(vfs.remove(gone).is_err(), kind == OperationKind::Remove);
    }
}

#[test]
fn names_choose() {
    let (_, vfs, control) = disk();
    let wal = vfs.create(Path::new(F)).unwrap();
    let table = vfs.create(Path::new("/wal/../t.sst")).unwrap();
    control.arm(Fault::any().named(".wal").sticky());
    table.write_all_at(b"x", 0).unwrap();
    assert!(wal.write_all_at(b"x", 0).is_err());
    assert!(vfs.rename(Path::new("/t.sst"), Path::new("/u.wal")).is_err());
    assert!(vfs.open(Path::new(F)).is_err());
}

#[test]
fn reads_fall_short_and_writes_stop_halfway() {
    let (_, vfs, control) = disk();
    let file = vfs.create(Path::new(F)).unwrap();
    control.arm(Fault::of(OperationKind::Write).partial_write().errno(ENOSPC));
    let error = file.write_all_at(b"12345678", 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 4);
    control.arm(Fault::of(OperationKind::Read).short_read().times(2));
    let mut buf = [0; 4];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 2);
    assert!(!file.try_read_exact_at(&mut buf, 0).unwrap());
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 4);
}

/// Goal: the fsync trap of ext4.
/// Method: one sync fails and is repeated; then look at the disk after a power cut.
#[test]
fn a_lost_sync_lies_when_repeated() {
    let (mem, vfs, control) = disk();
    let file = vfs.create(Path::new(F)).unwrap();
    file.write_all_at(&[1; 8192], 0).unwrap();
    file.sync_all().unwrap();
    vfs.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(b"lost", 0).unwrap();
    control.arm(Fault::of(OperationKind::Sync).lose_sync());
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(EIO));
    file.write_all_at(b"kept", 4096).unwrap();
    file.sync_data().unwrap();
    let look = |file: &dyn File, at| {
        let mut seen = [0; 4];
        file.read_at(&mut seen, at).unwrap();
        seen
    };
    assert_eq!(&look(&*file, 0), b"lost", "the cache still shows it");
    let after = mem.crash_clone(super::super::CrashKind::KeepAll).open(Path::new(F)).unwrap();
    assert_eq!((look(&*after, 0), &look(&*after, 4096)), ([1; 4], b"kept"));
    file.drop_cache();
    assert_eq!(look(&*file, 0), [1; 4], "the disk never had it");
}

#[test]
fn a_lost_sync_over_any_other_disk_makes_the_handle_deaf() {
    let mem = MemVfs::new();
    let vfs = FaultVfs::new(Arc::new(mem.clone()));
    let file = vfs.create(Path::new(F)).unwrap();
    vfs.sync_dir(Path::new("/")).unwrap();
    vfs.control().arm(Fault::of(OperationKind::Sync).lose_sync());
    file.write_all_at(b"lost", 0).unwrap();
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    let after = mem.crash_clone(super::super::CrashKind::DropUnsynced);
    assert_eq!(after.len(Path::new(F)).unwrap(), 0);
}

#[test]
fn random_faults_repeat_with_their_seed() {
    let run = |seed| {
        let (_, vfs, control) = disk();
        let file = vfs.create(Path::new(F)).unwrap();
        control.arm_random(seed, 4, Fault::of(OperationKind::Write));
        (0..200).map(|i| file.write_all_at(b"x", i).is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    let failures = run(7).iter().filter(|ok| !**ok).count();
    assert!((20..80).contains(&failures), "{failures} of 200");
}

#[test]
fn stores_are_counted_and_never_fail() {
    let (_, vfs, control) = disk();
    let file = vfs.create(Path::new(F)).unwrap();
    assert!(file.allocate(4096).unwrap());
    let map = file.map_for_writing(4096).unwrap().unwrap();
    control.arm(Fault::any().sticky());
    let before = control.count_all();
    map.write(10, b"stored");
    assert_eq!((control.count(OperationKind::Store), control.count_all()), (1, before));
    control.disarm();
    let mut seen = [0; 6];
    file.read_at(&mut seen, 10).unwrap();
    assert_eq!(&seen, b"stored");
}
