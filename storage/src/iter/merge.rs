//! Several cursors as one, in key order. Of equal keys only the newest entry comes out.
//!
//! Guarantees: each user key comes out once, with the entry of the highest sequence number. Of
//! equal numbers it is the one from the child with the lower index. Tombstones come out too. Moves
//! forward and backward may be mixed. After an error the cursor is not valid until the next seek.
//!
//! There are few children, so the best one is found by a linear scan. It compares the first eight
//! bytes of their keys, which are side by side in memory. The runner-up is remembered. While one
//! child stays in front of it, a step costs one comparison, whatever the number of children.
//!
//! Does not: hide tombstones, or bound the walk. The view does both.

use super::Cursor;
use crate::error::Result;
use crate::key::{Kind, Seqno, head};
use std::cmp::Ordering;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// What is known of a child's position without looking at the child.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    valid: bool,
    /// Of its key.
    head: u64,
}

/// A k-way merge. Moving costs one child move and between one and 2k key comparisons.
#[derive(Debug)]
pub struct MergeCursor<C> {
    children: Vec<C>,
    /// One for each child. They are valid when a child is chosen.
    marks: Vec<Mark>,
    /// The child that stands on the current entry.
    current: Option<usize>,
    /// The child that would be current if `current` were not there.
    rival: Option<usize>,
    /// Does another child stand on the current key, with an entry that lost?
    duplicates: bool,
    direction: Direction,
    /// The current key, kept while children move away from it.
    pivot: Vec<u8>,
    superseded: u64,
}

impl<C: Cursor> MergeCursor<C> {
    /// A merge of `children`, newer layers first. It is not valid until the first seek.
    pub fn new(children: Vec<C>) -> Self {
        Self {
            marks: vec![Mark::default(); children.len()],
            children,
            current: None,
            rival: None,
            duplicates: false,
            direction: Direction::Forward,
            pivot: Vec::new(),
            superseded: 0,
        }
    }

    /// How many entries lost to a newer one of their key since the merge began. An entry is counted
    /// when the walk steps over it.
    pub fn superseded(&self) -> u64 {
        self.superseded
    }

    /// How many cursors are merged.
    pub fn width(&self) -> usize {
        self.children.len()
    }

    #[inline]
    fn front(&self) -> &C {
        &self.children[self.current.expect("the cursor is valid")]
    }

    /// Which of two valid children comes first in the direction of travel.
    #[inline]
    fn order(&self, a: usize, b: usize) -> (Ordering, bool) {
        let (left, right) = (&self.children[a], &self.children[b]);
        let by_head = self.marks[a].head.cmp(&self.marks[b].head);
        let by_key = by_head.then_with(|| left.key().cmp(right.key()));
        if by_key == Ordering::Equal {
            return (right.seqno().cmp(&left.seqno()).then(a.cmp(&b)), true);
        }
        match self.direction {
            Direction::Forward => (by_key, false),
            Direction::Backward => (by_key.reverse(), false),
        }
    }

    /// Notes where a child stands.
    #[inline]
    fn look_at(&mut self, index: usize) {
        let child = &self.children[index];
        let valid = child.valid();
        let head = if valid { head(child.key()) } else { 0 };
        self.marks[index] = Mark { valid, head };
    }

    fn look_at_all(&mut self) {
        for index in 0..self.children.len() {
            self.look_at(index);
        }
    }

    /// Finds the best child and the second best.
    fn choose(&mut self) {
        self.current = None;
        self.rival = None;
        self.duplicates = false;
        for index in 0..self.children.len() {
            if !self.marks[index].valid {
                continue;
            }
            let Some(best) = self.current else {
                self.current = Some(index);
                continue;
            };
            let (order, same_key) = self.order(index, best);
            if order == Ordering::Less {
                // A new best key leaves the old duplicates behind.
                self.duplicates = same_key;
                self.rival = Some(best);
                self.current = Some(index);
            } else if same_key {
                self.duplicates = true;
                self.rival = Some(index);
            } else if self.rival.is_none_or(|rival| self.order(index, rival).0 == Ordering::Less) {
                self.rival = Some(index);
            }
        }
    }

    /// Positions every child with `place`, then chooses.
    fn settle(
        &mut self,
        direction: Direction,
        mut place: impl FnMut(&mut C) -> Result<()>,
    ) -> Result<()> {
        self.current = None;
        self.direction = direction;
        for child in &mut self.children {
            place(child)?;
        }
        self.look_at_all();
        self.choose();
        Ok(())
    }

    /// Moves every child off the current key in `direction`. Afterwards all stand behind it.
    fn turn(&mut self, direction: Direction) -> Result<()> {
        let current = self.current.take().expect("the cursor is valid");
        let mut pivot = std::mem::take(&mut self.pivot);
        pivot.clear();
        pivot.extend_from_slice(self.children[current].key());
        self.direction = direction;
        for (index, child) in self.children.iter_mut().enumerate() {
            if direction == Direction::Backward {
                if index == current {
                    child.prev()?;
                } else {
                    child.seek_before(&pivot)?;
                }
            } else if index == current {
                child.next()?;
            } else {
                child.seek(&pivot)?;
                if child.valid() && child.key() == &pivot[..] {
                    child.next()?;
                }
            }
        }
        self.pivot = pivot;
        self.look_at_all();
        self.choose();
        Ok(())
    }

