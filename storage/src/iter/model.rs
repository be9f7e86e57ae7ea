//! A cursor over a sorted vector: the double and the oracle of the cursor tests.

use super::Cursor;
use crate::error::{Error, Lacks, Result};
use crate::key::{Kind, Seqno};

/// One owned entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelEntry {
    pub(crate) key: Vec<u8>,
    pub(crate) seqno: Seqno,
    pub(crate) kind: Kind,
    pub(crate) value: Vec<u8>,
}

/// Walks sorted entries with distinct keys; fails on request.
#[derive(Clone, Debug)]
pub(crate) struct VecCursor {
    entries: Vec<ModelEntry>,
    at: Option<usize>,
    moves_before_failure: Option<usize>,
}

/// Makes the same moves with a cursor and with the oracle. After each move `compare` gets what both
/// show.
pub(crate) fn walk_alike<T>(
    cursor: &mut dyn Cursor,
    oracle: &mut VecCursor,
    moves: Vec<(u8, u8)>,
    shown: impl Fn(&dyn Cursor) -> T,
    mut compare: impl FnMut(T, T),
) {
    for (what, key) in moves {
        for walker in [&mut *cursor, &mut *oracle] {
            match what {
                0 => walker.seek_first().unwrap(),
                1 => walker.seek_last().unwrap(),
                2 => walker.seek(&[key]).unwrap(),
                3 => walker.seek_before(&[key]).unwrap(),
                4..=6 if walker.valid() => walker.next().unwrap(),
                7..=9 if walker.valid() => walker.prev().unwrap(),
                _ => {}
            }
        }
        compare(shown(cursor), shown(oracle));
    }
}

impl VecCursor {
    pub(crate) fn new(entries: Vec<ModelEntry>) -> Self {
        assert!(entries.windows(2).all(|pair| pair[0].key < pair[1].key), "sorted and distinct");
        Self { entries, at: None, moves_before_failure: None }
    }

    pub(crate) fn failing_after(mut self, moves: usize) -> Self {
        self.moves_before_failure = Some(moves);
        self
    }

    fn land(&mut self, at: Option<usize>) -> Result<()> {
        self.at = at.filter(|&at| at < self.entries.len());
        match &mut self.moves_before_failure {
            Some(0) => {
                self.at = None;
                Err(Error::WouldBlock(Lacks::Thread))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn current(&self) -> &ModelEntry {
        &self.entries[self.at.expect("valid")]
    }
}

impl Cursor for VecCursor {
    fn valid(&self) -> bool {
        self.at.is_some()
    }
    fn key(&self) -> &[u8] {
        &self.current().key
    }
    fn seqno(&self) -> Seqno {
        self.current().seqno
    }
    fn kind(&self) -> Kind {
        self.current().kind
    }
    fn value(&self) -> &[u8] {
        &self.current().value
    }
    fn seek_first(&mut self) -> Result<()> {
        self.land(Some(0))
    }
    fn seek_last(&mut self) -> Result<()> {
        self.land(self.entries.len().checked_sub(1))
    }
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.land(Some(self.entries.partition_point(|entry| &entry.key[..] < key)))
    }
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.land(self.entries.partition_point(|entry| &entry.key[..] < key).checked_sub(1))
    }
    fn next(&mut self) -> Result<()> {
        let at = self.at.expect("valid");
        self.land(Some(at + 1))
    }
    fn prev(&mut self) -> Result<()> {
        let at = self.at.expect("valid");
        self.land(at.checked_sub(1))
    }
}
