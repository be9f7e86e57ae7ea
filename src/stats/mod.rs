//! What the database is doing, in numbers.
//!
//! Long because every number has a field, and a sentence that says what it counts.

use crate::health::{Party, Trouble};
use crate::keyspaces::name_of;
use crate::levels::{Decision, LandingStats, LevelStats, situation};
use crate::pressure::{Pressure, StallStats};
use crate::read_counts::Reads;
use sluicedb_actors::engine::{Engine, ReadOnlyEngine};
use sluicedb_actors::failure::damage::Damage;
use sluicedb_actors::failure::health::State;
use sluicedb_actors::failure::{Concern, Failure};
use sluicedb_actors::range_owner::RangeEntry;
use sluicedb_actors::runtime::pool::Pool;
use sluicedb_storage::Error as StorageError;
use sluicedb_storage::compact::{Claims, debt, live_bytes};
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::memtable::ReclaimStats;
use sluicedb_storage::recover::RecoveryReport;
use sluicedb_storage::version::{Keyspaces, Place, RangeVersion, TableCache};
use std::collections::BTreeSet;

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

/// What keeps a part of the engine from its work, for now.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TroubleStats {
    /// Who cannot work.
    pub party: Party,
    /// For which range, if it is not for all.
    pub range: Option<u32>,
    /// Why, in words.
    pub error: String,
}

/// A table that was found damaged or missing. Its keys cannot be read, and not be merged with what
/// lies above them; all others are as they were.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedTable {
    /// The file.
    pub path: std::path::PathBuf,
    /// Where in it the damage was noticed; `None` if it is missing.
    pub offset: Option<u64>,
    /// What was found, in words.
    pub error: String,
}

impl DamagedTable {
    fn of(error: &StorageError) -> Option<Self> {
        let (path, offset) = match error {
            StorageError::Corrupt { path, offset, .. } => (path, Some(*offset)),
            StorageError::Missing { path } => (path, None),
            _ => return None,
        };
        Some(Self { path: path.clone(), offset, error: error.to_string() })
    }
}

impl TroubleStats {
    fn all(state: State<Concern, Failure>) -> Vec<Self> {
        let State::Degraded(causes) = state else { return Vec::new() };
        let one = |trouble: Trouble| Self {
            party: trouble.party,
            range: trouble.range,
            error: trouble.error.to_string(),
        };
        Trouble::all(causes).into_iter().map(one).collect()
    }
}

