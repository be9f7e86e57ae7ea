//! Goal: every disk behaves the same, as far as the engine can see.
//! Method: one suite, run on the real disk, the in-memory disk, and the latter behind `FaultVfs`
//! and behind `ThrottledVfs`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DiskVfs, FaultVfs, LockError, MemVfs, ThrottledVfs, Vfs};

type Check = fn(&dyn Vfs, &Path);

const CHECKS: [(&str, Check); 15] = [
    ("create_and_open", create_and_open),
    ("directories", directories),
    ("reads_end_at_the_end", reads_end_at_the_end),
    ("writes_extend", writes_extend),
    ("lengths", lengths),
    ("rename_replaces", rename_replaces),
    ("links_are_the_same_file", links_are_the_same_file),
    ("removed_files_live_while_open", removed_files_live_while_open),
    ("warm_reads", warm_reads),
    ("locks", locks),
    ("shared_locks", shared_locks),
    ("maps", maps),
    ("maps_need_a_promise", maps_need_a_promise),
    ("syncs", syncs),
    ("holes", holes),
];

fn run(vfs: &dyn Vfs, root: &Path) {
    for (name, check) in CHECKS {
        let dir = root.join(name);
        vfs.create_dir_all(&dir).unwrap();
        check(vfs, &dir);
    }
}

#[test]
fn the_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    run(&DiskVfs::new(), dir.path());
}

#[test]
fn the_real_disk_without_real_blocks() {
    // On Linux a tmpfs, which guarantees no blocks; on other systems just another directory.
    let shm = Path::new("/dev/shm");
    if let Ok(dir) = tempfile::tempdir_in(if shm.is_dir() { shm } else { Path::new(".") }) {
        run(&DiskVfs::new(), dir.path());
    }
}

#[test]
fn the_disk_in_memory() {
    run(&MemVfs::new(), Path::new("/"));
    let unmapped = MemVfs::new();
    unmapped.set_can_map(false);
    run(&unmapped, Path::new("relative/./dir"));
}

#[test]
fn the_faulty_disk_while_nothing_is_armed() {
    run(&FaultVfs::new(Arc::new(MemVfs::new())), Path::new("/db"));
}

#[test]
fn the_slow_disk() {
    let clock = Arc::<super::throttle::tests::Counted>::default();
    let slow = super::throttle::tests::SLOW;
    run(&ThrottledVfs::new(Arc::new(MemVfs::new()), slow, clock), Path::new("/db"));
}

fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn read(vfs: &dyn Vfs, path: &Path) -> Vec<u8> {
    let file = vfs.open(path).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

fn put(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) {
    vfs.create(path).unwrap().write_all_at(bytes, 0).unwrap();
}

fn create_and_open(vfs: &dyn Vfs, dir: &Path) {
    let path = dir.join("f");
    assert_eq!(kind(vfs.open(&path)), Some(ErrorKind::NotFound));
    assert_eq!(kind(vfs.open_rw(&path)), Some(ErrorKind::NotFound));
    assert_eq!(kind(vfs.len(&path)), Some(ErrorKind::NotFound));
    assert_eq!(kind(vfs.remove(&path)), Some(ErrorKind::NotFound));
    assert_eq!(kind(vfs.rename(&path, &dir.join("g"))), Some(ErrorKind::NotFound));
    assert_eq!(kind(vfs.create(&dir.join("no/f"))), Some(ErrorKind::NotFound));
    put(vfs, &path, b"one");
    assert_eq!(kind(vfs.create(&path)), Some(ErrorKind::AlreadyExists));
    assert_eq!(read(vfs, &path), b"one", "a refused creation leaves the file alone");
    let reader = vfs.open(&path).unwrap();
    assert!(reader.write_all_at(b"x", 0).is_err());
    assert!(reader.set_len(0).is_err());
    vfs.open_rw(&path).unwrap().write_all_at(b"two", 0).unwrap();
    let mut seen = [0; 3];
    reader.read_at(&mut seen, 0).unwrap();
    assert_eq!(&seen, b"two", "handles share the file");
}

fn directories(vfs: &dyn Vfs, dir: &Path) {
    let deep = dir.join("a/b/c");
    vfs.create_dir_all(&deep).unwrap();
    vfs.create_dir_all(&deep).unwrap();
    put(vfs, &deep.join("y"), b"");
    put(vfs, &deep.join("x"), b"");
    let mut names = vfs.list(&deep).unwrap();
    names.sort();
    assert_eq!(names, ["x", "y"]);
    assert_eq!(vfs.list(dir).unwrap(), Vec::<String>::new(), "directories are not files");
    assert_eq!(kind(vfs.list(&dir.join("none"))), Some(ErrorKind::NotFound));
    assert_eq!(kind(vfs.sync_dir(&dir.join("none"))), Some(ErrorKind::NotFound));
    assert!(vfs.create_dir_all(&deep.join("x")).is_err(), "a file is in the way");
}

fn reads_end_at_the_end(vfs: &dyn Vfs, dir: &Path) {
    let path = dir.join("f");
    put(vfs, &path, b"0123456789");
    let file = vfs.open(&path).unwrap();
    let mut buf = [7; 8];
    assert_eq!(file.read_at(&mut buf, 6).unwrap(), 4);
    assert_eq!(&buf, b"6789\x07\x07\x07\x07");
    assert_eq!(file.read_at(&mut buf, 10).unwrap(), 0);
    assert_eq!(file.read_at(&mut buf, 1 << 40).unwrap(), 0);
    assert_eq!(file.read_at(&mut [], 3).unwrap(), 0);
}

fn writes_extend(vfs: &dyn Vfs, dir: &Path) {
    let file = vfs.create(&dir.join("f")).unwrap();
    assert!(file.is_empty().unwrap());
    file.write_all_at(b"far", 10_000).unwrap();
    assert_eq!(file.len().unwrap(), 10_003);
    let mut gap = [1; 10_003];
    assert_eq!(file.read_at(&mut gap, 0).unwrap(), 10_003);
    assert!(gap[..10_000].iter().all(|&b| b == 0));
    assert_eq!(&gap[10_000..], b"far");
    let big: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    file.write_all_at(&big, 4095).unwrap();
    let mut seen = vec![0; big.len()];
    assert_eq!(file.read_at(&mut seen, 4095).unwrap(), big.len());
    assert!(seen == big);
    file.write_all_at(b"", 1 << 30).unwrap();
    assert_eq!(file.len().unwrap(), 3_004_095, "writing nothing extends nothing");
}

fn lengths(vfs: &dyn Vfs, dir: &Path) {
    let path = dir.join("f");
    let file = vfs.create(&path).unwrap();
    file.write_all_at(&[9; 5000], 0).unwrap();
    file.set_len(4500).unwrap();
    assert_eq!(vfs.len(&path).unwrap(), 4500);
    file.set_len(6000).unwrap();
    let bytes = read(vfs, &path);
    assert_eq!(bytes.len(), 6000);
    assert!(bytes[..4500].iter().all(|&b| b == 9), "kept");
    assert!(bytes[4500..].iter().all(|&b| b == 0), "cut bytes do not come back");
}

fn rename_replaces(vfs: &dyn Vfs, dir: &Path) {
    let (new, old) = (dir.join("new"), dir.join("old"));
    put(vfs, &old, b"old");
    put(vfs, &new, b"new");
    let before = vfs.open(&old).unwrap();
    vfs.rename(&new, &old).unwrap();
    assert_eq!(read(vfs, &old), b"new");
    assert_eq!(kind(vfs.open(&new)), Some(ErrorKind::NotFound));
    let mut seen = [0; 3];
    before.read_at(&mut seen, 0).unwrap();
    assert_eq!(&seen, b"old", "an open handle keeps the file it opened");
    vfs.rename(&old, &old).unwrap();
    assert_eq!(read(vfs, &old), b"new");
    let other = dir.join("sub");
    vfs.create_dir_all(&other).unwrap();
    vfs.rename(&old, &other.join("moved")).unwrap();
    assert_eq!(read(vfs, &other.join("moved")), b"new");
}

fn removed_files_live_while_open(vfs: &dyn Vfs, dir: &Path) {
    let path = dir.join("f");
    put(vfs, &path, b"alive");
    let file = vfs.open_rw(&path).unwrap();
    vfs.remove(&path).unwrap();
    assert_eq!(vfs.list(dir).unwrap(), Vec::<String>::new());
    file.write_all_at(b"A", 0).unwrap();
    file.sync_all().unwrap();
    put(vfs, &path, b"other");
    let mut seen = [0; 5];
    file.read_at(&mut seen, 0).unwrap();
    assert_eq!(&seen, b"Alive");
}

fn warm_reads(vfs: &dyn Vfs, dir: &Path) {
    let path = dir.join("f");
    put(vfs, &path, &[5; 8192]);
    let file = vfs.open(&path).unwrap();
    let mut buf = [0; 4096];
    file.read_at(&mut buf, 4096).unwrap();
    // Either answer is allowed, but "yes" must be right and complete.
    let mut quick = [0; 4096];
    if file.try_read_exact_at(&mut quick, 4096).unwrap() {
        assert_eq!(quick, buf);
    }
    assert!(!file.try_read_exact_at(&mut quick, 6000).unwrap(), "a short read is no answer");
    assert!(!file.try_read_exact_at(&mut quick, 1 << 30).unwrap());
    file.drop_cache();
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 4096);
    assert_eq!(buf, [5; 4096]);
    assert!(file.try_read_exact_at(&mut [], 0).is_ok());
}

