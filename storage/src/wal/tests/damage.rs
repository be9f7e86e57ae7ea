//! Goal: damage is reported, a torn tail is cut, and neither is ever mistaken for the other.
//! Method: change the bytes of finished logs, exhaustively where that is possible.
//!
//! Long because each place of a record is damaged in a test of its own.

use super::*;
use crate::limits::{SEQNO_MAX, SEQNO_ON_DISK_MAX};
use crate::side_by_side::OneByOne;
use crate::vfs::File;

/// Changes the bytes of segment `number`.
pub(super) fn alter(vfs: &MemVfs, number: u64, alter: impl FnOnce(&mut Vec<u8>)) {
    let file = vfs.open_rw(&wal_path(number)).unwrap();
    let mut bytes = read(file.as_ref());
    alter(&mut bytes);
    file.set_len(bytes.len() as u64).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
}

fn read(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

pub(super) fn segment(vfs: &MemVfs, number: u64) -> Vec<u8> {
    read(vfs.open(&wal_path(number)).unwrap().as_ref())
}

/// A disk on which segment `number` has `bytes`, and the other segments are those of `vfs`.
pub(super) fn with(vfs: &MemVfs, number: u64, bytes: &[u8]) -> MemVfs {
    let disk = vfs.kill_clone();
    alter(&disk, number, |old| *old = bytes.to_vec());
    disk
}

pub(super) fn corrupt_at(result: Result<Replayed>) -> (PathBuf, u64) {
    match result {
        Err(Error::Corrupt { path, offset, .. }) => (path, offset),
        other => panic!("not refused: {other:?}"),
    }
}

/// Five batches, each synced on its own; the last one is not confirmed. Returns its offset.
fn five() -> (Bench, usize) {
    let mut bench = Bench::new(8192);
    let mut last = 0;
    for _ in 0..5 {
        last = bench.append(2, 21, AppendPath::Staged).offset;
        bench.sync();
    }
    (bench, last as usize)
}

#[test]
fn t002_14_a_last_record_torn_at_any_byte_is_cut_and_reported() {
    let (bench, last) = five();
    let whole = segment(&bench.vfs, 1);
    let end = bench.log.tail() as usize;
    for fill in [0_u8, 0xFF] {
        for torn in last..end {
            let mut bytes = whole.clone();
            bytes[torn..end].fill(fill);
            if bytes == whole {
                continue; // Only the padding was cut.
            }
            let (records, report) = replay_all(&with(&bench.vfs, 1, &bytes), 1).unwrap();
            assert_eq!(records.len(), 4, "torn at {torn}");
            assert_eq!(report.offset, last as u64);
            assert_eq!(report.last_seqno, Seqno(8));
            if torn >= last + 16 {
                assert_eq!(report.reason, TailReason::Torn, "torn at {torn}");
                assert_eq!(report.bytes_dropped, (end - last) as u64);
            }
        }
    }
}

#[test]
fn t002_14_every_flipped_bit_below_a_watermark_is_refused() {
    let (mut bench, _) = five();
    let watermark = bench.log.tail() as usize;
    assert!(bench.log.append_watermark());
    bench.sync();
    let whole = segment(&bench.vfs, 1);
    let end = bench.log.tail() as usize;
    for bit in 0..(end + 64) * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let result = replay_all(&with(&bench.vfs, 1, &bytes), 1);
        if bit / 8 < watermark {
            let (path, offset) = corrupt_at(result);
            assert_eq!(path, wal_path(1));
            assert!(offset as usize <= bit / 8, "bit {bit} blamed on {offset}");
        } else {
            // The watermark itself, or unused space behind it, was damaged: nothing is lost.
            let (records, report) = result.unwrap();
            assert_eq!((records.len(), report.last_seqno), (5, Seqno(10)), "bit {bit}");
        }
    }
}

