//! Where the cached blocks of one table are: a place for each block, which is read without a lock.
//!
//! A reader pins the grace of its shard, loads one pointer, reads, and unpins. It writes to the
//! pin's counter, which few other threads use, and to nothing else that is shared.
//!
//! The places live as long as a table is open with them or a block is in them. Those of closed
//! tables are counted, and looked for when they become many.
//!
//! INVARIANT(grace-before-reuse): a block that is no longer kept leaves its place first. It is
//! freed, or its memory used again, when the readers of that time have left. The place of a block
//! belongs to one shard for ever, so its readers and those who free it always use the same grace.

use crate::buffer::{Grace, Phase};
use crate::sync::lock;
use crate::table::block::Block;
use std::fmt;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard};

/// More uses than these make no difference. So a block that is used all the time is not written to.
const USES_MAX: u8 = 3;

/// A block in its place.
#[derive(Debug)]
struct Cached {
    block: Block,
    /// How often it was used since the queues last passed it, up to `USES_MAX`. Two uses at once
    /// may count as one.
    uses: AtomicU8,
}

/// See the module.
pub(super) struct Slots {
    seed: u64,
    /// How many open tables ask for the blocks. With none, they are the first to go.
    tables: AtomicU32,
    places: Box<[AtomicPtr<Cached>]>,
    /// What the blocks that are here were charged with.
    kept_bytes: AtomicU64,
    /// What was added to `idle`: places, and blocks.
    counted: Mutex<(u64, u64)>,
    idle: Arc<IdleBytes>,
}

/// Memory of closed tables whose blocks are still here, of one cache.
#[derive(Debug, Default)]
pub(super) struct IdleBytes {
    /// Memory of the places, in bytes.
    pub(super) places_bytes: AtomicU64,
    /// Memory of the blocks, in bytes.
    pub(super) blocks_bytes: AtomicU64,
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Slots {
    /// Places for `blocks` blocks, all empty, in the cache of `idle`.
    pub(super) fn new(blocks: usize, idle: Arc<IdleBytes>) -> Self {
        /// Different for each table of this process: neighbours must not share their shards.
        static NEXT_SEED: AtomicU64 = AtomicU64::new(0);
        Self {
            seed: NEXT_SEED.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed),
            tables: AtomicU32::new(0),
            kept_bytes: AtomicU64::new(0),
            counted: Mutex::new((0, 0)),
            idle,
            places: (0..blocks).map(|_| AtomicPtr::new(null_mut())).collect(),
        }
    }

