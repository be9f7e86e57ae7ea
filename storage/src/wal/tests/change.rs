//! Goal: a change is a record like any other. It has a place and a sequence number, it survives or
//! is cut as batches are, and it confirms as they do. Anything that is not exactly a change is
//! damage.
//! Method: changes at every place where records can be; hand-made records with valid checksums.

use super::damage::{alter, corrupt_at, segment, with};
use super::*;
use crate::limits::SEQNO_ON_DISK_MAX;
use record::{RECORD_HEADER_BYTES, RecordHeader, RecordSeed, kind};

/// Length of the record of a change.
const CHANGE: u64 = (RECORD_HEADER_BYTES + CHANGE_BYTES) as u64;

/// Writes a record at `offset` whose header and bytes are those of `header` and `payload`. Its
/// checksum is valid if the header claims the length of `payload`.
fn forge(vfs: &MemVfs, number: u64, offset: u64, header: &RecordHeader, payload: &[u8]) -> u64 {
    let seed = RecordSeed::new(&IDENTITY, FileNumber(number));
    let (head, _) = record::encode(seed, offset, header, crc(payload));
    let file = vfs.open_rw(&wal_path(number)).unwrap();
    file.write_all_at(&head, offset).unwrap();
    file.write_all_at(payload, offset + head.len() as u64).unwrap();
    offset + record::record_bytes(payload.len())
}

fn header(kind: u8, len: u32, seqno: u64) -> RecordHeader {
    RecordHeader { len, synced_to: 0, kind, flags: 0, first_seqno: Seqno(seqno) }
}

/// Everything that `survey` finds.
fn surveyed(vfs: &MemVfs) -> Vec<String> {
    let disk: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let mut found = Vec::new();
    let mut tell = |error: Error| found.push(error.to_string());
    let number = [FileNumber(1)];
    let report =
        survey(&disk, Path::new(DIR), &IDENTITY, &known(1), &number, &mut |_| Ok(()), &mut tell);
    assert_eq!(report.is_some(), found.is_empty());
    found
}

/// Two batches and a change, each synced on its own. Returns the offset of the last record, the
/// change.
fn ends_with_a_change() -> (Bench, usize) {
    let mut bench = Bench::new(8192);
    bench.append(2, 21, AppendPath::Staged);
    bench.sync();
    bench.append(2, 21, AppendPath::Staged);
    bench.sync();
    let last = bench.append_change(AppendPath::Staged).offset;
    bench.sync();
    (bench, last as usize)
}

#[test]
fn changes_take_one_number_each_in_the_order_of_the_log() {
    for can_map in [true, false] {
        let vfs = MemVfs::new();
        vfs.set_can_map(can_map);
        let mut bench = Bench::on(vfs, 8192);
        let mut want = Vec::new();
        for round in 0..3 {
            // The first and the last records of a segment, on either path, and two in a row.
            for (at, path) in [AppendPath::Mapped, AppendPath::Staged].repeat(4).iter().enumerate()
            {
                let first = bench.next;
                let in_file = if matches!(at, 2 | 5) {
                    want.push((first, said(first, 3, 20)));
                    bench.append(3, 20, *path).in_file
                } else {
                    want.push((first, Said::Change(change(first))));
                    bench.append_change(*path).in_file
                };
                assert_eq!(in_file, can_map && *path == AppendPath::Mapped);
            }
            if round < 2 {
                bench.rotate();
            }
        }
        let group = bench.sync();
        assert_eq!(group.upto(), Seqno(36));
        let (records, report) = bench.replay().unwrap();
        assert_eq!(records, want);
        assert_eq!((report.records, report.last_seqno, report.bytes_dropped), (24, Seqno(36), 0));
        let numbers = report.segments.iter().map(|s| (s.first_seqno.0, s.last_seqno.0));
        assert_eq!(numbers.collect::<Vec<_>>(), [(1, 12), (13, 24), (25, 36)]);
        bench.log.append_close_mark();
        bench.sync();
        let (records, report) = bench.replay().unwrap();
        assert_eq!(
            (records, report.reason, report.last_seqno),
            (want, TailReason::Closed, Seqno(36))
        );
    }
}