#[test]
fn a_flipped_bit_in_the_last_record_is_a_torn_tail() {
    let (bench, last) = five();
    let whole = segment(&bench.vfs, 1);
    for bit in 4096 * 8..bench.log.tail() as usize * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let result = replay_all(&with(&bench.vfs, 1, &bytes), 1);
        if bit / 8 < last {
            corrupt_at(result);
        } else {
            let (records, report) = result.unwrap();
            assert_eq!((records.len(), report.offset), (4, last as u64), "bit {bit}");
        }
    }
}

#[test]
fn a_zeroed_sector_below_a_watermark_is_refused() {
    let (mut bench, _) = five();
    bench.log.append_watermark();
    bench.sync();
    for sector in 0..bench.log.tail() as usize / 512 {
        let disk = bench.vfs.kill_clone();
        alter(&disk, 1, |bytes| bytes[sector * 512..][..512].fill(0));
        if segment(&disk, 1) != segment(&bench.vfs, 1) {
            corrupt_at(replay_all(&disk, 1));
        }
    }
}

/// Three segments, each with a change between two batches. Everything is durable and confirmed.
fn three() -> Bench {
    let mut bench = Bench::new(8192);
    for segment in 0..3 {
        bench.append(1, 33, AppendPath::Staged);
        bench.append_change(AppendPath::Staged);
        bench.append(1, 33, AppendPath::Staged);
        bench.sync();
        if segment < 2 {
            bench.rotate();
        }
    }
    bench.log.append_watermark();
    bench.sync();
    assert_eq!(bench.replay().unwrap().0.len(), 9);
    bench
}

#[test]
fn t002_14_a_gap_in_the_log_is_refused() {
    let bench = three();
    for number in [1, 2, 3] {
        let disk = bench.vfs.kill_clone();
        disk.remove(&wal_path(number)).unwrap();
        let missing = replay_all(&disk, 1).unwrap_err();
        assert!(matches!(missing, Error::Missing { path } if path == wal_path(number)));
    }
    // Below the floor, nothing is needed.
    bench.vfs.remove(&wal_path(1)).unwrap();
    assert_eq!(replay_all(&bench.vfs, 2).unwrap().0.len(), 6);
}

#[test]
fn t002_14_older_segments_are_checked_to_their_last_record() {
    let bench = three();
    for number in [1, 2] {
        let whole = segment(&bench.vfs, number);
        let records = whole.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        for bit in (0..records * 8).step_by(3) {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (path, offset) = corrupt_at(replay_all(&with(&bench.vfs, number, &bytes), 1));
            assert!(path <= wal_path(number) && offset <= 8192, "bit {bit}: {path:?} {offset}");
        }
        // A cut at the start of a record looks like the end of the log, except that the successor
        // knows.
        let mut bytes = whole.clone();
        bytes[4096..].fill(0);
        let (path, offset) = corrupt_at(replay_all(&with(&bench.vfs, number, &bytes), 1));
        assert_eq!((path, offset), (wal_path(number), 4096));
        // So does a file without its last pages.
        let (path, offset) = corrupt_at(replay_all(&with(&bench.vfs, number, &whole[..4096]), 1));
        assert_eq!((path, offset), (wal_path(number), 4096));
        corrupt_at(replay_all(&with(&bench.vfs, number, &whole[..100]), 1));
        corrupt_at(replay_all(&with(&bench.vfs, number, &[]), 1));
    }
}

#[test]
fn segments_of_another_place_are_refused() {
    let bench = three();
    let disk = bench.vfs.kill_clone();
    let (one, two) = (segment(&disk, 1), segment(&disk, 2));
    alter(&disk, 1, |bytes| *bytes = two);
    alter(&disk, 2, |bytes| *bytes = one);
    let swapped = replay_all(&disk, 1).unwrap_err();
    assert!(swapped.to_string().contains("says it is number"), "{swapped}");
    let other = LogIdentity { db_id: [1; 16] };
    let vfs: Arc<dyn Vfs> = Arc::new(bench.vfs.clone());
    let mut each = |_: LogItem<'_>| panic!("nothing is handed out");
    let numbers = [FileNumber(1)];
    let foreign = replay(&vfs, Path::new(DIR), &other, &known(1), &numbers, &OneByOne, &mut each);
    assert!(foreign.unwrap_err().to_string().contains("another database"));
}

