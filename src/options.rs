//! Settings: plain data with units in the names, validated once, when a database is opened.
//!
//! Long because every field has its unit, default and limits beside it.

use crate::error::{Error, Result};
use bytes::Bytes;
use sluicedb_actors::admission::RangeBudget;
use sluicedb_actors::config::{ENTRY_OVERHEAD_BYTES, EngineConfig, RangePolicy};
pub use sluicedb_actors::group_commit::durable::Durability;
use sluicedb_storage::buffer::BufferOptions;
use sluicedb_storage::compact::CompactionOptions;
use sluicedb_storage::limits::{
    INITIAL_RANGES_MAX, KEY_BYTES_MAX, VALUE_BYTES_CAP, VALUE_BYTES_MAX,
};
use sluicedb_storage::table::{Compression as TableCompression, TableOptions};
use sluicedb_storage::version::KeyspaceOptions;
use sluicedb_storage::vfs::disk::descriptors_max;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;
use std::time::Duration;

/// How blocks are compressed.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4: fast, pure Rust.
    Lz4,
    /// Zstandard at this level (1..=22): denser, slower. Needs the cargo feature `zstd`.
    #[cfg(feature = "zstd")]
    Zstd(i32),
}

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
    /// More, earlier merges: fewer tables to look into.
    ReadHeavy,
    /// Toy numbers, to watch levels at work: level N holds 1 MiB and 1,000 entries times 10^N,
    /// level 0 included, in one table from level 1 on.
    Seed,
}

