//! The log as a whole, on a simulated disk that loses unsynced data. This file has the shared
//! bench, and tests of everyday use.

mod bench;
mod change;
mod damage;
mod golden;
mod sweep;

use super::*;
use crate::batch::WriteBatch;
use crate::change::ChangeId;
use crate::codec::crc;
use crate::error::{Error, Result};
use crate::filename::FileKind;
use crate::side_by_side::OneByOne;
use crate::vfs::{CrashKind, DiskVfs, Fault, FaultVfs, MemVfs, OperationKind, Vfs};
use bench::*;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

#[test]
fn what_was_appended_is_replayed() {
    for can_map in [true, false] {
        let vfs = MemVfs::new();
        vfs.set_can_map(can_map);
        let mut bench = Bench::on(vfs, 64 << 10);
        assert_eq!(bench.log.is_mapped(), can_map);
        for i in 0..20 {
            let path = if i % 3 == 0 { AppendPath::Staged } else { AppendPath::Mapped };
            let appended = bench.append(1 + i % 4, 10 * i as usize, path);
            assert_eq!(appended.in_file, can_map && path == AppendPath::Mapped);
            if i % 7 == 6 {
                bench.sync();
            }
            if i % 10 == 9 {
                bench.rotate();
            }
        }
        bench.sync();
        let (records, report) = bench.replay().unwrap();
        assert_eq!(records.len(), 20);
        assert_eq!(report.records, 20);
        assert_eq!(report.last_seqno, Seqno(bench.next - 1));
        assert_eq!(report.reason, TailReason::End);
        assert_eq!((report.bytes_dropped, report.clean_close), (0, false));
        let numbers: Vec<_> = report.segments.iter().map(|s| s.number.0).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(report.segments[0].last_seqno.0 + 1, report.segments[1].first_seqno.0);
        let mut next = 1;
        for (first, said) in records {
            assert_eq!(first, next);
            let Said::Batch(payload) = said else { panic!("{said:?}") };
            let mut operations = crate::batch::PointOperations::new(&payload);
            next += operations.by_ref().count() as u64;
            assert_eq!(operations.malformed_at(), None);
        }
    }
}

#[test]
fn an_empty_directory_and_unused_spares_are_an_empty_log() {
    let vfs = MemVfs::new();
    vfs.create_dir_all(Path::new(DIR)).unwrap();
    assert_eq!(replay_all(&vfs, 1).unwrap().1.reason, TailReason::Empty);
    let first = spare(&vfs, 1, 8192, true);
    let _ = spare(&vfs, 2, 8192, false);
    let (records, report) = replay_all(&vfs, 1).unwrap();
    assert_eq!((records.len(), report.reason, report.segment), (0, TailReason::Empty, None));
    // A log that was started but is empty has used no sequence number.
    let mut log = LogWriter::start(IDENTITY, first, Seqno(77), Predecessor::Barrier);
    log.take_group().write().unwrap();
    let (_, report) = replay_all(&vfs, 1).unwrap();
    assert_eq!((report.reason, report.last_seqno), (TailReason::End, Seqno(76)));
}

/// Goal: the former life of a recycled segment never makes a log unreadable (found by `sluice
/// demo`, whose values are binary files).
/// Method: behind the last record there are headers with this segment's number that claim long
/// payloads. In total they claim many times more bytes than a reader is willing to checksum.
#[test]
fn bytes_that_look_like_headers_do_not_refuse_a_log() {
    const SEGMENT_BYTES: u64 = 256 << 10;
    let mut bench = Bench::new(SEGMENT_BYTES);
    bench.append(3, 40, AppendPath::Mapped);
    bench.sync();
    let file = bench.vfs.open_rw(&wal_path(1)).unwrap();
    let mut at = bench.log.tail().next_multiple_of(4096);
    while at + 24 <= SEGMENT_BYTES {
        let mut head = [0_u8; 24];
        head[4..8].copy_from_slice(&((SEGMENT_BYTES - at - 24) as u32).to_le_bytes());
        head[12..14].copy_from_slice(&1_u16.to_le_bytes());
        head[14] = 1;
        // Small numbers, as in tables of offsets, and large ones, as in code.
        head[16..24].copy_from_slice(&(at * 0x0001_0000_0001).to_le_bytes());
        file.write_all_at(&head, at).unwrap();
        at += 24;
    }
    let (records, report) = bench.replay().unwrap();
    assert_eq!((records.len(), report.last_seqno), (1, Seqno(3)));
}

