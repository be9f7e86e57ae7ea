//! Which ranges a batch touches, and where each range's operations are in the batch.
//!
//! Guarantees: the batch is decoded once to find this out. After that each range decodes only its
//! own operations, however many ranges share the batch. Does not: know who owns a range, or whether
//! there is room.

use crate::failure::Failure;
use sluicedb_storage::batch::{PointOperation, PointOperations, memory_bytes};
use sluicedb_storage::key::Seqno;
use sluicedb_storage::keyspace::no_keyspace;
use sluicedb_storage::view::Superversion;

/// Consecutive operations of a batch that belong to one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationRun {
    /// Position of the range among all, in key order.
    range: u32,
    /// Position of its first operation in the batch.
    first: u32,
    operations: u32,
    start: u32,
    end: u32,
}

/// One range's part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Position of the range among all, in key order.
    pub range: u32,
    /// Operations in it.
    pub operations: u32,
    /// Their encoded bytes.
    pub bytes: usize,
    runs_end: usize,
}

impl Part {
    /// Its charge at admission, in bytes.
    pub fn charge(&self) -> u64 {
        memory_bytes(self.bytes, self.operations)
    }
}

/// Does a batch lie in one range?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of it is in this range.
    One(usize),
    /// It is in several ranges. The run is its beginning, which lies in one of them.
    Several(OperationRun),
}

/// Which ranges get which parts of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// In key order; at least one.
    parts: Vec<Part>,
    /// The runs of each part in turn, in the order of the batch. Empty if the whole batch is one
    /// part.
    runs: Vec<OperationRun>,
}

/// A batch names a keyspace that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoKeyspace;

impl From<NoKeyspace> for Failure {
    #[cold]
    fn from(_: NoKeyspace) -> Self {
        Self::storage(no_keyspace())
    }
}

impl Reach {
    /// Decodes `payload` only as far as it lies in one range.
    ///
    /// # Errors
    /// `NoKeyspace` if a decoded operation names an unknown keyspace.
    #[inline]
    pub fn of<O>(superversion: &Superversion<O>, payload: &[u8]) -> Result<Self, NoKeyspace> {
        if superversion.is_one() {
            return Ok(Self::One(0));
        }
        let mut operations = PointOperations::new(payload);
        let first = operations.next().expect("a batch is encoded by WriteBatch only");
        let index = superversion.route_index(first.keyspace, first.key).ok_or(NoKeyspace)?;
        let range = &superversion.ranges[index].stable;
        let mut run =
            OperationRun { range: index as u32, first: 0, operations: 1, start: 0, end: 0 };
        loop {
            run.end = operations.position() as u32;
            match operations.next() {
                None => return Ok(Self::One(index)),
                Some(next) if range.holds(next.keyspace, next.key) => run.operations += 1,
                Some(_) => return Ok(Self::Several(run)),
            }
        }
    }
}

impl Route {
    /// The route of a batch that lies in one range.
    pub fn whole(range: usize, bytes: usize, operations: u32) -> Self {
        let part = Part { range: range as u32, operations, bytes, runs_end: 0 };
        Self { parts: vec![part], runs: Vec::new() }
    }

    /// The route of any batch. Decodes as much as it needs.
    ///
    /// # Errors
    /// `NoKeyspace` if any operation names an unknown keyspace.
    pub fn of<O>(
        superversion: &Superversion<O>,
        payload: &[u8],
        operations: u32,
    ) -> Result<Self, NoKeyspace> {
        let reach = Reach::of(superversion, payload)?;
        Self::from_reach(superversion, payload, operations, reach)
    }

    /// The route of a batch whose `reach` is known.
    ///
    /// # Errors
    /// As `of`.
    pub fn from_reach<O>(
        superversion: &Superversion<O>,
        payload: &[u8],
        operations: u32,
        reach: Reach,
    ) -> Result<Self, NoKeyspace> {
        match reach {
            Reach::One(range) => Ok(Self::whole(range, payload.len(), operations)),
            Reach::Several(first) => Self::several(superversion, payload, first),
        }
    }

