//! Options so small that a few hundred operations exercise every structure, and some that take one
//! option to its extreme.

use super::chance::Chance;
use sluicedb::{Compression, Durability, Options, WriteOptions};

/// A write that is refused instead of waiting for room.
pub const NO_WAIT: WriteOptions = WriteOptions::new().no_wait();

/// 4 KiB memtables, 256-byte blocks, tables of 16 KiB: seals, flushes, compactions and log
/// rotations happen every few operations.
pub fn tiny() -> Options {
    let mut options = Options::default();
    options.memory_budget_bytes = 4 << 20;
    options.write_buffer_bytes = Some(1 << 20);
    options.cache_bytes = Some(1 << 20);
    options.memtable_bytes = Some(4 << 10);
    options.log_segment_bytes = 64 << 10;
    options.commits_in_flight_max = 64;
    options.block_bytes = 256;
    options.restart_interval = 4;
    options.l0_trigger_tables = 2;
    options.l0_tables_max = 6;
    options.level_base_bytes = 32 << 10;
    options.level_ratio = 3;
    options.table_bytes_max = 16 << 10;
    options.landing_batch = 2;
    options.drain_ratio = 2;
    options.keep_trigger = 1.0;
    options.read_threads = 1;
    // Independent of the machine's cores: a run is the same everywhere.
    options.compaction_threads = Some(2);
    options.open_tables_max = Some(16);
    options.durability = Durability::Buffered;
    options
}

/// `tiny` with each option drawn from interesting values.
pub fn drawn(chance: &mut Chance) -> Options {
    let mut options = tiny();
    options.memtable_bytes = Some(chance.pick(&[4 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10]));
    options.cache_bytes = Some(chance.pick(&[0, 16 << 10, 1 << 20]));
    options.block_bytes = chance.pick(&[256, 256, 1024, 4096]);
    options.restart_interval = chance.pick(&[1, 2, 16]);
    options.filter_bits_per_key = chance.pick(&[0, 1, 10]);
    options.compression = compression(chance);
    options.l0_compression = compression(chance);
    options.l0_trigger_tables = chance.pick(&[1, 2, 2, 4]);
    options.l0_tables_max = options.l0_trigger_tables + chance.pick(&[1, 4, 16]);
    options.shards_per_range = chance.pick(&[1, 4, 16]);
    options.level_base_bytes = chance.pick(&[4 << 10, 32 << 10]);
    options.level_ratio = chance.pick(&[2, 3]);
    options.table_bytes_max = chance.pick(&[4 << 10, 16 << 10]);
    options.log_retained_bytes_max = chance.pick(&[None, Some(128 << 10)]);
    options.log_mapped = !chance.one_in(3);
    options.commits_in_flight_max = chance.pick(&[16, 64]);
    options.durability = chance.pick(&[Durability::Buffered, Durability::Synced]);
    options.initial_split_keys = split_keys(chance);
    options.sealed_memtables_max = chance.pick(&[0, 1, 2, 1000]);
    options.compaction_threads = Some(chance.pick(&[1, 2, 3]));
    options.landing_runs_max = chance.pick(&[0, 2, 4, 12]);
    options.landing_batch = chance.pick(&[1, 2, 4]);
    options.rest_after_ms = chance.pick(&[0, 1, 100, 5000]);
    options.drain_ratio = chance.pick(&[1, 2, 8]);
    options.keep_trigger = chance.pick(&[1.0, 1.0, 2.0, f64::INFINITY]);
    options.landing_parallelism = chance.pick(&[None, Some(1), Some(4)]);
    if chance.one_in(2) {
        ranges_change(&mut options, chance);
    }
    options
}

/// Options under which the engine splits and merges ranges for little load, or for none.
fn ranges_change(options: &mut Options, chance: &mut Chance) {
    options.ranges_max = Some(chance.pick(&[4, 16, 16]));
    options.range_bytes_max = chance.pick(&[4 << 10, 16 << 10, u64::MAX]);
    options.range_entries_max = chance.pick(&[16, 100, u64::MAX]);
    options.range_heat_max = chance.pick(&[1, 100, u64::MAX]);
    options.ranges_merge = !chance.one_in(3);
    options.range_cooldown_ms = chance.pick(&[10, 40, 1000]);
}

/// `drawn` with landings, and with levels so small that every operation on them soon happens.
pub fn landings(chance: &mut Chance) -> Options {
    let mut options = drawn(chance);
    options.memtable_bytes = Some(4 << 10);
    options.l0_trigger_tables = chance.pick(&[1, 2]);
    options.l0_tables_max = options.l0_trigger_tables + chance.pick(&[1, 4, 16]);
    options.shards_per_range = 4;
    options.level_base_bytes = 4 << 10;
    options.level_ratio = 3;
    options.table_bytes_max = 4 << 10;
    options.compaction_threads = Some(chance.pick(&[2, 3]));
    options.landing_runs_max = chance.pick(&[2, 4, 12]);
    options.landing_batch = chance.pick(&[1, 2]);
    options.drain_ratio = chance.pick(&[1, 2]);
    options.keep_trigger = 1.0;
    options
}

/// Boundaries among the keys of `oracle::key`: none, one between hot and cold keys, or many. Some
/// are keys that are written, and some ranges are always empty.
fn split_keys(chance: &mut Chance) -> Vec<Vec<u8>> {
    let all: [&[u8]; 12] = [
        &[0, 0],
        b"cold/0700",
        b"cold/1400",
        b"cold/1401",
        b"cold/2100",
        b"cold\xFF",
        b"hot/",
        b"hot/10",
        b"hot/20",
        b"p",
        b"q",
        &[0xFF, 0xFF],
    ];
    match chance.below(4) {
        0 | 1 => Vec::new(),
        2 => vec![b"d".to_vec()],
        _ => all.iter().filter(|_| chance.one_in(2)).map(|key| key.to_vec()).collect(),
    }
}

fn compression(chance: &mut Chance) -> Compression {
    #[cfg(feature = "zstd")]
    if chance.one_in(3) {
        return Compression::Zstd(1);
    }
    chance.pick(&[Compression::None, Compression::Lz4])
}
