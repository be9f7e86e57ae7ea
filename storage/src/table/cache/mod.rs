//! The block cache: decoded data blocks of all tables, bounded in bytes together with the indexes
//! and filters of the open tables.
//!
//! What an open table keeps in memory is taken from the blocks' capacity, down to a quarter of it;
//! the table cache closes tables before they take more.
//!
//! A hit takes no lock and writes to little that other cores write to: a table has a place for each
//! of its blocks (`slots`), and a reader is kept from harm by a pin. A block is in one of
//! several shards (`shard`), which decides what is kept, in the order of its `queues`. A miss by a
//! reader that may wait reads the block once for everybody who asks meanwhile. Errors are never
//! kept: the next reader tries again.

mod queues;
mod shard;
mod slots;
mod spares;

use super::block::Block;
use super::trailer::zeroed;
use crate::error::Result;
use crate::stripe;
use crate::sync::lock;
use shard::CacheShard;
use slots::{IdleBytes, Slots};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};

/// Shards are halved until each holds this much, so that a block is small against its shard.
const SHARD_BYTES_MIN: u64 = 2 << 20;
/// More shards than any plausible number of cores that read new blocks at once.
const SHARDS_MAX: u64 = 64;
/// Tables have at most so many blocks: a terabyte of usual ones.
pub(super) const BLOCKS_MAX: usize = 1 << 28;

/// Data blocks that were read before, shared by all tables that were opened with it.
pub struct BlockCache {
    /// A power of two, or none if nothing is to be kept.
    shards: Box<[CacheShard]>,
    capacity_bytes: u64,
    counts: [Counts; COUNT_STRIPES],
    broken_filters: AtomicU64,
    open_tables: AtomicU64,
    index_bytes: AtomicU64,
    filter_bytes: AtomicU64,
    idle: Arc<IdleBytes>,
    /// The memory of closed tables' places that the blocks' capacity has last left out.
    places_left_out: AtomicU64,
    /// Held while the blocks' capacity follows the tables'.
    resizing: Mutex<()>,
}

/// Closed tables whose places take more than this part of the cache lose their blocks.
const IDLE_PLACES_PART: u64 = 16;
/// So do those whose blocks take more than this part.
const IDLE_BLOCKS_PART: u64 = 4;
/// The blocks get the room of closed tables' places when it is this part of the cache.
const ROOM_BACK_PART: u64 = 64;
/// Lookups are counted in so many stripes.
const COUNT_STRIPES: usize = 16;

#[repr(align(128))]
#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache")
            .field("capacity_bytes", &self.capacity_bytes)
            .field("used_bytes", &self.used_bytes())
            .field("hits", &self.hits())
            .field("misses", &self.misses())
            .finish_non_exhaustive()
    }
}

