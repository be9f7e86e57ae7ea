//! What an index finds, and what it refuses.

use super::*;
use crate::codec::extremes::extremes;

/// Decodes an index whose table says what it says: blocks may be compressed to nearly nothing.
fn decode(payload: &[u8], raw_bytes: u64) -> Result<Index, Flaw> {
    let lengths = records(payload).map_while(Result::ok).map(|record| record.length);
    let data_end = lengths.sum();
    Index::decode(payload, &IndexOf { raw_bytes, data_end, features: FEATURE_ZSTD })
}

fn index(separators: &[Vec<u8>]) -> Index {
    let mut builder = IndexBuilder::new();
    for (i, separator) in separators.iter().enumerate() {
        builder.add(separator, 100 + i as u64);
    }
    decode(&builder.finish(), u64::MAX).unwrap()
}

#[test]
fn separators_are_short_and_in_between() {
    let cases: [(&[u8], &[u8], &[u8]); 9] = [
        (b"abc", b"abd", b"abc\0"),
        (b"apple", b"melon", b"m"),
        (b"a", b"c", b"b"),
        (b"a", b"b", b"a"),
        (b"ab", b"abc", b"ab"),
        (b"a\xFF\x01", b"b", b"a\xFF\x02"),
        (b"a\xFF\xFF", b"b", b"a\xFF\xFF"),
        (b"az", b"b", b"a{"),
        (b"ab", b"b0", b"b"),
    ];
    let mut out = Vec::new();
    for (before, after, want) in cases {
        separator(before, after, &mut out);
        assert!(before <= &out[..] && &out[..] < after, "{before:?} {out:?} {after:?}");
        assert!(out.len() <= want.len(), "{before:?} {out:?} {after:?}");
    }
}

#[test]
fn the_tree_agrees_with_a_linear_search() {
    for count in [1, 2, 15, 16, 17, 255, 256, 257, 4097] {
        for prefix in [&b""[..], b"user:", b"\xFF\xFF"] {
            for tail in [&b""[..], b"-a-long-common-middle-"] {
                let key = |i: usize| {
                    let number = (i as u32 * 3).to_be_bytes();
                    [prefix, &[number[2]], tail, &number[..]].concat()
                };
                let mut separators: Vec<Vec<u8>> = (0..count).map(key).collect();
                separators.sort();
                let index = index(&separators);
                let mut probes = separators.clone();
                for separator in separators.iter().step_by(count / 16 + 1) {
                    probes.push([separator, &b"\0"[..]].concat());
                    probes.push(separator[..separator.len() - 1].to_vec());
                    let mut next = separator.clone();
                    *next.last_mut().unwrap() ^= 1;
                    probes.push(next);
                }
                probes.extend([vec![], vec![0], b"user".to_vec(), b"user;".to_vec()]);
                probes.extend([vec![0xFF], vec![0xFF; 3], vec![0xFF; 40]]);
                for probe in probes {
                    let want = separators.partition_point(|s| s < &probe);
                    assert_eq!(index.lower_bound(&probe), want, "{count} {probe:?}");
                }
            }
        }
    }
}

#[test]
fn heads_of_all_ones_are_not_mistaken_for_padding() {
    let separators = [vec![0], vec![0xFF; 9], vec![0xFF; 10]];
    let index = index(&separators);
    assert_eq!(index.lower_bound(&[0xFF; 8]), 1);
    assert_eq!(index.lower_bound(&[0xFF; 9]), 1);
    assert_eq!(index.lower_bound(&[0xFF; 10]), 2);
    assert_eq!(index.lower_bound(&[0xFF; 11]), 3);
}

#[test]
fn places_follow_each_other() {
    let index = index(&[vec![1], vec![2], vec![3]]);
    assert_eq!((index.place(0), index.place(2)), ((0, 100), (201, 102)));
    assert_eq!(index.data_end(), 303);
    assert_eq!(index.blocks_ending_by(200), 1);
    assert_eq!(index.blocks_ending_by(201), 2);
    assert_eq!(index.blocks_starting_before(201), 2);
    assert_eq!(index.blocks_starting_before(202), 3);
}

