//! One step of a history. A number that chooses a snapshot or an iterator is taken modulo their
//! count, so that any part of a history is a history.

use crate::kit::chance::Chance;
use crate::kit::oracle::{self, Change};
use sluicedb::Durability;
use std::ops::Bound;

#[derive(Clone, Debug)]
pub enum Operation {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Batch(Vec<Change>, Durability),
    /// Submitted together, awaited together.
    Pipeline(Vec<Vec<Change>>),
    /// Submitted, the tickets dropped.
    Forget(Vec<Change>),
    Get(Vec<u8>),
    Contains(Vec<u8>),
    MultiGet(Vec<Vec<u8>>),
    Scan(ScanOf),
    Content,
    SnapshotOpen,
    SnapshotGet(usize, Vec<u8>),
    SnapshotScan(usize, ScanOf),
    SnapshotDrop(usize),
    IteratorOpen(ScanOf),
    /// Takes this many entries, or a batch.
    IteratorStep(usize, usize),
    IteratorDrop(usize),
    Flush,
    Compact,
    Sync,
    Split(Vec<u8>),
    /// Merges the ranges that meet at the first bound from this key on.
    Merge(Vec<u8>),
    /// Deletes all keys from the one to the other.
    DeleteRange(Vec<u8>, Vec<u8>),
    /// Ingests a table over the content.
    Ingest(Vec<Change>),
    /// Ingests a table in place of the content between two keys.
    Replace(Vec<u8>, Vec<u8>, Vec<Change>),
    /// A batch: changes, a range delete, changes.
    BatchOfRange(Vec<Change>, Vec<u8>, Vec<u8>, Vec<Change>),
    /// Replaces the database's content between two keys by that of an open snapshot.
    ReplaceFrom(usize, Vec<u8>, Vec<u8>),
    /// The following operations use this keyspace, which is created if it does not exist. 0 is the
    /// default one.
    Keyspace(usize),
    DropKeyspace(usize),
    /// A batch over several of the keyspaces that exist.
    Across(Vec<(usize, Change)>),
    /// Makes a checkpoint, in place of the last one or beside it, and reads it.
    Checkpoint,
    Rest,
    /// This many milliseconds pass, three times.
    Pass(u64),
    CloseOpen,
    DropOpen,
    /// Opens the disk that a power cut leaves. The seed chooses among the possible disks.
    PowerCut(u64),
}

/// A scan's bounds and form.
#[derive(Clone, Debug)]
pub struct ScanOf {
    pub lo: Bound<Vec<u8>>,
    pub hi: Bound<Vec<u8>>,
    pub prefix: Option<Vec<u8>>,
    pub reverse: bool,
    pub limit: Option<u64>,
    pub keys_only: bool,
    pub in_batches: bool,
}

fn bound(chance: &mut Chance) -> Bound<Vec<u8>> {
    match chance.below(3) {
        0 => Bound::Unbounded,
        1 => Bound::Included(oracle::key(chance)),
        _ => Bound::Excluded(oracle::key(chance)),
    }
}

fn ends(chance: &mut Chance) -> [Vec<u8>; 2] {
    let mut ends = [oracle::key(chance), oracle::key(chance)];
    ends.sort();
    ends
}

pub fn scan(chance: &mut Chance) -> ScanOf {
    let prefixes: [&[u8]; 6] = [b"hot/", b"cold/0", b"cold/12", b"", b"\xFF", b"p"];
    ScanOf {
        lo: bound(chance),
        hi: bound(chance),
        prefix: chance.one_in(4).then(|| chance.pick(&prefixes).to_vec()),
        reverse: chance.one_in(2),
        limit: chance.one_in(3).then(|| chance.below(12) as u64),
        keys_only: chance.one_in(4),
        in_batches: chance.one_in(2),
    }
}

