//! What the database is doing, in numbers.

use sluicedb_actors::engine::Engine;
use std::sync::atomic::{AtomicU64, Ordering};

/// One actor's mailbox.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorStats {
    /// The actor.
    pub name: String,
    /// Messages waiting for it.
    pub mailbox_len: usize,
    /// Messages that can wait before senders do.
    pub mailbox_capacity: usize,
    /// Messages it has handled.
    pub handled: u64,
}

/// Counters since the database was opened, and sizes as of now.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Batches committed (a `put` is a batch of one).
    pub commits: u64,
    /// Those handled on their caller's thread without queueing.
    pub commits_inline: u64,
    /// Operations in them.
    pub entries_written: u64,
    /// Their encoded bytes.
    pub bytes_written: u64,
    /// Sequence number of the last visible write.
    pub visible_seqno: u64,
    /// Sequence number of the last write that survives a power cut.
    pub durable_seqno: u64,
    /// Waits for room in a range.
    pub waits_local: u64,
    /// Waits for room in the database.
    pub waits_global: u64,
    /// Time that writes have waited for room, in microseconds.
    pub wait_micros: u64,
    /// Bytes written to the log, records and padding.
    pub log_bytes: u64,
    /// Syncs of the log.
    pub log_syncs: u64,
    /// Log segments that a recovery would read.
    pub log_segments: u64,
    /// Bytes in active memtables, as accounted.
    pub active_bytes: u64,
    /// Bytes in sealed memtables, as accounted.
    pub sealed_bytes: u64,
    /// The most that active and sealed memtables may hold.
    pub write_buffer_bytes: u64,
    /// Memtables sealed.
    pub seals: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Bytes of tables written by flushes.
    pub flush_bytes: u64,
    /// Compactions finished.
    pub compactions: u64,
    /// Those that only renamed tables to another level.
    pub trivial_moves: u64,
    /// Bytes of tables read by compactions.
    pub compaction_bytes_read: u64,
    /// Bytes of tables written by compactions.
    pub compaction_bytes_written: u64,
    /// Background jobs that failed and were tried again.
    pub job_retries: u64,
    /// Manifest edits made durable.
    pub edits: u64,
    /// Live tables.
    pub tables: u64,
    /// Their bytes on disk.
    pub table_bytes: u64,
    /// Entries in them, tombstones and superseded versions included.
    pub table_entries: u64,
    /// Obsolete tables deleted.
    pub tables_deleted: u64,
    /// Memory of filters and indexes of open tables, in bytes.
    pub index_bytes: u64,
    /// Decoded blocks in the cache, in bytes.
    pub cache_bytes: u64,
    /// Capacity of the cache, in bytes.
    pub cache_capacity_bytes: u64,
    /// Block look-ups that the cache answered.
    pub cache_hits: u64,
    /// Block look-ups that it did not.
    pub cache_misses: u64,
    /// Reads that went to a read thread.
    pub cold_reads: u64,
    /// Entries replayed from the log when the database was opened.
    pub recovered_entries: u64,
    /// Bytes after the last good log record that were cut off when the database was opened.
    pub recovered_torn_bytes: u64,
    /// The mailboxes, in the order in which data flows.
    pub actors: Vec<ActorStats>,
}

/// One level of one range.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq)]
pub struct LevelInfo {
    /// The range's number.
    pub range: u32,
    /// The first key that is routed to the range; empty for the first range.
    pub range_start: Vec<u8>,
    /// The first key that is not any more; `None` for the last range.
    pub range_end: Option<Vec<u8>>,
    /// 0 for freshly flushed, overlapping tables; 1.. are one sorted run each.
    pub level: u8,
    /// Tables in it.
    pub tables: u64,
    /// Sorted runs that they form: places where a read has to look. 1 below level 0.
    pub runs: u64,
    /// Entries in them.
    pub entries: u64,
    /// How many of those are tombstones.
    pub tombstones: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Size at which the level is merged into the next, in bytes; 0 for level 0, which goes by runs.
    pub bytes_max: u64,
    /// At 1.0 a compaction is due.
    pub score: f64,
}

