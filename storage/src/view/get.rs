//! Point reads: the newest visible entry of a key.

use super::Superversion;
use crate::codec::hash64;
use crate::error::Result;
use crate::key::{EntryRef, Kind, Seqno};
use crate::table::{Found, Wait};
use crate::version::{RangeVersion, TableHandle};
use bytes::Bytes;
use std::sync::Arc;

/// The value of `key` at `upto`, or `None` where it is absent or deleted.
///
/// Copies a value that lies in a memtable; one that lies in a table shares its block or is copied, as
/// the table decides. `WouldBlock` only with `Wait::Never`.
#[inline]
pub fn get(
    superversion: &Superversion,
    key: &[u8],
    upto: Seqno,
    wait: Wait,
) -> Result<Option<Bytes>> {
    let index = superversion.route_index(key);
    if let Some(entry) = in_memory(superversion, index, key, upto) {
        return Ok((entry.kind == Kind::Put).then(|| Bytes::copy_from_slice(entry.value)));
    }
    let range = &superversion.version.ranges()[index];
    let found = in_tables(range, key, |table, hash| match table.table().get(key, hash, wait)? {
        Some(found) => {
            debug_assert!(found.seqno <= upto, "a table is published when all of it is visible");
            Ok(Some(found))
        }
        None => Ok(None),
    })?;
    Ok(found.and_then(|Found { kind, value, .. }| (kind == Kind::Put).then_some(value)))
}

/// Has `key` a value at `upto`? Copies nothing.
#[inline]
pub fn contains_key(
    superversion: &Superversion,
    key: &[u8],
    upto: Seqno,
    wait: Wait,
) -> Result<bool> {
    let index = superversion.route_index(key);
    if let Some(entry) = in_memory(superversion, index, key, upto) {
        return Ok(entry.kind == Kind::Put);
    }
    let range = &superversion.version.ranges()[index];
    let found = in_tables(range, key, |table, hash| table.table().probe(key, hash, wait))?;
    Ok(found.is_some_and(|(_, kind)| kind == Kind::Put))
}

/// The values of several keys at `upto`, in the order of the keys.
pub fn multi_get<K: AsRef<[u8]>>(
    superversion: &Superversion,
    keys: &[K],
    upto: Seqno,
    wait: Wait,
) -> Result<Vec<Option<Bytes>>> {
    keys.iter().map(|key| get(superversion, key.as_ref(), upto, wait)).collect()
}

#[inline]
fn in_memory<'a>(
    superversion: &'a Superversion,
    index: usize,
    key: &[u8],
    upto: Seqno,
) -> Option<EntryRef<'a>> {
    let overlay = &superversion.overlays[index];
    if let Some(entry) = overlay.active.get(key, upto) {
        return Some(entry);
    }
    overlay.sealed.iter().find_map(|memtable| memtable.get(key, upto))
}

/// Asks every table that may have `key`, newest layer first, until one answers. The key is hashed
/// once, and only if a table has to be asked.
#[inline]
fn in_tables<T>(
    range: &RangeVersion,
    key: &[u8],
    mut ask: impl FnMut(&Arc<TableHandle>, u64) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let mut hash = None;
    for run in range.l0.runs().iter().chain(&range.levels) {
        if let Some(table) = run.find(key) {
            let hash = *hash.get_or_insert_with(|| hash64(key));
            if let Some(answer) = ask(table, hash)? {
                return Ok(Some(answer));
            }
        }
    }
    Ok(None)
}
