use super::*;
use crate::batch::WriteBatch;
use crate::key::Kind;
use crate::side_by_side::OneByOne;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::convert::Infallible;

/// What a key has: the number and the value that was written last.
type Model = BTreeMap<Vec<u8>, (Seqno, Option<Vec<u8>>)>;

/// Gathers one write to each of `keys`, in this order; each fifth is a delete.
fn gathered(keys: &[Vec<u8>]) -> (Gathered, Model) {
    let (mut gathered, mut model) = (Gathered::default(), Model::new());
    for (at, key) in keys.iter().enumerate() {
        let (mut batch, seqno) = (WriteBatch::new(), Seqno(at as u64 + 1));
        let value = (at % 5 != 4).then(|| vec![at as u8; at % 300]);
        match &value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        };
        let operation = batch.points().next().unwrap();
        gathered.add_with_growth(batch.encoded(), &operation, seqno);
        model.insert(key.clone(), (seqno, value));
    }
    (gathered, model)
}

/// All parts in their order. Checks that each is between its bounds.
fn content(
    gathered: &mut Gathered,
    bounds: &[Bytes],
    bytes_max: usize,
) -> Vec<(Vec<u8>, Seqno, Option<Vec<u8>>)> {
    let of = |key: &[u8]| bounds.partition_point(|bound| bound <= key);
    let (operations, parts) = gathered.parts(bounds, bytes_max, &OneByOne);
    let mut content = Vec::new();
    for entries in parts {
        assert!(!entries.is_empty());
        let part = of(operations.at(&entries[0]).key);
        let add = |operation: &PointOperation<'_>, seqno| {
            assert_eq!(of(operation.key), part);
            let value = (operation.kind == Kind::Put).then(|| operation.value.to_vec());
            content.push((operation.key.to_vec(), seqno, value));
            Ok::<_, Infallible>(())
        };
        operations.in_order(entries, add).unwrap();
    }
    content
}

fn check(keys: &[Vec<u8>], bounds: &[Vec<u8>], bytes_max: usize) {
    let mut bounds: Vec<_> = bounds.iter().map(|bound| Bytes::from(bound.clone())).collect();
    bounds.sort();
    bounds.dedup();
    let (mut gathered, model) = gathered(keys);
    let wanted: Vec<_> = model.into_iter().map(|(key, (at, value))| (key, at, value)).collect();
    assert_eq!(content(&mut gathered, &bounds, bytes_max), wanted);
}

/// Keys that differ late, or only in how many zeros they end with.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let tail = || proptest::collection::vec(prop_oneof![3 => Just(0), 1 => 0..3_u8], 0..12);
    (0..4_usize, tail()).prop_map(|(eights, tail)| [vec![7; 1 + 8 * eights], tail].concat())
}

proptest! {
    /// Planted: the order of two keys with one head is not looked into; a key and one that goes
    /// on with zeros count as one; the oldest write wins; a key at a bound is before it.
    #[test]
    fn the_newest_write_of_each_key_comes_out_in_the_order_of_the_keys(
        keys in proptest::collection::vec(key(), 1..200),
        bounds in proptest::collection::vec(key(), 0..9),
        bytes_max in 1..40_000_usize,
    ) {
        check(&keys, &bounds, bytes_max);
    }
}

#[test]
fn the_longest_keys_and_values_larger_than_a_chunk_come_out() {
    let long = |last: u8| [vec![1; crate::limits::KEY_BYTES_MAX - 1], vec![last]].concat();
    check(&[long(2), long(1), long(2), vec![1], long(0)], &[long(1)], 1 << 20);
    let (mut gathered, mut model) = (Gathered::default(), Vec::new());
    for (at, bytes) in [1, DENSE_BYTES + 1, 7, DENSE_BYTES, 1 << 20].iter().enumerate() {
        let (mut batch, key, seqno) = (WriteBatch::new(), vec![at as u8], Seqno(at as u64 + 1));
        batch.put(&key, vec![at as u8; *bytes]);
        gathered.add_with_growth(batch.encoded(), &batch.points().next().unwrap(), seqno);
        model.push((key, seqno, Some(vec![at as u8; *bytes])));
    }
    assert_eq!(content(&mut gathered, &[], usize::MAX / 8), model);
}

/// Planted: large operations share chunks; what counts is what was asked for.
#[test]
fn what_counts_is_what_is_allocated_and_most_of_it_is_used() {
    let values = [1 << 20, 100 << 10, 3000, 100];
    for (value, count) in values.into_iter().zip([64, 300, 4000, 100_000_u32]) {
        let (mut gathered, mut batch) = (Gathered::default(), WriteBatch::new());
        let mut written = 0;
        for at in 1..=count {
            batch.clear();
            batch.put(at.to_be_bytes(), vec![at as u8; value]);
            let (before, growth) = (gathered.bytes(), gathered.growth(batch.encoded_len()));
            let operation = batch.points().next().unwrap();
            let seqno = Seqno(u64::from(at));
            let added = gathered.add(batch.encoded(), &operation, seqno);
            assert_eq!(added, growth == 0);
            if !added {
                gathered.add_with_growth(batch.encoded(), &operation, seqno);
            }
            assert_eq!(gathered.bytes(), before + growth);
            written += batch.encoded_len();
            let areas = gathered.operations.areas.iter();
            let areas: usize = areas.map(|area| area.bytes().len() + area.room()).sum();
            assert_eq!(areas, gathered.operations.allocated);
            assert!(areas <= written * 7 / 4 + AREA_BYTES_MIN, "{value}: {areas} of {written}");
        }
        let areas = gathered.operations.allocated;
        assert!(areas * 4 <= written * 5, "{value}: {areas} bytes of areas for {written}");
        let entries = gathered.entries.capacity() * size_of::<OperationPlace>();
        assert_eq!(gathered.bytes(), areas + entries);
    }
}

/// Planted: one part, whatever its size.
#[test]
fn much_between_two_bounds_is_cut_into_parts_of_similar_size() {
    let key = |at: u32| [b"user", &at.wrapping_mul(0x9E37_79B9).to_be_bytes()[..]].concat();
    let keys: Vec<_> = (0..20_000).map(key).collect();
    for sorted in [false, true] {
        let mut keys = keys.clone();
        if sorted {
            keys.sort();
        }
        let mut gathered = gathered(&keys).0;
        let (bounds, bytes_max) = (["user".into(), "users".into()], gathered.content_bytes() / 8);
        let (_, parts) = gathered.parts(&bounds, bytes_max, &OneByOne);
        assert!((7..=9).contains(&parts.len()), "{}", parts.len());
        assert!(parts.iter().all(|part| part.len() < 2 * 20_000 / 8));
    }
}