impl Stats {
    pub(crate) fn of(engine: &Engine) -> Self {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = engine.counters();
        let catalog = engine.catalog();
        let version = &catalog.superversion.version;
        let cache = &engine.shared().cache;
        let mut stats = Self {
            commits: get(&counters.commits),
            commits_inline: get(&counters.commits_inline),
            entries_written: get(&counters.entries_written),
            bytes_written: get(&counters.bytes_written),
            visible_seqno: engine.visible().0,
            durable_seqno: engine.durable_seqno().0,
            waits_local: get(&counters.waits_local),
            waits_global: get(&counters.waits_global),
            wait_micros: get(&counters.wait_micros),
            log_bytes: get(&counters.log_bytes),
            log_syncs: get(&counters.log_syncs),
            log_segments: get(&counters.log_segments),
            write_buffer_bytes: engine.shared().global.limit(),
            seals: get(&counters.seals),
            flushes: get(&counters.flushes),
            flush_bytes: get(&counters.flush_bytes),
            compactions: get(&counters.compactions),
            trivial_moves: get(&counters.trivial_moves),
            compaction_bytes_read: get(&counters.compaction_bytes_read),
            compaction_bytes_written: get(&counters.compaction_bytes_written),
            job_retries: get(&counters.job_retries),
            edits: get(&counters.edits),
            tables_deleted: get(&counters.tables_deleted),
            cache_bytes: cache.used_bytes(),
            cache_capacity_bytes: cache.capacity_bytes(),
            cache_hits: cache.hits(),
            cache_misses: cache.misses(),
            cold_reads: get(&counters.cold_reads),
            recovered_entries: engine.recovery().entries_replayed,
            recovered_torn_bytes: engine.recovery().log.as_ref().map_or(0, |log| log.bytes_dropped),
            ..Self::default()
        };
        for (_, _, handle) in version.tables() {
            stats.tables += 1;
            stats.table_bytes += handle.meta().file_bytes;
            stats.table_entries += handle.meta().entries;
            stats.index_bytes += handle.table().memory_bytes() as u64;
        }
        for owner in &catalog.owners {
            stats.active_bytes += owner.sizes.active_bytes() as u64;
            stats.sealed_bytes += owner.sizes.sealed_bytes() as u64;
        }
        stats.actors = engine
            .mailboxes()
            .into_iter()
            .map(|mailbox| ActorStats {
                name: mailbox.actor,
                mailbox_len: mailbox.length,
                mailbox_capacity: mailbox.capacity,
                handled: mailbox.handled,
            })
            .collect();
        stats
    }
}

impl LevelInfo {
    pub(crate) fn of(engine: &Engine) -> Vec<Self> {
        let catalog = engine.catalog();
        let options = &engine.shared().config.compaction;
        let mut levels = Vec::new();
        for range in catalog.superversion.version.ranges() {
            for level in 0..=range.deepest() {
                let mut info = Self {
                    range: range.id.0,
                    range_start: range.span.lo.to_vec(),
                    range_end: range.span.hi.as_ref().map(|end| end.to_vec()),
                    level,
                    tables: 0,
                    runs: 1,
                    entries: 0,
                    tombstones: 0,
                    bytes: 0,
                    bytes_max: 0,
                    score: 0.0,
                };
                for (_, handle) in range.tables().filter(|(at, _)| *at == level) {
                    info.tables += 1;
                    info.entries += handle.meta().entries;
                    info.tombstones += handle.meta().tombstones;
                    info.bytes += handle.meta().file_bytes;
                }
                if level == 0 {
                    info.runs = range.l0.depth() as u64;
                    info.score = info.runs as f64 / options.l0_trigger as f64;
                } else {
                    info.bytes_max = options.level_bytes(level);
                    info.score = info.bytes as f64 / info.bytes_max as f64;
                }
                levels.push(info);
            }
        }
        levels
    }
}
