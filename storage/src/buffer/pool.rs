//! The pool keeps chunks between memtables, and stocks a few before they are needed.
//!
//! Guarantees: with the chunks that are in use it never exceeds its limit, unless by what it may
//! always hold. A caller that takes a chunk never waits.
//!
//! Why a pool: the first touch of a page enters the kernel, and costs about as much as inserting
//! the entries that fit on the page. On a virtual machine it costs many times that. An engine that
//! continually fills and drops memtables pays that once instead of always.
//!
//! Why two limits: while writes go on, what one flush frees the next memtables will take, however
//! much it is. So nothing is freed while all chunks together, used or not, are within the memory
//! that they may take when writers wait for room. After that, `trim` leaves little.
//!
//! Why a stock: the first touch of a large chunk takes a millisecond or more, and a writer would do
//! it while others wait. If the stock is used up, the writer gets memory with small pages instead.
//! Touching these costs more in total, but never much at once.
//!
//! Chunks that the pool has no room for are freed, which is as slow as the first touch. The thread
//! that returns a chunk may be a writer, or a task that drops its last view. So it leaves the chunk
//! to an *attendant*, a thread of the engine, as long as there is one (`attend`). Views that
//! outlive the engine free their chunks themselves.
//!
//! The pool does not clear recycled memory. The writer writes every byte before anyone reads it.

use super::chunk::Chunk;
use super::class::ChunkClass;
use crate::sync::lock;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
// Not `crate::sync`: no protocol of readers or writers depends on this lock, so loom need not
// explore it.
use std::sync::{Arc, Mutex, MutexGuard};

/// Large chunks that should be in stock for a growing memtable: one for its buffer and one for its
/// index.
const STOCKED_CHUNKS: usize = 2;

/// Memory of dropped memtables and compacted buffers, kept for new ones. An insert into recycled
/// memory takes about half the time of one into fresh memory.
///
/// The memtables of an engine share it. What it holds belongs to no memtable, so count `held_bytes`
/// in addition to their `allocated_bytes`.
pub struct ChunkPool {
    chunks: Mutex<Held>,
    limits: PoolLimits,
    /// Bytes of the chunks that were taken and not yet put back.
    pub(super) lent_bytes: AtomicUsize,
    restock_due: AtomicBool,
}

/// How much a pool may hold.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Bytes that it may always hold, also while nothing is written.
    pub kept_bytes: usize,
    /// It may hold more, as long as all chunks together, those in use included, take at most so
    /// many bytes.
    pub all_bytes: usize,
}

#[derive(Default)]
struct Held {
    of_class: [Vec<Chunk>; 3],
    bytes: usize,
    /// Chunks without room, which the attendant will free.
    excess: Vec<Chunk>,
    /// Did somebody who takes large chunks find too few since the last restock?
    stock_due: bool,
    /// Calls the attendant, if there is one.
    call: Option<Call>,
}

type Call = Arc<dyn Fn() + Send + Sync>;

/// While this lives, its owner must call `restock` when the callback is called.
#[must_use = "dropped, it attends no longer"]
pub struct Attendant<'a> {
    pool: &'a ChunkPool,
}

impl Drop for Attendant<'_> {
    fn drop(&mut self) {
        self.pool.lock().call = None;
        self.pool.free_excess();
    }
}

impl fmt::Debug for Attendant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attendant").finish_non_exhaustive()
    }
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

    /// Takes chunks out until at most `bytes_max` bytes are left, the smallest first.
    fn take_beyond(&mut self, bytes_max: usize) -> Vec<Chunk> {
        let mut beyond = Vec::new();
        for class in ChunkClass::ALL {
            while self.bytes > bytes_max
                && let Some(chunk) = self.of_class[class as usize].pop()
            {
                self.bytes -= class.bytes();
                beyond.push(chunk);
            }
        }
        beyond
    }
}

