//! Data blocks: a run of entries in key order, readable from any entry.
//!
//! ```text
//! | header 16 | tags: count x 1 | cells: count x (offset, seqno) | entries ... |
//!
//! header  count u32 | log2 of the restart interval u8 | bytes per offset u8, 2 or 4
//!         | bytes per seqno u8, 0 to 7 | 0 u8 | base seqno u64
//! cell    where the entry begins, counted from the first one | seqno - base
//! entry   varint shared | varint unshared << 1 | kind | key[shared..] | value
//! ```
//!
//! Rules:
//! * `shared` counts the bytes that an entry's key has in common with the key of its *restart*: the
//!   last entry at or before it whose index is a multiple of the interval. It is not relative to
//!   the previous entry. So any entry can be read on its own, and within a group `shared` never
//!   grows.
//! * A value ends where the next entry begins, or with the block. Its length is not stored.
//! * The columns come first, so that in memory they share cache lines with each other and with the
//!   reference count of the block.
//! * A tag is one byte of the key's hash. A point read compares eight tags at once, and then reads
//!   only entries whose tag matches. Of the entries with other keys, one in 256 matches.
//!
//! Nothing that is read from a block is trusted: every access is checked and reports `Broken`.

mod builder;
mod check;
mod cursor;
mod reader;
mod tags;
#[cfg(test)]
mod tests;

pub(super) use builder::BlockBuilder;
pub(super) use check::Bounds;
pub(super) use cursor::BlockCursor;
pub(super) use reader::{Block, EntrySlot};

/// Bytes of the block header.
const HEADER_BYTES: usize = 16;

/// What is wrong inside a block. The table adds file and offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

/// The tag of a key with this hash.
#[inline]
fn tag(hash: u64) -> u8 {
    // Not the top bits: the filter's choice of a line uses those.
    (hash >> 16) as u8
}

/// Eight bytes from `at` on as a little-endian number. Bytes behind the end count as 0.
#[inline]
fn load_u64(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first_chunk::<8>() {
        Some(word) => u64::from_le_bytes(*word),
        None => load_last(rest),
    }
}

#[cold]
fn load_last(rest: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(word)
}

/// Are the two equal? For keys of common lengths this is faster than a call of `memcmp`.
#[inline]
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    let length = a.len();
    if length != b.len() {
        return false;
    }
    if let (Some(x), Some(y)) = (a.first_chunk::<8>(), b.first_chunk::<8>())
        && length <= 16
        && let (Some(v), Some(w)) = (a.last_chunk::<8>(), b.last_chunk::<8>())
    {
        // The two words overlap if there are fewer than sixteen bytes.
        let differ = (u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y))
            | (u64::from_le_bytes(*v) ^ u64::from_le_bytes(*w));
        return differ == 0;
    }
    if length < 8 {
        return a.iter().zip(b).all(|(x, y)| x == y);
    }
    a == b
}
