//! The block cache: decoded data blocks of all tables, bounded in bytes together with the indexes
//! and filters of the open tables.
//!
//! What an open table keeps in memory is taken from the blocks' capacity, down to a quarter of it;
//! the table cache closes tables before they take more.
//!
//! A hit takes a shared lock on one of several shards for the time of one hash lookup. A miss by a
//! reader that may wait reads the block once for everybody who asks meanwhile. Errors are never
//! kept: the next reader tries again.

use super::block::Block;
use crate::error::Result;
use crate::sync::lock;
use quick_cache::sync::{Cache, DefaultLifecycle, GuardResult};
use quick_cache::{OptionsBuilder, Weighter};
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// What a cached block costs beside its bytes: the cache's own records and the allocation's header.
const OVERHEAD_BYTES: u64 = 96;
/// Shards are halved until each holds this much, so that a block is small against its shard.
const SHARD_BYTES_MIN: u64 = 2 << 20;
/// More shards than any plausible number of cores hammering the cache at once.
const SHARDS_MAX: u64 = 64;
/// Hits are counted in so many places, or counting would be the bottleneck.
const HIT_COUNTERS: usize = 8;

/// A block's name: the table's number in this process (file numbers of two databases may be equal)
/// above the block's position in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BlockKey(u64);

/// A table's name in the cache. It is kept while the table is closed and opened again, so that its
/// blocks are found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheName(u64);

/// Names given out, of all databases in this process.
static NEXT_NAME: AtomicU64 = AtomicU64::new(0);

impl CacheName {
    /// A name that no other table has.
    pub fn fresh() -> Self {
        Self(NEXT_NAME.fetch_add(1, Relaxed))
    }
}

/// Bits of a block's position. The rest are the table's: enough for a thousand new tables per
/// second over two years.
const POSITION_BITS: u32 = 28;
/// Tables have at most so many blocks: a terabyte of usual ones.
pub(super) const BLOCKS_MAX: usize = 1 << POSITION_BITS;

impl BlockKey {
    #[inline]
    pub(super) fn new(table: CacheName, block: usize) -> Self {
        Self(table.0 << POSITION_BITS | block as u64)
    }
}

/// Data blocks that were read before, shared by all tables that were opened with it.
pub struct BlockCache {
    /// `None` if nothing is to be kept.
    blocks: Option<Cache<BlockKey, Block, ByBytes, Mix>>,
    capacity_bytes: u64,
    hits: [HitCounter; HIT_COUNTERS],
    misses: AtomicU64,
    broken_filters: AtomicU64,
    open_tables: AtomicU64,
    index_bytes: AtomicU64,
    filter_bytes: AtomicU64,
    /// Held while the blocks' capacity follows the tables'.
    resizing: Mutex<()>,
}

