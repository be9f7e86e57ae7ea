//! Whole tables: against a model, damaged, cold.
//!
//! Long because each damage is a test, and all share one way to build tables.

use super::*;
use crate::codec::hash64;
use crate::compact::{Claims, CompactionOptions, ManualCompaction, ManualStep, Merge, TableSink};
use crate::error::{Error, Result};
use crate::filename::FileNumber;
use crate::iter::Cursor;
use crate::key::{Kind, Seqno, Span};
use crate::version::{
    Place, RangeId, RangeVersion, Shards, Slice, TableCache, TableLimits, Version,
};
use crate::vfs::{MemVfs, Vfs};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Entry = (Seqno, Kind, Vec<u8>);
type Model = BTreeMap<Vec<u8>, Entry>;

const ID: TableId = TableId { db_id: *b"0123456789abcdef", number: FileNumber(7) };
const PATH: &str = "/db/000007.sst";

/// A small generator: a test is determined by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        hash64(&self.0.to_le_bytes())
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn key(&mut self) -> Vec<u8> {
        let number = self.below(5000);
        match self.below(6) {
            0 => number.to_be_bytes().to_vec(),
            1 => format!("user:{number:06}:name").into_bytes(),
            2 => format!("user:{number}").into_bytes(),
            3 => vec![0xFF; 1 + (number % 40) as usize],
            4 => [&[b'k'; 200][..], &number.to_be_bytes()].concat(),
            _ => hash64(&number.to_le_bytes()).to_be_bytes().repeat(2),
        }
    }
}

fn model(seed: u64, entries: u64) -> Model {
    let mut random = Random(seed << 32);
    let mut model = Model::new();
    for _ in 0..entries {
        let key = random.key();
        let bits = 1 + random.below(55);
        let seqno = Seqno(1 + random.below(1 << bits));
        let value = match random.below(40) {
            0..6 => (seqno, Kind::Delete, vec![]),
            6..10 => (seqno, Kind::Put, vec![]),
            10 => (seqno, Kind::Put, vec![b'v'; random.below(9000) as usize]),
            _ => {
                let length = random.below(150) as usize;
                let noise = random.next().to_le_bytes();
                (seqno, Kind::Put, noise.iter().copied().cycle().take(length).collect())
            }
        };
        model.insert(key, value);
    }
    model
}

fn write(vfs: &Arc<dyn Vfs>, model: &Model, options: &TableOptions) -> Result<TableMeta> {
    vfs.create_dir_all(Path::new("/db")).unwrap();
    let file = vfs.create(Path::new(PATH)).unwrap();
    let mut builder = TableBuilder::new(file, PathBuf::from(PATH), ID, options.clone());
    for (key, (seqno, kind, value)) in model {
        builder.add(key, *seqno, *kind, value)?;
    }
    assert_eq!(builder.entries(), model.len() as u64);
    let estimate = builder.estimated_bytes();
    let meta = builder.finish()?;
    if meta.file_bytes > 100_000 {
        let off = estimate as f64 / meta.file_bytes as f64;
        assert!((0.97..1.03).contains(&off), "{estimate} of {}", meta.file_bytes);
    }
    Ok(meta)
}

fn memory() -> Arc<dyn Vfs> {
    Arc::new(MemVfs::new())
}

fn open(vfs: &Arc<dyn Vfs>, cache: &Arc<BlockCache>) -> Result<Arc<Table>> {
    Table::open(vfs, PathBuf::from(PATH), ID, None, Arc::clone(cache))
}

fn get(table: &Table, key: &[u8]) -> Result<Option<Found>> {
    table.get(key, hash64(key), ReadTier::Disk)
}

fn all_options() -> Vec<TableOptions> {
    let plain = TableOptions::default();
    vec![
        plain.clone(),
        TableOptions { block_bytes: 256, restart_interval: 1, ..plain.clone() },
        TableOptions { block_bytes: 700, restart_interval: 4, ..plain.clone() },
        TableOptions { block_bytes: 200_000, restart_interval: 128, ..plain.clone() },
        TableOptions { filter_bits_per_key: 0, ..plain.clone() },
        TableOptions { compression: Compression::Lz4, ..plain.clone() },
        #[cfg(feature = "zstd")]
        TableOptions { compression: Compression::Zstd(1), ..plain },
    ]
}

