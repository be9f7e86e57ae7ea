//! The index: which data block may hold a key. It is decoded at open and kept in memory.
//!
//! ```text
//! section payload   blocks u64 | one record per data block, in file order
//! record            varint shared | varint unshared | separator[shared..] | varint block_length
//! ```
//!
//! Data blocks fill the file from offset 0 on, so their lengths (trailers included) are enough. The
//! *separator* of a block is at or after its last key and before the next block's first key, and as
//! short as possible. The last separator is the table's last key. `shared` is the common prefix
//! with the previous separator.
//!
//! In memory, the *head* of a separator is the number made of its first eight bytes after the
//! prefix that all separators share. The heads are in a tree of nodes of sixteen, without pointers.
//! Only separators whose head equals the wanted key's are compared byte by byte.

use super::cache::BLOCKS_MAX;
use super::trailer::{FEATURE_LZ4, FEATURE_ZSTD, Flaw, INFLATED_BYTES_MAX};
use crate::codec::{Decoder, put_varint};
use crate::key::{common_prefix_len, head};
use crate::limits::KEY_BYTES_MAX;

/// Heads per node: two cache lines, compared without branches.
const FANOUT: usize = 16;
/// No entry is longer, so no block is.
const BLOCK_BYTES_CAP: u64 = i32::MAX.unsigned_abs() as u64;

/// Collects separators and block lengths while a table is written.
#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    payload: Vec<u8>,
    last: Vec<u8>,
    blocks: u64,
}

impl IndexBuilder {
    pub(super) fn new() -> Self {
        Self { payload: vec![0; 8], ..Self::default() }
    }

    /// Adds the next block, which takes `length` bytes of the file.
    pub(super) fn add(&mut self, separator: &[u8], length: u64) {
        let shared = common_prefix_len(&self.last, separator);
        put_varint(&mut self.payload, shared as u64);
        put_varint(&mut self.payload, (separator.len() - shared) as u64);
        self.payload.extend_from_slice(&separator[shared..]);
        put_varint(&mut self.payload, length);
        self.last.truncate(shared);
        self.last.extend_from_slice(&separator[shared..]);
        self.blocks += 1;
    }

    /// Bytes collected so far.
    pub(super) fn len(&self) -> usize {
        self.payload.len()
    }

    /// The number of blocks added.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The section's payload.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.payload[..8].copy_from_slice(&self.blocks.to_le_bytes());
        self.payload
    }
}

/// Sets `out` to a short key `s` with `before <= s < after`. `before` must be less than `after`.
pub(super) fn separator(before: &[u8], after: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let at = common_prefix_len(before, after);
    if at == before.len() {
        out.extend_from_slice(before);
    } else if after.len() > at + 1 {
        out.extend_from_slice(&after[..=at]);
    } else if before[at] + 1 < after[at] {
        out.extend_from_slice(&before[..=at]);
        out[at] += 1;
    } else {
        // `after` ends at the first differing byte: stay below it, and raise a later byte.
        match before[at + 1..].iter().position(|&byte| byte != u8::MAX) {
            Some(more) => {
                let raised = at + 1 + more;
                out.extend_from_slice(&before[..=raised]);
                out[raised] += 1;
            }
            None => out.extend_from_slice(before),
        }
    }
}

/// What the rest of its table says about an index.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexOf {
    /// Bytes of all keys and values, by the properties. Nothing else confirms it.
    pub(super) raw_bytes: u64,
    /// Where the last data block ends.
    pub(super) data_end: u64,
    /// The feature bits of the footer, which say how blocks may be compressed.
    pub(super) features: u64,
}

impl IndexOf {
    /// The longest key that a block of this length can have. A separator is no longer than the last
    /// key of its block, which the block has whole, or in two parts.
    fn key_bytes_max(&self, block_bytes: u64) -> u64 {
        if self.features & FEATURE_ZSTD != 0 {
            block_bytes.max(INFLATED_BYTES_MAX as u64)
        } else if self.features & FEATURE_LZ4 != 0 {
            // What a byte of an LZ4 block adds at most.
            block_bytes * 255
        } else {
            block_bytes
        }
    }
}