/// Recycled files have the header page of their first life, so it does not tell them apart.
///
/// Planted: `check_names` looks at nothing.
#[test]
fn recycled_segments_that_were_exchanged_are_refused() {
    let bench = three();
    let disk = bench.vfs.kill_clone();
    let header = segment(&disk, 1)[..4096].to_vec();
    for number in [2, 3] {
        alter(&disk, number, |bytes| bytes[..4096].copy_from_slice(&header));
    }
    assert_eq!(replay_all(&disk, 1).unwrap().0.len(), 9);
    let (two, three) = (segment(&disk, 2), segment(&disk, 3));
    alter(&disk, 2, |bytes| *bytes = three);
    alter(&disk, 3, |bytes| *bytes = two);
    let swapped = replay_all(&disk, 1).unwrap_err();
    assert!(swapped.to_string().contains("holds the records of number"), "{swapped}");
}

#[test]
fn a_log_that_begins_in_the_middle_is_refused() {
    let bench = three();
    let later = spare(&bench.vfs, 9, 8192, true);
    let mut log = LogWriter::start(IDENTITY, later, Seqno(10), Predecessor::Barrier);
    log.take_group().write().unwrap();
    assert_eq!(corrupt_at(bench.replay()), (wal_path(9), 4096));
    assert_eq!(replay_all(&bench.vfs, 9).unwrap().1.last_seqno, Seqno(9));
}

#[test]
fn nothing_follows_a_close_mark() {
    let mut bench = Bench::new(8192);
    bench.append(1, 5, AppendPath::Staged);
    bench.log.append_close_mark();
    bench.sync();
    let _ = bench.spare(8192);
    assert!(bench.replay().unwrap().1.clean_close, "an unused spare does not matter");
    let link = Link {
        number: FileNumber(1),
        final_length: bench.log.tail(),
        synced_length: bench.log.tail(),
        last_seqno: Seqno(1),
        digest: 0,
    };
    let after = spare(&bench.vfs, 3, 8192, true);
    let mut log = LogWriter::start(IDENTITY, after, Seqno(2), Predecessor::Follows(link));
    log.take_group().write().unwrap();
    assert_eq!(corrupt_at(bench.replay()), (wal_path(3), 4096));
}

#[test]
fn a_recycled_segment_forgets_its_former_life() {
    let mut bench = Bench::new(8192);
    // Both lives begin with a record of the same length.
    bench.rotate();
    while bench.log.has_room(60) {
        bench.append(1, 40, AppendPath::Mapped);
    }
    bench.rotate();
    let sealed = bench.sync().sealed()[1].clone();
    let old = segment(&bench.vfs, 2);
    let disk: Arc<dyn Vfs> = Arc::new(bench.vfs.clone());
    // Number 65,538 has the same low 16 bits as the old number.
    let number = FileNumber(65_538);
    let spare = recycle(&disk, Path::new(DIR), &sealed, number, true).unwrap();
    assert!(spare.is_mapped());
    let stale = segment(&bench.vfs, 65_538);
    assert_eq!(stale[4096..], old[4096..], "the old records are still there");
    let (records, report) = replay_all(&bench.vfs, 4).unwrap();
    assert_eq!((records.len(), report.segment), (0, None));
    // New records of the same length end exactly where an old one begins.
    let first = bench.next;
    bench.log.rotate(spare);
    for _ in 0..3 {
        bench.append(1, 40, AppendPath::Mapped);
        let (records, report) = replay_all(&bench.vfs, 3).unwrap();
        assert_eq!(records.len() as u64, bench.next - first);
        assert_eq!((report.offset, report.last_seqno.0), (bench.log.tail(), bench.next - 1));
    }
    let sealed = bench.sync().sealed()[0].clone();
    remove(&disk, &sealed).unwrap();
    remove(&disk, &sealed).unwrap();
    assert!(matches!(replay_all(&bench.vfs, 3), Err(Error::Missing { .. })));
}

