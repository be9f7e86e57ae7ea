//! The memtable against a sorted map of all versions, alone and with concurrent readers.
//!
//! Method: keys come from families that are hard for a radix tree: tiny alphabets with 0x00 and
//! 0xFF, keys that are prefixes of keys, long shared prefixes that end at every length, and full
//! fan-out of one byte. Every random test prints its seed.

mod oracle;
mod reclaim;

use super::*;
use crate::buffer::BufferOptions;
use crate::error::Result;
use crate::iter::Cursor;
use crate::limits::KEY_BYTES_MAX;
use crate::points::ReadPoints;
use crate::vfs::chance::Chance;
use oracle::*;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicBool;
use std::thread;

/// The generator of simulated disks, for places in memory.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        let mut chance = Chance(self.0);
        let bits = chance.next();
        self.0 = chance.0;
        bits
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Goal: gets and cursors agree with the map at every sequence number, while the memtable grows.
#[test]
fn agrees_with_a_sorted_map_of_versions() {
    for seed in seeds() {
        let mut random = Random(seed);
        let (table, mut writer) = memtable(7);
        let mut model = Model::new();
        for seqno in 1..=3_000 {
            let (key, kind, value) = operation(&mut random, seqno);
            writer.insert(&key, Seqno(seqno), kind, &value);
            model.insert((key.clone(), Reverse(seqno)), (kind, value));
            check_get(&table, &model, &key, seqno);
            check_get(&table, &model, &key, seqno - 1);
            check_get(&table, &model, &super::tests::key(&mut random), random.next() % (seqno + 1));
            if seqno % 250 == 0 {
                let upto = random.next() % (seqno + 1);
                check_cursor(&table, &model, upto, &mut random);
                check_cursor(&table, &model, seqno, &mut random);
            }
        }
        let keys: Vec<Vec<u8>> = shown(&model, u64::MAX).into_iter().map(|entry| entry.0).collect();
        for key in keys.iter().step_by(7) {
            for upto in 0..=3_001 {
                check_get(&table, &model, key, upto);
            }
        }
        assert_eq!(table.entries(), 3_000);
        assert_eq!((table.first_seqno(), table.last_seqno()), (Some(Seqno(1)), Some(Seqno(3_000))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..Default::default()
    })]

    /// Goal: the same on short histories, which proptest shrinks to something readable.
    #[test]
    fn agrees_on_any_short_history(
        history in prop::collection::vec(
            (
                prop::collection::vec(prop_oneof![Just(0), Just(1), Just(255), any::<u8>()], 1..12),
                any::<bool>(),
            ),
            1..80,
        )
    ) {
        let (table, mut writer) = memtable(0);
        let mut model = Model::new();
        for (seqno, (key, put)) in (1..).zip(&history) {
            let kind = if *put { Kind::Put } else { Kind::Delete };
            let value = if *put { &key[..key.len() / 2] } else { &[] };
            writer.insert(key, Seqno(seqno), kind, value);
            model.insert((key.clone(), Reverse(seqno)), (kind, value.to_vec()));
        }
        let last = history.len() as u64;
        for (key, _) in &history {
            for upto in 0..=last {
                check_get(&table, &model, key, upto);
            }
            check_get(&table, &model, &[&key[..], &[0]].concat(), last);
        }
        let mut random = Random(last | 1);
        for upto in [last, last / 2, 0] {
            check_cursor(&table, &model, upto, &mut random);
        }
    }
}

/// Goal: a reader beside the writer sees exactly everything at or below its sequence number, during
/// node growth, prefix splits and overwrites.
/// Method: the history is known in advance; two readers check gets and whole walks at `last_seqno`.
#[test]
fn readers_beside_the_writer_miss_nothing() {
    for seed in seeds() {
        let mut random = Random(seed);
        let count = 30_000;
        let history: Vec<_> = (1..=count).map(|seqno| operation(&mut random, seqno)).collect();
        let mut model = Model::new();
        for (seqno, (key, kind, value)) in (1..).zip(&history) {
            model.insert((key.clone(), Reverse(seqno)), (*kind, value.clone()));
        }
        let (table, mut writer) = memtable(1);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for reader in 0..2 {
                let (table, model, history, done) = (&table, &model, &history, &done);
                scope.spawn(move || {
                    let mut random = Random(seed ^ (reader + 0xBEEF));
                    let mut finished = false;
                    let mut walks = 0;
                    while !finished || walks < 3 {
                        finished = done.load(Ordering::Acquire);
                        let upto = table.last_seqno().map_or(0, |seqno| seqno.0);
                        for _ in 0..200 {
                            let (key, _, _) = &history[random.below(history.len())];
                            check_get(table, model, key, upto);
                        }
                        walks += 1;
                        let mut expected = shown(model, upto).into_iter();
                        let mut cursor = table.cursor(Seqno(upto));
                        if reader == 0 {
                            onward(&mut cursor, Cursor::seek_first);
                            while let Some(entry) = at(&cursor) {
                                assert_eq!(Some(entry), expected.next(), "seed {seed:#x}");
                                onward(&mut cursor, Cursor::next);
                            }
                            assert_eq!(expected.next(), None, "seed {seed:#x}");
                        } else {
                            backward(&mut cursor, Cursor::seek_last);
                            while let Some(entry) = at(&cursor) {
                                assert_eq!(Some(entry), expected.next_back(), "seed {seed:#x}");
                                backward(&mut cursor, Cursor::prev);
                            }
                            assert_eq!(expected.next_back(), None, "seed {seed:#x}");
                        }
                    }
                });
            }
            for (seqno, (key, kind, value)) in (1..).zip(&history) {
                writer.insert(key, Seqno(seqno), *kind, value);
                if seqno % 64 == 0 {
                    thread::yield_now();
                }
            }
            done.store(true, Ordering::Release);
        });
    }
}

