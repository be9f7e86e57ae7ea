//! Goal: forged or damaged bytes are refused or harmless. They cause no panic and no other
//! contents, and nothing on the disk changes.
//! Method: files with valid checksums and numbers that no database gives out; damage to every byte
//! of every file.

use super::*;
use crate::keyspace::{KeyspaceId, KeyspaceSpan};
use crate::limits::{
    COUNTERS_AT_OPEN_MAX, FILE_NUMBER_MAX, RANGE_ID_AT_OPEN_MAX, RANGE_ID_MAX, SEQNO_MAX,
    SEQNO_ON_DISK_MAX,
};
use crate::table::TableMeta;
use crate::version::testing::slice;

/// The error of a refused open. `verify` must find something, and neither may change anything.
fn refused(mem: &MemVfs, context: &str) -> Error {
    let before = snapshot(mem);
    let error = open(mem).map(|_| ()).expect_err(context);
    assert!(matches!(error, Error::Corrupt { .. } | Error::Missing { .. }), "{context}: {error}");
    assert_eq!(snapshot(mem), before, "{context}: a refused open changes nothing");
    assert!(!verified(mem).is_sound(), "{context}: verify says ok");
    error
}

fn verified(mem: &MemVfs) -> crate::verify::VerifySummary {
    let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
    verify_directory(&vfs, &dir(), &mut |_, _| {}).unwrap()
}

#[test]
fn c1_a_log_that_begins_at_a_made_up_number_is_refused() {
    for first in [2, 5000, SEQNO_ON_DISK_MAX, SEQNO_MAX, 1 << 60, u64::MAX] {
        let mem = disk();
        let life = Life::start(&mem);
        let (number, vfs) = (life.log.number(), Arc::clone(&life.vfs));
        let identity = LogIdentity { db_id: life.recovered.db_id };
        drop(life);
        mem.remove(&FileKind::Wal(number).path(&dir())).unwrap();
        let spare = prepare_spare(&vfs, &dir(), &identity, number, SEGMENT_BYTES, false).unwrap();
        let mut log = LogWriter::start(identity, spare, Seqno(first), Predecessor::Barrier);
        log.take_group().write().unwrap();
        refused(&mem, &format!("first seqno {first}"));
    }
}

#[test]
fn c1_c4_a_manifest_with_numbers_at_their_end_is_refused() {
    let range = RangeId::FIRST;
    let seqno = |seqno| VersionEdit { last_seqno: Some(Seqno(seqno)), ..VersionEdit::default() };
    let next = |n| VersionEdit { next_file_number: Some(FileNumber(n)), ..VersionEdit::default() };
    let flushed = VersionEdit {
        flushed: vec![(range, Seqno(SEQNO_MAX))],
        last_seqno: Some(Seqno(SEQNO_MAX)),
        ..VersionEdit::default()
    };
    let named = |id: u32| VersionEdit {
        ranges_removed: vec![range],
        ranges_added: vec![NewRange {
            id: RangeId(id),
            keyspace: KeyspaceId::DEFAULT,
            span: Span::all(),
            shards: Shards::one(),
        }],
        ..VersionEdit::default()
    };
    let prepared = |edit: VersionEdit| VersionEdit {
        prepared: vec![(ChangeId(1), edit)],
        ..VersionEdit::default()
    };
    // Tables of a change that the log may have stamped.
    let huge = slice(1, b"a", b"b", u64::MAX / 2).meta().clone();
    let sizes = prepared(VersionEdit {
        added: vec![(range, Place::L0, huge.clone()), (range, Place::Main(1), huge)],
        ..VersionEdit::default()
    });
    let floor = VersionEdit { log_floor: Some(FileNumber(u64::MAX)), ..VersionEdit::default() };
    let edits = [
        seqno(SEQNO_MAX),
        seqno(SEQNO_ON_DISK_MAX + 1),
        seqno(u64::MAX),
        seqno(COUNTERS_AT_OPEN_MAX + 1),
        next(COUNTERS_AT_OPEN_MAX + 1),
        next(FILE_NUMBER_MAX),
        next(FILE_NUMBER_MAX + 1),
        next(u64::MAX),
        flushed,
        floor,
        named(RANGE_ID_AT_OPEN_MAX + 1),
        named(RANGE_ID_MAX),
        named(u32::MAX),
        prepared(named(RANGE_ID_MAX)),
        sizes,
    ];
    for edit in edits {
        let mem = disk();
        let mut life = Life::start(&mem);
        life.recovered.manifest.append(&edit).unwrap();
        drop(life);
        refused(&mem, &format!("{edit:?}"));
    }
    // After a valid open, the database can be continued.
    let mem = disk();
    let mut life = Life::start(&mem);
    life.close_at(COUNTERS_AT_OPEN_MAX - 100, COUNTERS_AT_OPEN_MAX - 100);
    drop(life);
    let mut life = Life::start(&mem);
    life.fill(0, 10);
    life.sync();
    let model = life.model;
    assert_eq!(content(&open(&mem).unwrap()), model);
}

