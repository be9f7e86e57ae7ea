//! Goal: the format never changes by accident.
//! Method: a committed segment with every kind of record must be reproduced and read exactly.

use super::*;

const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/000008.wal");

fn link() -> Link {
    Link {
        number: FileNumber(7),
        final_length: 65_432,
        synced_length: 60_000,
        last_seqno: Seqno(1_000_000),
        digest: 0x0123_4567_89ab_cdef,
    }
}

/// A segment with two batches, a change between them, a watermark and a close mark, encoded by this
/// build.
fn encoded() -> Vec<u8> {
    let vfs = MemVfs::new();
    vfs.create_dir_all(Path::new(DIR)).unwrap();
    let spare = spare(&vfs, 8, 8192, true);
    let first = Seqno(1_000_001);
    let log = LogWriter::start(IDENTITY, spare, first, Predecessor::Follows(link()));
    let mut bench = Bench { vfs, log, next: first.0, next_number: 9 };
    bench.sync();
    bench.append(1, 3, AppendPath::Mapped);
    bench.sync();
    bench.append_change(AppendPath::Mapped);
    bench.sync();
    bench.append(5, 7, AppendPath::Staged);
    bench.sync();
    bench.log.append_watermark();
    bench.sync();
    bench.log.append_close_mark();
    bench.sync();
    let file = bench.vfs.open(&wal_path(8)).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

#[test]
fn the_writer_reproduces_the_golden_segment() {
    let encoded = encoded();
    let differs = encoded.iter().zip(GOLDEN).position(|(a, b)| a != b);
    assert_eq!((differs, encoded.len()), (None, GOLDEN.len()));
}

#[test]
fn the_reader_reads_the_golden_segment() {
    let vfs = MemVfs::new();
    vfs.create_dir_all(Path::new(DIR)).unwrap();
    vfs.create(&wal_path(8)).unwrap().write_all_at(GOLDEN, 0).unwrap();
    let (records, report) = replay_all(&vfs, 8).unwrap();
    let want = vec![
        (1_000_001, said(1_000_001, 1, 3)),
        (1_000_002, Said::Change(change(1_000_002))),
        (1_000_003, said(1_000_003, 5, 7)),
    ];
    assert_eq!(records, want);
    assert!(report.clean_close);
    assert_eq!(report.last_seqno, Seqno(1_000_007));
    let missing = replay_all(&vfs, 7).unwrap_err();
    assert!(matches!(missing, Error::Missing { path } if path == wal_path(7)));
}

/// Writes the golden file again. Only for a new format version, never to silence a failure.
#[test]
#[ignore = "rewrites the golden file"]
fn bless() {
    std::fs::write("tests/golden/000008.wal", encoded()).unwrap();
}