#[test]
fn a_closed_log_says_so() {
    let mut bench = Bench::new(8192);
    bench.append(3, 10, AppendPath::Staged);
    bench.sync();
    bench.log.append_close_mark();
    let group = bench.sync();
    assert_eq!(group.upto(), Seqno(3));
    let (records, report) = bench.replay().unwrap();
    assert_eq!((records.len(), report.clean_close), (1, true));
    assert_eq!((report.reason, report.last_seqno), (TailReason::Closed, Seqno(3)));
}

#[test]
fn a_group_takes_everything_once() {
    let mut bench = Bench::new(16 << 10);
    assert!(bench.log.take_group().is_empty());
    bench.append(1, 100, AppendPath::Mapped);
    let mapped = bench.log.take_group();
    assert_eq!((mapped.is_empty(), mapped.staged_bytes()), (false, 0), "stored, but to be synced");
    bench.append(2, 100, AppendPath::Staged);
    let staged = bench.log.take_group();
    assert_eq!((mapped.upto(), staged.upto()), (Seqno(1), Seqno(3)));
    assert!(staged.staged_bytes() > 200);
    assert!(bench.log.take_group().is_empty());
    for group in [mapped, staged] {
        group.write().unwrap();
        bench.log.written(&group);
        bench.report_synced(&group.into());
    }
    assert!(bench.log.wants_watermark());
    assert!(bench.log.append_watermark());
    assert!(!bench.log.wants_watermark(), "once is enough");
    bench.sync();
    assert!(!bench.log.wants_watermark(), "a watermark is not confirmed");
    assert_eq!(bench.replay().unwrap().0.len(), 2);
}

/// What is written and not synced costs the log nothing, however much it is.
///
/// Planted: groups that stay in flight until they are synced.
#[test]
fn groups_that_are_written_are_forgotten() {
    let mut bench = Bench::new(1 << 20);
    let mut unsynced = Unsynced::default();
    for _ in 0..100 {
        bench.append(1, 100, AppendPath::Staged);
        unsynced.add(bench.write());
        assert!(format!("{:?}", bench.log).contains("in_flight: 0"), "{:?}", bench.log);
    }
    bench.report_synced(&unsynced);
    assert_eq!(bench.replay().unwrap().0.len(), 100);
}

/// A record that could be stored does not copy the large ones before it, which are being written.
///
/// Planted: no bound.
#[test]
fn a_stored_record_waits_for_large_ones_rather_than_copy_them() {
    let mut bench = Bench::new(16 << 20);
    bench.append(1, 100, AppendPath::Staged);
    assert!(bench.append(1, 100, AppendPath::Mapped).in_file, "a small one is copied");
    bench.append(1, 5 << 20, AppendPath::Staged);
    assert!(!bench.append(1, 100, AppendPath::Mapped).in_file, "it is staged");
    let group = bench.log.take_group();
    assert!(!bench.append(1, 100, AppendPath::Mapped).in_file, "it is being written");
    group.write().unwrap();
    bench.log.written(&group);
    assert!(bench.append(1, 100, AppendPath::Mapped).in_file, "the large one is written");
    bench.write();
    assert_eq!(bench.replay().unwrap().0.len(), 6);
}

#[test]
fn rotation_seals_and_the_successor_confirms() {
    let mut bench = Bench::new(8192);
    bench.append(1, 10, AppendPath::Staged);
    bench.rotate();
    bench.append(1, 10, AppendPath::Mapped);
    let group = bench.sync();
    assert_eq!(group.sealed().len(), 1);
    let sealed = &group.sealed()[0];
    assert_eq!((sealed.number, sealed.path.clone()), (FileNumber(1), wal_path(1)));
    assert_eq!((sealed.first_seqno, sealed.last_seqno, sealed.bytes), (Seqno(1), Seqno(1), 8192));
    assert!(bench.sync().is_empty());
    assert!(bench.log.wants_watermark());
    bench.log.append_watermark();
    bench.sync();
    bench.rotate();
    bench.sync();
    assert!(bench.log.wants_watermark(), "for the end of the older segment");
    assert_eq!(bench.log.tail(), 4096 + BEGIN);
    assert_eq!(bench.replay().unwrap().0.len(), 2);
}

