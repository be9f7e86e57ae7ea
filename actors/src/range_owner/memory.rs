//! Memory of memtables: where a new one gets its chunks, and the signals that call the reclaimer.

use crate::admission::RangeBudget;
use sluicedb_kernel::signal::Signal;
use sluicedb_storage::buffer::BufferOptions;
use sluicedb_storage::memtable::{
    ChunkPool, Memtable, MemtableOptions, MemtableWriter, PoolLimits, Reclaim, memtable_with,
};
use sluicedb_storage::points::ReadPoints;
use std::sync::Arc;

/// There is one per engine.
#[derive(Debug)]
pub struct Memory {
    /// Chunks of flushed memtables, kept for new ones.
    pub chunks: Arc<ChunkPool>,
    /// Where snapshots and scans read. What they may need is not retired.
    pub points: Arc<ReadPoints>,
    /// A range has garbage, which no write may reclaim. Wakes the reclaimer.
    pub reclaim_due: Signal,
    /// The chunk pool should be stocked, or has chunks to free. Wakes the reclaimer.
    pub restock_due: Signal,
    memtables: MemtableOptions,
}

impl Memory {
    /// A chunk pool with these limits. Overwritten entries are reclaimed as `reclaim` says, if at
    /// all.
    pub fn new(pool: PoolLimits, reclaim: Option<BufferOptions>) -> Self {
        let (chunks, points) = (ChunkPool::new(pool), ReadPoints::new());
        let reclaim = reclaim.map(|options| Reclaim { points: Arc::clone(&points), options });
        let memtables =
            MemtableOptions { pool: Some(Arc::clone(&chunks)), reclaim, full_bytes: None };
        Self { chunks, points, reclaim_due: Signal::new(), restock_due: Signal::new(), memtables }
    }

    /// An empty memtable for a range with this budget.
    pub fn memtable(&self, id: u64, budget: RangeBudget) -> (Arc<Memtable>, MemtableWriter) {
        let full_bytes = Some(budget.memtable_bytes);
        memtable_with(id, MemtableOptions { full_bytes, ..self.memtables.clone() })
    }
}
