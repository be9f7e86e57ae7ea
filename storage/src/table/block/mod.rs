//! Data blocks: a run of entries in key order, readable from any entry.
//!
//! ```text
//! | entries ... | offsets: count x 2 or 4 | seqnos: count x 0..=7 | tags: count x 1 | footer 16 |
//!
//! entry   varint shared | varint unshared << 1 | kind | key[shared..] | value
//! footer  count u32 | log2 of the restart interval u8 | bytes per offset u8 | bytes per seqno u8
//!         | 0 u8 | base seqno u64
//! ```
//!
//! * `shared` counts the bytes an entry's key has in common with the key of its *restart*, the last
//!   entry before it whose number is a multiple of the interval (not with its neighbour). So any
//!   entry can be read on its own, and `shared` never grows from one entry to the next.
//! * A value ends where the next entry, or the offsets, begin; its length is not stored.
//! * A seqno is the base plus the entry's cell in the seqno column, whose width fits the block.
//! * A tag is one byte of the key's hash. A point read compares tags, eight at a time, and then reads
//!   only entries that match: one of 256 entries that do not have the key.
//!
//! Nothing read from a block is trusted: every access is checked and reports `Broken`.

mod builder;
mod cursor;
mod reader;
mod tags;

pub(super) use builder::BlockBuilder;
pub(super) use cursor::BlockCursor;
pub(super) use reader::{Block, Slot};

/// Bytes of the block footer.
const FOOTER_BYTES: usize = 16;
/// Bytes that the columns cost an entry at most: offset, seqno and tag.
const COLUMN_BYTES_MAX: usize = 4 + 7 + 1;

/// What is wrong inside a block; the table adds file and offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

/// The tag of a key with this hash.
#[inline]
fn tag(hash: u64) -> u8 {
    // Bits that the filter's choice of a line, which uses the top ones, does not fix.
    (hash >> 16) as u8
}

/// How many leading bytes two keys share.
#[inline]
pub(super) fn shared_len(a: &[u8], b: &[u8]) -> usize {
    let limit = a.len().min(b.len());
    let (a, b) = (&a[..limit], &b[..limit]);
    let mut at = 0;
    while let (Some(x), Some(y)) = (a[at..].first_chunk::<8>(), b[at..].first_chunk::<8>()) {
        let differ = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differ != 0 {
            return at + differ.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while at < limit && a[at] == b[at] {
        at += 1;
    }
    at
}
