//! A small database is written by hand, killed, cut off from power at every operation of an open,
//! damaged, and opened again.

mod changes;
mod cuts;
mod descriptors;
mod hostile;
mod interrupted;
mod life;
mod older;
mod parts;
mod seam;

use super::*;
use crate::batch::KeyspaceRef;
use crate::batch::WriteBatch;
use crate::codec::crc;
use crate::compact::{TableSink, write_tables};
use crate::iter::Cursor;
use crate::key::Span;
use crate::keyspace::KeyspaceId;
use crate::memtable::{Memtable, MemtableWriter, memtable};
use crate::side_by_side::OneByOne;
use crate::table::{BlockCache, ReadTier};
use crate::verify::verify_directory;
use crate::version::{
    ChangeId, Keyspace, NewRange, Place, RangeId, Shards, SliceMeta, VersionEdit, check,
};
use crate::vfs::mem::{CrashKind, MemVfs};
use crate::vfs::{Fault, FaultVfs, OperationKind};
use crate::view::{RangeEntry, ScanBatchBuilder, ScanSpec, Superversion, View};
use crate::wal::{
    AppendPath, CHANGE_BYTES, LogIdentity, LogWriter, Predecessor, Unsynced, prepare_spare, recycle,
};
use life::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

#[test]
fn lives_follow_each_other() {
    let mem = disk();
    let mut model = Model::new();
    for round in 0..5 {
        let mut life = Life::start(&mem);
        assert_eq!(life.model, model, "round {round}");
        life.fill(round, 150);
        life.sync();
        if round % 2 == 0 {
            life.flush();
            life.fill(round + 100, 40);
            life.sync();
        }
        model = life.model;
    }
    let recovered = open(&mem).unwrap();
    assert_eq!(content(&recovered), model);
    assert!(recovered.report.entries_replayed > 0 && recovered.report.entries_skipped > 0);
}

/// Changes are among the batches, first and last, over several segments, before and after a flush.
#[test]
fn changes_that_the_manifest_does_not_wait_for_are_counted_and_keep_their_numbers() {
    let mem = disk();
    let mut changes = 0;
    for (round, ids) in [[0, 1, 0], [1, 1, 0]].into_iter().enumerate() {
        let mut life = Life::start(&mem);
        let first = life.next_seqno;
        for id in ids {
            life.change(ChangeId(id));
            life.fill(round as u32, 120);
            if id == 1 {
                life.flush();
            }
        }
        life.change(ChangeId(0));
        life.sync();
        assert_eq!(life.next_seqno.0 - first.0, 3 * 120 * 5 + 4);
        let (model, last) = (life.model, Seqno(life.next_seqno.0 - 1));
        let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
        let summary = verify_directory(&vfs, &dir(), &mut |_, _| {}).unwrap();
        assert!(summary.is_sound(), "{:?}", summary.findings);
        assert_eq!(summary.log_records, 3 * 120 + 4, "batches and changes");
        let recovered = open(&mem).unwrap();
        assert_eq!((content(&recovered), recovered.last_seqno), (model, last));
        assert_eq!(recovered.report.changes_skipped, 4);
        changes += recovered.report.changes_skipped;
        assert!(recovered.report.log.unwrap().segments.len() > 1);
    }
    assert_eq!(changes, 8);
    let report = open(&mem).unwrap().report;
    assert_eq!(report.changes_skipped, 0, "an open leaves none for the next one");
}

/// Entries are before, between and after the changes. A crash in the open changes nothing.
///
/// Planted: the replay ignores changes; the open leaves what is prepared for the next open; the
/// replay forgets what it has written for a range that is gone.
#[test]
fn a_prepared_change_happens_at_the_open_if_the_log_has_its_record() {
    for has_record in [true, false] {
        let mem = disk();
        let mut life = Life::start(&mem);
        life.fill(0, 60);
        life.sync();
        life.flush();
        life.fill(1, 200);
        let image = life.recovered.manifest.image();
        let (slices, new) = (|| image.slices.iter(), RangeId(2));
        let range = &image.ranges[&RangeId::FIRST];
        let (span, shards) = (range.span.clone(), range.shards.clone());
        let renaming = VersionEdit {
            ranges_removed: vec![RangeId::FIRST],
            ranges_added: vec![NewRange { id: new, keyspace: KeyspaceId::DEFAULT, span, shards }],
            deleted: slices().map(|(key, _)| key.clone()).collect(),
            added: slices().map(|((_, p, _), slice)| (new, *p, slice.clone())).collect(),
            flushed: vec![(new, range.flushed)],
            ..VersionEdit::default()
        };
        assert!(!renaming.added.is_empty());
        let id = life.prepare(renaming);
        life.prepare(VersionEdit::default());
        if has_record {
            life.change(id);
        }
        life.fill(2, 60);
        life.sync();
        let model = life.model;
        for crash in [true, false] {
            let disk = if crash { mem.kill_clone() } else { mem.clone() };
            let recovered = open(&disk).unwrap();
            let id = if has_record { new } else { RangeId::FIRST };
            assert_eq!(recovered.report.changes_replayed, u64::from(has_record));
            assert_eq!(recovered.version.ranges()[0].id, id);
            assert_eq!(content(&recovered), model);
            let image = recovered.manifest.image();
            assert!(image.prepared.is_empty() && image.contradictions().is_empty());
        }
        let again = open(&mem).unwrap();
        assert_eq!((again.report.changes_replayed, content(&again)), (0, model));
    }
}