fn same(cursor: &TableCursor, want: Option<(&Vec<u8>, &Entry)>) {
    assert_eq!(cursor.valid(), want.is_some(), "{want:?}");
    if let Some((key, (seqno, kind, value))) = want {
        assert_eq!(cursor.key(), key);
        assert_eq!((cursor.seqno(), cursor.kind()), (*seqno, *kind));
        assert_eq!(cursor.value(), value);
        assert_eq!(cursor.value_bytes(), value);
    }
}

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
                let mut key = random.key();
                let byte = random.below(key.len() as u64) as usize;
                key[byte] = random.next() as u8;
                assert_eq!(get(&table, &key).unwrap().is_some(), model.contains_key(&key));
                // Ask the block as well, as if the filter passed everything.
                let i = table.index().lower_bound(&key);
                if i < table.data_blocks() {
                    let block = table.read_block(i).unwrap();
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
                let key = random.key();
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

/// Key, seqno and value of a put.
type Put<'a> = (&'a [u8], u64, &'a [u8]);

/// Replaces block `i` by one of the same length with `entries` and a valid checksum.
fn replace_block(vfs: &Arc<dyn Vfs>, table: &Table, i: usize, entries: &[Put<'_>]) {
    let mut builder = super::block::BlockBuilder::new(16);
    for (key, seqno, value) in entries {
        builder.add(key, hash64(key), Seqno(*seqno), Kind::Put, value);
    }
    let mut raw = Vec::new();
    builder.finish(&mut raw);
    let (offset, length) = table.index().place(i);
    let seed = super::trailer::Seed::new(&ID.unique_id());
    let mut stored = Vec::new();
    super::trailer::put_block(&mut stored, &raw, Compression::None, seed, offset);
    assert_eq!(stored.len(), length, "the test's block has another length");
    vfs.open_rw(Path::new(PATH)).unwrap().write_all_at(&stored, offset).unwrap();
}

#[test]
fn a_verification_sees_what_checksums_do_not() {
    let model: Model = [&b"a"[..], b"b", b"c", b"d"]
        .iter()
        .enumerate()
        .map(|(i, key)| (key.to_vec(), (Seqno(10 + i as u64), Kind::Put, vec![i as u8; 90])))
        .collect();
    let options = TableOptions { block_bytes: 256, ..TableOptions::default() };
    let value: &[u8] = &[9; 90];
    // Compensates for the byte that the second of two equal keys shares.
    let longer: &[u8] = &[9; 91];
    let cases: [(&str, [Put<'_>; 2]); 6] = [
        ("first key is not the one", [(b"b", 10, value), (b"a", 11, value)]),
        ("keys do not ascend", [(b"a", 10, value), (b"a", 11, longer)]),
        ("after the block's separator", [(b"a", 10, value), (b"d", 11, value)]),
        ("first key is not the one", [(b"A", 10, value), (b"b", 11, value)]),
        ("keys that the filter denies", [(b"a", 10, value), (b"aa", 11, value)]),
        ("a seqno is none of the table's", [(b"a", 10, value), (b"b", 99, value)]),
    ];
    for (want, entries) in cases {
        let vfs = memory();
        write(&vfs, &model, &options).unwrap();
        let table = open(&vfs, &BlockCache::new(0)).unwrap();
        assert_eq!(table.data_blocks(), 2);
        replace_block(&vfs, &table, 0, &entries);
        let mut told = Vec::new();
        let report = table.verify(&mut |error| told.push(error.to_string()));
        assert!(told.iter().any(|error| error.contains(want)), "{want}: {told:?}");
        assert_eq!(report.errors, told.len() as u64);
    }
    let vfs = memory();
    write(&vfs, &model, &options).unwrap();
    let table = open(&vfs, &BlockCache::new(0)).unwrap();
    replace_block(&vfs, &table, 1, &[(b"b", 12, value), (b"d", 13, value)]);
    let mut told = Vec::new();
    table.verify(&mut |error| told.push(error.to_string()));
    assert!(told.iter().any(|error| error.contains("separator before")), "{told:?}");
}

/// Goal: every kind of reader reports a block that breaks a rule of the format, with file and
/// offset, although its checksum is valid.
#[test]
fn c3_blocks_that_break_a_rule_are_damage_to_every_reader() {
    let value = |i: u8| vec![i; 90];
    let entries = [&b"aaaa"[..], b"bbbb", b"cccc", b"dddd"];
    let model: Model = (entries.iter().zip(10_u8..))
        .map(|(key, i)| (key.to_vec(), (Seqno(u64::from(i)), Kind::Put, value(i))))
        .collect();
    let options = TableOptions { block_bytes: 256, ..TableOptions::default() };
    type Crafted<'a> = (&'a [u8], u64, Kind, Vec<u8>);
    let cases: [(&str, usize, [Crafted<'_>; 2]); 8] = [
        (
            "keys do not ascend",
            0,
            [(b"aaaa", 10, Kind::Put, value(1)), (b"aaa", 11, Kind::Put, value(1))],
        ),
        (
            "keys do not ascend",
            1,
            [(b"dddc", 12, Kind::Put, value(1)), (b"dddd", 13, Kind::Put, value(1))],
        ),
        ("a key is empty", 1, [(b"", 12, Kind::Put, value(1)), (b"dddd", 13, Kind::Put, value(1))]),
        (
            "a delete has a value",
            1,
            [(b"cccc", 12, Kind::Delete, value(1)), (b"dddd", 13, Kind::Put, value(1))],
        ),
        (
            "a seqno is none of the table's",
            1,
            [(b"cccc", 12, Kind::Put, value(1)), (b"dddd", 14, Kind::Put, value(1))],
        ),
        (
            "not after the separator before",
            1,
            [(b"bbbb", 12, Kind::Put, value(1)), (b"dddd", 13, Kind::Put, value(1))],
        ),
        (
            "after the block's separator",
            1,
            [(b"cccc", 12, Kind::Put, value(1)), (b"dddddd", 13, Kind::Put, value(1))],
        ),
        (
            "not the one the properties name",
            0,
            [(b"aaa", 10, Kind::Put, value(1)), (b"bbbb", 11, Kind::Put, value(1))],
        ),
    ];
    for (want, i, crafted) in cases {
        let vfs = memory();
        let meta = write(&vfs, &model, &options).unwrap();
        let intact = open(&vfs, &BlockCache::new(0)).unwrap();
        assert_eq!(intact.data_blocks(), 2);
        let (offset, length) = intact.index().place(i);
        let write_crafted = |crafted: &[Crafted<'_>]| {
            let mut builder = super::block::BlockBuilder::new(16);
            for (key, seqno, kind, value) in crafted {
                builder.add(key, hash64(key), Seqno(*seqno), *kind, value);
            }
            let (mut raw, mut stored) = (Vec::new(), Vec::new());
            builder.finish(&mut raw);
            let seed = super::trailer::Seed::new(&ID.unique_id());
            super::trailer::put_block(&mut stored, &raw, Compression::None, seed, offset);
            stored
        };
        // Where the rule is about order, the builder would refuse it, so the entries are swapped.
        let mut crafted = crafted;
        if want == "keys do not ascend" && i == 1 {
            let (first, second) = crafted.split_at_mut(1);
            std::mem::swap(&mut first[0].0, &mut second[0].0);
        }
        let short = length as isize - write_crafted(&crafted).len() as isize;
        let tail = &mut crafted[usize::from(want != "a delete has a value")].3;
        tail.resize((tail.len() as isize + short) as usize, 1);
        let stored = write_crafted(&crafted);
        assert_eq!(stored.len(), length, "{want}");
        vfs.open_rw(Path::new(PATH)).unwrap().write_all_at(&stored, offset).unwrap();

        let table = open(&vfs, &BlockCache::new(1 << 20)).unwrap();
        let damaged = |error: Error| {
            let named = matches!(&error, Error::Corrupt { offset: at, .. } if *at == offset);
            assert!(named && error.to_string().contains(PATH), "{want}: {error:?}");
            assert!(error.to_string().contains(want), "{want}: {error}");
        };
        for key in &entries[2 * i..2 * i + 2] {
            damaged(get(&table, key).unwrap_err());
        }
        let walk = |step: fn(&mut TableCursor) -> Result<()>, how: CursorOptions| {
            let mut cursor = table.cursor(how);
            let mut outcome = if i == 0 { cursor.seek_first() } else { cursor.seek(b"bbbbb") };
            while outcome.is_ok() && cursor.valid() {
                outcome = step(&mut cursor);
            }
            outcome.unwrap_err()
        };
        damaged(walk(TableCursor::next, CursorOptions::default()));
        damaged(walk(
            TableCursor::prev,
            CursorOptions { readahead_bytes: 0, ..Default::default() },
        ));
        let mut told = Vec::new();
        table.verify(&mut |error| told.push(error));
        damaged(told.swap_remove(0));
        damaged(compact(&vfs, &meta).unwrap_err());
    }
}

/// Merges the only table into another level.
fn compact(vfs: &Arc<dyn Vfs>, meta: &TableMeta) -> Result<()> {
    let blocks = BlockCache::new(0);
    let limits = TableLimits { open_max: 8, memory_bytes_max: 1 << 20, blocks };
    let tables = TableCache::new(vfs, Path::new("/db"), ID.db_id, limits);
    let mut range = RangeVersion::empty(RangeId::FIRST, Span::all(), Shards::one());
    let slice = Slice::whole(&tables.handle(Arc::new(meta.clone())));
    range.layers = range.layers.with(Place::L0, vec![slice]);
    let version = Version::new(vec![Arc::new(range)], Arc::clone(tables.obsolete_files()));
    let ManualStep::Job(job) =
        ManualCompaction::whole(crate::keyspace::KeyspaceId::DEFAULT, Span::all())
            .step(&version, &Claims::new())
    else {
        panic!("no job")
    };
    let mut numbers = 100..;
    let next = || FileNumber(numbers.next().expect("endless"));
    let sink = TableSink::new(vfs, Path::new("/db"), ID.db_id, TableOptions::default(), next);
    let options = CompactionOptions::default();
    let mut merge = Merge::new(&job, &options, sink);
    while merge.step()? {}
    merge.finish().map(|_| ())
}

/// Reads everything that a reader can. Stops at the first error.
fn read_everything(vfs: &Arc<dyn Vfs>, model: &Model) -> Result<()> {
    let table = open(vfs, &BlockCache::new(1 << 20))?;
    for (key, (seqno, kind, value)) in model {
        let found = get(&table, key)?.expect("a damaged table must not deny a key");
        assert_eq!((found.seqno, found.kind, &found.value[..]), (*seqno, *kind, &value[..]));
    }
    for how in
        [CursorOptions::default(), CursorOptions { readahead_bytes: 0, ..Default::default() }]
    {
        let mut cursor = table.cursor(how);
        cursor.seek_first()?;
        for entry in model {
            same(&cursor, Some(entry));
            cursor.next()?;
        }
        same(&cursor, None);
        cursor.seek_last()?;
        for entry in model.iter().rev() {
            same(&cursor, Some(entry));
            cursor.prev()?;
        }
        same(&cursor, None);
    }
    Ok(())
}

fn names_the_place(error: &Error) {
    match error {
        Error::Corrupt { path, .. } | Error::Unsupported { path, .. } => {
            assert_eq!(path, Path::new(PATH));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn any_damage_is_an_error_or_changes_no_answer() {
    for (seed, compression) in [(1, Compression::None), (2, Compression::Lz4)] {
        println!("seed {seed}");
        let model = model(300 + seed, 60);
        let vfs = memory();
        let options = TableOptions { block_bytes: 1024, compression, ..TableOptions::default() };
        let meta = write(&vfs, &model, &options).unwrap();
        read_everything(&vfs, &model).unwrap();
        let file = vfs.open_rw(Path::new(PATH)).unwrap();
        let mut good = vec![0; meta.file_bytes as usize];
        file.read_at(&mut good, 0).unwrap();
        let mut random = Random(seed);
        let mut harmless = 0;
        for at in 0..good.len() {
            let flip = 1 + random.below(255) as u8;
            file.write_all_at(&[good[at] ^ flip], at as u64).unwrap();
            match read_everything(&vfs, &model) {
                Ok(()) => harmless += 1,
                Err(error) => names_the_place(&error),
            }
            file.write_all_at(&good[at..=at], at as u64).unwrap();
        }
        // Only damage to the filter may have no consequences.
        assert!(harmless > 0 && harmless < good.len() / 8, "{harmless} of {}", good.len());
        for cut in (0..good.len()).step_by(7) {
            file.set_len(cut as u64).unwrap();
            names_the_place(&read_everything(&vfs, &model).unwrap_err());
        }
        for length in [0, 1, 127, 128, 1000] {
            let noise: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            file.set_len(0).unwrap();
            file.write_all_at(&noise, 0).unwrap();
            names_the_place(&read_everything(&vfs, &model).unwrap_err());
        }
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
    assert!(matches!(table.get(key, hash64(key), ReadTier::Memory), Err(Error::WouldBlock)));
    assert!(matches!(cursor.seek_first(), Err(Error::WouldBlock)));
    assert!(!cursor.valid());
    // Once a reader that may block has read the block, it is cached for everybody.
    get(&table, key).unwrap();
    assert!(table.get(key, hash64(key), ReadTier::Memory).unwrap().is_some());
    cursor.seek_first().unwrap();
    let mut outcome = Ok(());
    while outcome.is_ok() && cursor.valid() {
        outcome = cursor.next();
    }
    assert!(matches!(outcome, Err(Error::WouldBlock)));
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
