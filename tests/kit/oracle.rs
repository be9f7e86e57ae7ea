//! The oracle: an ordered map that gives the right answers, and the changes that make it.

use super::chance::Chance;
use sluicedb::WriteBatch;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;

/// The content of a database.
pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys and values as a list, in a scan's order.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// One operation of a batch.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

impl Change {
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

/// The last change of each key, in key order.
pub fn last_of_each(changes: &[Change]) -> Vec<Change> {
    let last: BTreeMap<_, _> = changes.iter().map(|change| (change.key(), change)).collect();
    last.into_values().cloned().collect()
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(key, value) => write!(f, "Put({}, {})", Shown(key), Shown(value)),
            Self::Delete(key) => write!(f, "Delete({})", Shown(key)),
        }
    }
}

/// Bytes, shortened for people.
#[derive(Clone, Copy)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.0[..self.0.len().min(24)].escape_ascii();
        if self.0.len() > 24 {
            write!(f, "\"{head}..\"({} bytes)", self.0.len())
        } else {
            write!(f, "\"{head}\"")
        }
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Applies `changes` to `map`, in order.
pub fn apply(map: &mut Map, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(key, value) => {
                map.insert(key.clone(), value.clone());
            }
            Change::Delete(key) => {
                map.remove(key);
            }
        }
    }
}

/// The same changes as a batch.
pub fn batch(changes: &[Change]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    add(&mut batch, changes);
    batch
}

pub fn add(batch: &mut WriteBatch, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(key, value) => batch.put(key, value),
            Change::Delete(key) => batch.delete(key),
        };
    }
}

/// The right result of a scan.
pub fn scan(
    map: &Map,
    (lo, hi): (Bound<&[u8]>, Bound<&[u8]>),
    reverse: bool,
    limit: Option<u64>,
    keys_only: bool,
) -> Entries {
    // `BTreeMap::range` panics for an inverted interval. Here it is empty.
    let inside = |key: &[u8]| {
        let above = match lo {
            Bound::Included(lo) => key >= lo,
            Bound::Excluded(lo) => key > lo,
            Bound::Unbounded => true,
        };
        let below = match hi {
            Bound::Included(hi) => key <= hi,
            Bound::Excluded(hi) => key < hi,
            Bound::Unbounded => true,
        };
        above && below
    };
    let limit = limit.map_or(usize::MAX, |limit| limit as usize);
    let entry = |(key, value): (&Vec<u8>, &Vec<u8>)| {
        (key.clone(), if keys_only { Vec::new() } else { value.clone() })
    };
    let found = map.iter().filter(|(key, _)| inside(key));
    if reverse {
        found.rev().take(limit).map(entry).collect()
    } else {
        found.take(limit).map(entry).collect()
    }
}

/// The first difference between two contents, in words; `None` if there is none.
pub fn difference(want: &Map, got: &Map) -> Option<String> {
    for (key, value) in want {
        match got.get(key) {
            None => return Some(format!("{} is missing, should be {}", Shown(key), Shown(value))),
            Some(other) if other != value => {
                let key = Shown(key);
                return Some(format!("{key} is {}, should be {}", Shown(other), Shown(value)));
            }
            Some(_) => {}
        }
    }
    let extra = got.iter().find(|(key, _)| !want.contains_key(*key))?;
    Some(format!("{} should not be there (is {})", Shown(extra.0), Shown(extra.1)))
}

/// Few hot keys, some hundred cold ones, and the edges of the key space.
pub fn key(chance: &mut Chance) -> Vec<u8> {
    match chance.below(20) {
        0 => chance.pick(&[
            vec![0],
            vec![0, 0],
            vec![0, 0xFF],
            vec![0xFF],
            vec![0xFF, 0xFF],
            vec![0xFF; 9],
            b"hot".to_vec(),
            b"hot/".to_vec(),
            b"cold\xFF".to_vec(),
        ]),
        1 => {
            // Long common prefixes, also longer than a block.
            let mut key = vec![b'p'; chance.pick(&[20, 100, 300])];
            key.push(b'0' + chance.below(10) as u8);
            key
        }
        2..=9 => format!("hot/{:02}", chance.below(40)).into_bytes(),
        _ => format!("cold/{:04}", chance.below(400) * 7).into_bytes(),
    }
}

/// Mostly short values, sometimes empty, around a block, or longer than a memtable.
pub fn value(chance: &mut Chance) -> Vec<u8> {
    let len = match chance.below(40) {
        0 | 1 => 0,
        2 => chance.pick(&[255, 256, 257, 1023, 1024, 1025]),
        3 => chance.pick(&[4095, 4096, 4097]),
        4 if chance.one_in(4) => chance.pick(&[16 << 10, 40_000]),
        _ => chance.between(1, 60),
    };
    if chance.one_in(2) { chance.text(len) } else { chance.bytes(len) }
}

pub fn change(chance: &mut Chance) -> Change {
    let key = key(chance);
    if chance.one_in(4) { Change::Delete(key) } else { Change::Put(key, value(chance)) }
}

/// Makes values long, so that a log segment holds only some dozens of them.
pub fn lengthen(chance: &mut Chance, changes: &mut [Change]) {
    for change in changes {
        if let Change::Put(_, value) = change {
            let len = chance.between(500, 6_000);
            *value = chance.bytes(len);
        }
    }
}

pub fn changes(chance: &mut Chance, most: usize) -> Vec<Change> {
    (0..chance.between(1, most)).map(|_| change(chance)).collect()
}