/// A failed sync leaves pages in the cache that the disk does not have. What is replayed is written
/// again, so all of it counts; a survey is about the disk. Planted: the survey reads the cache.
#[test]
fn what_only_the_cache_has_is_replayed_and_is_no_part_of_a_survey() {
    let mut bench = Bench::new(64 << 10);
    bench.append(1, 9_000, AppendPath::Staged);
    bench.sync();
    bench.append(1, 10, AppendPath::Staged);
    bench.write();
    let vfs = FaultVfs::over_mem(&bench.vfs);
    vfs.control().arm(Fault::of(OperationKind::Sync).lose_sync());
    vfs.open_rw(&wal_path(1)).unwrap().sync_data().unwrap_err();
    assert_eq!(bench.replay().unwrap().0.len(), 2);
    let disk: Arc<dyn Vfs> = Arc::new(bench.vfs.clone());
    let (mut records, number) = (0, [FileNumber(1)]);
    let mut count = |_: LogItem<'_>| {
        records += 1;
        Ok(())
    };
    let mut found = |error: Error| panic!("{error}");
    survey(&disk, Path::new(DIR), &IDENTITY, &known(1), &number, &mut count, &mut found).unwrap();
    assert_eq!(records, 1);
}

#[test]
fn an_overtaken_spare_is_no_hole() {
    let mut bench = Bench::new(8192);
    bench.append(1, 10, AppendPath::Mapped);
    let _ = bench.spare(8192);
    let large = bench.spare(64 << 10);
    bench.log.rotate(large);
    bench.append(1, 10_000, AppendPath::Mapped);
    assert_eq!(bench.replay().unwrap().0.len(), 2);
}

#[test]
fn a_value_that_contains_the_log_does_not_replay() {
    let (mut bench, _) = five();
    bench.rotate();
    bench.sync();
    for _ in 0..3 {
        bench.append(1, 40, AppendPath::Staged);
        bench.sync();
    }
    let logged = segment(&bench.vfs, 2)[4096..bench.log.tail() as usize].to_vec();
    // At each alignment, so that one copy is certainly at a multiple of 8.
    let mut value = Vec::new();
    for shift in 0..9 {
        value.resize(value.len() + shift, 0xEE);
        value.extend_from_slice(&logged);
    }
    let mut batch = WriteBatch::new();
    batch.put("k", &value);
    let payload = batch.take_encoded();
    let torn = bench.log.tail() as usize;
    let first = Seqno(bench.next);
    bench.log.append(first, 1, &payload, crc(&payload), AppendPath::Staged);
    bench.sync();
    let (records, _) = bench.replay().unwrap();
    assert_eq!(records.last().unwrap().1, Said::Batch(payload));
    // Without its header, the scan walks through the value and must find nothing.
    alter(&bench.vfs, 2, |bytes| bytes[torn] ^= 1);
    let (records, report) = bench.replay().unwrap();
    assert_eq!((records.len(), report.reason), (8, TailReason::Torn));
    assert_eq!(report.offset as usize, torn);
}

/// Headers of segment `number` from `at` on. Each claims all the rest of the file, a possible
/// sequence number, and that everything before it is durable. Only its checksum shows that it is
/// not valid.
fn forge_headers(bytes: &mut [u8], at: usize, number: u16) {
    for at in (at..bytes.len() - 24).step_by(24) {
        let len = (bytes.len() - at - 24) as u32;
        bytes[at + 4..at + 8].copy_from_slice(&len.to_le_bytes());
        bytes[at + 8..at + 12].copy_from_slice(&(at as u32 / 8).to_le_bytes());
        bytes[at + 12..at + 14].copy_from_slice(&number.to_le_bytes());
        bytes[at + 14] = 1;
        bytes[at + 15] = 0;
        bytes[at + 16..at + 24].copy_from_slice(&2_u64.to_le_bytes());
    }
}

