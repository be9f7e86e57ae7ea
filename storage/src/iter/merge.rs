//! Several cursors as one, in key order. Of equal keys only the newest entry comes out.
//!
//! Guarantees: each user key comes out once, with the entry of the highest sequence number. Of
//! equal numbers it is the one from the child with the lower index. Tombstones come out too. Moves
//! forward and backward may be mixed. After an error the cursor is not valid until the next seek.
//!
//! There are few children, so the best one is found by a linear scan over one number for each, its
//! *rank*. Ranks are made of eight bytes of the key and of the child's index, and are side by side
//! in memory. So the scan has no branches, and whole keys are compared only where ranks tie. The
//! runner-up is remembered. While one child stays in front of it, a step costs one comparison,
//! whatever the number of children.
//!
//! Does not: hide tombstones, or bound the walk. The view does both.

use super::Cursor;
use super::heads::Heads;
use crate::error::Result;
use crate::key::{Kind, Seqno};
use std::cmp::Ordering;

/// The lowest bits of a rank: the child's index. The others order its key.
const INDEX_BITS: u32 = 6;
/// With more children, indexes repeat, and ranks do not say whose they are.
const RANKED_MAX: usize = 1 << INDEX_BITS;
/// The rank of a child that is not valid. Others may have it, too.
const RANK_NONE: u64 = u64::MAX;
/// Ranks are fitted to the keys again after so many choices.
const CHOICES_PER_FIT: u32 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// What a rank says of the key.
#[inline]
fn key_part(rank: u64) -> u64 {
    rank >> INDEX_BITS
}

/// A k-way merge. Moving costs one child move and between one and 2k comparisons.
#[derive(Debug)]
pub struct MergeCursor<C> {
    children: Vec<C>,
    /// One for each child: a lower one is of a key that comes earlier in the direction of travel,
    /// but for the index. They are valid when a child is chosen.
    ranks: Vec<u64>,
    heads: Heads,
    choices_until_fit: u32,
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
            ranks: vec![RANK_NONE; children.len()],
            heads: Heads::default(),
            choices_until_fit: CHOICES_PER_FIT,
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

    /// Which of two valid children comes first in the direction of travel, and whether they stand
    /// on the same key.
    #[inline]
    fn order(&self, a: usize, b: usize) -> (Ordering, bool) {
        let by_rank = key_part(self.ranks[a]).cmp(&key_part(self.ranks[b]));
        if by_rank != Ordering::Equal {
            return (by_rank, false);
        }
        let (left, right) = (&self.children[a], &self.children[b]);
        match (left.key().cmp(right.key()), self.direction) {
            (Ordering::Equal, _) => (right.seqno().cmp(&left.seqno()).then(a.cmp(&b)), true),
            (by_key, Direction::Forward) => (by_key, false),
            (by_key, Direction::Backward) => (by_key.reverse(), false),
        }
    }

    /// Notes where a child stands.
    #[inline]
    fn look_at(&mut self, index: usize) {
        let child = &self.children[index];
        self.ranks[index] = if child.valid() {
            let head = self.heads.of(child.key());
            let ahead = if self.direction == Direction::Forward { head } else { !head };
            ahead >> INDEX_BITS << INDEX_BITS | (index % RANKED_MAX) as u64
        } else {
            RANK_NONE
        };
    }

    /// Moves a child in the direction of travel, and notes where it stands then.
    #[inline]
    fn advance(&mut self, index: usize) -> Result<()> {
        match self.direction {
            Direction::Forward => self.children[index].next()?,
            Direction::Backward => self.children[index].prev()?,
        }
        self.look_at(index);
        Ok(())
    }

    fn look_at_all(&mut self) {
        for index in 0..self.children.len() {
            self.look_at(index);
        }
    }

    /// Fits the ranks to the keys that the children stand on. Returns whether they are new.
    fn fit(&mut self) -> bool {
        self.choices_until_fit = CHOICES_PER_FIT;
        self.heads.fit(self.children.iter().filter(|child| child.valid()).map(C::key))
    }

    /// Finds the best child and the second best.
    #[inline]
    fn choose(&mut self) {
        self.choices_until_fit -= 1;
        if self.choices_until_fit == 0 && self.fit() {
            self.look_at_all();
        }
        if self.ranks.len() <= RANKED_MAX {
            let [mut first, mut second, mut third] = [RANK_NONE; 3];
            for &rank in &self.ranks {
                let after_first = rank.max(first);
                first = rank.min(first);
                third = after_first.max(second).min(third);
                second = after_first.min(second);
            }
            // No tie: so both are valid, and the first one's key is not that of another child.
            if key_part(first) < key_part(second) && key_part(second) < key_part(third) {
                self.current = Some(first as usize % RANKED_MAX);
                self.rival = Some(second as usize % RANKED_MAX);
                self.duplicates = false;
                return;
            }
        }
        self.choose_by_key();
    }

    /// As `choose`, where ranks do not decide.
    fn choose_by_key(&mut self) {
        self.current = None;
        self.rival = None;
        self.duplicates = false;
        for index in 0..self.children.len() {
            if !self.children[index].valid() {
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

    /// Notes where all children stand, after a seek or a turn, and chooses.
    fn begin(&mut self) {
        self.fit();
        self.look_at_all();
        self.choose();
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
        self.begin();
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
        self.begin();
        Ok(())
    }

    /// Moves all children that stand on the current key, the losers first.
    #[cold]
    fn pass_duplicates(&mut self) -> Result<()> {
        let current = self.current.take().expect("the cursor is valid");
        for index in 0..self.children.len() {
            let (child, front) = (&self.children[index], &self.children[current]);
            let same = index != current
                && key_part(self.ranks[index]) == key_part(self.ranks[current])
                && child.valid()
                && child.key() == front.key();
            if same {
                self.superseded += 1;
                self.advance(index)?;
            }
        }
        self.advance(current)?;
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
        self.advance(current)?;
        let before = |rival| self.order(current, rival) == (Ordering::Less, false);
        if self.children[current].valid() && self.rival.is_none_or(before) {
            self.current = Some(current);
            return Ok(());
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
mod tests;