/// Counters since the database was opened, and sizes as of now.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Batches committed (a `put` is a batch of one).
    pub commits: u64,
    /// Those handled on their caller's thread without queueing.
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
    /// Ranges that were to be split or merged for one of these reasons, and could not: most often
    /// because all that there is, is under one key. It is tried again, ever later.
    pub range_tries_failed: u64,
    /// Queued commits that a change of the routes met on their way.
    pub routed_again: u64,
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
    /// All waits for room, by what it was that was short when they began.
    pub stalls: Vec<StallStats>,
    /// How near the database is to making writers wait.
    pub pressure: Pressure,
    /// Bytes written to the log, records and padding.
    pub log_bytes: u64,
    /// Syncs of the log.
    pub log_syncs: u64,
    /// Log segments that a recovery would read.
    pub log_segments: u64,
    /// Bytes of those among them that are closed: what `log_retained_bytes_max` bounds.
    pub log_retained_bytes: u64,
    /// Bytes in active memtables, as accounted.
    pub active_bytes: u64,
    /// Bytes in sealed memtables, as accounted.
    pub sealed_bytes: u64,
    /// Bytes taken from the write buffer: memtables, and writes on their way into them. Exact at
    /// the moment of the call, and never above `write_buffer_bytes`.
    pub write_buffer_used_bytes: u64,
    /// The most that writes which are not yet in tables may hold.
    pub write_buffer_bytes: u64,
    /// Snapshots and scans that are open: each keeps memtables, and files, of its time.
    pub read_points: u64,
    /// How long the oldest of them has been open, at least, in microseconds; 0 without any. See
    /// [`Pin::age`](crate::Pin::age).
    pub oldest_pin_micros: u64,
    /// Tables that compactions have replaced and that somebody still reads.
    /// [`Db::pins`](crate::Db::pins) tells who.
    pub pinned_obsolete_tables: u64,
    /// Bytes of their files: space on the disk that only they take.
    pub pinned_obsolete_bytes: u64,
    /// Memory kept for the next memtables, beside the write buffer: at most two memtables.
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
    /// Those that only renamed tables to another level.
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
    /// Checkpoints that came to nothing.
    pub checkpoints_failed: u64,
    /// Bytes of tables that checkpoints have linked.
    pub checkpoint_bytes_linked: u64,
    /// Bytes of tables that they had to copy.
    pub checkpoint_bytes_copied: u64,
    /// Bytes of tables that they made of what was in memory.
    pub checkpoint_bytes_written: u64,
    /// How long the checkpoints that were made took, in microseconds.
    pub checkpoint_micros: u64,
    /// Replacements of spans, and tables or batches with deleted ranges that were brought in, asked
    /// for.
    pub bulk_jobs: u64,
    /// Entries that were written into tables for them, or came in tables that were taken over; of
    /// those under way as well, so it tells how far one is.
    pub bulk_entries: u64,
    /// Tables of other databases, or of this one, that were taken over as they are.
    pub bulk_tables_linked: u64,
    /// Manifest edits made durable.
    pub edits: u64,
    /// Live tables.
    pub tables: u64,
    /// Their bytes on disk.
    pub table_bytes: u64,
    /// Entries in them, tombstones and superseded versions included.
    pub table_entries: u64,
    /// Bytes of their files. A table of which a part is in use has its whole file.
    pub table_file_bytes: u64,
    /// About how many bytes of tables a reader can still get: what newer entries hide, and
    /// tombstones, apart.
    pub live_bytes: u64,
    /// About how many bytes compactions have to write until none is due: what they are behind by.
    pub compaction_debt_bytes: u64,
    /// What was written, read and taken over as it is since the database was opened: in L0, and in
    /// each level with its landing, of all ranges. As many as there are or were.
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
    /// Sorted runs that a read of one key may have to look into, at most, memtables apart.
    pub read_runs_max: u64,
    /// What compaction has chosen lately, and why; oldest first, 64 at most.
    pub decisions: Vec<Decision>,
    /// Obsolete tables deleted.
    pub tables_deleted: u64,
    /// Tables that are open, those of old snapshots included: each has a file descriptor.
    pub open_tables: u64,
    /// Tables that may be open at a time.
    pub open_tables_max: u64,
    /// Tables opened.
    pub table_opens: u64,
    /// Tables closed because others needed the room. If it rises as fast as `table_opens` does,
    /// `open_tables_max` or `cache_bytes` is too small for what is read.
    pub table_evictions: u64,
    /// Memory of the open tables' indexes, in bytes. Part of the cache's capacity.
    pub index_bytes: u64,
    /// Memory of the open tables' filters, in bytes. Part of the cache's capacity.
    pub filter_bytes: u64,
    /// Decoded blocks in the cache, in bytes.
    pub cache_bytes: u64,
    /// Capacity of the cache, in bytes: blocks, indexes and filters.
    pub cache_capacity_bytes: u64,
    /// Block look-ups that the cache answered.
    pub cache_hits: u64,
    /// Block look-ups that it did not.
    pub cache_misses: u64,
    /// Keys that were looked up and had a value: by `get`, `contains_key`, `value_len`,
    /// `last_seqno`, and each key of `multi_get`. All handles and snapshots count.
    pub gets_found: u64,
    /// Keys that were looked up and had none.
    pub gets_absent: u64,
    /// Scans created; `first` and `last` are scans.
    pub scans: u64,
    /// Entries that scans handed out. A scan counts them a batch at a time, and when it is dropped.
    pub scan_entries: u64,
    /// Reads that went to a read thread.
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
    /// Space on the disk that is set aside for the time when it is full, in bytes; 0 while it is in
    /// use.
    pub space_reserve_bytes: u64,
    /// Why the database is degraded, if it is: who cannot work for now, in the order in which it
    /// began.
    pub troubles: Vec<TroubleStats>,
    /// Tables that were found damaged or missing since the database was opened and are still in
    /// use. A read or a compaction has to come across the damage; `verify` looks for it.
    pub damaged: Vec<DamagedTable>,
    /// The ranges, in key order.
    pub ranges: Vec<RangeStats>,
    /// The mailboxes, in the order in which data flows.
    pub actors: Vec<ActorStats>,
}

