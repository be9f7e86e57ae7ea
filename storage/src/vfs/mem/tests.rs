//! Goal: the in-memory disk loses what a real one may lose, and nothing else.
//! Method: one test per rule; the last one checks all rules on random histories. The seed is
//! printed.

use std::collections::BTreeSet;

use super::super::chance::Chance;
use super::*;

// When a lack of space is reported, and what a failed sync leaves.
mod space;

fn p(path: &str) -> &Path {
    Path::new(path)
}

fn put(vfs: &MemVfs, path: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = vfs.create(p(path)).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

/// A file whose contents and name are durable.
fn put_durable(vfs: &MemVfs, path: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = put(vfs, path, bytes);
    file.sync_all().unwrap();
    vfs.sync_dir(p(path).parent().unwrap()).unwrap();
    file
}

fn read(vfs: &MemVfs, path: &str) -> Option<Vec<u8>> {
    let file = vfs.open(p(path)).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    Some(bytes)
}

/// The contents of one file that seeds 0 to 199 leave.
fn outcomes(vfs: &MemVfs, path: &str, kind: fn(u64) -> CrashKind) -> BTreeSet<Option<Vec<u8>>> {
    (0..200).map(|seed| read(&vfs.crash_clone(kind(seed)), path)).collect()
}

#[test]
fn close_is_not_sync() {
    let vfs = MemVfs::new();
    let file = vfs.create(p("/f")).unwrap();
    vfs.sync_dir(p("/")).unwrap();
    file.write_all_at(b"bytes", 0).unwrap();
    drop(file);
    assert_eq!(read(&vfs.crash_clone(CrashKind::DropUnsynced), "/f").unwrap(), b"");
    assert_eq!(read(&vfs.crash_clone(CrashKind::KeepAll), "/f").unwrap(), b"bytes");
    assert_eq!(read(&vfs.kill_clone(), "/f").unwrap(), b"bytes");
}

#[test]
fn a_synced_file_without_a_synced_name_is_gone() {
    let vfs = MemVfs::new();
    put(&vfs, "/f", b"bytes").sync_all().unwrap();
    let after = vfs.crash_clone(CrashKind::DropUnsynced);
    assert_eq!(read(&after, "/f"), None);
    let seen = outcomes(&vfs, "/f", CrashKind::RandomDirents);
    assert_eq!(seen, BTreeSet::from([None, Some(b"bytes".to_vec())]), "whole or not at all");
}

#[test]
fn a_synced_name_without_synced_content_is_an_empty_file() {
    let vfs = MemVfs::new();
    put(&vfs, "/f", b"bytes");
    vfs.sync_dir(p("/")).unwrap();
    assert_eq!(read(&vfs.crash_clone(CrashKind::DropUnsynced), "/f").unwrap(), b"");
}

#[test]
fn a_directory_needs_its_name_in_its_parent() {
    let vfs = MemVfs::new();
    vfs.create_dir_all(p("/a/db")).unwrap();
    put_durable(&vfs, "/a/db/f", b"bytes");
    let lost = vfs.crash_clone(CrashKind::DropUnsynced);
    assert_eq!(lost.list(p("/a/db")).unwrap_err().kind(), ErrorKind::NotFound);
    vfs.sync_dir(p("/a")).unwrap();
    assert!(vfs.crash_clone(CrashKind::DropUnsynced).list(p("/a")).is_err());
    vfs.sync_dir(p("/")).unwrap();
    assert_eq!(read(&vfs.crash_clone(CrashKind::DropUnsynced), "/a/db/f").unwrap(), b"bytes");
}

#[test]
fn rename_leaves_the_old_or_the_new_file_under_the_target() {
    let vfs = MemVfs::new();
    put_durable(&vfs, "/CURRENT", b"old");
    put(&vfs, "/tmp", b"new").sync_all().unwrap();
    vfs.rename(p("/tmp"), p("/CURRENT")).unwrap();
    let whole = |bytes: &[u8]| Some(bytes.to_vec());
    let seen = outcomes(&vfs, "/CURRENT", CrashKind::RandomDirents);
    assert_eq!(seen, BTreeSet::from([whole(b"old"), whole(b"new")]), "never missing");
    let source = outcomes(&vfs, "/tmp", CrashKind::RandomDirents);
    assert_eq!(source, BTreeSet::from([None, whole(b"new")]), "the source may come back");
    vfs.sync_dir(p("/")).unwrap();
    for kind in CrashKind::each(3) {
        assert_eq!(read(&vfs.crash_clone(kind), "/CURRENT"), whole(b"new"), "{kind:?}");
        assert_eq!(read(&vfs.crash_clone(kind), "/tmp"), None, "{kind:?}");
    }
}

#[test]
fn a_rename_can_outrun_the_data() {
    let vfs = MemVfs::new();
    put_durable(&vfs, "/CURRENT", b"old");
    put(&vfs, "/tmp", b"new");
    vfs.rename(p("/tmp"), p("/CURRENT")).unwrap();
    let seen = outcomes(&vfs, "/CURRENT", CrashKind::RandomDirents);
    assert!(seen.contains(&Some(Vec::new())), "an empty CURRENT, the classic");
}

#[test]
fn names_are_decided_independently() {
    let vfs = MemVfs::new();
    put_durable(&vfs, "/removed", b"");
    vfs.remove(p("/removed")).unwrap();
    put(&vfs, "/a", b"");
    put(&vfs, "/b", b"");
    let present = |seed| {
        let after = vfs.crash_clone(CrashKind::RandomDirents(seed));
        ["/removed", "/a", "/b"].map(|path| read(&after, path).is_some())
    };
    let seen: BTreeSet<[bool; 3]> = (0..200).map(present).collect();
    assert_eq!(seen.len(), 8, "all combinations");
}

#[test]
fn sectors_are_decided_independently_and_synced_bytes_stay() {
    let vfs = MemVfs::new();
    let file = put_durable(&vfs, "/f", &[1; 2048]);
    file.write_all_at(&[2; 100], 500).unwrap(); // sectors 0 and 1
    let seen = outcomes(&vfs, "/f", CrashKind::RandomSectors);
    assert_eq!(seen.len(), 4, "old or new, twice");
    for bytes in seen.into_iter().flatten() {
        assert_eq!(bytes.len(), 2048);
        assert!(bytes[..500].iter().chain(&bytes[600..]).all(|&b| b == 1));
        assert!(bytes[500..512].iter().all(|&b| b == bytes[500]), "a sector is not torn");
        assert!(bytes[512..600].iter().all(|&b| b == bytes[512]));
    }
}

#[test]
fn a_sector_written_twice_may_hold_the_first_writing() {
    let vfs = MemVfs::new();
    let file = put_durable(&vfs, "/f", b"a");
    file.write_all_at(b"b", 0).unwrap();
    file.write_all_at(b"c", 0).unwrap();
    let seen = outcomes(&vfs, "/f", CrashKind::RandomSectors);
    let expected = [b"a", b"b", b"c"].map(|bytes| Some(bytes.to_vec()));
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn a_torn_tail_is_a_prefix() {
    let vfs = MemVfs::new();
    let file = put_durable(&vfs, "/f", b"synced");
    let text: Vec<u8> = (0..=255).cycle().take(1500).collect();
    file.write_all_at(&text, 6).unwrap();
    let whole = [b"synced".as_slice(), &text].concat();
    let seen = outcomes(&vfs, "/f", CrashKind::TornTail);
    assert!(seen.len() > 100, "torn at {} places", seen.len());
    for bytes in seen.into_iter().flatten() {
        assert!(bytes.len() >= 6 && whole.starts_with(&bytes));
    }
}

#[test]
fn a_torn_overwrite_keeps_the_length() {
    let vfs = MemVfs::new();
    let file = put_durable(&vfs, "/f", &[0; 4096]);
    file.write_all_at(&[7; 1000], 100).unwrap();
    for bytes in outcomes(&vfs, "/f", CrashKind::TornTail).into_iter().flatten() {
        let new = bytes[100..].iter().take_while(|&&b| b == 7).count();
        assert_eq!(bytes.len(), 4096);
        let rest = bytes[..100].iter().chain(&bytes[100 + new..]);
        assert!(rest.copied().all(|b| b == 0), "one run from the start");
    }
}

#[test]
fn a_file_can_grow_without_its_data() {
    let vfs = MemVfs::new();
    let file = put_durable(&vfs, "/f", b"synced");
    file.write_all_at(&[7; 5000], 6).unwrap();
    let seen = outcomes(&vfs, "/f", CrashKind::ZeroExtended);
    for bytes in seen.iter().flatten() {
        assert!(bytes.starts_with(b"synced") && bytes.len() > 6);
        assert!(bytes[6..].iter().all(|&b| b == 0 || b == 7));
        assert!(bytes[6..].iter().take(500).all(|&b| b == 0), "the old tail sector stays old");
    }
}

#[test]
fn garbage_takes_unsynced_bytes_only() {
    let vfs = MemVfs::new();
    put_durable(&vfs, "/other", &[0xab; 4096]);
    let file = put_durable(&vfs, "/f", &[1; 4096]);
    file.write_all_at(&[2; 20], 30).unwrap();
    file.write_all_at(&[2; 20], 80).unwrap();
    let seen = outcomes(&vfs, "/f", CrashKind::Garbage);
    for bytes in seen.iter().flatten() {
        let kept = bytes[..30].iter().chain(&bytes[50..80]).chain(&bytes[100..]);
        assert!(kept.copied().all(|b| b == 1));
    }
    let has = |b| seen.iter().flatten().any(|bytes| bytes[30..50].iter().all(|&x| x == b));
    assert!(has(0) && has(1) && has(2) && has(0xff) && has(0xab), "every source is drawn");
}

#[test]
fn mapped_stores_live_in_the_page_cache() {
    let vfs = MemVfs::new();
    let file = put_durable(&vfs, "/f", b"");
    assert!(file.allocate(8192).unwrap());
    file.sync_all().unwrap();
    let map = file.map_for_writing(8192).unwrap().unwrap();
    map.write(5000, b"stored");
    drop((map, file));
    let at = |vfs: &MemVfs| read(vfs, "/f").unwrap()[5000..5006].to_vec();
    assert_eq!(at(&vfs.kill_clone()), b"stored", "the death of the process loses nothing");
    assert_eq!(at(&vfs.crash_clone(CrashKind::DropUnsynced)), [0; 6], "a power cut may");
    vfs.open(p("/f")).unwrap().sync_data().unwrap();
    assert_eq!(at(&vfs.crash_clone(CrashKind::DropUnsynced)), b"stored");
}

#[test]
fn a_killed_process_leaves_unsynced_what_was_unsynced() {
    let vfs = MemVfs::new();
    let file = put_durable(&vfs, "/f", b"old");
    file.write_all_at(b"new", 0).unwrap();
    let next = vfs.kill_clone();
    assert_eq!(read(&next, "/f").unwrap(), b"new");
    assert_eq!(read(&next.crash_clone(CrashKind::DropUnsynced), "/f").unwrap(), b"old");
    next.open(p("/f")).unwrap().sync_data().unwrap();
    assert_eq!(read(&next.crash_clone(CrashKind::DropUnsynced), "/f").unwrap(), b"new");
    assert_eq!(read(&vfs.crash_clone(CrashKind::DropUnsynced), "/f").unwrap(), b"old", "separate");
}

#[test]
fn an_unsynced_cut_may_be_undone() {
    let vfs = MemVfs::new();
    let file = put_durable(&vfs, "/f", &[1; 9000]);
    file.set_len(3000).unwrap();
    file.set_len(9000).unwrap();
    assert_eq!(read(&vfs.crash_clone(CrashKind::DropUnsynced), "/f").unwrap(), [1; 9000]);
    let kept = read(&vfs.crash_clone(CrashKind::KeepAll), "/f").unwrap();
    assert!(kept[..3000].iter().all(|&b| b == 1) && kept[3000..].iter().all(|&b| b == 0));
    file.sync_data().unwrap();
    for kind in CrashKind::each(1) {
        assert_eq!(read(&vfs.crash_clone(kind), "/f").as_ref(), Some(&kept), "{kind:?}");
    }
}

#[test]
fn clones_start_unlocked_and_separate() {
    let vfs = MemVfs::new();
    let guard = vfs.lock(p("/LOCK")).unwrap();
    vfs.sync_dir(p("/")).unwrap();
    for clone in [vfs.kill_clone(), vfs.crash_clone(CrashKind::DropUnsynced)] {
        let theirs = clone.lock(p("/LOCK")).unwrap();
        assert!(clone.lock(p("/LOCK")).is_err());
        drop(theirs);
    }
    assert!(vfs.clone().lock(p("/LOCK")).is_err(), "another handle is the same disk");
    drop(guard);
    vfs.lock(p("/LOCK")).unwrap();
}

#[test]
fn a_full_disk_writes_what_fits() {
    let vfs = MemVfs::new();
    vfs.set_capacity(Some(3 * 4096));
    let file = put(&vfs, "/f", &[1; 4096]);
    assert_eq!(vfs.free_bytes(p("/")), Some(8192));
    let error = file.write_all_at(&vec![2; 20_000], 4000).unwrap_err();
    assert_eq!((error.kind(), file.len().unwrap()), (ErrorKind::StorageFull, 12_288));
    file.write_all_at(&[3; 4096], 0).unwrap(); // overwriting needs no space
    assert_eq!(
        vfs.create(p("/g")).unwrap().allocate(1).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    vfs.remove(p("/f")).unwrap();
    assert_eq!(vfs.free_bytes(p("/")), Some(0), "an open file keeps its space");
    drop(file);
    assert_eq!(vfs.free_bytes(p("/")), Some(12_288));
    put(&vfs, "/h", &[1; 12_288]);
    vfs.set_capacity(None);
    put(&vfs, "/i", &vec![1; 100_000]);
    assert_eq!(vfs.free_bytes(p("/")), None);
}

#[test]
fn cold_pages_are_warm_once_read() {
    let vfs = MemVfs::new();
    let file = put(&vfs, "/f", &[1; 10_000]);
    vfs.set_cold_reads(true);
    let mut buf = [0; 100];
    assert!(!file.try_read_exact_at(&mut buf, 4050).unwrap(), "two pages, both cold");
    file.read_at(&mut buf[..1], 0).unwrap();
    assert!(!file.try_read_exact_at(&mut buf, 4050).unwrap(), "one still cold");
    file.read_at(&mut buf, 4050).unwrap();
    assert!(file.try_read_exact_at(&mut buf, 4050).unwrap());
    let other = vfs.open(p("/f")).unwrap();
    assert!(other.try_read_exact_at(&mut buf, 0).unwrap(), "the cache belongs to the file");
    file.drop_cache();
    assert!(!other.try_read_exact_at(&mut buf, 0).unwrap());
    assert!(!other.try_read_exact_at(&mut buf, 4096).unwrap());
}

#[test]
fn images_are_taken_before_the_operation() {
    let vfs = MemVfs::new();
    let images = vfs.record_images(1);
    let file = put(&vfs, "/f", b"x");
    file.sync_data().unwrap();
    vfs.sync_dir(p("/")).unwrap();
    vfs.clear_hook();
    vfs.remove(p("/f")).unwrap();
    let images = images.take();
    let kinds: Vec<_> = images.iter().map(|(operation, _)| operation.kind).collect();
    use OperationKind::{Create, Sync, SyncDir, Write};
    assert_eq!(kinds, [Create, Write, Sync, SyncDir]);
    let content: Vec<_> = images.iter().map(|(_, image)| read(image, "/f")).collect();
    let (empty, full) = (Some(Vec::new()), Some(b"x".to_vec()));
    assert_eq!(content, [None, empty, full.clone(), full]);
    assert!(images.iter().all(|(operation, _)| operation.number <= vfs.operations()));
    assert_eq!(vfs.operations(), 5);
}

#[test]
fn without_power_nothing_happens() {
    let vfs = MemVfs::new();
    let file = put_durable(&vfs, "/f", b"old");
    assert!(file.allocate(4096).unwrap());
    let map = file.map_for_writing(4096).unwrap().unwrap();
    vfs.power_off_after(1);
    file.write_all_at(b"1", 0).unwrap();
    assert!(!vfs.is_power_off());
    assert!(file.write_all_at(b"2", 1).is_err());
    map.write(2, b"3");
    assert!(file.sync_data().is_err() && vfs.open(p("/f")).is_err() && vfs.is_power_off());
    assert_eq!(read(&vfs.kill_clone(), "/f").unwrap()[..3], *b"1ld");
    vfs.power_on();
    assert_eq!(read(&vfs, "/f").unwrap()[..3], *b"1ld");
}

#[test]
fn the_same_seed_leaves_the_same_disk() {
    let vfs = MemVfs::new();
    let file = put_durable(&vfs, "/f", &vec![1; 30_000]);
    file.write_all_at(&vec![2; 20_000], 20_000).unwrap();
    for kind in CrashKind::each(99) {
        let image = || read(&vfs.crash_clone(kind), "/f");
        assert_eq!(image(), image(), "{kind:?}");
    }
}

#[test]
fn unreachable_files_are_forgotten() {
    let vfs = MemVfs::new();
    for round in 0..50 {
        put_durable(&vfs, "/f", &[round; 10]);
        vfs.remove(p("/f")).unwrap();
        vfs.sync_dir(p("/")).unwrap();
    }
    assert_eq!(vfs.disk().inodes.len(), 0);
    assert_eq!(vfs.used_bytes(), 0);
}

/// Goal: no kind of crash changes a byte or a name that was durable and not touched since, invents
/// a byte outside the written ranges, or loses anything that is synced.
/// Method: random writes, truncations, renames and syncs; a set of possible values for each byte.
#[test]
fn random_histories_keep_every_promise() {
    let seeds = match std::env::var("SLUICE_SEED") {
        Ok(seed) => seed.parse().map(|seed| seed..seed + 1).expect("SLUICE_SEED is a number"),
        Err(_) => 0..150,
    };
    for seed in seeds {
        history(seed);
    }
}

fn history(seed: u64) {
    let mut chance = Chance(seed);
    let vfs = MemVfs::new();
    let file = put_durable(&vfs, "/f", &[0; 3000]);
    let mut now = vec![0_u8; 3000];
    let mut durable = now.clone();
    // Bytes written or truncated since the last sync. All others must be durable.
    let mut touched: BTreeSet<usize> = BTreeSet::new();
    for step in 0..40 {
        match chance.below(10) {
            0 => {
                file.sync_data().unwrap();
                durable.clone_from(&now);
                touched.clear();
            }
            1 => {
                let len = chance.below(12_000) as usize;
                touched.extend(len.min(now.len())..now.len());
                now.resize(len, 0);
                file.set_len(len as u64).unwrap();
            }
            _ => {
                let (at, len) = (chance.below(9_000) as usize, chance.below(1500) as usize + 1);
                let bytes: Vec<u8> = (0..len).map(|_| chance.next() as u8 | 1).collect();
                file.write_all_at(&bytes, at as u64).unwrap();
                now.resize(now.len().max(at + len), 0);
                now[at..at + len].copy_from_slice(&bytes);
                touched.extend(at..at + len);
            }
        }
        let about = |kind| format!("seed {seed}, step {step}, {kind:?}");
        assert_eq!(read(&vfs.kill_clone(), "/f").unwrap(), now, "seed {seed}, step {step}");
        for kind in CrashKind::each(chance.next()) {
            let image = vfs.crash_clone(kind);
            let left = read(&image, "/f").expect("the name is durable");
            match kind {
                CrashKind::DropUnsynced => assert_eq!(left, durable, "{}", about(kind)),
                CrashKind::KeepAll => assert_eq!(left, now, "{}", about(kind)),
                _ => {}
            }
            let (short, long) = (durable.len().min(now.len()), durable.len().max(now.len()));
            assert!((short..=long).contains(&left.len()), "length, {}", about(kind));
            for (i, &byte) in left.iter().enumerate() {
                let old = durable.get(i).copied().unwrap_or(0);
                assert!(byte == old || touched.contains(&i), "byte {i}, {}", about(kind));
            }
            if touched.is_empty() && durable.len() == now.len() {
                assert_eq!(left, durable, "{}", about(kind));
            }
            // What a crash left is durable: a second power cut removes nothing more.
            let again = image.crash_clone(CrashKind::DropUnsynced);
            assert_eq!(read(&again, "/f").unwrap(), left, "{}", about(kind));
        }
    }
}
