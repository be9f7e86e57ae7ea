//! The flush worker's disk work.

use crate::admission::RangeBudget;
use crate::failure::Failure;
use crate::version_manager::Files;
use crate::version_manager::outputs::Outputs;
use sluicedb_storage::compact::write_tables;
use sluicedb_storage::iter::MergeCursor;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::memtable::Memtable;
use sluicedb_storage::version::RangeVersion;
use std::sync::Arc;

/// Merges `sealed` (newest first) into L0 tables of `range`, which has this `budget`, each in one shard.
pub(super) fn write(
    files: &Arc<Files>,
    range: &RangeVersion,
    budget: RangeBudget,
    sealed: &[Arc<Memtable>],
) -> Result<Outputs, Failure> {
    let config = &files.environment.config;
    let bytes = sealed.iter().map(|table| table.used_bytes() as u64).sum();
    // INVARIANT(shard-disjoint): where this cuts depends on the range alone.
    let shards = range.shards.for_flush(bytes, budget.shard_cut_bytes_min());
    let sink = files.sink(config.l0_table.clone());
    let cursors = sealed.iter().map(|table| table.cursor(Seqno::MAX)).collect();
    let mut cursor = MergeCursor::new(cursors);
    let goes_on = || !files.failures.is_stopped();
    let metas = write_tables(&mut cursor, sink, &shards, u64::MAX, &goes_on)
        .inspect_err(|error| files.give_up_descriptors(error))?;
    Ok(Outputs::new(files, metas.ok_or_else(|| files.failures.why_stopped())?))
}
