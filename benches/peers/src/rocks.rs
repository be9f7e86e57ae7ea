//! How RocksDB is set in both programs.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, Options};

/// How large its parts may be.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub memtable_bytes: u64,
    pub memtables: u64,
    pub cache_bytes: u64,
}

/// Blocks of 4 KiB, a Bloom filter of 10 bits per key, no compression, an LRU cache, and two
/// background jobs (the default): one flush and one compaction at a time. Indexes and filters are
/// beside the cache (`cache_index_and_filter_blocks` is false, the default).
pub fn options(sizes: Sizes) -> Options {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_size(4096);
    tables.set_block_cache(&Cache::new_lru_cache(sizes.cache_bytes as usize));
    tables.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(sizes.memtable_bytes as usize);
    options.set_max_write_buffer_number(sizes.memtables as i32);
    options.set_compression_type(DBCompressionType::None);
    options.set_max_background_jobs(2);
    options.set_block_based_table_factory(&tables);
    options
}