#[test]
fn the_older_segment_is_synced_first() {
    let mut bench = Bench::new(8192);
    bench.append(1, 10, AppendPath::Staged);
    bench.rotate();
    bench.append(1, 10, AppendPath::Staged);
    let images = bench.vfs.record_images(1);
    bench.sync();
    let done: Vec<_> =
        images.take().into_iter().map(|(done, _)| (done.kind, done.path, done.len)).collect();
    // The fault injection knows a handle by the name under which it was created.
    let name = |number| FileKind::Spare(FileNumber(number)).path(Path::new(DIR));
    let want = [
        (OperationKind::Write, name(1), 48 + CONTINUED),
        (OperationKind::Write, name(2), BEGIN + 48),
        (OperationKind::Sync, name(1), 0),
        (OperationKind::Sync, name(2), 0),
    ];
    assert_eq!(done, want);
}

/// Planted: `Unsynced::add` forgets what the groups before it wrote to, as if only the last group
/// were synced.
#[test]
fn a1_a_sync_covers_every_segment_that_was_written_to() {
    for can_map in [false, true] {
        let vfs = MemVfs::new();
        vfs.set_can_map(can_map);
        let mut bench = Bench::on(vfs, 8192);
        bench.append(1, 10, AppendPath::Staged);
        assert!(!bench.log.has_sealed());
        bench.rotate();
        assert!(bench.log.has_sealed());
        // This group is only written, because nobody waits for a sync. The next one has nothing of
        // segment 1.
        let mut unsynced = Unsynced::from(bench.write());
        assert!(!bench.log.has_sealed());
        bench.append(1, 10, AppendPath::Staged);
        unsynced.add(bench.write());
        bench.append(1, 10, AppendPath::Staged);
        unsynced.add(bench.write());
        assert_eq!(unsynced.upto(), Seqno(3));
        let sealed: Vec<_> = unsynced.sealed().iter().map(|sealed| sealed.number.0).collect();
        assert_eq!(sealed, [1]);
        bench.report_synced(&unsynced);
        let cut = bench.vfs.crash_clone(CrashKind::DropUnsynced);
        assert_eq!(replay_all(&cut, 1).unwrap().0.len(), 3);
        // Everything durable is confirmed, and no group is in flight.
        assert!(bench.log.wants_watermark());
        assert!(bench.sync().is_empty());
    }
}

#[test]
fn records_of_any_size_fit_into_a_spare_of_the_size_they_need() {
    let vfs = MemVfs::new();
    let mut bench = Bench::on(vfs, 8192);
    let payload = batch(1, 1, 3 << 20);
    assert!(!bench.log.has_room(payload.len()));
    let needed = segment_bytes_needed(payload.len());
    assert!(needed < (3 << 20) + 3 * 4096);
    let large = bench.spare(needed);
    bench.log.rotate(large);
    assert!(bench.log.has_room(payload.len()));
    assert!(bench.append(1, 3 << 20, AppendPath::Mapped).in_file);
    assert!(bench.log.append_watermark(), "the reserve holds a watermark");
    bench.log.append_close_mark();
    bench.sync();
    let (records, report) = bench.replay().unwrap();
    assert!(records[0].1 == Said::Batch(payload));
    assert!(report.clean_close);
    // A segment of the smallest size for each length has room for the record.
    for len in 4000..4200 {
        let needed = segment_bytes_needed(len);
        let vfs = MemVfs::new();
        vfs.create_dir_all(Path::new(DIR)).unwrap();
        let only = spare(&vfs, 1, needed, false);
        let log = LogWriter::start(IDENTITY, only, Seqno(1), Predecessor::Barrier);
        assert!(log.has_room(len), "{len}");
        assert!(!log.has_room(needed as usize - 4096), "{len}");
    }
}

#[test]
fn a_full_disk_leaves_no_half_made_spare() {
    let vfs = MemVfs::new();
    vfs.create_dir_all(Path::new(DIR)).unwrap();
    vfs.set_capacity(Some(32 << 10));
    for can_map in [true, false] {
        vfs.set_can_map(can_map);
        let disk: Arc<dyn Vfs> = Arc::new(vfs.clone());
        let full = prepare_spare(&disk, Path::new(DIR), &IDENTITY, FileNumber(1), 64 << 10, true)
            .unwrap_err();
        assert_eq!(full.io_kind(), Some(std::io::ErrorKind::StorageFull), "{full}");
        assert!(vfs.list(Path::new(DIR)).unwrap().is_empty());
    }
    vfs.set_capacity(None);
    let _ = spare(&vfs, 1, 64 << 10, true);
}