/// Goal: no open accepts something that prevents the next open from reading what was written.
#[test]
fn c4_a_file_whose_number_leaves_none_for_others_is_refused_at_once() {
    let (mem, _) = sample();
    for number in [COUNTERS_AT_OPEN_MAX, FILE_NUMBER_MAX - 1, FILE_NUMBER_MAX] {
        let hurt = mem.kill_clone();
        hurt.create(&FileKind::Table(FileNumber(number)).path(&dir())).unwrap();
        refused(&hurt, &format!("{number}"));
    }
}

#[test]
fn c7_numbers_that_contradict_each_other_are_found_and_refused() {
    let (mem, _) = sample();
    let table = {
        let recovered = open(&mem).unwrap();
        let (_, _, slice) = recovered.version.slices().next().unwrap();
        TableMeta::clone(&slice.table)
    };
    let range = RangeId::FIRST;
    let last = open(&mem).unwrap().last_seqno;
    let newer = TableMeta { max_seqno: last.next(), ..table.clone() };
    let ahead = TableMeta { number: FileNumber(10_000), ..table.clone() };
    let replace = |meta: TableMeta| VersionEdit {
        deleted: vec![(range, Place::L0, SliceMeta::whole(table.clone()).name())],
        added: vec![(range, Place::L0, SliceMeta::whole(meta))],
        ..VersionEdit::default()
    };
    let flushed = VersionEdit { flushed: vec![(range, last.next())], ..VersionEdit::default() };
    for edit in [flushed, replace(newer), replace(ahead)] {
        let hurt = mem.kill_clone();
        open(&hurt).unwrap().manifest.append(&edit).unwrap();
        let error = refused(&hurt, &format!("{edit:?}"));
        assert!(error.to_string().contains("counters-agree"), "{error}");
        let findings = verified(&hurt).findings;
        let told = findings.iter().any(|finding| finding.what.contains("counters-agree"));
        assert!(told, "{findings:?}");
    }
}

/// Planted: masks and excised spans are used as they are.
#[test]
fn c4_c7_made_up_masks_and_cuts_are_refused() {
    let (mem, _) = sample();
    let last = open(&mem).unwrap().last_seqno;
    let all = || KeyspaceSpan::of_default(Span::all());
    let span = |lo: &'static str, hi: &'static str| {
        KeyspaceSpan::of_default(Span { lo: lo.into(), hi: Some(hi.into()) })
    };
    let masked =
        |span, seqno| VersionEdit { masked: vec![(span, seqno)], ..VersionEdit::default() };
    let cut = |excised: Vec<KeyspaceSpan>| {
        let edit = VersionEdit { excised, ..VersionEdit::default() };
        VersionEdit { prepared: vec![(ChangeId(1), edit)], ..VersionEdit::default() }
    };
    let edits = [
        masked(all(), last.next()),
        masked(span("a", "b"), Seqno(SEQNO_ON_DISK_MAX)),
        masked(span("b", "a"), last),
        cut(vec![span("c", "d"), span("a", "b")]),
        cut(vec![span("a", "c"), span("b", "d")]),
        cut(vec![all(), span("a", "b")]),
        cut(vec![span("a", "a")]),
        cut(vec![span("b", "a")]),
    ];
    for edit in edits {
        let hurt = mem.kill_clone();
        open(&hurt).unwrap().manifest.append(&edit).unwrap();
        refused(&hurt, &format!("{edit:?}"));
    }
    for edit in [masked(all(), last), cut(vec![span("a", "b"), span("b", "d")])] {
        let fine = mem.kill_clone();
        open(&fine).unwrap().manifest.append(&edit).unwrap();
        open(&fine).unwrap();
    }
}