/// Goal: a cursor continues correctly when the node that it is in is replaced.
#[test]
fn a_cursor_is_exact_while_nodes_are_replaced_under_it() {
    let (table, mut writer) = memtable(0);
    for (seqno, byte) in (1..).zip([10u8, 20, 30, 40]) {
        writer.insert(&[b'k', b'e', b'y', byte], Seqno(seqno), Kind::Put, &[byte]);
    }
    let mut cursor = table.cursor(Seqno(4));
    onward(&mut cursor, Cursor::seek_first);
    let mut seqno = 4;
    let mut seen = Vec::new();
    while cursor.valid() {
        seen.push(cursor.value()[0]);
        for byte in 0..=255u8 {
            seqno += 1;
            writer.insert(&[b'k', b'e', b'y', byte], Seqno(seqno), Kind::Delete, b"");
            writer.insert(&[b'k', byte], Seqno(seqno), Kind::Put, b"x");
        }
        onward(&mut cursor, Cursor::next);
    }
    assert_eq!(seen, [10, 20, 30, 40]);
    backward(&mut cursor, |cursor| cursor.seek_before(b"key\x1F"));
    assert_eq!(cursor.value(), [30]);
    backward(&mut cursor, Cursor::prev);
    assert_eq!(cursor.value(), [20]);
}

/// Goal: all 256 values of one byte in every order of arrival, through all four node sizes.
#[test]
fn every_byte_value_finds_its_place_in_every_node_size() {
    for stride in [1usize, 37, 101, 255] {
        let (table, mut writer) = memtable(0);
        let mut model = Model::new();
        let mut random = Random(stride as u64);
        for step in 0..256 {
            let key = vec![b'p', (step * stride % 256) as u8];
            let seqno = step as u64 + 1;
            writer.insert(&key, Seqno(seqno), Kind::Put, &key);
            model.insert((key.clone(), Reverse(seqno)), (Kind::Put, key));
            for byte in 0..=255 {
                check_get(&table, &model, &[b'p', byte], seqno);
            }
            if step % 5 == 0 {
                check_cursor(&table, &model, seqno, &mut random);
            }
        }
    }
}

/// Goal: extreme sizes work: longest keys that differ late, prefixes of each other at every length,
/// empty values, and a value of 64 MiB.
#[test]
fn extreme_sizes_are_stored_whole() {
    let (table, mut writer) = memtable(0);
    let mut seqno = 0;
    let mut insert = |key: &[u8], value: &[u8]| {
        seqno += 1;
        writer.insert(key, Seqno(seqno), Kind::Put, value);
    };
    let mut long = vec![0xFF; KEY_BYTES_MAX];
    insert(&long, b"");
    for at in [KEY_BYTES_MAX - 1, 40_000, 9, 8, 7, 0] {
        long[at] = 0;
        insert(&long, &(at as u32).to_le_bytes());
        long[at] = 0xFF;
    }
    for len in 1..300 {
        insert(&vec![b'n'; len], &[len as u8]);
    }
    let large: Vec<u8> =
        (0..64 << 20).map(|at: u32| (at.wrapping_mul(0x9E37_79B9) >> 24) as u8).collect();
    insert(b"large", &large);
    let get = |key: &[u8]| lookup(&table, key, Seqno::MAX.0).map(|(_, _, value)| value);
    assert_eq!(get(&long), Some(Vec::new()));
    for at in [KEY_BYTES_MAX - 1, 40_000, 9, 8, 7, 0] {
        long[at] = 0;
        assert_eq!(get(&long), Some((at as u32).to_le_bytes().to_vec()));
        assert_eq!(get(&long[..KEY_BYTES_MAX - 1]), None);
        long[at] = 0xFF;
    }
    for len in 1..300 {
        assert_eq!(get(&vec![b'n'; len]), Some(vec![len as u8]));
    }
    assert_eq!(get(&vec![b'n'; 300]), None);
    assert!(get(b"large").as_deref() == Some(&large[..]));
    assert!(table.allocated_bytes() >= table.used_bytes());
    assert!(table.used_bytes() > 64 << 20);
    assert!(table.index_bytes() < table.used_bytes());
}

