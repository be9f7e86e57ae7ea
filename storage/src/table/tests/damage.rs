//! Damaged tables: errors that name the place, and never a wrong answer.

use super::*;

/// Key, seqno and value of a put.
pub(super) type Put<'a> = (&'a [u8], u64, &'a [u8]);

/// Replaces block `i` by one of the same length with `entries` and a valid checksum.
pub(super) fn replace_block(vfs: &Arc<dyn Vfs>, table: &Table, i: usize, entries: &[Put<'_>]) {
    let mut builder = super::block::BlockBuilder::new(16);
    for (key, seqno, value) in entries {
        builder.add(key, hash64(key), Seqno(*seqno), Kind::Put, value);
    }
    let mut raw = Vec::new();
    builder.finish(&mut raw);
    let (offset, length) = table.index().place(i);
    let seed = super::trailer::ChecksumSeed::new(&ID.unique_id());
    let mut stored = Vec::new();
    super::trailer::put_block(&mut stored, &raw, Compression::None, seed, offset);
    assert_eq!(stored.len(), length, "the test's block has another length");
    vfs.open_rw(Path::new(PATH)).unwrap().write_all_at(&stored, offset).unwrap();
}

#[test]
pub(super) fn a_verification_sees_what_checksums_do_not() {
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
pub(super) fn c3_blocks_that_break_a_rule_are_damage_to_every_reader() {
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
            let seed = super::trailer::ChecksumSeed::new(&ID.unique_id());
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
pub(super) fn compact(vfs: &Arc<dyn Vfs>, meta: &TableMeta) -> Result<()> {
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
pub(super) fn read_everything(vfs: &Arc<dyn Vfs>, model: &Model) -> Result<()> {
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

pub(super) fn names_the_place(error: &Error) {
    match error {
        Error::Corrupt { path, .. } | Error::Unsupported { path, .. } => {
            assert_eq!(path, Path::new(PATH));
        }
        other => panic!("{other}"),
    }
}

#[test]
pub(super) fn any_damage_is_an_error_or_changes_no_answer() {
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
