//! Whole tables: against a model, damaged, cold.

mod crafted;
mod damage;
mod model;

use super::*;
use crate::codec::hash64;
use crate::compact::{Claims, CompactionOptions, ManualCompaction, ManualStep, Merge, TableSink};
use crate::error::{Error, Lacks, Result};
use crate::filename::FileNumber;
use crate::iter::Cursor;
use crate::key::{Kind, Seqno, Span};
use crate::version::{
    Place, RangeId, RangeVersion, Shards, Slice, TableCache, TableLimits, Version,
};
use crate::vfs::{MemVfs, OperationKind, Vfs};
use damage::*;
use model::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

#[test]
fn gets_agree_with_a_model() {
    for (seed, options) in all_options().into_iter().enumerate() {
        println!("seed {seed}, {options:?}");
        let model = model(seed as u64, 3000);
        let vfs = memory();
        let meta = write(&vfs, &model, &options).unwrap();
        for cache_bytes in [0, 10_000, 64 << 20] {
            let cache = BlockCache::new(cache_bytes);
            let table =
                Table::open(&vfs, PATH.into(), ID, Some(&meta), Arc::clone(&cache)).unwrap();
            assert_eq!(table.meta(), &meta);
            for (key, (seqno, kind, value)) in &model {
                let found = get(&table, key).unwrap().unwrap();
                assert_eq!(
                    (found.seqno, found.kind, &found.value[..]),
                    (*seqno, *kind, &value[..])
                );
                let probed = table.probe(key, hash64(key), ReadTier::Disk).unwrap();
                assert_eq!(probed, Some((*seqno, *kind)));
            }
            let mut random = Random(seed as u64);
            for _ in 0..3000 {
                let mut key = key(&mut random);
                let byte = random.below(key.len() as u64) as usize;
                key[byte] = random.next() as u8;
                assert_eq!(get(&table, &key).unwrap().is_some(), model.contains_key(&key));
                // Ask the block as well, as if the filter passed everything.
                let i = table.index().lower_bound(&key);
                if i < table.data_blocks() {
                    let block = table.read_block(i, false).unwrap();
                    let found = block.find(&key, hash64(&key)).unwrap();
                    assert_eq!(found.is_some(), model.contains_key(&key));
                }
            }
            assert!(cache.used_bytes() <= cache_bytes);
            let fits = cache_bytes > options.block_bytes as u64;
            assert_eq!(cache.hits() > 0, fits);
        }
        assert_eq!(meta.entries, model.len() as u64);
        assert_eq!(meta.min_key, model.first_key_value().unwrap().0);
        assert_eq!(meta.max_key, model.last_key_value().unwrap().0);
    }
}

#[test]
fn cursors_agree_with_a_model() {
    for (seed, options) in all_options().into_iter().enumerate() {
        println!("seed {seed}, {options:?}");
        let model = model(100 + seed as u64, 3000);
        let vfs = memory();
        write(&vfs, &model, &options).unwrap();
        for (cache_bytes, fill_cache, readahead_bytes) in
            [(0, true, 0), (0, false, 20_000), (30_000, true, 256 << 10), (64 << 20, true, 8000)]
        {
            let table = open(&vfs, &BlockCache::new(cache_bytes)).unwrap();
            let how = CursorOptions { tier: ReadTier::Disk, fill_cache, readahead_bytes };
            let mut cursor = table.cursor(how);
            assert!(!cursor.valid());
            for _ in 0..2 {
                cursor.seek_first().unwrap();
                for entry in &model {
                    same(&cursor, Some(entry));
                    cursor.next().unwrap();
                }
                same(&cursor, None);
                cursor.seek_last().unwrap();
                for entry in model.iter().rev() {
                    same(&cursor, Some(entry));
                    cursor.prev().unwrap();
                }
                same(&cursor, None);
            }
            let mut random = Random(seed as u64);
            for _ in 0..400 {
                let key = key(&mut random);
                if random.below(2) == 0 {
                    cursor.seek(&key).unwrap();
                    same(&cursor, model.range(key..).next());
                } else {
                    cursor.seek_before(&key).unwrap();
                    same(&cursor, model.range(..key).next_back());
                }
                for _ in 0..random.below(120) {
                    if !cursor.valid() {
                        break;
                    }
                    let at = cursor.key().to_vec();
                    if random.below(3) == 0 {
                        cursor.prev().unwrap();
                        same(&cursor, model.range(..at).next_back());
                    } else {
                        cursor.next().unwrap();
                        let after = (std::ops::Bound::Excluded(at), std::ops::Bound::Unbounded);
                        same(&cursor, model.range::<Vec<u8>, _>(after).next());
                    }
                }
            }
        }
    }
}

