//! What the background work can do on one core: a merge of four runs of L0 with the level below,
//! and a flush, of keys of 16 random bytes with incompressible values of 100, without compression.
//!
//! The bars: 250 MB/s of the merge's input, 300 MB/s of the flush's output. What a table's sync
//! costs depends on the disk: `TMPDIR=/dev/shm cargo bench --bench compaction` leaves it out.
//!
//! Beside each of them: a copy of as many bytes, and a checksum of them, so that figures of
//! different machines can be compared.

#![allow(missing_docs, reason = "criterion's macros define undocumented functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use sluicedb_storage::codec::{crc, hash64};
use sluicedb_storage::compact::{
    Claims, CompactionOptions, Job, ManualCompaction, ManualStep, Merge, TableSink, write_tables,
};
use sluicedb_storage::filename::{FileKind, FileNumber};
use sluicedb_storage::key::{Kind, Seqno, Span};
use sluicedb_storage::keyspace::KeyspaceId;
use sluicedb_storage::memtable::memtable;
use sluicedb_storage::table::{BlockCache, TableMeta, TableOptions};
use sluicedb_storage::version::{
    Place, RangeId, RangeVersion, Shards, SliceMeta, TableCache, TableLimits, Version, VersionEdit,
};
use sluicedb_storage::vfs::{DiskVfs, Vfs};
use std::cell::RefCell;
use std::hint::black_box;
use std::iter;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const DB_ID: [u8; 16] = [7; 16];
const RUN_ENTRIES: u64 = 64 << 10;
const RUNS: u64 = 4;
/// As many as the runs above it have.
const LEVEL_ENTRIES: u64 = RUNS * RUN_ENTRIES;
const FLUSH_ENTRIES: u64 = 512 << 10;
const KEY_BYTES: usize = 16;
const VALUE_BYTES: usize = 100;

type Entry = ([u8; KEY_BYTES], [u8; VALUE_BYTES]);

fn noise<const N: usize>(seed: u64) -> [u8; N] {
    let mut bytes = [0; N];
    for (at, word) in (0_u64..).zip(bytes.chunks_mut(8)) {
        let noise = hash64(&[seed.to_le_bytes(), at.to_le_bytes()].concat()).to_be_bytes();
        word.copy_from_slice(&noise[..word.len()]);
    }
    bytes
}

fn sorted(entries: std::ops::Range<u64>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = entries.map(|n| (noise(n), noise(n + (1 << 40)))).collect();
    entries.sort_unstable();
    entries
}

struct Disk<'a> {
    vfs: Arc<dyn Vfs>,
    dir: &'a Path,
    next: AtomicU64,
}

impl Disk<'_> {
    fn sink(&self) -> TableSink<'_> {
        TableSink::new(&self.vfs, self.dir, DB_ID, TableOptions::default(), || {
            FileNumber(self.next.fetch_add(1, Ordering::Relaxed))
        })
    }

    fn table(&self, entries: &[Entry], seqno: u64) -> TableMeta {
        let mut sink = self.sink();
        for (key, value) in entries {
            sink.add(key, Seqno(seqno), Kind::Put, value).unwrap();
        }
        sink.finish().unwrap().remove(0)
    }

    fn remove(&self, tables: &RefCell<Vec<TableMeta>>) {
        for table in tables.borrow_mut().drain(..) {
            self.vfs.remove(&FileKind::Table(table.number).path(self.dir)).unwrap();
        }
    }
}

/// All of L0 and the level below it.
fn job(disk: &Disk<'_>, tables: &Arc<TableCache>) -> Job {
    let level = (Place::Main(1), disk.table(&sorted(0..LEVEL_ENTRIES), 1));
    let runs = (0..RUNS).map(|run| {
        let first = LEVEL_ENTRIES + run * RUN_ENTRIES;
        (Place::L0, disk.table(&sorted(first..first + RUN_ENTRIES), 2 + run))
    });
    let mut edit = VersionEdit::default();
    for (place, table) in iter::once(level).chain(runs) {
        edit.added.push((RangeId::FIRST, place, SliceMeta::whole(table)));
    }
    let handles = edit.added.iter().map(|(_, _, slice)| tables.handle(Arc::clone(&slice.table)));
    let handles: Vec<_> = handles.collect();
    let range = RangeVersion::empty(RangeId::FIRST, Span::all(), Shards::one());
    let version = Version::new(vec![Arc::new(range)], Arc::clone(tables.obsolete_files()));
    let version = version.apply(&edit, &handles).unwrap();
    match ManualCompaction::whole(KeyspaceId::DEFAULT, Span::all()).step(&version, &Claims::new()) {
        ManualStep::Job(job) => *job,
        other => panic!("{other:?}"),
    }
}

/// What plain loops over as many bytes cost.
fn yardsticks(group: &mut BenchmarkGroup<'_, WallTime>, bytes: u64) {
    let from: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(noise::<8>).collect();
    let mut to = vec![0; from.len()];
    group.bench_function("a copy of as much", |b| {
        b.iter(|| black_box(&mut to).copy_from_slice(black_box(&from)));
    });
    group.bench_function("a checksum of as much", |b| b.iter(|| crc(black_box(&from))));
}

fn merge(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk { vfs: Arc::new(DiskVfs::new()), dir: dir.path(), next: AtomicU64::new(1) };
    let limits =
        TableLimits { open_max: 64, memory_bytes_max: 1 << 30, blocks: BlockCache::new(0) };
    let tables = TableCache::new(&disk.vfs, disk.dir, DB_ID, limits);
    let job = job(&disk, &tables);
    assert_eq!(job.input_entries(), Some(2 * LEVEL_ENTRIES));
    let options = CompactionOptions { table_bytes_max: 64 << 20, ..CompactionOptions::default() };
    let written = RefCell::new(Vec::new());
    let mut group = c.benchmark_group("merge");
    group.sample_size(20).throughput(Throughput::Bytes(job.input_bytes()));
    group.bench_function("four runs and a level", |b| {
        b.iter_batched(
            || disk.remove(&written),
            |()| {
                let mut merge = Merge::new(&job, &options, disk.sink());
                while merge.step().unwrap() {}
                *written.borrow_mut() = merge.finish().unwrap().added;
            },
            BatchSize::PerIteration,
        );
    });
    yardsticks(&mut group, job.input_bytes());
    group.finish();
}

fn flush(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk { vfs: Arc::new(DiskVfs::new()), dir: dir.path(), next: AtomicU64::new(1) };
    let (table, mut writer) = memtable(1);
    for n in 0..FLUSH_ENTRIES {
        let (key, value): Entry = (noise(n), noise(n + (1 << 40)));
        writer.insert(&key, Seqno(n + 1), Kind::Put, &value);
    }
    writer.freeze();
    let shards = Shards::of(&Span::all(), 4);
    let written = RefCell::new(Vec::new());
    let bytes = FLUSH_ENTRIES * (KEY_BYTES + VALUE_BYTES) as u64;
    let mut group = c.benchmark_group("flush");
    group.sample_size(20).throughput(Throughput::Bytes(bytes));
    group.bench_function("a memtable of 64 MiB", |b| {
        b.iter_batched(
            || disk.remove(&written),
            |()| {
                let mut cursor = table.cursor(Seqno::MAX);
                let tables = write_tables(&mut cursor, disk.sink(), shards.bounds(), &|| true);
                *written.borrow_mut() = tables.unwrap().unwrap();
            },
            BatchSize::PerIteration,
        );
    });
    yardsticks(&mut group, bytes);
    group.finish();
}

criterion_group!(benches, merge, flush);
criterion_main!(benches);
