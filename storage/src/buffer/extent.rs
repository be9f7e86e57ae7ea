//! An extent: consecutive entries without gaps, over chunks of one class.
//!
//! Offsets count entry bytes from the start of the extent. Chunk headers do not count.
//!
//! Guarantees: between two calls `end - start == live + dead`. Padding counts as dead.
//!
//! One thread writes to it. Readers follow pointers to entries and never see the extent itself.

use super::chunk::{CHUNK_HEADER_BYTES, Chunk, ChunkHeader};
use super::class::ChunkClass;
#[cfg(test)]
use super::entry::Pieces;
use super::entry::{EntryAt, PAYLOAD_FIXED_BYTES, fixed_parts};
use super::header::{EntryState, HEADER_BYTES_MAX, encode, header_bytes};
use super::pool::ChunkSource;
use crate::key::{Kind, Seqno};
use std::collections::VecDeque;
use std::ptr::{self, NonNull};

/// Bytes of a chunk that are available to entries.
pub(super) const fn room(class: ChunkClass) -> u64 {
    (class.bytes() - CHUNK_HEADER_BYTES) as u64
}

/// The contents of an extent, in bytes and entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SpaceStats {
    pub(super) live_bytes: u64,
    pub(super) live_entries: u64,
    pub(super) dead_bytes: u64,
    /// The part of `dead_bytes` that pads the end of a chunk and never was an entry.
    pub(super) padded_bytes: u64,
    pub(super) entries: u64,
    /// Key and value bytes of `entries`.
    pub(super) content_bytes: u64,
}

impl SpaceStats {
    /// INVARIANT(offsets-add-up): this is the end minus the start.
    pub(super) fn total(self) -> u64 {
        self.live_bytes + self.dead_bytes
    }

    /// Records that a live entry of this many bytes has died.
    #[inline]
    pub(super) fn mark_dead(&mut self, bytes: u64) {
        self.live_bytes -= bytes;
        self.live_entries -= 1;
        self.dead_bytes += bytes;
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            live_bytes: self.live_bytes - other.live_bytes,
            live_entries: self.live_entries - other.live_entries,
            dead_bytes: self.dead_bytes - other.dead_bytes,
            padded_bytes: self.padded_bytes - other.padded_bytes,
            entries: self.entries - other.entries,
            content_bytes: self.content_bytes - other.content_bytes,
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            live_bytes: self.live_bytes + other.live_bytes,
            live_entries: self.live_entries + other.live_entries,
            dead_bytes: self.dead_bytes + other.dead_bytes,
            padded_bytes: self.padded_bytes + other.padded_bytes,
            entries: self.entries + other.entries,
            content_bytes: self.content_bytes + other.content_bytes,
        }
    }
}

/// Key and value bytes of a payload of this length.
#[inline(always)]
pub(super) fn content_bytes(payload_bytes: usize) -> u64 {
    (payload_bytes - PAYLOAD_FIXED_BYTES) as u64
}

/// Consecutive entries over chunks of one class; see the module.
pub(super) struct Extent {
    id: u32,
    class: ChunkClass,
    chunks: VecDeque<Chunk>,
    start: u64,
    end: u64,
    /// Where the next byte goes, and how many more fit into the last chunk.
    at: NonNull<u8>,
    rest: usize,
    pub(super) space: SpaceStats,
}

// SAFETY: `at` points into a chunk that the extent owns.
unsafe impl Send for Extent {}

