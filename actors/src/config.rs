//! Capacities and thresholds. The facade derives and validates them; what depends on the
//! number of ranges, which the manifest knows, is derived in `range_owner::budget`.

use bytes::Bytes;
use sluicedb_storage::buffer::BufferOptions;
use sluicedb_storage::compact::CompactionOptions;
use sluicedb_storage::table::{Compression, TableOptions};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

/// When ranges are split and merged although no caller asks for it. A limit of `u64::MAX` is none.
#[derive(Clone, Debug)]
pub struct RangePolicy {
    /// A range with more bytes of tables is split.
    pub bytes_max: u64,
    /// A range with more entries in tables is split.
    pub entries_max: u64,
    /// A range to which more batches are applied in a second is split.
    pub heat_max: u64,
    /// No range is split where there are as many.
    pub ranges_max: usize,
    /// Cold neighbours are merged.
    pub merges: bool,
    /// How long ranges stay as they are before heat, or its absence, counts.
    pub cooldown: Duration,
}

/// What an engine is started with. Validated by the facade.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The database directory.
    pub dir: PathBuf,
    /// Create the database if the directory holds none.
    pub create_if_missing: bool,
    /// Refuse to open a database that exists.
    pub error_if_exists: bool,
    /// Memory for everything that is not yet in tables, in bytes (the global account).
    pub write_buffer_bytes: usize,
    /// Memory that the memtables of one range may hold, in bytes; by default what follows from the
    /// other sizes (`RangeBudget`).
    pub range_buffer_bytes: Option<usize>,
    /// Size at which an active memtable is sealed, in bytes; by default what follows from the write
    /// buffer and the number of ranges (`RangeBudget`).
    pub memtable_bytes: Option<usize>,
    /// Sealed memtables of a range that may wait, beyond the one in flush.
    pub sealed_memtables_max: usize,
    /// Take memory of overwritten entries back without a flush; `None` keeps it until the flush.
    pub buffer: Option<BufferOptions>,
    /// Block cache, in bytes; indexes and filters of open tables count as well.
    pub cache_bytes: u64,
    /// Tables open at a time.
    pub open_tables_max: usize,
    /// What indexes and filters of open tables may have in memory, in bytes.
    pub open_tables_bytes_max: u64,
    /// Size of a log segment, in bytes.
    pub log_segment_bytes: u64,
    /// Closed log segments that a recovery would need may have this many bytes; then the range that
    /// pins the oldest is flushed.
    pub log_retained_bytes_max: u64,
    /// A range without writes for so long is sealed where that frees log or memory.
    pub idle_seal_after: Option<Duration>,
    /// Open a directory in which others can change files.
    pub allow_shared_directory: bool,
    /// Write buffered records through a memory map where the file system allows it.
    pub log_mapped: bool,
    /// Commits between submission and visibility, at most.
    pub commits_in_flight_max: usize,
    /// Longest value, in bytes.
    pub value_bytes_max: usize,
    /// Largest encoded batch, in bytes.
    pub batch_bytes_max: usize,
    /// Runs in the L0 of a range at which its flushes wait for compaction.
    pub l0_tables_max: usize,
    /// Format of new tables in L0.
    pub l0_table: TableOptions,
    /// Compression of tables below L0; the rest of their format is `l0_table`'s.
    pub level_compression: Compression,
    /// Level sizes and triggers.
    pub compaction: CompactionOptions,
    /// Compactions that may run at a time, each on a thread of its own.
    pub compaction_threads: NonZeroUsize,
    /// Bytes that compactions may write in a second, all together; `None`: any number.
    pub compaction_bytes_per_second: Option<NonZeroU64>,
    /// Space on the disk that is set aside for the time when it is full, in bytes, at most.
    pub space_reserve_bytes: u64,
    /// Memory for what is only in the log of a database that is opened for reading, in bytes.
    pub read_only_log_bytes_max: u64,
    /// Threads for reads that miss every cache.
    pub read_threads: usize,
    /// When ranges are split and merged.
    pub ranges: RangePolicy,
    /// Where the ranges of a new database meet, ascending; an existing one keeps its own.
    pub initial_split_keys: Vec<Bytes>,
    /// Random bytes for the identity of a new database.
    pub fresh_id: [u8; 16],
}

impl EngineConfig {
    /// After so long without writes a range rests; `None`: it never does.
    pub fn rest_after(&self) -> Option<Duration> {
        let after_ms = self.compaction.rest_after_ms;
        (after_ms != u64::MAX).then(|| Duration::from_millis(after_ms))
    }

    /// Format of new tables below L0.
    pub fn level_table(&self) -> TableOptions {
        let mut options = self.l0_table.clone();
        options.compression = self.level_compression;
        options
    }
}

/// Bytes that one entry costs in a memtable beside its encoded operation: 11 to 17 around key and
/// value, and its share of the index (12 to 43, measured at 500 k entries; ADR 0006), or a note and
/// a link (48) while an overwritten version is held by a snapshot.
pub const ENTRY_OVERHEAD_BYTES: usize = 72;

/// A batch above this size, or with more operations than `EXECUTOR_OPERATIONS_MAX`, is
/// checksummed and applied by an engine thread: a turn on an executor thread stays bounded.
pub const EXECUTOR_BATCH_BYTES_MAX: usize = 1 << 20;
/// See `EXECUTOR_BATCH_BYTES_MAX`.
pub const EXECUTOR_OPERATIONS_MAX: usize = 4096;
