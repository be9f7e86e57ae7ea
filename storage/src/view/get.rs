//! Point reads: the newest visible entry of a key.

use super::{InFront, MemtableSlice, RangeEntry};
use crate::codec::hash64;
use crate::error::Result;
use crate::key::{Kind, Seqno};
use crate::memtable::{EntryVersion, Lookup, Memtable};
use crate::table::{Found, ReadTier};
use crate::version::{Run, Slice};
use bytes::Bytes;

/// Where a lookup reads.
#[derive(Clone, Copy, Debug)]
pub enum ReadAt<V> {
    /// At this number, which is held as a `ReadPoint`, or below which nothing is overwritten any
    /// more.
    Held(Seqno),
    /// At what is visible now. It is asked once, and again if the version that was visible then has
    /// been retired meanwhile, which is rare.
    Newest(V),
}

/// The value of `key`, which is routed to `range` of a superversion `born` then; `None` where it is
/// absent or deleted.
///
/// A value in a memtable is copied. A value in a table shares its block or is copied, as the table
/// decides. `WouldBlock` comes only with `ReadTier::Memory`.
#[inline]
pub fn get<O, V: Fn() -> Seqno>(
    range: &RangeEntry<O>,
    born: Seqno,
    key: &[u8],
    at: &ReadAt<V>,
    tier: ReadTier,
) -> Result<Option<Bytes>> {
    let ask = |slice: &Slice, hash: u64| slice.handle().table(tier)?.get(key, hash, tier);
    let of_table = |found: Found| (found.kind == Kind::Put).then_some(found.value);
    find(range, born, key, at, |found| found.value(), ask, of_table)
}

/// Has `key` a value? As `get`; copies nothing.
#[inline]
pub fn contains_key<O, V: Fn() -> Seqno>(
    range: &RangeEntry<O>,
    born: Seqno,
    key: &[u8],
    at: &ReadAt<V>,
    tier: ReadTier,
) -> Result<bool> {
    let ask = |slice: &Slice, hash: u64| slice.handle().table(tier)?.probe(key, hash, tier);
    let of_table = |(_, kind)| kind == Kind::Put;
    find(range, born, key, at, |found| found.is_put(), ask, of_table)
}

/// The length of the value of `key`; `None` where it is absent or deleted. As `get`; copies
/// nothing.
#[inline]
pub fn value_len<O, V: Fn() -> Seqno>(
    range: &RangeEntry<O>,
    born: Seqno,
    key: &[u8],
    at: &ReadAt<V>,
    tier: ReadTier,
) -> Result<Option<u64>> {
    let ask = |slice: &Slice, hash: u64| slice.handle().table(tier)?.value_len(key, hash, tier);
    let of_table = |(kind, length)| (kind == Kind::Put).then_some(length);
    let of_memory = |found: EntryVersion<'_>| {
        found.read(|kind, value| (kind == Kind::Put).then_some(value.len() as u64))
    };
    find(range, born, key, at, of_memory, ask, of_table)
}

/// The sequence number of the entry that gave `key` its value; `None` where it is absent or
/// deleted. As `get`; copies nothing.
#[inline]
pub fn last_seqno<O, V: Fn() -> Seqno>(
    range: &RangeEntry<O>,
    born: Seqno,
    key: &[u8],
    at: &ReadAt<V>,
    tier: ReadTier,
) -> Result<Option<Seqno>> {
    let ask = |slice: &Slice, hash: u64| {
        let found = slice.handle().table(tier)?.probe(key, hash, tier)?;
        // Entries of tables from outside all have the number of the change that brought them in.
        Ok(found.map(|(seqno, kind)| (slice.seqno.unwrap_or(seqno), kind)))
    };
    let of_table = |(seqno, kind)| (kind == Kind::Put).then_some(seqno);
    let of_memory = |found: EntryVersion<'_>| found.is_put().then(|| found.seqno());
    find(range, born, key, at, of_memory, ask, of_table)
}

