//! The buffer alone, against a plain list of entries. docs/testing.md lists the items T001-*. Tests
//! that need an index (09, 15, 16, 17), and those of the API's limits (04), are in
//! `memtable/tests/reclaim.rs`.

mod closed;
mod compaction;
mod entries;
mod pool;

use super::*;
use crate::memtable::tests::Random;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A buffer, its expected entries by number, and every chunk that it has returned.
struct Rig {
    buffer: Buffer,
    live: BTreeMap<u64, (EntryAt<'static>, Vec<u8>)>,
    next: u64,
    /// Key and value bytes added so far.
    content_bytes: u64,
    vacated: Vec<Vacated>,
    gone: EntryCounts,
    pool: Arc<ChunkPool>,
}

impl Rig {
    fn new(options: BufferOptions) -> Self {
        let pool = ChunkPool::new(PoolLimits { kept_bytes: usize::MAX, all_bytes: usize::MAX });
        let source = ChunkSource::new(Some(Arc::clone(&pool)));
        Self {
            buffer: Buffer::new(options, source),
            live: BTreeMap::new(),
            next: 0,
            content_bytes: 0,
            vacated: Vec::new(),
            gone: EntryCounts::default(),
            pool,
        }
    }

    fn add(&mut self, value_bytes: usize) -> u64 {
        let number = self.next;
        self.next += 1;
        let value: Vec<u8> = (0..value_bytes).map(|at| (at as u64 ^ number) as u8).collect();
        let key = number.to_be_bytes();
        // SAFETY: the rig drops its entries before its chunks.
        let entry = unsafe { self.buffer.append(&key, Seqno(number), Kind::Put, &value) };
        self.content_bytes += (key.len() + value_bytes) as u64;
        self.live.insert(number, (entry, value));
        number
    }

    fn mark_dead(&mut self, number: u64) {
        let (entry, _) = self.live.remove(&number).unwrap();
        self.buffer.mark_dead(entry);
    }

    fn step(&mut self) -> Step {
        let live = &mut self.live;
        let mut moved = |from: EntryAt<'static>, to: EntryAt<'static>| {
            let number = from.seqno().0;
            let (at, _) = live.get_mut(&number).expect("only live entries are announced");
            assert_eq!(*at, from);
            *at = to;
        };
        // SAFETY: as in `add`.
        let step = unsafe { self.buffer.step(&mut self.vacated, &mut moved) };
        for Vacated { gone, .. } in &mut self.vacated {
            self.gone.add(std::mem::take(gone));
        }
        step
    }

    fn run(&mut self) -> usize {
        let mut steps = 1;
        while !self.step().finished {
            steps += 1;
        }
        steps
    }

    /// Checks that every live entry is whole where the rig expects it, and that the sums are right.
    fn check(&self) {
        let mut live_bytes = 0;
        for (number, (entry, value)) in &self.live {
            let (mut own_key, mut own_value) = (Vec::new(), Vec::new());
            entry.put_key(&mut own_key);
            entry.put_value(&mut own_value);
            assert_eq!(own_key, number.to_be_bytes());
            assert!(own_value == *value, "the value of {number}");
            let kind = Kind::Put;
            let head = EntryHead { seqno: Seqno(*number), kind, value_bytes: value.len() };
            assert_eq!(entry.head(), head);
            assert!(entry.has_key(&number.to_be_bytes()));
            assert!(!entry.has_key(b"another"));
            assert_eq!(entry.seqno().0, *number);
            assert_eq!(entry.state(), EntryState::Live);
            live_bytes += entry.bytes() as u64;
        }
        assert_eq!(self.buffer.stats().live_bytes, live_bytes);
        let mut found = self.buffer.closed.check().unwrap();
        if !self.buffer.is_compacting() {
            found.extend(self.buffer.writing.check().unwrap());
            let alive = found.iter().filter(|(state, _)| *state == EntryState::Live).count();
            assert_eq!(alive, self.live.len());
        }
    }
}