/// Goal: bytes that a client wrote never prevent an open, and cost no more than a look at each.
/// Method: such bytes behind the last record, and in a segment in preparation. If each of them were
/// checksummed by reading what it claims, this would read some 500 GB.
///
/// Planted: a candidate is checksummed from its first byte to its last; a budget that refuses when
/// it is used up.
#[test]
fn bytes_made_to_look_like_headers_cost_bounded_time() {
    let mut bench = Bench::new(4 << 20);
    bench.append(1, 10, AppendPath::Mapped);
    let tail = bench.log.tail() as usize;
    let _ = bench.spare(4 << 20);
    alter(&bench.vfs, 1, |bytes| forge_headers(bytes, tail, 1));
    alter(&bench.vfs, 2, |bytes| forge_headers(bytes, 4096, 2));
    let (records, report) = bench.replay().unwrap();
    assert_eq!((records.len(), report.offset), (1, tail as u64));
}

/// Goal: a record whose checksum is derived from those of prefixes confirms as any other does.
/// Method: behind a damaged record, one of each length around the interval of the prefixes, between
/// bytes that look like records.
///
/// Planted: the padding is not checked; the checksum ends after the padding; it begins at the start
/// of the interval.
#[test]
fn long_records_confirm_also_among_bytes_that_look_like_records() {
    for value_len in (8000..8600).step_by(7).chain([100_000, 1 << 20]) {
        let mut bench = Bench::new(4 << 20);
        let damaged = bench.append(1, 10, AppendPath::Staged).offset as usize;
        bench.sync();
        let witness = bench.append(1, value_len, AppendPath::Staged).offset as usize;
        bench.sync();
        let end = bench.log.tail() as usize;
        alter(&bench.vfs, 1, |bytes| {
            bytes[damaged + 30] ^= 1;
            forge_headers(&mut bytes[..end + 2400], end, 1);
        });
        assert_eq!(corrupt_at(bench.replay()), (wal_path(1), damaged as u64), "{value_len}");
        // No byte of it may differ.
        for at in [witness + 4, witness + 30, witness + value_len / 2, end - 1] {
            let disk = bench.vfs.kill_clone();
            alter(&disk, 1, |bytes| bytes[at] ^= 1);
            let (records, report) = replay_all(&disk, 1).unwrap();
            assert_eq!((records.len(), report.offset), (0, damaged as u64), "{value_len}, {at}");
        }
    }
}

/// Found by `sluice demo`: the former life of a recycled segment had random values. 128 places in
/// them looked like headers of a record too long for the file, and a log whose process was killed
/// during a write was refused as damaged.
#[test]
fn headers_that_claim_more_than_there_is_cost_nothing() {
    let mut bench = Bench::new(4 << 20);
    bench.append(1, 10, AppendPath::Mapped);
    let tail = bench.log.tail() as usize;
    alter(&bench.vfs, 1, |bytes| {
        for at in (tail + 24..bytes.len() - 24).step_by(24) {
            bytes[at + 4..at + 8].fill(0xFF);
            bytes[at + 12..at + 14].copy_from_slice(&1_u16.to_le_bytes());
            bytes[at + 14] = 1;
        }
    });
    let (records, report) = bench.replay().unwrap();
    assert_eq!((records.len(), report.offset), (1, tail as u64));
}

