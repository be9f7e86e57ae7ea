//! Blocks without the protection of a checksum: whatever the bytes, there is no panic and no wrong
//! position.

use super::*;
use crate::codec::extremes::extremes;
use crate::codec::hash64;
use crate::key::{Kind, Seqno, common_prefix_len};
use std::sync::Arc;

type Entry = (Vec<u8>, Seqno, Kind, Vec<u8>);

fn entries(count: u64) -> Vec<Entry> {
    let mut entries: Vec<Entry> = (0..count)
        .map(|i| {
            let key = match i % 4 {
                0 => format!("user:{:05}", i / 4).into_bytes(),
                1 => format!("user:{:05}:name", i / 4).into_bytes(),
                2 => vec![b'v'; i as usize % 200 + 1],
                _ => hash64(&i.to_le_bytes()).to_be_bytes().to_vec(),
            };
            let kind = if i % 5 == 0 { Kind::Delete } else { Kind::Put };
            let value = if kind == Kind::Put { vec![i as u8; i as usize % 90] } else { vec![] };
            (key, Seqno(i * i), kind, value)
        })
        .collect();
    entries.sort();
    entries.dedup_by(|a, b| a.0 == b.0);
    entries
}

fn build(entries: &[Entry], restart_interval: usize) -> Vec<u8> {
    let mut builder = BlockBuilder::new(restart_interval);
    for (key, seqno, kind, value) in entries {
        builder.add(key, hash64(key), *seqno, *kind, value);
    }
    let mut raw = Vec::new();
    builder.finish(&mut raw);
    raw
}

fn parse(raw: &[u8]) -> Result<Block, Broken> {
    Block::parse(Arc::from(raw), 0..raw.len())
}

/// Calls everything that a reader does with a block. Errors are accepted.
fn exercise(raw: &[u8], entries: &[Entry]) {
    let Ok(block) = parse(raw) else { return };
    for (key, ..) in entries {
        if let Ok(Some((index, slot))) = block.find(key, hash64(key)) {
            assert!(block.seqno(index) <= Seqno::MAX);
            assert!(block.value(slot.value..slot.end).len() <= raw.len());
        }
        let _ = block.lower_bound(key);
        let mut cursor = BlockCursor::new();
        if cursor.enter_at(block.clone(), key) == Ok(true) {
            walk(&mut cursor, raw.len(), BlockCursor::next);
        }
    }
    let mut cursor = BlockCursor::new();
    if cursor.enter_first(block.clone()).is_ok() {
        walk(&mut cursor, raw.len(), BlockCursor::next);
    }
    if cursor.enter_last(block).is_ok() {
        walk(&mut cursor, raw.len(), BlockCursor::prev);
    }
}

fn walk(
    cursor: &mut BlockCursor,
    limit: usize,
    step: impl Fn(&mut BlockCursor) -> Result<bool, Broken>,
) {
    for _ in 0..200 {
        assert!(cursor.key().len() + cursor.value().len() <= 2 * limit);
        assert!(cursor.seqno() <= Seqno::MAX);
        if step(cursor) != Ok(true) {
            return;
        }
    }
}

#[test]
fn a_block_returns_what_was_put_in() {
    for count in [1, 2, 15, 16, 17, 100, 3000] {
        for restart_interval in [1, 2, 16, 128] {
            let entries = entries(count);
            let block = parse(&build(&entries, restart_interval)).unwrap();
            assert_eq!(block.count() as usize, entries.len());
            let mut cursor = BlockCursor::new();
            cursor.enter_first(block.clone()).unwrap();
            for (i, (key, seqno, kind, value)) in entries.iter().enumerate() {
                assert_eq!(cursor.key(), key);
                assert_eq!((cursor.seqno(), cursor.kind()), (*seqno, *kind));
                assert_eq!(cursor.value(), value);
                let (index, slot) = block.find(key, hash64(key)).unwrap().unwrap();
                assert_eq!((index as usize, slot.kind), (i, *kind));
                assert_eq!(block.lower_bound(key), Ok(index));
                let after = [&key[..], &[0]].concat();
                assert_eq!(block.lower_bound(&after), Ok(index + 1));
                assert!(block.find(&after, hash64(&after)).unwrap().is_none());
                assert!(block.find(&after, hash64(key)).unwrap().is_none());
                // The same tag and suffix, but another prefix.
                let mut other = key.clone();
                other[0] ^= 0x55;
                assert!(block.find(&other, hash64(key)).unwrap().is_none());
                assert_eq!(cursor.next(), Ok(i + 1 < entries.len()));
            }
        }
    }
}

