//! Options of compaction: when a level is too large, and how large an output may be.

use crate::error::{Error, Result};
use crate::limits::{LEVELS_MAX, SHARDS_MAX};
use std::num::NonZeroUsize;

/// One drain rewrites at most so many tables of its level: what it takes of the disk for a while is
/// bounded.
const DRAIN_TABLES_MAX: u64 = 8;

/// The numbers of leveled compaction. Limits are `base x ratio^level`, saturating; `u64::MAX`
/// switches a limit off.
#[derive(Clone, Debug, PartialEq)]
pub struct CompactionOptions {
    /// L0 is compacted when it has this many runs. A run is one place where a read has to look; all
    /// tables of one flush are one run. At least 1.
    pub l0_trigger: usize,
    /// Into how many shards a new range is divided, 1 to 1024. Flushes cut their tables at the
    /// bounds between shards.
    pub shards: usize,
    /// L0 is also compacted when its files have this many bytes.
    pub l0_bytes_max: u64,
    /// L0 is also compacted when its tables have this many entries.
    pub l0_entries_max: u64,
    /// Level N may have `level_base_bytes x level_ratio^N` bytes.
    pub level_base_bytes: u64,
    /// Level N may have `level_base_entries x level_ratio^N` entries.
    pub level_base_entries: u64,
    /// How much larger each level is than the one above it. At least 2.
    pub level_ratio: u64,
    /// An output table ends at this many bytes; `u64::MAX` makes one table per level.
    pub table_bytes_max: u64,
    /// An output table also ends when it overlaps this many times `table_bytes_max` of the level
    /// below its own.
    pub grandparent_factor: u64,
    /// The deepest level, which has no limit; 1 to 7.
    pub levels_max: u8,
    /// In percent. A table below L0 with a larger share of tombstones is merged even if its level
    /// is small enough. 100 switches that off.
    pub tombstone_percent_max: u8,
    /// A table below L0 with a tombstone is merged when it is older than this, in milliseconds;
    /// `u64::MAX`: never.
    pub tombstone_age_max_ms: u64,
    /// Hand tables down without rewriting them where nothing overlaps.
    pub moves: bool,
    /// Runs that a shard of a landing may have; 0 switches landings off.
    pub landing_runs_max: usize,
    /// A landing is merged into its level when that rewrites at most this many bytes of the level
    /// for each byte that landed. At least 1.
    pub drain_ratio: u64,
    /// When nothing has been written to a range for so long, in milliseconds, its landings are
    /// merged into their levels, and its L0; longer where that costs more than `drain_ratio` says.
    /// `u64::MAX`: never.
    pub rest_after_ms: u64,
    /// Tables of a landing that a drain takes at least, if there are as many, and more of a large
    /// shard; runs that a keep takes at least, and at least two. At least 1.
    pub landing_batch: usize,
    /// A shard of a landing that has this many times `landing_batch` runs is merged into itself.
    /// Infinity switches that off. At least 1.
    pub keep_trigger: f64,
    /// Shards of a landing that are merged at once; more when much waits.
    pub landing_parallelism: NonZeroUsize,
}

impl Default for CompactionOptions {
    fn default() -> Self {
        Self::balanced()
    }
}

impl CompactionOptions {
    /// Ratio 10, four tables in L0: L1 holds 320 MiB, L2 3.2 GiB.
    pub fn balanced() -> Self {
        Self {
            l0_trigger: 4,
            shards: 4,
            l0_bytes_max: u64::MAX,
            l0_entries_max: u64::MAX,
            level_base_bytes: 32 << 20,
            level_base_entries: u64::MAX,
            level_ratio: 10,
            table_bytes_max: 64 << 20,
            grandparent_factor: 10,
            levels_max: LEVELS_MAX as u8,
            tombstone_percent_max: 50,
            tombstone_age_max_ms: 24 * 60 * 60 * 1000,
            moves: true,
            landing_runs_max: 12,
            drain_ratio: 2,
            rest_after_ms: 5000,
            landing_batch: 4,
            keep_trigger: 2.0,
            landing_parallelism: NonZeroUsize::new(2).expect("2 is not 0"),
        }
    }

    /// Toy numbers: 1 MiB and 1,000 entries times 10^N, L0 included, and one table per level.
    #[cfg(test)]
    pub(crate) fn seed() -> Self {
        Self {
            l0_bytes_max: 1 << 20,
            l0_entries_max: 1000,
            level_base_bytes: 1 << 20,
            level_base_entries: 1000,
            table_bytes_max: u64::MAX,
            shards: 1,
            landing_runs_max: 0,
            ..Self::balanced()
        }
    }