/// A split is in the log. Entries replayed before it, some of which are in tables by then, go to
/// both ranges.
///
/// Planted: a table from before the split goes to the left range as a whole.
#[test]
fn t002_11_a_split_happens_again_at_the_open_and_parts_what_was_replayed() {
    for entries in [3, 600] {
        let mem = disk();
        let mut life = Life::start(&mem);
        life.fill(0, entries);
        life.sync();
        life.flush();
        life.fill(1, entries);
        let tables = Arc::clone(&life.recovered.tables);
        let image = life.recovered.manifest.image();
        let now = image.to_version(Arc::clone(tables.obsolete_files()), |meta| {
            Ok::<_, Conflict>(tables.handle(Arc::clone(meta)))
        });
        let split = now.unwrap().ranges()[0].split(&"key0350".into(), [2, 3].map(RangeId)).unwrap();
        let id = life.prepare(split);
        life.change(id);
        life.fill(2, entries);
        life.sync();
        let model = life.model;
        for crash in [true, false] {
            let disk = if crash { mem.kill_clone() } else { mem.clone() };
            let recovered = open(&disk).unwrap();
            assert_eq!(recovered.version.ranges().len(), 2);
            assert_eq!(content(&recovered), model);
        }
        assert_eq!(content(&open(&mem).unwrap()), model);
    }
}

#[test]
fn replay_stays_within_its_budget() {
    let (mem, model) = sample();
    let recovered = open(&mem).unwrap();
    assert_eq!(content(&recovered), model);
    assert!(recovered.report.tables_written > 2, "{:?}", recovered.report);
}

/// All ranges share one budget. Whatever it is, the ranges with the most are flushed first, each
/// range skips exactly what it has flushed, and a crash in the middle changes nothing.
#[test]
fn t002_15_replay_flushes_what_its_budget_does_not_hold() {
    let mem = disk();
    let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
    let split_keys = vec![Bytes::from("key0200"), Bytes::from("key0400")];
    drop(open_directory(&vfs, &dir(), &RecoverOptions { split_keys, ..options() }).unwrap());
    let mut life = Life::start(&mem);
    life.fill(0, 300);
    life.sync();
    life.flush_range(1);
    life.fill(1, 600);
    life.sync();
    let model = life.model;
    let replay = |budget: usize| {
        let again = mem.kill_clone();
        let images = again.record_images(40);
        let vfs: Arc<dyn Vfs> = Arc::new(again.clone());
        let options = RecoverOptions { replay_bytes_max: budget, ..options() };
        let recovered = open_directory(&vfs, &dir(), &options).unwrap();
        again.clear_hook();
        assert_eq!(content(&recovered), model, "{budget}");
        assert!(recovered.report.replay_bytes_peak <= budget as u64, "{recovered:?}");
        for (at, (operation, image)) in images.take().into_iter().enumerate() {
            let kind = CrashKind::each(at as u64)[at % 8];
            let recovered = open(&image.crash_clone(kind)).unwrap();
            assert_eq!(content(&recovered), model, "{budget}, {operation:?}, {kind:?}");
        }
        recovered.report
    };
    let whole = replay(1 << 30);
    assert_eq!(whole.tables_written, 3, "one of each range");
    assert!(whole.entries_skipped > 300 && whole.bytes_replayed > 200_000, "{whole:?}");
    let mut tables = whole.tables_written;
    for budget in [64 << 10, 16 << 10] {
        let report = replay(budget);
        assert!(report.tables_written > tables, "{budget}: {report:?}");
        tables = report.tables_written;
        let counts = |r: &RecoveryReport| (r.entries_replayed, r.entries_skipped, r.bytes_replayed);
        assert_eq!(counts(&report), counts(&whole), "{budget}: the work is the log's length");
    }
}

