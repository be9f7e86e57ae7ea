//! All rules of a data block, which are checked once, when the block is read from the disk. Its
//! checksum is right, so a broken rule was written that way. A reader that trusted such a block
//! could skip keys or return them out of order, and a compaction would write them again.

use super::{Block, Broken, EntrySlot};
use crate::key::Kind;
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_CAP};
use std::cmp::Ordering;
use std::ops::RangeInclusive;

/// The facts about one block that the rest of the table states.
#[derive(Debug)]
pub(crate) struct Bounds<'a> {
    /// The table's first key, if this is its first block.
    pub(crate) first: Option<&'a [u8]>,
    /// The separator of the previous block: every key is after it.
    pub(crate) after: Option<&'a [u8]>,
    /// The block's own separator: no key is after it.
    pub(crate) upto: &'a [u8],
    /// The range of all sequence numbers.
    pub(crate) seqnos: RangeInclusive<u64>,
}

/// A key in two parts: the prefix that it shares with its restart, and its own bytes.
#[derive(Clone, Copy)]
struct KeyParts<'a> {
    shared: &'a [u8],
    own: &'a [u8],
}

impl KeyParts<'_> {
    fn cmp(self, key: &[u8]) -> Ordering {
        let at = self.shared.len().min(key.len());
        self.shared.cmp(&key[..at]).then_with(|| self.own.cmp(&key[at..]))
    }
}

impl Block {
    /// Checks every rule. Keys ascend strictly, share as much as possible with their restart, and
    /// have 1 to `KEY_BYTES_MAX` bytes. Deletes have no value. Keys and sequence numbers are inside
    /// `bounds`. INVARIANT(blocks-keep-their-rules).
    pub(crate) fn check(&self, bounds: &Bounds<'_>) -> Result<(), Broken> {
        let mut restart: &[u8] = &[];
        let mut last = KeyParts { shared: &[], own: &[] };
        let mut at = self.offset(0).ok_or(Broken("block is too short"))?;
        for index in 0..self.count() {
            let slot = self.slot_at(at, index)?;
            at = slot.end;
            let own = self.part(slot.suffix..slot.value);
            if self.restart_of(index) == index {
                if slot.shared != 0 {
                    return Err(Broken("restart does not hold its whole key"));
                }
                if index > 0 && last.cmp(own) != Ordering::Less {
                    return Err(Broken("keys do not ascend"));
                }
                if own.is_empty() {
                    return Err(Broken("a key is empty"));
                }
                restart = own;
                last = KeyParts { shared: own, own: &[] };
            } else {
                let shared = restart.get(..slot.shared as usize);
                let shared = shared.ok_or(Broken("entry shares more than its restart has"))?;
                // Each key of a group is above the restart's key, so its first differing byte is
                // greater. Later keys differ at the same byte or at an earlier one.
                let leaves_upwards = match (own.first(), restart.get(shared.len())) {
                    (Some(own), Some(restart)) => own > restart,
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                let ascends = match shared.len().cmp(&last.shared.len()) {
                    Ordering::Less => true,
                    Ordering::Equal => own > last.own,
                    Ordering::Greater => false,
                };
                if !leaves_upwards || !ascends {
                    return Err(Broken("keys do not ascend"));
                }
                last = KeyParts { shared, own };
            }
            if index == 0 {
                if bounds.first.is_some_and(|first| own != first) {
                    return Err(Broken("first key is not the one the properties name"));
                }
                if bounds.after.is_some_and(|after| own <= after) {
                    return Err(Broken("first key is not after the separator before"));
                }
            }
            self.check_entry(index, &slot, bounds)?;
        }
        if last.cmp(bounds.upto) == Ordering::Greater {
            return Err(Broken("last key is after the block's separator"));
        }
        Ok(())
    }

    #[inline]
    fn check_entry(&self, index: u32, slot: &EntrySlot, bounds: &Bounds<'_>) -> Result<(), Broken> {
        if (slot.shared + slot.value - slot.suffix) as usize > KEY_BYTES_MAX {
            return Err(Broken("a key is too long"));
        }
        let value_bytes = (slot.end - slot.value) as usize;
        if slot.kind == Kind::Delete && value_bytes > 0 {
            return Err(Broken("a delete has a value"));
        }
        if value_bytes > VALUE_BYTES_CAP {
            return Err(Broken("a value is too long"));
        }
        if !bounds.seqnos.contains(&self.seqno(index).0) {
            return Err(Broken("a seqno is none of the table's"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::BlockBuilder;
    use super::*;
    use crate::key::Seqno;
    use std::sync::Arc;

    fn block(keys: &[&[u8]]) -> Block {
        let mut builder = BlockBuilder::new(16);
        for key in keys {
            builder.add(key, 0, Seqno(1), Kind::Put, b"");
        }
        let mut raw = Vec::new();
        builder.finish(&mut raw);
        Block::parse(Arc::from(&raw[..]), 0..raw.len()).unwrap()
    }

    fn bounds() -> Bounds<'static> {
        Bounds { first: None, after: None, upto: &[0xFF], seqnos: 1..=1 }
    }

    /// Planted: no limit; a limit that is one too high; the shared part of a key does not count.
    #[test]
    fn c3_a_key_beyond_the_limit_is_refused_however_it_is_stored() {
        let longest = vec![b'c'; KEY_BYTES_MAX];
        let too_long = [&longest[..], b"c"].concat();
        let mut other = longest.clone();
        other[KEY_BYTES_MAX - 1] = b'd';
        assert_eq!(block(&[&longest]).check(&bounds()), Ok(()));
        assert_eq!(block(&[&longest, &other]).check(&bounds()), Ok(()));
        let refused = Err(Broken("a key is too long"));
        assert_eq!(block(&[&too_long]).check(&bounds()), refused);
        assert_eq!(block(&[&longest, &too_long]).check(&bounds()), refused);
    }

    /// Planted: no limit; a limit that is one too high.
    #[test]
    fn c3_a_value_beyond_the_limit_is_refused() {
        let block = block(&[b"k"]);
        let check = |bytes: usize| {
            let slot = EntrySlot {
                shared: 0,
                suffix: 2,
                value: 3,
                end: 3 + bytes as u32,
                kind: Kind::Put,
            };
            block.check_entry(0, &slot, &bounds())
        };
        assert_eq!(check(VALUE_BYTES_CAP), Ok(()));
        assert_eq!(check(VALUE_BYTES_CAP + 1), Err(Broken("a value is too long")));
        assert_eq!(check(u32::MAX as usize - 3), Err(Broken("a value is too long")));
    }
}
