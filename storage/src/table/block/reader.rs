//! Reads one data block. The parent module describes the format.

use super::{Broken, HEADER_BYTES, equal, load_u64, tag, tags};
use crate::codec::Decoder;
use crate::key::{Kind, Seqno, common_prefix_len};
use crate::limits::SEQNO_MAX;
use bytes::Bytes;
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

/// Up to this many entries, a linear search of the tags is faster than a binary search of the keys.
const TAGGED_ENTRIES_MAX: u32 = 1024;

/// A parsed data block, already decompressed. Clones share the bytes.
///
/// The struct is small, because the cache holds many. The fields of the header are read from the
/// bytes when they are needed: they are in the first cache line, next to the reference count.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// The block's bytes and perhaps more: its trailer, or its neighbours in a large read.
    buffer: Arc<[u8]>,
    /// The place of the block in `buffer`.
    start: u32,
    end: u32,
    /// The offset of the entries, from `start`.
    entries_at: u32,
    restart_shift: u8,
    offset_bytes: u8,
    seqno_bytes: u8,
}

/// The offsets of the parts of one entry in its block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntrySlot {
    /// The number of bytes in common with the restart's key.
    pub(crate) shared: u32,
    /// The start of the rest of the key.
    pub(crate) suffix: u32,
    /// The start of the value, which is the end of the key.
    pub(crate) value: u32,
    /// The end of the value.
    pub(crate) end: u32,
    pub(crate) kind: Kind,
}

impl Block {
    /// Parses the block at `range` of `buffer`: reads its header and checks that the columns fit.
    pub(crate) fn parse(buffer: Arc<[u8]>, range: Range<usize>) -> Result<Self, Broken> {
        // So the sum of an offset and a length never exceeds 32 bits. No entry is half as long.
        if i32::try_from(buffer.len()).is_err() {
            return Err(Broken("block is longer than 2 GiB"));
        }
        let bytes = buffer.get(range.clone()).ok_or(Broken("block exceeds its buffer"))?;
        let mut reader = Decoder::new(bytes);
        let mut fields = || {
            let count = reader.u32()?;
            let widths = [reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?];
            Some((count, widths, reader.u64()?))
        };
        let (count, widths, base_seqno) = fields().ok_or(Broken("block is too short"))?;
        let [restart_shift, offset_bytes, seqno_bytes, zero] = widths;
        if count == 0 {
            return Err(Broken("block has no entries"));
        }
        if restart_shift > 7 || !matches!(offset_bytes, 2 | 4) || seqno_bytes > 7 || zero != 0 {
            return Err(Broken("block header has an impossible field"));
        }
        let cell_max = (1_u64 << (8 * seqno_bytes)) - 1;
        if base_seqno > SEQNO_MAX - cell_max {
            return Err(Broken("base seqno is too large"));
        }
        let columns = count as usize * (usize::from(offset_bytes + seqno_bytes) + 1);
        let entries_at = HEADER_BYTES + columns;
        if entries_at > bytes.len() {
            return Err(Broken("columns exceed the block"));
        }
        Ok(Self {
            start: range.start as u32,
            end: range.end as u32,
            entries_at: entries_at as u32,
            restart_shift,
            offset_bytes,
            seqno_bytes,
            buffer,
        })
    }

