//! Damage at every byte, crashes at every operation, and the golden bytes.

use super::frame::RecordType;
use super::*;
use crate::codec::extremes::{extremes, extremes_with_crc};
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::key::{Seqno, Span};
use crate::version::testing::slice;
use crate::version::{
    ChangeId, Image, Landed, Place, RangeId, Shards, SliceMeta, SliceName, TablePart, VersionEdit,
};
use crate::vfs::fault::{EIO, ENOSPC};
use crate::vfs::mem::{CrashKind, MemVfs};
use crate::vfs::{DiskOperation, Fault, FaultControl, FaultVfs, OperationKind, Vfs};
use std::path::Path;
use std::sync::Arc;

mod unsynced;

const DIR: &str = "/db";
const DB_ID: [u8; 16] = *b"0123456789abcdef";

fn disk() -> Arc<dyn Vfs> {
    let vfs = MemVfs::new();
    vfs.create_dir_all(Path::new(DIR)).unwrap();
    vfs.sync_dir(Path::new("/")).unwrap();
    Arc::new(vfs)
}

fn create(vfs: &Arc<dyn Vfs>) -> ManifestWriter {
    let image = Image::of_new_database(FileNumber(1), &[], 4);
    ManifestWriter::create(vfs, Path::new(DIR), DB_ID, FileNumber(1), image).unwrap()
}

fn name(table: u64, min_key: &'static [u8]) -> SliceName {
    SliceName { table: FileNumber(table), min_key: min_key.into() }
}

fn edits() -> Vec<VersionEdit> {
    let r = RangeId::FIRST;
    let meta =
        |number, min: &[u8], max: &[u8], bytes| slice(number, min, max, bytes).meta().clone();
    let whole = meta(6, b"apple", b"zebra", 2500);
    let part = |min: &'static [u8], max: &'static [u8]| {
        let (min_key, max_key) = (min.into(), max.into());
        let part = TablePart { min_key, max_key, file_bytes: 1000, entries: 10, tombstones: 0 };
        SliceMeta { part: Some(Arc::new(part)), ..whole.clone() }
    };
    let (left, right) = (part(b"apple", b"fig"), part(b"melon", b"zebra"));
    // A span is excised from a table, and another table takes its place.
    let landed = Some(Landed { epoch: 1, at_ms: 1_790_000_000_000 });
    let lemon = meta(7, b"\x81grape", b"\x81lemon", 500);
    let foreign = SliceMeta { seqno: Some(Seqno(60)), landed, ..lemon };
    let (change, never) = (ChangeId(8), ChangeId(9));
    let cut = VersionEdit {
        deleted: vec![(r, Place::Main(1), name(6, b"apple"))],
        added: vec![
            (r, Place::Main(1), left),
            (r, Place::Main(1), right),
            (r, Place::Landing(1, 2), foreign),
        ],
        flushed: vec![(r, Seqno(60))],
        ..VersionEdit::default()
    };
    vec![
        VersionEdit {
            added: vec![(r, Place::L0, meta(2, b"apple", b"melon", 1000))],
            flushed: vec![(r, Seqno(29))],
            next_file_number: Some(FileNumber(4)),
            last_seqno: Some(Seqno(29)),
            ..VersionEdit::default()
        },
        VersionEdit {
            added: vec![(r, Place::L0, meta(4, b"banana", b"zebra", 2000))],
            flushed: vec![(r, Seqno(49))],
            log_floor: Some(FileNumber(3)),
            next_file_number: Some(FileNumber(6)),
            last_seqno: Some(Seqno(49)),
            newest_segment: Some(FileNumber(5)),
            ..VersionEdit::default()
        },
        VersionEdit {
            deleted: vec![(r, Place::L0, name(2, b"apple")), (r, Place::L0, name(4, b"banana"))],
            added: vec![(r, Place::Main(1), whole.clone())],
            next_file_number: Some(FileNumber(7)),
            ..VersionEdit::default()
        },
        VersionEdit {
            prepared: vec![(change, cut), (never, VersionEdit::default())],
            next_file_number: Some(FileNumber(10)),
            ..VersionEdit::default()
        },
        VersionEdit {
            shards_moved: vec![(
                r,
                Shards::at(&Span::all(), vec![b"k".as_slice().into()]).unwrap(),
            )],
            settled: vec![(change, Seqno(1))],
            abandoned: vec![never],
            last_seqno: Some(Seqno(60)),
            ..VersionEdit::default()
        },
    ]
}