#[repr(align(64))]
#[derive(Debug, Default)]
struct HitCounter(AtomicU64);

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
        let blocks = (capacity_bytes > 0).then(|| {
            let shards = (capacity_bytes / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
            // Rounding up, as the cache does, could undercut the smallest shard.
            let shards = 1 << shards.ilog2();
            let options = OptionsBuilder::new()
                .shards(shards)
                .estimated_items_capacity((capacity_bytes / 4096).max(1) as usize)
                .weight_capacity(capacity_bytes)
                .build()
                .expect("both required options are set");
            Cache::with_options(options, ByBytes, Mix, DefaultLifecycle::default())
        });
        Arc::new(Self {
            blocks,
            capacity_bytes,
            hits: Default::default(),
            misses: AtomicU64::new(0),
            broken_filters: AtomicU64::new(0),
            open_tables: AtomicU64::new(0),
            index_bytes: AtomicU64::new(0),
            filter_bytes: AtomicU64::new(0),
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

    /// A table was opened and keeps so much in memory.
    pub(super) fn table_opened(&self, index_bytes: u64, filter_bytes: u64) {
        self.open_tables.fetch_add(1, Relaxed);
        self.index_bytes.fetch_add(index_bytes, Relaxed);
        self.filter_bytes.fetch_add(filter_bytes, Relaxed);
        self.resize();
    }

    /// A table was closed.
    pub(super) fn table_closed(&self, index_bytes: u64, filter_bytes: u64) {
        self.open_tables.fetch_sub(1, Relaxed);
        self.index_bytes.fetch_sub(index_bytes, Relaxed);
        self.filter_bytes.fetch_sub(filter_bytes, Relaxed);
        self.resize();
    }

    /// Gives the blocks what the tables leave.
    fn resize(&self) {
        let Some(blocks) = &self.blocks else { return };
        let _one = lock(&self.resizing);
        let rest = self.capacity_bytes.saturating_sub(self.index_bytes() + self.filter_bytes());
        let shards = blocks.num_shards() as u64;
        // Rounding up, as the cache does, could exceed what is left.
        blocks.set_capacity(rest.max(self.capacity_bytes / 4) / shards * shards);
    }

    /// What the cache's blocks hold, in bytes, its own overhead included.
    pub fn used_bytes(&self) -> u64 {
        self.blocks.as_ref().map_or(0, Cache::weight)
    }

    /// Lookups that found their block, since the cache was made; a few may be missing.
    pub fn hits(&self) -> u64 {
        self.hits.iter().map(|counter| counter.0.load(Relaxed)).sum()
    }

    /// Lookups that did not find their block, since the cache was made.
    pub fn misses(&self) -> u64 {
        self.misses.load(Relaxed)
    }

    /// Tables opened with this cache whose filter could not be read.
    pub fn broken_filters(&self) -> u64 {
        self.broken_filters.load(Relaxed)
    }

    pub(super) fn count_broken_filter(&self) {
        self.broken_filters.fetch_add(1, Relaxed);
    }

    /// The block, if it is here. Never waits for a read in progress.
    #[inline]
    pub(super) fn get(&self, key: BlockKey) -> Option<Block> {
        let block = self.blocks.as_ref().and_then(|blocks| blocks.get(&key));
        if block.is_some() {
            // Two threads at once may count as one: an exact count would cost as much as the lock.
            let counter = &self.hits[key.0 as usize % HIT_COUNTERS].0;
            counter.store(counter.load(Relaxed) + 1, Relaxed);
        } else {
            self.misses.fetch_add(1, Relaxed);
        }
        block
    }

    /// Keeps a block that was read without waiting.
    pub(super) fn insert(&self, key: BlockKey, block: Block) {
        if let Some(blocks) = &self.blocks {
            blocks.insert(key, block);
        }
    }

    /// The block, read by `read` if it is not here, after `get` has missed. Of several threads that
    /// ask for one block at a time only one reads; the others wait. If that one fails, the next one
    /// tries.
    pub(super) fn get_or_read(
        &self,
        key: BlockKey,
        read: impl FnOnce() -> Result<Block>,
    ) -> Result<Block> {
        let Some(blocks) = &self.blocks else { return read() };
        match blocks.get_value_or_guard(&key, None) {
            GuardResult::Value(block) => Ok(block),
            GuardResult::Guard(guard) => {
                let block = read()?;
                // Refused if somebody put the block there meanwhile, which is as good.
                let _ = guard.insert(block.clone());
                Ok(block)
            }
            GuardResult::Timeout => read(),
        }
    }
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<BlockKey, Block> for ByBytes {
    fn weight(&self, _: &BlockKey, block: &Block) -> u64 {
        block.memory_bytes() as u64 + OVERHEAD_BYTES
    }
}

/// A folded multiplication: block keys are small numbers that nobody chooses with ill intent.
#[derive(Clone, Debug)]
struct Mix;

#[derive(Debug)]
struct Mixer(u64);

impl BuildHasher for Mix {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(0x9E37_79B9_7F4A_7C15)
    }
}

impl Hasher for Mixer {
    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0xD6E8_FEB8_6659_FD93;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::key::{Kind, Seqno};
    use crate::table::block::BlockBuilder;
    use std::sync::atomic::AtomicUsize;

    fn block(bytes: usize) -> Block {
        let mut builder = BlockBuilder::new(16);
        builder.add(b"key", 0, Seqno(1), Kind::Put, &vec![0; bytes]);
        let mut raw = Vec::new();
        builder.finish(&mut raw);
        let length = raw.len();
        Block::parse(raw.into(), 0..length).unwrap()
    }

    #[test]
    fn one_of_many_readers_reads() {
        let cache = BlockCache::new(1 << 20);
        for round in 0..50 {
            let key = BlockKey::new(CacheName(1), round);
            let reads = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let read = || {
                            reads.fetch_add(1, Relaxed);
                            // Give the others time to ask.
                            for _ in 0..100 {
                                std::thread::yield_now();
                            }
                            Ok(block(100))
                        };
                        cache.get_or_read(key, read).unwrap();
                    });
                }
            });
            assert_eq!(reads.into_inner(), 1);
            assert!(cache.get(key).is_some());
        }
    }

    #[test]
    fn a_failed_read_is_tried_again_by_the_next() {
        let cache = BlockCache::new(1 << 20);
        let key = BlockKey::new(CacheName(1), 1);
        let reads = AtomicUsize::new(0);
        let failures = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let read = || match reads.fetch_add(1, Relaxed) {
                        0..3 => Err(Error::WouldBlock),
                        _ => Ok(block(100)),
                    };
                    if cache.get_or_read(key, read).is_err() {
                        failures.fetch_add(1, Relaxed);
                    }
                });
            }
        });
        assert_eq!((failures.into_inner(), reads.into_inner()), (3, 4));
    }

    #[test]
    fn the_bound_holds_and_nothing_is_confused() {
        let cache = BlockCache::new(8 << 20);
        for table in 0..10 {
            for i in 0..1000 {
                cache.insert(BlockKey::new(CacheName(table), i), block(4000));
                assert!(cache.used_bytes() <= 8 << 20);
            }
        }
        assert!(cache.used_bytes() > 6 << 20);
        let mut present = 0;
        for table in 0..10 {
            for i in 0..1000 {
                present += u64::from(cache.get(BlockKey::new(CacheName(table), i)).is_some());
            }
        }
        assert_eq!((cache.hits(), cache.misses()), (present, 10_000 - present));
        assert!(present > 1500);
        // Too large for any shard: not kept, not an error.
        cache.insert(BlockKey::new(CacheName(99), 0), block(9 << 20));
        assert!(cache.used_bytes() <= 8 << 20);
        let none = BlockCache::new(0);
        none.insert(BlockKey::new(CacheName(0), 0), block(10));
        assert!(none.get(BlockKey::new(CacheName(0), 0)).is_none());
        assert_eq!(none.used_bytes(), 0);
    }
}