    /// The memory of the places, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.places)
    }

    /// Are these the places for `blocks` blocks in the cache of `idle`?
    pub(super) fn fit(&self, blocks: usize, idle: &Arc<IdleBytes>) -> bool {
        self.places.len() == blocks && Arc::ptr_eq(&self.idle, idle)
    }

    /// A table is open that asks for the blocks.
    pub(super) fn opened(&self) {
        self.tables.fetch_add(1, Relaxed);
        self.recount();
    }

    /// A table is closed.
    pub(super) fn closed(&self) {
        self.tables.fetch_sub(1, Relaxed);
        self.recount();
    }

    /// Whoever comes last sees what is so: it is done under the lock. Each sum changes in one step,
    /// so nobody sees a part.
    fn recount(&self) {
        let counted = lock(&self.counted);
        let now = if self.is_open() {
            (0, 0)
        } else {
            (self.memory_bytes() as u64, self.kept_bytes.load(Relaxed))
        };
        self.count(counted, now);
    }

    fn count(&self, mut counted: MutexGuard<'_, (u64, u64)>, now: (u64, u64)) {
        let (places, blocks) = std::mem::replace(&mut *counted, now);
        self.idle.places_bytes.fetch_add(now.0.wrapping_sub(places), Relaxed);
        self.idle.blocks_bytes.fetch_add(now.1.wrapping_sub(blocks), Relaxed);
    }

    /// Does any open table ask for the blocks?
    pub(super) fn is_open(&self) -> bool {
        self.tables.load(Relaxed) > 0
    }

    /// A number of block `i` whose upper bits are well mixed.
    #[inline]
    pub(super) fn hash(&self, i: usize) -> u64 {
        (self.seed ^ i as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93)
    }

    /// Is block `i` not here? A moment later it may be.
    #[inline]
    pub(super) fn lacks(&self, i: usize) -> bool {
        self.places.get(i).is_none_or(|place| place.load(Relaxed).is_null())
    }

    /// What `read` says of block `i`, if it is here. `grace` is that of the block's shard.
    #[inline]
    pub(super) fn look<T>(
        &self,
        i: usize,
        grace: &Grace,
        read: impl FnOnce(&Block) -> T,
    ) -> Option<T> {
        let place = self.places.get(i)?;
        let _pin = Pin::new(grace);
        // SAFETY: a pointer in a place is that of a live `Cached`. It is freed only by
        // `Leaving::leave`, after the readers that were pinned when it left its place are gone; the
        // pin was there before the load, and goes after `read`.
        let cached = unsafe { place.load(Acquire).as_ref() }?;
        let uses = cached.uses.load(Relaxed);
        if uses < USES_MAX {
            cached.uses.store(uses + 1, Relaxed);
        }
        Some(read(&cached.block))
    }

    /// Puts block `i` into its place. Returns false if one is there already.
    pub(super) fn put(&self, i: usize, block: Block) -> bool {
        let cached = Box::into_raw(Box::new(Cached { block, uses: AtomicU8::new(0) }));
        let put = self.places[i].compare_exchange(null_mut(), cached, Release, Relaxed).is_ok();
        if !put {
            // SAFETY: it came from `into_raw` just now, and nobody else has seen it.
            drop(unsafe { Box::from_raw(cached) });
        }
        put
    }

    /// How often block `i` was used since it was put there, or since the last `set_uses`. Only
    /// under the lock of the block's shard, and only for a block that is here.
    pub(super) fn uses(&self, i: usize) -> u8 {
        self.uses_of(i).load(Relaxed)
    }

    /// Under the same rules as `uses`.
    pub(super) fn set_uses(&self, i: usize, uses: u8) {
        self.uses_of(i).store(uses, Relaxed);
    }

    fn uses_of(&self, i: usize) -> &AtomicU8 {
        let cached = self.places[i].load(Acquire);
        // SAFETY: only who holds the lock of the block's shard takes blocks out of their places,
        // and that is the caller. So the block is here, and stays.
        let cached = unsafe { cached.as_ref() }.expect("only blocks that are here are asked for");
        &cached.uses
    }

    /// A block came, and was charged with `bytes`.
    pub(super) fn came(&self, bytes: u64) {
        self.kept_bytes.fetch_add(bytes, Relaxed);
    }

    /// A block leaves that was charged with `bytes`.
    pub(super) fn leaves(&self, bytes: u64) {
        self.kept_bytes.fetch_sub(bytes, Relaxed);
        if !self.is_open() {
            self.recount();
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.count(lock(&self.counted), (0, 0));
        for place in &mut self.places {
            let cached = std::mem::replace(place.get_mut(), null_mut());
            if !cached.is_null() {
                // SAFETY: it came from `into_raw`, and who could read it would hold these slots.
                drop(unsafe { Box::from_raw(cached) });
            }
        }
    }
}

/// A pin that is given back when it is dropped.
struct Pin<'a> {
    grace: &'a Grace,
    phase: Option<Phase>,
}

impl<'a> Pin<'a> {
    #[inline]
    fn new(grace: &'a Grace) -> Self {
        Self { grace, phase: Some(grace.pin()) }
    }
}

impl Drop for Pin<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(phase) = self.phase.take() {
            self.grace.unpin(phase);
        }
    }
}

/// Blocks that have left their places and may still have readers. One per shard, under its lock.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// They left after the last turn of the grace, and before it.
    newer: Vec<NonNull<Cached>>,
    older: Vec<NonNull<Cached>>,
    /// What they were charged with; some of it may be free already.
    bytes: u64,
}

// SAFETY: the blocks that it points to are its own, but for readers, who may be on any thread.
unsafe impl Send for Leaving {}

impl Leaving {
    /// Takes block `i` of `slots`, which is here, out of its place. It was charged with `bytes`.
    pub(super) fn enter(&mut self, slots: &Slots, i: usize, bytes: u64) {
        self.bytes += bytes;
        let cached = slots.places[i].swap(null_mut(), AcqRel);
        self.newer.push(NonNull::new(cached).expect("only blocks that are here are taken out"));
    }

    /// Takes the blocks that have no reader any more; dropping them frees them. `grace` is the
    /// shard's. Where nobody reads at this moment, that is all of them.
    pub(super) fn leave(&mut self, grace: &Grace) -> Vec<Block> {
        let mut left = Vec::new();
        while !self.is_empty() && grace.turn() {
            left.append(&mut self.older);
            std::mem::swap(&mut self.newer, &mut self.older);
        }
        if self.is_empty() {
            self.bytes = 0;
        }
        // SAFETY: it came from `into_raw`, and left its place before the turn before the last one.
        // So no reader has it any more, and no other one frees it.
        left.into_iter().map(|cached| unsafe { Box::from_raw(cached.as_ptr()) }.block).collect()
    }

    /// What waits for its readers, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.newer.is_empty() && self.older.is_empty()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        for cached in self.newer.drain(..).chain(self.older.drain(..)) {
            // SAFETY: the shard goes, and with it everybody who could have a pin.
            drop(unsafe { Box::from_raw(cached.as_ptr()) });
        }
    }
}
