//! Where the numbers come from: the counters of the actors, and a look at the tables.

use super::{ActorStats, DamagedTable, RangeStats, Stats, TroubleStats};
use crate::levels::{Decision, LandingStats, LevelStats, situation};
use crate::pressure::StallStats;
use crate::read_counts::Reads;
use sluicedb_actors::engine::{Engine, ReadOnlyEngine};
use sluicedb_actors::failure::damage::Damage;
use sluicedb_actors::runtime::pool::Pool;
use sluicedb_storage::compact::{Claims, debt, live_bytes};
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::recover::RecoveryReport;
use sluicedb_storage::version::{Place, RangeVersion, TableCache};
use std::collections::BTreeSet;

/// Takes over counters that have the same name on both sides.
macro_rules! take_over {
    ($from:expr => $to:ident: $($name:ident)*) => {
        $($to.$name = $from.$name.get();)*
    };
}

impl Stats {
    /// Adds what a range has on disk. `files` has the files that were counted before.
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

    /// What a database that is open for reading only has as well: its tables, its reads, and what
    /// the open found.
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
            log_bytes log_syncs log_given_up_bytes log_segments log_retained_bytes
        );
        take_over!(counters.versions => stats:
            seals_size seals_pressure seals_log seals_idle seals_flush
            flushes flush_bytes edits manifest_syncs tables_deleted
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