#[test]
fn a_block_cursor_steps_the_same_from_anywhere() {
    // A wrong shared prefix would show after a jump into the middle of a group and a step forward.
    let model: Model = (0..300_u32)
        .map(|i| {
            let key = format!("prefix{:03}{}", i / 7, "x".repeat(i as usize % 7)).into_bytes();
            (key, (Seqno(u64::from(i)), Kind::Put, vec![i as u8; 3]))
        })
        .collect();
    let vfs = memory();
    write(&vfs, &model, &TableOptions { block_bytes: 4096, ..TableOptions::default() }).unwrap();
    let table = open(&vfs, &BlockCache::new(1 << 20)).unwrap();
    let mut cursor = table.cursor(CursorOptions::default());
    let entries: Vec<_> = model.iter().collect();
    for start in 0..entries.len() {
        cursor.seek(entries[start].0).unwrap();
        for entry in entries[start..].iter().take(40) {
            same(&cursor, Some(*entry));
            cursor.next().unwrap();
        }
    }
}

#[test]
fn a_verification_of_a_good_table_is_quiet() {
    for (seed, options) in all_options().into_iter().enumerate() {
        let model = model(200 + seed as u64, 2000);
        let vfs = memory();
        write(&vfs, &model, &options).unwrap();
        let table = open(&vfs, &BlockCache::new(0)).unwrap();
        let report = table.verify(&mut |error| panic!("{error}"));
        assert_eq!(report.entries, model.len() as u64);
        assert_eq!(report.blocks, table.data_blocks() as u64);
        assert_eq!(report.errors, 0);
    }
}

#[test]
fn a_broken_filter_means_maybe() {
    let model = model(9, 500);
    let vfs = memory();
    write(&vfs, &model, &TableOptions::default()).unwrap();
    let cache = BlockCache::new(1 << 20);
    let filter_at = open(&vfs, &cache).unwrap().footer().filter.offset;
    vfs.open_rw(Path::new(PATH)).unwrap().write_all_at(&[0xAA; 40], filter_at + 30).unwrap();
    let table = open(&vfs, &cache).unwrap();
    assert!(table.filter_is_broken());
    assert_eq!(cache.broken_filters(), 1);
    for key in model.keys() {
        assert!(get(&table, key).unwrap().is_some());
    }
    assert!(get(&table, b"nobody").unwrap().is_none());
    let mut errors = Vec::new();
    table.verify(&mut |error| errors.push(error));
    assert!(matches!(&errors[..], [Error::Corrupt { offset, .. }] if *offset == filter_at));
}

#[test]
fn an_error_poisons_nothing() {
    let model = model(10, 200);
    let vfs = memory();
    write(&vfs, &model, &TableOptions::default()).unwrap();
    let table = open(&vfs, &BlockCache::new(1 << 20)).unwrap();
    let file = vfs.open_rw(Path::new(PATH)).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, 10).unwrap();
    file.write_all_at(&[!byte[0]], 10).unwrap();
    let key = model.first_key_value().unwrap().0;
    let mut cursor = table.cursor(CursorOptions::default());
    for _ in 0..2 {
        let error = get(&table, key).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { offset: 0, .. }), "{error}");
        assert!(cursor.seek_first().is_err());
        assert!(!cursor.valid());
    }
    file.write_all_at(&byte, 10).unwrap();
    assert!(get(&table, key).unwrap().is_some());
    cursor.seek_first().unwrap();
    assert_eq!(cursor.key(), key);
}

#[test]
fn a_reader_that_must_not_wait_is_told_so() {
    let model = model(11, 2000);
    let disk = Arc::new(MemVfs::new());
    let vfs: Arc<dyn Vfs> = Arc::clone(&disk) as _;
    write(&vfs, &model, &TableOptions::default()).unwrap();
    let table = open(&vfs, &BlockCache::new(8 << 20)).unwrap();
    let (key, _) = model.first_key_value().unwrap();
    let how = CursorOptions { tier: ReadTier::Memory, ..CursorOptions::default() };
    let mut cursor = table.cursor(how);
    disk.set_cold_reads(true);
    assert!(matches!(
        table.get(key, hash64(key), ReadTier::Memory),
        Err(Error::WouldBlock(Lacks::Pages))
    ));
    assert!(matches!(cursor.seek_first(), Err(Error::WouldBlock(Lacks::Pages))));
    assert!(!cursor.valid());
    // Once a reader that may block has read the block, it is cached for everybody.
    get(&table, key).unwrap();
    assert!(table.get(key, hash64(key), ReadTier::Memory).unwrap().is_some());
    cursor.seek_first().unwrap();
    let mut outcome = Ok(());
    while outcome.is_ok() && cursor.valid() {
        outcome = cursor.next();
    }
    assert!(matches!(outcome, Err(Error::WouldBlock(Lacks::Pages))));
    // Bytes in the page cache count as present.
    disk.set_cold_reads(false);
    cursor.seek_first().unwrap();
    let mut seen = 0;
    while cursor.valid() {
        seen += 1;
        cursor.next().unwrap();
    }
    assert_eq!(seen, model.len());
}