/// The separators and offsets of all data blocks of one table.
#[derive(Debug)]
pub(super) struct Index {
    /// The prefix that all separators share.
    prefix: Box<[u8]>,
    /// `levels[0]` has the heads of all separators; each cell above is the largest head of a node
    /// below. Every level is padded to whole nodes with `u64::MAX`, and the last one is one node.
    levels: Vec<Vec<u64>>,
    /// All separators, one after another.
    separators: Vec<u8>,
    /// The start of each separator in `separators`, and the end of the last one.
    starts: Vec<u32>,
    /// The file offset of each block, and the end of the last one.
    offsets: Vec<u64>,
}

impl Index {
    /// Decodes a section's payload. Nothing is allocated before all lengths are checked.
    pub(super) fn decode(payload: &[u8], of: &IndexOf) -> Result<Self, Flaw> {
        let corrupt = |what: &str| Err(Flaw::Corrupt(what.to_owned()));
        let measured = measure(payload, of).map_err(|what| Flaw::Corrupt(what.to_owned()));
        let (blocks, bytes) = measured?;
        // A separator is no longer than the key before it or after it, and each key is at most once
        // one and at most once the other.
        if bytes > of.raw_bytes.saturating_mul(2) || bytes > u64::from(u32::MAX) {
            return corrupt("index separators are longer than the table's keys");
        }
        let mut separators = reserved(bytes as usize)?;
        let mut starts = reserved(blocks + 1)?;
        let mut offsets = reserved(blocks + 1)?;
        offsets.push(0);
        let (mut last, mut offset) = (0..0, 0_u64);
        for record in records(payload) {
            let Record { shared, suffix, length } =
                record.map_err(|what| Flaw::Corrupt(what.to_owned()))?;
            let start = separators.len();
            separators.extend_from_within(last.start..last.start + shared);
            separators.extend_from_slice(suffix);
            if separators[start..] <= separators[last.clone()] {
                return corrupt("index separators do not ascend");
            }
            starts.push(start as u32);
            last = start..separators.len();
            offset += length;
            offsets.push(offset);
        }
        starts.push(separators.len() as u32);
        let first = &separators[..starts[1] as usize];
        let prefix = first[..common_prefix_len(first, &separators[last])].into();
        let mut index = Self { prefix, levels: Vec::new(), separators, starts, offsets };
        index.build_levels();
        Ok(index)
    }

    fn build_levels(&mut self) {
        let heads = (0..self.len()).map(|i| head(&self.separator(i)[self.prefix.len()..]));
        let mut level: Vec<u64> = heads.collect();
        loop {
            level.resize(level.len().next_multiple_of(FANOUT), u64::MAX);
            level.shrink_to_fit();
            let above: Vec<u64> = level.chunks_exact(FANOUT).map(|n| n[FANOUT - 1]).collect();
            self.levels.push(level);
            if above.len() == 1 {
                return;
            }
            level = above;
        }
    }

    /// The number of data blocks, at least 1.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The file offset of block `i`, and its length with its trailer.
    #[inline]
    pub(super) fn place(&self, i: usize) -> (u64, usize) {
        let start = self.offsets[i];
        (start, (self.offsets[i + 1] - start) as usize)
    }

    /// The offset at which the last data block ends.
    pub(super) fn data_end(&self) -> u64 {
        self.offsets[self.len()]
    }

    /// The number of blocks that end at or before `offset`.
    pub(super) fn blocks_ending_by(&self, offset: u64) -> usize {
        self.offsets[1..].partition_point(|&end| end <= offset)
    }

    /// The number of blocks that begin before `offset`.
    pub(super) fn blocks_starting_before(&self, offset: u64) -> usize {
        self.offsets[..self.len()].partition_point(|&start| start < offset)
    }

    /// The separator of block `i`.
    #[inline]
    pub(super) fn separator(&self, i: usize) -> &[u8] {
        &self.separators[self.starts[i] as usize..self.starts[i + 1] as usize]
    }

