//! A toy engine on the simulated disk against an ordered map: writes, rotations, flushes,
//! compactions and old views, in random order, everything synchronous.
//!
//! Long because the toy engine is in it.

mod excised;
mod landings;
mod long;

use super::*;
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

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const DB_ID: [u8; 16] = [7; 16];

struct Toy {
    mem: MemVfs,
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    tables: Arc<TableCache>,
    options: CompactionOptions,
    superversion: Arc<Superversion<()>>,
    writers: Vec<MemtableWriter>,
    claims: Claims,
    rounds: Rounds,
    /// Jobs that are chosen and not run yet.
    running: Vec<ClaimedJob>,
    /// Tables that no job may need.
    set_aside: BTreeSet<SliceName>,
    /// Do all ranges rest?
    rests: bool,
    done: BTreeMap<&'static str, usize>,
    now_ms: u64,
    next_number: u64,
    seqno: Seqno,
    model: Model,
}

impl Toy {
    fn new(splits: &[&'static [u8]]) -> Self {
        Self::caching(1 << 20, splits)
    }

    fn caching(cache_bytes: u64, splits: &[&'static [u8]]) -> Self {
        let mem = MemVfs::new();
        let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
        let dir = PathBuf::from("/db");
        vfs.create_dir_all(&dir).unwrap();
        let mut bounds = vec![Some(Bytes::new())];
        bounds.extend(splits.iter().map(|key| Some(Bytes::from_static(key))));
        bounds.push(None);
        let ranges: Vec<_> = bounds
            .windows(2)
            .zip(1..)
            .map(|(pair, id)| {
                let span = Span { lo: pair[0].clone().unwrap(), hi: pair[1].clone() };
                Arc::new({
                    let shards = Shards::of(&span, 4);
                    RangeVersion::empty(RangeId(id), span, shards)
                })
            })
            .collect();
        let (mut entries, mut writers) = (Vec::new(), Vec::new());
        for stable in ranges {
            let (active, writer) = memtable(0);
            entries.push(RangeEntry::new(active, stable, ()));
            writers.push(writer);
        }
        // Few enough that every view has tables closed and opened again.
        let blocks = BlockCache::new(cache_bytes);
        let limits = TableLimits { open_max: 3, memory_bytes_max: 1 << 20, blocks };
        let tables = TableCache::new(&vfs, &dir, DB_ID, limits);
        let options = CompactionOptions {
            level_base_bytes: 2000,
            level_ratio: 2,
            table_bytes_max: 1500,
            grandparent_factor: 2,
            levels_max: 4,
            drain_ratio: 1,
            landing_batch: 2,
            keep_trigger: 1.0,
            landing_runs_max: 4,
            ..CompactionOptions::balanced()
        };
        Self {
            mem,
            vfs,
            dir,
            tables,
            options,
            superversion: Arc::new(Superversion::new(1, 1, Seqno::ZERO, Arc::default(), entries)),
            writers,
            claims: Claims::new(),
            rounds: Rounds::default(),
            running: Vec::new(),
            set_aside: BTreeSet::new(),
            rests: false,
            done: BTreeMap::new(),
            now_ms: 1,
            next_number: 1,
            seqno: Seqno::ZERO,
            model: Model::new(),
        }
    }

    fn version(&self) -> Version {
        self.superversion.version(self.tables.obsolete_files())
    }

    fn view(&self) -> View {
        View::new(Arc::clone(&self.superversion), self.seqno)
    }

    fn swap(&mut self, ranges: Vec<RangeEntry<()>>) {
        let Superversion { number, epoch, born, .. } = *self.superversion;
        self.superversion =
            Arc::new(Superversion::new(number + 1, epoch, born, Arc::default(), ranges));
        check::check(&self.version()).unwrap();
    }

    fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.seqno = self.seqno.next();
        let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
        let range = self.superversion.route_index(KeyspaceId::DEFAULT, key).unwrap();
        self.writers[range].insert(key, self.seqno, kind, value.unwrap_or(b""));
        match value {
            Some(value) => self.model.insert(key.to_vec(), value.to_vec()),
            None => self.model.remove(key),
        };
    }

    fn seal(&mut self, range: usize) {
        let mut ranges = self.superversion.ranges.clone();
        let (active, writer) = memtable(self.superversion.number);
        let old = std::mem::replace(&mut ranges[range].active, active);
        ranges[range].sealed.insert(0, MemtableSlice::whole(old));
        self.swap(ranges);
        std::mem::replace(&mut self.writers[range], writer).freeze();
    }

    fn sink<'a>(&self, next_number: &'a mut u64) -> TableSink<'a> {
        let options = TableOptions { block_bytes: 256, ..TableOptions::default() };
        TableSink::new(&self.vfs, &self.dir, DB_ID, options, || {
            *next_number += 1;
            FileNumber(*next_number - 1)
        })
    }

    fn install(&mut self, edit: &VersionEdit, mut ranges: Vec<RangeEntry<()>>) {
        let tables = edit.added.iter().map(|(_, _, slice)| Arc::clone(&slice.table));
        let added = tables.map(|table| self.tables.handle(table));
        let added: Vec<_> = added.collect();
        let old = self.version();
        let version = match old.apply(edit, &added) {
            Ok(version) => version,
            Err(conflict) => {
                // The shards were divided anew between its choice and its end. Nothing was written
                // for it.
                assert_eq!(conflict.rule, "landing-in-its-shard", "{conflict}");
                *self.done.entry("conflict").or_default() += 1;
                return;
            }
        };
        put_behind(ranges.iter_mut(), &version);
        self.swap(ranges);
        old.dropped_by(edit, &version).iter().for_each(|table| table.mark_obsolete());
        drop(old);
        for number in self.tables.obsolete_files().take() {
            self.vfs.remove(&FileKind::Table(number).path(&self.dir)).unwrap();
        }
    }

    /// Flushes the sealed memtables of a range, all or only the oldest.
    fn flush(&mut self, range: usize, all: bool) {
        let mut ranges = self.superversion.ranges.clone();
        let sealed = &mut ranges[range].sealed;
        let keep = if all { 0 } else { sealed.len().saturating_sub(1) };
        let flushed = sealed.split_off(keep);
        let Some(upto) = flushed.iter().filter_map(|memtable| memtable.last_seqno()).max() else {
            return self.swap(ranges);
        };
        let cursors = flushed.iter().map(|memtable| memtable.cursor(Seqno::MAX)).collect();
        let mut cursor = MergeCursor::new(cursors);
        let mut next = self.next_number;
        let sink = self.sink(&mut next);
        let bounds = ranges[range].stable.shards.bounds();
        let added = compact::write_tables(&mut cursor, sink, bounds, &|| true);
        let added = added.unwrap().expect("not stopped");
        self.next_number = next;
        let id = ranges[range].id();
        let edit = VersionEdit {
            added: added.into_iter().map(|meta| (id, Place::L0, SliceMeta::whole(meta))).collect(),
            flushed: vec![(id, upto)],
            ..VersionEdit::default()
        };
        self.install(&edit, ranges);
    }

    fn run(&mut self, job: &mut Job) {
        job.cut().unwrap();
        let is_part = job.slices().any(|(_, slice)| slice.part.is_some());
        *self.done.entry("cut").or_default() += usize::from(is_part || job.inputs.is_empty());
        let added = if job.is_metadata_only() {
            job.pieces().unwrap()
        } else if job.inputs.is_empty() {
            Vec::new()
        } else {
            let mut next = self.next_number;
            let sink = self.sink(&mut next);
            let mut merge = Merge::new(job, &self.options, sink);
            while merge.step().unwrap() {}
            let outcome = merge.finish().unwrap();
            self.next_number = next;
            job.outputs(&outcome.added.into_iter().map(SliceMeta::whole).collect::<Vec<_>>())
        };
        *self.done.entry(job.why.choice.name()).or_default() += 1;
        let ranges = self.superversion.ranges.clone();
        self.install(&job.edit(added), ranges);
    }

    /// Chooses a job.
    fn begin(&mut self) -> bool {
        let version = self.version();
        self.now_ms += 10_000;
        let ranges: BTreeSet<_> = version.ranges().iter().map(|range| range.id).collect();
        let situation = Situation {
            version: &version,
            ranges: version.ranges(),
            options: &self.options,
            claims: &self.claims,
            set_aside: &self.set_aside,
            now_ms: self.now_ms,
            quiet_since_ms: 0,
            resting: self.rests.then_some(&ranges),
            merges: true,
        };
        let job = compact::pick(&situation, &mut self.rounds);
        drop(version);
        let begun = job.is_some();
        self.running.extend(job.map(|job| self.claims.claim(job)));
        begun
    }

    /// Runs one of the jobs that were chosen.
    fn end(&mut self, at: usize) {
        if !self.running.is_empty() {
            let mut job = self.running.swap_remove(at % self.running.len());
            self.run(&mut job);
        }
    }

    fn compact(&mut self) {
        if self.begin() {
            self.end(self.running.len() - 1);
        }
    }

    fn compact_all(&mut self) {
        while !self.running.is_empty() {
            self.end(0);
        }
        for _ in 0..100 {
            let step =
                compact::ManualCompaction::whole(crate::keyspace::KeyspaceId::DEFAULT, Span::all())
                    .step(&self.version(), &self.claims);
            match step {
                ManualStep::Job(mut job) => self.run(&mut job),
                ManualStep::Busy => panic!("nothing runs"),
                ManualStep::Done => return,
            }
        }
        panic!("manual compaction never ends");
    }
}

