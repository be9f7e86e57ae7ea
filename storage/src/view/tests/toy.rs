//! A toy engine on the simulated disk: everything that the engine does, synchronous and on demand,
//! and the checks of what is read.

use super::*;

pub(super) type Model = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) const DB_ID: [u8; 16] = [7; 16];

pub(super) struct Toy {
    pub(super) mem: MemVfs,
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) dir: PathBuf,
    pub(super) tables: Arc<TableCache>,
    pub(super) options: CompactionOptions,
    pub(super) superversion: Arc<Superversion<()>>,
    pub(super) writers: Vec<MemtableWriter>,
    pub(super) claims: Claims,
    pub(super) rounds: Rounds,
    /// Jobs that are chosen and not run yet.
    pub(super) running: Vec<ClaimedJob>,
    /// Tables that no job may need.
    pub(super) set_aside: BTreeSet<SliceName>,
    /// Do all ranges rest?
    pub(super) rests: bool,
    pub(super) done: BTreeMap<&'static str, usize>,
    pub(super) now_ms: u64,
    pub(super) next_number: u64,
    pub(super) seqno: Seqno,
    pub(super) model: Model,
}

impl Toy {
    pub(super) fn new(splits: &[&'static [u8]]) -> Self {
        Self::caching(1 << 20, splits)
    }

    pub(super) fn caching(cache_bytes: u64, splits: &[&'static [u8]]) -> Self {
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

    pub(super) fn version(&self) -> Version {
        self.superversion.version(self.tables.obsolete_files())
    }

    pub(super) fn view(&self) -> View {
        View::new(Arc::clone(&self.superversion), self.seqno)
    }

    pub(super) fn value_len(&self, key: &[u8]) -> Option<u64> {
        self.view().look_up::<ValueLen>(KeyspaceId::DEFAULT, key, ReadTier::Disk).unwrap()
    }

    pub(super) fn swap(&mut self, ranges: Vec<RangeEntry<()>>) {
        let Superversion { number, epoch, born, .. } = *self.superversion;
        self.superversion =
            Arc::new(Superversion::new(number + 1, epoch, born, Arc::default(), ranges));
        check::check(&self.version()).unwrap();
    }

    pub(super) fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.seqno = self.seqno.next();
        let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
        let range = self.superversion.route_index(KeyspaceId::DEFAULT, key).unwrap();
        self.writers[range].insert(key, self.seqno, kind, value.unwrap_or(b""));
        match value {
            Some(value) => self.model.insert(key.to_vec(), value.to_vec()),
            None => self.model.remove(key),
        };
    }

    pub(super) fn seal(&mut self, range: usize) {
        let mut ranges = self.superversion.ranges.clone();
        let (active, writer) = memtable(self.superversion.number);
        let old = std::mem::replace(&mut ranges[range].active, active);
        ranges[range].sealed.insert(0, MemtableSlice::whole(old));
        self.swap(ranges);
        std::mem::replace(&mut self.writers[range], writer).freeze();
    }

    pub(super) fn sink<'a>(&self, next_number: &'a mut u64) -> TableSink<'a> {
        let options = TableOptions { block_bytes: 256, ..TableOptions::default() };
        TableSink::new(&self.vfs, &self.dir, DB_ID, options, || {
            *next_number += 1;
            FileNumber(*next_number - 1)
        })
    }

    pub(super) fn install(&mut self, edit: &VersionEdit, mut ranges: Vec<RangeEntry<()>>) {
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
    pub(super) fn flush(&mut self, range: usize, all: bool) {
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

    pub(super) fn run(&mut self, job: &mut Job) {
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
    pub(super) fn begin(&mut self) -> bool {
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
            bursts: None,
            merges: true,
        };
        let job = compact::pick(&situation, &mut self.rounds);
        drop(version);
        let begun = job.is_some();
        self.running.extend(job.map(|job| self.claims.claim(job)));
        begun
    }

    /// Runs one of the jobs that were chosen.
    pub(super) fn end(&mut self, at: usize) {
        if !self.running.is_empty() {
            let mut job = self.running.swap_remove(at % self.running.len());
            self.run(&mut job);
        }
    }

    pub(super) fn compact(&mut self) {
        if self.begin() {
            self.end(self.running.len() - 1);
        }
    }

    pub(super) fn compact_all(&mut self) {
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

/// The same view as after a split: ranges share what is sealed.
pub(super) fn shared(view: &View) -> View {
    let old = &view.superversion;
    let mut ranges = old.ranges.clone();
    let sealed: Vec<_> = ranges.iter().flat_map(|range| range.sealed.clone()).collect();
    for range in &mut ranges {
        range.sealed.clone_from(&sealed);
    }
    let Superversion { number, epoch, born, .. } = **old;
    let shared = Superversion::new(number, epoch, born, Arc::default(), ranges);
    View { superversion: Arc::new(shared), ..view.clone() }
}

/// The same view with a batch over it, and what it shows. The batch has keys of all ranges.
fn under_a_batch(view: &View, model: &Model) -> (View, Model) {
    let (mut batch, mut model) = (WriteBatch::new(), model.clone());
    batch.delete_range(key_of(50)..key_of(53));
    model.retain(|key, _| !(key_of(50)..key_of(53)).contains(key));
    // Other keys whenever there is another model.
    for key in (model.len() as u16 % 5..KEYS).step_by(6) {
        batch.put(key_of(key), "mine").delete(key_of(key + 3));
        model.insert(key_of(key), b"mine".to_vec());
        model.remove(&key_of(key + 3));
    }
    (view.with(OwnWrites::new(&batch)).unwrap(), model)
}

/// Chunks, and entries one by one, in turn. A cold block is waited for once, by a fork; then the
/// walk goes on without waiting. In every other walk the layers are closed after each chunk.
pub(super) fn scan(
    view: &View,
    spec: &ScanSpec,
    entries_max: usize,
    cold: bool,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let tier = if cold { ReadTier::Memory } else { ReadTier::Disk };
    let mut cursor = view.cursor(spec.clone(), tier);
    let mut all = Vec::new();
    loop {
        let mut out = ScanBatchBuilder::new();
        let mut more = cursor.fill(&mut out, 1 << 20, entries_max);
        if matches!(more, Err(Error::WouldBlock(_))) {
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
        if entries_max.is_multiple_of(2) {
            cursor.close();
        }
        for _ in 0..entries_max % 4 {
            let mut advanced = cursor.advance();
            if matches!(advanced, Err(Error::WouldBlock(_))) {
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
pub(super) fn check_stacks(view: &View, model: &Model) -> Vec<Vec<u64>> {
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

pub(super) fn numbers(stacks: &[Stack]) -> Vec<Vec<u64>> {
    let of = |stack: &Stack| stack.slices().map(|(_, slice)| slice.number().0).collect();
    stacks.iter().map(of).collect()
}

pub(super) fn check_view(view: &View, model: &Model, spans: &[(Span, bool, usize)], cold: bool) {
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
    check_scans(view, model, spans, cold);
    let shared = shared(view);
    check_scans(&shared, model, spans, cold);
    let (mine, model) = under_a_batch(&shared, model);
    check_scans(&mine, &model, spans, cold);
}

fn check_scans(view: &View, model: &Model, spans: &[(Span, bool, usize)], cold: bool) {
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

pub(super) const KEYS: u16 = 60;

pub(super) fn key_of(n: u16) -> Vec<u8> {
    format!("key{:02}", n % KEYS).into_bytes()
}

#[derive(Clone, Debug)]
pub(super) enum Op {
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

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
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