#[test]
fn a_segment_full_of_changes_rolls_over_where_it_would_overflow() {
    let mut bench = Bench::new(8192);
    for seqno in 1..=300 {
        if !bench.log.has_room(CHANGE_BYTES) {
            // The reserve is enough for a watermark and the name of the next segment, and no more.
            let left = bench.log.segment_bytes() - bench.log.tail();
            assert!((24 + CONTINUED..24 + CONTINUED + CHANGE).contains(&left), "{left}");
            bench.rotate();
        }
        let path = if seqno % 7 == 0 { AppendPath::Staged } else { AppendPath::Mapped };
        bench.append_change(path);
    }
    assert_eq!(bench.log.number(), FileNumber(3));
    bench.sync();
    let (records, report) = bench.replay().unwrap();
    assert!(records.iter().zip(1..).all(|(r, n)| *r == (n, Said::Change(change(n)))));
    assert_eq!((report.records, report.last_seqno), (300, Seqno(300)));
}

#[test]
fn an_idle_log_says_that_its_last_change_is_durable() {
    let (mut bench, last) = ends_with_a_change();
    assert!(bench.log.wants_watermark());
    assert!(bench.log.append_watermark());
    bench.sync();
    let (whole, end) = (segment(&bench.vfs, 1), bench.log.tail() as usize);
    for bit in last * 8..(end + 64) * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let result = replay_all(&with(&bench.vfs, 1, &bytes), 1);
        if bit / 8 < last + CHANGE as usize {
            assert_eq!(corrupt_at(result), (wal_path(1), last as u64), "bit {bit}");
        } else {
            assert_eq!(result.unwrap().1.last_seqno, Seqno(5), "bit {bit}");
        }
    }
}

#[test]
fn a_last_change_torn_at_any_byte_is_cut_and_reported() {
    let (bench, last) = ends_with_a_change();
    let (whole, end) = (segment(&bench.vfs, 1), bench.log.tail() as usize);
    for fill in [0_u8, 0xFF] {
        for torn in last..end {
            let mut bytes = whole.clone();
            bytes[torn..end].fill(fill);
            let (records, report) = replay_all(&with(&bench.vfs, 1, &bytes), 1).unwrap();
            assert_eq!((records.len(), report.last_seqno), (2, Seqno(4)), "torn at {torn}");
            assert_eq!(report.offset, last as u64);
            if torn >= last + 16 {
                assert_eq!(report.reason, TailReason::Torn, "torn at {torn}");
                assert_eq!(report.bytes_dropped, CHANGE);
            }
        }
    }
}

#[test]
fn what_follows_a_torn_change_is_cut_with_it() {
    let (mut bench, last) = ends_with_a_change();
    bench.sync();
    let torn = bench.append_change(AppendPath::Staged).offset;
    bench.append(2, 21, AppendPath::Staged);
    bench.append_change(AppendPath::Staged);
    bench.sync();
    let end = bench.log.tail();
    alter(&bench.vfs, 1, |bytes| bytes[torn as usize + 24] ^= 1);
    let (records, report) = bench.replay().unwrap();
    assert_eq!((records.len(), report.last_seqno, report.offset), (3, Seqno(5), torn));
    assert_eq!((report.reason, report.bytes_dropped), (TailReason::Torn, end - torn));
    // Below a confirmed offset it is damage.
    alter(&bench.vfs, 1, |bytes| bytes[last] ^= 1);
    assert_eq!(corrupt_at(bench.replay()), (wal_path(1), last as u64));
}

#[test]
fn a_change_alone_confirms_what_was_synced_before_it() {
    for segments in [1, 2] {
        let mut bench = Bench::new(8192);
        let batch = bench.append(1, 21, AppendPath::Staged).offset as usize;
        if segments == 2 {
            bench.rotate();
        }
        bench.sync();
        let before = bench.vfs.kill_clone();
        bench.append_change(AppendPath::Staged);
        bench.sync();
        for disk in [&before, &bench.vfs] {
            alter(disk, 1, |bytes| bytes[batch + 24] ^= 1);
            if segments == 2 {
                // Without the begin record there is no confirmation either.
                alter(disk, 2, |bytes| bytes[4096] ^= 1);
            }
        }
        assert_eq!(replay_all(&before, 1).unwrap().1.reason, TailReason::Torn);
        assert_eq!(corrupt_at(bench.replay()), (wal_path(1), batch as u64), "{segments}");
    }
}

