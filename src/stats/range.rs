//! One range in numbers.

use crate::keyspaces::name_of;
use sluicedb_actors::range_owner::RangeEntry;
use sluicedb_storage::memtable::ReclaimStats;
use sluicedb_storage::version::{Keyspaces, Place, RangeVersion};

/// One range: its memory, its flushes, and the waits for it. Counters are since the database was
/// opened, sizes as of now.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeStats {
    /// The range's number.
    pub range: u32,
    /// The name of its keyspace.
    pub keyspace: String,
    /// Its first key; empty for the first range of the keyspace. It is serialized as text, with
    /// bytes that are not printable ASCII as `\xNN`.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub range_start: Vec<u8>,
    /// The first key behind it; `None` for the last range of the keyspace. It is serialized in the
    /// same way.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_optional_text"))]
    pub range_end: Option<Vec<u8>>,
    /// Bytes in its active memtable, as accounted.
    pub active_bytes: u64,
    /// Bytes in its sealed memtables, as accounted.
    pub sealed_bytes: u64,
    /// Its sealed memtables, the one being flushed included.
    pub sealed_memtables: u64,
    /// The hard limit of its active memtable, in bytes. At half of it the memtable is to be sealed;
    /// at the limit the range's writers wait.
    pub active_bytes_max: u64,
    /// The most bytes that its memtables may hold together. At this limit none is sealed any more.
    pub memory_bytes_max: u64,
    /// Batches applied.
    pub batches: u64,
    /// Active memtables replaced by a fresh one.
    pub rotations: u64,
    /// Flushes published. One may take several sealed memtables.
    pub flushes: u64,
    /// Waits for room in this range.
    pub waits: u64,
    /// Time waited for room in this range, in microseconds. A wait counts when it ends.
    pub wait_micros: u64,
    /// Tables in L0.
    pub l0_tables: u64,
    /// Sorted runs of these tables. A get may have to look into each.
    pub l0_runs: u64,
    /// Bytes on disk per level, L0 first.
    pub level_bytes: Vec<u64>,
    /// The memory of overwritten entries, and how much of it was reclaimed.
    pub buffer: BufferStats,
}

/// The buffer behind a range's active memtable.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferStats {
    /// Bytes of live entries.
    pub live_bytes: u64,
    /// Bytes of overwritten entries that no reader can need, as of the last look.
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
    pub(super) fn of(range: &RangeEntry, keyspaces: &Keyspaces) -> Self {
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

    /// What it has on disk.
    pub(super) fn of_tables(range: &RangeVersion, keyspaces: &Keyspaces) -> Self {
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
