//! The chunked buffer: memory for entries that may be overwritten, as in go-cmap (ADR 0009).
//!
//! Entries follow one another in chunks of 64 KiB, 512 KiB or 2 MiB. A writer that overwrites an
//! entry marks the old one as dead (`mark_dead`). When enough is dead, the live entries are copied
//! together in small steps, and the vacated chunks are reused. So a memtable with hot keys reclaims
//! memory without a flush.
//!
//! ```text
//! idle:        main [ live dead live dead dead live ]        <- writes
//! compacting:  source [ ......... live dead dead live ]      what is done is given back
//!              destination [ live live ]                     ends where `live at start` says
//!              fresh                       [ live live ]     <- writes, numbered from there on
//! idle again:  main = destination + filler + fresh
//! ```
//!
//! A large buffer is divided: extents are closed (`closed`). The source of a compaction is then the
//! closed extents with the largest dead parts, and writes continue in the writing extent. The
//! destination is an extent of its own, which the next compaction continues to fill:
//!
//! ```text
//! closed:      [ cold ][ live dead dead ][ dead dead live ]   main [ live dead ]   <- writes
//! compacting:  [ cold ]  source [ live dead dead | dead dead live ]
//!                        destination [ live live ]            main [ live dead live ] <- writes
//! ```
//!
//! Guarantees:
//! * `append` never moves an entry. When an entry is moved, both copies are whole.
//! * A step is bounded (`BufferOptions`).
//! * Vacated chunks are returned in the `vacated` list of `step`, and are not touched again.
//! * The end of an extent is its start plus its live and dead bytes. A compaction ends at the live
//!   bytes that it started with.
//!
//! There is one writer. Readers follow pointers to entries and take no lock; the buffer does not
//! know them. Whoever gets vacated chunks must wait until no reader can be in them (`Grace`). The
//! buffer has no index.

#[cfg(not(loom))]
mod area;
pub(crate) mod chunk;
mod class;
mod closed;
mod compaction;
mod entry;
mod extent;
mod grace;
mod header;
mod pool;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use class::{BufferOptions, ChunkClass};
pub use grace::{Grace, Phase};
pub use pool::{Attendant, ChunkPool, PoolLimits};

#[cfg(not(loom))]
pub(crate) use area::Area;
pub(crate) use chunk::{ADDRESS_BITS, Chunk, LINE_BYTES, prefetch};
pub(crate) use compaction::{EntryCounts, Step, Vacated};
use entry::PAYLOAD_FIXED_BYTES;
pub(crate) use entry::{EntryAt, EntryHead};
pub(crate) use pool::ChunkSource;

use crate::key::{Kind, Seqno};
use closed::ClosedExtents;
use compaction::BufferCompaction;
use extent::{Extent, SpaceStats, room};
use header::{EntryState, HEADER_BYTES_MAX};

/// The entries of one memtable. See the module.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// The extent that takes the writes: the only one, or the fresh one during a compaction.
    writing: Extent,
    /// The closed extents of a large buffer.
    closed: ClosedExtents,
    /// The closed extent that the next compaction continues to fill, if there is one.
    destination: Option<u32>,
    compaction: Option<BufferCompaction>,
    /// Is everything in the source? Then its destination and `writing` will be joined to one
    /// extent.
    compacts_all: bool,
    /// Was the pool asked to stock large chunks? That is done once.
    has_asked_for_stock: bool,
    options: BufferOptions,
    source: ChunkSource,
    next_extent_id: u32,
}

/// The most bytes that an entry takes besides its key and value.
const ENTRY_FIXED_BYTES_MAX: usize = PAYLOAD_FIXED_BYTES + HEADER_BYTES_MAX;
/// An extent of the largest class is closed when it has this many chunks.
const EXTENT_CHUNKS: usize = 2;
/// The destination of compactions of closed extents is closed when it has this many chunks. It may
/// be larger, because each seam between extents costs a filler.
const DESTINATION_CHUNKS: usize = 8;
/// An entry smaller than this part of a chunk does not straddle the end of an extent; the space
/// before it is padded. For a larger entry the padding would waste too much.
const SEAM_PART: usize = 16;
/// A compaction of closed extents should free about this part of the buffer.
const FREED_PART: u64 = 10;

