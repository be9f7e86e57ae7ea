//! Reads one data block; see the parent module for the format.

use super::{Broken, FOOTER_BYTES, shared_len, tag, tags};
use crate::codec::Reader;
use crate::key::{Kind, Seqno};
use crate::limits::SEQNO_MAX;
use bytes::Bytes;
use std::cmp::Ordering;
use std::ops::Range;

/// Up to this many entries a linear search of the tags beats a binary search of the keys.
const TAGGED_ENTRIES_MAX: u32 = 1024;

/// A decoded (not decompressed: that happened before) data block. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    bytes: Bytes,
    base_seqno: u64,
    count: u32,
    /// Where the entries end and the offset column begins.
    entries_end: u32,
    restart_shift: u8,
    offset_bytes: u8,
    seqno_bytes: u8,
}

/// Where one entry's parts lie in its block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Bytes in common with the restart's key.
    pub(crate) shared: u32,
    /// Where the rest of the key begins.
    pub(crate) suffix: u32,
    /// Where the value begins (and the key ends).
    pub(crate) value: u32,
    /// Where the value ends.
    pub(crate) end: u32,
    pub(crate) kind: Kind,
}

impl Block {
    /// Reads the footer and checks that the columns fit.
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, Broken> {
        let length = bytes.len();
        if u32::try_from(length).is_err() {
            return Err(Broken("block is longer than 4 GiB"));
        }
        let footer = length.checked_sub(FOOTER_BYTES).ok_or(Broken("block is too short"))?;
        let mut reader = Reader::new(&bytes[footer..]);
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
            return Err(Broken("block footer has an impossible field"));
        }
        let cell_max = (1_u64 << (8 * seqno_bytes)) - 1;
        if base_seqno > SEQNO_MAX - cell_max {
            return Err(Broken("base seqno is too large"));
        }
        let columns = count as usize * (usize::from(offset_bytes + seqno_bytes) + 1);
        let entries_end = footer.checked_sub(columns).ok_or(Broken("columns exceed the block"))?;
        Ok(Self {
            base_seqno,
            count,
            entries_end: entries_end as u32,
            restart_shift,
            offset_bytes,
            seqno_bytes,
            bytes,
        })
    }

    /// Entries in the block, at least 1.
    #[inline]
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The raw block.
    #[inline]
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same block in memory of its own.
    pub(crate) fn detached(&self) -> Self {
        Self { bytes: Bytes::copy_from_slice(&self.bytes), ..self.clone() }
    }

    /// A part of the block that a `Slot` described.
    #[inline]
    pub(crate) fn part(&self, range: Range<u32>) -> &[u8] {
        // A slot was checked when it was made; the empty slice can only stand for a foreign one.
        self.bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// The first entry of the group that shares one full key with entry `index`.
    #[inline]
    pub(crate) fn restart_of(&self, index: u32) -> u32 {
        index >> self.restart_shift << self.restart_shift
    }

    #[inline]
    fn offset(&self, index: u32) -> Option<u32> {
        if index >= self.count {
            return (index == self.count).then_some(self.entries_end);
        }
        if self.offset_bytes == 2 {
            let at = self.entries_end as usize + 2 * index as usize;
            let cell = self.bytes.get(at..)?.first_chunk::<2>()?;
            Some(u32::from(u16::from_le_bytes(*cell)))
        } else {
            let at = self.entries_end as usize + 4 * index as usize;
            let cell = self.bytes.get(at..)?.first_chunk::<4>()?;
            Some(u32::from_le_bytes(*cell))
        }
    }

    /// Where the parts of entry `index` lie.
    #[inline]
    pub(crate) fn slot(&self, index: u32) -> Result<Slot, Broken> {
        let start = self.offset(index).ok_or(Broken("entry is not in the block"))?;
        self.slot_at(start, index)
    }

    /// The same for a caller who knows where entry `index` begins.
    #[inline]
    pub(crate) fn slot_at(&self, start: u32, index: u32) -> Result<Slot, Broken> {
        const ORDER: Broken = Broken("entry offsets do not ascend");
        let end = self.offset(index + 1).ok_or(Broken("entry is not in the block"))?;
        if end > self.entries_end {
            return Err(ORDER);
        }
        let entry = self.bytes.get(start as usize..end as usize).ok_or(ORDER)?;
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
        Ok(Slot { shared, suffix, value, end, kind })
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

    /// The seqno of entry `index`, which must be below `count`.
    #[inline]
    pub(crate) fn seqno(&self, index: u32) -> Seqno {
        let width = usize::from(self.seqno_bytes);
        let column =
            self.entries_end as usize + usize::from(self.offset_bytes) * self.count as usize;
        let at = column + width * index as usize;
        // The footer lies behind the column, so eight bytes can always be loaded.
        let cell = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
        let word = u64::from_le_bytes(*cell.expect("parse checked that columns and footer fit"));
        Seqno(self.base_seqno + (word & ((1 << (8 * width)) - 1)))
    }

    /// The entry that has exactly `key`, whose hash is `hash`.
    #[inline]
    pub(crate) fn find(&self, key: &[u8], hash: u64) -> Result<Option<(u32, Slot)>, Broken> {
        if self.count > TAGGED_ENTRIES_MAX {
            let index = self.lower_bound(key)?;
            if index == self.count {
                return Ok(None);
            }
            let slot = self.slot(index)?;
            return Ok(self.has_key(index, &slot, key)?.then_some((index, slot)));
        }
        let column = self.bytes.len() - FOOTER_BYTES - self.count as usize;
        let mut found = None;
        tags::search(&self.bytes[column..], self.count, tag(hash), |index| {
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
    fn has_key(&self, index: u32, slot: &Slot, key: &[u8]) -> Result<bool, Broken> {
        let shared = slot.shared as usize;
        // The suffix first: it nearly always tells, and the restart is one more line to load.
        let Some((front, rest)) = key.split_at_checked(shared) else { return Ok(false) };
        if self.part(slot.suffix..slot.value) != rest {
            return Ok(false);
        }
        if shared == 0 {
            return Ok(true);
        }
        Ok(self.restart_key(self.restart_of(index))?.get(..shared) == Some(front))
    }

    /// The number of the first entry whose key is at or after `key`; `count` if there is none.
    pub(crate) fn lower_bound(&self, key: &[u8]) -> Result<u32, Broken> {
        let shift = self.restart_shift;
        // How many restarts lie before `key`?
        let (mut lo, mut hi) = (0, ((self.count - 1) >> shift) + 1);
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
        let common = shared_len(restart_key, key);
        let (mut lo, mut hi) = (restart + 1, self.count.min((group + 1) << shift));
        while lo < hi {
            let middle = lo + (hi - lo) / 2;
            let slot = self.slot(middle)?;
            // `key` is after the restart and so is the entry. Whoever leaves the restart's key
            // earlier, leaves it upwards and is the greater one.
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

    /// The value bytes `range`: shared with the block if they are at least an eighth of it, so that a
    /// value held for long never pins more than eight times itself; copied otherwise.
    #[inline]
    pub(crate) fn value(&self, range: Range<u32>) -> Bytes {
        let value = self.part(range);
        if value.is_empty() {
            Bytes::new()
        } else if value.len() >= self.bytes.len() / 8 {
            self.bytes.slice_ref(value)
        } else {
            Bytes::copy_from_slice(value)
        }
    }
}

/// The two varints of an entry whose lengths do not fit a byte each.
#[cold]
fn long_head(entry: &[u8]) -> Result<(u32, u32, u32), Broken> {
    let mut reader = Reader::new(entry);
    let mut field = || {
        let value = reader.varint()?;
        u32::try_from(value).ok().filter(|&v| v < 1 << 24)
    };
    match (field(), field()) {
        (Some(shared), Some(unshared)) => Ok((shared, unshared, reader.position() as u32)),
        _ => Err(Broken("entry lengths are cut short or too large")),
    }
}