#[test]
fn broken_indexes_are_refused() {
    let mut builder = IndexBuilder::new();
    builder.add(b"abc", 10);
    builder.add(b"abd", 10);
    let payload = builder.finish();
    for cut in 0..payload.len() {
        assert!(decode(&payload[..cut], u64::MAX).is_err(), "{cut}");
    }
    let mut more = payload.clone();
    more.push(0);
    assert!(decode(&more, u64::MAX).is_err());
    let mut huge = payload;
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(decode(&huge, u64::MAX).is_err());
    let mut descending = IndexBuilder::new();
    descending.add(b"b", 10);
    descending.add(b"a", 10);
    assert!(decode(&descending.finish(), u64::MAX).is_err());
}

/// 320 KB that would decode to 4 GiB: separators that share nearly everything with the one
/// before.
#[test]
fn c2_an_index_takes_no_more_memory_than_its_table_has_keys() {
    let hostile = |blocks: u64, first: usize| {
        let mut payload = blocks.to_le_bytes().to_vec();
        for i in 0..blocks {
            let (shared, fresh) = if i == 0 { (0, first) } else { (first as u64 + i - 1, 1) };
            put_varint(&mut payload, shared);
            put_varint(&mut payload, fresh as u64);
            payload.extend(std::iter::repeat_n(b'k', fresh));
            put_varint(&mut payload, 30);
        }
        payload
    };
    let refusal = |payload: &[u8], raw_bytes| match decode(payload, raw_bytes) {
        Ok(index) => panic!("{} bytes", index.memory_bytes()),
        Err(fault) => format!("{fault:?}"),
    };
    let payload = hostile(65_000, 500);
    assert!(payload.len() < 400_000);
    assert!(refusal(&payload, 3_000_000).contains("longer than the table's keys"));
    assert!(refusal(&hostile(100, KEY_BYTES_MAX), u64::MAX).contains("impossible length"));
    // As long as a key may be, and no longer than the table's keys.
    let longest = hostile(1, KEY_BYTES_MAX);
    assert!(decode(&longest, KEY_BYTES_MAX as u64).is_ok());
    assert!(refusal(&longest, KEY_BYTES_MAX as u64 / 2).contains("longer than"));
    let mut empty = 1_u64.to_le_bytes().to_vec();
    empty.extend([0, 0, 30]);
    assert!(refusal(&empty, u64::MAX).contains("impossible length"));
}

#[test]
fn no_changed_byte_makes_an_index_panic() {
    let mut builder = IndexBuilder::new();
    for i in 0..40_u64 {
        builder.add(&[&b"key:"[..], &i.to_be_bytes(), &[7; 9]].concat(), 1000 + i);
    }
    let good = builder.finish();
    for at in 0..good.len() {
        for byte in [0, 1, 0x7F, 0x80, 0xFF, good[at] ^ 1] {
            let mut bad = good.clone();
            bad[at] = byte;
            let Ok(index) = decode(&bad, u64::MAX) else { continue };
            for i in 0..40_u64 {
                let key = [&b"key:"[..], &i.to_be_bytes(), &[7; 9]].concat();
                assert!(index.lower_bound(&key) <= index.len());
            }
            assert!(index.lower_bound(&[0xFF; 30]) <= index.len());
        }
    }
}

/// Planted: the length of a block has no limit.
#[test]
fn c4_made_up_numbers_are_refused_or_harmless() {
    let mut builder = IndexBuilder::new();
    for key in [&b"apple"[..], b"melon", b"zebra"] {
        builder.add(key, 300);
    }
    let mut believed = 0;
    extremes(&builder.finish(), |payload| {
        for raw_bytes in [40, u64::MAX] {
            let Ok(index) = decode(&payload, raw_bytes) else { continue };
            believed += 1;
            let ends = |i| index.place(i).0 + index.place(i).1 as u64;
            assert!((1..index.len()).all(|i| ends(i - 1) == index.place(i).0));
            assert_eq!(ends(index.len() - 1), index.data_end());
            for key in [&b""[..], b"b", b"melon", b"zz"] {
                assert!(index.lower_bound(key) <= index.len());
            }
        }
    });
    assert!(believed > 0, "some lengths are possible, as far as an index knows");
}
