//! Point reads: the newest visible entry of a key.

use super::{RangeEntry, Superversion};
use crate::codec::hash64;
use crate::error::Result;
use crate::key::{Kind, Seqno};
use crate::memtable::{Lookup, Version};
use crate::table::{Found, Wait};
use crate::version::{RangeVersion, Slice};
use bytes::Bytes;

/// Where a lookup reads.
#[derive(Clone, Copy, Debug)]
pub enum Instant<V> {
    /// At this number, which is held as a `ReadPoint`, or below which nothing is overwritten any more.
    Held(Seqno),
    /// At what is visible now. Asked once, and again in the rare case that the version which was
    /// visible then has been overwritten twice meanwhile.
    Newest(V),
}

/// The value of `key`, or `None` where it is absent or deleted.
///
/// Copies a value that lies in a memtable; one that lies in a table shares its block or is copied, as
/// the table decides. `WouldBlock` only with `Wait::Never`.
#[inline]
pub fn get<O, V: Fn() -> Seqno>(
    superversion: &Superversion<O>,
    key: &[u8],
    at: &Instant<V>,
    wait: Wait,
) -> Result<Option<Bytes>> {
    let range = superversion.route(key);
    if let Some(value) = in_memory(range, superversion.born, key, at, |found| found.value()) {
        return Ok(value);
    }
    let tables = &range.stable;
    let found =
        in_tables(tables, key, |slice, hash| slice.handle().table(wait)?.get(key, hash, wait))?;
    Ok(found.and_then(|Found { kind, value, .. }| (kind == Kind::Put).then_some(value)))
}

/// Has `key` a value? Copies nothing.
#[inline]
pub fn contains_key<O, V: Fn() -> Seqno>(
    superversion: &Superversion<O>,
    key: &[u8],
    at: &Instant<V>,
    wait: Wait,
) -> Result<bool> {
    let range = superversion.route(key);
    if let Some(is_put) = in_memory(range, superversion.born, key, at, |found| found.is_put()) {
        return Ok(is_put);
    }
    let tables = &range.stable;
    let found =
        in_tables(tables, key, |slice, hash| slice.handle().table(wait)?.probe(key, hash, wait))?;
    Ok(found.is_some_and(|(_, kind)| kind == Kind::Put))
}

/// What `read` makes of the newest visible version of `key` in the memtables of its range, which was
/// published by a superversion `born` then.
#[inline]
fn in_memory<O, V: Fn() -> Seqno, T>(
    range: &RangeEntry<O>,
    born: Seqno,
    key: &[u8],
    at: &Instant<V>,
    read: impl Fn(Version<'_>) -> T,
) -> Option<T> {
    'again: loop {
        let upto = match at {
            Instant::Held(seqno) => *seqno,
            // What is at or below `born` was applied, even where it is not called visible yet.
            Instant::Newest(visible) => visible().max(born),
        };
        for memtable in range.memtables() {
            // To pin it costs two writes. What is at or below `upto` was inserted before this look.
            if memtable.first_seqno().is_none() {
                continue;
            }
            let pin = memtable.pin();
            let Lookup { version, passed_cut } = pin.get(key, upto);
            if passed_cut && matches!(at, Instant::Newest(_)) {
                // What was cut had a visible successor: the next `visible()` is above this one.
                continue 'again;
            }
            if let Some(version) = version {
                return Some(read(version));
            }
        }
        return None;
    }
}

/// Asks every slice that may have `key`, newest run first, until one answers. The key is hashed
/// once, and only if a table has to be asked.
#[inline]
fn in_tables<T>(
    range: &RangeVersion,
    key: &[u8],
    mut ask: impl FnMut(&Slice, u64) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let mut hash = None;
    for run in range.layers.runs() {
        if let Some(slice) = run.find(key) {
            let hash = *hash.get_or_insert_with(|| hash64(key));
            if let Some(answer) = ask(slice, hash)? {
                return Ok(Some(answer));
            }
        }
    }
    Ok(None)
}
