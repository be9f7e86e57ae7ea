//! Where a run lies in the tree of its range.

use crate::codec::{Decoder, put_varint};
use crate::limits::{LEVELS_MAX, SHARDS_MAX};
use std::cmp::Ordering;
use std::fmt;

/// A place in a range's tree. Places are ordered as a reader walks them
/// (INVARIANT(one-layer-order)). Where two places overlap, the smaller one has the newer entries
/// (INVARIANT(newest-layer-first)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Tables from flushes and ingests. Its runs may overlap, newest first.
    L0,
    /// One shard of the landing in front of a level (1..). Its runs may overlap, newest first.
    Landing(u8, u16),
    /// A level (1..): one sorted run.
    Main(u8),
}

impl Place {
    /// The number of the level, 0 for L0.
    pub fn level(self) -> u8 {
        match self {
            Self::L0 => 0,
            Self::Landing(level, _) | Self::Main(level) => level,
        }
    }

    /// May its runs overlap? True for L0 and for shards of a landing.
    pub fn is_tier(self) -> bool {
        !matches!(self, Self::Main(_))
    }

    /// Are both of them shards of the same landing?
    pub(super) fn is_landing_of(self, other: Self) -> bool {
        matches!((self, other), (Self::Landing(a, _), Self::Landing(b, _)) if a == b)
    }

    /// A landing is before its level, and a shard before the next shard.
    fn rank(self) -> (u8, bool, u16) {
        match self {
            Self::L0 => (0, false, 0),
            Self::Landing(level, shard) => (level, false, shard),
            Self::Main(level) => (level, true, 0),
        }
    }

    /// Appends the encoding.
    ///
    /// ```text
    /// place := 0                                        L0
    ///        | 2 x level - 1 varint, shard varint       a landing
    ///        | 2 x level varint                         a level
    /// ```
    pub(super) fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::L0 => put_varint(out, 0),
            Self::Landing(level, shard) => {
                put_varint(out, 2 * u64::from(level) - 1);
                put_varint(out, u64::from(shard));
            }
            Self::Main(level) => put_varint(out, 2 * u64::from(level)),
        }
    }

    /// Reads what `put` wrote; `None` if no range can have such a place.
    pub(super) fn read(from: &mut Decoder<'_>) -> Option<Self> {
        let number = from.varint()?;
        let level = u8::try_from(number.div_ceil(2)).ok()?;
        if usize::from(level) > LEVELS_MAX {
            return None;
        }
        Some(match number {
            0 => Self::L0,
            even if even % 2 == 0 => Self::Main(level),
            _ => {
                let shard = u16::try_from(from.varint()?).ok()?;
                if usize::from(shard) >= SHARDS_MAX {
                    return None;
                }
                Self::Landing(level, shard)
            }
        })
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::L0 => f.write_str("L0"),
            Self::Landing(level, shard) => write!(f, "the landing of L{level}, shard {shard}"),
            Self::Main(level) => write!(f, "L{level}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_reading_order_and_survive_a_round_trip() {
        let mut places = vec![Place::L0];
        for level in 1..=LEVELS_MAX as u8 {
            places.extend([0, 1, SHARDS_MAX as u16 - 1].map(|shard| Place::Landing(level, shard)));
            places.push(Place::Main(level));
        }
        assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
        for place in places {
            let mut bytes = Vec::new();
            place.put(&mut bytes);
            let mut reader = Decoder::new(&bytes);
            assert_eq!((Place::read(&mut reader), reader.is_empty()), (Some(place), true));
        }
    }

    #[test]
    fn places_that_no_range_has_are_refused() {
        let deep = [2 * LEVELS_MAX as u8 + 2];
        let wide = [1, 0x80, 0x80, 0x04];
        for bytes in [&deep[..], &[2 * LEVELS_MAX as u8 + 1, 0], &wide, &[1], &[]] {
            assert_eq!(Place::read(&mut Decoder::new(bytes)), None, "{bytes:?}");
        }
    }
}