#[test]
fn an_empty_table_is_empty() {
    let (table, writer) = memtable(3);
    assert_eq!((table.id(), table.entries(), table.allocated_bytes()), (3, 0, 0));
    assert_eq!((table.first_seqno(), table.last_seqno()), (None, None));
    assert_eq!(lookup(&table, b"a", Seqno::MAX.0), None);
    let mut cursor = table.cursor(Seqno::MAX);
    onward(&mut cursor, Cursor::seek_first);
    assert!(!cursor.valid());
    backward(&mut cursor, |cursor| cursor.seek_before(b"x"));
    assert!(!cursor.valid());
    assert!(!table.is_frozen());
    writer.freeze();
    assert!(table.is_frozen());
}

/// Goal: entries outlive their writer, and a cursor outlives all other owners of its memtable.
#[test]
fn memory_lives_as_long_as_the_last_owner() {
    let (table, mut writer) = memtable(0);
    for seqno in 1..=5_000u64 {
        writer.insert(&(seqno * 7919 % 5_000).to_be_bytes(), Seqno(seqno), Kind::Put, &[7; 100]);
    }
    let mut cursor = table.cursor(Seqno::MAX);
    writer.freeze();
    assert!(lookup(&table, &1u64.to_be_bytes(), Seqno::MAX.0).is_some());
    drop(table);
    let walked = thread::spawn(move || {
        onward(&mut cursor, Cursor::seek_first);
        let mut walked = 0;
        while cursor.valid() {
            assert_eq!(cursor.value(), [7; 100]);
            walked += 1;
            onward(&mut cursor, Cursor::next);
        }
        walked
    });
    assert_eq!(walked.join().unwrap(), 5_000);
}

/// Goal: memory is recycled. The second memtable is made of the first one's chunks, the pool keeps
/// no more than its limit, and a cursor that outlives the writer keeps its memory out of the pool.
#[test]
fn a_pool_recycles_the_memory_of_dropped_memtables() {
    let reclaim = Reclaim { points: ReadPoints::new(), options: BufferOptions::default() };
    let pool = ChunkPool::new(PoolLimits { kept_bytes: 4 << 20, all_bytes: 4 << 20 });
    for round in 0..3u8 {
        let (table, mut writer) = memtable_with(
            u64::from(round),
            MemtableOptions {
                pool: Some(Arc::clone(&pool)),
                reclaim: Some(reclaim.clone()),
                full_bytes: None,
            },
        );
        for seqno in 1..=80_000u64 {
            let key = seqno.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
            writer.insert(&key, Seqno(seqno), Kind::Put, &[round; 100]);
            // The buffer moves to large chunks.
            writer.reclaim(Seqno(seqno), 1024, true);
        }
        assert!(table.allocated_bytes() > 8 << 20);
        assert_eq!(pool.held_bytes(), 0);
        let mut cursor = table.cursor(Seqno::MAX);
        writer.freeze();
        drop(table);
        assert_eq!(pool.held_bytes(), 0);
        onward(&mut cursor, Cursor::seek_first);
        let mut walked = 0;
        while cursor.valid() {
            assert_eq!(cursor.value(), [round; 100]);
            walked += 1;
            onward(&mut cursor, Cursor::next);
        }
        assert_eq!(walked, 80_000);
        drop(cursor);
        assert_eq!(pool.held_bytes(), 4 << 20);
    }
}

#[test]
#[should_panic(expected = "never decrease")]
fn a_smaller_sequence_number_is_refused() {
    let (_table, mut writer) = memtable(0);
    writer.insert(b"a", Seqno(2), Kind::Put, b"");
    writer.insert(b"b", Seqno(1), Kind::Put, b"");
}

/// Goal: memory per entry stays as documented in `docs/adr/0006-memtable-radix-tree.md`.
#[test]
fn the_index_of_random_keys_stays_small() {
    let (table, mut writer) = memtable(0);
    let mut random = Random(0x5EED);
    for seqno in 1..=500_000 {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&random.next().to_be_bytes());
        key[8..].copy_from_slice(&random.next().to_be_bytes());
        writer.insert(&key, Seqno(seqno), Kind::Put, b"");
    }
    let per_entry = table.index_bytes() as f64 / 500_000.0;
    println!("index bytes per entry: {per_entry:.1}");
    assert!(per_entry < 60.0);
}