/// Arbitrary bytes give a result or a typed error, never a panic. Prints its seed.
#[test]
fn arbitrary_bytes_never_panic() {
    let bench = three();
    let mut random = super::sweep::Random(0x5EED_0001);
    for round in 0..3000 {
        let seed = random.0;
        let disk = bench.vfs.kill_clone();
        let number = 1 + random.below(3);
        alter(&disk, number, |bytes| {
            for _ in 0..=random.below(4) {
                let (at, len) = (random.below(6000) as usize, 1 + random.below(60) as usize);
                match random.below(4) {
                    0 => bytes[at..at + len].fill_with(|| random.next() as u8),
                    1 => bytes[at..at + len].fill(0),
                    2 => bytes[at] = random.next() as u8,
                    _ => {
                        let from = random.below(6000) as usize;
                        bytes.copy_within(from..from + len, at);
                    }
                }
            }
        });
        match replay_all(&disk, 1) {
            Ok((records, _)) => {
                for (found, seqno) in records.iter().zip(1..) {
                    let want = match seqno % 3 {
                        2 => Said::Change(change(seqno)),
                        _ => said(seqno, 1, 33),
                    };
                    assert_eq!(*found, (seqno, want), "{round} {seed:#x}");
                }
            }
            Err(Error::Corrupt { .. } | Error::Unsupported { .. } | Error::Missing { .. }) => {}
            Err(other) => panic!("round {round}, seed {seed:#x}: {other}"),
        }
    }
}

#[test]
fn a_record_of_a_later_segment_confirms_the_older_one() {
    let (mut bench, _) = five();
    let unsynced = bench.append(1, 10, AppendPath::Staged).offset as usize;
    // Nothing in segment 2 can confirm the end of segment 1, which is not durable.
    bench.rotate();
    bench.append(1, 10, AppendPath::Staged);
    bench.sync();
    let torn = bench.vfs.kill_clone();
    alter(&torn, 1, |bytes| bytes[unsynced] ^= 1);
    let (records, report) = replay_all(&torn, 1).unwrap();
    assert_eq!((records.len(), report.reason), (5, TailReason::Torn));
    assert_eq!(report.segment, Some(FileNumber(1)));
    // Once a record of segment 2 says that its segment was synced, segment 1 was synced, too.
    bench.append(1, 10, AppendPath::Mapped);
    alter(&bench.vfs, 1, |bytes| bytes[unsynced] ^= 1);
    assert_eq!(corrupt_at(bench.replay()).0, wal_path(1));
    // The same holds if the begin record in between is damaged.
    alter(&bench.vfs, 2, |bytes| bytes[4096] ^= 1);
    assert_eq!(corrupt_at(bench.replay()).0, wal_path(1));
    // So it does without the first header page.
    alter(&bench.vfs, 1, |bytes| bytes[..4096].fill(0));
    assert_eq!(corrupt_at(bench.replay()), (wal_path(1), 0));
}

#[test]
fn a_beginning_that_tells_another_story_is_refused() {
    let (mut bench, last) = five();
    bench.rotate();
    bench.sync();
    let bytes = segment(&bench.vfs, 1);
    let true_link = {
        // What the writer wrote.
        let payload = &segment(&bench.vfs, 2)[4096 + 24..4096 + BEGIN as usize];
        match ends::decode_begin(payload, FileNumber(2)).unwrap() {
            Predecessor::Follows(link) => link,
            Predecessor::Barrier => panic!("it follows"),
        }
    };
    let told_from = |first, link: Link| {
        let disk = with(&bench.vfs, 1, &bytes);
        disk.remove(&wal_path(2)).unwrap();
        let second = spare(&disk, 2, 8192, true);
        let mut log = LogWriter::start(IDENTITY, second, Seqno(first), Predecessor::Follows(link));
        log.take_group().write().unwrap();
        replay_all(&disk, 1)
    };
    let told = |link: Link| told_from(11, link);
    assert_eq!(corrupt_at(told_from(12, true_link)), (wal_path(2), 4096));
    assert_eq!(told(true_link).unwrap().0.len(), 5);
    let tail = true_link.final_length;
    assert_eq!(corrupt_at(told(Link { digest: 1, ..true_link })), (wal_path(1), tail));
    let seqno = Link { last_seqno: Seqno(9), ..true_link };
    assert_eq!(corrupt_at(told(seqno)), (wal_path(1), tail));
    let shorter = Link { final_length: last as u64, ..true_link };
    assert_eq!(corrupt_at(told(shorter)), (wal_path(1), last as u64));
    let longer = Link { final_length: tail + 24, synced_length: tail + 8, ..true_link };
    assert_eq!(corrupt_at(told(longer)), (wal_path(1), tail));
    let unsynced = Link { final_length: tail + 24, synced_length: tail, ..true_link };
    let (records, report) = told(unsynced).unwrap();
    assert_eq!((records.len(), report.bytes_dropped), (5, 24 + BEGIN));
}