    fn several<O>(
        superversion: &Superversion<O>,
        payload: &[u8],
        first: OperationRun,
    ) -> Result<Self, NoKeyspace> {
        let mut runs = vec![first];
        let mut run = first;
        let begun = first.end as usize;
        let mut operations = PointOperations::new(&payload[begun..]);
        loop {
            let start = (begun + operations.position()) as u32;
            let Some(next) = operations.next() else { break };
            let end = (begun + operations.position()) as u32;
            // Batches tend to be sorted, or to stay near one key, so the previous range is tried
            // first.
            if superversion.ranges[run.range as usize].stable.holds(next.keyspace, next.key) {
                run.operations += 1;
                run.end = end;
                *runs.last_mut().expect("there is a first one") = run;
                continue;
            }
            let range = superversion.route_index(next.keyspace, next.key).ok_or(NoKeyspace)?;
            let range = range as u32;
            run = OperationRun {
                range,
                first: run.first + run.operations,
                operations: 1,
                start,
                end,
            };
            runs.push(run);
        }
        assert!(operations.malformed_at().is_none(), "a batch is encoded by WriteBatch only");
        // The sort is stable, so a range's operations stay in their order.
        runs.sort_by_key(|run| run.range);
        let mut parts: Vec<Part> = Vec::new();
        for (index, run) in runs.iter().enumerate() {
            if parts.last().is_none_or(|part| part.range != run.range) {
                parts.push(Part { range: run.range, operations: 0, bytes: 0, runs_end: 0 });
            }
            let part = parts.last_mut().expect("just made sure");
            part.operations += run.operations;
            part.bytes += (run.end - run.start) as usize;
            part.runs_end = index + 1;
        }
        Ok(Self { parts, runs })
    }

    /// What each range gets, in key order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The operations of one part of `payload`, with their numbers. `first` is the number of the
    /// whole batch's first operation.
    pub fn lot<'a>(&'a self, part: usize, payload: &'a [u8], first: Seqno) -> Lot<'a> {
        if self.runs.is_empty() {
            return Lot::whole(payload, first);
        }
        let start = part.checked_sub(1).map_or(0, |before| self.parts[before].runs_end);
        let runs = self.runs[start..self.parts[part].runs_end].iter();
        Lot { payload, first, runs, operations: PointOperations::new(&[]), next: first.0 }
    }
}

/// Numbered operations: a whole batch, or one range's part of it.
#[derive(Clone, Debug)]
pub struct Lot<'a> {
    payload: &'a [u8],
    first: Seqno,
    runs: std::slice::Iter<'a, OperationRun>,
    operations: PointOperations<'a>,
    next: u64,
}

impl<'a> Lot<'a> {
    /// All of `payload`, numbered from `first` on.
    #[inline]
    pub fn whole(payload: &'a [u8], first: Seqno) -> Self {
        let operations = PointOperations::new(payload);
        Self { payload, first, runs: [].iter(), operations, next: first.0 }
    }

    /// Moves on to the operations of the next run. Returns false if there is none.
    #[inline]
    fn enter_next_run(&mut self) -> bool {
        let malformed = self.operations.malformed_at();
        assert!(malformed.is_none(), "a batch is encoded by WriteBatch only");
        let Some(run) = self.runs.next() else { return false };
        self.operations = PointOperations::new(&self.payload[run.start as usize..run.end as usize]);
        self.next = self.first.0 + u64::from(run.first);
        true
    }
}

