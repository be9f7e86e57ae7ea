//! A part of the cache: what it keeps, in which order it goes, and which blocks are being read.

use super::queues::{Popped, Queues};
use super::slots::{Leaving, Slots};
use super::spares::Spares;
use crate::buffer::Grace;
use crate::error::Result;
use crate::sync::lock;
use crate::table::block::Block;
use crate::table::trailer::zeroed;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};

/// What a cached block costs beside its bytes: its place in a queue, which may be half empty, and
/// the headers of two allocations.
pub(super) const OVERHEAD_BYTES: u64 = 128;
/// Where there is no room, so much more is made, but at most this part of it: so readers are looked
/// for once for several blocks. The memory of these is used again by the next ones.
const AHEAD_BYTES_MAX: u64 = 8 << 10;
const AHEAD_PART: u64 = 64;
/// Memory for blocks is a multiple of this, so that it fits another one afterwards.
const BUFFER_STEP_BYTES: usize = 128;
/// So many blocks are passed over at most while room is made: it bounds the time under the lock.
const PASSED_MAX: u32 = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct CacheShard {
    /// The readers of the blocks of this shard.
    pub(super) grace: Grace,
    kept: Mutex<Kept>,
    /// Are the blocks of closed tables to be looked for?
    sweep_due: AtomicBool,
}

#[derive(Debug, Default)]
struct Kept {
    capacity_bytes: u64,
    queues: Queues,
    leaving: Leaving,
    spares: Spares,
    reading: Vec<Arc<Flight>>,
}

/// A read that others may wait for.
#[derive(Debug)]
struct Flight {
    slots: Arc<Slots>,
    block: usize,
    outcome: Mutex<Outcome>,
    bell: Condvar,
}

#[derive(Debug)]
enum Outcome {
    Flying,
    Landed(Block),
    Failed,
}

impl CacheShard {
    pub(super) fn new(capacity_bytes: u64) -> Self {
        let kept = Kept { capacity_bytes, ..Kept::default() };
        let sweep_due = AtomicBool::new(false);
        Self { grace: Grace::default(), kept: Mutex::new(kept), sweep_due }
    }

    /// Memory of the blocks, in bytes, with those that have left and may still have readers.
    pub(super) fn used_bytes(&self) -> u64 {
        let mut kept = lock(&self.kept);
        // Readers that held something may have left since.
        let left = kept.make_room(0, &self.grace);
        let bytes = kept.used_bytes();
        drop(kept);
        drop(left);
        bytes
    }

    /// Lets the next blocks that come look for those of closed tables, a few each.
    pub(super) fn sweep(&self) {
        self.sweep_due.store(true, Relaxed);
    }

    /// Changes the room, and makes it if it became smaller.
    pub(super) fn set_capacity(&self, bytes: u64) {
        let mut kept = lock(&self.kept);
        kept.capacity_bytes = bytes;
        let left = kept.make_room(0, &self.grace);
        drop(kept);
        drop(left);
    }

    /// Memory for a block of `bytes`, at least. What is in it means nothing.
    pub(super) fn buffer(&self, bytes: usize) -> Arc<[u8]> {
        let spare = lock(&self.kept).spares.take(bytes);
        // Who had the block may have kept a value of it.
        let free = spare.filter(|spare| Arc::strong_count(spare) == 1);
        free.unwrap_or_else(|| zeroed(bytes.next_multiple_of(BUFFER_STEP_BYTES)))
    }

    /// Keeps block `i`, if there is room for it and it is not here already. Places of closed tables
    /// may be gone afterwards.
    pub(super) fn insert(&self, slots: &Arc<Slots>, i: usize, block: Block) {
        let bytes = block.memory_bytes() as u64 + OVERHEAD_BYTES;
        let mut kept = lock(&self.kept);
        if !slots.lacks(i) {
            return;
        }
        let was_swept = kept.sweep(&self.sweep_due);
        let left = kept.make_room(bytes, &self.grace);
        if kept.used_bytes() + bytes <= kept.capacity_bytes && slots.put(i, block) {
            let bytes = u32::try_from(bytes).expect("a block is not longer than 2 GiB");
            kept.queues.push(Arc::clone(slots), i, bytes);
        }
        drop(kept);
        drop((left, was_swept));
    }