fn reload(vfs: &Arc<dyn Vfs>) -> Result<LoadedManifest> {
    let current = read_current(vfs, Path::new(DIR))?.expect("CURRENT is there");
    load(vfs, Path::new(DIR), &current)
}

fn bytes_of(vfs: &Arc<dyn Vfs>, kind: FileKind) -> Vec<u8> {
    let file = vfs.open(&kind.path(Path::new(DIR))).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn overwrite(vfs: &Arc<dyn Vfs>, kind: FileKind, bytes: &[u8]) {
    let file = vfs.open_rw(&kind.path(Path::new(DIR))).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

/// A manifest with five edits, the images before and after each, and the end of each record.
fn sample() -> (Arc<dyn Vfs>, Vec<Image>, Vec<u64>) {
    let vfs = disk();
    let mut writer = create(&vfs);
    let mut images = vec![writer.image().clone()];
    let mut ends = vec![writer.bytes()];
    for edit in edits() {
        writer.append(&edit).unwrap();
        images.push(writer.image().clone());
        ends.push(writer.bytes());
    }
    (vfs, images, ends)
}

const MANIFEST: FileKind = FileKind::Manifest(FileNumber(1));

#[test]
fn what_was_appended_is_read_back() {
    let (vfs, images, ends) = sample();
    let loaded = reload(&vfs).unwrap();
    assert_eq!(loaded.image, images[5]);
    assert_eq!((loaded.records, loaded.bytes), (6, ends[5]));
    assert_eq!(loaded.torn, None);
    assert_eq!(loaded.db_id, DB_ID);
    assert!(loaded.writable);
}

#[test]
fn t000_20_every_damaged_byte_is_noticed() {
    let (vfs, images, ends) = sample();
    let good = bytes_of(&vfs, MANIFEST);
    for at in 0..good.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            overwrite(&vfs, MANIFEST, &bad);
            match reload(&vfs) {
                Err(Error::Corrupt { path, .. }) => {
                    assert!(path.ends_with("MANIFEST-000001"));
                    assert!((at as u64) < ends[4], "byte {at}: the last edit may be torn");
                }
                Err(other) => panic!("byte {at}: {other}"),
                Ok(loaded) => {
                    assert!(at as u64 >= ends[4], "byte {at} was damaged and nobody noticed");
                    assert_eq!(loaded.image, images[4]);
                    let torn = loaded.torn.expect("reported");
                    assert_eq!((torn.offset, torn.bytes_dropped), (ends[4], ends[5] - ends[4]));
                }
            }
        }
    }
}

#[test]
fn every_damaged_byte_of_current_is_noticed() {
    let (vfs, ..) = sample();
    let good = bytes_of(&vfs, FileKind::Current);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        overwrite(&vfs, FileKind::Current, &bad);
        assert!(matches!(reload(&vfs), Err(Error::Corrupt { .. })), "byte {at}");
        overwrite(&vfs, FileKind::Current, &good[..at]);
        assert!(matches!(reload(&vfs), Err(Error::Corrupt { .. })), "length {at}");
    }
}

/// Another manifest of the same number, database and length, with valid checksums, was put in the
/// place of the one that `CURRENT` names.
/// Planted: the digest is not compared.
#[test]
fn d3_a_snapshot_that_current_does_not_confirm_is_refused() {
    let with_split = |key: &'static [u8]| {
        let vfs = disk();
        let image = Image::of_new_database(FileNumber(1), &[key.into()], 1);
        ManifestWriter::create(&vfs, Path::new(DIR), DB_ID, FileNumber(1), image).unwrap();
        vfs
    };
    let (vfs, other) = (with_split(b"m"), with_split(b"n"));
    let (mine, theirs) = (bytes_of(&vfs, MANIFEST), bytes_of(&other, MANIFEST));
    assert!(mine != theirs && mine.len() == theirs.len());
    reload(&vfs).unwrap();
    overwrite(&vfs, MANIFEST, &theirs);
    let error = reload(&vfs).expect_err("CURRENT was written for the other one");
    assert!(
        matches!(error, Error::Corrupt { .. }) && error.to_string().contains("digest"),
        "{error}"
    );
}