/// The contents of a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferStats {
    /// Bytes of live entries, headers included.
    pub live_bytes: u64,
    /// Bytes of dead entries that are not reclaimed yet, fillers included.
    pub dead_bytes: u64,
    /// The number of entries, dead ones included.
    pub entries: u64,
    /// Key and value bytes of those entries.
    pub content_bytes: u64,
    /// Bytes of all chunks.
    pub allocated_bytes: u64,
    /// The size of the chunks that take writes.
    pub class: ChunkClass,
    /// Is a compaction in progress?
    pub compacting: bool,
}

impl Buffer {
    /// An empty buffer with chunks from `source`. It takes its first chunk with its first entry.
    pub(crate) fn new(options: BufferOptions, source: ChunkSource) -> Self {
        Self {
            writing: Extent::new(0, ChunkClass::default(), 0),
            closed: ClosedExtents::default(),
            destination: None,
            compaction: None,
            compacts_all: false,
            has_asked_for_stock: false,
            options,
            source,
            next_extent_id: 1,
        }
    }

    /// Appends an entry.
    ///
    /// # Safety
    /// The chunks must outlive `'a`: vacated ones as well as those that `take_chunks` returns.
    #[inline(always)]
    pub(crate) unsafe fn append<'a>(
        &mut self,
        key: &[u8],
        seqno: Seqno,
        kind: Kind,
        value: &[u8],
    ) -> EntryAt<'a> {
        let content_bytes = key.len() + value.len();
        if content_bytes + ENTRY_FIXED_BYTES_MAX > self.writing.rest() {
            self.end_of_chunk(content_bytes);
        }
        // SAFETY: the caller's guarantee is the same.
        unsafe { self.writing.append(&self.source, key, seqno, kind, value) }
    }

    /// Called when the next entry may not fit into the last chunk. Closes the extent if it is large
    /// enough.
    #[cold]
    #[inline(never)]
    fn end_of_chunk(&mut self, content_bytes: usize) {
        let class = self.writing.class();
        let is_large =
            class.is_largest() && self.writing.allocated_bytes() >= EXTENT_CHUNKS * class.bytes();
        let joins = self.compaction.is_some() && self.compacts_all;
        if is_large && !joins && content_bytes < class.bytes() / SEAM_PART {
            self.writing.pad(&self.source);
            let next = self.new_extent(class, 0);
            self.closed.add(std::mem::replace(&mut self.writing, next));
        }
    }

    fn new_extent(&mut self, class: ChunkClass, start: u64) -> Extent {
        let id = self.next_extent_id;
        self.next_extent_id += 1;
        Extent::new(id, class, start)
    }

    /// Marks a live entry of the buffer as dead.
    #[inline]
    pub(crate) fn mark_dead(&mut self, entry: EntryAt<'_>) {
        debug_assert_eq!(entry.state(), EntryState::Live, "an entry dies once");
        let bytes = entry.bytes() as u64;
        let extent = entry.chunk().extent();
        match &mut self.compaction {
            Some(compaction) if compaction.source.id() == extent => {
                BufferCompaction::mark_dead_in_source(entry);
                return compaction.source.space.mark_dead(bytes);
            }
            Some(compaction) if compaction.destination.id() == extent => {
                compaction.destination.space.mark_dead(bytes);
            }
            _ if self.writing.id() == extent => self.writing.space.mark_dead(bytes),
            _ => self.closed.mark_dead(extent, bytes),
        }
        entry.set_state(EntryState::Dead);
    }

    /// Is a compaction in progress?
    #[inline(always)]
    pub(crate) fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// The class that its chunks should have. Only a compaction changes it.
    #[inline]
    fn wanted_class(&self) -> ChunkClass {
        let wanted = self.options.wanted(self.writing.class(), self.space().live_bytes);
        wanted.min(self.source.largest())
    }

    /// Should the buffer have chunks of another class? Ask only while no compaction is in progress.
    #[inline]
    fn wants_other_class(&self) -> bool {
        self.wanted_class() != self.writing.class()
    }

    /// Should a compaction start to change the class? Before a buffer moves to large chunks, it
    /// asks the pool to stock some: so this returns false once, and true the next time.
    #[inline]
    pub(crate) fn is_due_for_other_class(&mut self) -> bool {
        if !self.wants_other_class() {
            return false;
        }
        let grows = !self.writing.class().is_largest();
        self.has_asked_for_stock || !grows || !self.ask_for_stock()
    }

    #[cold]
    fn ask_for_stock(&mut self) -> bool {
        self.has_asked_for_stock = true;
        self.source.ask_for_stock()
    }

    /// Are there closed extents? If so, compactions are small compared with the buffer.
    #[inline]
    pub(crate) fn has_closed_extents(&self) -> bool {
        !self.closed.is_empty()
    }

    /// Is so much dead that a compaction pays? Ask only while none is in progress.
    #[inline]
    pub(crate) fn has_much_dead(&self) -> bool {
        let SpaceStats { live_bytes, dead_bytes, padded_bytes, .. } = self.space();
        self.options.is_worth_it(self.writing.class(), live_bytes, dead_bytes, padded_bytes)
    }

    #[cfg(test)]
    fn wants_compaction(&self) -> bool {
        self.wants_other_class() || self.has_much_dead()
    }

    /// Starts a compaction. Returns the number of bytes that it will move.
    pub(crate) fn start(&mut self) -> u64 {
        assert!(self.compaction.is_none(), "one compaction at a time");
        let space = self.space();
        let class = self.wanted_class();
        if class == self.writing.class() {
            let freed_bytes = space.total() / FREED_PART;
            let Self { closed, options, source, destination, .. } = self;
            let picked = closed.pick(freed_bytes, options.dead_ratio, *destination, source);
            if let Some(source) = picked {
                return self.start_with(source, class);
            }
        }
        self.start_with_all(class)
    }

    /// Starts a compaction of `source`, which was taken out of the closed extents.
    fn start_with(&mut self, source: Extent, class: ChunkClass) -> u64 {
        let live = source.space.live_bytes;
        let destination = self.destination.take().and_then(|id| self.closed.take(id));
        let destination = destination.unwrap_or_else(|| self.new_extent(class, 0));
        self.compaction = Some(BufferCompaction::new(source, destination));
        self.compacts_all = false;
        live
    }

    fn start_with_all(&mut self, class: ChunkClass) -> u64 {
        self.destination = None;
        let destination = self.new_extent(class, 0);
        let live = self.space().live_bytes;
        let fresh = self.new_extent(class, live.next_multiple_of(room(class)));
        let writing = std::mem::replace(&mut self.writing, fresh);
        self.closed.add(writing);
        let source = self.closed.take_all(&self.source);
        let source = source.expect("an extent was just put in");
        self.compaction = Some(BufferCompaction::new(source, destination));
        self.compacts_all = true;
        live
    }

    /// Makes one step of the compaction in progress, if there is one. Calls `moved(from, to)` when
    /// a live entry is whole at its new place; when that returns, all references to `from` must
    /// refer to `to`. Vacated chunks are added to `vacated`.
    ///
    /// # Safety
    /// As for `append`.
    pub(crate) unsafe fn step<'a>(
        &mut self,
        vacated: &mut Vec<Vacated>,
        moved: &mut dyn FnMut(EntryAt<'a>, EntryAt<'a>),
    ) -> Step {
        let Some(compaction) = &mut self.compaction else {
            return Step { finished: true, ..Step::default() };
        };
        // SAFETY: the caller's guarantee is the same.
        let step = unsafe { compaction.step(&self.options, &self.source, vacated, moved) };
        if step.finished {
            self.merge();
        }
        step
    }

    /// Ends a compaction. If it took everything, the destination is joined with what was written
    /// meanwhile. Otherwise it becomes another closed extent.
    fn merge(&mut self) {
        let compaction = self.compaction.take().expect("the caller has just stepped it");
        let mut main = compaction.destination;
        if !self.compacts_all {
            if main.allocated_bytes() < DESTINATION_CHUNKS * main.class().bytes() {
                self.destination = Some(main.id());
            } else {
                main.pad(&self.source);
            }
            return self.closed.add(main);
        }
        if !self.writing.is_empty() {
            main.pad(&self.source);
            let empty = Extent::new(main.id(), main.class(), 0);
            main.join(std::mem::replace(&mut self.writing, empty));
        }
        self.writing = main;
    }

    /// Bytes of all entries, including dead ones and fillers.
    #[inline(always)]
    pub(crate) fn used_bytes(&self) -> usize {
        self.space().total() as usize
    }

    /// The sums over all extents.
    #[inline(always)]
    fn space(&self) -> SpaceStats {
        let space = self.writing.space.plus(self.closed.space());
        match &self.compaction {
            Some(BufferCompaction { source, destination, .. }) => {
                space.plus(source.space).plus(destination.space)
            }
            None => space,
        }
    }

    /// Bytes of live entries, and their number.
    #[inline(always)]
    pub(crate) fn live(&self) -> (u64, u64) {
        let SpaceStats { live_bytes, live_entries, .. } = self.space();
        (live_bytes, live_entries)
    }

    /// Bytes of all chunks.
    #[inline(always)]
    pub(crate) fn allocated_bytes(&self) -> usize {
        let mut bytes = self.writing.allocated_bytes() + self.closed.allocated_bytes();
        if let Some(BufferCompaction { source, destination, .. }) = &self.compaction {
            bytes += source.allocated_bytes() + destination.allocated_bytes();
        }
        bytes
    }

    /// The number and contents of all entries, dead ones included.
    #[inline(always)]
    pub(crate) fn content(&self) -> EntryCounts {
        let SpaceStats { entries, content_bytes, .. } = self.space();
        let mut content = EntryCounts { entries, content_bytes };
        if let Some(BufferCompaction { skipped, .. }) = &self.compaction {
            // Skipped entries whose chunk is not released yet.
            content.add(*skipped);
        }
        content
    }

    /// Its contents.
    pub(crate) fn stats(&self) -> BufferStats {
        let SpaceStats { live_bytes, dead_bytes, .. } = self.space();
        let EntryCounts { entries, content_bytes } = self.content();
        BufferStats {
            live_bytes,
            dead_bytes,
            entries,
            content_bytes,
            allocated_bytes: self.allocated_bytes() as u64,
            class: self.writing.class(),
            compacting: self.compaction.is_some(),
        }
    }

    /// Returns chunks that no reader can be in any more to the pool.
    pub(crate) fn recycle(&self, chunks: Vec<Chunk>) {
        self.source.give(chunks);
    }

    /// Takes all chunks, with their entries, in whatever state a compaction is. This ends the
    /// buffer.
    pub(crate) fn take_chunks(&mut self) -> Vec<Chunk> {
        let empty = Extent::new(0, self.writing.class(), 0);
        let mut chunks: Vec<_> =
            std::mem::replace(&mut self.writing, empty).into_chunks().collect();
        chunks.extend(self.closed.take_chunks());
        if let Some(BufferCompaction { source, destination, .. }) = self.compaction.take() {
            chunks.extend(source.into_chunks());
            chunks.extend(destination.into_chunks());
        }
        chunks
    }
}
