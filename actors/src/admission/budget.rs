//! How much memory one range may use, and for what.

use crate::config::EngineConfig;

/// The smallest memtable size that is derived for several ranges.
const MEMTABLE_BYTES_FLOOR: usize = 1 << 20;
/// The largest memtable size that is derived.
const MEMTABLE_BYTES_CAP: usize = 64 << 20;

/// The sizes that bound a range's overlay. The active memtable should be sealed at
/// `memtable_bytes`. While the queue of sealed memtables is full, it may grow to twice that. That
/// is the hard limit, which the local account enforces by making the range's writers wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeBudget {
    /// Size at which the active memtable is sealed, in bytes.
    pub memtable_bytes: usize,
    /// Bytes that all memtables of the range may hold before no further one is sealed.
    pub buffer_bytes: usize,
    /// Sealed memtables beyond the one in flush.
    pub sealed_max: usize,
}

/// The memtable size if the options set none. A single range gets a quarter of the write buffer.
/// With several ranges, one hot range with its full queue takes at most half of the write buffer.
/// If all are equally warm, all reach their size before the write buffer is full, unless that would
/// make memtables tiny.
fn default_memtable_bytes(write_buffer_bytes: usize, sealed_max: usize, ranges: usize) -> usize {
    let bytes = if ranges <= 1 {
        write_buffer_bytes / 4
    } else {
        let hot = write_buffer_bytes / sealed_max.saturating_add(2).saturating_mul(4);
        let warm = write_buffer_bytes / (2 * ranges);
        hot.min(warm.max(MEMTABLE_BYTES_FLOOR))
    };
    bytes.clamp(4096, MEMTABLE_BYTES_CAP)
}

impl RangeBudget {
    /// The budget of each of this many ranges.
    pub fn of(config: &EngineConfig, ranges: usize) -> Self {
        let EngineConfig { write_buffer_bytes, memtable_bytes, range_buffer_bytes, .. } = *config;
        let sealed_max = config.sealed_memtables_max;
        Self::derive(write_buffer_bytes, memtable_bytes, range_buffer_bytes, sealed_max, ranges)
    }

    /// As [`RangeBudget::of`], from the sizes that the options set or leave open.
    /// INVARIANT(bounded-overlay).
    pub fn derive(
        write_buffer_bytes: usize,
        memtable_bytes: Option<usize>,
        buffer_bytes: Option<usize>,
        sealed_max: usize,
        ranges: usize,
    ) -> Self {
        // Every memtable may reach the hard limit: the queued ones, the one in flush and the active
        // one.
        let full = sealed_max.saturating_add(2).saturating_mul(2);
        let memtable_bytes = memtable_bytes.unwrap_or_else(|| {
            let most = buffer_bytes.map_or(usize::MAX, |bytes| (bytes / full).max(4096));
            default_memtable_bytes(write_buffer_bytes, sealed_max, ranges).min(most)
        });
        let buffer_bytes = buffer_bytes
            .unwrap_or_else(|| memtable_bytes.saturating_mul(full).min(write_buffer_bytes));
        Self { memtable_bytes, buffer_bytes, sealed_max }
    }

    /// A flush of fewer bytes than this is not cut at shard bounds: half a memtable.
    pub fn shard_cut_bytes_min(&self) -> u64 {
        self.memtable_bytes as u64 / 2
    }

    /// The hard limit of the active memtable in bytes: the size of the local account.
    pub fn active_bytes_max(&self) -> usize {
        2 * self.memtable_bytes
    }

    /// What a write that is charged `bytes` takes of the local account. A large write counts as one
    /// memtable, so it is admitted while the active memtable is below its size, or empty.
    #[inline]
    pub fn local_charge(&self, bytes: u64) -> u64 {
        bytes.min(self.memtable_bytes as u64)
    }

    /// May an active memtable of `active_bytes` be sealed behind `sealed` ones of `sealed_bytes`?
    pub fn has_room_in_queue(
        &self,
        sealed: usize,
        sealed_bytes: usize,
        active_bytes: usize,
    ) -> bool {
        let in_all = sealed_bytes + active_bytes + self.active_bytes_max();
        sealed == 0 || (sealed <= self.sealed_max && in_all <= self.buffer_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn derived_sizes_fit_the_write_buffer() {
        assert_eq!(default_memtable_bytes(256 * MIB, 2, 1), 64 * MIB);
        assert_eq!(default_memtable_bytes(64 * MIB, 2, 1), 16 * MIB);
        assert_eq!(default_memtable_bytes(256 * MIB, 2, 2), 16 * MIB);
        assert_eq!(default_memtable_bytes(256 * MIB, 2, 32), 4 * MIB);
        assert_eq!(default_memtable_bytes(256 * MIB, 2, 256), MIB, "not tiny");
        assert_eq!(default_memtable_bytes(MIB, 2, 256), MIB / 16);
        assert_eq!(default_memtable_bytes(MIB, 1000, 256), 4096);
        for ranges in 2..=256 {
            for sealed_max in [0, 2, 8] {
                let bytes = default_memtable_bytes(256 * MIB, sealed_max, ranges);
                assert!(2 * bytes * (sealed_max + 2) <= 128 * MIB, "a hot range leaves half");
            }
        }
    }

    #[test]
    fn the_queue_is_bounded_in_number_and_in_bytes() {
        let budget = RangeBudget { memtable_bytes: 10, buffer_bytes: 60, sealed_max: 2 };
        assert!(budget.has_room_in_queue(0, 0, 1000), "a large write alone is flushed");
        assert!(budget.has_room_in_queue(2, 25, 12));
        assert!(!budget.has_room_in_queue(2, 30, 12), "no room for another active one");
        assert!(!budget.has_room_in_queue(3, 30, 1), "three are sealed");
        assert_eq!((budget.local_charge(9), budget.local_charge(900)), (9, 10));
        assert_eq!(budget.active_bytes_max(), 20);
    }
}
