//! A toy engine on the simulated disk against an ordered map: writes, rotations, flushes,
//! compactions and old views, in random order, everything synchronous.

mod excised;
mod landings;
mod long;
mod outside;
mod toy;

use super::*;
use crate::batch::WriteBatch;
use crate::compact::{
    self, Choice, ClaimedJob, Claims, CompactionOptions, Job, ManualStep, Merge, Rounds, Situation,
    TableSink,
};
use crate::error::Error;
use crate::filename::{FileKind, FileNumber};
use crate::iter::{Cursor, MergeCursor};
use crate::key::{Kind, Span};
use crate::keyspace::KeyspaceId;
use crate::memtable::{MemtableWriter, memtable};
use crate::table::{BlockCache, CursorOptions, TableOptions};
use crate::version::{
    Landed, Place, RangeVersion, Shards, SliceMeta, SliceName, TableCache, TableLimits,
    VersionEdit, check,
};
use crate::vfs::Vfs;
use crate::vfs::mem::MemVfs;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use toy::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn every_view_sees_its_own_instant(ops in ops(), ranges in 1_usize..4) {
        let mut toy = Toy::new(&[&b"key20"[..], b"key45"][..ranges - 1]);
        let mut kept: Vec<(View, Model)> = Vec::new();
        for op in ops {
            match op {
                Op::Write(key, len) => {
                    toy.write(&key_of(key), Some(&vec![len as u8; len as usize]));
                }
                Op::Delete(key) => toy.write(&key_of(key), None),
                Op::Seal(range) => toy.seal(range % ranges),
                Op::Flush(range, all) => toy.flush(range % ranges, all),
                Op::Compact => toy.compact(),
                Op::Begin => drop(toy.begin()),
                Op::End(at) => toy.end(at),
                Op::CompactAll => toy.compact_all(),
                Op::Keep => kept.push((toy.view(), toy.model.clone())),
                Op::Forget => drop(kept.pop()),
                Op::Check(spans, cold) => {
                    toy.mem.set_cold_reads(cold);
                    let key = |n: u16| Bytes::from(key_of(n));
                    let spans: Vec<_> = spans
                        .into_iter()
                        .map(|(lo, hi, reverse, by)| {
                            let lo = if lo == 0 { Bytes::new() } else { key(lo) };
                            (Span { lo, hi: hi.map(key) }, reverse, by)
                        })
                        .collect();
                    check_view(&toy.view(), &toy.model, &spans, cold);
                    if let Some((view, model)) = kept.last() {
                        check_view(view, model, &spans, cold);
                    }
                }
            }
        }
        toy.compact_all();
        let all = [(Span::all(), false, 1000), (Span::all(), true, 7)];
        check_view(&toy.view(), &toy.model, &all, true);
        for (view, model) in &kept {
            check_view(view, model, &all, false);
        }
        // Only what somebody holds is on the disk.
        drop(kept);
        for number in toy.tables.obsolete_files().take() {
            toy.vfs.remove(&FileKind::Table(number).path(&toy.dir)).unwrap();
        }
        let mut files: Vec<_> = toy.vfs.list(Path::new("/db")).unwrap();
        let mut live: Vec<_> = toy.version().slices()
            .map(|(_, _, slice)| FileKind::Table(slice.number()).name()).collect();
        files.sort();
        live.sort();
        live.dedup();
        prop_assert_eq!(files, live);
    }
}

#[test]
fn after_a_full_compaction_there_is_one_run_without_tombstones() {
    let mut toy = Toy::new(&[]);
    for round in 0..6_u16 {
        for key in 0..KEYS {
            let value = (key % 3 != round % 3).then(|| vec![round as u8; 50]);
            toy.write(&key_of(key), value.as_deref());
        }
        toy.seal(0);
        toy.flush(0, true);
        toy.compact();
    }
    toy.compact_all();
    let range = &toy.superversion.ranges[0].stable;
    let layers: Vec<_> = range.layers.iter().collect();
    assert!(matches!(layers[..], [layer] if layer.place.level() > 0), "{layers:?}");
    let (entries, tombstones) = (layers[0].run.entries(), layers[0].run.tombstones());
    assert_eq!((entries, tombstones), (toy.model.len() as u64, 0));
    for key in 0..KEYS {
        toy.write(&key_of(key), None);
    }
    toy.seal(0);
    toy.flush(0, true);
    toy.compact_all();
    assert_eq!(toy.version().slices().count(), 0, "all deleted: no files");
}

/// Planted: each condition left out; layers counted from the newest.
#[test]
fn only_tables_that_a_view_shows_as_they_are_are_whole() {
    let mut toy = Toy::new(&[]);
    // 1: alone. 2: with a tombstone. 3 and 4: between each other's ends, one key in both. 5: in the
    // end. 7: over 6, all of whose keys it has.
    let tables = [(0..5, None), (10..15, Some(12)), (20..25, None), (22..40, None), (50..55, None)];
    let hiding = [(70..75, None), (70..77, None)];
    for (keys, dead) in tables.into_iter().chain(hiding) {
        for key in keys.step_by(2) {
            toy.write(&key_of(key), (Some(key) != dead).then_some(&[key as u8; 30]));
        }
        toy.seal(0);
        toy.flush(0, true);
    }
    let (before, model) = (toy.view(), toy.model.clone());
    assert_eq!(check_stacks(&before, &model), [vec![1], vec![3, 4], vec![5]]);
    let within = |lo: u16, hi: u16, bytes_min, layers_max| {
        let span = Span { lo: key_of(lo).into(), hi: Some(key_of(hi).into()) };
        let worth = Worth { bytes_min, layers_max, stack_bytes_max: u64::MAX };
        numbers(&before.stacks(KeyspaceId::DEFAULT, &span, worth).unwrap())
    };
    assert_eq!(within(0, 5, 0, 2), [[1]]);
    assert_eq!(within(0, 4, 0, 2), [[0; 0]; 0]);
    assert_eq!(within(1, 55, 0, 2), [vec![3, 4], vec![5]]);
    assert_eq!(within(21, 55, 0, 2), [[5]], "the stack begins before it");
    assert_eq!(within(0, 55, 0, 1), [[1], [5]]);
    assert_eq!(within(0, 55, 1 << 20, 2), [[0; 0]; 0]);
    // Something in memory between its ends, under a key that it has not.
    toy.write(&key_of(53), Some(b"new"));
    toy.write(&key_of(35), Some(b"new"));
    assert_eq!(check_stacks(&toy.view(), &toy.model), [[1]]);
    toy.seal(0);
    assert_eq!(check_stacks(&toy.view(), &toy.model), [[1]]);
    assert_eq!(check_stacks(&before, &model), [vec![1], vec![3, 4], vec![5]], "it is older");
    toy.compact_all();
    assert_eq!(check_stacks(&before, &model), [vec![1], vec![3, 4], vec![5]]);
}