/// Everything that can be set. [`Options::default`] suits most services; `memory_budget_bytes` is
/// the one number worth choosing.
///
/// Fill in what you want, and take the rest from the default. A later version may have more fields,
/// so end with `..Options::default()`:
/// ```
/// use sluicedb::{Durability, Options};
/// let options = Options {
///     memory_budget_bytes: 64 << 20,
///     durability: Durability::Buffered,
///     ..Options::default()
/// };
/// # let _ = options;
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Memory for write buffers and cache together, in bytes; each gets half unless set by itself.
    /// Default 512 MiB, at least 4 MiB.
    pub memory_budget_bytes: u64,
    /// Memory for writes that are not yet in tables, in bytes. Writers wait when it is full.
    /// Default: half of the budget. 1 MiB to 512 GiB. Beside it up to two memtables of memory are
    /// kept for the next ones (`Stats::spare_chunk_bytes`).
    pub write_buffer_bytes: Option<u64>,
    /// Take the memory of overwritten entries back while they are still in the write buffer, by
    /// compacting it a little with each write: hot keys then cost no flush. Default true.
    pub buffer_compaction: bool,
    /// Memory for cached blocks and for the indexes and filters of open tables (about 2 bytes per
    /// key in them), in bytes. Those may take up to three quarters of it; then tables are closed.
    /// Default: half of the budget. 0 caches no blocks, and leaves to indexes and filters what the
    /// default would.
    pub cache_bytes: Option<u64>,
    /// Tables that are open at a time: each has a file descriptor, and an index and a filter in
    /// memory. A table is opened when it is read (on a read thread) and closed when others need the
    /// room; only those that scans and compactions are walking may be more. Default: half of the
    /// file descriptors that the process may have (`ulimit -n`) less 16, from 16 to 16,384; 496 if
    /// they are not limited. 8 to 1,000,000.
    pub open_tables_max: Option<usize>,
    /// Size at which the memtable of a range is sealed, to be flushed, in bytes. While it cannot be
    /// sealed (see `sealed_memtables_max`) it grows to twice that, and then the writers of the
    /// range wait. Default, with one range: a quarter of the write buffer, at most 64 MiB. With
    /// several: so much that a single hot range leaves half of the write buffer to the others. At
    /// most half of the write buffer.
    pub memtable_bytes: Option<u64>,
    /// Sealed memtables of a range that wait for flush, beyond the one that is being flushed.
    /// Default 2, at most 1000.
    pub sealed_memtables_max: usize,
    /// Memory that the memtables of one range may hold together, in bytes: no memtable is sealed,
    /// and soon the writers of the range wait, where that would be passed. Only a write larger than
    /// a memtable goes beyond it. Default: as much as `memtable_bytes` and `sealed_memtables_max`
    /// allow, twice the size for each memtable. At least four times `memtable_bytes`, at most the
    /// write buffer.
    pub range_buffer_bytes: Option<u64>,
    /// Durability of writes that do not say it themselves. Default `Synced`.
    pub durability: Durability,
    /// Longest value, in bytes. Default 64 MiB, or a quarter of the write buffer if that is less;
    /// at most 1 GiB and at most a quarter of the write buffer.
    pub value_bytes_max: Option<u64>,
    /// Largest encoded batch, in bytes. Default: half of the write buffer; at most that.
    pub batch_bytes_max: Option<u64>,
    /// Size of a log segment, in bytes, at most; in whole pages of 4 KiB. The first one has 512
    /// KiB, each next one twice as much (or eight times) while it would last less than a second at
    /// the pace of the writes, and half as much where it would last more than four. One is kept
    /// ready, two where it would not last. Of those that nothing needs any more, as many are kept
    /// to be used again as were used up lately, and of at most two write buffers of bytes (or one).
    /// A log to which hardly anything is written (for `rest_after_ms`) keeps none; one that is idle
    /// (`idle_seal_after_ms`) goes on in one of 512 KiB; a closed database has a log of 8 KiB.
    /// Default 64 MiB, at least 64 KiB.
    pub log_segment_bytes: u64,
    /// Closed log segments whose entries are not all in tables may have this many bytes. When they
    /// have more, the range with the oldest such entry is flushed, then the next, in the
    /// background: a range that is hardly written to cannot keep the log from shrinking, nor an
    /// open from being quick. Default 512 MiB, or two write buffers or four segments if that is
    /// more; at least two segments.
    pub log_retained_bytes_max: Option<u64>,
    /// A range without writes for this long, in milliseconds (once to twice as long), is flushed if
    /// that frees log segments, or memory while more than half of the write buffer is taken. When
    /// next to nothing (64 KiB) is written in this time, the log leaves its segment, unless that is
    /// a small one of which less than a quarter is used, and removes those that it kept ready: what
    /// is idle is then flushed as well, and an idle database takes as much space as a closed one,
    /// and 512 KiB. Default 60,000; 0 = never; at most a week.
    pub idle_seal_after_ms: u64,
    /// Write buffered records through a memory map where the file system allows it (a store instead
    /// of a system call per write). The price: if another process truncates a log segment of an
    /// open database, the next store ends this process (SIGBUS), as with any mapped file; without
    /// the map it is an error. Default true.
    pub log_mapped: bool,
    /// Open a directory that belongs to another user, or that its group or everybody can write to.
    /// Whoever can change its files can change what is in the database, or make it unreadable.
    /// Default false: refused. A directory that `open` creates is for its user alone.
    pub allow_shared_directory: bool,
    /// Commits between submission and visibility, at most; a power of two, 16..=65536. Default
    /// 4096.
    pub commits_in_flight_max: usize,
    /// Target size of a table block before compression, in bytes. Default 4096, 256..=1 MiB.
    pub block_bytes: usize,
    /// Keys between full keys in a block. Default 16; a power of two, 1..=128.
    pub restart_interval: usize,
    /// Size of the Bloom filter, in bits per key. Default 10 (about 1 % false positives); 0 = none.
    pub filter_bits_per_key: usize,
    /// Compression of tables below L0. Default LZ4.
    pub compression: Compression,
    /// Compression of L0 tables, which live shortly. Default none.
    pub l0_compression: Compression,
    /// Runs in L0 that start a compaction; a flush brings one, in one table or in several. Default
    /// 4.
    pub l0_trigger_tables: usize,
    /// Runs in L0 at which flushing waits for compaction. Default 20.
    pub l0_tables_max: usize,
    /// Shards that divide the keys of each range evenly: a flush of at least half a memtable ends a
    /// table at each bound between two. More shards make smaller tables. Default 4, 1..=64; 1 cuts
    /// nothing. A range keeps the bounds it was made with: an existing database does not change.
    pub shards_per_range: usize,
    /// Bytes in L0 that start a compaction as well. Default `u64::MAX`: none do.
    pub l0_bytes_max: u64,
    /// Entries in L0 that start a compaction as well. Default `u64::MAX`: none do.
    pub l0_entries_max: u64,
    /// Level N may hold `level_base_bytes x level_ratio^N`. Default 32 MiB: L1 holds 320 MiB.
    pub level_base_bytes: u64,
    /// Level N may hold `level_base_entries x level_ratio^N` entries. Default `u64::MAX`: any
    /// number.
    pub level_base_entries: u64,
    /// How much larger each level is than the one above. Default 10, at least 2.
    pub level_ratio: u64,
    /// Size at which a table below L0 is cut, in bytes. Default 64 MiB.
    pub table_bytes_max: u64,
    /// A table below L0 of whose entries more than this share, in percent, are tombstones is merged
    /// although its level is small enough. Scans walk over tombstones until then. Default 50; 100
    /// switches it off.
    pub tombstone_percent_max: u8,
    /// A table below L0 that has a tombstone is merged once it is older than this, in milliseconds:
    /// what was deleted is gone from the disk some time after. Default a day; 0 = whatever its age.
    pub tombstone_age_max_ms: u64,
    /// Runs that a shard of a landing may have. A landing stands in front of each level: tables
    /// come into it without being rewritten, and are merged into the level when enough has come.
    /// More runs absorb larger bursts and write less; a get looks into more tables. Default 12, at
    /// most 64; 0 = no landings: tables are merged into the next level at once.
    pub landing_runs_max: usize,
    /// A landing is merged into its level when that rewrites at most this many bytes of the level
    /// for each byte that landed, or up to twice as many for what has waited for minutes (five
    /// times while nothing comes). Smaller numbers write less and keep more in landings, which
    /// takes space and makes reads look further. Default 2, at least 1.
    pub drain_ratio: u64,
    /// When nothing has been written to a range for so long, in milliseconds, what waits in its
    /// landings and in L0 is merged into the levels, until something is written again: so gets look
    /// into fewer tables, and what is superseded takes no space. Where more than `drain_ratio`
    /// bytes are rewritten for each that waits it takes longer, ten times as long for ten times as
    /// many. Default 5000; 0 = never.
    pub rest_after_ms: u64,
    /// Tables of a landing that a merge into the level takes at least, if there are as many, and
    /// runs that a merge within the landing does (at least two); more where much waits. Default 4,
    /// 1..=64.
    pub landing_batch: usize,
    /// A shard of a landing with this many times `landing_batch` runs is merged into itself while
    /// it is too early for a merge into the level. It is a fifth less while much waits, and a tenth
    /// less for what is older than two minutes. Default 2.0, at least 1.0; infinity = never.
    pub keep_trigger: f64,
    /// Shards of landings that are merged at once; more while much waits. Default: half of
    /// `compaction_threads`, at least 2; at most 64.
    pub landing_parallelism: Option<usize>,
    /// Space on the disk that is set aside for the time when it is full, in bytes, at most: it
    /// follows the size of the database: as much as is in memory, or a part in 32 of the tables,
    /// from 64 KiB on. When less was wanted for ten seconds, and when the database is closed, it is
    /// cut. When there is no other space it is let go of, so that deletes can be logged, and the
    /// database be flushed, compacted, closed and opened; other writes are refused as `NoSpace`
    /// until it can be set aside again. Default: a quarter of the write buffer, at most 64 MiB. 0 =
    /// none.
    pub space_reserve_bytes: Option<u64>,
    /// Compactions that may run at a time, each on a thread of its own, 1..=64. Default: one for
    /// each two cores, from 2 to 8.
    pub compaction_threads: Option<usize>,
    /// Bytes that compactions may write in a second, all of them together. They fall behind if that
    /// is less than what the writes bring, and then writers wait. Default `None`: any number; at
    /// least 64 KiB.
    pub compaction_bytes_per_second: Option<u64>,
    /// For a database that is opened [for reading](crate::ReadOnlyDb) and was not closed: memory
    /// for what is only in its log. The open is refused where that is more. Default: twice the
    /// write buffer; at least 1 MiB.
    pub read_only_log_bytes_max: Option<u64>,
    /// Threads for reads that miss every cache, 1..=64. Default 4.
    pub read_threads: usize,
    /// Where the key ranges of a *new* database meet: `n` keys make `n + 1` ranges, the first one
    /// from the least key to (not including) the first of these, the last one from the last of
    /// these on. Each range has its own memtable and its own levels, so a range with much traffic
    /// does not slow the others; batches, snapshots and scans go across ranges as if there were
    /// one. Default none: one range. At most 16,383, not empty, ascending, each at most 65,535
    /// bytes.
    ///
    /// Ignored when the database exists: its ranges are in its manifest.
    pub initial_split_keys: Vec<Vec<u8>>,
    /// A range whose tables have more bytes than this is split, where about half of them are.
    /// Nothing is copied, and nobody waits. Several ranges write slower than one, and read with
    /// fewer looks (`docs/tuning.md`). Default `u64::MAX`: none is split because of its bytes. At
    /// least 4096.
    pub range_bytes_max: u64,
    /// A range whose tables have more entries than this, tombstones and overwritten ones included,
    /// is split likewise. Default `u64::MAX`: none is. At least 16.
    pub range_entries_max: u64,
    /// A range to which more batches than this are applied in a second, for `range_cooldown_ms`, is
    /// split between the keys that were written lately. Default `u64::MAX`: none is. At least 1.
    pub range_heat_max: u64,
    /// Where there are so many ranges, or more, none is split by itself; 1: none ever is. Default:
    /// one for each 32 MiB of the write buffer, so that memtables do not become small; at most
    /// 65,536.
    pub ranges_max: Option<usize>,
    /// Neighbouring ranges are merged that have at most a quarter of each limit above together, and
    /// to both of which hardly anything is written for four times `range_cooldown_ms`: an eighth of
    /// `range_heat_max`, or nothing where that is no limit. It makes no difference who has split
    /// them: `initial_split_keys` and [`Db::split_at`](crate::Db::split_at) count no more than the
    /// database itself. Default false.
    pub ranges_merge: bool,
    /// How long a range has to be hot, in milliseconds, before it is split; and four times as long
    /// cold, before it is merged. What could not be done is not tried again for as long, and for
    /// twice as long each time. Ranges are looked at four times in this while, and every ten
    /// seconds at least. Default 300,000; 10 to a week.
    pub range_cooldown_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self::preset(Preset::Balanced)
    }
}