impl ChunkPool {
    /// An empty pool with these limits.
    pub fn new(limits: PoolLimits) -> Arc<Self> {
        let (lent_bytes, restock_due) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { chunks: Mutex::default(), limits, lent_bytes, restock_due })
    }

    /// The bytes that it may hold now.
    fn bytes_max(&self) -> usize {
        let PoolLimits { kept_bytes, all_bytes } = self.limits;
        kept_bytes.max(all_bytes.saturating_sub(self.lent_bytes()))
    }

    /// Bytes of the chunks that are in use.
    pub fn lent_bytes(&self) -> usize {
        self.lent_bytes.load(Ordering::Relaxed)
    }

    /// Does it hold more than it may always hold?
    pub fn is_ample(&self) -> bool {
        self.held_bytes() > self.limits.kept_bytes
    }

    /// Frees what it may hold only while writes go on. Slow: only for a thread of the engine.
    pub fn trim(&self) {
        let beyond = self.lock().take_beyond(self.limits.kept_bytes);
        drop(beyond);
    }

    /// Makes the caller the attendant, which frees the chunks that the pool has no room for. `call`
    /// is called when there is such a chunk, unless that is reported by `take_restock_due`. It may
    /// run on any thread, and must be short.
    pub fn attend(&self, call: impl Fn() + Send + Sync + 'static) -> Attendant<'_> {
        self.lock().call = Some(Arc::new(call));
        Attendant { pool: self }
    }

    /// Has a memtable's writer taken or returned a chunk so that `restock` has something to do?
    /// Returns true once per occurrence.
    #[inline]
    pub fn take_restock_due(&self) -> bool {
        self.restock_due.load(Ordering::Relaxed) && self.restock_due.swap(false, Ordering::Relaxed)
    }

    /// Frees chunks without room. Stocks a few large ones whose pages the kernel has already
    /// provided, if somebody takes such chunks. Takes about half a millisecond per MiB: only for a
    /// thread of the engine, when `take_restock_due` returns true or the attendant is called.
    pub fn restock(&self) {
        let beyond = self.lock().take_beyond(self.bytes_max());
        drop(beyond);
        let stock_due = std::mem::take(&mut self.lock().stock_due);
        for _ in 0..STOCKED_CHUNKS {
            if !stock_due || !self.lock().wants_stock(self.bytes_max()) {
                break;
            }
            let chunk = Chunk::ready();
            let mut held = self.lock();
            // Others may have put chunks back meanwhile.
            if held.wants_stock(self.bytes_max()) {
                held.push(ChunkClass::Large, chunk);
            }
        }
        self.free_excess();
    }

    /// Frees the chunks without room, outside the lock.
    fn free_excess(&self) {
        let excess = std::mem::take(&mut self.lock().excess);
        drop(excess);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        lock(&self.chunks)
    }

    /// Bytes that are available to the next memtables.
    pub fn held_bytes(&self) -> usize {
        self.lock().bytes
    }

    /// A chunk of this class. `None` if there is none, or if the pool is in use: a memtable's
    /// writer does not wait. `stocks`: large chunks will be taken.
    fn take(&self, class: ChunkClass, stocks: bool) -> Option<Chunk> {
        let mut held = self.chunks.try_lock().ok()?;
        let chunk = held.of_class[class as usize].pop();
        if chunk.is_some() {
            held.bytes -= class.bytes();
        } else if held.bytes > self.bytes_max() {
            // It holds chunks of other classes, for which there is no room any more.
            self.restock_due.store(true, Ordering::Relaxed);
        }
        if stocks {
            self.note_stock(&mut held);
        }
        chunk
    }

    /// Requests a stock of large chunks, if there is none and there is room for it. Returns whether
    /// it did.
    fn note_stock(&self, held: &mut Held) -> bool {
        let wanted = held.wants_stock(self.bytes_max());
        if wanted {
            held.stock_due = true;
            self.restock_due.store(true, Ordering::Relaxed);
        }
        wanted
    }

    /// Puts back chunks that were taken. Keeps those that it has room for, the largest first. The
    /// rest, and large chunks with small pages, are left to the attendant.
    pub(crate) fn put(&self, freed: Vec<Chunk>) {
        if let Some(call) = self.keep(freed) {
            call();
        }
    }

    /// As `put`, for a memtable's writer. Nothing may be called under its combining lock, so
    /// whoever runs the writer asks `take_restock_due`.
    fn put_as_writer(&self, freed: Vec<Chunk>) {
        if self.keep(freed).is_some() {
            self.restock_due.store(true, Ordering::Relaxed);
        }
    }

    /// Keeps chunks as `put` does. Returns the callback if the attendant has something to free, now
    /// or when the writes end (`is_ample`).
    /// Without an attendant the rest is freed here, outside the lock.
    fn keep(&self, mut freed: Vec<Chunk>) -> Option<Call> {
        freed.sort_unstable_by_key(Chunk::bytes);
        let pooled = freed.iter().filter_map(Chunk::class).map(ChunkClass::bytes).sum();
        self.lent_bytes.fetch_sub(pooled, Ordering::Relaxed);
        let bytes_max = self.bytes_max();
        let (mut rest, mut small) = (Vec::new(), Vec::new());
        let mut held = self.lock();
        let is_attended = held.call.is_some();
        let was_ample = held.bytes > self.limits.kept_bytes;
        while let Some(chunk) = freed.pop() {
            match chunk.class() {
                // Its pages will always be small; a better chunk will replace it.
                Some(_) if is_attended && chunk.is_makeshift() => rest.push(chunk),
                Some(class) if held.bytes + class.bytes() <= bytes_max => {
                    held.push(class, chunk);
                }
                Some(_) => rest.push(chunk),
                // The first chunk of an index: the allocator frees it quickly.
                None => small.push(chunk),
            }
        }
        let becomes_ample = !was_ample && held.bytes > self.limits.kept_bytes;
        let call = held.call.clone().filter(|_| becomes_ample || !rest.is_empty());
        if call.is_some() {
            held.excess.append(&mut rest);
        }
        drop(held);
        call
    }
}

