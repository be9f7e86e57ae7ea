//! Named starting points.

use super::{Compression, Durability, MIB, Options};

/// A choice between write and space amplification.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Preset {
    /// Fewer, larger merges: more L0 tables, larger base level.
    WriteHeavy,
    /// The defaults.
    #[default]
    Balanced,
    /// More and earlier merges, so gets look into fewer tables.
    ReadHeavy,
    /// Toy sizes, to watch levels at work. Level N, level 0 included, holds 1 MiB and 1,000 entries
    /// times 10^N. From level 1 on, a level is one table.
    Seed,
}

impl Options {
    /// The defaults, shifted towards one kind of work.
    ///
    /// # Examples
    /// ```
    /// use sluicedb::{Options, Preset};
    /// let heavy = Options::preset(Preset::WriteHeavy);
    /// let options = Options { memory_budget_bytes: 64 << 20, ..heavy };
    /// assert!(options.l0_trigger_tables > Options::default().l0_trigger_tables);
    /// ```
    pub fn preset(preset: Preset) -> Self {
        let balanced = Self {
            memory_budget_bytes: 512 * MIB,
            write_buffer_bytes: None,
            cache_bytes: None,
            open_tables_max: None,
            memtable_bytes: None,
            sealed_memtables_max: 2,
            range_buffer_bytes: None,
            buffer_compaction: true,
            durability: Durability::Synced,
            value_bytes_max: None,
            batch_bytes_max: None,
            log_segment_bytes: 64 * MIB,
            log_retained_bytes_max: None,
            idle_seal_after_ms: 60_000,
            log_mapped: true,
            allow_shared_directory: false,
            sync_polling_us: 300,
            read_polling_us: 300,
            commits_in_flight_max: 4096,
            block_bytes: 4096,
            restart_interval: 16,
            filter_bits_per_key: 10,
            compression: Compression::Lz4,
            l0_compression: Compression::None,
            l0_trigger_tables: 4,
            l0_tables_max: 20,
            shards_per_range: 4,
            l0_bytes_max: u64::MAX,
            l0_entries_max: u64::MAX,
            level_base_bytes: 32 * MIB,
            level_base_entries: u64::MAX,
            level_ratio: 10,
            table_bytes_max: 64 * MIB,
            tombstone_percent_max: 50,
            tombstone_age_max_ms: 24 * 60 * 60 * 1000,
            landing_runs_max: 10,
            drain_ratio: 2,
            rest_after_ms: 5000,
            landing_batch: 4,
            keep_trigger: 2.0,
            landing_parallelism: None,
            space_reserve_bytes: None,
            compaction_threads: None,
            compaction_bytes_per_second: None,
            read_only_log_bytes_max: None,
            read_threads: 4,
            engine_cores: Vec::new(),
            initial_split_keys: Vec::new(),
            range_bytes_max: u64::MAX,
            range_entries_max: u64::MAX,
            range_heat_max: u64::MAX,
            ranges_max: None,
            ranges_merge: false,
            range_cooldown_ms: 300_000,
        };
        match preset {
            Preset::Balanced => balanced,
            Preset::WriteHeavy => Self {
                l0_trigger_tables: 8,
                l0_tables_max: 36,
                level_base_bytes: 128 * MIB,
                level_ratio: 4,
                ..balanced
            },
            Preset::ReadHeavy => Self { l0_trigger_tables: 3, ..balanced },
            Preset::Seed => Self {
                shards_per_range: 1,
                l0_bytes_max: MIB,
                l0_entries_max: 1000,
                level_base_bytes: MIB,
                level_base_entries: 1000,
                table_bytes_max: u64::MAX,
                landing_runs_max: 0,
                ..balanced
            },
        }
    }
}
