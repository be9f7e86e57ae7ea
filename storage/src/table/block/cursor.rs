//! A position inside one data block.

use super::reader::EntrySlot;
use super::{Block, Broken};
use crate::key::{Kind, Seqno};
use bytes::Bytes;

/// A suffix of at most this many bytes is copied by one move of fixed size.
const SHORT_SUFFIX: usize = 16;

/// A position at one entry of one block, with the entry's key assembled. The key buffer is kept
/// from block to block, so that a step allocates nothing.
#[derive(Debug)]
pub(crate) struct BlockCursor {
    block: Option<Block>,
    index: u32,
    /// How many bytes of `key` are known to equal the current restart's key.
    shared: u32,
    value: u32,
    end: u32,
    kind: Kind,
    key_len: usize,
    /// At least `SHORT_SUFFIX` bytes longer than the key. The bytes behind `key_len` have no
    /// meaning.
    key: Vec<u8>,
}

impl BlockCursor {
    /// A cursor without a block.
    pub(crate) fn new() -> Self {
        Self {
            block: None,
            index: 0,
            shared: 0,
            value: 0,
            end: 0,
            kind: Kind::Put,
            key_len: 0,
            key: vec![0; 64],
        }
    }

    /// Releases the block.
    pub(crate) fn clear(&mut self) {
        self.block = None;
    }

    /// Takes the block out, and leaves the cursor without one.
    pub(crate) fn take_block(&mut self) -> Option<Block> {
        self.block.take()
    }

    /// The current block.
    #[inline]
    fn block(&self) -> &Block {
        self.block.as_ref().expect("the table cursor enters a block before it steps")
    }

    /// Enters `block` at its first entry.
    #[inline]
    pub(crate) fn enter_first(&mut self, block: Block) -> Result<(), Broken> {
        self.block = Some(block);
        self.jump(0)
    }

    /// Enters `block` at its last entry.
    #[inline]
    pub(crate) fn enter_last(&mut self, block: Block) -> Result<(), Broken> {
        let last = block.count() - 1;
        self.block = Some(block);
        self.jump(last)
    }

    /// Enters `block` at the first entry at or after `key`. Returns `false` if there is none; the
    /// position is undefined then.
    pub(crate) fn enter_at(&mut self, block: Block, key: &[u8]) -> Result<bool, Broken> {
        let index = block.lower_bound(key)?;
        let inside = index < block.count();
        self.block = Some(block);
        if inside {
            self.jump(index)?;
        }
        Ok(inside)
    }

    /// Enters `block` at the last entry before `key`. Returns `false` if there is none.
    pub(crate) fn enter_before(&mut self, block: Block, key: &[u8]) -> Result<bool, Broken> {
        let index = block.lower_bound(key)?;
        self.block = Some(block);
        if index > 0 {
            self.jump(index - 1)?;
        }
        Ok(index > 0)
    }

    /// Moves one entry forward. Returns `false` at the end of the block, with the position
    /// unchanged.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<bool, Broken> {
        let index = self.index + 1;
        let block = self.block.as_ref().expect("the table cursor enters a block before it steps");
        if index >= block.count() {
            return Ok(false);
        }
        let slot = block.slot_at(self.end, index)?;
        if block.restart_of(index) == index {
            self.shared = 0;
        }
        // Within a group `shared` never grows, so these bytes are already in `key`.
        if slot.shared > self.shared {
            return Err(Broken("entry shares more than its predecessor"));
        }
        self.key_len = put_suffix(&mut self.key, block.bytes(), &slot);
        self.stand_on(index, &slot);
        Ok(true)
    }

    /// Moves one entry back. Returns `false` at the start of the block, with the position
    /// unchanged.
    #[inline]
    pub(crate) fn prev(&mut self) -> Result<bool, Broken> {
        if self.index == 0 {
            return Ok(false);
        }
        let index = self.index - 1;
        let block = self.block.as_ref().expect("the table cursor enters a block before it steps");
        if block.restart_of(index) == block.restart_of(self.index) {
            let slot = block.slot(index)?;
            // `key` already has all the bytes of the restart's key that this entry shares.
            if slot.shared == self.shared {
                self.key_len = put_suffix(&mut self.key, block.bytes(), &slot);
                self.stand_on(index, &slot);
                return Ok(true);
            }
        }
        self.jump(index)?;
        Ok(true)
    }

    /// Moves to entry `index` from any position.
    fn jump(&mut self, index: u32) -> Result<(), Broken> {
        let block = self.block.as_ref().expect("the table cursor enters a block before it steps");
        let slot = block.slot(index)?;
        let restart = block.restart_of(index);
        self.key.clear();
        if slot.shared > 0 || restart == index {
            let front = block.restart_key(restart)?;
            let front = front
                .get(..slot.shared as usize)
                .ok_or(Broken("entry shares more than its restart has"))?;
            self.key.extend_from_slice(front);
        }
        self.key.resize(self.key.len() + SHORT_SUFFIX, 0);
        self.key_len = put_suffix(&mut self.key, block.bytes(), &slot);
        self.stand_on(index, &slot);
        Ok(())
    }

    #[inline]
    fn stand_on(&mut self, index: u32, slot: &EntrySlot) {
        self.index = index;
        // A restart shares its whole key with itself.
        self.shared = if slot.shared == 0 && self.block().restart_of(index) == index {
            self.key_len as u32
        } else {
            slot.shared
        };
        self.value = slot.value;
        self.end = slot.end;
        self.kind = slot.kind;
    }

    /// The current key.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        &self.key[..self.key_len]
    }

    /// The current kind.
    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The current seqno.
    #[inline]
    pub(crate) fn seqno(&self) -> Seqno {
        self.block().seqno(self.index)
    }

    /// The current value.
    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        self.block().part(self.value..self.end)
    }

    /// The current value. It shares the block's memory if it is large enough; see `Block::value`.
    pub(crate) fn value_bytes(&self) -> Bytes {
        self.block().value(self.value..self.end)
    }
}

/// Writes the key's own bytes behind the shared ones, which `key` already has. Returns the key's
/// length. Leaves room for the next short suffix.
#[inline(always)]
fn put_suffix(key: &mut Vec<u8>, block: &[u8], slot: &EntrySlot) -> usize {
    let shared = slot.shared as usize;
    let (from, to) = (slot.suffix as usize, slot.value as usize);
    let length = shared + (to - from);
    if to - from <= SHORT_SUFFIX
        && let Some(source) = block.get(from..).and_then(|rest| rest.first_chunk::<SHORT_SUFFIX>())
        && let Some(target) =
            key.get_mut(shared..).and_then(|rest| rest.first_chunk_mut::<SHORT_SUFFIX>())
    {
        // This copies more than the suffix, but always the same number of bytes: one load and one
        // store.
        *target = *source;
    } else {
        key.truncate(shared);
        key.extend_from_slice(&block[from..to]);
        key.resize(length + SHORT_SUFFIX, 0);
    }
    length
}