#[test]
fn t000_20_a_cut_file_loses_only_edits_that_were_not_confirmed() {
    let (vfs, images, ends) = sample();
    let good = bytes_of(&vfs, MANIFEST);
    for length in 0..good.len() as u64 {
        overwrite(&vfs, MANIFEST, &good[..length as usize]);
        let whole = ends.iter().filter(|end| **end <= length).count();
        match reload(&vfs) {
            Err(Error::Corrupt { .. }) => assert_eq!(whole, 0, "length {length}"),
            Err(other) => panic!("length {length}: {other}"),
            Ok(loaded) => {
                assert_eq!(loaded.image, images[whole - 1]);
                assert_eq!(loaded.torn.is_some(), length != ends[whole - 1]);
            }
        }
    }
}

#[test]
fn t000_20_junk_after_the_end_is_torn_but_not_after_a_clean_close() {
    let (vfs, images, _) = sample();
    let mut bytes = bytes_of(&vfs, MANIFEST);
    bytes.extend_from_slice(&[0; 100]);
    overwrite(&vfs, MANIFEST, &bytes);
    let loaded = reload(&vfs).unwrap();
    assert_eq!(loaded.image, images[5]);
    assert_eq!(loaded.torn.map(|torn| torn.bytes_dropped), Some(100));

    let vfs = disk();
    create(&vfs).append(&VersionEdit { clean_close: true, ..VersionEdit::default() }).unwrap();
    let mut bytes = bytes_of(&vfs, MANIFEST);
    bytes.push(0);
    overwrite(&vfs, MANIFEST, &bytes);
    let error = reload(&vfs).unwrap_err();
    assert!(error.to_string().contains("clean close"), "{error}");
}

/// Goal: a key that a client wrote never prevents an open, and costs no more than a look at it.
/// Method: behind the last edit there is a torn one, made of headers. Each of them claims all the
/// rest and confirms all before it. Checksumming each of them from start to end would read some 20
/// GB. With a valid witness behind them, the manifest still counts as damaged.
///
/// Planted: a candidate is checksummed from start to end; a budget that refuses when it is used up.
#[test]
fn bytes_made_to_look_like_edits_are_a_torn_edit() {
    let (vfs, images, ends) = sample();
    let good = bytes_of(&vfs, MANIFEST);
    let torn_at = ends[5];
    let mut crafted = good.clone();
    crafted.resize(good.len() + (1 << 20), 0);
    for at in (good.len()..crafted.len() - 24).step_by(24) {
        let length = (crafted.len() - at - 24) as u32;
        crafted[at + 4..at + 8].copy_from_slice(&length.to_le_bytes());
        crafted[at + 8] = RecordType::Edit as u8;
        crafted[at + 12..at + 16].copy_from_slice(&1_u32.to_le_bytes());
        crafted[at + 16..at + 24].copy_from_slice(&(at as u64).to_le_bytes());
    }
    overwrite(&vfs, MANIFEST, &crafted);
    let loaded = reload(&vfs).unwrap();
    assert_eq!((loaded.image, loaded.bytes), (images[5].clone(), torn_at));
    for (synced_to, confirms) in [(torn_at, false), (torn_at + 1, true)] {
        let identity = frame::Identity { db_id: DB_ID, number: FileNumber(1) };
        let (at, payload) = (crafted.len() as u64, vec![0; 3000]);
        let mut bytes = crafted.clone();
        let edit = RecordType::Edit;
        frame::encode_record(&mut bytes, &identity, at, edit, synced_to, &payload).unwrap();
        bytes.extend_from_slice(&[7; 100]);
        overwrite(&vfs, MANIFEST, &bytes);
        match reload(&vfs) {
            Ok(loaded) => assert!(!confirms && loaded.bytes == torn_at),
            Err(error) => {
                assert!(confirms && error.to_string().contains(&at.to_string()), "{error}");
            }
        }
    }
}

