//! The values of fields that were left open, derived from the others.

use super::{MIB, Options};
use sluicedb_actors::admission::RangeBudget;
use sluicedb_storage::limits::{BATCH_BYTES_CAP, VALUE_BYTES_MAX};
use sluicedb_storage::vfs::disk::{descriptors_max, memory_bytes};
use std::num::NonZeroUsize;

/// Enough for a usual flush.
const SPACE_RESERVE_BYTES_MAX: u64 = 64 * MIB;
/// The database splits ranges automatically until each has so much of the write buffer.
const RANGE_WRITE_BUFFER_BYTES: u64 = 32 * MIB;
/// The most ranges that automatic splits may make.
pub(super) const RANGES_MAX_CAP: usize = 65_536;
/// A log segment has at most this part of the write buffer, or so much.
const LOG_SEGMENT_PART: u64 = 4;
const LOG_SEGMENT_BYTES: u64 = 4 * MIB;
/// The part of the memory of the machine that unsynced log segments may make dirty.
const LOG_UNSYNCED_PART: u64 = 32;
/// What the accounts and mailboxes of the engine can count, with room to spare.
pub(super) const WRITE_BUFFER_BYTES_CAP: u64 = 512 << 30;

impl Options {
    /// Memory for unflushed writes, as derived from the budget.
    ///
    /// # Examples
    /// ```
    /// use sluicedb::Options;
    /// let options = Options { memory_budget_bytes: 64 << 20, ..Options::default() };
    /// assert_eq!(options.effective_write_buffer_bytes(), 32 << 20);
    /// ```
    pub fn effective_write_buffer_bytes(&self) -> u64 {
        let half = (self.memory_budget_bytes / 2).min(WRITE_BUFFER_BYTES_CAP);
        self.write_buffer_bytes.unwrap_or(half)
    }

    /// Memory for cached blocks and open tables, as derived from the budget.
    ///
    /// # Examples
    /// ```
    /// use sluicedb::Options;
    /// let options = Options { memory_budget_bytes: 64 << 20, ..Options::default() };
    /// assert_eq!(options.effective_cache_bytes(), 32 << 20);
    /// ```
    pub fn effective_cache_bytes(&self) -> u64 {
        self.cache_bytes.unwrap_or(self.memory_budget_bytes / 2)
    }

    /// The most open tables, derived from the file descriptors that the process may have.
    ///
    /// # Examples
    /// ```
    /// use sluicedb::Options;
    /// let options = Options { open_tables_max: Some(100), ..Options::default() };
    /// assert_eq!(options.effective_open_tables_max(), 100);
    /// ```
    pub fn effective_open_tables_max(&self) -> usize {
        self.open_tables_max.unwrap_or_else(|| match descriptors_max() {
            None => 496,
            Some(most) => (most / 2).saturating_sub(16).clamp(16, 16_384) as usize,
        })
    }

    /// What indexes and filters of open tables may take.
    pub(super) fn open_tables_bytes_max(&self) -> u64 {
        match self.effective_cache_bytes() {
            0 => self.memory_budget_bytes / 8 * 3,
            cache => cache / 4 * 3,
        }
    }

    /// Memtable size, derived from the write buffer, for a database with the ranges of
    /// `initial_split_keys`.
    ///
    /// # Examples
    /// ```
    /// use sluicedb::Options;
    /// let options = Options { memory_budget_bytes: 64 << 20, ..Options::default() };
    /// assert_eq!(options.effective_memtable_bytes(), 8 << 20);
    /// ```
    pub fn effective_memtable_bytes(&self) -> u64 {
        self.range_budget().memtable_bytes as u64
    }

    /// The most memory of one range's memtables, derived from their size and number, for a database
    /// with the ranges of `initial_split_keys`.
    ///
    /// # Examples
    /// ```
    /// use sluicedb::Options;
    /// let options = Options { memory_budget_bytes: 64 << 20, ..Options::default() };
    /// // One that is written to, and those that wait for a flush.
    /// assert!(options.effective_range_buffer_bytes() > options.effective_memtable_bytes());
    /// ```
    pub fn effective_range_buffer_bytes(&self) -> u64 {
        self.range_budget().buffer_bytes as u64
    }

    fn range_budget(&self) -> RangeBudget {
        let bytes = |option: Option<u64>| option.map(|bytes| bytes as usize);
        RangeBudget::derive(
            self.effective_write_buffer_bytes() as usize,
            bytes(self.memtable_bytes),
            bytes(self.range_buffer_bytes),
            self.sealed_memtables_max,
            self.initial_split_keys.len() + 1,
        )
    }