fn locks(vfs: &dyn Vfs, dir: &Path) {
    let path = dir.join("LOCK");
    let held = |vfs: &dyn Vfs| match vfs.lock(&path) {
        Err(LockError::Held { pid }) => pid,
        other => panic!("expected the lock to be held, found {other:?}"),
    };
    let guard = vfs.lock(&path).unwrap();
    assert_eq!(held(vfs), Some(std::process::id()), "twice in one process is refused too");
    assert_eq!(held(vfs), Some(std::process::id()), "asking does not unlock");
    drop(guard);
    let guard = vfs.lock(&path).unwrap();
    let elsewhere = vfs.lock(&dir.join("OTHER")).unwrap();
    drop((guard, elsewhere));
    assert!(vfs.list(dir).unwrap().contains(&"LOCK".to_owned()), "the file stays");
    assert!(matches!(vfs.lock(&dir.join("no/LOCK")), Err(LockError::Io(_))));
}

fn shared_locks(vfs: &dyn Vfs, dir: &Path) {
    let path = dir.join("LOCK");
    let absent = vfs.lock_shared(&path);
    assert!(matches!(&absent, Err(LockError::Io(e)) if e.kind() == ErrorKind::NotFound));
    drop(vfs.lock(&path).unwrap());
    let text = read(vfs, &path);
    let (one, two) = (vfs.lock_shared(&path).unwrap(), vfs.lock_shared(&path).unwrap());
    assert!(matches!(vfs.lock(&path), Err(LockError::Held { pid: None })), "nobody knows whose");
    drop(one);
    assert!(matches!(vfs.lock(&path), Err(LockError::Held { pid: None })));
    drop(two);
    assert_eq!(read(vfs, &path), text, "sharing changes nothing");
    let guard = vfs.lock(&path).unwrap();
    let holder = Some(std::process::id());
    assert!(matches!(vfs.lock_shared(&path), Err(LockError::Held { pid }) if pid == holder));
    drop(guard);
    drop(vfs.lock_shared(&path).unwrap());
}

fn links_are_the_same_file(vfs: &dyn Vfs, dir: &Path) {
    let (one, two) = (dir.join("one"), dir.join("sub/two"));
    assert_eq!(kind(vfs.hard_link(&one, &two)), Some(ErrorKind::NotFound));
    put(vfs, &one, b"old");
    assert_eq!(kind(vfs.hard_link(&one, &two)), Some(ErrorKind::NotFound), "no directory");
    vfs.create_dir_all(&dir.join("sub")).unwrap();
    vfs.hard_link(&one, &two).unwrap();
    assert_eq!(kind(vfs.hard_link(&one, &two)), Some(ErrorKind::AlreadyExists));
    vfs.open_rw(&one).unwrap().write_all_at(b"new", 0).unwrap();
    assert_eq!(read(vfs, &two), b"new");
    vfs.remove(&one).unwrap();
    assert_eq!(read(vfs, &two), b"new", "it lives as long as it has a name");
}

