//! Settings. They are plain data with units in their names, and are checked once, when a database
//! is opened.
//!
//! This file has every field with its unit, default and limits. `derived` has the values of fields
//! that were left open, `validate` the checks, and `engine` the engine's configuration.

mod derived;
mod engine;
#[cfg(feature = "serde")]
mod no_limit;
mod preset;
mod validate;

pub(crate) use engine::{fresh_bytes, table_compression, told_compression};
pub use preset::Preset;
pub use sluicedb_actors::group_commit::durable::Durability;

const MIB: u64 = 1 << 20;

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

/// Everything that can be set. [`Options::default`] suits most services. If you choose one number,
/// choose `memory_budget_bytes`.
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
///
/// With the cargo feature `serde`, options can be read from a configuration file that has some of
/// the fields. A field that does not exist is an error. Where the default is "no limit"
/// (`u64::MAX`), JSON says `null` and TOML leaves the field out.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Memory for write buffer and cache together, in bytes. Each gets half of it, unless it is set
    /// by itself. Default 512 MiB, at least 4 MiB.
    pub memory_budget_bytes: u64,
    /// Memory for writes that are not yet in tables, in bytes. Writers wait when it is full. Up to
    /// two memtables of memory are kept beside it for the next memtables
    /// (`Stats::spare_chunk_bytes`). Default: half of the budget. 1 MiB to 512 GiB.
    pub write_buffer_bytes: Option<u64>,
    /// Take back the memory of overwritten entries while they are still in the write buffer, by
    /// compacting it a little with each write. Hot keys then cause no flush. Default true.
    pub buffer_compaction: bool,
    /// Memory for cached blocks, and for the indexes and filters of open tables, in bytes. Index
    /// and filter take about 2 bytes per key, and 3 where a table lies above others. They may take
    /// up to three quarters of this memory; beyond that, tables are closed. Default: half of the
    /// budget. 0: no block is cached, and indexes and filters may take what they may by default.
    pub cache_bytes: Option<u64>,
    /// The most tables that are open at a time. An open table has a file descriptor, and its index
    /// and filter in memory. A table is opened by the first read that needs it, on a read thread.
    /// It is closed when others need the room. Only tables that scans and compactions are walking
    /// may exceed this number. Default: half of the file descriptors that the process may have
    /// (`ulimit -n`) less 16, between 16 and 16,384; 496 where they are not limited. 8 to
    /// 1,000,000.
    pub open_tables_max: Option<usize>,
    /// Size at which the memtable of a range is sealed, to be flushed, in bytes. While it cannot be
    /// sealed (see `sealed_memtables_max`), it grows to twice that size; then the writers of the
    /// range wait. At most half of the write buffer. Default, with one range: a quarter of the
    /// write buffer, at most 64 MiB. Default, with several ranges: so small that one hot range
    /// leaves half of the write buffer to the others.
    pub memtable_bytes: Option<u64>,
    /// The most sealed memtables of a range that wait for a flush, beside the one that is being
    /// flushed. Default 2, at most 1000.
    pub sealed_memtables_max: usize,
    /// The most memory that the memtables of one range may hold together, in bytes. At this limit
    /// no memtable is sealed, and soon the writers of the range wait. Only a write that is larger
    /// than a memtable may exceed it. Default: what `memtable_bytes` and `sealed_memtables_max`
    /// allow, twice the size for each memtable. At least four times `memtable_bytes`, at most the
    /// write buffer.
    pub range_buffer_bytes: Option<u64>,
    /// Durability of writes that do not say it themselves. Default `Synced`.
    pub durability: Durability,
    /// Longest value, in bytes. Default 64 MiB, or a quarter of the write buffer if that is less;
    /// at most 1 GiB and at most a quarter of the write buffer.
    pub value_bytes_max: Option<u64>,
    /// Largest encoded batch, in bytes. Default: half of the write buffer, or 2 GiB less a byte if
    /// that is less; at most that. A batch of many small entries takes more memory than its encoded
    /// bytes; see [`Limits::batch_memory_bytes_max`](crate::Limits::batch_memory_bytes_max).
    pub batch_bytes_max: Option<u64>,
    /// The largest size of a log segment, in bytes; whole pages of 4 KiB. Default 64 MiB, from 64
    /// KiB to 4 GiB. A segment has at most a quarter of the write buffer, too, or 4 MiB.
    ///
    /// The size follows the writes. The first segment has 512 KiB. A segment that would last less
    /// than a second is followed by one of twice the size, or eight times. One that would last more
    /// than four seconds is followed by one of half the size. One segment is kept ready, or two
    /// where one would not last. Segments that nothing needs any more are kept to be used again: at
    /// most one write buffer of bytes (or one segment).
    ///
    /// An idle log shrinks. If hardly anything is written for `rest_after_ms`, it keeps no segment
    /// ready. If it is idle for `idle_seal_after_ms`, it goes on in one of 512 KiB. A closed
    /// database has a log of 8 KiB.
    pub log_segment_bytes: u64,
    /// The most bytes in closed log segments with entries that are not in tables yet. With more,
    /// the range with the oldest such entry is flushed in the background, then the next one. So a
    /// range with few writes neither keeps the log from shrinking nor makes the next open slow.
    /// Default 512 MiB, or two write buffers or four segments if that is more; at least two
    /// segments.
    pub log_retained_bytes_max: Option<u64>,
    /// How long a range must be without writes, in milliseconds, until it is flushed because it is
    /// idle. It may take twice as long. It is flushed only if that frees log segments, or memory
    /// while more than half of the write buffer is taken. Default 60,000; 0 = never; at most a
    /// week.
    ///
    /// If at most 64 KiB are written to the whole database in this time, the log moves to a small
    /// segment, unless it is in one of which less than a quarter is used. It removes the segments
    /// that it kept ready, and idle ranges are flushed. So an idle database takes as much space as
    /// a closed one, and 512 KiB.
    pub idle_seal_after_ms: u64,
    /// Write buffered records through a memory map, where the file system allows it. That costs a
    /// store instead of a system call per write. The price: if another process truncates a log
    /// segment of an open database, the next store ends this process (SIGBUS), as with any mapped
    /// file. Without the map it is an error. Default true.
    pub log_mapped: bool,
    /// The longest time for which a writer polls for the sync of its write, in microseconds. It
    /// does so only in a task of tokio, and while nobody else waits for a sync. A poll gives the
    /// thread back to its runtime, which runs its other tasks and timers and then polls again.
    /// Where the disk takes longer, or somebody else wants the core, one wait in a thousand tries
    /// it.
    ///
    /// A single writer on a disk that syncs in a tenth of a millisecond gains half as many writes
    /// again, because no thread goes to sleep for so short a time. The price is that its thread is
    /// busy meanwhile: such a write takes up to twice the processor time. Set 0 under a quota, on a
    /// battery, or if each poll of a task is traced. Default 300; 0 = never; at most 1000.
    pub sync_polling_us: u64,
    /// The longest time for which a `get` (or `contains_key`, `value_len`, `last_seqno`) looks
    /// again and again whether the system has read the block that it lacks, in microseconds. As
    /// with `sync_polling_us`, it does so only in a task of tokio, while no other read waits for
    /// the disk, and rarely where the disk takes longer. Then a read thread reads the block.
    ///
    /// Gets from a quick disk, one after the other, are half as many again, and take no more
    /// processor time. Default 300; 0 = never; at most 1000.
    pub read_polling_us: u64,
    /// Open a directory that belongs to another user, or that its group or everybody can write to.
    /// Whoever can change its files can change what is in the database, or make it unreadable.
    /// Default false: such a directory is refused. A directory that `open` creates is for its user
    /// alone.
    pub allow_shared_directory: bool,
    /// The most commits between submission and visibility. A power of two, 16..=65536. Default
    /// 4096.
    pub commits_in_flight_max: usize,
    /// Target size of a table block before compression, in bytes. Default 4096, 256..=1 MiB.
    pub block_bytes: usize,
    /// Every so many keys of a block one is stored in full; the others lack what they share with
    /// the one before. Default 16; a power of two, 1..=128.
    pub restart_interval: usize,
    /// Size of the Bloom filter, in bits per key. Default 10 (about 1 % false positives); 0 = none;
    /// at most 24. A table that a flush or a merge puts above others with the same keys gets ten
    /// bits more, up to 24: a get asks all of those first, and they are a small part of the data.
    pub filter_bits_per_key: usize,
    /// Compression of tables below L0. Default LZ4.
    pub compression: Compression,
    /// Compression of L0 tables, which are soon merged. Default none.
    pub l0_compression: Compression,
    /// Runs in L0 that start a compaction. A flush adds one run, in one table or in several. In a
    /// burst of writes, when the next flush will be there before a compaction could end, twice as
    /// many start one; three times as many where they supersede each other. Default 4, 1..=1000.
    pub l0_trigger_tables: usize,
    /// Runs in L0 at which flushing waits for compaction. Default 20; more than
    /// `l0_trigger_tables`, at most 10,000.
    pub l0_tables_max: usize,
    /// Into how many shards the keys of each range are divided. A flush of at least half a memtable
    /// ends a table at each bound between two shards, so more shards make smaller tables. Default
    /// 4, 1..=64; 1 cuts nothing. A range keeps the bounds that it was made with, so an existing
    /// database does not change.
    pub shards_per_range: usize,
    /// Bytes in L0 that also start a compaction. Default `u64::MAX`: no number does.
    #[cfg_attr(feature = "serde", serde(with = "no_limit"))]
    pub l0_bytes_max: u64,
    /// Entries in L0 that also start a compaction. Default `u64::MAX`: no number does.
    #[cfg_attr(feature = "serde", serde(with = "no_limit"))]
    pub l0_entries_max: u64,
    /// Level N may hold `level_base_bytes x level_ratio^N`. Default 32 MiB: L1 holds 320 MiB. At
    /// least 4096.
    pub level_base_bytes: u64,
    /// Level N may hold `level_base_entries x level_ratio^N` entries. Default `u64::MAX`: any
    /// number.
    #[cfg_attr(feature = "serde", serde(with = "no_limit"))]
    pub level_base_entries: u64,
    /// How much larger each level is than the one above. Default 10, 2..=1000.
    pub level_ratio: u64,
    /// Size at which a table below L0 is cut, in bytes. It is also cut where it overlaps about four
    /// tables of that size in the next level. Default 64 MiB, at least 4096; `u64::MAX`: no table
    /// is cut. A configuration file says 9223372036854775807 for that.
    #[cfg_attr(feature = "serde", serde(with = "no_limit::as_number"))]
    pub table_bytes_max: u64,
    /// The largest share of tombstones among the entries of a table below L0, in percent. A table
    /// with more is merged although its level is small enough. Until then scans walk over its
    /// tombstones. Default 50; 100 = no table is merged for this reason.
    pub tombstone_percent_max: u8,
    /// The largest age of a table below L0 with a tombstone, in milliseconds. An older one is
    /// merged, so what was deleted disappears from the disk some time later. Default a day; 0 =
    /// tables of any age stay.
    pub tombstone_age_max_ms: u64,
    /// The most runs of a shard of a landing. A landing stands in front of each level. Tables come
    /// into it without being rewritten, and are merged into the level when enough has come. With
    /// more runs it absorbs larger bursts, and less is written, but a get looks into more tables.
    /// Default 10, at most 64; 0 = no landings: tables are merged into the next level at once.
    pub landing_runs_max: usize,
    /// The most bytes of a level that a merge from its landing may rewrite for each landed byte.
    /// For tables that have waited for minutes it is twice as many, and five times while nothing
    /// arrives. With a smaller number less is written, but more stays in landings: that takes
    /// space, and gets look into more tables. Default 2, at least 1.
    pub drain_ratio: u64,
    /// How long a range must be without writes, in milliseconds, until its landings and L0 are
    /// merged into the levels. Then gets look into fewer tables, and superseded entries take no
    /// space. The merging stops when something is written. Where more than `drain_ratio` bytes are
    /// rewritten for each waiting byte it begins later: ten times as late for ten times as many.
    /// Default 5000; 0 = never.
    pub rest_after_ms: u64,
    /// The least number of tables of a landing that a merge into the level takes, if there are so
    /// many. Also the least number of runs that a merge within the landing takes (at least two).
    /// Both take more where much waits. Default 4, 1..=64.
    pub landing_batch: usize,
    /// A shard of a landing is merged into itself when it has this many times `landing_batch` runs
    /// and it is too early for a merge into the level. The number is a fifth lower while much
    /// waits, and a tenth lower for what is older than two minutes. Default 2.0, at least 1.0;
    /// infinity = never.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "no_limit::infinity"))]
    pub keep_trigger: f64,
    /// How many shards of landings are merged at once; more while much waits. Default: half of
    /// `compaction_threads`, at least 2; at most 64.
    pub landing_parallelism: Option<usize>,
    /// The most space on the disk that is set aside for the time when the disk is full, in bytes.
    /// When there is no other space, it is given up. Then deletes can be logged, and the database
    /// can be flushed, compacted, closed and opened. Other writes are refused as `NoSpace` until
    /// the space can be set aside again. Default: a quarter of the write buffer, at most 64 MiB. 0
    /// = none.
    ///
    /// The space follows the size of the database: as much as is in memory, or a 32nd of the
    /// tables, at least 64 KiB. It shrinks when less was wanted for ten seconds, and when the
    /// database is closed.
    pub space_reserve_bytes: Option<u64>,
    /// The most compactions that run at a time, each on its own thread, 1..=64. Default: one for
    /// two cores, from 2 to 8.
    pub compaction_threads: Option<usize>,
    /// The most bytes that compactions may write in a second, all of them together. If writers
    /// bring more than that, compactions fall behind, and then writers wait. Default `None`: any
    /// number; at least 64 KiB.
    pub compaction_bytes_per_second: Option<u64>,
    /// For a database that is opened [for reading](crate::ReadOnlyDb) and was not closed: the most
    /// memory for what is only in its log. If it needs more, the open is refused. The open itself
    /// takes up to twice as much: it has the log's entries and the tables made of them. Default:
    /// twice the write buffer; at least 1 MiB.
    pub read_only_log_bytes_max: Option<u64>,
    /// Threads for reads that miss every cache, 1..=64. Default 4.
    pub read_threads: usize,
    /// Cores on which the engine's threads run, by number. A service that keeps its own threads off
    /// them waits for no flush and no merge. Only cores that the process may use when the database
    /// is opened. Linux only. Default empty: any core.
    pub engine_cores: Vec<usize>,
    /// Where the key ranges of a *new* database meet. `n` keys make `n + 1` ranges; each key is the
    /// first one of its range. Each range has its own memtable and its own levels, so a range with
    /// much traffic does not slow the others down. Batches, snapshots and scans cross ranges as if
    /// there were one. Default none: one range. At most 16,383 keys, not empty, ascending, each at
    /// most 65,535 bytes.
    ///
    /// Ignored when the database exists: its ranges are in its manifest.
    pub initial_split_keys: Vec<Vec<u8>>,
    /// The most bytes in the tables of a range. A range with more is split where about half of them
    /// are. Nothing is copied, and nobody waits. Several ranges write slower than one, and a get
    /// looks into fewer tables (`docs/tuning.md`). Default `u64::MAX`: no range is split for this
    /// reason. At least 4096.
    #[cfg_attr(feature = "serde", serde(with = "no_limit"))]
    pub range_bytes_max: u64,
    /// The most entries in the tables of a range, tombstones and overwritten ones included. A range
    /// with more is split in the same way. Default `u64::MAX`: none is. At least 16.
    #[cfg_attr(feature = "serde", serde(with = "no_limit"))]
    pub range_entries_max: u64,
    /// The most batches that are applied to a range in a second. A range with more, for
    /// `range_cooldown_ms`, is split between the keys that were written lately. Default `u64::MAX`:
    /// none is. At least 1.
    #[cfg_attr(feature = "serde", serde(with = "no_limit"))]
    pub range_heat_max: u64,
    /// With so many ranges, none is split automatically; 1: none ever is. Default: one for each 32
    /// MiB of the write buffer, so that memtables do not become small, but two at least; at most
    /// 65,536.
    pub ranges_max: Option<usize>,
    /// Merge small, cold neighbours. Two neighbours are merged if together they have at most a
    /// quarter of each limit above, and hardly anything was written to either for four times
    /// `range_cooldown_ms`: an eighth of `range_heat_max`, or nothing if that is no limit. Ranges
    /// of `initial_split_keys` and [`Db::split_at`](crate::Db::split_at) are merged like any
    /// others. Default false.
    pub ranges_merge: bool,
    /// How long a range must be hot, in milliseconds, before it is split. It must be cold for four
    /// times as long before it is merged. A split or merge that failed is tried again after this
    /// time, and after twice as long each further time. Ranges are looked at four times in this
    /// time, and at least every ten seconds. Default 300,000; 10 to a week.
    pub range_cooldown_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self::preset(Preset::Balanced)
    }
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
        assert_eq!(options.effective_log_segment_bytes(), 8 * MIB);
        assert_eq!(Options::default().effective_log_segment_bytes(), 64 * MIB);
        let tiny = Options { memory_budget_bytes: MIB, ..options };
        assert_eq!(tiny.effective_log_segment_bytes(), 4 * MIB);
        let own = Options { log_segment_bytes: 100_000, ..Options::default() };
        assert_eq!(own.effective_log_segment_bytes(), 98_304, "whole pages");
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
}