impl<'a> Iterator for Lot<'a> {
    type Item = (Seqno, PointOperation<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(operation) = self.operations.next() {
                let seqno = Seqno(self.next);
                self.next += 1;
                return Some((seqno, operation));
            }
            if !self.enter_next_run() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicedb_storage::batch::WriteBatch;
    use sluicedb_storage::key::Span;
    use sluicedb_storage::memtable::memtable;
    use sluicedb_storage::version::{RangeId, RangeVersion, Shards};
    use sluicedb_storage::view::RangeEntry;

    /// Ranges with these split keys.
    fn superversion(splits: &[&str]) -> Superversion<()> {
        let bounds: Vec<&str> = [&[""], splits].concat();
        let range = |at: usize| {
            let bytes = |bound: &str| bytes::Bytes::copy_from_slice(bound.as_bytes());
            let hi = bounds.get(at + 1).map(|hi| bytes(hi));
            let span = Span { lo: bytes(bounds[at]), hi };
            let stable = RangeVersion::empty(RangeId(at as u32 + 1), span, Shards::one()).into();
            RangeEntry::new(memtable(0).0, stable, ())
        };
        let ranges = (0..bounds.len()).map(range).collect();
        Superversion::new(1, 1, Seqno::ZERO, std::sync::Arc::default(), ranges)
    }

    fn route(superversion: &Superversion<()>, batch: &WriteBatch) -> Route {
        Route::of(superversion, batch.encoded(), batch.len() as u32).unwrap()
    }

    #[test]
    fn b3_each_range_gets_its_operations_in_their_order_and_with_their_numbers() {
        let superversion = superversion(&["d", "m"]);
        let mut batch = WriteBatch::new();
        batch.put("x", "1").put("y", "2").put("a", "3").put("z", "4").delete("b").delete("x");
        let route = route(&superversion, &batch);
        let lots: Vec<Vec<_>> = (0..route.parts().len())
            .map(|part| {
                let lot = route.lot(part, batch.encoded(), Seqno(10));
                lot.map(|(seqno, operation)| (seqno.0, operation.key)).collect()
            })
            .collect();
        assert_eq!(lots[0], [(12, &b"a"[..]), (14, b"b")]);
        assert_eq!(lots[1], [(10, &b"x"[..]), (11, b"y"), (13, b"z"), (15, b"x")]);
        let ranges: Vec<_> = route.parts().iter().map(|part| part.range).collect();
        assert_eq!((ranges, lots.len()), (vec![0, 2], 2), "nothing is in the middle one");
    }

    /// Seeded: the parts of any batch add up to the batch, byte by byte.
    #[test]
    fn b3_the_parts_of_a_batch_are_the_batch() {
        let superversion = superversion(&["c", "f", "k", "q"]);
        let mut state = 0x5EED_u64;
        for round in 0..200 {
            let mut batch = WriteBatch::new();
            for _ in 0..=round % 40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let key =
                    [b'a' + (state >> 33) as u8 % (1 + round as u8 % 26), (state >> 50) as u8];
                if state >> 63 == 0 {
                    batch.put(key, vec![7; round])
                } else {
                    batch.delete(key)
                };
            }
            let route = route(&superversion, &batch);
            let mut found = Vec::new();
            for (index, part) in route.parts().iter().enumerate() {
                let span = superversion.ranges[part.range as usize].span();
                let lot: Vec<_> = route.lot(index, batch.encoded(), Seqno(1)).collect();
                assert!(lot.iter().all(|(_, operation)| span.contains(operation.key)), "{round}");
                assert_eq!(lot.len(), part.operations as usize, "{round}");
                found.extend(lot);
            }
            found.sort_by_key(|(seqno, _)| *seqno);
            let whole: Vec<_> = Lot::whole(batch.encoded(), Seqno(1)).collect();
            assert_eq!(found, whole, "{round}");
            let bytes: usize = route.parts().iter().map(|part| part.bytes).sum();
            let charges: u64 = route.parts().iter().map(Part::charge).sum();
            assert_eq!(bytes, batch.encoded_len(), "{round}");
            assert_eq!(charges, memory_bytes(bytes, batch.len() as u32), "{round}");
        }
    }
}
