//! The chunked buffer: memory for entries that are overwritten, as in go-cmap (ADR 0009).
//!
//! Entries lie one behind the other in chunks of 64 KiB, 512 KiB or 2 MiB. Whoever overwrites an
//! entry marks it as dead (`mark_dead`). When enough is dead, the live entries are copied together
//! in small steps, and the chunks that they left are used again. So a memtable with hot keys gives
//! memory back without a flush.
//!
//! ```text
//! idle:        main [ live dead live dead dead live ]        <- writes
//! compacting:  source [ ......... live dead dead live ]      what is done is given back
//!              destination [ live live ]                     ends where `live at start` says
//!              fresh                       [ live live ]     <- writes, numbered from there on
//! idle again:  main = destination + filler + fresh
//! ```
//!
//! A large buffer is cut: extents are closed (`closed`). A compaction takes the closed ones of
//! which most is dead as its source. Writes go on where they were. The destination is an extent of
//! its own, and the next compaction goes on in it:
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
//! * Chunks that were left come out through the `vacated` list of `step`, and are not touched
//!   again.
//! * The end of an extent is its start plus what is live and dead in it. A compaction ends at the
//!   live bytes that it started with.
//!
//! There is one writer. Readers follow pointers to entries and take no lock; the buffer does not
//! know them. Whoever takes vacated chunks must wait until no reader can be in them (`Grace`). The
//! buffer keeps no index.

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
pub use pool::{Attendant, ChunkPool};

pub(crate) use chunk::{ADDRESS_BITS, Chunk, LINE_BYTES, prefetch};
pub(crate) use compaction::{Content, Step, Vacated};
use entry::PAYLOAD_FIXED_BYTES;
pub(crate) use entry::{EntryAt, split_payload};
pub(crate) use pool::ChunkSource;

use crate::key::{Kind, Seqno};
use closed::ClosedExtents;
use compaction::Compaction;
use extent::{Extent, SpaceStats, room};
use header::{HEADER_BYTES_MAX, State};

/// Entries of one memtable. See the module.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// The extent that takes the writes: the only one, or the fresh one beside a compaction.
    writing: Extent,
    /// The closed extents of a large buffer.
    closed: ClosedExtents,
    /// The closed extent that the next compaction goes on to fill, once there is one.
    destination: Option<u32>,
    compaction: Option<Compaction>,
    /// Is everything in the source, so that its destination and `writing` will be one extent?
    compacts_all: bool,
    /// The pool was asked to stock chunks. That is done once.
    has_asked_for_stock: bool,
    options: BufferOptions,
    source: ChunkSource,
    next_extent_id: u32,
}

/// An entry takes at most this much beside its key and value.
const ENTRY_FIXED_BYTES_MAX: usize = PAYLOAD_FIXED_BYTES + HEADER_BYTES_MAX;
/// An extent of the largest class is closed when it has this many chunks.
const EXTENT_CHUNKS: usize = 2;
/// The destination of compactions of closed extents is closed when it has this many: one more seam
/// is worth as little as one more large extent.
const DESTINATION_CHUNKS: usize = 8;
/// An entry that fills less than this part of a chunk does not straddle the end of an extent. For a
/// larger one, the space in front of it would be too much to waste.
const SEAM_PART: usize = 16;
/// A compaction of closed extents frees about this part of the buffer.
const FREED_PART: u64 = 10;

/// What a buffer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferStats {
    /// Bytes of entries that somebody may need, headers included.
    pub live_bytes: u64,
    /// Bytes of entries that nobody needs and that are still there, fillers included.
    pub dead_bytes: u64,
    /// Entries that are there, dead ones included.
    pub entries: u64,
    /// Their key and value bytes.
    pub content_bytes: u64,
    /// Bytes of the chunks.
    pub allocated_bytes: u64,
    /// Size of the chunks that take writes.
    pub class: ChunkClass,
    /// Is a compaction under way?
    pub compacting: bool,
}

impl Buffer {
    /// An empty buffer with chunks from `source`. Takes its first chunk with its first entry.
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