    /// The raw block.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start as usize..self.end as usize]
    }

    /// The number of entries, at least 1.
    #[inline]
    pub(crate) fn count(&self) -> u32 {
        load_u64(self.bytes(), 0) as u32
    }

    /// Bytes of memory that the block keeps alive.
    #[inline]
    pub(crate) fn memory_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The memory that the block kept alive.
    pub(crate) fn into_buffer(self) -> Arc<[u8]> {
        self.buffer
    }

    /// A copy of the block in its own memory.
    pub(crate) fn detached(&self) -> Self {
        let buffer = Arc::from(self.bytes());
        Self { buffer, start: 0, end: self.end - self.start, ..*self }
    }

    /// The bytes of a part of an entry.
    #[inline]
    pub(crate) fn part(&self, range: Range<u32>) -> &[u8] {
        // A slot is checked when it is made. Only a slot of another block can yield the empty
        // slice.
        self.bytes().get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// The index of the restart of entry `index`.
    #[inline]
    pub(crate) fn restart_of(&self, index: u32) -> u32 {
        index >> self.restart_shift << self.restart_shift
    }

    /// The offset of the cell of entry `index`.
    #[inline(always)]
    fn cell(&self, index: u32) -> usize {
        let width = usize::from(self.offset_bytes + self.seqno_bytes);
        HEADER_BYTES + self.count() as usize + index as usize * width
    }

    /// The offset of entry `index`; for `count`, the end of the last entry.
    #[inline(always)]
    pub(super) fn offset(&self, index: u32) -> Option<u32> {
        let count = self.count();
        if index >= count {
            return (index == count).then_some(self.end - self.start);
        }
        let cell = self.bytes().get(self.cell(index)..)?;
        let offset = if self.offset_bytes == 2 {
            u32::from(u16::from_le_bytes(*cell.first_chunk()?))
        } else {
            u32::from_le_bytes(*cell.first_chunk()?)
        };
        self.entries_at.checked_add(offset)
    }

    /// The parts of entry `index`.
    #[inline]
    pub(crate) fn slot(&self, index: u32) -> Result<EntrySlot, Broken> {
        let start = self.offset(index).ok_or(Broken("entry is not in the block"))?;
        self.slot_at(start, index)
    }

    /// As `slot`, for a caller that knows the offset of entry `index`.
    #[inline(always)]
    pub(crate) fn slot_at(&self, start: u32, index: u32) -> Result<EntrySlot, Broken> {
        const ORDER: Broken = Broken("entry offsets do not ascend");
        let end = self.offset(index + 1).ok_or(Broken("entry is not in the block"))?;
        let entry = self.bytes().get(start as usize..end as usize).ok_or(ORDER)?;
        let (shared, unshared, head) = match entry {
            [shared, unshared, ..] if (shared | unshared) & 0x80 == 0 => {
                (u32::from(*shared), u32::from(*unshared), 2)
            }
            _ => long_head(entry)?,
        };
        let kind = if unshared & 1 == 0 { Kind::Delete } else { Kind::Put };
        let suffix = start + head;
        let value = suffix + (unshared >> 1);
        if value > end {
            return Err(Broken("key exceeds its entry"));
        }
        Ok(EntrySlot { shared, suffix, value, end, kind })
    }

    /// The full key of a restart.
    #[inline]
    pub(crate) fn restart_key(&self, index: u32) -> Result<&[u8], Broken> {
        let slot = self.slot(index)?;
        if slot.shared != 0 {
            return Err(Broken("restart does not hold its whole key"));
        }
        Ok(self.part(slot.suffix..slot.value))
    }

    /// The sequence number of entry `index`, which must be below `count`.
    #[inline]
    pub(crate) fn seqno(&self, index: u32) -> Seqno {
        let bytes = self.bytes();
        let word = load_u64(bytes, self.cell(index) + usize::from(self.offset_bytes));
        let base = load_u64(bytes, 8);
        // `parse` has checked that this cannot exceed `SEQNO_MAX`.
        Seqno(base + (word & ((1 << (8 * self.seqno_bytes)) - 1)))
    }

    /// The entry with exactly this `key`, whose hash is `hash`.
    #[inline]
    pub(crate) fn find(&self, key: &[u8], hash: u64) -> Result<Option<(u32, EntrySlot)>, Broken> {
        let count = self.count();
        if count > TAGGED_ENTRIES_MAX {
            let index = self.lower_bound(key)?;
            if index == count {
                return Ok(None);
            }
            let slot = self.slot(index)?;
            return Ok(self.has_key(index, &slot, key)?.then_some((index, slot)));
        }
        let mut found = None;
        tags::search(&self.bytes()[HEADER_BYTES..], count, tag(hash), |index| {
            let slot = self.slot(index)?;
            let yes = self.has_key(index, &slot, key)?;
            if yes {
                found = Some((index, slot));
            }
            Ok(yes)
        })?;
        Ok(found)
    }

    #[inline]
    fn has_key(&self, index: u32, slot: &EntrySlot, key: &[u8]) -> Result<bool, Broken> {
        let shared = slot.shared as usize;
        // Compare the suffix first: it nearly always decides, and the restart is one more cache
        // line to load.
        let Some((front, rest)) = key.split_at_checked(shared) else { return Ok(false) };
        if !equal(self.part(slot.suffix..slot.value), rest) {
            return Ok(false);
        }
        if shared == 0 {
            return Ok(true);
        }
        let restart = self.restart_key(self.restart_of(index))?;
        Ok(restart.get(..shared).is_some_and(|restart| equal(restart, front)))
    }

    /// The index of the first entry whose key is at or after `key`; `count` if there is none.
    pub(crate) fn lower_bound(&self, key: &[u8]) -> Result<u32, Broken> {
        let (count, shift) = (self.count(), self.restart_shift);
        // The number of restarts before `key`.
        let (mut lo, mut hi) = (0, ((count - 1) >> shift) + 1);
        while lo < hi {
            let middle = lo + (hi - lo) / 2;
            match self.restart_key(middle << shift)?.cmp(key) {
                Ordering::Less => lo = middle + 1,
                Ordering::Equal => return Ok(middle << shift),
                Ordering::Greater => hi = middle,
            }
        }
        let Some(group) = lo.checked_sub(1) else { return Ok(0) };
        let restart = group << shift;
        let restart_key = self.restart_key(restart)?;
        let common = common_prefix_len(restart_key, key);
        let (mut lo, mut hi) = (restart + 1, count.min((group + 1) << shift));
        while lo < hi {
            let middle = lo + (hi - lo) / 2;
            let slot = self.slot(middle)?;
            // Both `key` and the entry are after the restart. The one that differs from it at an
            // earlier byte is greater there, and so the greater one.
            let order = match (slot.shared as usize).cmp(&common) {
                Ordering::Greater => Ordering::Less,
                Ordering::Less => Ordering::Greater,
                Ordering::Equal => self.part(slot.suffix..slot.value).cmp(&key[common..]),
            };
            match order {
                Ordering::Less => lo = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => hi = middle,
            }
        }
        Ok(lo)
    }

    /// The value at `range`. It shares the block's memory if it is at least an eighth of that;
    /// otherwise it is copied. So a value that is held for long never pins more than eight times
    /// its size.
    #[inline]
    pub(crate) fn value(&self, range: Range<u32>) -> Bytes {
        let value = self.part(range.clone());
        if value.is_empty() {
            Bytes::new()
        } else if value.len() >= self.buffer.len() / 8 {
            let (start, end) = (self.start + range.start, self.start + range.end);
            let buffer = Arc::clone(&self.buffer);
            Bytes::from_owner(SharedValue { buffer, start, end })
        } else {
            Bytes::copy_from_slice(value)
        }
    }
}

/// A value that keeps its block's memory alive.
struct SharedValue {
    buffer: Arc<[u8]>,
    start: u32,
    end: u32,
}

impl AsRef<[u8]> for SharedValue {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[self.start as usize..self.end as usize]
    }
}

/// Decodes the two varints of an entry whose lengths do not fit into a byte each.
#[cold]
fn long_head(entry: &[u8]) -> Result<(u32, u32, u32), Broken> {
    let mut reader = Decoder::new(entry);
    let mut field = || {
        let value = reader.varint()?;
        u32::try_from(value).ok().filter(|&v| v < 1 << 24)
    };
    match (field(), field()) {
        (Some(shared), Some(unshared)) => Ok((shared, unshared, reader.position() as u32)),
        _ => Err(Broken("entry lengths are cut short or too large")),
    }
}