#[test]
fn a_change_of_another_length_is_refused() {
    let (bench, _) = ends_with_a_change();
    let tail = bench.log.tail();
    for len in [0_usize, 1, 7, 9, 16, 3000] {
        let disk = bench.vfs.kill_clone();
        forge(&disk, 1, tail, &header(kind::CHANGE, len as u32, 6), &vec![7; len]);
        assert_eq!(corrupt_at(replay_all(&disk, 1)), (wal_path(1), tail), "{len} bytes");
        assert!(surveyed(&disk).iter().any(|text| text.contains("type 6 is malformed")), "{len}");
    }
    forge(&bench.vfs, 1, tail, &header(kind::CHANGE, 8, 6), &change(6).0.to_le_bytes());
    let (records, report) = bench.replay().unwrap();
    assert_eq!(records.last(), Some(&(6, Said::Change(change(6)))));
    assert_eq!((report.records, surveyed(&bench.vfs)), (4, Vec::new()));
}

#[test]
fn a_change_that_claims_more_than_there_is_is_a_torn_tail_unless_somebody_confirms_it() {
    let (bench, _) = ends_with_a_change();
    let tail = bench.log.tail();
    for claimed in [8192, 1 << 31, u32::MAX] {
        let disk = bench.vfs.kill_clone();
        let end = forge(&disk, 1, tail, &header(kind::CHANGE, claimed, 6), &[7; 8]);
        let (records, report) = replay_all(&disk, 1).unwrap();
        assert_eq!((records.len(), report.offset, report.reason), (3, tail, TailReason::Torn));
        let watermark = RecordHeader { synced_to: end, ..header(kind::WATERMARK, 0, 7) };
        forge(&disk, 1, end, &watermark, &[]);
        assert_eq!(corrupt_at(replay_all(&disk, 1)), (wal_path(1), tail), "{claimed}");
        assert!(!surveyed(&disk).is_empty());
    }
}

#[test]
fn a_change_whose_number_does_not_continue_is_refused() {
    let (bench, _) = ends_with_a_change();
    let tail = bench.log.tail();
    for seqno in [0, 1, 5, 7, SEQNO_ON_DISK_MAX, u64::MAX] {
        let disk = bench.vfs.kill_clone();
        forge(&disk, 1, tail, &header(kind::CHANGE, 8, seqno), &[7; 8]);
        assert_eq!(corrupt_at(replay_all(&disk, 1)), (wal_path(1), tail), "{seqno}");
        assert!(!surveyed(&disk).is_empty());
    }
    // The record behind one that takes no number does not.
    let mut bench = Bench::new(8192);
    bench.append_change(AppendPath::Staged);
    bench.sync();
    let tail = bench.log.tail();
    forge(&bench.vfs, 1, tail, &header(kind::BATCH, 3, 1), &[0, 1, b'k']);
    assert_eq!(corrupt_at(bench.replay()), (wal_path(1), tail));
}

#[test]
fn a_change_does_not_begin_a_segment_and_has_no_flags() {
    let vfs = MemVfs::new();
    vfs.create_dir_all(Path::new(DIR)).unwrap();
    let _ = spare(&vfs, 1, 8192, false);
    forge(&vfs, 1, 4096, &header(kind::CHANGE, 8, 1), &[7; 8]);
    assert_eq!(corrupt_at(replay_all(&vfs, 1)), (wal_path(1), 4096));
    let (bench, _) = ends_with_a_change();
    let flags = RecordHeader { flags: 1, ..header(kind::CHANGE, 8, 6) };
    for unknown in [flags, header(kind::CHANGE + 1, 8, 6)] {
        let disk = bench.vfs.kill_clone();
        forge(&disk, 1, bench.log.tail(), &unknown, &[7; 8]);
        assert!(matches!(replay_all(&disk, 1), Err(Error::Unsupported { .. })));
    }
}