impl BlockCache {
    /// A cache that holds up to `capacity_bytes` of blocks; 0 keeps nothing.
    pub fn new(capacity_bytes: u64) -> Arc<Self> {
        let most = (capacity_bytes / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
        let shards = if capacity_bytes == 0 { 0 } else { 1 << most.ilog2() };
        Arc::new(Self {
            shards: (0..shards).map(|_| CacheShard::new(capacity_bytes / shards)).collect(),
            capacity_bytes,
            counts: Default::default(),
            broken_filters: AtomicU64::new(0),
            open_tables: AtomicU64::new(0),
            index_bytes: AtomicU64::new(0),
            filter_bytes: AtomicU64::new(0),
            idle: Arc::default(),
            places_left_out: AtomicU64::new(0),
            resizing: Mutex::new(()),
        })
    }

    /// What the cache may hold, in bytes: blocks, and indexes and filters of open tables.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Tables that are open: each has a file descriptor, an index and a filter.
    pub fn open_tables(&self) -> u64 {
        self.open_tables.load(Relaxed)
    }

    /// Memory of the open tables' indexes, in bytes.
    pub fn index_bytes(&self) -> u64 {
        self.index_bytes.load(Relaxed)
    }

    /// Memory of the open tables' filters, in bytes.
    pub fn filter_bytes(&self) -> u64 {
        self.filter_bytes.load(Relaxed)
    }

    /// A table was opened or closed: gives the blocks what the tables leave, and lets the blocks of
    /// closed tables go if these have become many.
    fn resize(&self) {
        let one = lock(&self.resizing);
        let capacity = self.capacity_bytes;
        let is_much = self.idle.places_bytes.load(Relaxed) > capacity / IDLE_PLACES_PART
            || self.idle.blocks_bytes.load(Relaxed) > capacity / IDLE_BLOCKS_PART;
        self.give_room();
        if is_much {
            self.shards.iter().for_each(CacheShard::sweep);
        }
        drop(one);
    }

    /// Under `resizing`.
    fn give_room(&self) {
        let capacity = self.capacity_bytes;
        let places = self.idle.places_bytes.load(Relaxed);
        self.places_left_out.store(places, Relaxed);
        let tables = self.index_bytes() + self.filter_bytes();
        let rest = capacity.saturating_sub(tables).max(capacity / 4);
        let rest = rest.saturating_sub(places.min(capacity / 8));
        for shard in &self.shards {
            shard.set_capacity(rest / self.shards.len() as u64);
        }
    }

    /// A block came, and others may have left. If they were the last ones of closed tables, there
    /// is more room.
    fn take_room_back(&self) {
        if self.has_room_back() {
            let one = lock(&self.resizing);
            // Several may have seen it.
            if self.has_room_back() {
                self.give_room();
            }
            drop(one);
        }
    }

    #[inline]
    fn has_room_back(&self) -> bool {
        let before = self.places_left_out.load(Relaxed);
        let places = self.idle.places_bytes.load(Relaxed);
        let back = before.saturating_sub(places);
        back > self.capacity_bytes / ROOM_BACK_PART || back > 0 && places == 0
    }

    /// What the cache's blocks hold, in bytes, its own overhead included.
    pub fn used_bytes(&self) -> u64 {
        self.shards.iter().map(CacheShard::used_bytes).sum()
    }

    /// Lookups that found their block, since the cache was made. A few may be missing, so that two
    /// calls may even differ by a little less than nothing.
    pub fn hits(&self) -> u64 {
        self.counts.iter().map(|counts| counts.hits.load(Relaxed)).sum()
    }

    /// Lookups that did not find their block, and got it elsewhere, since the cache was made. Who
    /// may not wait and asks again counts once.
    pub fn misses(&self) -> u64 {
        self.counts.iter().map(|counts| counts.misses.load(Relaxed)).sum()
    }

    /// Tables opened with this cache whose filter could not be read.
    pub fn broken_filters(&self) -> u64 {
        self.broken_filters.load(Relaxed)
    }

    pub(super) fn count_broken_filter(&self) {
        self.broken_filters.fetch_add(1, Relaxed);
    }

    #[inline]
    fn counts(&self) -> &Counts {
        &self.counts[stripe::of_this_thread() % COUNT_STRIPES]
    }
}

/// Where a table's cached blocks are. Whoever opens and closes the table keeps this meanwhile, and
/// blocks that have not left are found again.
#[derive(Debug, Default)]
pub struct BlockPlaces(Mutex<Weak<Slots>>);

impl BlockPlaces {
    /// The places that were there before, as long as there is a block in them, or else new ones.
    fn get(&self, blocks: usize, idle: &Arc<IdleBytes>) -> Arc<Slots> {
        let mut places = lock(&self.0);
        places.upgrade().filter(|slots| slots.fit(blocks, idle)).unwrap_or_else(|| {
            let slots = Arc::new(Slots::new(blocks, Arc::clone(idle)));
            *places = Arc::downgrade(&slots);
            slots
        })
    }
}

/// The data blocks of an open table in the cache, which also counts the table's memory.
#[derive(Debug)]
pub(super) struct TableBlocks {
    cache: Arc<BlockCache>,
    slots: Arc<Slots>,
    index_bytes: u64,
    filter_bytes: u64,
}

impl TableBlocks {
    /// A table of `blocks` blocks was opened, and keeps so much in memory.
    pub(super) fn new(
        cache: Arc<BlockCache>,
        places: Option<&BlockPlaces>,
        blocks: usize,
        index_bytes: u64,
        filter_bytes: u64,
    ) -> Self {
        let blocks = if cache.shards.is_empty() { 0 } else { blocks };
        let slots = match places {
            Some(places) => places.get(blocks, &cache.idle),
            None => Arc::new(Slots::new(blocks, Arc::clone(&cache.idle))),
        };
        slots.opened();
        let index_bytes = index_bytes + slots.memory_bytes() as u64;
        cache.open_tables.fetch_add(1, Relaxed);
        cache.index_bytes.fetch_add(index_bytes, Relaxed);
        cache.filter_bytes.fetch_add(filter_bytes, Relaxed);
        cache.resize();
        Self { cache, slots, index_bytes, filter_bytes }
    }

    #[inline]
    fn shard(&self, i: usize) -> Option<&CacheShard> {
        let shards = &self.cache.shards;
        shards.get((self.slots.hash(i) >> 58) as usize & shards.len().wrapping_sub(1))
    }

    /// What `read` says of block `i`, if it is here. Never waits for a read in progress.
    #[inline]
    pub(super) fn look<T>(&self, i: usize, read: impl FnOnce(&Block) -> T) -> Option<T> {
        let shard = if self.slots.lacks(i) { None } else { self.shard(i) };
        let found = shard.and_then(|shard| self.slots.look(i, &shard.grace, read));
        if found.is_some() {
            // Two threads at once may count as one: an exact count costs as much as the pin.
            let hits = &self.cache.counts().hits;
            hits.store(hits.load(Relaxed) + 1, Relaxed);
        }
        found
    }

    /// A block that `look` had not found was got from elsewhere.
    pub(super) fn missed(&self) {
        self.cache.counts().misses.fetch_add(1, Relaxed);
    }

    /// Memory for block `i`, which has at most `bytes`. What is in it means nothing.
    pub(super) fn buffer(&self, i: usize, bytes: usize) -> Arc<[u8]> {
        self.shard(i).map_or_else(|| zeroed(bytes), |shard| shard.buffer(bytes))
    }

    /// Keeps block `i`, which was read without waiting.
    pub(super) fn insert(&self, i: usize, block: Block) {
        if let Some(shard) = self.shard(i) {
            shard.insert(&self.slots, i, block);
            self.cache.take_room_back();
        }
    }

    /// Block `i`, read by `read` if it is not here, after `look` has missed. Of several threads
    /// that ask for one block at a time only one reads; the others wait. If that one fails, the
    /// next one tries.
    pub(super) fn get_or_read(
        &self,
        i: usize,
        read: impl FnOnce() -> Result<Block>,
    ) -> Result<Block> {
        let Some(shard) = self.shard(i) else { return read() };
        let block = shard.get_or_read(&self.slots, i, read)?;
        self.cache.take_room_back();
        Ok(block)
    }
}

impl Drop for TableBlocks {
    fn drop(&mut self) {
        self.slots.closed();
        self.cache.open_tables.fetch_sub(1, Relaxed);
        self.cache.index_bytes.fetch_sub(self.index_bytes, Relaxed);
        self.cache.filter_bytes.fetch_sub(self.filter_bytes, Relaxed);
        self.cache.resize();
    }
}

#[cfg(test)]
mod tests;
