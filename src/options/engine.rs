//! The engine's configuration, from the options.

use super::{Compression, Options};
use bytes::Bytes;
use sluicedb_actors::config::{EngineConfig, RangePolicy};
use sluicedb_storage::buffer::BufferOptions;
use sluicedb_storage::compact::CompactionOptions;
use sluicedb_storage::table::{Compression as TableCompression, TableOptions};
use sluicedb_storage::version::KeyspaceOptions;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;
use std::time::Duration;

impl Options {
    /// The options that a keyspace may set for itself. They have the same limits there.
    pub(super) fn of_keyspaces(&self) -> KeyspaceOptions {
        KeyspaceOptions {
            compression: Some(table_compression(self.compression)),
            filter_bits_per_key: Some(self.filter_bits_per_key),
            shards: Some(self.shards_per_range),
            level_base_bytes: Some(self.level_base_bytes),
            level_ratio: Some(self.level_ratio),
            landing_runs_max: Some(self.landing_runs_max),
            range_bytes_max: Some(self.range_bytes_max),
            range_entries_max: Some(self.range_entries_max),
            range_heat_max: Some(self.range_heat_max),
        }
    }

    pub(crate) fn engine_config(
        &self,
        dir: &Path,
        create_if_missing: bool,
        error_if_exists: bool,
    ) -> EngineConfig {
        let write_buffer = self.effective_write_buffer_bytes() as usize;
        EngineConfig {
            dir: dir.to_owned(),
            create_if_missing,
            error_if_exists,
            write_buffer_bytes: write_buffer,
            range_buffer_bytes: self.range_buffer_bytes.map(|bytes| bytes as usize),
            memtable_bytes: self.memtable_bytes.map(|bytes| bytes as usize),
            sealed_memtables_max: self.sealed_memtables_max,
            buffer: self.buffer_compaction.then(BufferOptions::default),
            cache_bytes: self.effective_cache_bytes(),
            open_tables_max: self.effective_open_tables_max(),
            open_tables_bytes_max: self.open_tables_bytes_max(),
            log_segment_bytes: self.effective_log_segment_bytes(),
            log_retained_bytes_max: self.effective_log_retained_bytes_max(),
            log_unsynced_bytes_max: self.log_unsynced_bytes_max(),
            idle_seal_after: match self.idle_seal_after_ms {
                0 => None,
                after => Some(Duration::from_millis(after)),
            },
            log_mapped: self.log_mapped,
            allow_shared_directory: self.allow_shared_directory,
            sync_polling: Duration::from_micros(self.sync_polling_us),
            read_polling: Duration::from_micros(self.read_polling_us),
            commits_in_flight_max: self.commits_in_flight_max,
            value_bytes_max: self.effective_value_bytes_max() as usize,
            batch_bytes_max: self.effective_batch_bytes_max() as usize,
            l0_tables_max: self.l0_tables_max,
            l0_table: TableOptions {
                block_bytes: self.block_bytes,
                restart_interval: self.restart_interval,
                filter_bits_per_key: self.filter_bits_per_key,
                compression: table_compression(self.l0_compression),
            },
            level_compression: table_compression(self.compression),
            compaction: CompactionOptions {
                l0_trigger: self.l0_trigger_tables,
                shards: self.shards_per_range,
                l0_bytes_max: self.l0_bytes_max,
                l0_entries_max: self.l0_entries_max,
                level_base_bytes: self.level_base_bytes,
                level_base_entries: self.level_base_entries,
                level_ratio: self.level_ratio,
                table_bytes_max: self.table_bytes_max,
                tombstone_percent_max: self.tombstone_percent_max,
                tombstone_age_max_ms: match self.tombstone_age_max_ms {
                    0 => u64::MAX,
                    most => most,
                },
                landing_runs_max: self.landing_runs_max,
                drain_ratio: self.drain_ratio,
                rest_after_ms: match self.rest_after_ms {
                    0 => u64::MAX,
                    after => after,
                },
                landing_batch: self.landing_batch,
                keep_trigger: self.keep_trigger,
                landing_parallelism: NonZeroUsize::new(self.effective_landing_parallelism())
                    .unwrap_or(NonZeroUsize::MIN),
                ..CompactionOptions::default()
            },
            space_reserve_bytes: self.effective_space_reserve_bytes(),
            compaction_threads: NonZeroUsize::new(self.effective_compaction_threads())
                .unwrap_or(NonZeroUsize::MIN),
            compaction_bytes_per_second: self.compaction_bytes_per_second.and_then(NonZeroU64::new),
            read_only_log_bytes_max: self.effective_read_only_log_bytes_max(),
            read_threads: self.read_threads,
            ranges: RangePolicy {
                bytes_max: self.range_bytes_max,
                entries_max: self.range_entries_max,
                heat_max: self.range_heat_max,
                ranges_max: self.effective_ranges_max(),
                merges: self.ranges_merge,
                cooldown: Duration::from_millis(self.range_cooldown_ms),
            },
            initial_split_keys: self
                .initial_split_keys
                .iter()
                .map(|key| Bytes::copy_from_slice(key))
                .collect(),
            fresh_id: fresh_id(),
        }
    }
}

pub(crate) fn table_compression(compression: Compression) -> TableCompression {
    match compression {
        Compression::None => TableCompression::None,
        Compression::Lz4 => TableCompression::Lz4,
        #[cfg(feature = "zstd")]
        Compression::Zstd(level) => TableCompression::Zstd(level),
    }
}

/// The inverse.
pub(crate) fn told_compression(compression: TableCompression) -> Compression {
    match compression {
        TableCompression::None => Compression::None,
        TableCompression::Lz4 => Compression::Lz4,
        #[cfg(feature = "zstd")]
        TableCompression::Zstd(level) => Compression::Zstd(level),
    }
}

/// 128 random bits. The standard library seeds its hashers from the system.
fn fresh_id() -> [u8; 16] {
    let mut id = [0; 16];
    for half in id.chunks_mut(8) {
        half.copy_from_slice(&fresh_bytes());
    }
    id
}

/// 64 random bits.
pub(crate) fn fresh_bytes() -> [u8; 8] {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_differ() {
        assert_ne!(fresh_id(), fresh_id());
    }
}