/// A history of `count` operations. A `gentle` one has no power cuts and no forgotten tickets: the
/// history alone fixes every answer.
pub fn history(chance: &mut Chance, count: usize, gentle: bool) -> Vec<Operation> {
    // Some histories mostly overwrite, some mostly read, some reopen all the time.
    let lives = chance.pick(&[60, 200, 1000]);
    let heavy = chance.one_in(5);
    let mut history: Vec<Operation> = (0..count)
        .map(|_| {
            if chance.one_in(lives) {
                return match chance.below(3) {
                    0 => Operation::CloseOpen,
                    1 => Operation::DropOpen,
                    _ if gentle => Operation::DropOpen,
                    _ => Operation::PowerCut(chance.next()),
                };
            }
            one(chance, gentle)
        })
        .collect();
    for operation in &mut history {
        if let Operation::Batch(changes, _) = operation
            && heavy
        {
            changes.truncate(6);
            oracle::lengthen(chance, changes);
        }
    }
    history
}

fn one(chance: &mut Chance, gentle: bool) -> Operation {
    use Operation as Op;
    match chance.below(102) {
        0..=24 => Op::Put(oracle::key(chance), oracle::value(chance)),
        25..=31 => Op::Delete(oracle::key(chance)),
        32..=43 => {
            let most = if chance.one_in(8) { 50 } else { 8 };
            let level = chance.pick(&[Durability::Buffered, Durability::Synced]);
            Op::Batch(oracle::changes(chance, most), level)
        }
        44..=46 => {
            let batches = chance.between(1, 12);
            Op::Pipeline((0..batches).map(|_| oracle::changes(chance, 4)).collect())
        }
        47 if !gentle => Op::Forget(oracle::changes(chance, 4)),
        47..=58 => Op::Get(oracle::key(chance)),
        59..=61 => Op::Contains(oracle::key(chance)),
        62..=64 => {
            let count = chance.below(20);
            Op::MultiGet((0..count).map(|_| oracle::key(chance)).collect())
        }
        65..=71 => Op::Scan(scan(chance)),
        72 => Op::Content,
        73..=74 => Op::SnapshotOpen,
        75..=77 => Op::SnapshotGet(chance.below(8), oracle::key(chance)),
        78..=79 => Op::SnapshotScan(chance.below(8), scan(chance)),
        80 => Op::SnapshotDrop(chance.below(8)),
        81..=82 => Op::IteratorOpen(scan(chance)),
        83..=89 => Op::IteratorStep(chance.below(8), chance.below(10)),
        90 => Op::IteratorDrop(chance.below(8)),
        91..=93 => Op::Flush,
        94 => Op::Compact,
        95 => Op::Sync,
        96 => Op::Split(oracle::key(chance)),
        97 if chance.one_in(2) => Op::Split(oracle::key(chance)),
        97 => Op::Merge(oracle::key(chance)),
        98 => match chance.below(5) {
            0 => Op::DeleteRange(oracle::key(chance), oracle::key(chance)),
            1 => Op::Ingest(oracle::changes(chance, 40)),
            2 => {
                let [lo, hi] = ends(chance);
                Op::Replace(lo, hi, oracle::changes(chance, 40))
            }
            3 => {
                let [lo, hi] = ends(chance);
                Op::BatchOfRange(oracle::changes(chance, 8), lo, hi, oracle::changes(chance, 8))
            }
            _ => {
                let [lo, hi] = ends(chance);
                Op::ReplaceFrom(chance.below(8), lo, hi)
            }
        },
        99 if chance.one_in(3) => Op::Checkpoint,
        99..=100 => match chance.below(10) {
            0..=4 => Op::Keyspace(chance.below(3)),
            5 => Op::DropKeyspace(chance.between(1, 2)),
            _ => Op::Across(
                oracle::changes(chance, 9)
                    .into_iter()
                    .map(|change| (chance.below(3), change))
                    .collect(),
            ),
        },
        _ if chance.one_in(2) => Op::Rest,
        _ => Op::Pass(chance.pick(&[10, 50, 1000, 70_000])),
    }
}
