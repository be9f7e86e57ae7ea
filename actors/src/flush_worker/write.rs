//! The flush worker's disk work.

use crate::failure::Failure;
use crate::range_owner::RangeEntry;
use crate::version_manager::Files;
use crate::version_manager::outputs::Outputs;
use bytes::Bytes;
use sluicedb_storage::compact::write_tables;
use sluicedb_storage::iter::MergeCursor;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::view::MemtableSlice;
use std::sync::Arc;

/// Merges `sealed` (newest first) into L0 tables. Each table is for one of `ranges` and for one of
/// its shards. `ranges` are of one keyspace, in key order, and together hold all keys of these
/// memtables.
pub(super) fn write(
    files: &Arc<Files>,
    ranges: &[RangeEntry],
    sealed: &[MemtableSlice],
) -> Result<Outputs, Failure> {
    let config = &files.environment.config;
    let bytes: u64 = sealed.iter().map(|table| table.used_bytes() as u64).sum();
    // INVARIANT(shard-disjoint): the cuts depend on the ranges alone.
    let mut bounds: Vec<Bytes> = Vec::new();
    for range in ranges {
        bounds.push(range.span().lo.clone());
        let cut_bytes_min = range.owner.budget.shard_cut_bytes_min();
        let shards = &range.stable.shards;
        bounds.extend_from_slice(shards.for_flush(bytes / ranges.len() as u64, cut_bytes_min));
    }
    let sink = files.sink(ranges[0].stable.own.l0_table(&config.l0_table));
    let cursors = sealed.iter().map(|table| table.cursor(Seqno::MAX)).collect();
    let mut cursor = MergeCursor::new(cursors);
    let goes_on = || !files.failures.is_stopped();
    let metas = write_tables(&mut cursor, sink, &bounds, &goes_on)
        .inspect_err(|error| files.give_up_descriptors(error))?;
    Ok(Outputs::new(files, metas.ok_or_else(|| files.failures.why_stopped())?))
}
