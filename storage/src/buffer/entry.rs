//! One entry in a buffer: a header, then the payload, over several chunks if necessary.
//!
//! ```text
//! header | key length: u16 | key | seqno << 8 | kind: u64 | value    (integers little-endian)
//! ```
//!
//! Guarantees: after an entry is published, only the state bits in its first byte change, and only
//! the writer reads them. Nearly all entries are in one chunk and are read in place (`whole`). An
//! entry that straddles chunks is read in pieces (`parts`). Its key is copied together for a
//! comparison, and its value only for a caller that wants it.
//!
//! It does not know who refers to the entry, nor how long its memory lives (`grace`).

use super::chunk::{ADDRESS_BITS, CHUNK_HEADER_BYTES, ChunkHeader};
use super::class::ChunkClass;
use super::header::{EntryHeader, EntryState, HEADER_BYTES_MAX, HeaderDamage, decode};
use crate::key::{EntryRef, Kind, Seqno};
use std::cmp::Ordering as KeyOrder;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU8, Ordering};

const KEY_LEN_BYTES: usize = 2;
const STAMP_BYTES: usize = 8;
/// Under loom the payload also has the address of a cell that loom watches. The cell represents the
/// plain bytes, which loom cannot see.
#[cfg(loom)]
const WATCH_BYTES: usize = 8;
#[cfg(not(loom))]
const WATCH_BYTES: usize = 0;

/// Bytes of a payload besides key and value.
pub(super) const PAYLOAD_FIXED_BYTES: usize = KEY_LEN_BYTES + STAMP_BYTES + WATCH_BYTES;

/// The class of the chunk that a pointer leads into is stored above its address.
const CLASS_SHIFT: u32 = ADDRESS_BITS + 4;

/// The place of an entry whose memory lives at least as long as `'a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryAt<'a> {
    /// The address of the first byte, tagged with the class of its chunk.
    tagged: NonNull<u8>,
    memory: PhantomData<&'a [u8]>,
}

/// What an entry is besides its key and the bytes of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryHead {
    pub(crate) seqno: Seqno,
    pub(crate) kind: Kind,
    pub(crate) value_bytes: usize,
}

// SAFETY: the entry is immutable except for an atomic byte.
unsafe impl Send for EntryAt<'_> {}
// SAFETY: as above.
unsafe impl Sync for EntryAt<'_> {}

/// The stamp of an entry: sequence number and kind.
#[inline(always)]
pub(super) fn stamp(seqno: Seqno, kind: Kind) -> u64 {
    seqno.0 << 8 | kind as u64
}

#[inline(always)]
fn unstamp(stamp: u64) -> (Seqno, Kind) {
    let kind = if stamp as u8 == Kind::Put as u8 { Kind::Put } else { Kind::Delete };
    (Seqno(stamp >> 8), kind)
}

/// The parts of a payload before the key, and between key and value.
#[inline(always)]
pub(super) fn fixed_parts(
    key: &[u8],
    seqno: Seqno,
    kind: Kind,
) -> ([u8; KEY_LEN_BYTES], [u8; STAMP_BYTES + WATCH_BYTES]) {
    let mut behind = [0; STAMP_BYTES + WATCH_BYTES];
    behind[..STAMP_BYTES].copy_from_slice(&stamp(seqno, kind).to_le_bytes());
    #[cfg(loom)]
    behind[STAMP_BYTES..].copy_from_slice(&watch::written().to_le_bytes());
    ((key.len() as u16).to_le_bytes(), behind)
}

impl<'a> EntryAt<'a> {
    /// The entry whose first byte is at `at`, in a chunk of `class`.
    ///
    /// # Safety
    /// An entry must have been written there, and it must live as long as `'a`.
    #[inline(always)]
    pub(super) unsafe fn new(at: NonNull<u8>, class: ChunkClass) -> Self {
        let tagged = at.map_addr(|at| at | (class as usize) << CLASS_SHIFT);
        Self { tagged, memory: PhantomData }
    }

    /// The entry of a pointer that `tagged` returned.
    ///
    /// # Safety
    /// The entry must have been published to this thread (or written by it), and it must live as
    /// long as `'a`.
    #[inline(always)]
    pub(crate) unsafe fn from_tagged(tagged: NonNull<u8>) -> Self {
        Self { tagged, memory: PhantomData }
    }

