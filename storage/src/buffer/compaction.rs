//! A compaction in progress: the live entries of one extent move to another one, step by step.
//!
//! The method is that of go-cmap (ADR 0009).
//!
//! 1. *Find:* skip dead entries.
//! 2. *Copy:* in pieces, so a large entry takes several steps.
//! 3. *Commit:* read the source's state again, because the entry may have died meanwhile. Then tell
//!    the index the new place.
//!
//! The destination's length is known at the start: it grows by the live bytes of that moment. So an
//! entry that dies before its turn is still copied, as a dead one (`DeadAfterCopy`), and the next
//! compaction skips it. For this reason the extent that takes the writes meanwhile can use offsets
//! from the destination's end on, before that end exists.
//!
//! It does not decide when to start, nor when the memory of the source may be reused.

use super::chunk::{Chunk, LINE_BYTES, prefetch};
use super::class::BufferOptions;
use super::entry::{EntryAt, Pieces};
use super::extent::{Extent, content_bytes};
use super::header::EntryState;
use super::pool::ChunkSource;
use std::mem;
use std::ops::Range;
use std::ptr::NonNull;

/// Which cache lines of the source are prefetched, counted from the entry that is being read.
const LINES_AHEAD: Range<usize> = 4..7;

/// A compaction in progress; see the module.
#[derive(Debug)]
pub(super) struct BufferCompaction {
    pub(super) source: Extent,
    pub(super) destination: Extent,
    /// The offset up to which the source is done, and the address of the entry there.
    position: u64,
    next: Option<NonNull<u8>>,
    copying: Option<Copying>,
    /// The final end of the destination: its end at the start plus the live bytes of the source at
    /// the start.
    destination_end: u64,
    /// Entries that were skipped since the last chunk was released.
    pub(super) skipped: EntryCounts,
}

// SAFETY: `next` points into a chunk of `source`.
unsafe impl Send for BufferCompaction {}

/// A large entry that is partly copied.
#[derive(Debug)]
struct Copying {
    to: NonNull<u8>,
    copied: usize,
    total: usize,
}

/// The number and contents of some entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntryCounts {
    /// The number of entries.
    pub(crate) entries: u64,
    /// Their key and value bytes.
    pub(crate) content_bytes: u64,
}

impl EntryCounts {
    pub(crate) fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.content_bytes += other.content_bytes;
    }
}

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// Bytes copied.
    pub(crate) copied_bytes: usize,
    /// Dead entries passed.
    pub(crate) dead_visited: usize,
    /// Is the compaction finished?
    pub(crate) finished: bool,
}

/// A chunk that the writer does not need any more, and the entries that were skipped in it. It may
/// still have readers.
pub(crate) struct Vacated {
    pub(crate) chunk: Chunk,
    pub(crate) gone: EntryCounts,
}

impl BufferCompaction {
    /// A compaction that moves all live entries of `source` to the end of `destination`.
    pub(super) fn new(source: Extent, destination: Extent) -> Self {
        let destination_end = destination.end() + source.space.live_bytes;
        let (position, next) = (source.start(), source.first());
        Self {
            source,
            destination,
            position,
            next,
            copying: None,
            destination_end,
            skipped: EntryCounts::default(),
        }
    }

    /// Records that an entry of the source died before its turn.
    pub(super) fn mark_dead_in_source(entry: EntryAt<'_>) {
        entry.set_state(EntryState::DeadAfterCopy);
    }

