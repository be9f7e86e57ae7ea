//! Goal: the way in which each file system runs out of space, and fails a sync, is simulated
//! exactly.

use super::*;

const PAGE: u64 = 4096;

fn is_full<T>(result: std::io::Result<T>) -> bool {
    result.err().is_some_and(|error| error.kind() == ErrorKind::StorageFull)
}

fn disk(space: SpaceUse, pages: u64) -> MemVfs {
    let vfs = MemVfs::new();
    vfs.set_space_use(space);
    vfs.set_capacity(Some(pages * PAGE));
    vfs
}

#[test]
fn d6_an_overwrite_needs_space_until_the_sync_where_pages_are_copied() {
    let vfs = disk(SpaceUse::CopyOnWrite, 3);
    let file = put_durable(&vfs, "/f", &[1; 2 * PAGE as usize]);
    assert_eq!(vfs.free_bytes(p("/")), Some(PAGE));
    file.write_all_at(b"new", 10).unwrap();
    file.write_all_at(b"again", 20).unwrap();
    assert_eq!(vfs.free_bytes(p("/")), Some(0), "the old page is still needed");
    assert!(is_full(file.write_all_at(b"x", PAGE)), "there is no room for a second copy");
    assert!(is_full(file.write_all_at(b"x", 2 * PAGE)));
    assert!(is_full(vfs.create(p("/g"))) && is_full(vfs.rename(p("/f"), p("/h"))));
    file.sync_data().unwrap();
    assert_eq!(vfs.free_bytes(p("/")), Some(PAGE), "the old page came back");
    file.write_all_at(b"x", PAGE).unwrap();
    file.sync_data().unwrap();
    vfs.remove(p("/f")).unwrap();
    drop(file);
    assert_eq!(vfs.free_bytes(p("/")), Some(3 * PAGE));
}

#[test]
fn d6_cutting_gives_space_back_with_the_sync_where_pages_are_copied() {
    let vfs = disk(SpaceUse::CopyOnWrite, 4);
    let file = put_durable(&vfs, "/f", &[1; 4 * PAGE as usize]);
    file.set_len(PAGE).unwrap();
    assert_eq!(vfs.free_bytes(p("/")), Some(0));
    file.sync_data().unwrap();
    assert_eq!(vfs.free_bytes(p("/")), Some(3 * PAGE));
}

#[test]
fn d6_a_sync_finds_out_that_there_is_no_space_where_it_is_taken_late() {
    for failed in [FailedSync::KeepsNew, FailedSync::RevertsToOld] {
        let vfs = disk(SpaceUse::Delayed, 3);
        vfs.set_failed_sync(failed);
        let file = put_durable(&vfs, "/f", &[1; PAGE as usize]);
        file.write_all_at(&[2; 4 * PAGE as usize], 0).unwrap();
        assert_eq!(vfs.free_bytes(p("/")), Some(2 * PAGE), "nothing was taken yet");
        assert!(is_full(file.sync_data()));
        assert_eq!(vfs.free_bytes(p("/")), Some(0));
        let fitted = vec![2; 3 * PAGE as usize];
        assert_eq!(
            read(&vfs.crash_clone(CrashKind::KeepAll), "/f").unwrap()[..fitted.len()],
            fitted
        );
        let shown = read(&vfs, "/f").unwrap();
        match failed {
            FailedSync::KeepsNew => assert_eq!(shown, vec![2; 4 * PAGE as usize]),
            FailedSync::RevertsToOld => assert_eq!(shown, fitted),
        }
        file.sync_data().unwrap();
        file.write_all_at(&[3; PAGE as usize], 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(read(&vfs.crash_clone(CrashKind::DropUnsynced), "/f").unwrap()[0], 3);
    }
}

#[test]
fn d6_nothing_is_promised_where_space_is_not_used_in_place() {
    for space in [SpaceUse::CopyOnWrite, SpaceUse::Delayed] {
        let vfs = disk(space, 100);
        let file = vfs.create(p("/f")).unwrap();
        assert!(!file.allocate(PAGE).unwrap());
        assert!(file.map_for_writing(PAGE as usize).unwrap().is_none());
    }
}

#[test]
fn d6_a_failed_sync_shows_the_new_bytes_or_the_old_ones() {
    for failed in [FailedSync::KeepsNew, FailedSync::RevertsToOld] {
        let vfs = MemVfs::new();
        vfs.set_failed_sync(failed);
        let file = put_durable(&vfs, "/f", &[1; 100]);
        file.write_all_at(&[2; 150], 50).unwrap();
        vfs.lose_next_sync();
        assert!(file.sync_data().is_err());
        let (old, mut new) = (vec![1; 100], vec![1; 50]);
        new.extend([2; 150]);
        let shown = if failed == FailedSync::KeepsNew { new } else { old.clone() };
        assert_eq!(read(&vfs, "/f").unwrap(), shown);
        assert_eq!(read(&vfs.kill_clone(), "/f").unwrap(), shown);
        for kind in [CrashKind::DropUnsynced, CrashKind::RandomSectors(1)] {
            let left = read(&vfs.crash_clone(kind), "/f").unwrap();
            assert_eq!(left[..100], old, "{failed:?} {kind:?}: no byte reached the disk");
        }
        // A repeated sync succeeds without persisting any of it.
        file.sync_data().unwrap();
        let left = read(&vfs.crash_clone(CrashKind::DropUnsynced), "/f").unwrap();
        assert!(left.starts_with(&old) && left[100..].iter().all(|&byte| byte == 0), "{failed:?}");
    }
}
