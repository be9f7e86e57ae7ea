//! The header in front of every entry: `uvarint(payload length << 2 | state)`.
//!
//! ```text
//! byte 0: 1 bit "more follows" | 5 low bits of the length | 2 bits state
//! byte 1..: 1 bit "more follows" | 7 further bits of the length
//! ```
//!
//! LEB128 stores the lowest bits first, so the state is in the first byte. To change it rewrites
//! one byte, keeps the length, and never crosses the end of a chunk, as in go-cmap (ADR 0009).
//!
//! The decoder accepts headers that are longer than necessary: a filler must fill an exact number
//! of bytes, and for some numbers no shortest form fits.

/// The longest header: 35 bits hold two state bits and the length of the longest payload.
pub(super) const HEADER_BYTES_MAX: usize = 5;

/// The writer's knowledge about the bytes behind a header. Readers do not look at it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryState {
    /// A reader may need the entry.
    Live = 0,
    /// Nobody needs the entry. The next compaction skips it.
    Dead = 1,
    /// Nobody needs the entry, but the running compaction still copies it, as a dead one: the
    /// destination's length was fixed, with this entry, when the compaction started.
    DeadAfterCopy = 2,
    /// Not an entry: the unused end of a chunk.
    Filler = 3,
}

/// The bits of the first byte that hold the state.
const STATE_MASK: u8 = 0b11;
const MORE: u8 = 0x80;

impl EntryState {
    /// The state in the first byte of a header.
    #[inline(always)]
    pub(super) fn of(first: u8) -> Self {
        match first & STATE_MASK {
            0 => Self::Live,
            1 => Self::Dead,
            2 => Self::DeadAfterCopy,
            _ => Self::Filler,
        }
    }

    /// `first` with this state, and otherwise unchanged.
    #[inline(always)]
    pub(super) fn set_in(self, first: u8) -> u8 {
        first & !STATE_MASK | self as u8
    }
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryHeader {
    pub(super) state: EntryState,
    pub(super) payload_bytes: usize,
    /// The length of the header itself.
    pub(super) bytes: usize,
}

impl EntryHeader {
    /// The length of header and payload together.
    #[inline(always)]
    pub(super) fn entry_bytes(self) -> usize {
        self.bytes + self.payload_bytes
    }
}

/// The length of the shortest header for this payload.
#[inline(always)]
pub(super) fn header_bytes(payload_bytes: usize) -> usize {
    match payload_bytes {
        0..=0x1F => 1,
        0x20..=0xFFF => 2,
        0x1000..=0x7_FFFF => 3,
        0x8_0000..=0x3FF_FFFF => 4,
        _ => HEADER_BYTES_MAX,
    }
}

/// Writes a header of exactly `out.len()` bytes, even if it is longer than necessary.
#[inline(always)]
pub(super) fn encode(out: &mut [u8], payload_bytes: usize, state: EntryState) {
    let mut rest = (payload_bytes as u64) << 2 | state as u64;
    let last = out.len() - 1;
    for byte in &mut out[..last] {
        *byte = rest as u8 | MORE;
        rest >>= 7;
    }
    debug_assert!(rest < u64::from(MORE), "the caller leaves enough room for the length");
    out[last] = rest as u8;
}

/// Why bytes are not an entry. Memory that only this crate writes is never damaged. The strict
/// readers prove that, in tests and assertions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderDamage {
    /// The header or the payload is cut off.
    CutOff,
    /// The header is longer than any valid one.
    HeaderTooLong,
    /// The payload is too short for a key and a stamp.
    PayloadTooShort,
    /// The key's length is zero or exceeds the payload.
    BadKeyLength,
    /// The stamp's kind is neither put nor delete.
    BadKind,
}

/// Decodes the header at the start of `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Result<EntryHeader, HeaderDamage> {
    let mut value = 0_u64;
    for (at, &byte) in bytes.iter().take(HEADER_BYTES_MAX).enumerate() {
        value |= u64::from(byte & !MORE) << (7 * at);
        if byte & MORE == 0 {
            let payload_bytes = (value >> 2) as usize;
            return Ok(EntryHeader {
                state: EntryState::of(bytes[0]),
                payload_bytes,
                bytes: at + 1,
            });
        }
    }
    if bytes.len() < HEADER_BYTES_MAX {
        Err(HeaderDamage::CutOff)
    } else {
        Err(HeaderDamage::HeaderTooLong)
    }
}
