//! Power cuts while a database is opened or made.

use super::*;

#[test]
pub(super) fn a_power_cut_anywhere_in_an_open_changes_nothing() {
    let (mem, model) = sample();
    let dead = mem.crash_clone(CrashKind::DropUnsynced);
    let images = dead.record_images(1);
    open(&dead).unwrap();
    dead.clear_hook();
    let images = images.take();
    assert!(images.len() > 20, "{}", images.len());
    for (at, (operation, image)) in images.into_iter().enumerate() {
        for kind in CrashKind::each(at as u64) {
            let again = image.crash_clone(kind);
            let recovered =
                open(&again).unwrap_or_else(|e| panic!("after {operation:?}, {kind:?}: {e}"));
            assert_eq!(content(&recovered), model, "after {operation:?}, {kind:?}");
            assert_only_live_files(&again, &recovered);
        }
    }
}

/// The page cache may have records that the disk does not, if a sync failed. Planted: the tables
/// that are made from them are not synced.
#[test]
fn what_only_the_cache_has_of_the_log_is_durable_once_it_is_open() {
    let mem = disk();
    let mut life = Life::start(&mem);
    life.fill(0, 20);
    life.sync();
    life.fill(1, 20);
    life.log.take_group().write().unwrap();
    let names = mem.list(&dir()).unwrap();
    let log = names.iter().find(|name| is_wal(name)).unwrap();
    let vfs = FaultVfs::over_mem(&mem);
    vfs.control().arm(Fault::of(OperationKind::Sync).lose_sync());
    vfs.open_rw(&dir().join(log)).unwrap().sync_data().unwrap_err();
    let dead = mem.crash_clone(CrashKind::DropUnsynced);
    assert_ne!(content(&open(&dead).unwrap()), life.model, "the sync lost something");
    assert_eq!(content(&open(&mem).unwrap()), life.model);
    let dead = mem.crash_clone(CrashKind::DropUnsynced);
    assert_eq!(content(&open(&dead).unwrap()), life.model);
}

pub(super) fn assert_only_live_files(mem: &MemVfs, recovered: &Recovered) {
    let live = recovered.version.slices().map(|(_, _, slice)| FileKind::Table(slice.number()));
    let mut want: Vec<_> = live.map(FileKind::name).collect();
    want.push("CURRENT".to_owned());
    want.push(FileKind::Manifest(recovered.manifest.number()).name());
    want.extend(
        recovered.report.old_log().iter().map(|segment| FileKind::Wal(segment.number).name()),
    );
    let mut names = mem.list(&dir()).unwrap();
    names.sort();
    want.sort();
    assert_eq!(names, want);
}

/// Planted: what was replayed is removed before the caller has the database; the next open takes it
/// for a part of the log, leaves it, or removes it last.
#[test]
fn the_log_that_was_replayed_is_left_to_the_caller_or_the_next_open() {
    let (mem, model) = sample();
    let recovered = open(&mem).unwrap();
    let old: Vec<_> =
        recovered.report.old_log().iter().map(|segment| segment.path.clone()).collect();
    assert!(old.len() > 1, "{old:?}");
    assert!(old.iter().all(|path| mem.len(path).is_ok()));
    // It makes room for the next open's manifest.
    mem.set_capacity(Some(mem.used_bytes()));
    let again = open(&mem).unwrap();
    assert_eq!((content(&again), again.report.entries_replayed), (model, 0));
    assert!(again.report.old_log().is_empty() && old.iter().all(|path| mem.len(path).is_err()));
}

#[test]
pub(super) fn a_power_cut_while_the_database_is_made_leaves_none_or_an_empty_one() {
    let mem = disk();
    let images = mem.record_images(1);
    open(&mem).unwrap();
    mem.clear_hook();
    for (operation, image) in images.take() {
        for kind in CrashKind::each(5) {
            let again = image.crash_clone(kind);
            let recovered = open(&again).unwrap_or_else(|e| panic!("{operation:?} {kind:?}: {e}"));
            assert_eq!(content(&recovered), Model::new());
        }
    }
}

/// Goal: a creation that was killed before its names were durable, followed by an open that a power
/// cut ends, leaves a directory that opens.
#[test]
pub(super) fn a_power_cut_in_the_open_after_a_killed_making_leaves_none_or_an_empty_one() {
    let mem = disk();
    let made = mem.record_images(1);
    open(&mem).unwrap();
    mem.clear_hook();
    let mut states = 0;
    for (killed_at, killed) in made.take() {
        let opened = killed.record_images(1);
        open(&killed).unwrap_or_else(|e| panic!("killed at {killed_at:?}: {e}"));
        killed.clear_hook();
        for (cut_at, image) in opened.take() {
            for kind in (0..8).flat_map(CrashKind::each) {
                let again = image.crash_clone(kind);
                let recovered = open(&again)
                    .unwrap_or_else(|e| panic!("{killed_at:?}, {cut_at:?}, {kind:?}: {e}"));
                assert_eq!(content(&recovered), Model::new());
                states += 1;
            }
        }
    }
    assert!(states > 500, "{states} states");
}

/// The keys at which the ranges meet.
pub(super) fn meeting_points(recovered: &Recovered) -> Vec<Bytes> {
    check::check(&recovered.version).unwrap();
    let ranges = recovered.version.ranges();
    ranges.iter().skip(1).map(|range| range.span.lo.clone()).collect()
}

#[test]
pub(super) fn a_power_cut_while_ranges_are_made_leaves_no_database_or_all_of_them() {
    let mem = disk();
    let vfs = |mem: &MemVfs| -> Arc<dyn Vfs> { Arc::new(mem.clone()) };
    let split_keys = vec![Bytes::from("g"), Bytes::from("n"), Bytes::from("n\0")];
    let wanted = RecoverOptions { split_keys: split_keys.clone(), ..options() };
    let images = mem.record_images(1);
    let made = open_directory(&vfs(&mem), &dir(), &wanted).unwrap();
    assert_eq!(meeting_points(&made), split_keys);
    drop(made);
    mem.clear_hook();
    let (mut none, mut all) = (0, 0);
    let end = [(None, mem.kill_clone())];
    for (operation, image) in images.take().into_iter().map(|(o, i)| (Some(o), i)).chain(end) {
        for kind in CrashKind::each(5) {
            // Opened with other options: if the creation before the crash succeeded, its ranges
            // count.
            let again = image.crash_clone(kind);
            let recovered = open(&again).unwrap_or_else(|e| panic!("{operation:?} {kind:?}: {e}"));
            if recovered.report.created {
                none += 1;
                assert!(meeting_points(&recovered).is_empty());
            } else {
                all += 1;
                assert_eq!(meeting_points(&recovered), split_keys, "{operation:?} {kind:?}");
            }
        }
    }
    assert!(none > 0 && all > 0, "{none} and {all}");
}