const MIB: u64 = 1 << 20;
/// Enough for any flush of usual size.
const SPACE_RESERVE_BYTES_MAX: u64 = 64 * MIB;
/// Of the write buffer, for each range that the database makes by itself.
const RANGE_WRITE_BUFFER_BYTES: u64 = 32 * MIB;
/// So many ranges the database makes by itself, at most.
const RANGES_MAX_CAP: usize = 65_536;
/// What the accounts and mailboxes of the engine can count, with room to spare.
const WRITE_BUFFER_BYTES_CAP: u64 = 512 << 30;

impl Options {
    /// The defaults, shifted towards one kind of work.
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
            landing_runs_max: 12,
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

    /// Memory for unflushed writes, as derived from the budget.
    pub fn effective_write_buffer_bytes(&self) -> u64 {
        let half = (self.memory_budget_bytes / 2).min(WRITE_BUFFER_BYTES_CAP);
        self.write_buffer_bytes.unwrap_or(half)
    }

    /// Memory for cached blocks and open tables, as derived from the budget.
    pub fn effective_cache_bytes(&self) -> u64 {
        self.cache_bytes.unwrap_or(self.memory_budget_bytes / 2)
    }

    /// Tables that are open at a time, as derived from what the process may open.
    pub fn effective_open_tables_max(&self) -> usize {
        self.open_tables_max.unwrap_or_else(|| match descriptors_max() {
            None => 496,
            Some(most) => (most / 2).saturating_sub(16).clamp(16, 16_384) as usize,
        })
    }

