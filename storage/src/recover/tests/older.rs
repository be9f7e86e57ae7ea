//! A log file that is older than the manifest.

use super::*;

/// Two ranges. Their log has one segment; `early` is what it had before the last batches.
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
        let vfs: Arc<dyn Vfs> = Arc::new(self.mem.clone());
        let summary = verify_directory(&vfs, &dir(), &mut |_, _| {}).unwrap();
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

fn bytes(mem: &MemVfs, path: &Path) -> Vec<u8> {
    let mut bytes = vec![0; mem.len(path).unwrap() as usize];
    let read = mem.open(path).unwrap().read_at(&mut bytes, 0).unwrap();
    assert_eq!(read, bytes.len());
    bytes
}

/// Goal: a copy of the newest segment that was put back, or one whose end is zeros, is refused if a
/// range's tables are ahead of it. No range shows more of a batch than another.
///
/// Planted: the log need not reach what was flushed.
#[test]
fn an_older_copy_of_the_newest_segment_is_refused() {
    for at in 0..3 {
        let disk = Disk::new(Some(at), 3);
        let whole = bytes(&disk.mem, &disk.segment);
        disk.put_back(&disk.early);
        let refused = disk.refusal().expect("it is older than the tables");
        assert!(refused.contains("an older copy of this file"), "{refused}");
        // Its end is zeros, from somewhere between its first record and what was flushed.
        let zeros = |from: usize| [&whole[..from], &vec![0; whole.len() - from]].concat();
        let end = disk.early.iter().rposition(|byte| *byte != 0).unwrap();
        for from in [4096 + 24, usize::midpoint(4096, end), end] {
            disk.put_back(&zeros(from));
            assert!(disk.refusal().is_some(), "zeros from {from} on");
        }
        disk.put_back(&whole);
        assert_eq!(disk.refusal(), None);
        assert_eq!(content(&open(&disk.mem).unwrap()), disk.model);
    }
}

/// With one range its tables may be ahead of the log: they hold all that was written.
#[test]
fn tables_of_a_single_range_may_be_ahead_of_the_log() {
    let disk = Disk::new(Some(0), 1);
    disk.put_back(&disk.early);
    assert_eq!(disk.refusal(), None);
    let recovered = open(&disk.mem).unwrap();
    assert_eq!(recovered.last_seqno, Seqno(600), "what was flushed");
}

/// Nothing says how far the log was synced while no range is ahead of another.
#[test]
fn a_log_that_no_table_is_ahead_of_may_end_anywhere() {
    let disk = Disk::new(None, 3);
    disk.put_back(&disk.early);
    assert_eq!(disk.refusal(), None);
}