/// It is read, checked and kept by a thread that may take its time, wherever it is.
///
/// Planted: no bound; one for values of 64 KiB.
#[test]
fn a_reader_that_must_not_wait_reads_no_large_block() {
    let mut random = Random(5);
    let mut entry = |bytes: usize| {
        let value = (0..bytes).map(|_| random.next() as u8).collect::<Vec<_>>();
        (Seqno(1), Kind::Put, value)
    };
    let model: BTreeMap<_, _> =
        [(b"a".to_vec(), entry(64 << 10)), (b"b".to_vec(), entry(300 << 10))].into_iter().collect();
    let vfs = memory();
    write(&vfs, &model, &TableOptions::default()).unwrap();
    let table = open(&vfs, &BlockCache::new(8 << 20)).unwrap();
    let found =
        |key: &[u8]| table.get(key, hash64(key), ReadTier::Memory).map(|found| found.is_some());
    assert!(found(b"a").unwrap());
    assert!(matches!(found(b"b"), Err(Error::WouldBlock(Lacks::Thread))));
    let how = CursorOptions { tier: ReadTier::Memory, ..CursorOptions::default() };
    let mut cursor = table.cursor(how);
    cursor.seek_first().unwrap();
    assert!(matches!(cursor.next(), Err(Error::WouldBlock(Lacks::Thread))));
    get(&table, b"b").unwrap();
    assert!(found(b"b").unwrap(), "it is in the cache");
}

/// A short block that is long when it is inflated.
#[test]
fn a_reader_that_must_not_wait_inflates_no_large_block() {
    let zeros = (Seqno(1), Kind::Put, vec![0; 300 << 10]);
    let model: BTreeMap<_, _> = (0..8_u8).map(|n| (vec![n], zeros.clone())).collect();
    let vfs = memory();
    let options = TableOptions { compression: Compression::Lz4, ..TableOptions::default() };
    write(&vfs, &model, &options).unwrap();
    let table = open(&vfs, &BlockCache::new(0)).unwrap();
    assert!(matches!(
        table.get(&[3], hash64(&[3]), ReadTier::Memory),
        Err(Error::WouldBlock(Lacks::Thread))
    ));
    let mut how = CursorOptions::default();
    let mut cursor = table.cursor(how);
    cursor.seek_first().unwrap();
    (1..8).for_each(|_| cursor.next().unwrap());
    how.tier = ReadTier::Memory;
    for seek in 0..8 {
        assert!(matches!(table.cursor(how).seek(&[seek]), Err(Error::WouldBlock(Lacks::Thread))));
    }
}

#[test]
fn values_share_their_block_only_when_they_are_a_good_part_of_it() {
    let mut model = Model::new();
    for i in 0..100_u8 {
        model.insert(vec![i], (Seqno(1), Kind::Put, vec![i; 100]));
    }
    model.insert(vec![200], (Seqno(1), Kind::Put, vec![1; 1 << 20]));
    let vfs = memory();
    write(&vfs, &model, &TableOptions::default()).unwrap();
    let table = open(&vfs, &BlockCache::new(64 << 20)).unwrap();
    let address = |key: &[u8]| get(&table, key).unwrap().unwrap().value;
    let (one, two) = (address(&[200]), address(&[200]));
    assert_eq!(one.as_ptr(), two.as_ptr());
    let (one, two) = (address(&[50]), address(&[50]));
    assert_ne!(one.as_ptr(), two.as_ptr());
}

#[test]
fn a_value_that_is_kept_survives_the_window_it_was_read_in() {
    let model: Model =
        (0..200_u8).map(|i| (vec![i], (Seqno(1), Kind::Put, vec![i; 9000]))).collect();
    let vfs = memory();
    write(&vfs, &model, &TableOptions::default()).unwrap();
    let table = open(&vfs, &BlockCache::new(0)).unwrap();
    let mut cursor = table.cursor(CursorOptions { readahead_bytes: 40_000, ..Default::default() });
    let mut kept = Vec::new();
    cursor.seek_first().unwrap();
    while cursor.valid() {
        kept.push(cursor.value_bytes());
        cursor.next().unwrap();
    }
    assert_eq!(kept.len(), 200);
    assert!(kept.iter().zip(model.values()).all(|(value, (.., want))| value == want));
}