    /// What indexes and filters of open tables may take.
    fn open_tables_bytes_max(&self) -> u64 {
        match self.effective_cache_bytes() {
            0 => self.memory_budget_bytes / 8 * 3,
            cache => cache / 4 * 3,
        }
    }

    /// Memtable size, as derived from the write buffer, for a database with the ranges that
    /// `initial_split_keys` makes.
    pub fn effective_memtable_bytes(&self) -> u64 {
        self.range_budget().memtable_bytes as u64
    }

    /// What the memtables of one range may hold together, as derived from their size and number,
    /// for a database with the ranges that `initial_split_keys` makes.
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
    pub fn effective_value_bytes_max(&self) -> u64 {
        let quarter = self.effective_write_buffer_bytes() / 4;
        self.value_bytes_max.unwrap_or((VALUE_BYTES_MAX as u64).min(quarter))
    }

    /// Largest batch, as derived from the write buffer.
    pub fn effective_batch_bytes_max(&self) -> u64 {
        self.batch_bytes_max.unwrap_or(self.effective_write_buffer_bytes() / 2)
    }

    /// Space on the disk that is set aside at most, as derived from the write buffer.
    pub fn effective_space_reserve_bytes(&self) -> u64 {
        let quarter = self.effective_write_buffer_bytes() / 4;
        self.space_reserve_bytes.unwrap_or(quarter.min(SPACE_RESERVE_BYTES_MAX))
    }

