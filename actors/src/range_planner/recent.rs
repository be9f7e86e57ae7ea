//! Keys that were written lately, taken from memory.
//!
//! A memtable knows when each of its entries was written. A walk over it finds the keys that were
//! written since a given time, each key once, and no writer has to note anything. The walk is done
//! only when a range is about to be split.

use crate::range_owner::RangeEntry;
use bytes::Bytes;
use sluicedb_storage::Result;
use sluicedb_storage::iter::Cursor;
use sluicedb_storage::key::{Seqno, Span};

/// Most keys that are sampled from one memtable.
const KEPT_MAX: usize = 1024;

/// A sample of the range's keys that were written after `since`. Each has the number of keys that
/// it stands for.
pub(super) fn recent_keys(range: &RangeEntry, since: Seqno) -> Result<Vec<(Bytes, u64)>> {
    let mut sample = Vec::new();
    for table in range.memtables().filter(|table| table.last_seqno() > Some(since)) {
        let mut thinned = Thinned::default();
        // The newest entry of a key is never reclaimed, so this needs no read point.
        let mut cursor = table.cursor(Seqno::MAX);
        let Span { lo, .. } = range.span();
        cursor.seek(lo)?;
        while cursor.valid() && range.span().contains(cursor.key()) {
            if cursor.seqno() > since {
                thinned.add(cursor.key());
            }
            cursor.next()?;
        }
        sample.extend(thinned.keys.into_iter().map(|key| (key, thinned.stride)));
    }
    Ok(sample)
}

/// Every n-th of the keys that were added. The more keys, the larger n.
struct Thinned {
    keys: Vec<Bytes>,
    stride: u64,
    added: u64,
}

impl Default for Thinned {
    fn default() -> Self {
        Self { keys: Vec::new(), stride: 1, added: 0 }
    }
}

impl Thinned {
    fn add(&mut self, key: &[u8]) {
        if self.added.is_multiple_of(self.stride) {
            self.keys.push(Bytes::copy_from_slice(key));
        }
        self.added += 1;
        if self.keys.len() > KEPT_MAX {
            let mut at = 0_usize;
            self.keys.retain(|_| {
                at += 1;
                !at.is_multiple_of(2)
            });
            self.stride *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planted: the keys to drop are taken from one end.
    #[test]
    fn a_sample_is_spread_over_all_that_came() {
        let mut thinned = Thinned::default();
        for n in 0..100_000_u32 {
            thinned.add(&n.to_be_bytes());
        }
        let count = thinned.keys.len();
        assert!((KEPT_MAX / 2..=KEPT_MAX).contains(&count), "{count}");
        let numbers = thinned
            .keys
            .iter()
            .map(|key| u64::from(u32::from_be_bytes(key[..].try_into().expect("four bytes"))));
        assert!(numbers.zip(0..).all(|(key, at)| key == at * thinned.stride), "evenly");
        assert!(count as u64 * thinned.stride >= 100_000);
    }
}