    /// Writes an entry.
    ///
    /// # Safety
    /// The chunks must outlive `'a`: vacated ones as well as those `into_chunks` gives away.
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
        // SAFETY: the caller's promise is the same.
        unsafe { self.writing.append(&self.source, key, seqno, kind, value) }
    }

    /// The next entry may not fit into the last chunk. Closes the extent if it is large enough.
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

    /// Marks a live entry of the buffer as dead: nobody needs it any more.
    #[inline]
    pub(crate) fn mark_dead(&mut self, entry: EntryAt<'_>) {
        debug_assert_eq!(entry.state(), State::Live, "an entry dies once");
        let bytes = entry.bytes() as u64;
        let extent = entry.chunk().extent();
        match &mut self.compaction {
            Some(compaction) if compaction.source.id() == extent => {
                Compaction::mark_dead_in_source(entry);
                return compaction.source.space.mark_dead(bytes);
            }
            Some(compaction) if compaction.destination.id() == extent => {
                compaction.destination.space.mark_dead(bytes);
            }
            _ if self.writing.id() == extent => self.writing.space.mark_dead(bytes),
            _ => self.closed.mark_dead(extent, bytes),
        }
        entry.set_state(State::Dead);
    }

    /// Is a compaction under way?
    #[inline(always)]
    pub(crate) fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// Should it have chunks of another class? Only a compaction changes the class. Ask only while
    /// none is under way.
    #[inline]
    fn wants_other_class(&self) -> bool {
        let class = self.writing.class();
        self.options.wanted(class, self.space().live_bytes) != class
    }

    /// The same, for whoever would start a compaction for it. Before a buffer moves to large
    /// chunks, it has the pool stock some. So it says no once, and yes the next time.
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

    /// Are there closed extents, so that compactions are small beside the buffer?
    #[inline]
    pub(crate) fn has_closed_extents(&self) -> bool {
        !self.closed.is_empty()
    }

    /// Is so much dead that a compaction pays? Ask only while none is under way.
    #[inline]
    pub(crate) fn has_much_dead(&self) -> bool {
        let SpaceStats { live_bytes, dead_bytes, padded_bytes, .. } = self.space();
        self.options.is_worth_it(self.writing.class(), live_bytes, dead_bytes, padded_bytes)
    }

    #[cfg(test)]
    fn wants_compaction(&self) -> bool {
        self.wants_other_class() || self.has_much_dead()
    }

    /// Starts a compaction; returns how many bytes it will move.
    pub(crate) fn start(&mut self) -> u64 {
        assert!(self.compaction.is_none(), "one compaction at a time");
        let space = self.space();
        let class = self.options.wanted(self.writing.class(), space.live_bytes);
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

    /// The source was taken out of the closed extents.
    fn start_with(&mut self, source: Extent, class: ChunkClass) -> u64 {
        let live = source.space.live_bytes;
        let destination = self.destination.take().and_then(|id| self.closed.take(id));
        let destination = destination.unwrap_or_else(|| self.new_extent(class, 0));
        self.compaction = Some(Compaction::new(source, destination));
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
        self.compaction = Some(Compaction::new(source, destination));
        self.compacts_all = true;
        live
    }

    /// One step of the compaction under way, if there is one. `moved(from, to)` is called when a
    /// live entry is whole at its new place; what refers to `from` must refer to `to` when it
    /// returns. Chunks that are done with go to `vacated`.
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
        // SAFETY: the caller's promise is the same.
        let step = unsafe { compaction.step(&self.options, &self.source, vacated, moved) };
        if step.finished {
            self.merge();
        }
        step
    }

    /// Of everything: the destination, and behind it what was written meanwhile. Of closed
    /// extents: another one of these.
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

    /// Bytes of entries, dead ones and fillers included.
    #[inline(always)]
    pub(crate) fn used_bytes(&self) -> usize {
        self.space().total() as usize
    }

    /// What lies in all extents.
    #[inline(always)]
    fn space(&self) -> SpaceStats {
        let space = self.writing.space.plus(self.closed.space());
        match &self.compaction {
            Some(Compaction { source, destination, .. }) => {
                space.plus(source.space).plus(destination.space)
            }
            None => space,
        }
    }

    /// Bytes of entries that somebody may need, and how many these are.
    #[inline(always)]
    pub(crate) fn live(&self) -> (u64, u64) {
        let SpaceStats { live_bytes, live_entries, .. } = self.space();
        (live_bytes, live_entries)
    }

    /// Bytes of the chunks that entries are in.
    #[inline(always)]
    pub(crate) fn allocated_bytes(&self) -> usize {
        let mut bytes = self.writing.allocated_bytes() + self.closed.allocated_bytes();
        if let Some(Compaction { source, destination, .. }) = &self.compaction {
            bytes += source.allocated_bytes() + destination.allocated_bytes();
        }
        bytes
    }

    /// The entries that are there, dead ones included.
    #[inline(always)]
    pub(crate) fn content(&self) -> Content {
        let SpaceStats { entries, content_bytes, .. } = self.space();
        let mut content = Content { entries, content_bytes };
        if let Some(Compaction { skipped, .. }) = &self.compaction {
            // Passed, and its chunk is still there.
            content.add(*skipped);
        }
        content
    }

    /// What it holds.
    pub(crate) fn stats(&self) -> BufferStats {
        let SpaceStats { live_bytes, dead_bytes, .. } = self.space();
        let Content { entries, content_bytes } = self.content();
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

    /// Gives chunks back that no reader can be in any more.
    pub(crate) fn recycle(&self, chunks: Vec<Chunk>) {
        self.source.give(chunks);
    }

    /// Ends the buffer, in whatever state its compaction is; the entries stay in the chunks.
    pub(crate) fn take_chunks(&mut self) -> Vec<Chunk> {
        let empty = Extent::new(0, self.writing.class(), 0);
        let mut chunks: Vec<_> =
            std::mem::replace(&mut self.writing, empty).into_chunks().collect();
        chunks.extend(self.closed.take_chunks());
        if let Some(Compaction { source, destination, .. }) = self.compaction.take() {
            chunks.extend(source.into_chunks());
            chunks.extend(destination.into_chunks());
        }
        chunks
    }
}
