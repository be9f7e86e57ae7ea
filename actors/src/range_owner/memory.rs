//! Memory of memtables: what new ones are made of, and who is to see to what is dead in them.

use sluicedb_kernel::signal::Signal;
use sluicedb_storage::buffer::BufferOptions;
use sluicedb_storage::memtable::{
    ChunkPool, Memtable, MemtableOptions, MemtableWriter, Reclaim, memtable_with,
};
use sluicedb_storage::points::ReadPoints;
use std::sync::Arc;

/// One for an engine.
#[derive(Debug)]
pub struct Memory {
    /// Memory of flushed memtables, for new ones.
    pub chunks: Arc<ChunkPool>,
    /// Where snapshots and scans read: what they may need is not dead.
    pub points: Arc<ReadPoints>,
    /// A range has garbage to be reclaimed, should no write come that does it. The reclaimer waits
    /// for it.
    pub reclaim_due: Signal,
    /// The pool of chunks should be stocked, or has chunks to free. The reclaimer waits for it.
    pub restock_due: Signal,
    memtables: MemtableOptions,
}

impl Memory {
    /// The pool holds so many bytes; overwritten entries are reclaimed by `reclaim`, if at all.
    pub fn new(pool_bytes: usize, reclaim: Option<BufferOptions>) -> Self {
        let (chunks, points) = (ChunkPool::new(pool_bytes), ReadPoints::new());
        let reclaim = reclaim.map(|options| Reclaim { points: Arc::clone(&points), options });
        let memtables = MemtableOptions { pool: Some(Arc::clone(&chunks)), reclaim };
        Self { chunks, points, reclaim_due: Signal::new(), restock_due: Signal::new(), memtables }
    }

    /// An empty memtable.
    pub fn memtable(&self, id: u64) -> (Arc<Memtable>, MemtableWriter) {
        memtable_with(id, self.memtables.clone())
    }
}
