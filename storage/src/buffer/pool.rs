//! The pool that keeps chunks between memtables, and stocks a few before they are asked for.
//!
//! Guarantees: it never holds more bytes than it was made for; who takes a chunk never waits.
//!
//! Why a pool: the first touch of a page costs a trip into the kernel, about as much as inserting
//! the entries that fit on it. An engine that fills and drops memtables all the time pays that
//! once instead of always. Why a stock: the first touch of a large chunk is one such trip for all of it,
//! a millisecond or more, and would be made by a writer whom others wait for.
//!
//! It does not clear recycled memory; the writer writes every byte before anyone reads it.

use super::chunk::Chunk;
use super::class::ChunkClass;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
// Not `crate::sync`: no reader or writer protocol depends on this lock, so loom need not explore it.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Large chunks that should be there for those who grow: one for a buffer and one for its index.
const STOCKED_CHUNKS: usize = 2;

/// Memory of dropped memtables and compacted buffers, kept for new ones: an insert into recycled
/// memory takes about half the time of one into fresh memory.
///
/// Shared by the memtables of an engine. What it holds belongs to no memtable, so count it
/// (`held_bytes`) beside their `allocated_bytes`.
pub struct ChunkPool {
    chunks: Mutex<Held>,
    bytes_max: usize,
    stock_due: AtomicBool,
}

#[derive(Default)]
struct Held {
    of_class: [Vec<Chunk>; 3],
    bytes: usize,
}

impl Held {
    fn push(&mut self, class: ChunkClass, chunk: Chunk) {
        self.bytes += class.bytes();
        self.of_class[class as usize].push(chunk);
    }

    /// Are there too few large chunks, and is there room for one more?
    fn wants_stock(&self, bytes_max: usize) -> bool {
        self.of_class[ChunkClass::Large as usize].len() < STOCKED_CHUNKS
            && self.bytes + ChunkClass::Large.bytes() <= bytes_max
    }
}

/// A large chunk that the kernel has handed over.
fn touched() -> Chunk {
    let mut chunk = Chunk::of(ChunkClass::Large);
    chunk.touch();
    chunk
}

impl ChunkPool {
    /// An empty pool that will keep up to `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        let stock_due = AtomicBool::new(false);
        Arc::new(Self { chunks: Mutex::default(), bytes_max, stock_due })
    }

    /// Fills the pool up to `bytes` with memory that the kernel has already handed over, so that
    /// the first memtables are as fast as later ones. Takes about half a millisecond per MiB:
    /// for a thread of the engine's own.
    pub fn fill(&self, bytes: usize) {
        while self.held_bytes() + ChunkClass::Large.bytes() <= bytes.min(self.bytes_max) {
            self.put(vec![touched()]);
        }
    }

    /// Has a chunk been taken so that `stock` has something to do? True once for each time.
    #[inline]
    pub fn take_stock_due(&self) -> bool {
        self.stock_due.load(Ordering::Relaxed) && self.stock_due.swap(false, Ordering::Relaxed)
    }

    /// Sees to it that there are a few large chunks that the kernel has already handed over. As slow
    /// as `fill`: for a thread of the engine's own, when `take_stock_due` says so.
    pub fn stock(&self) {
        for _ in 0..STOCKED_CHUNKS {
            if self.lock().wants_stock(self.bytes_max) {
                self.put(vec![touched()]);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that wait here for the next memtable.
    pub fn held_bytes(&self) -> usize {
        self.lock().bytes
    }

    /// A chunk of this class, if there is one and nobody else is at the pool right now: the writer
    /// of a memtable does not wait.
    pub(crate) fn take(&self, class: ChunkClass) -> Option<Chunk> {
        let mut held = self.chunks.try_lock().ok()?;
        let chunk = held.of_class[class as usize].pop();
        if chunk.is_some() {
            held.bytes -= class.bytes();
        }
        // Who takes medium chunks will take large ones soon.
        if class > ChunkClass::Small && held.wants_stock(self.bytes_max) {
            self.stock_due.store(true, Ordering::Relaxed);
        }
        chunk
    }

    /// Keeps what it has room for, the largest first, and frees the rest, outside the lock.
    pub(crate) fn put(&self, mut freed: Vec<Chunk>) {
        freed.sort_unstable_by_key(Chunk::bytes);
        let mut rest = Vec::new();
        let mut held = self.lock();
        while let Some(chunk) = freed.pop() {
            match chunk.class() {
                Some(class) if held.bytes + class.bytes() <= self.bytes_max => {
                    held.push(class, chunk);
                }
                _ => rest.push(chunk),
            }
        }
        drop(held);
    }
}

impl fmt::Debug for ChunkPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkPool")
            .field("held_bytes", &self.held_bytes())
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

/// Where a buffer and an index get their chunks.
#[derive(Clone, Debug)]
pub(crate) struct ChunkSource {
    pool: Option<Arc<ChunkPool>>,
}

impl ChunkSource {
    pub(crate) fn new(pool: Option<Arc<ChunkPool>>) -> Self {
        Self { pool }
    }

    pub(crate) fn take(&self, class: ChunkClass) -> Chunk {
        let pooled = self.pool.as_ref().and_then(|pool| pool.take(class));
        pooled.unwrap_or_else(|| Chunk::of(class))
    }

    pub(crate) fn give(&self, chunks: Vec<Chunk>) {
        if let Some(pool) = &self.pool {
            pool.put(chunks);
        }
    }
}