    /// The first block whose separator is at or after `key`. Only this block may hold the key.
    /// `len()` if the key is after all separators.
    #[inline]
    pub(super) fn lower_bound(&self, key: &[u8]) -> usize {
        let mut rest = key;
        // Not only a shortcut: to compare nothing at the dangling address of an empty box takes 70
        // ns on some processors.
        if !self.prefix.is_empty() {
            match key.strip_prefix(&*self.prefix) {
                Some(after) => rest = after,
                None => return if key < &*self.prefix { 0 } else { self.len() },
            }
        }
        let wanted = head(rest);
        let mut at = 0;
        for level in self.levels.iter().rev() {
            let Some(node) = level.get(at * FANOUT..).and_then(|n| n.first_chunk::<FANOUT>())
            else {
                // All heads are smaller than `wanted`.
                return self.len();
            };
            at = at * FANOUT + smaller(node, wanted);
        }
        if self.levels[0].get(at).is_none_or(|&head| head != wanted) {
            return at.min(self.len());
        }
        self.resolve_tie(key, wanted, at)
    }

    /// Binary search among the separators from `at` on whose head is `wanted`.
    #[cold]
    fn resolve_tie(&self, key: &[u8], wanted: u64, at: usize) -> usize {
        let heads = &self.levels[0][at.min(self.len())..self.len()];
        let (mut lo, mut hi) = (at, at + heads.partition_point(|&head| head == wanted));
        while lo < hi {
            let middle = lo + (hi - lo) / 2;
            if self.separator(middle) < key {
                lo = middle + 1;
            } else {
                hi = middle;
            }
        }
        lo.min(self.len())
    }

    /// Bytes of memory taken.
    pub(super) fn memory_bytes(&self) -> usize {
        let heads: usize = self.levels.iter().map(Vec::len).sum();
        heads * 8 + self.separators.len() + self.starts.len() * 4 + self.offsets.len() * 8
    }
}

/// One block's record.
struct Record<'a> {
    shared: usize,
    suffix: &'a [u8],
    length: u64,
}

/// The records of a payload. Each is checked against the one before.
fn records(payload: &[u8]) -> impl Iterator<Item = Result<Record<'_>, &'static str>> {
    const CUT: &str = "index is cut short";
    let mut reader = Decoder::new(payload.get(8..).unwrap_or_default());
    let mut last = 0;
    std::iter::from_fn(move || {
        if reader.is_empty() {
            return None;
        }
        let mut next = || {
            let shared = reader.varint().ok_or(CUT)?;
            let suffix = reader.length_prefixed().ok_or(CUT)?;
            let length = reader.varint().ok_or(CUT)?;
            if shared > last {
                return Err("index separator shares more than there is");
            }
            last = shared + suffix.len() as u64;
            if last == 0 || last > KEY_BYTES_MAX as u64 {
                return Err("index separator has an impossible length");
            }
            // So many bytes are allocated when it is read.
            if length > BLOCK_BYTES_CAP {
                return Err("index names a block of more than 2 GiB");
            }
            Ok(Record { shared: shared as usize, suffix, length })
        };
        Some(next())
    })
}

/// The number of blocks in a payload, and the total length of their separators. Checks every
/// record, except for the order of the separators.
fn measure(payload: &[u8], of: &IndexOf) -> Result<(usize, u64), &'static str> {
    let blocks = Decoder::new(payload).u64().ok_or("index is cut short")?;
    if blocks == 0 || blocks > BLOCKS_MAX as u64 {
        return Err("index has an impossible number of blocks");
    }
    let (mut count, mut bytes, mut end) = (0, 0, 0);
    for record in records(payload) {
        let Record { shared, suffix, length } = record?;
        let separator = (shared + suffix.len()) as u64;
        if separator > of.key_bytes_max(length) {
            return Err("index separator is longer than its block can be");
        }
        count += 1;
        bytes += separator;
        end += length;
    }
    if count != blocks {
        return Err("index has another number of records than it says");
    }
    if end != of.data_end {
        return Err("index names blocks that end elsewhere than the data");
    }
    Ok((blocks as usize, bytes))
}

/// An empty vector with room for `count` elements.
fn reserved<T>(count: usize) -> Result<Vec<T>, Flaw> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(count).map_err(|_| Flaw::OutOfMemory)?;
    Ok(vec)
}

/// The number of heads of a node that are below `wanted`.
#[inline]
fn smaller(node: &[u64; FANOUT], wanted: u64) -> usize {
    let mut at = 0;
    for step in [8, 4, 2, 1] {
        at += if node[at + step - 1] < wanted { step } else { 0 };
    }
    at + usize::from(node[at] < wanted)
}

#[cfg(test)]
mod tests;
