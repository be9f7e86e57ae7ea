//! Edits under a sync, one or several: crashes and failures at every operation.

use super::*;

/// An edit that adds a table of its own. Its keys are so long that it takes two sectors or three.
fn long(number: u64) -> VersionEdit {
    let r = RangeId::FIRST;
    let key = |last: u8| [vec![number as u8; 400], vec![last]].concat();
    let added = slice(number, &key(0), &key(1), 100).meta().clone();
    VersionEdit {
        added: vec![(r, Place::L0, added)],
        next_file_number: Some(FileNumber(number + 1)),
        flushed: vec![(r, Seqno(1000 + number))],
        last_seqno: Some(Seqno(1000 + number)),
        ..VersionEdit::default()
    }
}

/// What any crash of `mem` may leave: which of `images`, which have the first edits each.
fn found(mem: &MemVfs, seed: u64, images: &[Image], what: &str) -> Vec<usize> {
    let kinds = CrashKind::each(seed).map(|kind| (format!("{kind:?}"), mem.crash_clone(kind)));
    let killed = ("killed".to_owned(), mem.kill_clone());
    let crashed = kinds.into_iter().chain([killed]);
    crashed
        .map(|(kind, mem)| {
            let disk: Arc<dyn Vfs> = Arc::new(mem);
            let loaded = reload(&disk).unwrap_or_else(|e| panic!("{what} {kind}: {e}"));
            assert_eq!(loaded.image.contradictions(), [], "{what} {kind}");
            let at = images.iter().position(|image| *image == loaded.image);
            at.unwrap_or_else(|| panic!("{what} {kind}: not the first of its edits"))
        })
        .collect()
}

/// Goal: whatever a crash leaves of edits that are not synced, what is read is the first of them,
/// with nothing missing in between, and the open is never refused. What is synced is there.
///
/// Planted: an edit claims that those before it are durable (the open is refused: a later edit
/// arrived on the disk before an earlier one); `sync` does nothing.
#[test]
fn a_crash_leaves_the_first_of_the_edits_under_one_sync() {
    let mut seen = [0; 5];
    for seed in 0..100 {
        let (mem, _, mut writer) = started(&long(10));
        let mut images = vec![writer.image().clone()];
        let recorded = mem.record_images(1);
        for number in 11..15 {
            writer.append_unsynced(&long(number)).unwrap();
            images.push(writer.image().clone());
        }
        assert!(writer.unsynced_bytes() > 4 * 800);
        writer.sync().unwrap();
        assert_eq!(writer.unsynced_bytes(), 0);
        mem.clear_hook();
        let disks = recorded.take();
        assert_eq!(disks.len(), 5, "four writes and one sync");
        for (operation, disk) in disks {
            for at in found(&disk, seed, &images, &format!("seed {seed} {operation:?}")) {
                seen[at] += 1;
            }
        }
        let after = found(&mem, seed, &images, &format!("seed {seed} at the end"));
        assert!(after.iter().all(|at| *at == 4), "{after:?}");
    }
    assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
}

/// Planted: an edit is judged by the manifest as it was at the last sync.
#[test]
fn an_edit_is_judged_by_the_edits_before_it_and_refused_alone() {
    let (mem, _, mut writer) = started(&long(10));
    writer.append_unsynced(&long(11)).unwrap();
    assert!(matches!(writer.append_unsynced(&long(11)), Err(Error::Invalid { .. })), "twice");
    let (key, _) = writer.image().slices.last_key_value().unwrap();
    let delete = VersionEdit { deleted: vec![key.clone()], ..VersionEdit::default() };
    writer.append_unsynced(&delete).unwrap();
    writer.append_unsynced(&long(12)).unwrap();
    writer.sync().unwrap();
    let disk: Arc<dyn Vfs> = Arc::new(mem.crash_clone(CrashKind::DropUnsynced));
    let loaded = reload(&disk).unwrap();
    assert_eq!((&loaded.image, loaded.records), (writer.image(), 5));
}

/// Goal: an edit that finds no space, even after half of it, takes nothing from those before it.
/// These are durable after a sync, or after the manifest is rewritten with the edit. If the rewrite
/// finds no space either, a sync is still possible.
///
/// Planted: a new manifest from the image of the last sync; a manifest that takes no sync behind a
/// torn edit; bytes that are not counted as durable after a rewrite.
#[test]
fn a8a_no_space_for_one_of_the_edits_leaves_those_before_it() {
    let refused = || Fault::of(OperationKind::Write).errno(ENOSPC);
    for (seed, fault) in [(1, refused()), (2, refused().partial_write())] {
        for rewritten in [None, Some(false), Some(true)] {
            let what = format!("{fault:?} {rewritten:?}");
            let (mem, faults, mut writer) = started(&long(10));
            let mut images = vec![writer.image().clone()];
            writer.append_unsynced(&long(11)).unwrap();
            images.push(writer.image().clone());
            faults.arm(fault.clone());
            assert!(writer.append_unsynced(&long(12)).unwrap_err().is_no_space(), "{what}");
            assert!(writer.failure().is_none() && writer.must_roll_over(), "{what}");
            assert_eq!(writer.image(), &images[1], "{what}");
            found(&mem, seed, &images, &what);
            match rewritten {
                None => writer.sync().unwrap(),
                Some(false) => {
                    faults.arm(Fault::of(OperationKind::Create).errno(ENOSPC));
                    let full = writer.roll_over(FileNumber(20), Some(&long(12))).unwrap_err();
                    assert!(full.is_no_space() && writer.failure().is_none(), "{what}");
                    writer.sync().unwrap();
                }
                Some(true) => {
                    writer.roll_over(FileNumber(20), Some(&long(12))).unwrap();
                    let mut all = images[1].clone();
                    all.apply(&long(12)).unwrap();
                    all.next_file_number = FileNumber(21);
                    images.push(all);
                }
            }
            assert_eq!(writer.unsynced_bytes(), 0, "{what}");
            let all = images.len() - 1;
            let after = found(&mem, seed, &images, &what);
            assert!(after.iter().all(|at| *at == all), "{what}: {after:?}");
        }
    }
}

/// Goal: after a sync that failed nobody can have anything of the manifest confirmed.
///
/// Planted: a second sync that succeeds.
#[test]
fn a_sync_of_several_edits_that_fails_is_final() {
    let (_, faults, mut writer) = started(&long(10));
    writer.append_unsynced(&long(11)).unwrap();
    writer.append_unsynced(&long(12)).unwrap();
    faults.arm(Fault::of(OperationKind::Sync).errno(EIO));
    let error = writer.sync().unwrap_err().to_string();
    assert_eq!(writer.failure().map(ToString::to_string), Some(error.clone()));
    assert_eq!(writer.sync().unwrap_err().to_string(), error);
    assert_eq!(writer.append_unsynced(&long(13)).unwrap_err().to_string(), error);
    assert!(writer.roll_over(FileNumber(20), None).is_err());
}

#[test]
fn a_failed_sync_is_final() {
    let mem = MemVfs::new();
    mem.create_dir_all(Path::new(DIR)).unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
    let mut writer = create(&vfs);
    mem.power_off_after(1);
    let error = writer.append(&edits()[0]).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    mem.power_on();
    assert_eq!(writer.append(&edits()[0]).unwrap_err().to_string(), error.to_string());
    assert!(writer.roll_over(FileNumber(5), None).is_err());
    assert!(writer.failure().is_some());
}