fn maps(vfs: &dyn Vfs, dir: &Path) {
    let path = dir.join("f");
    let file = vfs.create(&path).unwrap();
    let promised = file.allocate(100_000).unwrap();
    let map = file.map_for_writing(100_000).unwrap();
    assert_eq!(map.is_some(), promised, "a map exactly where blocks were promised");
    let Some(map) = map else {
        return;
    };
    assert_eq!((map.len(), vfs.len(&path).unwrap()), (100_000, 100_000));
    map.write(99_995, b"tail!");
    map.write(0, b"");
    let mut seen = [0; 5];
    file.read_at(&mut seen, 99_995).unwrap();
    assert_eq!(&seen, b"tail!", "a store is seen by reads at once");
    file.write_all_at(b"head", 0).unwrap();
    map.write(2, b"AD");
    file.sync_data().unwrap();
    map.write(50_000, b"before");
    for (from, upto) in [(0, 0), (0, 100_000), (50_000, 99_999), (99_999, usize::MAX)] {
        map.before_sync(from, upto);
    }
    map.after_sync(0);
    map.after_sync(99_999);
    map.after_sync(100_000);
    map.after_sync(usize::MAX);
    map.write(50_006, b"after");
    assert_eq!(&read(vfs, &path)[50_000..50_011], b"beforeafter", "nothing is forgotten");
    drop(file);
    map.write(4, b"ed");
    assert_eq!(&read(vfs, &path)[..6], b"heADed", "the map outlives the handle");
    let outside = std::panic::AssertUnwindSafe(|| map.write(99_999, b"xx"));
    assert!(std::panic::catch_unwind(outside).is_err());
    let outside = std::panic::AssertUnwindSafe(|| map.write(usize::MAX, b"xx"));
    assert!(std::panic::catch_unwind(outside).is_err());
    assert_eq!(&read(vfs, &path)[99_995..], b"tail!");
}

fn maps_need_a_promise(vfs: &dyn Vfs, dir: &Path) {
    let path: PathBuf = dir.join("f");
    let file = vfs.create(&path).unwrap();
    file.set_len(8192).unwrap();
    assert!(file.map_for_writing(8192).unwrap().is_none(), "holes are not blocks");
    if file.allocate(8192).unwrap() {
        assert!(file.map_for_writing(8193).unwrap().is_none(), "beyond the promise");
        assert!(vfs.open_rw(&path).unwrap().map_for_writing(8192).unwrap().is_none());
        assert!(file.map_for_writing(4096).unwrap().is_some());
        file.set_len(4096).unwrap();
        file.set_len(8192).unwrap();
        assert!(file.map_for_writing(8192).unwrap().is_none(), "cutting takes the promise back");
    }
    assert!(file.map_for_writing(0).unwrap().is_none());
    file.write_all_at(b"kept", 0).unwrap();
    file.allocate(4096).unwrap();
    assert_eq!(vfs.len(&path).unwrap(), 8192, "allocating less does not cut");
    assert_eq!(&read(vfs, &path)[..4], b"kept");
}

fn syncs(vfs: &dyn Vfs, dir: &Path) {
    let file = vfs.create(&dir.join("f")).unwrap();
    file.write_all_at(&[1; 10_000], 0).unwrap();
    file.write_back(0, 8192).unwrap();
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    vfs.sync_dir(dir).unwrap();
    vfs.open(&dir.join("f")).unwrap().sync_all().unwrap();
}

fn holes(vfs: &dyn Vfs, dir: &Path) {
    let file = vfs.create(&dir.join("f")).unwrap();
    let promised = file.allocate(1 << 20).unwrap();
    file.set_len(1 << 20).unwrap();
    // Whatever it says, there are only zeros before it.
    let no_data_before = |at: u64, found: Option<u64>| {
        assert!(found.is_none_or(|found| (at..=1 << 20).contains(&found)), "{at}: {found:?}");
        let mut bytes = vec![0; (found.unwrap_or(1 << 20) - at) as usize];
        assert_eq!(file.read_at(&mut bytes, at).unwrap(), bytes.len());
        assert!(bytes.iter().all(|byte| *byte == 0), "data between {at} and {found:?}");
    };
    no_data_before(0, file.next_data(0).unwrap());
    file.write_all_at(b"staged", 300_000).unwrap();
    if promised && let Some(map) = file.map_for_writing(1 << 20).unwrap() {
        map.write(700_000, b"stored");
    }
    for at in [0, 8, 299_999, 300_000, 300_005, 300_006, 699_999, 700_005, 700_006, 1_048_575] {
        no_data_before(at, file.next_data(at).unwrap());
        file.sync_data().unwrap();
        no_data_before(at, file.next_data(at).unwrap());
    }
    file.drop_cache();
    no_data_before(0, file.next_data(0).unwrap());
    assert!(file.next_data(300_000).unwrap() == Some(300_000));
}