/// Planted: only the `.spare` name is removed.
#[test]
fn b7_a_failed_spare_leaves_no_file_whatever_failed() {
    for kind in [OperationKind::Rename, OperationKind::SyncDir, OperationKind::Sync] {
        let mem = MemVfs::new();
        mem.create_dir_all(Path::new(DIR)).unwrap();
        let faulty = FaultVfs::over_mem(&mem);
        let control = faulty.control();
        let disk: Arc<dyn Vfs> = Arc::new(faulty);
        let dir = Path::new(DIR);
        let old = prepare_spare(&disk, dir, &IDENTITY, FileNumber(1), 8192, true).unwrap();
        let old = SealedSegment {
            number: old.number(),
            path: wal_path(1),
            first_seqno: Seqno(1),
            last_seqno: Seqno(1),
            bytes: old.bytes(),
        };
        for (number, make) in [(2, prepare_spare as fn(_, _, _, _, _, _) -> _), (3, allocate_spare)]
        {
            control.arm(Fault::of(kind));
            make(&disk, dir, &IDENTITY, FileNumber(number), 8192, true).unwrap_err();
            assert_eq!(mem.list(dir).unwrap(), ["000001.wal"], "{kind:?}");
        }
        control.arm(Fault::of(kind));
        let recycled = recycle(&disk, dir, &old, FileNumber(4), true);
        if kind == OperationKind::Sync {
            assert_eq!(recycled.unwrap().number(), FileNumber(4), "nothing of it is synced");
            continue;
        }
        recycled.unwrap_err();
        assert!(mem.list(dir).unwrap().is_empty(), "{kind:?}");
        assert_eq!(control.fired().len(), 3);
    }
}

/// Goal: removing pages from the page tables after a sync loses no concurrent store.
/// Method: the real disk; one thread appends, another one syncs as fast as it can.
#[test]
fn stores_survive_the_syncs_beside_them() {
    let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(DiskVfs::new());
    let number = FileNumber(1);
    let first = prepare_spare(&vfs, home.path(), &IDENTITY, number, 8 << 20, true).unwrap();
    let log = Mutex::new(LogWriter::start(IDENTITY, first, Seqno(1), Predecessor::Barrier));
    let payload = batch(1, 1, 200);
    let payload_crc = crc(&payload);
    let done = AtomicBool::new(false);
    let mut next = 1;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let group = log.lock().unwrap().take_group();
                group.write().unwrap();
                log.lock().unwrap().written(&group);
                let unsynced = Unsynced::from(group);
                unsynced.sync().unwrap();
                log.lock().unwrap().synced(&unsynced);
            }
        });
        loop {
            let mut log = log.lock().unwrap();
            if !log.has_room(payload.len()) {
                break;
            }
            let path = if next % 64 == 0 { AppendPath::Staged } else { AppendPath::Mapped };
            log.append(Seqno(next), 1, &payload, payload_crc, path);
            next += 1;
        }
        done.store(true, Ordering::Release);
    });
    log.into_inner().unwrap().take_group().write().unwrap();
    let mut seen = 0;
    let mut each = |entry: LogItem<'_>| {
        assert!(entry == LogItem::Batch { first: Seqno(seen + 1), payload: &payload });
        seen += 1;
        Ok(())
    };
    replay(&vfs, home.path(), &IDENTITY, &known(1), &[number], &OneByOne, &mut each).unwrap();
    assert_eq!(seen, next - 1);
}

#[test]
fn an_error_of_the_receiver_ends_replay() {
    let mut bench = Bench::new(8192);
    bench.append(1, 10, AppendPath::Mapped);
    bench.append(1, 10, AppendPath::Mapped);
    let vfs: Arc<dyn Vfs> = Arc::new(bench.vfs.clone());
    let mut calls = 0;
    let mut each = |_: LogItem<'_>| {
        calls += 1;
        Err(Error::invalid("enough"))
    };
    let dir = Path::new(DIR);
    let result = replay(&vfs, dir, &IDENTITY, &known(1), &[FileNumber(1)], &OneByOne, &mut each);
    assert!(matches!(result, Err(Error::Invalid { .. })));
    assert_eq!(calls, 1);
}
