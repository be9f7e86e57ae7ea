//! Compaction options: when a level is too large, and how large an output may be.

use crate::limits::LEVELS_MAX;
use std::num::NonZeroUsize;

/// See `CompactionOptions::overlap_bytes_max`, which is so many full tables.
const OVERLAP_TABLES_MAX: u64 = 4;

/// The parameters of leveled compaction. Level limits are `base x ratio^level`, saturating.
/// `u64::MAX` switches a limit off.
#[derive(Clone, Debug, PartialEq)]
pub struct CompactionOptions {
    /// L0 is compacted when it has this many runs. A read searches each run once; all tables of one
    /// flush are one run. At least 1.
    pub l0_trigger: usize,
    /// The number of shards of a new range, 1 to 1024. Flushes cut their tables at the bounds
    /// between shards.
    pub shards: usize,
    /// L0 is also compacted when its tables have this many bytes.
    pub l0_bytes_max: u64,
    /// L0 is also compacted when its tables have this many entries.
    pub l0_entries_max: u64,
    /// The limit of level N is `level_base_bytes x level_ratio^N` bytes.
    pub level_base_bytes: u64,
    /// The limit of level N is `level_base_entries x level_ratio^N` entries.
    pub level_base_entries: u64,
    /// The size ratio of a level to the level above it. At least 2.
    pub level_ratio: u64,
    /// An output table ends at this many bytes. `u64::MAX` makes one table per level.
    pub table_bytes_max: u64,
    /// The deepest level, which has no limit; 1 to 7.
    pub levels_max: u8,
    /// In percent. A table below L0 with a larger share of tombstones is compacted even if its
    /// level is within its limit. 100 switches this off.
    pub tombstone_percent_max: u8,
    /// A table below L0 that has a tombstone is compacted when it is older than this, in
    /// milliseconds. `u64::MAX`: never.
    pub tombstone_age_max_ms: u64,
    /// The most runs of a landing's shard. 0 switches landings off.
    pub landing_runs_max: usize,
    /// A landing is drained when that rewrites at most this many bytes of its level per byte that
    /// landed. At least 1.
    pub drain_ratio: u64,
    /// Idle compaction: when nothing has been written to a range for this long, in milliseconds,
    /// its L0 and its landings are merged into their levels. The wait is longer where the merge
    /// costs more than `drain_ratio` allows. `u64::MAX`: never.
    pub rest_after_ms: u64,
    /// The fewest tables that a drain takes, if there are as many; it takes more of a large shard.
    /// Also the fewest runs that a keep takes, which is never less than two. At least 1.
    pub landing_batch: usize,
    /// A landing's shard is kept, that is merged into itself, when it has this many times
    /// `landing_batch` runs. Infinity switches that off. At least 1.
    pub keep_trigger: f64,
    /// The number of a landing's shards that are merged at once. It is raised when the backlog is
    /// large.
    pub landing_parallelism: NonZeroUsize,
}

impl Default for CompactionOptions {
    fn default() -> Self {
        Self::balanced()
    }
}

impl CompactionOptions {
    /// Ratio 10, four runs in L0: L1 holds 320 MiB, L2 3.2 GiB.
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
            levels_max: LEVELS_MAX as u8,
            tombstone_percent_max: 50,
            tombstone_age_max_ms: 24 * 60 * 60 * 1000,
            landing_runs_max: 10,
            drain_ratio: 2,
            rest_after_ms: 5000,
            landing_batch: 4,
            keep_trigger: 2.0,
            landing_parallelism: NonZeroUsize::new(2).expect("2 is not 0"),
        }
    }

    /// Toy numbers: 1 MiB and 1,000 entries times 10^N, which limits L0 as well; one table per
    /// level.
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

    /// A drain takes no further table of its level, and an output ends, where the tables that it
    /// overlaps have this many bytes. A table that overlaps more is not moved. So a drain takes
    /// little space beside its inputs until it ends, and few drains use up a table that has landed:
    /// its file stays until then.
    pub(super) fn overlap_bytes_max(&self) -> u64 {
        self.table_bytes_max.saturating_mul(OVERLAP_TABLES_MAX)
    }

    /// L0 is also compacted when it has this many tables, whether they overlap or not. This is the
    /// most that `l0_trigger` flushes write if each is cut at every shard bound.
    pub fn l0_files_trigger(&self) -> usize {
        self.l0_trigger.saturating_mul(self.shards)
    }

    /// The limit of level N in bytes.
    pub fn level_bytes(&self, level: u8) -> u64 {
        self.level_base_bytes.saturating_mul(self.level_ratio.saturating_pow(u32::from(level)))
    }

    /// The limit of level N in entries.
    pub fn level_entries(&self, level: u8) -> u64 {
        self.level_base_entries.saturating_mul(self.level_ratio.saturating_pow(u32::from(level)))
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
}
