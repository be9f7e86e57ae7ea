//! What the database is doing, in numbers.
//!
//! Here is what there is to read; `fill.rs` collects it.

mod fill;
mod range;
mod trouble;

pub use range::{BufferStats, RangeStats};
#[cfg(feature = "serde")]
pub(crate) use range::{as_optional_text, as_text};
pub use trouble::{DamagedTable, TroubleStats};

use crate::levels::{Decision, LandingStats, LevelStats};
use crate::pressure::{Pressure, StallStats};

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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Batches committed. A `put` is a batch of one.
    pub commits: u64,
    /// Batches that were committed on their caller's thread without queueing.
    pub commits_inline: u64,
    /// Changes of the routes.
    pub changes: u64,
    /// Ranges that were split because their tables had more than `range_bytes_max` bytes.
    pub splits_bytes: u64,
    /// Because they had more than `range_entries_max` entries.
    pub splits_entries: u64,
    /// Because more than `range_heat_max` batches per second came.
    pub splits_heat: u64,
    /// Pairs of ranges that were merged because they were small and cold.
    pub merges_cold: u64,
    /// Ranges that were to be split or merged for one of these reasons, and could not be, most
    /// often because all data is under one key. It is tried again, each time later.
    pub range_tries_failed: u64,
    /// Queued commits that were routed again, because the routes changed meanwhile.
    pub routed_again: u64,
    /// Operations in the committed batches.
    pub entries_written: u64,
    /// Encoded bytes of the committed batches.
    pub bytes_written: u64,
    /// Sequence number of the last visible write.
    pub visible_seqno: u64,
    /// Sequence number of the last write that survives a power cut.
    pub durable_seqno: u64,
    /// Waits for room in a range.
    pub waits_local: u64,
    /// Waits for room in the database.
    pub waits_global: u64,
    /// Time that writes have waited for room in a range, in microseconds. A wait counts when it
    /// ends.
    pub wait_micros_local: u64,
    /// Time that writes have waited for room in the database, in microseconds.
    pub wait_micros_global: u64,
    /// Writes refused as `Overloaded`, at once or at their deadline, for want of room in a range.
    pub overloaded_local: u64,
    /// Writes refused as `Overloaded`, at once or at their deadline, for want of room in the
    /// database.
    pub overloaded_global: u64,
    /// All waits for room, by what was short when they began.
    pub stalls: Vec<StallStats>,
    /// How close the database is to making writers wait.
    pub pressure: Pressure,
    /// Bytes written to the log, records and padding.
    pub log_bytes: u64,
    /// Syncs of the log.
    pub log_syncs: u64,
    /// Bytes of closed log segments that were never synced: before anybody asked for a sync, all
    /// that they hold was durable in tables.
    pub log_given_up_bytes: u64,
    /// Log segments that a recovery would read.
    pub log_segments: u64,
    /// Bytes of the closed ones among them. `log_retained_bytes_max` bounds these.
    pub log_retained_bytes: u64,
    /// Bytes in active memtables, as accounted.
    pub active_bytes: u64,
    /// Bytes in sealed memtables, as accounted.
    pub sealed_bytes: u64,
    /// Bytes taken from the write buffer: memtables, and writes on their way into them. Exact at
    /// the moment of the call, and never above `write_buffer_bytes`.
    pub write_buffer_used_bytes: u64,
    /// The most bytes that writes may hold until they are in tables.
    pub write_buffer_bytes: u64,
    /// Open snapshots and scans. Each keeps the memtables and files of its instant.
    pub read_points: u64,
    /// How long the oldest of them has been open, at least, in microseconds; 0 without any. See
    /// [`Pin::age`](crate::Pin::age).
    pub oldest_pin_micros: u64,
    /// Tables that compactions have replaced and that a snapshot or scan still reads.
    /// [`Db::pins`](crate::Db::pins) tells who.
    pub pinned_obsolete_tables: u64,
    /// Bytes of their files: space on the disk that nothing else needs.
    pub pinned_obsolete_bytes: u64,
    /// Memory kept for the next memtables, at most two memtables. It is beside the write buffer.
    pub spare_chunk_bytes: u64,
    /// Memtables sealed, for whatever reason.
    pub seals: u64,
    /// Of those: because they were full.
    pub seals_size: u64,
    /// Because writers waited for room.
    pub seals_pressure: u64,
    /// Because they pinned more of the log than `log_retained_bytes_max`.
    pub seals_log: u64,
    /// Because nothing was written to them for `idle_seal_after_ms` and they pinned log or memory.
    pub seals_idle: u64,
    /// Because somebody called `flush`, `compact` or `close`.
    pub seals_flush: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Bytes of tables written by flushes.
    pub flush_bytes: u64,
    /// Compactions finished.
    pub compactions: u64,
    /// Compactions that only moved tables to another level.
    pub trivial_moves: u64,
    /// Bytes of tables read by compactions.
    pub compaction_bytes_read: u64,
    /// Bytes of tables written by compactions.
    pub compaction_bytes_written: u64,
    /// Time that compactions waited to leave room for others, or because of
    /// `compaction_bytes_per_second`, in microseconds. Those of several threads add up.
    pub compaction_pace_micros: u64,
    /// Background jobs that failed and were tried again.
    pub job_retries: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Checkpoints that failed.
    pub checkpoints_failed: u64,
    /// Bytes of tables that checkpoints have linked.
    pub checkpoint_bytes_linked: u64,
    /// Bytes of tables that checkpoints had to copy.
    pub checkpoint_bytes_copied: u64,
    /// Bytes of tables that checkpoints wrote from memory.
    pub checkpoint_bytes_written: u64,
    /// Time that finished checkpoints took, in microseconds.
    pub checkpoint_micros: u64,
    /// Bulk jobs that were requested: replacements of spans, ingested tables, and batches that
    /// delete ranges.
    pub bulk_jobs: u64,
    /// Entries that bulk jobs wrote into tables, or that came in tables which were taken over. Jobs
    /// under way count, so this shows their progress.
    pub bulk_entries: u64,
    /// Tables of other databases, or of this one, that were taken over as they are.
    pub bulk_tables_linked: u64,
    /// Edits of the manifest.
    pub edits: u64,
    /// How often edits of the manifest were made durable. Flushes and compactions that are ready at
    /// the same time share one sync, so this may rise more slowly than `edits`.
    pub manifest_syncs: u64,
    /// Live tables.
    pub tables: u64,
    /// Bytes of the live tables that are in use.
    pub table_bytes: u64,
    /// Entries in the live tables, tombstones and superseded versions included.
    pub table_entries: u64,
    /// Bytes of the files of live tables. A table counts as a whole, even if only a part of it is
    /// in use.
    pub table_file_bytes: u64,
    /// About how many bytes of tables a reader can still get. Tombstones, and what newer entries
    /// hide, do not count.
    pub live_bytes: u64,
    /// About how many bytes compactions have to write until none is due.
    pub compaction_debt_bytes: u64,
    /// What was written, read and moved since the database was opened, of all ranges: in L0, and in
    /// each level with its landing.
    pub by_level: Vec<LevelStats>,
    /// Tables that came into a landing without being rewritten.
    pub tables_landed: u64,
    /// Tables in landings, of all ranges and levels.
    pub landing_tables: u64,
    /// Their bytes on disk.
    pub landing_bytes: u64,
    /// Merges of landings into themselves.
    pub keeps: LandingStats,
    /// Merges of landings into their levels.
    pub drains: LandingStats,
    /// The most sorted runs that a get may have to look into. Memtables do not count.
    pub read_runs_max: u64,
    /// What the compaction planner has chosen lately, and why. Oldest first, 64 at most.
    pub decisions: Vec<Decision>,
    /// Obsolete tables deleted.
    pub tables_deleted: u64,
    /// Open tables, those of old snapshots included. Each has a file descriptor.
    pub open_tables: u64,
    /// The most tables that may be open at a time.
    pub open_tables_max: u64,
    /// Tables opened.
    pub table_opens: u64,
    /// Tables closed because others needed the room. If this rises as fast as `table_opens`,
    /// `open_tables_max` or `cache_bytes` is too small for what is read.
    pub table_evictions: u64,
    /// Memory of the open tables' indexes, in bytes. Part of the cache's capacity.
    pub index_bytes: u64,
    /// Memory of the open tables' filters, in bytes. Part of the cache's capacity.
    pub filter_bytes: u64,
    /// Decoded blocks in the cache, and the memory that is kept for the next ones, in bytes.
    pub cache_bytes: u64,
    /// Capacity of the cache for blocks, indexes and filters, in bytes.
    pub cache_capacity_bytes: u64,
    /// Block look-ups that the cache answered.
    pub cache_hits: u64,
    /// Block look-ups that it did not, and that got the block from a file.
    pub cache_misses: u64,
    /// Keys that were looked up and had a value: by `get`, `contains_key`, `value_len`,
    /// `last_seqno`, and each key of `multi_get`. All handles and snapshots count.
    pub gets_found: u64,
    /// Keys that were looked up and had none; for `last_seqno` also those of a batch that lies over
    /// a snapshot, which have no number yet.
    pub gets_absent: u64,
    /// Scans created. `first` and `last` are scans, and so are the looks that `delete_range` and
    /// `OnEmpty::Refuse` take.
    pub scans: u64,
    /// Entries that scans handed out. A scan counts them a batch at a time, and when it is dropped.
    pub scan_entries: u64,
    /// Reads that waited for the disk, or for a read thread.
    pub cold_reads: u64,
    /// Bytes of batches read from the log when the database was opened.
    pub recovered_bytes: u64,
    /// How long recovery took then, in microseconds.
    pub recovery_micros: u64,
    /// Entries replayed from the log when the database was opened.
    pub recovered_entries: u64,
    /// Changes of the routes in the log that had not been settled when this open found them.
    pub recovered_changes: u64,
    /// Bytes after the last good log record that were cut off when the database was opened.
    pub recovered_torn_bytes: u64,
    /// Space that is set aside for the time when the disk is full, in bytes; 0 while it is in use.
    pub space_reserve_bytes: u64,
    /// Why the database is degraded, if it is: the parties that cannot work for now, in the order
    /// in which that began.
    pub troubles: Vec<TroubleStats>,
    /// Tables in use that were found damaged or missing since the database was opened. Only a read
    /// or a compaction finds damage here; `verify` searches for it.
    pub damaged: Vec<DamagedTable>,
    /// The ranges, in key order.
    pub ranges: Vec<RangeStats>,
    /// The mailboxes, in the order in which data flows.
    pub actors: Vec<ActorStats>,
}

impl Stats {
    /// Bytes written to the log, by flushes and by compactions, for each byte of the batches: 0.0
    /// before there is one.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("key", vec![7; 1000]).await?;
    /// db.flush().await?;
    /// // Once to the log, and once more by the flush.
    /// assert!(db.stats().write_amplification() > 1.0);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn write_amplification(&self) -> f64 {
        if self.bytes_written == 0 {
            return 0.0;
        }
        let written = self.log_bytes + self.flush_bytes + self.compaction_bytes_written;
        written as f64 / self.bytes_written as f64
    }

    /// About how many bytes of files there are for each byte that a reader can still get: 0.0
    /// before there is one. Files that only snapshots and scans keep do not count: see
    /// `pinned_obsolete_bytes`.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("key", vec![7; 1000]).await?;
    /// db.flush().await?;
    /// assert!(db.stats().space_amplification() >= 1.0);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn space_amplification(&self) -> f64 {
        if self.live_bytes == 0 {
            return 0.0;
        }
        self.table_file_bytes as f64 / self.live_bytes as f64
    }
}
