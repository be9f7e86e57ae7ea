//! Capacities and thresholds. The facade derives and validates them. Sizes that depend on the
//! number of ranges, which the manifest knows, are derived in `admission::budget`.

use bytes::Bytes;
use sluicedb_storage::buffer::BufferOptions;
use sluicedb_storage::compact::CompactionOptions;
use sluicedb_storage::table::{Compression, TableOptions};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

/// When ranges are split and merged without a caller's request. A limit of `u64::MAX` is none.
#[derive(Clone, Debug)]
pub struct RangePolicy {
    /// A range with more bytes of tables is split.
    pub bytes_max: u64,
    /// A range with more entries in tables is split.
    pub entries_max: u64,
    /// A range that gets more batches per second is split.
    pub heat_max: u64,
    /// No range is split once there are this many.
    pub ranges_max: usize,
    /// Are cold neighbours merged?
    pub merges: bool,
    /// How long heat, or its absence, must last before it counts.
    pub cooldown: Duration,
}

/// The configuration of an engine. Validated by the facade.
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
    /// Memory that the memtables of one range may hold, in bytes. By default it follows from the
    /// other sizes (`RangeBudget`).
    pub range_buffer_bytes: Option<usize>,
    /// Size at which an active memtable is sealed, in bytes. By default it follows from the write
    /// buffer and the number of ranges (`RangeBudget`).
    pub memtable_bytes: Option<usize>,
    /// Sealed memtables of a range that may wait, beyond the one in flush.
    pub sealed_memtables_max: usize,
    /// How memory of overwritten entries is reclaimed without a flush. `None` keeps it until the
    /// flush.
    pub buffer: Option<BufferOptions>,
    /// Block cache in bytes. Indexes and filters of open tables are counted in.
    pub cache_bytes: u64,
    /// Tables that may be open at once.
    pub open_tables_max: usize,
    /// Memory for indexes and filters of open tables, in bytes.
    pub open_tables_bytes_max: u64,
    /// Largest size of a log segment, in bytes.
    pub log_segment_bytes: u64,
    /// Largest size of the closed log segments that a recovery would need, in bytes. Above it, the
    /// range that pins the oldest one is flushed.
    pub log_retained_bytes_max: u64,
    /// While nobody asks for a sync, at most so many bytes of closed log segments are left unsynced
    /// until flushes make them obsolete.
    pub log_unsynced_bytes_max: u64,
    /// A range without writes for this long is sealed if that frees log or memory.
    pub idle_seal_after: Option<Duration>,
    /// Open a directory in which other users can change files.
    pub allow_shared_directory: bool,
    /// Write buffered records through a memory map where the file system allows it.
    pub log_mapped: bool,
    /// Who waits for a sync alone polls for at most this long. Zero: never.
    pub sync_polling: Duration,
    /// The longest time for which a caller polls for its read; zero: never.
    pub read_polling: Duration,
    /// Most commits between submission and visibility.
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
    /// Compactions that may run at once, each on a thread of its own.
    pub compaction_threads: NonZeroUsize,
    /// Bytes per second that all compactions together may write. `None`: no limit.
    pub compaction_bytes_per_second: Option<NonZeroU64>,
    /// Most space on the disk that is reserved for a full disk, in bytes.
    pub space_reserve_bytes: u64,
    /// Memory for what is only in the log, if the database is opened for reading, in bytes. The
    /// open itself takes up to twice as much.
    pub read_only_log_bytes_max: u64,
    /// Threads for reads that miss every cache.
    pub read_threads: usize,
    /// When ranges are split and merged.
    pub ranges: RangePolicy,
    /// The split keys of a new database, ascending. An existing one keeps its own.
    pub initial_split_keys: Vec<Bytes>,
    /// Random bytes for the identity of a new database.
    pub fresh_id: [u8; 16],
}

impl EngineConfig {
    /// A range rests after this long without writes. `None`: never.
    pub fn rest_after(&self) -> Option<Duration> {
        let after_ms = self.compaction.rest_after_ms;
        (after_ms != u64::MAX).then(|| Duration::from_millis(after_ms))
    }

    /// Bytes of memtables that are flushed together, if there are that many. Until the flush is
    /// installed, all of that memory is in use, so it is a small part of the write buffer.
    pub fn flush_group_bytes(&self) -> usize {
        self.write_buffer_bytes / 8
    }

    /// Format of new tables below L0.
    pub fn level_table(&self) -> TableOptions {
        let mut options = self.l0_table.clone();
        options.compression = self.level_compression;
        options
    }
}

/// A batch above this size, or with more than `EXECUTOR_OPERATIONS_MAX` operations, is checksummed
/// and applied by an engine thread. So a turn on an executor thread stays bounded.
pub const EXECUTOR_BATCH_BYTES_MAX: usize = 1 << 20;
/// See `EXECUTOR_BATCH_BYTES_MAX`.
pub const EXECUTOR_OPERATIONS_MAX: usize = 4096;