/// What `read` makes of the newest visible version of `key` in memory, or else `of_table` of what
/// `ask` finds in a table.
#[inline]
fn find<O, V: Fn() -> Seqno, F, T: Default>(
    range: &RangeEntry<O>,
    born: Seqno,
    key: &[u8],
    at: &ReadAt<V>,
    read: impl Fn(EntryVersion<'_>) -> T,
    ask: impl Fn(&Slice, u64) -> Result<Option<F>>,
    of_table: impl Fn(F) -> T,
) -> Result<T> {
    if !range.pending.is_empty() {
        return in_layers(range, born, key, at, read, ask, of_table);
    }
    if let Some(answer) = in_memory(&memtables(range), born, key, at, read) {
        return Ok(answer);
    }
    let found = in_runs(range.stable.layers.runs(), key, ask)?;
    Ok(found.map_or_else(T::default, of_table))
}

/// A memtable, and the spans that it is without.
type InMemory<'a> = (&'a Memtable, Option<&'a MemtableSlice>);

#[inline]
fn memtables<O>(range: &RangeEntry<O>) -> impl Iterator<Item = InMemory<'_>> + Clone {
    let sealed = range.sealed.iter().map(|slice| (&**slice, Some(slice)));
    std::iter::once((&*range.active, None)).chain(sealed)
}

/// The answer of the first layer that has one, where tables stand between memtables.
#[cold]
fn in_layers<O, V: Fn() -> Seqno, F, T: Default>(
    range: &RangeEntry<O>,
    born: Seqno,
    key: &[u8],
    at: &ReadAt<V>,
    read: impl Fn(EntryVersion<'_>) -> T,
    ask: impl Fn(&Slice, u64) -> Result<Option<F>>,
    of_table: impl Fn(F) -> T,
) -> Result<T> {
    for layer in range.in_front() {
        let memtable = match layer {
            InFront::Active(memtable) => (&**memtable, None),
            InFront::Sealed(slice) => (&**slice, Some(slice)),
            InFront::Tables(run) => match in_runs(std::slice::from_ref(run), key, &ask)? {
                Some(found) => return Ok(of_table(found)),
                None => continue,
            },
        };
        if let Some(answer) = in_memory(&std::iter::once(memtable), born, key, at, &read) {
            return Ok(answer);
        }
    }
    let found = in_runs(range.stable.layers.runs(), key, &ask)?;
    Ok(found.map_or_else(T::default, of_table))
}

/// What `read` makes of the newest visible version of `key` in `memtables`, newest first, which
/// were published by a superversion `born` then.
#[inline]
fn in_memory<'a, V: Fn() -> Seqno, T>(
    memtables: &(impl Iterator<Item = InMemory<'a>> + Clone),
    born: Seqno,
    key: &[u8],
    at: &ReadAt<V>,
    read: impl Fn(EntryVersion<'_>) -> T,
) -> Option<T> {
    'again: loop {
        let upto = match at {
            ReadAt::Held(seqno) => *seqno,
            // INVARIANT(born-is-applied): what is at or below `born` was applied, even where it is
            // not called visible yet.
            ReadAt::Newest(visible) => visible().max(born),
        };
        for (memtable, slice) in memtables.clone() {
            // A pin costs two writes, so an empty memtable is not pinned. What is at or below
            // `upto` was inserted before this look.
            if memtable.first_seqno().is_none() || slice.is_some_and(|slice| slice.lacks(key)) {
                continue;
            }
            let pin = memtable.pin();
            let Lookup { version, passed_cut } = pin.get(key, upto);
            if passed_cut && matches!(at, ReadAt::Newest(_)) {
                // What was retired had a visible successor, so the next `visible()` is larger.
                continue 'again;
            }
            if let Some(version) = version {
                return Some(read(version));
            }
        }
        return None;
    }
}

/// Asks every slice of `runs` that may have `key`, newest run first, until one answers. The key is
/// hashed once, and only if a table has to be asked.
#[inline]
fn in_runs<T>(
    runs: &[Run],
    key: &[u8],
    ask: impl Fn(&Slice, u64) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let mut hash = None;
    for run in runs {
        if let Some(slice) = run.find(key) {
            let hash = *hash.get_or_insert_with(|| hash64(key));
            if let Some(answer) = ask(slice, hash)? {
                return Ok(Some(answer));
            }
        }
    }
    Ok(None)
}