/// A change may take the last valid number, but not the one after it.
#[test]
fn numbers_end_for_changes_where_they_end_for_batches() {
    for (first, fits) in [(SEQNO_ON_DISK_MAX - 1, true), (SEQNO_ON_DISK_MAX, false)] {
        for is_change in [true, false] {
            let vfs = MemVfs::new();
            vfs.create_dir_all(Path::new(DIR)).unwrap();
            let only = spare(&vfs, 1, 8192, false);
            let log = LogWriter::start(IDENTITY, only, Seqno(first), Predecessor::Barrier);
            let mut bench = Bench { vfs, log, next: first, next_number: 2 };
            if is_change {
                bench.append_change(AppendPath::Staged);
            } else {
                bench.append(1, 8, AppendPath::Staged);
            }
            bench.sync();
            if fits {
                assert_eq!(bench.replay().unwrap().1.last_seqno, Seqno(first));
            } else {
                assert_eq!(corrupt_at(bench.replay()), (wal_path(1), 4096 + 24));
            }
        }
    }
}

/// Found with changes, true of batches: a survey trusts the sequence number of the record behind a
/// malformed one, and adds to it.
#[test]
fn a_survey_goes_on_behind_a_malformed_change_whatever_number_follows() {
    for next in [kind::CHANGE, kind::BATCH] {
        let (bench, _) = ends_with_a_change();
        let malformed = bench.log.tail();
        let after = forge(&bench.vfs, 1, malformed, &header(kind::CHANGE, 7, 6), &[7; 7]);
        let payload: &[u8] = if next == kind::CHANGE { &[7; 8] } else { &[0, 1, b'k'] };
        let huge = header(next, payload.len() as u32, u64::MAX);
        forge(&bench.vfs, 1, after, &huge, payload);
        let found = surveyed(&bench.vfs);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[1].contains("a record of 1 numbers begins with 18446744073709551615"));
    }
}

#[test]
fn a_recycled_segment_forgets_its_former_changes() {
    let mut bench = Bench::new(8192);
    // Both lives begin with a record of the same length.
    bench.rotate();
    while bench.log.has_room(CHANGE_BYTES) {
        bench.append_change(AppendPath::Mapped);
    }
    bench.rotate();
    let sealed = bench.sync().sealed()[1].clone();
    let old = segment(&bench.vfs, 2);
    let disk: Arc<dyn Vfs> = Arc::new(bench.vfs.clone());
    // Number 65,538 has the same low 16 bits as the old number.
    let number = FileNumber(65_538);
    let spare = recycle(&disk, Path::new(DIR), &sealed, number, true).unwrap();
    assert_eq!(segment(&bench.vfs, 65_538)[4096..], old[4096..], "the old changes are still there");
    assert_eq!(replay_all(&bench.vfs, 4).unwrap().1.reason, TailReason::Empty);
    let first = bench.next;
    bench.log.rotate(spare);
    let mut last = 0;
    for _ in 0..3 {
        last = bench.append_change(AppendPath::Mapped).offset;
        let (records, report) = replay_all(&bench.vfs, 3).unwrap();
        assert_eq!(records.len() as u64, bench.next - first);
        assert_eq!((report.offset, report.last_seqno.0), (bench.log.tail(), bench.next - 1));
    }
    // A record of the former life does not confirm what this life has lost.
    alter(&bench.vfs, 65_538, |bytes| bytes[last as usize + 24] ^= 1);
    let (records, report) = replay_all(&bench.vfs, 3).unwrap();
    assert_eq!((records.len(), report.offset), (2, last));
    assert_eq!((report.reason, report.bytes_dropped), (TailReason::Torn, CHANGE));
}

#[test]
#[should_panic(expected = "7 is not 6")]
fn a_change_is_appended_under_the_next_number_only() {
    let (mut bench, _) = ends_with_a_change();
    bench.log.append_change(Seqno(7), change(7), AppendPath::Staged);
}