/// One range: its memory, what became of it, and who waited for it. Counters are since the database
/// was opened, sizes as of now.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeStats {
    /// The range's number.
    pub range: u32,
    /// Whose keys it has: the name of a keyspace.
    pub keyspace: String,
    /// The first key that is routed to it; empty for the first range of the keyspace. Serialized as
    /// text, other bytes than printable ASCII as `\xNN`.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub range_start: Vec<u8>,
    /// The first key that is not any more; `None` for its last range. Serialized likewise.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_optional_text"))]
    pub range_end: Option<Vec<u8>>,
    /// Bytes in its active memtable, as accounted.
    pub active_bytes: u64,
    /// Bytes in its sealed memtables, as accounted.
    pub sealed_bytes: u64,
    /// Its sealed memtables, the one being flushed included.
    pub sealed_memtables: u64,
    /// The hard limit of its active memtable, in bytes: at half of it, it is to be sealed, and at
    /// it the range's writers wait.
    pub active_bytes_max: u64,
    /// What its memtables may hold together, in bytes, before none is sealed any more.
    pub memory_bytes_max: u64,
    /// Batches applied.
    pub batches: u64,
    /// Active memtables replaced by a fresh one.
    pub rotations: u64,
    /// Flushes published; one may take several sealed memtables along.
    pub flushes: u64,
    /// Waits for room in this range.
    pub waits: u64,
    /// Time waited for room in this range, in microseconds. A wait counts when it ends.
    pub wait_micros: u64,
    /// Tables in L0.
    pub l0_tables: u64,
    /// Sorted runs that they form: places where a read may have to look.
    pub l0_runs: u64,
    /// Bytes on disk per level, L0 first.
    pub level_bytes: Vec<u64>,
    /// What overwritten entries are taking, and what was taken back from them.
    pub buffer: BufferStats,
}

/// The buffer behind a range's active memtable.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferStats {
    /// Bytes of entries that somebody may need.
    pub live_bytes: u64,
    /// Bytes of entries that are overwritten and that nobody can need, as of the last look.
    pub dead_bytes: u64,
    /// Size of its chunks, in bytes: 64 KiB, 512 KiB or 2 MiB.
    pub chunk_bytes: u64,
    /// Is it being compacted?
    pub compacting: bool,
    /// Compactions since the database was opened, earlier memtables' included; likewise below.
    pub compactions: u64,
    /// Steps of at most 64 KiB that they took.
    pub steps: u64,
    /// Bytes that they copied.
    pub copied_bytes: u64,
    /// Bytes of memory that became free without a flush.
    pub reclaimed_bytes: u64,
}

impl BufferStats {
    fn of(stats: &ReclaimStats) -> Self {
        Self {
            live_bytes: stats.buffer.live_bytes,
            dead_bytes: stats.buffer.dead_bytes,
            chunk_bytes: stats.buffer.class.bytes() as u64,
            compacting: stats.buffer.compacting,
            compactions: stats.compactions,
            steps: stats.steps,
            copied_bytes: stats.copied_bytes,
            reclaimed_bytes: stats.reclaimed_bytes,
        }
    }
}

impl RangeStats {
    fn of(range: &RangeEntry, keyspaces: &Keyspaces) -> Self {
        let RangeEntry { active, sealed, stable, owner, .. } = range;
        Self {
            active_bytes: owner.sizes.active_bytes() as u64,
            sealed_bytes: owner.sizes.sealed_bytes() as u64,
            sealed_memtables: sealed.len() as u64,
            active_bytes_max: owner.local.limit(),
            memory_bytes_max: owner.budget.buffer_bytes as u64,
            batches: owner.sizes.batches(),
            rotations: owner.rotations.get(),
            flushes: owner.flushes.get(),
            waits: owner.waits.waits(),
            wait_micros: owner.waits.micros(),
            buffer: BufferStats::of(&owner.sizes.reclaim_stats(active)),
            ..Self::of_tables(stable, keyspaces)
        }
    }