    /// Moves all children that stand on the current key, the losers first.
    #[cold]
    fn pass_duplicates(&mut self) -> Result<()> {
        let current = self.current.take().expect("the cursor is valid");
        for index in 0..self.children.len() {
            let (mark, front) = (self.marks[index], self.marks[current]);
            let same = index != current
                && mark.valid
                && mark.head == front.head
                && self.children[index].key() == self.children[current].key();
            if same {
                self.superseded += 1;
                match self.direction {
                    Direction::Forward => self.children[index].next()?,
                    Direction::Backward => self.children[index].prev()?,
                }
                self.look_at(index);
            }
        }
        match self.direction {
            Direction::Forward => self.children[current].next()?,
            Direction::Backward => self.children[current].prev()?,
        }
        self.look_at(current);
        self.choose();
        Ok(())
    }

    /// One step in the direction of travel.
    #[inline]
    fn step(&mut self) -> Result<()> {
        if self.duplicates {
            return self.pass_duplicates();
        }
        let current = self.current.take().expect("the cursor is valid");
        match self.direction {
            Direction::Forward => self.children[current].next()?,
            Direction::Backward => self.children[current].prev()?,
        }
        self.look_at(current);
        if self.marks[current].valid {
            let still_first = self.rival.is_none_or(|rival| {
                let (order, same_key) = self.order(current, rival);
                order == Ordering::Less && !same_key
            });
            if still_first {
                self.current = Some(current);
                return Ok(());
            }
        }
        self.choose();
        Ok(())
    }
}

impl<C: Cursor> Cursor for MergeCursor<C> {
    #[inline]
    fn valid(&self) -> bool {
        self.current.is_some()
    }
    #[inline]
    fn key(&self) -> &[u8] {
        self.front().key()
    }
    #[inline]
    fn seqno(&self) -> Seqno {
        self.front().seqno()
    }
    #[inline]
    fn kind(&self) -> Kind {
        self.front().kind()
    }
    #[inline]
    fn value(&self) -> &[u8] {
        self.front().value()
    }
    #[inline]
    fn value_len(&self) -> usize {
        self.front().value_len()
    }
    fn seek_first(&mut self) -> Result<()> {
        self.settle(Direction::Forward, C::seek_first)
    }
    fn seek_last(&mut self) -> Result<()> {
        self.settle(Direction::Backward, C::seek_last)
    }
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.settle(Direction::Forward, |child| child.seek(key))
    }
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.settle(Direction::Backward, |child| child.seek_before(key))
    }
    #[inline]
    fn next(&mut self) -> Result<()> {
        if self.direction == Direction::Backward {
            return self.turn(Direction::Forward);
        }
        self.step()
    }
    #[inline]
    fn prev(&mut self) -> Result<()> {
        if self.direction == Direction::Forward {
            return self.turn(Direction::Backward);
        }
        self.step()
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{ModelEntry, VecCursor};
    use super::*;
    use crate::error::Error;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn entry(key: u8, seqno: u64, child: usize) -> ModelEntry {
        let kind = if seqno.is_multiple_of(3) { Kind::Delete } else { Kind::Put };
        ModelEntry { key: vec![key], seqno: Seqno(seqno), kind, value: vec![child as u8] }
    }

    /// Children as (key -> seqno) maps, and what their merge must be.
    fn build(children: &[BTreeMap<u8, u64>]) -> (Vec<VecCursor>, Vec<ModelEntry>) {
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
            2 => (0_u8..24).prop_map(Move::Seek),
            2 => (0_u8..24).prop_map(Move::SeekBefore),
            8 => Just(Move::Next),
            8 => Just(Move::Prev),
        ];
        proptest::collection::vec(one, 1..60)
    }

    fn apply(cursor: &mut dyn Cursor, step: &Move) -> Result<()> {
        match step {
            Move::First => cursor.seek_first(),
            Move::Last => cursor.seek_last(),
            Move::Seek(key) => cursor.seek(&[*key]),
            Move::SeekBefore(key) => cursor.seek_before(&[*key]),
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
        #[test]
        fn a_merge_walks_like_the_merged_list(
            children in proptest::collection::vec(
                proptest::collection::btree_map(0_u8..20, 0_u64..12, 0..12), 0..6),
            moves in moves(),
        ) {
            let (cursors, merged) = build(&children);
            let mut oracle = VecCursor::new(merged);
            let mut cursor = MergeCursor::new(cursors);
            for step in &moves {
                apply(&mut cursor, step).unwrap();
                apply(&mut oracle, step).unwrap();
                prop_assert_eq!(current(&cursor), current(&oracle), "{:?}", step);
            }
        }
    }

    #[test]
    fn an_error_ends_validity_and_a_seek_restores_it() {
        let (cursors, merged) = build(&[
            BTreeMap::from([(1, 1), (3, 1), (5, 1)]),
            BTreeMap::from([(2, 2), (3, 2), (6, 2)]),
        ]);
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
}