impl fmt::Debug for ChunkPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkPool")
            .field("held_bytes", &self.held_bytes())
            .field("lent_bytes", &self.lent_bytes())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The source of chunks for a buffer and an index.
#[derive(Clone, Debug)]
pub(crate) struct ChunkSource {
    pool: Option<Arc<ChunkPool>>,
    largest: ChunkClass,
}

impl ChunkSource {
    /// A source of chunks of all classes.
    pub(crate) fn new(pool: Option<Arc<ChunkPool>>) -> Self {
        Self { pool, largest: ChunkClass::Large }
    }

    /// As it is, but for somebody who takes no chunks above this class.
    pub(crate) fn up_to(self, largest: ChunkClass) -> Self {
        Self { largest, ..self }
    }

    /// The largest class to take.
    #[inline]
    pub(crate) fn largest(&self) -> ChunkClass {
        self.largest
    }

    pub(crate) fn take(&self, class: ChunkClass) -> Chunk {
        let Some(pool) = &self.pool else { return Chunk::at_once(class) };
        pool.lent_bytes.fetch_add(class.bytes(), Ordering::Relaxed);
        // Whoever takes medium chunks will take large ones soon, if any.
        let stocks = class > ChunkClass::Small && self.largest.is_largest();
        pool.take(class, stocks).unwrap_or_else(|| Chunk::at_once(class))
    }

    /// Should a buffer that will take large chunks wait a little for a stock? No if it is there, or
    /// will not be.
    pub(crate) fn ask_for_stock(&self) -> bool {
        let Some(pool) = &self.pool else { return false };
        self.largest.is_largest()
            && pool.chunks.try_lock().is_ok_and(|mut held| pool.note_stock(&mut held))
    }

    pub(crate) fn give(&self, chunks: Vec<Chunk>) {
        if let Some(pool) = &self.pool {
            pool.put_as_writer(chunks);
        }
    }
}