#[test]
fn a_segment_of_another_length_is_refused() {
    let (bench, _) = five();
    let whole = segment(&bench.vfs, 1);
    for len in [8191, 8184, bench.log.tail() as usize] {
        assert_eq!(
            corrupt_at(replay_all(&with(&bench.vfs, 1, &whole[..len]), 1)),
            (wal_path(1), len as u64)
        );
    }
    let mut longer = whole;
    longer.resize(12_288, 0);
    assert_eq!(corrupt_at(replay_all(&with(&bench.vfs, 1, &longer), 1)), (wal_path(1), 8192));
}

/// Planted: the number of a close mark is not compared with the manifest's.
#[test]
fn a3_a_log_closed_at_another_number_than_the_manifest_says_is_refused() {
    let mut bench = Bench::new(8192);
    bench.append(2, 5, AppendPath::Staged);
    bench.sync();
    bench.log.append_close_mark();
    bench.sync();
    let (vfs, numbers): (Arc<dyn Vfs>, _) = (Arc::new(bench.vfs.clone()), [FileNumber(1)]);
    for last in 1..=3 {
        let newest = Some(FileNumber(1));
        let told = KnownLog { newest, last_seqno: Seqno(last), closed: true, ..known(1) };
        let found =
            replay(&vfs, Path::new(DIR), &IDENTITY, &told, &numbers, &OneByOne, &mut |_| Ok(()));
        assert_eq!(found.is_ok(), last == 2, "{last}: {found:?}");
    }
}

/// Goal: the rule holds without a manifest; `verify` then accepts any number.
///
/// Planted: the number of a begin record is not checked.
#[test]
fn c1_a_segment_that_begins_beyond_the_last_number_is_refused() {
    let vfs = MemVfs::new();
    vfs.create_dir_all(Path::new(DIR)).unwrap();
    let first = Seqno(crate::limits::SEQNO_ON_DISK_MAX + 1);
    let segment = spare(&vfs, 1, 8192, false);
    let mut log = LogWriter::start(IDENTITY, segment, first, Predecessor::Barrier);
    log.take_group().write().unwrap();
    assert_eq!(corrupt_at(replay_all(&vfs, 1)), (wal_path(1), 4096));
}

/// Goal: every number in a record or its payload may be anything, with a valid checksum.
///
/// Planted: the numbers of a record are added without a check.
#[test]
fn c4_made_up_numbers_in_records_are_refused_or_harmless() {
    use super::record::{RecordHeader, RecordSeed, encode, kind};
    use crate::codec::crc;
    let (bench, last) = five();
    let whole = segment(&bench.vfs, 1);
    let seed = RecordSeed::new(&IDENTITY, FileNumber(1));
    let numbers = [0, 1, 9, 1 << 32, SEQNO_ON_DISK_MAX, SEQNO_MAX, 1 << 63, u64::MAX - 1, u64::MAX];
    let payload = &whole[last + 24..bench.log.tail() as usize];
    let (mut believed, mut refused) = (0, 0);
    for kind in 0..=kind::CHANGE + 1 {
        for seqno in numbers {
            for synced_to in [0, 4096, u64::from(u32::MAX) * 8] {
                for len in [0, 8, 21, 40, payload.len() as u32, 1 << 31, u32::MAX] {
                    let covered = payload.get(..len as usize).unwrap_or_default();
                    let first_seqno = Seqno(seqno);
                    let header = RecordHeader { len, synced_to, kind, flags: 0, first_seqno };
                    let (head, _) = encode(seed, last as u64, &header, crc(covered));
                    let mut bytes = whole.clone();
                    bytes[last..last + 24].copy_from_slice(&head);
                    bytes[last + 24 + covered.len()..].fill(0);
                    match replay_all(&with(&bench.vfs, 1, &bytes), 1) {
                        Ok((records, _)) => {
                            believed += 1;
                            assert!((4..=5).contains(&records.len()));
                        }
                        Err(_) => refused += 1,
                    }
                }
            }
        }
    }
    assert!(believed > 10 && refused > 100, "{believed}, {refused}");
    // What the begin record of a segment says about the segment before.
    for number in numbers {
        for field in 0..5 {
            let mut link = [0_u8; 40];
            link[..8].copy_from_slice(&1_u64.to_le_bytes());
            link[field * 8..][..8].copy_from_slice(&number.to_le_bytes());
            let Some(Predecessor::Follows(link)) = ends::decode_begin(&link, FileNumber(2)) else {
                continue;
            };
            let disk = with(&bench.vfs, 1, &whole);
            let second = spare(&disk, 2, 8192, true);
            let mut log = LogWriter::start(IDENTITY, second, Seqno(11), Predecessor::Follows(link));
            log.take_group().write().unwrap();
            let _ = replay_all(&disk, 1);
        }
    }
}