#[test]
fn rolling_over_keeps_everything_and_a_crash_anywhere_finds_old_or_new() {
    let mem = MemVfs::new();
    mem.create_dir_all(Path::new(DIR)).unwrap();
    mem.sync_dir(Path::new("/")).unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
    let mut writer = create(&vfs);
    writer.set_roll_bytes(1);
    assert!(!writer.wants_roll_over());
    for edit in edits() {
        writer.append(&edit).unwrap();
    }
    assert!(writer.wants_roll_over());
    let before = writer.image().clone();
    let images = mem.record_images(1);
    assert_eq!(writer.roll_over(FileNumber(9), None).unwrap(), FileNumber(1));
    assert_eq!(writer.image().next_file_number, FileNumber(10));
    mem.clear_hook();
    let mut seen = [0, 0];
    for (operation, image) in images.take() {
        for kind in CrashKind::each(7) {
            let vfs: Arc<dyn Vfs> = Arc::new(image.crash_clone(kind));
            let loaded = reload(&vfs).unwrap_or_else(|e| panic!("{operation:?} {kind:?}: {e}"));
            assert_eq!(loaded.image.slices, before.slices);
            seen[usize::from(loaded.number == FileNumber(9))] += 1;
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    assert_eq!(reload(&vfs).unwrap().image, *writer.image());
}

#[test]
fn a_conflicting_edit_is_refused_and_the_writer_goes_on() {
    let vfs = disk();
    let mut writer = create(&vfs);
    let bad = VersionEdit {
        deleted: vec![(RangeId::FIRST, Place::Main(1), name(77, b"a"))],
        ..VersionEdit::default()
    };
    assert!(matches!(writer.append(&bad), Err(Error::Invalid { .. })));
    writer.append(&edits()[0]).unwrap();
    assert_eq!(reload(&vfs).unwrap().records, 2);
}

/// A disk, and a manifest on it with one edit.
fn started(edit: &VersionEdit) -> (MemVfs, FaultControl, ManifestWriter) {
    let mem = MemVfs::new();
    mem.create_dir_all(Path::new(DIR)).unwrap();
    mem.sync_dir(Path::new("/")).unwrap();
    let faulty = FaultVfs::over_mem(&mem);
    let control = faulty.control();
    let vfs: Arc<dyn Vfs> = Arc::new(faulty);
    let mut writer = create(&vfs);
    writer.append(edit).unwrap();
    (mem, control, writer)
}

/// What an append or a roll-over that failed at operation `k` left; `None` if nothing failed.
fn fails_at(
    k: u64,
    roll: bool,
    fault: Fault,
) -> Option<(DiskOperation, Result<()>, ManifestWriter, MemVfs)> {
    let (mem, control, mut writer) = started(&edits()[0]);
    control.arm(fault.after(k));
    let result = if roll {
        writer.roll_over(FileNumber(4), Some(&edits()[1])).map(drop)
    } else {
        writer.append(&edits()[1])
    };
    let fired = control.fired().pop()?;
    Some((fired, result, writer, mem))
}

/// Each operation finds no space once; a write also after it wrote half. Unless it is the sync of
/// the manifest that `CURRENT` names, or the swap itself, the old state is kept, no file is left
/// behind, and the next edit is accepted.
#[test]
fn a8a_no_space_leaves_a_known_state_and_the_next_edit_is_taken() {
    let refused = Fault::any().errno(ENOSPC);
    let half = refused.clone().partial_write();
    let (mut resumed, mut ended) = (Vec::new(), Vec::new());
    for (roll, fault) in
        [(false, refused.clone()), (false, half.clone()), (true, refused), (true, half)]
    {
        for k in 0.. {
            let Some((operation, result, mut writer, mem)) = fails_at(k, roll, fault.clone())
            else {
                break;
            };
            let what = format!("roll {roll} {operation:?}");
            let disk: Arc<dyn Vfs> = Arc::new(mem.kill_clone());
            assert!(result.unwrap_err().is_no_space(), "{what}");
            if writer.failure().is_some() {
                ended.push((operation.kind, roll));
                reload(&disk).unwrap();
                continue;
            }
            resumed.push((operation.kind, roll));
            let found = reload(&disk).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!((found.number, &found.image), (FileNumber(1), writer.image()), "{what}");
            let names = disk.list(Path::new(DIR)).unwrap();
            assert_eq!(names.len(), 2, "{what}: {names:?}");
            if writer.must_roll_over() {
                assert_eq!(
                    writer.roll_over(FileNumber(5), Some(&edits()[1])).unwrap(),
                    FileNumber(1)
                );
            } else {
                writer.append(&edits()[1]).unwrap();
            }
            writer.append(&edits()[2]).unwrap();
            for kind in CrashKind::each(k) {
                let disk: Arc<dyn Vfs> = Arc::new(mem.crash_clone(kind));
                assert_eq!(&reload(&disk).unwrap().image, writer.image(), "{what} {kind:?}");
            }
        }
    }
    for kind in
        [OperationKind::Create, OperationKind::Write, OperationKind::Sync, OperationKind::Rename]
    {
        assert!(resumed.contains(&(kind, true)), "{kind:?}: {resumed:?}");
    }
    assert!(resumed.contains(&(OperationKind::Write, false)), "{resumed:?}");
    assert_eq!(ended, [(OperationKind::Sync, false), (OperationKind::SyncDir, true)]);
}

/// A failed sync: nobody knows what is on the device.
#[test]
fn a8a_a_write_that_failed_for_another_reason_is_final() {
    let (_, result, writer, _) = fails_at(0, false, Fault::any().errno(EIO)).unwrap();
    assert!(result.is_err() && writer.failure().is_some());
}

/// Goal: a record, the header and `CURRENT` may claim anything, with valid checksums.
///
/// Planted: the length of a snapshot is trusted.
#[test]
fn c4_made_up_numbers_are_refused_or_harmless() {
    let (vfs, images, _) = sample();
    let current = bytes_of(&vfs, FileKind::Current);
    extremes_with_crc(&current, current.len() - 4, |bytes| {
        overwrite(&vfs, FileKind::Current, bytes);
        assert!(reload(&vfs).is_err() || bytes[..60] == current[..60] || bytes[50..60] != [0; 10]);
    });
    overwrite(&vfs, FileKind::Current, &current);

    let good = bytes_of(&vfs, MANIFEST);
    let identity = frame::Identity { db_id: DB_ID, number: FileNumber(1) };
    extremes_with_crc(&good[..frame::HEADER_BYTES], frame::HEADER_BYTES - 4, |header| {
        overwrite(&vfs, MANIFEST, &[header, &good[frame::HEADER_BYTES..]].concat());
        let _ = reload(&vfs);
        let _ = frame::decode_header(Path::new("m"), FileNumber(1), header);
    });
    // One more edit, with every kind of field.
    let mut edit = Vec::new();
    for each in edits() {
        each.encode(&mut edit);
    }
    extremes(&edit, |payload| {
        let mut bytes = good.clone();
        let at = good.len() as u64;
        let kind = RecordType::Edit;
        frame::encode_record(&mut bytes, &identity, at, kind, at, &payload).unwrap();
        overwrite(&vfs, MANIFEST, &bytes);
        if let Ok(loaded) = reload(&vfs) {
            let _ = loaded.image.contradictions();
        }
    });
    // The record's own header; its checksum is wrong then.
    for at in 0..frame::RECORD_HEADER_BYTES {
        for byte in [0, 0x7F, 0x80, 0xFF] {
            let mut bytes = good.clone();
            bytes[frame::HEADER_BYTES + at..][..1].fill(byte);
            let _ = frame::parse_record(&identity, &bytes, frame::HEADER_BYTES);
            let _ = frame::find_witness(&identity, &bytes, 0);
        }
    }
    overwrite(&vfs, MANIFEST, &good);
    assert_eq!(reload(&vfs).unwrap().image, images[5]);
}

#[test]
fn the_bytes_are_those_of_the_golden_files() {
    let (vfs, images, _) = sample();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = [("manifest-v3.bin", MANIFEST), ("current-v3.bin", FileKind::Current)];
    for (name, kind) in files {
        let path = golden.join(name);
        if std::env::var_os("SLUICE_WRITE_GOLDEN").is_some() {
            std::fs::create_dir_all(&golden).unwrap();
            std::fs::write(&path, bytes_of(&vfs, kind)).unwrap();
        }
        let want = std::fs::read(&path).unwrap();
        assert_eq!(bytes_of(&vfs, kind), want, "{name}: the format changed");
        overwrite(&vfs, kind, &want);
    }
    assert_eq!(reload(&vfs).unwrap().image, images[5]);
    // As it was written before a settled change recorded its sequence number.
    overwrite(&vfs, MANIFEST, &std::fs::read(golden.join("manifest-v3-writer-1.bin")).unwrap());
    assert_eq!(reload(&vfs).unwrap().image, images[5]);
}