impl Extent {
    /// An empty extent whose offsets start at `start`, the beginning of a chunk. It takes its first
    /// chunk with its first entry.
    pub(super) fn new(id: u32, class: ChunkClass, start: u64) -> Self {
        debug_assert!(start.is_multiple_of(room(class)));
        Self {
            id,
            class,
            chunks: VecDeque::new(),
            start,
            end: start,
            at: NonNull::dangling(),
            rest: 0,
            space: SpaceStats::default(),
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn class(&self) -> ChunkClass {
        self.class
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// Bytes that are left in the last chunk.
    #[inline(always)]
    pub(super) fn rest(&self) -> usize {
        self.rest
    }

    /// The same extent with offsets that start at `start`, the beginning of a chunk.
    pub(super) fn starting_at(mut self, start: u64) -> Self {
        debug_assert!(start.is_multiple_of(room(self.class)));
        self.end = start + (self.end - self.start);
        self.start = start;
        self
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.chunks.len() * self.class.bytes()
    }

    /// The first entry byte of the first chunk that was not released.
    pub(super) fn first(&self) -> Option<NonNull<u8>> {
        let start = self.chunks.front()?.start();
        // SAFETY: a chunk is larger than its header.
        Some(unsafe { start.add(CHUNK_HEADER_BYTES) })
    }

    /// Removes the first chunk.
    pub(super) fn release_first(&mut self) -> Option<Chunk> {
        self.chunks.pop_front()
    }

    /// The address of the first chunk that was not released.
    pub(super) fn first_chunk(&self) -> Option<NonNull<u8>> {
        self.chunks.front().map(Chunk::start)
    }

    /// Returns the chunks.
    pub(super) fn into_chunks(self) -> impl Iterator<Item = Chunk> {
        self.chunks.into_iter()
    }

    /// Counts a written entry as live.
    #[inline(always)]
    fn count_live(&mut self, entry_bytes: usize, payload_bytes: usize) {
        self.space.live_bytes += entry_bytes as u64;
        self.space.live_entries += 1;
        self.space.entries += 1;
        self.space.content_bytes += content_bytes(payload_bytes);
    }

    /// Appends an entry.
    ///
    /// # Safety
    /// The chunks must outlive `'a`.
    #[inline(always)]
    pub(super) unsafe fn append<'a>(
        &mut self,
        source: &ChunkSource,
        key: &[u8],
        seqno: Seqno,
        kind: Kind,
        value: &[u8],
    ) -> EntryAt<'a> {
        let payload_bytes = PAYLOAD_FIXED_BYTES + key.len() + value.len();
        let header_bytes = header_bytes(payload_bytes);
        let entry_bytes = header_bytes + payload_bytes;
        let (key_len, stamp) = fixed_parts(key, seqno, kind);
        let mut header = [0; HEADER_BYTES_MAX];
        encode(&mut header[..header_bytes], payload_bytes, EntryState::Live);
        if self.rest == 0 {
            self.grow(source);
        }
        let at = self.at;
        let parts = [&header[..header_bytes], &key_len, key, &stamp, value];
        if entry_bytes <= self.rest {
            let mut to = at;
            for part in parts {
                // SAFETY: all parts together fit into the rest of the chunk, which is exclusively
                // ours.
                unsafe { ptr::copy_nonoverlapping(part.as_ptr(), to.as_ptr(), part.len()) };
                // SAFETY: at most one past the end of the chunk.
                to = unsafe { to.add(part.len()) };
            }
            self.at = to;
            self.rest -= entry_bytes;
            self.end += entry_bytes as u64;
        } else {
            for part in parts {
                self.write(source, part);
            }
        }
        self.count_live(entry_bytes, payload_bytes);
        // SAFETY: just written; the caller guarantees the lifetime.
        unsafe { EntryAt::new(at, self.class) }
    }

    /// The address of the next entry.
    pub(super) fn next_entry(&mut self, source: &ChunkSource) -> NonNull<u8> {
        if self.rest == 0 {
            self.grow(source);
        }
        self.at
    }

    /// Writes bytes, over several chunks if necessary, and counts nothing.
    pub(super) fn write(&mut self, source: &ChunkSource, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.rest == 0 {
                self.grow(source);
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.rest));
            // SAFETY: that many bytes of the chunk are left, and nobody else uses them.
            unsafe { ptr::copy_nonoverlapping(now.as_ptr(), self.at.as_ptr(), now.len()) };
            // SAFETY: at most one past the end of the chunk.
            self.at = unsafe { self.at.add(now.len()) };
            self.rest -= now.len();
            self.end += now.len() as u64;
            bytes = later;
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, source: &ChunkSource) {
        let chunk = source.take(self.class);
        let start = chunk.start();
        // SAFETY: a fresh chunk of this class. It lives until its entries are unreachable.
        unsafe { ChunkHeader::write(start, self.id) };
        if let Some(last) = self.chunks.back() {
            // SAFETY: a chunk of this extent begins with its header.
            unsafe { ChunkHeader::of(last.start().as_ptr(), self.class) }.set_next(start);
        }
        // SAFETY: a chunk is larger than its header.
        self.at = unsafe { start.add(CHUNK_HEADER_BYTES) };
        self.rest = room(self.class) as usize;
        self.chunks.push_back(chunk);
    }