    /// Makes one step: passes at most `step_dead_max` dead entries, and then copies one live entry,
    /// or `step_bytes` of it. Calls `moved(from, to)` for an entry that is live at its new place,
    /// before the old place is released.
    ///
    /// # Safety
    /// The chunks must outlive every use that `moved` makes of the entries.
    pub(super) unsafe fn step<'a>(
        &mut self,
        options: &BufferOptions,
        source: &ChunkSource,
        vacated: &mut Vec<Vacated>,
        moved: &mut dyn FnMut(EntryAt<'a>, EntryAt<'a>),
    ) -> Step {
        let mut step = Step::default();
        loop {
            let Some(at) = self.next.filter(|_| self.position < self.source.end()) else {
                self.release_until(None, vacated);
                self.check_end();
                step.finished = true;
                return step;
            };
            // SAFETY: an entry of the source starts at `at`; the caller guarantees the rest.
            let entry: EntryAt<'a> = unsafe { EntryAt::new(at, self.source.class()) };
            match entry.state() {
                EntryState::Live | EntryState::DeadAfterCopy => {
                    // SAFETY: the caller's guarantees are the same.
                    unsafe { self.copy(entry, options, source, vacated, moved, &mut step) };
                    if self.position == self.source.end() {
                        continue;
                    }
                    return step;
                }
                state @ (EntryState::Dead | EntryState::Filler) => {
                    if step.dead_visited == options.step_dead_max {
                        return step;
                    }
                    step.dead_visited += 1;
                    let header = entry.header();
                    if state == EntryState::Dead {
                        let content_bytes = content_bytes(header.payload_bytes);
                        self.skipped.add(EntryCounts { entries: 1, content_bytes });
                        self.source.space.entries -= 1;
                        self.source.space.content_bytes -= content_bytes;
                    } else {
                        self.source.space.padded_bytes -= header.entry_bytes() as u64;
                    }
                    self.source.space.dead_bytes -= header.entry_bytes() as u64;
                    self.advance(entry, header.entry_bytes(), vacated);
                }
            }
        }
    }

    unsafe fn copy<'a>(
        &mut self,
        entry: EntryAt<'a>,
        options: &BufferOptions,
        source: &ChunkSource,
        vacated: &mut Vec<Vacated>,
        moved: &mut dyn FnMut(EntryAt<'a>, EntryAt<'a>),
        step: &mut Step,
    ) {
        let mut copying = self.copying.take().unwrap_or_else(|| Copying {
            to: self.destination.next_entry(source),
            copied: 0,
            total: entry.bytes(),
        });
        let now = (copying.total - copying.copied).min(options.step_bytes);
        for piece in Pieces::starting(entry, copying.copied, now) {
            self.destination.write(source, piece);
        }
        copying.copied += now;
        step.copied_bytes += now;
        if copying.copied < copying.total {
            self.copying = Some(copying);
            return;
        }
        // SAFETY: a whole entry was copied there; the caller guarantees the lifetime.
        let copy: EntryAt<'a> = unsafe { EntryAt::new(copying.to, self.destination.class()) };
        #[cfg(loom)]
        copy.note_written();
        let header = entry.header();
        let (bytes, content_bytes) =
            (header.entry_bytes() as u64, content_bytes(header.payload_bytes));
        let (from, to) = (&mut self.source.space, &mut self.destination.space);
        if header.state == EntryState::Live {
            copy.set_state(EntryState::Live);
            from.live_bytes -= bytes;
            from.live_entries -= 1;
            to.live_bytes += bytes;
            to.live_entries += 1;
            moved(entry, copy);
        } else {
            copy.set_state(EntryState::Dead);
            from.dead_bytes -= bytes;
            to.dead_bytes += bytes;
        }
        from.entries -= 1;
        from.content_bytes -= content_bytes;
        to.entries += 1;
        to.content_bytes += content_bytes;
        self.advance(entry, header.entry_bytes(), vacated);
    }

    /// Advances to the next entry, `bytes` further on. Releases the chunks before it.
    fn advance(&mut self, entry: EntryAt<'_>, bytes: usize, vacated: &mut Vec<Vacated>) {
        self.position += bytes as u64;
        if self.position == self.source.end() {
            self.next = None;
            return;
        }
        let next = Pieces::starting(entry, bytes, 1).at().expect("the source goes on");
        // Steps are too far apart for the processor's prefetcher to recognize the sequential
        // access.
        for line in LINES_AHEAD {
            prefetch(next.as_ptr().wrapping_add(line * LINE_BYTES));
        }
        self.next = Some(next);
        let inside = self.source.class().bytes() - 1;
        self.release_until(Some(next.as_ptr().addr() & !inside), vacated);
    }

    /// Releases the source's chunks before the one at this address; all for `None`.
    fn release_until(&mut self, chunk: Option<usize>, vacated: &mut Vec<Vacated>) {
        while self.source.first_chunk().is_some_and(|first| Some(first.addr().get()) != chunk) {
            let gone = mem::take(&mut self.skipped);
            let chunk = self.source.release_first().expect("there is a first chunk");
            vacated.push(Vacated { chunk, gone });
        }
    }

    fn check_end(&self) {
        // INVARIANT(offsets-add-up)
        assert_eq!(
            self.destination.end(),
            self.destination_end,
            "a compaction ends where it said it would"
        );
        assert_eq!(self.source.space.total(), 0, "nothing of the source is left");
    }
}
