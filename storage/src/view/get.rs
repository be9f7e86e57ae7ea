//! Lookups: the newest visible entry of a key.

use super::{InFront, MemtableSlice, RangeEntry, Want};
use crate::codec::hash64;
use crate::error::Result;
use crate::key::Seqno;
use crate::memtable::{Lookup, Memtable};
use crate::table::ReadTier;
use crate::version::Run;

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

/// What `W` wants to know of `key`, which is routed to `range` of a superversion `born` then: from
/// the newest visible version in memory, or else from the first table that has the key.
///
/// # Errors
/// `WouldBlock`, only with `ReadTier::Memory`, if a block would have to be read from the disk, or
/// the value is longer than a caller's thread should copy; `Corrupt` and `Io`.
#[inline]
pub fn look_up<W: Want, O, V: Fn() -> Seqno>(
    range: &RangeEntry<O>,
    born: Seqno,
    key: &[u8],
    at: &ReadAt<V>,
    tier: ReadTier,
) -> Result<W::Answer> {
    if !range.pending.is_empty() {
        return in_layers::<W, O, V>(range, born, key, at, tier);
    }
    if let Some(answer) = in_memory::<W, V>(&memtables(range), born, key, at, tier) {
        return answer;
    }
    Ok(in_runs::<W>(range.stable.layers.runs(), key, tier)?.unwrap_or_default())
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
fn in_layers<W: Want, O, V: Fn() -> Seqno>(
    range: &RangeEntry<O>,
    born: Seqno,
    key: &[u8],
    at: &ReadAt<V>,
    tier: ReadTier,
) -> Result<W::Answer> {
    for layer in range.in_front() {
        let memtable = match layer {
            InFront::Active(memtable) => (&**memtable, None),
            InFront::Sealed(slice) => (&**slice, Some(slice)),
            InFront::Tables(run) => match in_runs::<W>(std::slice::from_ref(run), key, tier)? {
                Some(answer) => return Ok(answer),
                None => continue,
            },
        };
        if let Some(answer) = in_memory::<W, V>(&std::iter::once(memtable), born, key, at, tier) {
            return answer;
        }
    }
    Ok(in_runs::<W>(range.stable.layers.runs(), key, tier)?.unwrap_or_default())
}

/// The answer from the newest visible version of `key` in `memtables`, newest first, which were
/// published by a superversion `born` then.
#[inline]
fn in_memory<'a, W: Want, V: Fn() -> Seqno>(
    memtables: &(impl Iterator<Item = InMemory<'a>> + Clone),
    born: Seqno,
    key: &[u8],
    at: &ReadAt<V>,
    tier: ReadTier,
) -> Option<Result<W::Answer>> {
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
                return Some(W::of_version(version, tier));
            }
        }
        return None;
    }
}

/// Asks every slice of `runs` that may have `key`, newest run first, until one answers. The key is
/// hashed once, and only if a table has to be asked.
#[inline]
fn in_runs<W: Want>(runs: &[Run], key: &[u8], tier: ReadTier) -> Result<Option<W::Answer>> {
    let mut hash = None;
    for run in runs {
        if let Some(slice) = run.find(key) {
            let hash = *hash.get_or_insert_with(|| hash64(key));
            if let Some(answer) = W::of_slice(slice, key, hash, tier)? {
                return Ok(Some(answer));
            }
        }
    }
    Ok(None)
}