    /// Compactions that may run at a time, as derived from the number of cores.
    pub fn effective_compaction_threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.compaction_threads.unwrap_or_else(|| (cores() / 2).clamp(2, 8))
    }

    /// Shards of landings that are merged at once, as derived from the threads.
    pub fn effective_landing_parallelism(&self) -> usize {
        self.landing_parallelism.unwrap_or((self.effective_compaction_threads() / 2).max(2))
    }

    /// Ranges that the database makes by itself, as derived from the write buffer.
    pub fn effective_ranges_max(&self) -> usize {
        let derived = self.effective_write_buffer_bytes() / RANGE_WRITE_BUFFER_BYTES;
        self.ranges_max.unwrap_or((derived as usize).clamp(1, RANGES_MAX_CAP))
    }

    /// Memory for the log of a database that is opened for reading, as derived from the write
    /// buffer.
    pub fn effective_read_only_log_bytes_max(&self) -> u64 {
        let twice = self.effective_write_buffer_bytes().saturating_mul(2);
        self.read_only_log_bytes_max.unwrap_or(twice)
    }

    fn effective_log_retained_bytes_max(&self) -> u64 {
        let derived = || {
            let buffers = self.effective_write_buffer_bytes().saturating_mul(2);
            buffers.max(4 * self.log_segment_bytes).clamp(512 * MIB, u64::MAX / 4)
        };
        self.log_retained_bytes_max.unwrap_or_else(derived)
    }

    /// Checks every field against its documented range and the fields against each other.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the field, its value and the
    /// range.
    pub fn validate(&self) -> Result<()> {
        let write_buffer = self.effective_write_buffer_bytes();
        check("memory_budget_bytes", self.memory_budget_bytes, 4 * MIB, u64::MAX / 4)?;
        check("write_buffer_bytes", write_buffer, MIB, WRITE_BUFFER_BYTES_CAP)?;
        check("sealed_memtables_max", self.sealed_memtables_max as u64, 0, 1000)?;
        let memtable = self.effective_memtable_bytes();
        check("memtable_bytes", memtable, 4096, write_buffer / 2)?;
        if let Some(bytes) = self.range_buffer_bytes {
            check("range_buffer_bytes", bytes, 4 * memtable, write_buffer)?;
        }
        let value_cap = (VALUE_BYTES_CAP as u64).min(write_buffer / 4);
        check("value_bytes_max", self.effective_value_bytes_max(), 1, value_cap)?;
        let batch_floor = (KEY_BYTES_MAX + ENTRY_OVERHEAD_BYTES) as u64;
        check("batch_bytes_max", self.effective_batch_bytes_max(), batch_floor, write_buffer / 2)?;
        check("open_tables_max", self.effective_open_tables_max() as u64, 8, 1_000_000)?;
        check("log_segment_bytes", self.log_segment_bytes, 64 << 10, 4 << 30)?;
        let retained = self.effective_log_retained_bytes_max();
        check("log_retained_bytes_max", retained, 2 * self.log_segment_bytes, u64::MAX / 4)?;
        check("idle_seal_after_ms", self.idle_seal_after_ms, 0, 7 * 24 * 3_600_000)?;
        check("commits_in_flight_max", self.commits_in_flight_max as u64, 16, 65_536)?;
        if !self.commits_in_flight_max.is_power_of_two() {
            return Err(Error::invalid(format!(
                "commits_in_flight_max is {}; it must be a power of two",
                self.commits_in_flight_max
            )));
        }
        check("block_bytes", self.block_bytes as u64, 256, MIB)?;
        check("restart_interval", self.restart_interval as u64, 1, 128)?;
        if !self.restart_interval.is_power_of_two() {
            return Err(Error::invalid(format!(
                "restart_interval is {}; it must be a power of two",
                self.restart_interval
            )));
        }
        check("l0_trigger_tables", self.l0_trigger_tables as u64, 1, 1000)?;
        let l0_max = self.l0_tables_max as u64;
        check("l0_tables_max", l0_max, self.l0_trigger_tables as u64 + 1, 10_000)?;
        check("l0_bytes_max", self.l0_bytes_max, 1, u64::MAX)?;
        check("l0_entries_max", self.l0_entries_max, 1, u64::MAX)?;
        check("level_base_entries", self.level_base_entries, 1, u64::MAX)?;
        check("table_bytes_max", self.table_bytes_max, 4096, u64::MAX)?;
        check("tombstone_percent_max", u64::from(self.tombstone_percent_max), 1, 100)?;
        check("space_reserve_bytes", self.effective_space_reserve_bytes(), 0, u64::MAX / 4)?;
        check("drain_ratio", self.drain_ratio, 1, u64::MAX)?;
        check("rest_after_ms", self.rest_after_ms, 0, 7 * 24 * 3_600_000)?;
        if self.keep_trigger.is_nan() || self.keep_trigger < 1.0 {
            let what = format!("keep_trigger is {}; it must be at least 1.0", self.keep_trigger);
            return Err(Error::invalid(what));
        }
        check("landing_batch", self.landing_batch as u64, 1, 64)?;
        check("landing_parallelism", self.effective_landing_parallelism() as u64, 1, 64)?;
        check("compaction_threads", self.effective_compaction_threads() as u64, 1, 64)?;
        if let Some(rate) = self.compaction_bytes_per_second {
            check("compaction_bytes_per_second", rate, 64 << 10, u64::MAX)?;
        }
        let read_only = self.effective_read_only_log_bytes_max();
        check("read_only_log_bytes_max", read_only, MIB, u64::MAX / 4)?;
        check("read_threads", self.read_threads as u64, 1, 64)?;
        check_split_keys(&self.initial_split_keys)?;
        check("ranges_max", self.effective_ranges_max() as u64, 1, RANGES_MAX_CAP as u64)?;
        check("range_cooldown_ms", self.range_cooldown_ms, 10, 7 * 24 * 3_600_000)?;
        let l0_compression = Some(table_compression(self.l0_compression));
        let of_keyspaces = self.of_keyspaces();
        of_keyspaces.check().map_err(Error::invalid)?;
        let of_l0 = KeyspaceOptions { compression: l0_compression, ..of_keyspaces };
        of_l0.check().map_err(Error::invalid)
    }

    /// What a keyspace may do in another way: the limits are the same for both.
    fn of_keyspaces(&self) -> KeyspaceOptions {
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
            // Segments are whole pages.
            log_segment_bytes: self.log_segment_bytes / 4096 * 4096,
            log_retained_bytes_max: self.effective_log_retained_bytes_max(),
            idle_seal_after: match self.idle_seal_after_ms {
                0 => None,
                after => Some(Duration::from_millis(after)),
            },
            log_mapped: self.log_mapped,
            allow_shared_directory: self.allow_shared_directory,
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

fn check(name: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(format!("{name} is {value}; it must be {min}..={max}")))
}