#[test]
fn c7_every_damaged_file_is_named_whatever_else_is() {
    let (mem, _) = sample();
    let names: Vec<_> = snapshot(&mem).into_keys().collect();
    let logs: Vec<_> = names.iter().filter(|name| is_wal(name)).collect();
    let tables: Vec<_> = names.iter().filter(|name| is_table(name)).collect();
    assert!(logs.len() >= 3 && !tables.is_empty(), "{names:?}");
    for table in &tables {
        damage(&mem, table, 40);
    }
    for log in &logs {
        // Two records of each, and one header.
        damage(&mem, log, 4600);
        damage(&mem, log, 9000);
    }
    mem.remove(&dir().join(logs[1])).unwrap();
    damage(&mem, logs[2], 12);
    let manifest = names.iter().find(|name| name.starts_with("MANIFEST")).unwrap();
    for (context, harm) in [("sound", None), ("manifest", Some(manifest)), ("current", None)] {
        let hurt = mem.kill_clone();
        if let Some(name) = harm {
            damage(&hurt, name, 80);
        }
        if context == "current" {
            damage(&hurt, "CURRENT", 9);
        }
        let summary = verified(&hurt);
        let of = |name: &str| {
            summary.findings.iter().filter(|found| found.file == dir().join(name)).count()
        };
        assert_eq!(summary.tables, tables.len() as u64, "{context}");
        for table in &tables {
            assert!(of(table) > 0, "{context}, {table}: {:?}", summary.findings);
        }
        assert!(of(logs[0]) >= 2, "{context}: {:?}", summary.findings);
        assert!(of(logs[1]) == 1 && of(logs[2]) == 1, "{context}: {:?}", summary.findings);
        assert_eq!(of(manifest) > 0, context == "manifest", "{context}: {:?}", summary.findings);
        assert_eq!(of("CURRENT") > 0, context == "current", "{context}: {:?}", summary.findings);
    }
}

/// One bit of every nonzero byte and of every 32nd zero byte is flipped; with
/// `SLUICE_DAMAGE_BITS=3`, three bits of every byte. Either the open is refused with nothing
/// changed, and `verify` finds the damage; or all contents are there, except for a block of a table
/// that reports its damage.
#[test]
fn d3_every_byte_of_every_file_may_be_damaged() {
    let bits: usize = std::env::var("SLUICE_DAMAGE_BITS").map_or(1, |bits| bits.parse().unwrap());
    for closed in [false, true] {
        let mem = disk();
        let mut life = Life::with(&mem, 8192);
        life.fill(0, 3);
        life.sync();
        life.flush();
        life.fill(1, 2);
        // Takes room, so that there is another segment.
        let mut filler = WriteBatch::new();
        filler.put("filler", vec![0; 3500]);
        life.write(&filler);
        life.fill(2, 2);
        life.sync();
        assert!(life.log.append_watermark());
        life.sync();
        let model = life.model.clone();
        if closed {
            life.close();
        }
        let files = snapshot(&mem);
        let (mut refusals, mut opened) = (0, 0);
        for (name, bytes) in &files {
            let path = dir().join(name);
            for (at, byte) in bytes.iter().enumerate() {
                if bits == 1 && *byte == 0 && at % 32 != 0 {
                    continue;
                }
                for bit in 0..bits {
                    let bit = (at + bit * 3) % 8;
                    let hurt = mem.kill_clone();
                    let file = hurt.open_rw(&path).unwrap();
                    file.write_all_at(&[byte ^ (1 << bit)], at as u64).unwrap();
                    let context = || format!("closed {closed}, {name}, byte {at}, bit {bit}");
                    match open(&hurt) {
                        Ok(recovered) => {
                            opened += 1;
                            match try_content(&recovered) {
                                Ok(found) => assert_eq!(found, model, "{}", context()),
                                Err(error) => {
                                    let told = is_table(name) && error.to_string().contains(name);
                                    assert!(told, "{}: {error}", context());
                                    assert!(!verified(&hurt).is_sound(), "{}: verify", context());
                                }
                            }
                        }
                        Err(error) => {
                            refusals += 1;
                            let fits = matches!(
                                error,
                                Error::Corrupt { .. }
                                    | Error::Missing { .. }
                                    | Error::Unsupported { .. }
                            );
                            assert!(fits, "{}: {error}", context());
                            let mut now = snapshot(&hurt);
                            now.get_mut(name).unwrap()[at] = *byte;
                            assert!(now == files, "{}: something changed", context());
                            assert!(!verified(&hurt).is_sound(), "{}: verify", context());
                        }
                    }
                }
            }
        }
        let logs = files.keys().filter(|name| is_wal(name)).count();
        assert!(refusals > 500 && opened > 100 && logs > 1, "{refusals}, {opened}, {logs}");
    }
}
