//! One table of a million entries (16 B random keys, 100 B values): point reads beside a `BTreeMap`
//! of the same entries, scans, seeks, building and opening. `cargo bench --bench table`.

#![allow(missing_docs, reason = "criterion's macros define undocumented functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sluicedb_storage::codec::hash64;
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::iter::Cursor;
use sluicedb_storage::key::{Kind, Seqno};
use sluicedb_storage::table::{
    BlockCache, CursorOptions, ReadTier, Table, TableBuilder, TableId, TableOptions,
};
use sluicedb_storage::vfs::{DiskVfs, Vfs};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

const ENTRIES: u64 = 1_000_000;
const VALUE_BYTES: usize = 100;
const ID: TableId = TableId { db_id: [7; 16], number: FileNumber(1) };

fn key(i: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&hash64(&i.to_le_bytes()).to_be_bytes());
    key[8..].copy_from_slice(&hash64(&(i + (1 << 40)).to_le_bytes()).to_be_bytes());
    key
}

/// Visits all numbers below `ENTRIES` in an order without a pattern.
fn shuffled(step: &mut u64) -> u64 {
    *step = (*step + 1) % ENTRIES;
    hash64(&step.to_le_bytes()) % ENTRIES
}

fn build(vfs: &Arc<dyn Vfs>, path: &Path, sorted: &[([u8; 16], u64)]) {
    let file = vfs.create(path).unwrap();
    let mut builder = TableBuilder::new(file, path.to_owned(), ID, TableOptions::default());
    let value = [b'v'; VALUE_BYTES];
    for (key, seqno) in sorted {
        builder.add(key, Seqno(*seqno), Kind::Put, &value).unwrap();
    }
    black_box(builder.finish().unwrap());
}

fn table(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(DiskVfs::new());
    let path = dir.path().join("000001.sst");
    let mut sorted: Vec<_> = (0..ENTRIES).map(|i| (key(i), i + 1)).collect();
    sorted.sort_unstable();
    build(&vfs, &path, &sorted);
    let open = |cache: &Arc<BlockCache>| {
        Table::open(&vfs, path.clone(), ID, None, Arc::clone(cache)).unwrap()
    };
    let cache = BlockCache::new(512 << 20);
    let cached = open(&cache);
    for (key, _) in &sorted {
        assert!(cached.get(key, hash64(key), ReadTier::Disk).unwrap().is_some());
    }
    let uncached = open(&BlockCache::new(0));
    let mut map = BTreeMap::new();
    for i in 0..ENTRIES {
        map.insert(key(i).to_vec(), vec![b'v'; VALUE_BYTES]);
    }

    let mut group = c.benchmark_group("get");
    group.bench_function("btreemap", |b| {
        let mut step = 0;
        b.iter(|| black_box(map.get(&key(shuffled(&mut step))[..]).unwrap().clone()));
    });
    group.bench_function("btreemap, not cloned", |b| {
        let mut step = 0;
        b.iter(|| map.get(&key(shuffled(&mut step))[..]).map(|value| black_box(value).len()));
    });
    group.bench_function("cached", |b| {
        let mut step = 0;
        b.iter(|| {
            let key = key(shuffled(&mut step));
            cached.get(&key, hash64(&key), ReadTier::Memory).unwrap().unwrap()
        });
    });
    group.bench_function("cached, probe", |b| {
        let mut step = 0;
        b.iter(|| {
            let key = key(shuffled(&mut step));
            cached.probe(&key, hash64(&key), ReadTier::Memory).unwrap().unwrap()
        });
    });
    group.bench_function("cached, one block", |b| {
        let mut at = 0;
        b.iter(|| {
            at = (at + 1) % 32;
            let key = &sorted[at].0;
            cached.get(key, hash64(key), ReadTier::Memory).unwrap().unwrap()
        });
    });
    group.bench_function("page cache", |b| {
        let mut step = 0;
        b.iter(|| {
            let key = key(shuffled(&mut step));
            uncached.get(&key, hash64(&key), ReadTier::Disk).unwrap().unwrap()
        });
    });
    group.bench_function("absent", |b| {
        let mut step = 0;
        b.iter(|| {
            let key = key(ENTRIES + shuffled(&mut step));
            cached.get(&key, hash64(&key), ReadTier::Memory).unwrap()
        });
    });
    group.bench_function("key and hash only", |b| {
        let mut step = 0;
        b.iter(|| hash64(&key(shuffled(&mut step))));
    });
    group.finish();

    let mut group = c.benchmark_group("scan");
    group.sample_size(20).throughput(Throughput::Elements(ENTRIES));
    let scan = |table: &Arc<Table>, fill_cache, forward: bool| {
        let how = CursorOptions { fill_cache, ..CursorOptions::default() };
        let mut cursor = table.cursor(how);
        let mut seen = 0;
        let first = if forward { cursor.seek_first() } else { cursor.seek_last() };
        first.unwrap();
        while cursor.valid() {
            black_box((cursor.key(), cursor.value()));
            seen += 1;
            let step = if forward { cursor.next() } else { cursor.prev() };
            step.unwrap();
        }
        assert_eq!(seen, ENTRIES);
    };
    group.bench_function("forward, page cache", |b| b.iter(|| scan(&uncached, false, true)));
    group.bench_function("backward, page cache", |b| b.iter(|| scan(&uncached, false, false)));
    group.bench_function("forward, cached", |b| b.iter(|| scan(&cached, true, true)));
    group.bench_function("backward, cached", |b| b.iter(|| scan(&cached, true, false)));
    group.finish();

    let mut group = c.benchmark_group("seek");
    group.bench_function("cached", |b| {
        let mut step = 0;
        let mut cursor = cached.cursor(CursorOptions::default());
        b.iter(|| {
            cursor.seek(&key(shuffled(&mut step))).unwrap();
            assert!(cursor.valid());
        });
    });
    group.bench_function("cached, then 100 entries", |b| {
        let mut step = 0;
        let mut cursor = cached.cursor(CursorOptions::default());
        b.iter(|| {
            cursor.seek(&key(shuffled(&mut step))).unwrap();
            for _ in 0..100 {
                if !cursor.valid() {
                    break;
                }
                black_box((cursor.key(), cursor.value()));
                cursor.next().unwrap();
            }
        });
    });
    group.finish();

    let mut group = c.benchmark_group("file");
    group.sample_size(10);
    group.bench_function("open", |b| b.iter(|| open(&cache)));
    group.throughput(Throughput::Bytes(ENTRIES * (16 + VALUE_BYTES as u64)));
    let target = dir.path().join("000002.sst");
    group.bench_function("build on disk, synced", |b| {
        b.iter_batched(
            || drop(vfs.remove(&target)),
            |()| build(&vfs, &target, &sorted),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, table);
criterion_main!(benches);