fn check_split_keys(keys: &[Vec<u8>]) -> Result<()> {
    let most = INITIAL_RANGES_MAX - 1;
    if keys.len() > most {
        let count = keys.len();
        let what = format!("initial_split_keys has {count} keys; give at most {most}");
        return Err(Error::invalid(what));
    }
    for (at, key) in keys.iter().enumerate() {
        let problem = if key.is_empty() {
            "is empty; leave it out, the first range begins before every key anyway".to_owned()
        } else if key.len() > KEY_BYTES_MAX {
            format!("is {} bytes long; give at most {KEY_BYTES_MAX}", key.len())
        } else if at > 0 && keys[at - 1] == *key {
            format!("is the same as initial_split_keys[{}]; leave one of them out", at - 1)
        } else if at > 0 && keys[at - 1] > *key {
            format!("is less than initial_split_keys[{}]; sort them in byte order", at - 1)
        } else {
            continue;
        };
        return Err(Error::invalid(format!("initial_split_keys[{at}] {problem}")));
    }
    Ok(())
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

/// 128 bits that no other database has: the standard library seeds its hashers from the system.
fn fresh_id() -> [u8; 16] {
    let mut id = [0; 16];
    for half in id.chunks_mut(8) {
        half.copy_from_slice(&fresh_bytes());
    }
    id
}

/// 64 of them.
pub(crate) fn fresh_bytes() -> [u8; 8] {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid() {
        for preset in [Preset::WriteHeavy, Preset::Balanced, Preset::ReadHeavy] {
            Options::preset(preset).validate().unwrap();
        }
    }

    #[test]
    fn one_number_derives_the_rest() {
        let options = Options { memory_budget_bytes: 64 * MIB, ..Options::default() };
        options.validate().unwrap();
        assert_eq!(options.effective_write_buffer_bytes(), 32 * MIB);
        assert_eq!(options.effective_memtable_bytes(), 8 * MIB);
        assert_eq!(options.effective_value_bytes_max(), 8 * MIB);
        assert_eq!(options.effective_cache_bytes(), 32 * MIB);
    }

    #[test]
    fn a_bad_field_is_named_with_its_range() {
        let refusal = |options: Options| options.validate().unwrap_err().to_string();
        let message = refusal(Options { level_ratio: 1, ..Options::default() });
        assert_eq!(message, "level_ratio is 1; it must be 2..=1000");
        let message = refusal(Options { commits_in_flight_max: 100, ..Options::default() });
        assert!(message.contains("power of two"), "{message}");
        let message = refusal(Options { value_bytes_max: Some(1 << 40), ..Options::default() });
        assert!(message.contains("value_bytes_max"), "{message}");
        let message = refusal(Options { open_tables_max: Some(7), ..Options::default() });
        assert_eq!(message, "open_tables_max is 7; it must be 8..=1000000");
    }

    #[test]
    fn identities_differ() {
        assert_ne!(fresh_id(), fresh_id());
    }
}