    /// The pointer, for storing. The four bits above the address are free for tags of the caller.
    #[inline(always)]
    pub(crate) fn tagged(self) -> NonNull<u8> {
        self.tagged
    }

    #[inline(always)]
    pub(super) fn class(self) -> ChunkClass {
        match self.tagged.addr().get() >> CLASS_SHIFT {
            0 => ChunkClass::Small,
            1 => ChunkClass::Medium,
            _ => ChunkClass::Large,
        }
    }

    #[inline(always)]
    pub(super) fn address(self) -> *mut u8 {
        self.tagged.as_ptr().map_addr(|at| at & ((1 << ADDRESS_BITS) - 1))
    }

    /// Bytes from the start of the entry to the end of its chunk.
    #[inline(always)]
    fn rest_of_chunk(self) -> usize {
        let bytes = self.class().bytes();
        bytes - (self.address().addr() & (bytes - 1))
    }

    #[inline(always)]
    pub(super) fn chunk(self) -> &'a ChunkHeader {
        // SAFETY: whoever made this guaranteed the entry's memory, which its chunk is part of.
        unsafe { ChunkHeader::of(self.address(), self.class()) }
    }

    #[inline(always)]
    fn first_byte(self) -> &'a AtomicU8 {
        // SAFETY: the entry has at least a header, and its first byte is accessed only atomically
        // once it is published.
        unsafe { AtomicU8::from_ptr(self.address()) }
    }

    /// The state that the writer recorded.
    #[inline(always)]
    pub(super) fn state(self) -> EntryState {
        EntryState::of(self.first_byte().load(Ordering::Relaxed))
    }

    /// Records a new state. Only for the writer: load and store are two steps.
    #[inline(always)]
    pub(super) fn set_state(self, state: EntryState) {
        let byte = self.first_byte();
        byte.store(state.set_in(byte.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// The entry in place; `None` if it straddles chunks.
    #[inline(always)]
    pub(crate) fn whole(self) -> Option<EntryRef<'a>> {
        let (payload_at, payload_bytes, _) = self.in_place()?;
        // SAFETY: the payload lies in this chunk, is immutable and lives as long as `'a`.
        let payload = unsafe { slice::from_raw_parts(payload_at, payload_bytes) };
        Some(split_payload(payload))
    }

    /// The address and length of the payload, and the length of the header, if all of it is in this
    /// chunk.
    #[inline(always)]
    fn in_place(self) -> Option<(*const u8, usize, usize)> {
        let rest = self.rest_of_chunk();
        if rest < HEADER_BYTES_MAX {
            return None;
        }
        let at = self.address().cast_const();
        let first = self.first_byte().load(Ordering::Relaxed);
        let mut value = usize::from(first & 0x7F);
        let mut header_bytes = 1;
        if first & 0x80 != 0 {
            loop {
                // SAFETY: a header has at most `HEADER_BYTES_MAX` bytes, and that many are left in
                // the chunk. Bytes after the first never change.
                let next = unsafe { at.add(header_bytes) };
                // SAFETY: as above.
                let byte = unsafe { *next };
                value |= usize::from(byte & 0x7F) << (7 * header_bytes);
                header_bytes += 1;
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        let payload_bytes = value >> 2;
        if header_bytes + payload_bytes > rest {
            return None;
        }
        // SAFETY: that many bytes are left in the chunk.
        Some((unsafe { at.add(header_bytes) }, payload_bytes, header_bytes))
    }

    /// The header, even if it straddles chunks.
    #[inline]
    pub(super) fn header(self) -> EntryHeader {
        if let Some((_, payload_bytes, bytes)) = self.in_place() {
            return EntryHeader { state: self.state(), payload_bytes, bytes };
        }
        let mut raw = [0; HEADER_BYTES_MAX];
        raw[0] = self.first_byte().load(Ordering::Relaxed);
        let mut filled = 1;
        for piece in Pieces::starting(self, 1, HEADER_BYTES_MAX - 1) {
            raw[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        }
        decode(&raw[..filled]).expect("the writer writes whole headers")
    }

    /// The length of header and payload together.
    #[inline]
    pub(super) fn bytes(self) -> usize {
        self.header().entry_bytes()
    }

    /// Sequence number, kind, and the length of the value. Copies nothing.
    #[inline(always)]
    pub(crate) fn head(self) -> EntryHead {
        match self.whole() {
            Some(EntryRef { seqno, kind, value, .. }) => {
                EntryHead { seqno, kind, value_bytes: value.len() }
            }
            None => self.parts(|_| ()).0,
        }
    }

    /// The sequence number.
    #[inline(always)]
    pub(crate) fn seqno(self) -> Seqno {
        self.head().seqno
    }

    /// The parts of an entry that straddles chunks: passes its key to `key`, piece by piece, and
    /// returns the pieces of its value.
    #[cold]
    fn parts(self, mut key: impl FnMut(&[u8])) -> (EntryHead, Pieces<'a>) {
        let header = self.header();
        let mut payload = Pieces::starting(self, header.bytes, header.payload_bytes);
        let mut key_len = [0; KEY_LEN_BYTES];
        payload.read(&mut key_len);
        let key_len = usize::from(u16::from_le_bytes(key_len));
        let mut missing = key_len;
        while missing > 0 {
            let piece = payload.up_to(missing);
            missing -= piece.len();
            key(piece);
        }
        let mut behind = [0; STAMP_BYTES + WATCH_BYTES];
        payload.read(&mut behind);
        let stamp = behind.first_chunk::<STAMP_BYTES>().expect("the stamp comes first");
        let (seqno, kind) = unstamp(u64::from_le_bytes(*stamp));
        let value_bytes = header.payload_bytes - PAYLOAD_FIXED_BYTES - key_len;
        (EntryHead { seqno, kind, value_bytes }, payload)
    }

    /// Does it have this key?
    #[inline(always)]
    pub(crate) fn has_key(self, key: &[u8]) -> bool {
        match self.whole() {
            Some(entry) => entry.key == key,
            None => self.compare_straddling(key) == KeyOrder::Equal,
        }
    }

    /// Compares its key with `key`.
    #[inline]
    pub(crate) fn compare_key(self, key: &[u8]) -> KeyOrder {
        match self.whole() {
            Some(entry) => entry.key.cmp(key),
            None => self.compare_straddling(key),
        }
    }

    /// As `compare_key`, for an entry that straddles chunks.
    #[cold]
    fn compare_straddling(self, key: &[u8]) -> KeyOrder {
        let mut own = Vec::new();
        self.put_key(&mut own);
        own[..].cmp(key)
    }

    /// Appends a copy of the key to `out`.
    pub(crate) fn put_key(self, out: &mut Vec<u8>) {
        if let Some(entry) = self.whole() {
            return out.extend_from_slice(entry.key);
        }
        self.parts(|piece| out.extend_from_slice(piece));
    }

    /// Appends a copy of the value to `out`.
    pub(crate) fn put_value(self, out: &mut Vec<u8>) {
        if let Some(entry) = self.whole() {
            return out.extend_from_slice(entry.value);
        }
        let (head, value) = self.parts(|_| ());
        out.reserve(head.value_bytes);
        value.for_each(|piece| out.extend_from_slice(piece));
    }

    /// Under loom: records that this thread has just written the bytes of a copy.
    #[cfg(loom)]
    pub(super) fn note_written(self) {
        let entry = self.whole().expect("models use entries that do not straddle");
        // SAFETY: the watch is after the stamp, before the value.
        let at = unsafe { entry.value.as_ptr().cast_mut().sub(WATCH_BYTES) };
        let watched = watch::written().to_le_bytes();
        // SAFETY: unpublished, so nobody else reads it.
        unsafe { std::ptr::copy_nonoverlapping(watched.as_ptr(), at, WATCH_BYTES) };
    }
}

/// Splits a payload that this crate has written.
#[inline(always)]
fn split_payload(payload: &[u8]) -> EntryRef<'_> {
    debug_assert!(check_payload(payload).is_ok(), "the writer writes whole payloads");
    let (key_len, rest) = payload.split_at(KEY_LEN_BYTES);
    let key_len = usize::from(u16::from_le_bytes([key_len[0], key_len[1]]));
    let (key, rest) = rest.split_at(key_len);
    let (stamp, value) = rest.split_at(STAMP_BYTES);
    let stamp: [u8; STAMP_BYTES] = stamp.try_into().expect("split at its length");
    let (seqno, kind) = unstamp(u64::from_le_bytes(stamp));
    #[cfg(loom)]
    let value = watch::read(value);
    EntryRef { key, seqno, kind, value }
}

/// Checks that this is a valid payload.
pub(super) fn check_payload(payload: &[u8]) -> Result<(), HeaderDamage> {
    let Some((key_len, rest)) = payload.split_first_chunk::<KEY_LEN_BYTES>() else {
        return Err(HeaderDamage::PayloadTooShort);
    };
    let key_len = usize::from(u16::from_le_bytes(*key_len));
    if rest.len() < STAMP_BYTES + WATCH_BYTES {
        return Err(HeaderDamage::PayloadTooShort);
    }
    if key_len == 0 || key_len > rest.len() - STAMP_BYTES - WATCH_BYTES {
        return Err(HeaderDamage::BadKeyLength);
    }
    if Kind::from_u8(rest[key_len]).is_none() {
        return Err(HeaderDamage::BadKind);
    }
    Ok(())
}

/// A sequence of bytes of a buffer, chunk by chunk.
pub(super) struct Pieces<'a> {
    at: *mut u8,
    in_chunk: usize,
    missing: usize,
    chunk: &'a ChunkHeader,
    class: ChunkClass,
}

impl<'a> Pieces<'a> {
    /// `bytes` bytes of the entry, after the first `skip`.
    pub(super) fn starting(entry: EntryAt<'a>, skip: usize, bytes: usize) -> Self {
        let mut pieces = Self {
            at: entry.address(),
            in_chunk: entry.rest_of_chunk(),
            missing: skip + bytes,
            chunk: entry.chunk(),
            class: entry.class(),
        };
        pieces.pass(skip);
        pieces
    }

    /// Goes on without a look at the bytes: the writer may be changing the first one, so there must
    /// be no slice with it.
    fn pass(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let step = self.together(bytes);
            debug_assert!(step > 0, "only what the entry has is passed");
            self.advance(step);
            bytes -= step;
        }
    }

    fn read(&mut self, out: &mut [u8]) {
        let mut filled = 0;
        while filled < out.len() {
            let piece = self.up_to(out.len() - filled);
            out[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        }
    }

    /// The address of the next byte; `None` at the end of the extent.
    pub(super) fn at(&mut self) -> Option<NonNull<u8>> {
        if self.in_chunk == 0 {
            let next = self.chunk.next()?;
            self.at = next.as_ptr();
            self.in_chunk = self.class.bytes() - CHUNK_HEADER_BYTES;
            // SAFETY: a chunk of the same extent has the same class and lives as long.
            self.chunk = unsafe { ChunkHeader::of(next.as_ptr(), self.class) };
        }
        NonNull::new(self.at)
    }

    /// How many of the next `most` bytes lie together in one chunk; 0 only at the end.
    fn together(&mut self, most: usize) -> usize {
        if most == 0 || self.missing == 0 || self.at().is_none() {
            return 0;
        }
        most.min(self.in_chunk).min(self.missing)
    }

    /// Passes bytes that lie together.
    fn advance(&mut self, bytes: usize) {
        // SAFETY: at most one past the end of the chunk.
        self.at = unsafe { self.at.add(bytes) };
        self.in_chunk -= bytes;
        self.missing -= bytes;
    }

    /// The next piece, of at most `most` bytes; empty only at the end.
    fn up_to(&mut self, most: usize) -> &'a [u8] {
        let bytes = self.together(most);
        if bytes == 0 {
            return &[];
        }
        // SAFETY: inside the chunk. The caller asked for bytes that belong to one entry. They are
        // immutable, except for the first, which is passed or belongs to the writer.
        let piece = unsafe { slice::from_raw_parts(self.at, bytes) };
        self.advance(bytes);
        piece
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let piece = self.up_to(usize::MAX);
        (!piece.is_empty()).then_some(piece)
    }
}

#[cfg(loom)]
mod watch {
    use super::WATCH_BYTES;
    use loom::cell::UnsafeCell;

    /// A cell that was just written. It is never freed: models are small.
    pub(super) fn written() -> u64 {
        let cell: &'static UnsafeCell<()> = Box::leak(Box::new(UnsafeCell::new(())));
        cell.with_mut(|_| ());
        std::ptr::from_ref(cell).expose_provenance() as u64
    }

    /// Reads the cell in front of the value.
    pub(super) fn read(rest: &[u8]) -> &[u8] {
        let (watch, value) = rest.split_at(WATCH_BYTES);
        let address = u64::from_le_bytes(watch.try_into().expect("split at its length"));
        let cell = std::ptr::with_exposed_provenance::<UnsafeCell<()>>(address as usize);
        // SAFETY: leaked by `written`.
        let cell = unsafe { &*cell };
        cell.with(|_| ());
        value
    }
}