    /// What is on disk of it.
    fn of_tables(range: &RangeVersion, keyspaces: &Keyspaces) -> Self {
        let mut level_bytes = vec![0; usize::from(range.deepest()) + 1];
        for layer in range.layers.iter() {
            level_bytes[usize::from(layer.place.level())] += layer.run.bytes();
        }
        Self {
            range: range.id.0,
            keyspace: name_of(range, keyspaces),
            range_start: range.span.lo.to_vec(),
            range_end: range.span.hi.as_ref().map(|end| end.to_vec()),
            l0_tables: range.layers.count(Place::L0) as u64,
            l0_runs: range.layers.at(Place::L0).len() as u64,
            level_bytes,
            ..Self::default()
        }
    }
}

#[cfg(feature = "serde")]
pub(crate) fn as_text<S: serde::Serializer>(key: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&key.escape_ascii())
}

#[cfg(feature = "serde")]
#[allow(clippy::ref_option, reason = "the signature is serde's")]
pub(crate) fn as_optional_text<S: serde::Serializer>(
    key: &Option<Vec<u8>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match key {
        Some(key) => to.collect_str(&key.escape_ascii()),
        None => to.serialize_none(),
    }
}

/// Takes over counters that have the same name on both sides.
macro_rules! take_over {
    ($from:expr => $to:ident: $($name:ident)*) => {
        $($to.$name = $from.$name.get();)*
    };
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

    /// Bytes of the tables' files for each byte of them that a reader can still get, about: 0.0
    /// before there is one. Files that only snapshots and scans keep are told apart:
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

    /// Counts what a range has on disk; each of its files once, if it is not in `files`.
    pub(crate) fn count_tables(&mut self, range: &RangeVersion, files: &mut BTreeSet<FileNumber>) {
        self.live_bytes += live_bytes(range);
        for (_, slice) in range.layers.slices() {
            if files.insert(slice.number()) {
                self.table_file_bytes += slice.table.file_bytes;
            }
        }
        for layer in range.layers.iter() {
            self.tables += layer.run.slices().len() as u64;
            self.table_bytes += layer.run.bytes();
            self.table_entries += layer.run.entries();
            if let Place::Landing(..) = layer.place {
                self.landing_tables += layer.run.slices().len() as u64;
                self.landing_bytes += layer.run.bytes();
            }
        }
        let runs = range.layers.runs().len() as u64;
        self.read_runs_max = self.read_runs_max.max(runs);
    }

    /// Of a database without writers.
    pub(crate) fn of_read_only(engine: &ReadOnlyEngine, reads: Reads) -> Self {
        let (tables, recovery) = (engine.tables(), engine.recovery());
        let mut stats = Self {
            visible_seqno: engine.view().upto.0,
            durable_seqno: engine.view().upto.0,
            active_bytes: engine.replayed_bytes(),
            ..Self::of_both(tables, recovery, reads, &engine.read_pool(), &engine.damage())
        };
        let mut files = BTreeSet::new();
        let version = engine.version();
        for range in version.ranges() {
            stats.count_tables(range, &mut files);
            stats.ranges.push(RangeStats::of_tables(range, version.keyspaces()));
        }
        stats
    }

    /// What a database that is only read has as well: its tables, its reads, and what the open
    /// found.
    fn of_both(
        tables: &TableCache,
        recovery: &RecoveryReport,
        reads: Reads,
        threads: &Pool,
        damage: &Damage,
    ) -> Self {
        let cache = &tables.limits().blocks;
        let damaged = damage.list();
        Self {
            open_tables: cache.open_tables(),
            open_tables_max: tables.limits().open_max as u64,
            table_opens: tables.opens(),
            table_evictions: tables.evictions(),
            index_bytes: cache.index_bytes(),
            filter_bytes: cache.filter_bytes(),
            cache_bytes: cache.used_bytes(),
            cache_capacity_bytes: cache.capacity_bytes(),
            cache_hits: cache.hits(),
            cache_misses: cache.misses(),
            gets_found: reads.found,
            gets_absent: reads.absent,
            scans: reads.scans,
            scan_entries: reads.scanned,
            cold_reads: threads.cold_reads(),
            damaged: damaged.iter().filter_map(|error| DamagedTable::of(error)).collect(),
            recovered_bytes: recovery.bytes_replayed,
            recovery_micros: recovery.took.as_micros() as u64,
            recovered_entries: recovery.entries_replayed,
            recovered_changes: recovery.changes_replayed,
            recovered_torn_bytes: recovery.log.as_ref().map_or(0, |log| log.bytes_dropped),
            ..Self::default()
        }
    }

    pub(crate) fn of(engine: &Engine, reads: Reads) -> Self {
        let counters = engine.counters();
        let (failures, accounts) = (engine.failures(), engine.accounts());
        let memory = engine.memory();
        let superversion = engine.superversion();
        let obsolete = engine.obsolete_tables();
        let mut stats = Self {
            visible_seqno: engine.visible().0,
            durable_seqno: engine.durable_seqno().0,
            waits_local: accounts.local_waits.waits(),
            waits_global: accounts.global_waits.waits(),
            wait_micros_local: accounts.local_waits.micros(),
            wait_micros_global: accounts.global_waits.micros(),
            stalls: StallStats::all(accounts),
            pressure: accounts.board.measure().into(),
            write_buffer_used_bytes: accounts.global.used(),
            write_buffer_bytes: accounts.global.limit(),
            read_points: memory.points.len() as u64,
            oldest_pin_micros: engine.oldest_pin().map_or(0, |age| age.as_micros() as u64),
            pinned_obsolete_tables: obsolete.len() as u64,
            pinned_obsolete_bytes: obsolete.iter().map(|table| table.bytes).sum(),
            spare_chunk_bytes: memory.chunks.held_bytes() as u64,
            space_reserve_bytes: failures.reserve.bytes(),
            troubles: TroubleStats::all(failures.health.state()),
            job_retries: failures.attempts.retries.get(),
            decisions: counters
                .compactions
                .decisions
                .list()
                .into_iter()
                .map(Decision::from)
                .collect(),
            ..Self::of_both(
                engine.tables(),
                engine.recovery(),
                reads,
                &engine.read_pool(),
                &failures.damage,
            )
        };
        take_over!(accounts => stats: overloaded_local overloaded_global);
        take_over!(counters.log => stats:
            commits commits_inline changes routed_again entries_written bytes_written
            log_bytes log_syncs log_segments log_retained_bytes
        );
        take_over!(counters.versions => stats:
            seals_size seals_pressure seals_log seals_idle seals_flush
            flushes flush_bytes edits tables_deleted
        );
        take_over!(counters.ranges => stats:
            splits_bytes splits_entries splits_heat merges_cold range_tries_failed
        );
        take_over!(counters.checkpoints => stats:
            checkpoints checkpoints_failed checkpoint_bytes_linked checkpoint_bytes_copied
            checkpoint_bytes_written checkpoint_micros
        );
        take_over!(counters.bulk => stats: bulk_jobs bulk_entries bulk_tables_linked);
        take_over!(counters.compactions => stats:
            compactions trivial_moves compaction_bytes_read compaction_bytes_written
            compaction_pace_micros tables_landed
        );
        stats.keeps = LandingStats::of(&counters.compactions.keeps);
        stats.drains = LandingStats::of(&counters.compactions.drains);
        let causes = [stats.seals_size, stats.seals_pressure, stats.seals_log, stats.seals_idle];
        stats.seals = causes.iter().sum::<u64>() + stats.seals_flush;
        let version = superversion.version(engine.tables().obsolete_files());
        let (claims, set_aside) = (Claims::new(), BTreeSet::new());
        let told = (&engine.config().compaction, engine.unix_ms());
        let situation = situation(told, &version, &claims, &set_aside);
        let mut files = BTreeSet::new();
        for range in &superversion.ranges {
            stats.compaction_debt_bytes += debt(&range.stable, &situation).iter().sum::<u64>();
            stats.count_tables(&range.stable, &mut files);
            let range = RangeStats::of(range, &superversion.keyspaces);
            stats.active_bytes += range.active_bytes;
            stats.sealed_bytes += range.sealed_bytes;
            stats.ranges.push(range);
        }
        let depth = stats.ranges.iter().map(|range| range.level_bytes.len()).max().unwrap_or(0);
        stats.by_level = LevelStats::all(&counters.compactions.levels, stats.flush_bytes, depth);
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
