//! Which block goes next: the two queues and the memory of S3-FIFO.
//!
//! A new block enters the small queue. If it was used twice until it comes to the queue's front, it
//! moves to the main queue; if not, it goes. So a scan that passes once takes a tenth of the cache.
//! At the front of the main queue a block that was used goes back to the end, with one use less. A
//! block that has gone is remembered for a while; if it comes again, it enters the main queue.
//!
//! A use is a store into the block, by whoever finds it, and only while it matters. No queue is
//! touched by it: that is why this method was chosen (Yang and others, *FIFO queues are all you
//! need for cache eviction*, SOSP 2023).

use super::slots::Slots;
use std::collections::VecDeque;
use std::sync::Arc;

/// The small queue has this part of the room.
const SMALL_PART: u64 = 10;
/// Uses that take a block from the small queue to the main one.
const USES_TO_STAY: u8 = 2;
/// So many blocks are looked at in one step of a sweep: it bounds the time under the lock.
const SWEPT_MAX: u32 = 64;

/// A block in a queue. It is in its place as long as it is here.
#[derive(Debug)]
struct Entry {
    slots: Arc<Slots>,
    block: u32,
    bytes: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queues {
    small: VecDeque<Entry>,
    main: VecDeque<Entry>,
    small_bytes: u64,
    main_bytes: u64,
    gone: Gone,
    /// How many of the small and of the main queue a sweep has still to look at.
    unswept: [usize; 2],
}

/// A block that was taken out of its queue. It is still in its place.
#[derive(Debug)]
pub(super) struct Popped {
    pub(super) slots: Arc<Slots>,
    pub(super) block: usize,
    /// What it was charged with.
    pub(super) bytes: u64,
}

impl Queues {
    /// The blocks' bytes, as they were charged.
    pub(super) fn bytes(&self) -> u64 {
        self.small_bytes + self.main_bytes
    }

    /// Adds block `i`, which is in its place now. It is charged with `bytes`.
    pub(super) fn push(&mut self, slots: Arc<Slots>, i: usize, bytes: u32) {
        let again = self.gone.forget(slots.hash(i));
        slots.came(u64::from(bytes));
        let entry = Entry { slots, block: i as u32, bytes };
        if again {
            self.push_main(entry);
        } else {
            self.small_bytes += u64::from(bytes);
            self.small.push_back(entry);
        }
    }

    fn push_main(&mut self, entry: Entry) {
        self.main_bytes += u64::from(entry.bytes);
        self.main.push_back(entry);
    }

    /// Takes out the block that goes next. `capacity` is the room that all blocks have. `passes` is
    /// how many others may be passed over, here and in later calls.
    pub(super) fn pop(&mut self, capacity: u64, passes: &mut u32) -> Option<Popped> {
        loop {
            let is_small = self.main.is_empty() || self.small_bytes > capacity / SMALL_PART;
            let next = if is_small { self.small.pop_front() } else { self.main.pop_front() };
            // An empty small queue has no bytes.
            let Entry { slots, block, bytes } = next?;
            let i = block as usize;
            *self.bytes_of(is_small) -= u64::from(bytes);
            let uses = slots.uses(i);
            let stays = uses >= if is_small { USES_TO_STAY } else { 1 };
            if stays && *passes > 0 && slots.is_open() {
                *passes -= 1;
                slots.set_uses(i, if is_small { 0 } else { uses - 1 });
                self.push_main(Entry { slots, block, bytes });
                continue;
            }
            if is_small && slots.is_open() {
                self.gone.remember(slots.hash(i), capacity);
            }
            slots.leaves(u64::from(bytes));
            return Some(Popped { slots, block: i, bytes: u64::from(bytes) });
        }
    }

    fn bytes_of(&mut self, is_small: bool) -> &mut u64 {
        if is_small { &mut self.small_bytes } else { &mut self.main_bytes }
    }

    /// Is no sweep under way?
    pub(super) fn is_swept(&self) -> bool {
        self.unswept == [0, 0]
    }

    /// Looks for the blocks of closed tables from now on, in `sweep`.
    pub(super) fn begin_sweep(&mut self) {
        self.unswept = [self.small.len(), self.main.len()];
    }

    /// Takes out the blocks of closed tables among the next few that are not looked at yet. The
    /// others go to the end.
    pub(super) fn sweep(&mut self, found: &mut Vec<Popped>) {
        for _ in 0..SWEPT_MAX {
            let is_small = self.unswept[0] > 0;
            let unswept = &mut self.unswept[usize::from(!is_small)];
            if *unswept == 0 {
                return;
            }
            let queue = if is_small { &mut self.small } else { &mut self.main };
            let Some(entry) = queue.pop_front() else {
                // All that were not looked at have gone meanwhile.
                *unswept = 0;
                continue;
            };
            *unswept -= 1;
            if entry.slots.is_open() {
                queue.push_back(entry);
                continue;
            }
            let Entry { slots, block, bytes } = entry;
            *self.bytes_of(is_small) -= u64::from(bytes);
            slots.leaves(u64::from(bytes));
            found.push(Popped { slots, block: block as usize, bytes: u64::from(bytes) });
        }
    }
}

/// The blocks that went last, by parts of their hashes. Each new one takes the place of an older
/// one at random, so the oldest are most likely forgotten.
#[derive(Debug, Default)]
struct Gone(Vec<u32>);

impl Gone {
    fn remember(&mut self, hash: u64, capacity: u64) {
        if self.0.is_empty() {
            // Twice as many as there are usual blocks in the cache.
            self.0 = vec![0; (capacity / 2048).next_power_of_two().max(64) as usize];
        }
        let (at, part) = self.place(hash);
        self.0[at] = part;
    }

    /// Was it here? It is not any more.
    fn forget(&mut self, hash: u64) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let (at, part) = self.place(hash);
        let known = self.0[at] == part;
        if known {
            self.0[at] = 0;
        }
        known
    }

    /// Where a hash is remembered, and as what; 0 is nothing.
    fn place(&self, hash: u64) -> (usize, u32) {
        let mixed = hash ^ hash >> 32;
        (mixed as usize & (self.0.len() - 1), (mixed >> 32) as u32 | 1)
    }
}
