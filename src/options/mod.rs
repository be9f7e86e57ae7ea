//! Settings: plain data with units in the names, validated once, when a database is opened.
//!
//! Here is every field with its unit, default and limits. What follows from the fields is in
//! `derived`, what they may be in `validate`, and what the engine is told in `engine`.

mod derived;
mod engine;
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
}
