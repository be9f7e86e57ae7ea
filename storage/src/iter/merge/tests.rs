//! A merge walks like the sorted list of what its children have.

use super::*;
use crate::error::Error;
use crate::iter::model::{ModelEntry, VecCursor};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// How keys are made of numbers, in the same order.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Short,
    /// They begin alike.
    Digits,
    /// Half of them begin alike.
    TwoKinds,
    /// Each begins like the next one, and their heads are as high as can be.
    Ones,
}

impl Shape {
    fn key(self, number: u8) -> Vec<u8> {
        match self {
            Self::TwoKinds if number < 45 => vec![b'a', number],
            Self::Digits | Self::TwoKinds => format!("user:{:04}", u32::from(number) * 37).into(),
            Self::Short => vec![number],
            Self::Ones => vec![0xFF; usize::from(number) + 1],
        }
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    let all = [Shape::Short, Shape::Digits, Shape::TwoKinds, Shape::Ones];
    proptest::sample::select(all.to_vec())
}

fn entry(key: Vec<u8>, seqno: u64, child: usize) -> ModelEntry {
    let kind = if seqno.is_multiple_of(3) { Kind::Delete } else { Kind::Put };
    ModelEntry { key, seqno: Seqno(seqno), kind, value: vec![child as u8] }
}

/// Children as (key -> seqno) maps, and what their merge must be.
fn build(children: &[BTreeMap<u8, u64>], shape: Shape) -> (Vec<VecCursor>, Vec<ModelEntry>) {
    let entry = |key, seqno, child| entry(shape.key(key), seqno, child);
    let mut merged: BTreeMap<u8, (u64, usize)> = BTreeMap::new();
    for (child, keys) in children.iter().enumerate() {
        for (&key, &seqno) in keys {
            let best = merged.entry(key).or_insert((seqno, child));
            if seqno > best.0 {
                *best = (seqno, child);
            }
        }
    }
    let cursors = children
        .iter()
        .enumerate()
        .map(|(child, keys)| {
            VecCursor::new(keys.iter().map(|(&k, &s)| entry(k, s, child)).collect())
        })
        .collect();
    let merged = merged.into_iter().map(|(key, (s, child))| entry(key, s, child)).collect();
    (cursors, merged)
}

#[derive(Clone, Debug)]
enum Move {
    First,
    Last,
    Seek(u8),
    SeekBefore(u8),
    Next,
    Prev,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        1 => Just(Move::First),
        1 => Just(Move::Last),
        2 => (0_u8..94).prop_map(Move::Seek),
        2 => (0_u8..94).prop_map(Move::SeekBefore),
        8 => Just(Move::Next),
        8 => Just(Move::Prev),
    ];
    proptest::collection::vec(one, 1..90)
}

fn apply(cursor: &mut dyn Cursor, step: &Move, shape: Shape) -> Result<()> {
    match step {
        Move::First => cursor.seek_first(),
        Move::Last => cursor.seek_last(),
        Move::Seek(key) => cursor.seek(&shape.key(*key)),
        Move::SeekBefore(key) => cursor.seek_before(&shape.key(*key)),
        Move::Next if cursor.valid() => cursor.next(),
        Move::Prev if cursor.valid() => cursor.prev(),
        Move::Next | Move::Prev => Ok(()),
    }
}

fn current(cursor: &dyn Cursor) -> Option<ModelEntry> {
    cursor.valid().then(|| ModelEntry {
        key: cursor.key().to_vec(),
        seqno: cursor.seqno(),
        kind: cursor.kind(),
        value: cursor.value().to_vec(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
    /// Planted: a tie for the second place goes by index; a duplicate is not looked for where
    /// ranks tie; ranks are not made again when they are fitted; a child at its end counts as
    /// valid.
    #[test]
    fn a_merge_walks_like_the_merged_list(
        children in proptest::collection::vec(
            proptest::collection::btree_map(0_u8..90, 0_u64..12, 0..40), 0..6),
        moves in moves(),
        shape in shape(),
    ) {
        let (cursors, merged) = build(&children, shape);
        let mut oracle = VecCursor::new(merged);
        let mut cursor = MergeCursor::new(cursors);
        // In the end a walk from one end to the other and back, so that ranks are fitted again.
        let walk = [vec![Move::First], vec![Move::Next; 200], vec![Move::Last]];
        let walk = walk.into_iter().flatten().chain(vec![Move::Prev; 200]);
        for step in moves.into_iter().chain(walk) {
            apply(&mut cursor, &step, shape).unwrap();
            apply(&mut oracle, &step, shape).unwrap();
            prop_assert_eq!(current(&cursor), current(&oracle), "{:?}", step);
        }
    }
}

/// Planted: the ranks of more children than have an index of their own decide.
#[test]
fn there_may_be_more_children_than_indexes() {
    let mut children = vec![BTreeMap::new(); RANKED_MAX + 6];
    for number in 0..20 {
        children[usize::from(number % 4) * (RANKED_MAX + 5) / 3].insert(number, 1);
    }
    let (cursors, merged) = build(&children, Shape::Digits);
    let mut cursor = MergeCursor::new(cursors);
    cursor.seek_first().unwrap();
    for entry in merged {
        assert_eq!(current(&cursor), Some(entry));
        cursor.next().unwrap();
    }
    assert!(!cursor.valid());
}

#[test]
fn an_error_ends_validity_and_a_seek_restores_it() {
    let children =
        [BTreeMap::from([(1, 1), (3, 1), (5, 1)]), BTreeMap::from([(2, 2), (3, 2), (6, 2)])];
    let (cursors, merged) = build(&children, Shape::Short);
    for healthy_moves in 0..4 {
        let mut children: Vec<_> = cursors.clone();
        children[1] = children[1].clone().failing_after(healthy_moves);
        let mut cursor = MergeCursor::new(children);
        let mut failed = cursor.seek_first().is_err();
        while !failed && cursor.valid() {
            failed = matches!(cursor.next(), Err(Error::WouldBlock(_)));
        }
        assert!(failed);
        assert!(!cursor.valid());
    }
    let mut cursor = MergeCursor::new(cursors);
    cursor.seek(&[3]).unwrap();
    assert_eq!(current(&cursor), Some(merged[2].clone()));
}