    /// Longest value, as derived from the write buffer.
    ///
    /// # Examples
    /// ```
    /// use sluicedb::Options;
    /// let options = Options { memory_budget_bytes: 64 << 20, ..Options::default() };
    /// assert_eq!(options.effective_value_bytes_max(), 8 << 20);
    /// ```
    pub fn effective_value_bytes_max(&self) -> u64 {
        let quarter = self.effective_write_buffer_bytes() / 4;
        self.value_bytes_max.unwrap_or((VALUE_BYTES_MAX as u64).min(quarter))
    }

    /// Largest batch, as derived from the write buffer.
    ///
    /// # Examples
    /// ```
    /// use sluicedb::Options;
    /// let options = Options { memory_budget_bytes: 64 << 20, ..Options::default() };
    /// assert_eq!(options.effective_batch_bytes_max(), 16 << 20);
    /// ```
    pub fn effective_batch_bytes_max(&self) -> u64 {
        let half = self.effective_write_buffer_bytes() / 2;
        self.batch_bytes_max.unwrap_or(half.min(BATCH_BYTES_CAP as u64))
    }

    /// The most space on the disk that is set aside, derived from the write buffer.
    ///
    /// # Examples
    /// ```
    /// use sluicedb::Options;
    /// let options = Options { memory_budget_bytes: 64 << 20, ..Options::default() };
    /// assert_eq!(options.effective_space_reserve_bytes(), 8 << 20);
    /// ```
    pub fn effective_space_reserve_bytes(&self) -> u64 {
        let quarter = self.effective_write_buffer_bytes() / 4;
        self.space_reserve_bytes.unwrap_or(quarter.min(SPACE_RESERVE_BYTES_MAX))
    }

    /// The most compactions that run at a time, derived from the number of cores.
    ///
    /// # Examples
    /// ```
    /// use sluicedb::Options;
    /// // A core in two, but two at least.
    /// assert!(Options::default().effective_compaction_threads() >= 2);
    /// ```
    pub fn effective_compaction_threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.compaction_threads.unwrap_or_else(|| (cores() / 2).clamp(2, 8))
    }

    /// Shards of landings that are merged at once, as derived from the threads.
    ///
    /// # Examples
    /// ```
    /// use sluicedb::Options;
    /// let options = Options { compaction_threads: Some(8), ..Options::default() };
    /// assert_eq!(options.effective_landing_parallelism(), 4);
    /// ```
    pub fn effective_landing_parallelism(&self) -> usize {
        self.landing_parallelism.unwrap_or((self.effective_compaction_threads() / 2).max(2))
    }

    /// The most ranges that automatic splits make, derived from the write buffer. It is never
    /// derived as 1, which would switch off the limits of ranges.
    ///
    /// # Examples
    /// ```
    /// use sluicedb::Options;
    /// let options = Options { memory_budget_bytes: 64 << 20, ..Options::default() };
    /// assert_eq!(options.effective_ranges_max(), 2);
    /// ```
    pub fn effective_ranges_max(&self) -> usize {
        let derived = self.effective_write_buffer_bytes() / RANGE_WRITE_BUFFER_BYTES;
        self.ranges_max.unwrap_or((derived as usize).clamp(2, RANGES_MAX_CAP))
    }

    /// Memory for the log of a database that is opened for reading, as derived from the write
    /// buffer.
    ///
    /// # Examples
    /// ```
    /// use sluicedb::Options;
    /// let options = Options { memory_budget_bytes: 64 << 20, ..Options::default() };
    /// assert_eq!(options.effective_read_only_log_bytes_max(), 64 << 20);
    /// ```
    pub fn effective_read_only_log_bytes_max(&self) -> u64 {
        let twice = self.effective_write_buffer_bytes().saturating_mul(2);
        self.read_only_log_bytes_max.unwrap_or(twice)
    }

    /// Whole pages. A segment is needed until the last of its entries is flushed, so a long one
    /// outlives most of them; a short one is used again sooner, and no new one has to be filled
    /// with zeros.
    pub(super) fn effective_log_segment_bytes(&self) -> u64 {
        let part = self.effective_write_buffer_bytes() / LOG_SEGMENT_PART;
        self.log_segment_bytes.min(part.max(LOG_SEGMENT_BYTES)) / 4096 * 4096
    }

    pub(super) fn effective_log_retained_bytes_max(&self) -> u64 {
        let derived = || {
            let buffers = self.effective_write_buffer_bytes().saturating_mul(2);
            buffers.max(4 * self.log_segment_bytes).clamp(512 * MIB, u64::MAX / 4)
        };
        self.log_retained_bytes_max.unwrap_or_else(derived)
    }

    /// The log is about as long as the write buffer. But a kernel that has many dirty pages slows
    /// down whoever makes more: Linux from about a seventh of its memory on. Segments that are kept
    /// for recycling are dirty, too.
    pub(super) fn log_unsynced_bytes_max(&self) -> u64 {
        let of_memory = memory_bytes().map_or(u64::MAX, |bytes| bytes / LOG_UNSYNCED_PART);
        self.effective_write_buffer_bytes().min(of_memory)
    }
}
