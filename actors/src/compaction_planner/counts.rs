//! What compactions did since the database was opened: in total, per level, and per shard of a
//! landing.

use super::decisions::Decisions;
use crate::counter::Counter;
use sluicedb_kernel::sync::lock;
use sluicedb_storage::compact::{Job, JobTask, LandingMode};
use sluicedb_storage::limits::LEVELS_MAX;
use sluicedb_storage::version::{Place, RangeId, SliceMeta};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

/// Counts of the planner and its workers since the database was opened.
#[derive(Debug, Default)]
pub struct CompactionCounts {
    /// Compactions begun.
    pub compactions_begun: Counter,
    /// Compactions finished.
    pub compactions: Counter,
    /// Compactions that only moved tables to another place by an edit.
    pub trivial_moves: Counter,
    /// Bytes of tables read by compactions.
    pub compaction_bytes_read: Counter,
    /// Bytes of tables written by compactions.
    pub compaction_bytes_written: Counter,
    /// Time that workers waited to keep their pace, in microseconds.
    pub compaction_pace_micros: Counter,
    /// Tables that landed.
    pub tables_landed: Counter,
    /// Merges of landings into themselves.
    pub keeps: LandingCounts,
    /// Merges of landings into their levels.
    pub drains: LandingCounts,
    /// Counts of L0 and of each level with its landing.
    pub levels: [LevelCounts; LEVELS_MAX + 1],
    /// For each shard of a landing that was merged: keeps, and drains.
    shards: Mutex<BTreeMap<(RangeId, Place), (LandingWork, LandingWork)>>,
    /// What the planner chose lately.
    pub decisions: Decisions,
}

/// Counts of one level of all ranges, with its landing.
#[derive(Debug, Default)]
pub struct LevelCounts {
    /// Bytes of this level's tables that merges read.
    pub bytes_read: Counter,
    /// Bytes of tables that merges wrote to this level.
    pub bytes_written: Counter,
    /// Bytes of tables that reached this level unchanged: they landed or were moved.
    pub bytes_taken_over: Counter,
}

/// Counts of one kind of merge of landings.
#[derive(Debug, Default)]
pub struct LandingCounts {
    /// Merges that finished.
    pub runs: Counter,
    /// Tables of landings that they merged.
    pub tables: Counter,
    /// Bytes of those tables.
    pub bytes: Counter,
    /// How long they took, in microseconds.
    pub micros: Counter,
}

/// What merges of one kind did in one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LandingWork {
    /// Merges that took tables of this shard.
    pub runs: u64,
    /// Tables of this shard that they merged.
    pub tables: u64,
    /// Bytes of those tables.
    pub bytes: u64,
    /// How long they took, in microseconds.
    pub micros: u64,
}

impl CompactionCounts {
    /// Counts `job`, which is installed and took this long. `added` is what it wrote or moved.
    pub(crate) fn done(&self, job: &Job, added: &[(Place, SliceMeta)], took: Duration) {
        self.compactions.add(1);
        let level = |place: Place| &self.levels[usize::from(place.level())];
        if job.is_metadata_only() {
            self.trivial_moves.add(1);
            if job.task == JobTask::Land {
                self.tables_landed.add(added.len() as u64);
            }
            if job.task != JobTask::Reshard {
                for (place, slice) in added {
                    level(*place).bytes_taken_over.add(slice.file_bytes());
                }
            }
            return;
        }
        for (place, slice) in job.slices() {
            level(place).bytes_read.add(slice.file_bytes());
        }
        let written = added.iter().map(|(_, slice)| slice.file_bytes()).sum();
        level(job.output).bytes_written.add(written);
        self.compaction_bytes_read.add(job.input_bytes());
        self.compaction_bytes_written.add(written);
        let (of, is_keep) = match job.mode() {
            LandingMode::None => return,
            LandingMode::Drain => (&self.drains, false),
            LandingMode::Keep => (&self.keeps, true),
        };
        let micros = took.as_micros() as u64;
        let mut shards = lock(&self.shards);
        of.runs.add(1);
        of.micros.add(micros);
        for inputs in job.inputs.iter().filter(|inputs| inputs.place.is_tier()) {
            let bytes = inputs.slices.iter().map(|slice| slice.file_bytes()).sum();
            let tables = inputs.slices.len() as u64;
            of.tables.add(tables);
            of.bytes.add(bytes);
            let (keeps, drains) = shards.entry((job.range, inputs.place)).or_default();
            let shard = if is_keep { keeps } else { drains };
            shard.runs += 1;
            shard.tables += tables;
            shard.bytes += bytes;
            shard.micros += micros;
        }
    }

    /// For each shard of the range's landings: its keeps and its drains.
    pub fn shards(&self, range: RangeId) -> Vec<(Place, LandingWork, LandingWork)> {
        let shards = lock(&self.shards);
        let of_range = shards.range((range, Place::L0)..=(range, Place::Main(LEVELS_MAX as u8)));
        of_range.map(|((_, place), (keeps, drains))| (*place, *keeps, *drains)).collect()
    }

    /// Forgets the shards of ranges that are gone.
    pub(super) fn prune(&self, ranges: &BTreeSet<RangeId>) {
        lock(&self.shards).retain(|(range, _), _| ranges.contains(range));
    }
}