#[test]
fn split_keys_that_make_no_ranges_are_refused_before_anything_is_written() {
    for keys in [["b", "a"], ["a", "a"], ["", "a"]] {
        let mem = disk();
        let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
        let split_keys = keys.iter().map(|key| Bytes::from(*key)).collect();
        let error = open_directory(&vfs, &dir(), &RecoverOptions { split_keys, ..options() });
        assert!(matches!(error, Err(Error::Invalid { .. })), "{keys:?}: {error:?}");
        assert!(mem.list(&dir()).unwrap().is_empty());
    }
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_whole_batches_only() {
    for seed in 0..40 {
        let mem = disk();
        let mut life = Life::start(&mem);
        let mut states = Vec::new();
        let mut synced = 0;
        for n in 0..60 {
            states.push(life.model.clone());
            if n % 3 == 1 {
                life.change(ChangeId(u64::from(n % 2)));
            }
            life.fill(n, 1);
            if n % 13 == 5 {
                life.sync();
                synced = states.len();
            }
            if n == 30 {
                life.sync();
                synced = states.len();
                life.flush();
            }
        }
        states.push(life.model.clone());
        let group = life.log.take_group();
        group.write().unwrap();
        let kind = CrashKind::each(seed)[seed as usize % 8];
        let recovered = open(&mem.crash_clone(kind)).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        let found = content(&recovered);
        let prefix = states.iter().rposition(|state| *state == found);
        assert!(prefix.is_some_and(|at| at >= synced), "{kind:?}: {prefix:?}, synced {synced}");
    }
}

/// All files and their bytes.
fn snapshot(mem: &MemVfs) -> BTreeMap<String, Vec<u8>> {
    let read = |name: String| {
        let file = mem.open(&dir().join(&name)).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        (name, bytes)
    };
    mem.list(&dir()).unwrap().into_iter().map(read).collect()
}

fn damage(mem: &MemVfs, name: &str, at: u64) {
    let file = mem.open_rw(&dir().join(name)).unwrap();
    let mut byte = [0];
    assert_eq!(file.read_at(&mut byte, at).unwrap(), 1);
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

#[test]
fn a_refused_open_names_the_file_and_changes_nothing() {
    let (mem, _) = sample();
    let files = snapshot(&mem);
    let table = files.keys().find(|name| is_table(name)).unwrap().clone();
    let wal = files.keys().find(|name| is_wal(name)).unwrap().clone();
    let last_wal = files.keys().rfind(|name| is_wal(name)).unwrap().clone();
    assert_ne!(wal, last_wal);
    type Harm<'a> = Box<dyn Fn(&MemVfs) + 'a>;
    let harms: Vec<(&str, &str, Harm<'_>)> = vec![
        ("missing", &table, Box::new(|m| m.remove(&dir().join(&table)).unwrap())),
        (
            "short",
            &table,
            Box::new(|m| {
                let file = m.open_rw(&dir().join(&table)).unwrap();
                file.set_len(file.len().unwrap() - 1).unwrap();
            }),
        ),
        ("early log", &wal, Box::new(|m| damage(m, &wal, 6000))),
        ("lost log", &wal, Box::new(|m| m.remove(&dir().join(&wal)).unwrap())),
        ("lost newest", &last_wal, Box::new(|m| m.remove(&dir().join(&last_wal)).unwrap())),
        ("current", "CURRENT", Box::new(|m| damage(m, "CURRENT", 9))),
        ("no current", "CURRENT", Box::new(|m| m.remove(&dir().join("CURRENT")).unwrap())),
    ];
    for (name, file, harm) in harms {
        let hurt = mem.kill_clone();
        harm(&hurt);
        let before = snapshot(&hurt);
        let error = open(&hurt).expect_err(name);
        assert!(error.to_string().contains(file), "{name}: {error}");
        assert!(matches!(error, Error::Corrupt { .. } | Error::Missing { .. }), "{name}: {error}");
        assert_eq!(snapshot(&hurt), before, "{name}");
        let vfs: Arc<dyn Vfs> = Arc::new(hurt.clone());
        let summary = verify_directory(&vfs, &dir(), &mut |_, _| {}).unwrap();
        let named = summary.findings.iter().any(|finding| finding.file.ends_with(file));
        assert!(named, "{name}: {:?}", summary.findings);
        assert_eq!(snapshot(&hurt), before, "{name}: verify only reads");
    }
}

/// Planted: `undo` removes only the tables that are still needed, instead of all that were written.
#[test]
fn a_refused_open_after_a_keyspace_was_dropped_leaves_no_file() {
    let mem = disk();
    let mut life = Life::with(&mem, 64 << 10);
    let (id, keyspace) = (RangeId(2), KeyspaceId(2));
    let new = NewRange { id, keyspace, span: Span::all(), shards: Shards::one() };
    let called = Keyspace { name: "k".into(), options: Arc::default() };
    life.note(VersionEdit {
        ranges_added: vec![new],
        keyspaces_set: vec![(keyspace, called)],
        ..VersionEdit::default()
    });
    for n in 0..200_u32 {
        let mut batch = WriteBatch::new();
        batch.put_in(KeyspaceRef::new(1, keyspace), n.to_be_bytes(), [7; 1000]);
        life.write(&batch);
    }
    let gone = VersionEdit {
        ranges_removed: vec![id],
        keyspaces_removed: vec![keyspace],
        ..VersionEdit::default()
    };
    let id = life.prepare(gone);
    life.change(id);
    life.fill(1, 600);
    life.sync();
    let open = |mem: &MemVfs| {
        let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
        let options = RecoverOptions { replay_bytes_max: 32 << 10, ..options() };
        open_directory(&vfs, &dir(), &options)
    };
    let sound = open(&mem.kill_clone()).unwrap();
    let report = &sound.report;
    assert!(report.changes_replayed == 1 && report.tables_written > 3, "{report:?}");
    assert!(!sound.version.keyspaces().has(keyspace) && sound.version.ranges().len() == 1);
    let full = mem.kill_clone();
    let before = snapshot(&full);
    let faulty = FaultVfs::over_mem(&full);
    let no_space = Fault::of(OperationKind::Create).named("MANIFEST").errno(28);
    faulty.control().arm(no_space.sticky());
    let vfs: Arc<dyn Vfs> = Arc::new(faulty);
    let options = RecoverOptions { replay_bytes_max: 32 << 10, ..options() };
    let error = open_directory(&vfs, &dir(), &options).map(drop).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert_eq!(snapshot(&full), before);
}

#[test]
fn b8_a_damaged_footer_is_met_by_whoever_reads_the_table() {
    let (mem, _) = sample();
    let files = snapshot(&mem);
    let table = files.keys().find(|name| is_table(name)).unwrap();
    damage(&mem, table, files[table].len() as u64 - 20);
    let recovered = open(&mem).unwrap();
    assert_eq!(recovered.tables.opens(), 0);
    let (_, _, slice) = recovered
        .version
        .slices()
        .find(|(_, _, slice)| table.starts_with(&slice.number().to_string()))
        .unwrap();
    let error = slice.handle().table(ReadTier::Disk).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains(table), "{error}");
}

#[test]
fn directories_of_others_are_left_alone() {
    let mem = disk();
    mem.create(&dir().join("notes.txt")).unwrap();
    assert!(matches!(open(&mem), Err(Error::Invalid { .. })));
    assert_eq!(mem.list(&dir()).unwrap(), ["notes.txt"]);

    let mem = disk();
    let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
    let refuse = RecoverOptions { create_if_missing: false, ..options() };
    assert!(matches!(open_directory(&vfs, &dir(), &refuse), Err(Error::NoDatabase { .. })));
    assert!(mem.list(&dir()).unwrap().is_empty());

    // Beside a database, a foreign file stays.
    let (mem, model) = sample();
    mem.create(&dir().join("notes.txt")).unwrap();
    mem.create(&dir().join("000999.tmp")).unwrap();
    mem.create(&dir().join("000998.sst")).unwrap();
    let recovered = open(&mem).unwrap();
    assert!(recovered.next_file_number > FileNumber(999));
    assert_eq!(content(&recovered), model);
    let names = mem.list(&dir()).unwrap();
    assert!(names.contains(&"notes.txt".to_owned()));
    assert!(!names.iter().any(|name| name.starts_with("00099")), "{names:?}");
}

#[test]
fn verify_finds_all_damage_and_nothing_in_a_sound_database() {
    let (mem, model) = sample();
    drop(open(&mem).unwrap());
    let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
    let summary = verify_directory(&vfs, &dir(), &mut |_, _| {}).unwrap();
    assert!(summary.is_sound(), "{:?}", summary.findings);
    assert!(summary.tables > 2 && summary.entries >= model.len() as u64);
    let tables: Vec<_> = mem.list(&dir()).unwrap();
    let mut tables: Vec<_> = tables.into_iter().filter(|name| is_table(name)).collect();
    tables.sort();
    damage(&mem, &tables[0], 50);
    damage(&mem, &tables[1], 70);
    let summary = verify_directory(&vfs, &dir(), &mut |_, _| {}).unwrap();
    let harmed: BTreeSet<_> = summary.findings.iter().map(|finding| &finding.file).collect();
    assert_eq!(harmed.len(), 2, "{:?}", summary.findings);
}