    /// Fills the last chunk with one filler, so that the next entry starts a chunk.
    pub(super) fn pad(&mut self, source: &ChunkSource) {
        let bytes = self.rest;
        if bytes == 0 || self.is_empty() {
            return;
        }
        let header = (1..=HEADER_BYTES_MAX)
            .find(|&header| header <= bytes && (bytes - header) << 2 >> (7 * header) == 0)
            .expect("some header length leaves a payload that it can name");
        let mut encoded = [0; HEADER_BYTES_MAX];
        encode(&mut encoded[..header], bytes - header, EntryState::Filler);
        self.write(source, &encoded[..header]);
        // The payload of a filler is never read.
        let skipped = bytes - header;
        // SAFETY: one past the end of the chunk.
        self.at = unsafe { self.at.add(skipped) };
        self.rest = 0;
        self.end += skipped as u64;
        self.space.dead_bytes += bytes as u64;
        self.space.padded_bytes += bytes as u64;
    }

    /// Appends the contents of `next`, which starts where this extent ends.
    pub(super) fn join(&mut self, next: Extent) {
        assert_eq!((next.class, next.start), (self.class, self.end), "the next extent begins here");
        for chunk in &next.chunks {
            // SAFETY: a chunk of that extent begins with its header.
            unsafe { ChunkHeader::of(chunk.start().as_ptr(), self.class) }.set_extent(self.id);
        }
        if let (Some(last), Some(first)) = (self.chunks.back(), next.chunks.front()) {
            // SAFETY: as above.
            unsafe { ChunkHeader::of(last.start().as_ptr(), self.class) }.set_next(first.start());
        }
        self.chunks.extend(next.chunks);
        (self.at, self.rest, self.end) = (next.at, next.rest, next.end);
        self.space = self.space.plus(next.space);
    }

    /// Walks every header from the first chunk to the end and compares the sums with `space`. For
    /// tests: it reads everything.
    #[cfg(test)]
    pub(super) fn check(&self) -> Result<Vec<(EntryState, usize)>, String> {
        use super::entry::check_payload;
        use super::header::decode;
        if self.end - self.start != self.space.total() {
            return Err(format!("{} to {} holds {:?}", self.start, self.end, self.space));
        }
        let mut found = Vec::new();
        let mut space = SpaceStats::default();
        let Some(first) = self.first() else { return Ok(found) };
        // SAFETY: the first chunk begins with an entry if nothing was released.
        let begin = unsafe { EntryAt::new(first, self.class) };
        let mut bytes = Vec::new();
        for piece in Pieces::starting(begin, 0, (self.end - self.start) as usize) {
            bytes.extend_from_slice(piece);
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let header = decode(rest).map_err(|damage| format!("{damage:?}"))?;
            let Some((entry, later)) = rest.split_at_checked(header.entry_bytes()) else {
                return Err("the last entry is cut off".to_owned());
            };
            match header.state {
                EntryState::Live => {
                    space.live_bytes += entry.len() as u64;
                    space.live_entries += 1;
                }
                EntryState::Filler => space.padded_bytes += entry.len() as u64,
                EntryState::Dead | EntryState::DeadAfterCopy => {
                    space.dead_bytes += entry.len() as u64;
                }
            }
            if header.state != EntryState::Filler {
                check_payload(&entry[header.bytes..]).map_err(|damage| format!("{damage:?}"))?;
                space.entries += 1;
                space.content_bytes += content_bytes(header.payload_bytes);
            }
            found.push((header.state, entry.len()));
            rest = later;
        }
        space.dead_bytes += space.padded_bytes;
        if space == self.space {
            Ok(found)
        } else {
            Err(format!("{space:?}, not {:?}", self.space))
        }
    }
}

impl std::fmt::Debug for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Extent")
            .field("id", &self.id)
            .field("class", &self.class)
            .field("start", &self.start)
            .field("end", &self.end)
            .field("space", &self.space)
            .finish_non_exhaustive()
    }
}