#[test]
fn a_stopped_job_leaves_no_files() {
    let mut toy = Toy::new(&[]);
    for round in 0..4 {
        for key in 0..3000_u32 {
            toy.write(format!("{key:05}").as_bytes(), Some(&[round; 20]));
        }
        toy.seal(0);
        toy.flush(0, true);
    }
    let files = toy.vfs.list(&toy.dir).unwrap().len();
    assert!(toy.begin(), "due");
    let job = toy.running.pop().expect("just chosen");
    let mut next = 1000;
    let sink = toy.sink(&mut next);
    let mut merge = Merge::new(&job, &toy.options, sink);
    assert!(merge.step().unwrap() && merge.bytes_out() > 0);
    assert!(toy.vfs.list(&toy.dir).unwrap().len() > files);
    drop(merge);
    assert!(next > 1000);
    assert_eq!(toy.vfs.list(&toy.dir).unwrap().len(), files);
}

#[test]
fn long_stretches_of_tombstones_end_a_turn() {
    let mut toy = Toy::new(&[]);
    for key in 0..20_000_u32 {
        toy.write(&key.to_be_bytes(), None);
    }
    toy.write(b"zzz", Some(b"last"));
    let mut cursor =
        toy.view().cursor(ScanSpec::new(KeyspaceId::DEFAULT, Span::all()), ReadTier::Disk);
    let mut out = ScanBatchBuilder::new();
    let mut empty_turns = 0;
    while cursor.fill(&mut out, 1 << 20, 10).unwrap() {
        empty_turns += usize::from(out.is_empty());
    }
    assert!(empty_turns >= 3, "{empty_turns}");
    assert_eq!(out.freeze().iter().collect::<Vec<_>>(), [(&b"zzz"[..], &b"last"[..])]);
}

/// Planted: the walker after the view.
#[test]
fn a_scan_closes_its_table_before_the_table_may_be_removed() {
    for runs in [1, 2] {
        let mut toy = Toy::new(&[]);
        for round in 0..runs {
            for key in 0..100_u8 {
                toy.write(&[round, key], Some(&[0; 100]));
            }
            toy.seal(0);
            toy.flush(0, true);
        }
        let mut cursor =
            toy.view().cursor(ScanSpec::new(KeyspaceId::DEFAULT, Span::all()), ReadTier::Disk);
        assert!(cursor.fill(&mut ScanBatchBuilder::new(), 1 << 20, 10).unwrap());
        toy.compact_all();
        let events: Arc<std::sync::Mutex<Vec<&str>>> = Arc::default();
        let (closed, obsolete) = (events.clone(), events.clone());
        toy.mem.on_close(move |_| closed.lock().unwrap().push("closed"));
        toy.tables.obsolete_files().on_obsolete(move || obsolete.lock().unwrap().push("obsolete"));
        drop(cursor);
        let events = events.lock().unwrap();
        assert!(events.contains(&"closed"), "{events:?}");
        assert_eq!(events.last(), Some(&"obsolete"), "{events:?}");
    }
}

/// Every kind of job is met by a seeded run, and none loses or revives an entry.
#[test]
fn t000_09_every_kind_of_job_keeps_what_readers_see() {
    let seed = 0x5EED_1E55_u64;
    println!("seed {seed:#x}");
    let mut state = seed;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut toy = Toy::new(&[]);
    let all = [(Span::all(), false, 1000), (Span::all(), true, 7)];
    for round in 0..400_u64 {
        for _ in 0..40 {
            let key = key_of(random(u64::from(KEYS)) as u16);
            let value = vec![random(256) as u8; random(200) as usize];
            toy.write(&key, (random(4) > 0).then_some(&value[..]));
        }
        if random(3) > 0 {
            toy.seal(0);
            toy.flush(0, true);
        }
        for _ in 0..random(4) {
            toy.begin();
        }
        for _ in 0..random(4) {
            toy.end(random(9) as usize);
        }
        toy.rests = round % 50 == 49;
        while toy.rests && (toy.begin() || !toy.running.is_empty()) {
            toy.end(0);
        }
        if round % 8 == 0 {
            check_view(&toy.view(), &toy.model, &all, false);
        }
    }
    let choices =
        [Choice::Land, Choice::Keep, Choice::Drain, Choice::Rest, Choice::Merge, Choice::Reshard];
    for choice in choices {
        assert!(toy.done.contains_key(choice.name()), "{}: {:?}", choice.name(), toy.done);
    }
    toy.compact_all();
    check_view(&toy.view(), &toy.model, &all, false);
}