    /// Block `i`, read by `read` if it is not here. Of several threads that ask for it only one
    /// reads; the others wait. If that one fails, the next one tries.
    pub(super) fn get_or_read(
        &self,
        slots: &Arc<Slots>,
        i: usize,
        read: impl FnOnce() -> Result<Block>,
    ) -> Result<Block> {
        let flight = loop {
            let mut kept = lock(&self.kept);
            if let Some(block) = slots.look(i, &self.grace, Block::clone) {
                return Ok(block);
            }
            let is_it =
                |flight: &&Arc<Flight>| flight.block == i && Arc::ptr_eq(&flight.slots, slots);
            let Some(flight) = kept.reading.iter().find(is_it).map(Arc::clone) else {
                let flight = Arc::new(Flight::new(Arc::clone(slots), i));
                kept.reading.push(Arc::clone(&flight));
                break flight;
            };
            drop(kept);
            if let Some(block) = flight.wait() {
                return Ok(block);
            }
        };
        let mut landing = Landing { shard: self, flight, block: None };
        let block = read()?;
        self.insert(slots, i, block.clone());
        landing.block = Some(block.clone());
        Ok(block)
    }
}

impl Kept {
    fn used_bytes(&self) -> u64 {
        self.queues.bytes() + self.leaving.bytes() + self.spares.bytes()
    }

    /// Lets the next few blocks of closed tables leave, if `due` or under way. Returns them, to be
    /// dropped without the lock.
    fn sweep(&mut self, due: &AtomicBool) -> Vec<Popped> {
        let mut found = Vec::new();
        if self.queues.is_swept() && due.swap(false, Relaxed) {
            self.queues.begin_sweep();
        }
        self.queues.sweep(&mut found);
        for popped in &found {
            self.leaving.enter(&popped.slots, popped.block, popped.bytes);
        }
        found
    }

    /// Makes room for `bytes`, as far as the readers of this moment let it. What it returns has
    /// left; it is to be dropped without the lock.
    fn make_room(&mut self, bytes: u64, grace: &Grace) -> Left {
        let capacity = self.capacity_bytes;
        let (mut left, mut passes) = (Left::default(), PASSED_MAX);
        let bytes = if bytes > capacity { 0 } else { bytes };
        if self.used_bytes() + bytes > capacity {
            left.buffers = self.spares.clear();
        }
        while self.used_bytes() + bytes > capacity || !self.leaving.is_empty() {
            // What leaves already is room to come.
            let excess = (self.queues.bytes() + bytes).saturating_sub(capacity);
            let wanted = match excess {
                0 => 0,
                excess => excess + (capacity / AHEAD_PART).min(AHEAD_BYTES_MAX),
            };
            let mut popped_bytes = 0;
            while popped_bytes < wanted
                && let Some(popped) = self.queues.pop(capacity, &mut passes)
            {
                popped_bytes += popped.bytes;
                self.leaving.enter(&popped.slots, popped.block, popped.bytes);
                left.slots.push(popped);
            }
            for block in self.leaving.leave(grace) {
                let room = capacity.saturating_sub(self.used_bytes() + bytes);
                left.buffers.extend(self.spares.add(block.into_buffer(), room));
            }
            if !self.leaving.is_empty() {
                // Readers have them. Whoever comes next tries again.
                break;
            }
        }
        left
    }
}

/// What is dropped without the lock.
#[derive(Default)]
struct Left {
    buffers: Vec<Arc<[u8]>>,
    /// Perhaps the last ones who hold a closed table's places.
    slots: Vec<Popped>,
}

impl Flight {
    fn new(slots: Arc<Slots>, block: usize) -> Self {
        Self { slots, block, outcome: Mutex::new(Outcome::Flying), bell: Condvar::new() }
    }

    /// Waits for the read. `None` if it failed.
    fn wait(&self) -> Option<Block> {
        let mut outcome = lock(&self.outcome);
        loop {
            match &*outcome {
                Outcome::Flying => {}
                Outcome::Landed(block) => return Some(block.clone()),
                Outcome::Failed => return None,
            }
            outcome = self.bell.wait(outcome).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

/// Ends a flight when it is dropped, also where the read failed or panicked.
struct Landing<'a> {
    shard: &'a CacheShard,
    flight: Arc<Flight>,
    block: Option<Block>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        lock(&self.shard.kept).reading.retain(|other| !Arc::ptr_eq(other, &self.flight));
        *lock(&self.flight.outcome) = self.block.take().map_or(Outcome::Failed, Outcome::Landed);
        self.flight.bell.notify_all();
    }
}
