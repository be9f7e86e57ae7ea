//! A log file that is older than the manifest.

use super::*;
use crate::side_by_side::OneByOne;

/// A database whose log has one segment; `early` is what that had before the last batches.
struct Disk {
    mem: MemVfs,
    segment: PathBuf,
    early: Vec<u8>,
    model: Model,
}

impl Disk {
    /// Writes, flushes the range at `flushed`, and writes on. All of it is synced.
    fn new(flushed: Option<usize>, ranges: usize) -> Self {
        let mem = disk();
        let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
        let split_keys = [Bytes::from("key0350"), Bytes::from("key0500")];
        let split_keys = split_keys[..ranges - 1].to_vec();
        drop(open_directory(&vfs, &dir(), &RecoverOptions { split_keys, ..options() }).unwrap());
        let mut life = Life::with(&mem, 1 << 20);
        life.fill(0, 60);
        life.sync();
        let segment = FileKind::Wal(life.log.number()).path(&dir());
        let early = bytes(&mem, &segment);
        life.fill(1, 60);
        life.sync();
        if let Some(at) = flushed {
            life.flush_range(at);
        }
        life.fill(2, 60);
        life.sync();
        Self { mem, segment, early, model: life.model }
    }

    fn put_back(&self, contents: &[u8]) {
        self.mem.open_rw(&self.segment).unwrap().write_all_at(contents, 0).unwrap();
    }

    /// What an open says, and whether `verify` says the same.
    fn refusal(&self) -> Option<String> {
        let summary = verified(&self.mem);
        match open(&self.mem) {
            Ok(_) => {
                assert!(summary.is_sound(), "{:?}", summary.findings);
                None
            }
            Err(Error::Corrupt { path, what, .. }) => {
                let same = |found: &&crate::verify::Finding| {
                    found.file == self.segment && found.what == what
                };
                assert!(summary.findings.iter().any(|f| same(&f)), "{:?}", summary.findings);
                assert_eq!(path, self.segment);
                Some(what)
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn verified(mem: &MemVfs) -> crate::verify::VerifySummary {
    let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
    verify_directory(&vfs, &dir(), &mut |_, _| {}).unwrap()
}

fn bytes(mem: &MemVfs, path: &Path) -> Vec<u8> {
    let mut bytes = vec![0; mem.len(path).unwrap() as usize];
    let read = mem.open(path).unwrap().read_at(&mut bytes, 0).unwrap();
    assert_eq!(read, bytes.len());
    bytes
}

/// Goal: an older copy of the newest segment, or one whose end is zeros, is refused if an edit
/// knows that it was longer. No range shows more of a batch than another.
///
/// Planted: the log need not reach what was synced.
#[test]
fn an_older_copy_of_the_newest_segment_is_refused() {
    for (at, ranges) in [(0, 1), (0, 3), (1, 3), (2, 3)] {
        let disk = Disk::new(Some(at), ranges);
        let whole = bytes(&disk.mem, &disk.segment);
        disk.put_back(&disk.early);
        let refused = disk.refusal().expect("it is older than the tables");
        assert!(refused.contains("an older copy of this file"), "{refused}");
        // Its end is zeros, from somewhere between its first record and what was flushed.
        let zeros = |from: usize| [&whole[..from], &vec![0; whole.len() - from]].concat();
        let end = disk.early.iter().rposition(|byte| *byte != 0).unwrap();
        for from in [4096, 4096 + 24, usize::midpoint(4096, end), end] {
            disk.put_back(&zeros(from));
            assert!(disk.refusal().is_some(), "zeros from {from} on");
        }
        disk.put_back(&whole);
        assert_eq!(disk.refusal(), None);
        assert_eq!(content(&open(&disk.mem).unwrap()), disk.model);
    }
}

/// Tables of a single range may be ahead of what is synced: they hold all that was written.
#[test]
fn a_power_cut_leaves_tables_of_a_single_range_ahead_of_the_log() {
    let mem = disk();
    let mut life = Life::with(&mem, 1 << 20);
    life.fill(0, 60);
    life.sync();
    life.fill(1, 60);
    life.flush();
    let cut = mem.crash_clone(CrashKind::DropUnsynced);
    assert!(verified(&cut).is_sound());
    let recovered = open(&cut).unwrap();
    assert_eq!((recovered.last_seqno, content(&recovered)), (Seqno(600), life.model));
}

/// Nothing says how far the log was synced behind the last edit.
#[test]
fn a_log_that_grew_behind_the_last_edit_may_end_anywhere() {
    let disk = Disk::new(None, 3);
    disk.put_back(&disk.early);
    assert_eq!(disk.refusal(), None);
}

/// The beginning of a log is durable before the manifest names a segment.
///
/// Planted: a log without a beginning is empty, whatever the manifest says.
#[test]
fn a_log_that_was_in_use_has_a_beginning() {
    for ranges in [1, 3] {
        let disk = Disk::new(None, ranges);
        disk.put_back(&[&disk.early[..4096], &vec![0; disk.early.len() - 4096]].concat());
        let refused = disk.refusal().expect("there was a log");
        assert!(refused.contains("no beginning"), "{refused}");
    }
}

/// Earlier builds raised the floor to a segment whose beginning was not durable, and their edits do
/// not say how far the log is.
///
/// The same goes for a log of which nothing is durable from the floor on.
///
/// Planted: a beginning is demanded of any log in use; it is demanded of none that is not begun by
/// the last edit that sets the floor.
#[test]
fn a_log_of_an_earlier_build_and_one_that_was_never_synced_may_lack_their_beginning() {
    let image =
        |unbegun, synced| Image { log_unbegun: unbegun, log_synced: synced, ..Image::default() };
    let begun = |unbegun, synced| known_log(&image(unbegun, synced)).begun;
    assert!(begun(None, None) && begun(None, Some(Seqno(7))));
    assert!(!begun(Some(Seqno(7)), None) && !begun(Some(Seqno(7)), Some(Seqno(6))));
    assert!(begun(Some(Seqno(7)), Some(Seqno(7))), "a later edit knows better");
    let disk = Disk::new(None, 1);
    disk.put_back(&[&disk.early[..4096], &vec![0; disk.early.len() - 4096]].concat());
    let number =
        disk.segment.file_name().and_then(|name| FileKind::parse(name.to_str()?)?.number());
    let number = number.unwrap();
    let (vfs, identity): (Arc<dyn Vfs>, _) = (Arc::new(disk.mem), LogIdentity { db_id: [3; 16] });
    let cases =
        [(None, true, true), (Some(Seqno::ZERO), true, false), (Some(Seqno(1)), false, true)];
    for (synced, begun, is_sound) in cases {
        let (newest, last_seqno) = (Some(number), Seqno::MAX);
        let known = KnownLog { floor: number, newest, last_seqno, closed: false, synced, begun };
        let read =
            crate::wal::replay(&vfs, &dir(), &identity, &known, &[number], &OneByOne, &mut |_| {
                Ok(())
            });
        assert_eq!(read.is_ok(), is_sound, "{synced:?}, {begun}: {read:?}");
    }
}