/// Planted: the last number of a batch is not checked.
#[test]
fn c1_a_batch_that_goes_beyond_the_last_number_is_refused() {
    for (first, fits) in [(SEQNO_ON_DISK_MAX - 5, true), (SEQNO_ON_DISK_MAX - 4, false)] {
        let vfs = MemVfs::new();
        vfs.create_dir_all(Path::new(DIR)).unwrap();
        let segment = spare(&vfs, 1, 8192, false);
        let mut log = LogWriter::start(IDENTITY, segment, Seqno(first), Predecessor::Barrier);
        let payload = batch(first, 5, 1);
        let crc = crate::codec::crc(&payload);
        log.append(Seqno(first), 5, &payload, crc, AppendPath::Staged);
        log.take_group().write().unwrap();
        let found = replay_all(&vfs, 1);
        assert_eq!(found.is_ok(), fits, "{first}: {found:?}");
    }
}

/// Goal: zeros are passed in pieces, and a record behind them is found wherever it begins.
/// Method: a record is zeroed that the next one confirms, for each length that it can have up to
/// two pages. Planted: passing a piece too many.
#[test]
fn a_record_behind_zeros_is_found_wherever_it_begins() {
    for value_len in (0..8192).step_by(8) {
        let mut bench = Bench::new(32 << 10);
        let zeroed = bench.append(1, value_len, AppendPath::Staged).offset;
        bench.sync();
        let confirming = bench.append(1, 21, AppendPath::Staged).offset;
        bench.sync();
        let bytes = zeroed as usize..confirming as usize;
        alter(&bench.vfs, 1, |segment| segment[bytes].fill(0));
        assert_eq!(corrupt_at(bench.replay()), (wal_path(1), zeroed), "{value_len} bytes");
    }
}

/// Goal: what was never written to costs no reads. Method: count those of a short log before a long
/// spare that was only allocated.
#[test]
fn a_spare_that_was_never_written_to_is_not_read() {
    let mut bench = Bench::new(8192);
    bench.append(2, 21, AppendPath::Staged);
    bench.sync();
    let faulty = FaultVfs::over_mem(&bench.vfs);
    let control = faulty.control();
    let disk: Arc<dyn Vfs> = Arc::new(faulty);
    let dir = Path::new(DIR);
    allocate_spare(&disk, dir, &IDENTITY, FileNumber(2), 16 << 20, true).unwrap();
    let before = control.count(OperationKind::Read);
    let numbers = [FileNumber(1), FileNumber(2)];
    let log =
        replay(&disk, dir, &IDENTITY, &known(1), &numbers, &OneByOne, &mut |_| Ok(())).unwrap();
    let reads = control.count(OperationKind::Read) - before;
    assert!(log.records == 1 && reads < 10, "{log:?}: {reads} reads");
}
