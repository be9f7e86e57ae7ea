//! One level: a single sorted run of disjoint tables, found by key.

use super::handle::TableHandle;
use crate::table::TableMeta;
use std::ops::Range;
use std::sync::Arc;

/// A sorted run (INVARIANT(one-run-per-level)). Cheap to clone.
#[derive(Clone, Debug)]
pub struct Level {
    tables: Arc<[Arc<TableHandle>]>,
    /// First eight bytes of each table's largest key, after the bytes that all of them share: the
    /// search touches this array and then one or two keys, not one key per step.
    fences: Arc<[u64]>,
    shared: usize,
    bytes: u64,
    entries: u64,
    tombstones: u64,
}

impl Default for Level {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Level {
    /// A level of tables that are already in key order and disjoint (`check` proves it).
    pub fn new(tables: Vec<Arc<TableHandle>>) -> Self {
        let shared = match (tables.first(), tables.last()) {
            (Some(first), Some(last)) => shared_prefix(max_key(first), max_key(last)),
            _ => 0,
        };
        // A run that is out of order must still be representable, or `check` could not name it.
        let fence = |table: &Arc<TableHandle>| head(max_key(table).get(shared..).unwrap_or(&[]));
        let sum = |of: fn(&TableMeta) -> u64| {
            tables.iter().fold(0_u64, |sum, table| sum.saturating_add(of(table.meta())))
        };
        Self {
            fences: tables.iter().map(fence).collect(),
            shared,
            bytes: sum(|meta| meta.file_bytes),
            entries: sum(|meta| meta.entries),
            tombstones: sum(|meta| meta.tombstones),
            tables: tables.into(),
        }
    }

    /// The tables in key order.
    #[inline]
    pub fn tables(&self) -> &Arc<[Arc<TableHandle>]> {
        &self.tables
    }

    /// Has it no table?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Entries in all tables.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Tombstones in all tables.
    pub fn tombstones(&self) -> u64 {
        self.tombstones
    }

    /// Index of the first table that ends at or after `key`; the number of tables if none does.
    #[inline]
    pub fn first_ending_at_or_after(&self, key: &[u8]) -> usize {
        let Some(first) = self.tables.first() else {
            return 0;
        };
        let prefix = &max_key(first)[..self.shared];
        match key.get(..self.shared) {
            Some(start) if start == prefix => {}
            _ if key < prefix => return 0,
            _ => return self.tables.len(),
        }
        let head = head(&key[self.shared..]);
        let lo = self.fences.partition_point(|&fence| fence < head);
        // Most often the fences decide; keys are compared only where they tie.
        let ties = self.fences[lo..].iter().take_while(|&&fence| fence == head).count();
        lo + self.tables[lo..lo + ties].partition_point(|table| max_key(table) < key)
    }

    /// The only table that may contain `key`.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<&Arc<TableHandle>> {
        let table = self.tables.get(self.first_ending_at_or_after(key))?;
        (table.meta().min_key <= key).then_some(table)
    }

    /// Indexes of the tables that share a key with the closed interval `[min, max]`.
    pub fn overlapping(&self, min: &[u8], max: &[u8]) -> Range<usize> {
        let start = self.first_ending_at_or_after(min);
        let count = self.tables[start..].partition_point(|table| table.meta().min_key <= max);
        start..start + count
    }

    /// The run with some tables taken out and others put in, in key order.
    pub(super) fn edited(
        &self,
        gone: impl Fn(&TableHandle) -> bool,
        added: Vec<Arc<TableHandle>>,
    ) -> Self {
        let mut tables: Vec<_> = self.tables.iter().filter(|t| !gone(t)).cloned().collect();
        tables.extend(added);
        tables.sort_by(|a, b| a.meta().min_key.cmp(&b.meta().min_key));
        Self::new(tables)
    }
}

fn max_key(table: &Arc<TableHandle>) -> &[u8] {
    &table.meta().max_key
}

fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The first eight bytes as a number that orders like them; short keys are padded with zeros, which
/// ties them with keys that continue so, and ties are resolved on the keys.
#[inline]
fn head(key: &[u8]) -> u64 {
    if let Some(bytes) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*bytes);
    }
    let mut padded = [0; 8];
    padded[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(padded)
}

#[cfg(test)]
mod tests {
    use super::super::testing::handle;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fences_find_what_a_scan_finds(
            keys in proptest::collection::btree_set("(user:)?[a-b\0]{0,11}", 2..40),
            probes in proptest::collection::vec("(user:?)?[a-c\0]{0,11}", 30),
        ) {
            let keys: Vec<_> = keys.into_iter().collect();
            let tables: Vec<_> = keys
                .chunks_exact(2)
                .enumerate()
                .map(|(i, pair)| handle(i as u64 + 1, pair[0].as_bytes(), pair[1].as_bytes(), 1))
                .collect();
            let level = Level::new(tables.clone());
            for probe in probes.iter().chain(&keys) {
                let probe = probe.as_bytes();
                let scan = tables.iter().position(|t| t.meta().max_key >= probe);
                prop_assert_eq!(level.first_ending_at_or_after(probe), scan.unwrap_or(tables.len()));
                let found = tables.iter().find(|t| t.overlaps(probe, probe));
                prop_assert_eq!(level.find(probe).map(|t| t.number()), found.map(|t| t.number()));
            }
            for pair in probes.chunks_exact(2) {
                let (min, max) = (pair[0].as_bytes().min(pair[1].as_bytes()), pair[0].as_bytes().max(pair[1].as_bytes()));
                let found: Vec<_> = level.tables()[level.overlapping(min, max)].iter().map(|t| t.number()).collect();
                let scan: Vec<_> = tables.iter().filter(|t| t.overlaps(min, max)).map(|t| t.number()).collect();
                prop_assert_eq!(found, scan);
            }
        }
    }
}