    /// Most bytes of a level that one drain rewrites.
    pub(super) fn drain_bytes_max(&self) -> u64 {
        self.table_bytes_max.saturating_mul(DRAIN_TABLES_MAX)
    }

    /// Checks every option against its limits.
    pub fn validate(&self) -> Result<()> {
        let fail = |what: String| Err(Error::invalid(what));
        if self.l0_trigger == 0 {
            return fail("l0_trigger is 0, but must be at least 1".to_owned());
        }
        if self.shards == 0 || self.shards > SHARDS_MAX {
            return fail(format!("shards is {}, but must be 1 to {SHARDS_MAX}", self.shards));
        }
        if self.level_ratio < 2 {
            return fail(format!("level_ratio is {}, but must be at least 2", self.level_ratio));
        }
        if self.level_base_bytes == 0 || self.level_base_entries == 0 || self.table_bytes_max == 0 {
            let what = "level_base_bytes, level_base_entries and table_bytes_max must not be 0";
            return fail(what.to_owned());
        }
        if self.levels_max == 0 || usize::from(self.levels_max) > LEVELS_MAX {
            let what = format!("levels_max is {}, but must be 1 to {LEVELS_MAX}", self.levels_max);
            return fail(what);
        }
        if self.drain_ratio == 0 || self.landing_batch == 0 {
            return fail("drain_ratio and landing_batch must not be 0".to_owned());
        }
        if self.keep_trigger.is_nan() || self.keep_trigger < 1.0 {
            let trigger = self.keep_trigger;
            return fail(format!("keep_trigger is {trigger}, but must be at least 1"));
        }
        if self.tombstone_percent_max > 100 {
            let percent = self.tombstone_percent_max;
            return fail(format!("tombstone_percent_max is {percent}, but must be at most 100"));
        }
        Ok(())
    }

    /// L0 is also compacted when it has this many tables, however they lie: as many as
    /// `l0_trigger` flushes bring at most.
    pub fn l0_files_trigger(&self) -> usize {
        self.l0_trigger.saturating_mul(self.shards)
    }

    /// Bytes that level N may have.
    pub fn level_bytes(&self, level: u8) -> u64 {
        self.level_base_bytes.saturating_mul(self.level_ratio.saturating_pow(u32::from(level)))
    }

    /// Entries that level N may have.
    pub fn level_entries(&self, level: u8) -> u64 {
        self.level_base_entries.saturating_mul(self.level_ratio.saturating_pow(u32::from(level)))
    }

    /// Bytes of the level below its own that one output, or one moved table, may overlap.
    pub fn grandparent_bytes_max(&self) -> u64 {
        self.table_bytes_max.saturating_mul(self.grandparent_factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t003_01_limits_grow_by_the_ratio_and_saturate() {
        let seed = CompactionOptions::seed();
        let mebi = 1_u64 << 20;
        let bytes: Vec<_> = (0..=6).map(|level| seed.level_bytes(level) / mebi).collect();
        assert_eq!(bytes, [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000]);
        assert_eq!(seed.level_entries(3), 1_000_000);
        let steep = CompactionOptions { level_ratio: u64::MAX / 2, ..seed };
        assert_eq!(steep.level_bytes(6), u64::MAX);
        let four = CompactionOptions { level_ratio: 4, ..CompactionOptions::balanced() };
        assert_eq!(four.level_bytes(2), (32 << 20) * 16);
    }

    #[test]
    fn bad_numbers_are_named() {
        let good = CompactionOptions::balanced();
        good.validate().unwrap();
        for ratio in [0, 1] {
            let bad = CompactionOptions { level_ratio: ratio, ..good.clone() };
            assert!(bad.validate().unwrap_err().to_string().contains("level_ratio"));
        }
        for bad in [
            CompactionOptions { l0_trigger: 0, ..good.clone() },
            CompactionOptions { shards: 0, ..good.clone() },
            CompactionOptions { shards: SHARDS_MAX + 1, ..good.clone() },
            CompactionOptions { levels_max: 0, ..good.clone() },
            CompactionOptions { levels_max: 8, ..good.clone() },
            CompactionOptions { table_bytes_max: 0, ..good.clone() },
            CompactionOptions { tombstone_percent_max: 101, ..good.clone() },
            CompactionOptions { drain_ratio: 0, ..good.clone() },
            CompactionOptions { landing_batch: 0, ..good.clone() },
            CompactionOptions { keep_trigger: 0.99, ..good.clone() },
            CompactionOptions { keep_trigger: f64::NAN, ..good.clone() },
        ] {
            assert!(bad.validate().is_err());
        }
    }
}