/// Chunks, and entries one by one, in turn. A cold block is waited for once, by a fork; then the
/// walk goes on without waiting.
fn scan(view: &View, spec: &ScanSpec, entries_max: usize, cold: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let tier = if cold { ReadTier::Memory } else { ReadTier::Disk };
    let mut cursor = view.cursor(spec.clone(), tier);
    let mut all = Vec::new();
    loop {
        let mut out = ScanBatchBuilder::new();
        let mut more = cursor.fill(&mut out, 1 << 20, entries_max);
        if matches!(more, Err(Error::WouldBlock)) {
            cursor = cursor.fork();
            cursor.set_tier(ReadTier::Disk);
            more = cursor.fill(&mut out, 1 << 20, entries_max);
            cursor.set_tier(ReadTier::Memory);
        }
        let more = more.unwrap();
        let batch = out.freeze();
        assert!(batch.len() <= entries_max);
        all.extend(batch.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
        if !more {
            return all;
        }
        for _ in 0..entries_max % 4 {
            let mut advanced = cursor.advance();
            if matches!(advanced, Err(Error::WouldBlock)) {
                cursor.set_tier(ReadTier::Disk);
                advanced = cursor.advance();
            }
            match advanced.unwrap() {
                Advanced::Entry { .. } => {
                    let (key, value) = cursor.entry();
                    all.push((key.to_vec(), value.to_vec()));
                }
                Advanced::Rest => {}
                Advanced::End => return all,
            }
            // Also with an entry that is lent.
            cursor.set_tier(tier);
        }
    }
}

/// What a stack has, the newest of each key, is what is to be seen between its ends. Returns the
/// numbers of the tables, by stacks.
fn check_stacks(view: &View, model: &Model) -> Vec<Vec<u64>> {
    let worth = Worth { bytes_min: 0, layers_max: usize::MAX, stack_bytes_max: u64::MAX };
    let stacks = view.stacks(KeyspaceId::DEFAULT, &Span::all(), worth).unwrap();
    for stack in &stacks {
        let mut oldest_first: Vec<_> = stack.slices().collect();
        oldest_first.sort_by_key(|(layer, _)| *layer);
        let mut found = Model::new();
        for (_, slice) in oldest_first {
            let mut cursor = slice.cursor(CursorOptions::default()).unwrap();
            cursor.seek_first().unwrap();
            while cursor.valid() {
                assert_eq!(cursor.kind(), Kind::Put);
                found.insert(cursor.key().to_vec(), cursor.value().to_vec());
                cursor.next().unwrap();
            }
        }
        let ends = stack.min_key().to_vec()..=stack.max_key().to_vec();
        let want: Model = model.range(ends).map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(found, want, "{stack:?}");
    }
    numbers(&stacks)
}

fn numbers(stacks: &[Stack]) -> Vec<Vec<u64>> {
    let of = |stack: &Stack| stack.slices().map(|(_, slice)| slice.number().0).collect();
    stacks.iter().map(of).collect()
}

fn check_view(view: &View, model: &Model, spans: &[(Span, bool, usize)], cold: bool) {
    for key in 0..KEYS {
        let key = key_of(key);
        let want = model.get(&key);
        let got = view.look_up::<Value>(KeyspaceId::DEFAULT, &key, ReadTier::Disk).unwrap();
        assert_eq!(got.as_deref(), want.map(|v| &v[..]), "get {key:?}");
        assert_eq!(
            view.look_up::<Exists>(KeyspaceId::DEFAULT, &key, ReadTier::Disk).unwrap(),
            want.is_some()
        );
    }
    check_stacks(view, model);
    for (span, reverse, entries_max) in spans {
        let mut spec = ScanSpec::new(KeyspaceId::DEFAULT, span.clone());
        spec.reverse = *reverse;
        let got = scan(view, &spec, *entries_max, cold);
        let bounds = (
            Bound::Included(span.lo.to_vec()),
            span.hi.as_ref().map_or(Bound::Unbounded, |hi| Bound::Excluded(hi.to_vec())),
        );
        let inside = |(k, v): (&Vec<u8>, &Vec<u8>)| (k.clone(), v.clone());
        let mut want: Vec<_> = if span.is_empty() {
            Vec::new()
        } else {
            model.range::<Vec<u8>, _>(bounds).map(inside).collect()
        };
        if *reverse {
            want.reverse();
        }
        assert_eq!(got, want, "{span:?} reverse {reverse} by {entries_max} cold {cold}");
    }
}

const KEYS: u16 = 60;

fn key_of(n: u16) -> Vec<u8> {
    format!("key{:02}", n % KEYS).into_bytes()
}

#[derive(Clone, Debug)]
enum Op {
    Write(u16, u16),
    Delete(u16),
    Seal(usize),
    Flush(usize, bool),
    Compact,
    Begin,
    End(usize),
    CompactAll,
    Keep,
    Forget,
    Check(Vec<(u16, Option<u16>, bool, usize)>, bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let span = (0..KEYS, proptest::option::of(0..KEYS), any::<bool>(), 1_usize..70);
    let op = prop_oneof![
        40 => (0..KEYS, 0_u16..300).prop_map(|(key, len)| Op::Write(key, len)),
        15 => (0..KEYS).prop_map(Op::Delete),
        5 => (0_usize..3).prop_map(Op::Seal),
        5 => (0_usize..3, any::<bool>()).prop_map(|(range, all)| Op::Flush(range, all)),
        4 => Just(Op::Compact),
        4 => Just(Op::Begin),
        4 => (0_usize..9).prop_map(Op::End),
        1 => Just(Op::CompactAll),
        1 => Just(Op::Keep),
        1 => Just(Op::Forget),
        3 => (proptest::collection::vec(span, 1..4), any::<bool>())
            .prop_map(|(spans, cold)| Op::Check(spans, cold)),
    ];
    proptest::collection::vec(op, 1..300)
}

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