/// A block that was read ahead was never looked for. Planted: each of them counts.
#[test]
fn what_is_read_ahead_is_missed_once() {
    let model = model(13, 2000);
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    write(&vfs, &model, &TableOptions::default()).unwrap();
    let cache = BlockCache::new(0);
    let table = open(&vfs, &cache).unwrap();
    let mut cursor = table.cursor(CursorOptions { readahead_bytes: 40_000, ..Default::default() });
    cursor.seek_first().unwrap();
    while cursor.valid() {
        cursor.next().unwrap();
    }
    let blocks = table.data_blocks() as u64;
    assert!((1..blocks / 2).contains(&cache.misses()), "{} of {blocks}", cache.misses());
}

#[test]
fn a_table_is_refused_where_the_manifest_expects_another() {
    let model = model(12, 100);
    let vfs = memory();
    let meta = write(&vfs, &model, &TableOptions::default()).unwrap();
    let cache = BlockCache::new(0);
    let open = |path: &str, id, expected: &TableMeta| {
        Table::open(&vfs, path.into(), id, Some(expected), Arc::clone(&cache)).map(|_| ())
    };
    open(PATH, ID, &meta).unwrap();
    let other = TableMeta { entries: meta.entries + 1, ..meta.clone() };
    names_the_place(&open(PATH, ID, &other).unwrap_err());
    let other = TableMeta { unique_id: [0; 16], ..meta.clone() };
    names_the_place(&open(PATH, ID, &other).unwrap_err());
    let missing = open("/db/000008.sst", ID, &meta).unwrap_err();
    assert!(matches!(missing, Error::Missing { .. }), "{missing}");
}

#[test]
fn impossible_tables_are_refused() {
    let vfs = memory();
    let error = write(&vfs, &Model::new(), &TableOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }));
    let vfs = memory();
    let options = TableOptions { restart_interval: 3, ..TableOptions::default() };
    let error = write(&vfs, &model(1, 10), &options).unwrap_err();
    assert!(error.to_string().contains("restart_interval"));
}

#[test]
#[should_panic(expected = "ascend strictly")]
fn keys_out_of_order_are_a_broken_rule() {
    let vfs = memory();
    vfs.create_dir_all(Path::new("/db")).unwrap();
    let file = vfs.create(Path::new(PATH)).unwrap();
    let mut builder = TableBuilder::new(file, PATH.into(), ID, TableOptions::default());
    builder.add(b"b", Seqno(1), Kind::Put, b"").unwrap();
    builder.add(b"b", Seqno(2), Kind::Put, b"").unwrap();
}

#[test]
fn split_points_and_sizes_come_from_the_index() {
    let model: Model = (0..20_000_u64)
        .map(|i| (i.to_be_bytes().to_vec(), (Seqno(1), Kind::Put, vec![0; 50])))
        .collect();
    let vfs = memory();
    let meta = write(&vfs, &model, &TableOptions::default()).unwrap();
    let table = open(&vfs, &BlockCache::new(0)).unwrap();
    let before = table.bytes_before(&10_000_u64.to_be_bytes()) as f64;
    let share = before / meta.file_bytes as f64;
    assert!((0.45..0.55).contains(&share), "{share}");
    assert_eq!(table.bytes_before(b""), 0);
    let mut middle = [0; 8];
    let key = table.key_at_fraction(1, 2);
    middle[..key.len()].copy_from_slice(key);
    assert!((9_900..10_100).contains(&u64::from_be_bytes(middle)));
}

/// Planted: chunks end where a block ends.
#[test]
fn no_page_of_a_table_goes_to_the_disk_in_two_parts_except_where_the_index_begins() {
    const PAGE: u64 = 4096;
    let disk = MemVfs::new();
    let writes: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let seen = Arc::clone(&writes);
    disk.on_operation(move |_, operation| {
        if operation.kind == OperationKind::Write {
            seen.lock().unwrap().push((operation.offset, operation.len));
        }
    });
    disk.create_dir_all(Path::new("/db")).unwrap();
    let file = disk.create(Path::new(PATH)).unwrap();
    let options = TableOptions { compression: Compression::None, ..TableOptions::default() };
    let mut builder = TableBuilder::new(file, PATH.into(), ID, options);
    for n in 0..20_000_u64 {
        builder.add(&n.to_be_bytes(), Seqno(n + 1), Kind::Put, &[7; 100]).unwrap();
    }
    builder.finish().unwrap();
    let writes = writes.lock().unwrap();
    assert!(writes.len() > 4, "{writes:?}");
    let shared = writes.iter().filter(|(offset, _)| !offset.is_multiple_of(PAGE));
    assert!(shared.count() <= 1, "{writes:?}");
    let next = writes.iter().map(|(offset, len)| offset + len);
    assert!(next.zip(&writes[1..]).all(|(end, (offset, _))| end == *offset), "{writes:?}");
}
