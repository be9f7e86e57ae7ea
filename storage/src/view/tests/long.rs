//! Walks through much that nobody sees: tombstones in blocks that nothing keeps in memory.

use super::*;
use crate::keyspace::KeyspaceId;

/// What `ScanCursor` looks at in one call when little comes out.
const LOOKS_PER_TURN: usize = 4096;

/// A database of these ranges with a live key at each end and `deleted` tombstones between them, in
/// L0, with nothing cached, on a disk that cannot read without waiting, or that can where it has
/// read before.
fn full_of_tombstones(deleted: u32, splits: &[&'static [u8]], without_waiting: bool) -> Toy {
    let mut toy = Toy::caching(0, splits);
    toy.write(b"!first", Some(b"1"));
    for key in 0..deleted {
        toy.write(format!("key{key:06}").as_bytes(), None);
    }
    toy.write(b"~last", Some(b"2"));
    for range in 0..=splits.len() {
        toy.seal(range);
        toy.flush(range, true);
    }
    toy.mem.set_reads_without_waiting(without_waiting);
    toy.mem.set_cold_reads(true);
    toy
}

/// Walks as a scan does: not waiting first, waiting for one call where a block is cold, and not
/// waiting again. Returns what came out and how many calls it took.
fn walk(view: &View, reverse: bool, turns_max: usize) -> (Vec<Vec<u8>>, usize) {
    let spec = ScanSpec { reverse, ..ScanSpec::new(KeyspaceId::DEFAULT, Span::all()) };
    let mut cursor = view.cursor(spec, ReadTier::Memory);
    let mut out = ScanBatchBuilder::new();
    for turn in 1..=turns_max {
        let mut more = cursor.fill(&mut out, 1 << 20, 10);
        if matches!(more, Err(Error::WouldBlock(_))) {
            cursor.set_tier(ReadTier::Disk);
            more = cursor.fill(&mut out, 1 << 20, 10);
            cursor.set_tier(ReadTier::Memory);
        }
        if !more.unwrap() {
            return (out.freeze().iter().map(|(key, _)| key.to_vec()).collect(), turn);
        }
    }
    panic!("no end after {turns_max} turns");
}

/// Planted: `drain` without `passed`: what was passed over is walked again for ever.
#[test]
fn a4_a_walk_over_cold_tombstones_ends() {
    let splits: [&[&[u8]]; 2] = [&[], &[b"key005000", b"key010000"]];
    for (deleted, splits, without_waiting) in [
        (20_000, splits[0], false),
        (20_000, splits[0], true),
        (20_000, splits[1], false),
        (100_000, splits[0], false),
    ] {
        let toy = full_of_tombstones(deleted, splits, without_waiting);
        let turns_max = deleted as usize / LOOKS_PER_TURN + 4 + splits.len();
        for reverse in [false, true] {
            let (mut keys, turns) = walk(&toy.view(), reverse, turns_max);
            println!("{deleted} tombstones, reverse {reverse}: {turns} turns");
            if reverse {
                keys.reverse();
            }
            assert_eq!(keys, [&b"!first"[..], b"~last"]);
        }
    }
}

/// A walk at an old instant meets very many keys that were written after it: each call looks at a
/// bounded number of them, and what it sees is its own instant. Planted: `walk` that never rests
/// (one call takes them all); a rest that counts as one step.
#[test]
fn b2_younger_keys_are_passed_a_bounded_number_at_a_time() {
    const YOUNGER: usize = 100_000;
    let mut toy = Toy::new(&[]);
    for key in [&b"!first"[..], b"key030000", b"key030001x", b"~last"] {
        toy.write(key, Some(b"old"));
    }
    toy.seal(0);
    toy.flush(0, true);
    toy.write(b"key030000", Some(b"new"));
    let view = toy.view();
    for key in 0..YOUNGER {
        toy.write(format!("key{key:06}").as_bytes(), Some(b"younger"));
    }
    for reverse in [false, true] {
        let spec = ScanSpec { reverse, ..ScanSpec::new(KeyspaceId::DEFAULT, Span::all()) };
        let mut cursor = view.cursor(spec, ReadTier::Disk);
        let mut out = ScanBatchBuilder::new();
        let mut turns = 1;
        while cursor.fill(&mut out, 1 << 20, 10).unwrap() {
            turns += 1;
        }
        println!("reverse {reverse}: {turns} turns");
        assert!(turns >= YOUNGER / LOOKS_PER_TURN - 1, "one turn passes too many: {turns} turns");
        assert!(turns <= YOUNGER / LOOKS_PER_TURN + 2, "{turns} turns");
        let entries = out.freeze();
        let mut found: Vec<_> = entries.iter().collect();
        if reverse {
            found.reverse();
        }
        let wanted: [(&[u8], &[u8]); 4] = [
            (b"!first", b"old"),
            (b"key030000", b"new"),
            (b"key030001x", b"old"),
            (b"~last", b"old"),
        ];
        assert_eq!(found, wanted);
    }
}

/// A batch deletes very many ranges, each with a key below it: each call looks behind a bounded
/// number of them, and the entries between them come out.
///
/// Planted: a cursor that passes all spans in one step.
#[test]
fn the_ranges_that_a_batch_deletes_are_passed_a_bounded_number_at_a_time() {
    const RANGES: u32 = 20_000;
    let key = |n: u32| format!("key{n:06}").into_bytes();
    let mut toy = Toy::new(&[b"key010000"]);
    let mut batch = WriteBatch::new();
    for n in 0..RANGES {
        toy.write(&key(n), Some(b"gone"));
        batch.delete_range(key(n)..[&key(n)[..], b"+"].concat());
    }
    for n in [0, 9_999, 10_000, RANGES - 1] {
        toy.write(&[&key(n)[..], b"x"].concat(), Some(b"left"));
    }
    batch.put(key(15_000), "mine");
    let view = toy.view().with(OwnWrites::new(&batch)).unwrap();
    for reverse in [false, true] {
        let turns_max = RANGES as usize;
        let (mut keys, turns) = walk(&view, reverse, turns_max);
        println!("reverse {reverse}: {turns} turns");
        assert!(turns > 10, "one turn passes too many: {turns} turns");
        if reverse {
            keys.reverse();
        }
        let wanted = ["key000000x", "key009999x", "key010000x", "key015000", "key019999x"];
        assert_eq!(keys, wanted.map(str::as_bytes));
    }
}

/// Planted: a range that costs no step.
#[test]
fn empty_ranges_are_passed_a_bounded_number_at_a_time() {
    const RANGES: u32 = 3000;
    let splits: Vec<&[u8]> = (1..RANGES).map(|n| &*n.to_be_bytes().to_vec().leak()).collect();
    let mut toy = Toy::new(&splits);
    toy.write(b"!", Some(b"1"));
    let calls_min = RANGES as usize * 16 / LOOKS_PER_TURN;
    for reverse in [false, true] {
        let spec = ScanSpec { reverse, ..ScanSpec::new(KeyspaceId::DEFAULT, Span::all()) };
        let mut cursor = toy.view().cursor(spec.clone(), ReadTier::Memory);
        let (mut out, mut calls) = (ScanBatchBuilder::new(), 1);
        while cursor.fill(&mut out, 1 << 20, 10).unwrap() {
            calls += 1;
        }
        assert_eq!(out.len(), 1);
        assert!(calls >= calls_min, "{calls} calls");
        assert!(cursor.take_steps() >= (RANGES as usize - 1) * 16);
        // Entry by entry.
        let mut cursor = toy.view().cursor(spec, ReadTier::Memory);
        let (mut found, mut rests) = (0, 0);
        loop {
            match cursor.advance().unwrap() {
                Advanced::Entry { .. } => found += 1,
                Advanced::Rest => rests += 1,
                Advanced::End => break,
            }
        }
        assert_eq!(found, 1);
        assert!(rests + 1 >= calls_min, "{rests} rests");
    }
}