#[test]
fn an_entry_that_shares_what_is_not_there_is_noticed() {
    let put = |key: &[u8]| (key.to_vec(), Seqno(0), Kind::Put, b"value".to_vec());
    // Restarts at 0 and 4; the others share 2, 1, 1 and 3 bytes with them.
    let entries = [put(b"aaaa"), put(b"aab"), put(b"abc"), put(b"ac"), put(b"bbbb"), put(b"bbbc")];
    let good = build(&entries, 4);
    let starts: Vec<usize> = (0..6)
        .map(|i| good.windows(5).enumerate().filter(|(_, w)| w == b"value").nth(i).unwrap().0 + 5)
        .collect();
    // (entry, the shared length that it claims): more than the entry before, more than the restart
    // has, on a restart.
    for (entry, claim) in [(2, 3), (3, 2), (5, 9), (4, 1)] {
        let mut bad = good.clone();
        bad[starts[entry - 1]] = claim;
        let mut cursor = BlockCursor::new();
        cursor.enter_first(parse(&bad).unwrap()).unwrap();
        for _ in 1..entry {
            assert_eq!(cursor.next(), Ok(true));
        }
        assert!(cursor.next().is_err(), "entry {entry} claims {claim}");
    }
}

#[test]
fn no_changed_byte_makes_a_block_panic() {
    for restart_interval in [1, 4, 16] {
        let entries = entries(40);
        let good = build(&entries, restart_interval);
        exercise(&good, &entries);
        for at in 0..good.len() {
            for byte in [0, 1, 0x7F, 0x80, 0xFF, good[at] ^ 1, good[at].wrapping_add(1)] {
                let mut bad = good.clone();
                bad[at] = byte;
                exercise(&bad, &entries);
            }
        }
        for cut in 0..good.len() {
            exercise(&good[..cut], &entries);
            exercise(&good[cut..], &entries);
        }
    }
}

#[test]
fn noise_never_makes_a_block_panic() {
    let entries = entries(8);
    for seed in 0..20_000_u64 {
        let word = |i: u64| hash64(&(seed << 20 | i).to_le_bytes());
        let length = 16 + word(0) as usize % 120;
        let mut noise: Vec<u8> = (0..length as u64).map(|i| word(i + 1) as u8).collect();
        // A plausible header, so that not only the header is exercised.
        noise[..4].copy_from_slice(&(1 + word(1000) as u32 % 12).to_le_bytes());
        noise[4..8].copy_from_slice(&[(seed % 8) as u8, 2, (seed / 8 % 8) as u8, 0]);
        noise[15] = 0;
        noise[14] = 0;
        exercise(&noise, &entries);
    }
}

#[test]
fn comparisons_of_short_keys_are_right() {
    let base: Vec<u8> = (0..40).collect();
    for a_len in 0..40 {
        for b_len in 0..40 {
            assert_eq!(equal(&base[..a_len], &base[..b_len]), a_len == b_len);
            assert_eq!(common_prefix_len(&base[..a_len], &base[..b_len]), a_len.min(b_len));
        }
        for at in 0..a_len {
            let mut other = base[..a_len].to_vec();
            other[at] ^= 0x80;
            assert!(!equal(&base[..a_len], &other));
            assert_eq!(common_prefix_len(&base[..a_len], &other), at);
        }
    }
}

/// Planted: an entry's offset is added without an overflow check.
#[test]
fn c4_made_up_numbers_are_refused_or_harmless() {
    let look = |raw: &[u8], entries: &[Entry]| {
        exercise(raw, entries);
        if let Ok(block) = parse(raw) {
            let upto = [0xFF; 300];
            let bounds = Bounds { first: None, after: None, upto: &upto, seqnos: 0..=1 << 20 };
            let _ = block.check(&bounds);
        }
    };
    for restart_interval in [1, 4] {
        let mut entries = entries(12);
        extremes(&build(&entries, restart_interval), |raw| look(&raw, &entries));
        // Offsets behind a large value take four bytes. Header, tags and cells come first.
        let put = entries.iter_mut().find(|entry| entry.2 == Kind::Put).expect("most are");
        put.3 = vec![7; 70_000];
        let large = build(&entries, restart_interval);
        assert_eq!(large[5], 4, "bytes of a place");
        extremes(&large[..100], |first| look(&[&first[..], &large[100..]].concat(), &entries));
    }
}
