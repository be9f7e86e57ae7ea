//! What a lookup wants of the entry that it finds: the value, or less.

use crate::error::Result;
use crate::key::{Kind, Seqno};
use crate::memtable::EntryVersion;
use crate::table::{Found, READ_AT_ONCE_BYTES_MAX, ReadTier};
use crate::version::Slice;
use bytes::Bytes;

/// What a lookup wants to know of a key. All lookups are one search. They differ in what they take
/// from the entry that they find.
pub trait Want: Send + 'static {
    /// The answer. Its default is that of a key that is absent or deleted.
    type Answer: Default + Send + 'static;

    /// The answer from a version in a memtable.
    ///
    /// # Errors
    /// `WouldBlock`, only with `ReadTier::Memory`, if a copy takes long.
    fn of_version(found: EntryVersion<'_>, tier: ReadTier) -> Result<Self::Answer>;

    /// The answer from a slice; `None` if the slice does not have the key. `hash` is the key's
    /// `codec::hash64`.
    ///
    /// # Errors
    /// As `Table::get`, and those of opening the table.
    fn of_slice(
        slice: &Slice,
        key: &[u8],
        hash: u64,
        tier: ReadTier,
    ) -> Result<Option<Self::Answer>>;

    /// The answer from a write that lies over the view: its value, or `None` for a delete.
    fn of_own(value: Option<&Bytes>) -> Self::Answer;

    /// Does this answer count as found?
    fn is_found(answer: &Self::Answer) -> bool;
}

/// The value. One in a memtable is copied. One in a table shares its block or is copied, as the
/// table decides.
#[derive(Debug)]
pub enum Value {}

/// Whether there is a value. Copies nothing.
#[derive(Debug)]
pub enum Exists {}

/// The length of the value. Copies nothing.
#[derive(Debug)]
pub enum ValueLen {}

/// The sequence number of the write that gave the key its value. Copies nothing.
#[derive(Debug)]
pub enum LastSeqno {}

impl Want for Value {
    type Answer = Option<Bytes>;

    #[inline]
    fn of_version(found: EntryVersion<'_>, tier: ReadTier) -> Result<Self::Answer> {
        found.value(match tier {
            ReadTier::Memory => READ_AT_ONCE_BYTES_MAX,
            ReadTier::Disk => usize::MAX,
        })
    }

    #[inline]
    fn of_slice(
        slice: &Slice,
        key: &[u8],
        hash: u64,
        tier: ReadTier,
    ) -> Result<Option<Self::Answer>> {
        let found = slice.handle().table(tier)?.get(key, hash, tier)?;
        Ok(found.map(|found: Found| (found.kind == Kind::Put).then_some(found.value)))
    }

    fn of_own(value: Option<&Bytes>) -> Self::Answer {
        value.cloned()
    }

    #[inline]
    fn is_found(answer: &Self::Answer) -> bool {
        answer.is_some()
    }
}

impl Want for Exists {
    type Answer = bool;

    #[inline]
    fn of_version(found: EntryVersion<'_>, _: ReadTier) -> Result<Self::Answer> {
        Ok(found.is_put())
    }

    #[inline]
    fn of_slice(
        slice: &Slice,
        key: &[u8],
        hash: u64,
        tier: ReadTier,
    ) -> Result<Option<Self::Answer>> {
        let found = slice.handle().table(tier)?.probe(key, hash, tier)?;
        Ok(found.map(|(_, kind)| kind == Kind::Put))
    }

    fn of_own(value: Option<&Bytes>) -> Self::Answer {
        value.is_some()
    }

    #[inline]
    fn is_found(answer: &Self::Answer) -> bool {
        *answer
    }
}

impl Want for ValueLen {
    type Answer = Option<u64>;

    #[inline]
    fn of_version(found: EntryVersion<'_>, _: ReadTier) -> Result<Self::Answer> {
        Ok(found.value_len().map(|length| length as u64))
    }

    #[inline]
    fn of_slice(
        slice: &Slice,
        key: &[u8],
        hash: u64,
        tier: ReadTier,
    ) -> Result<Option<Self::Answer>> {
        let found = slice.handle().table(tier)?.value_len(key, hash, tier)?;
        Ok(found.map(|(kind, length)| (kind == Kind::Put).then_some(length)))
    }

    fn of_own(value: Option<&Bytes>) -> Self::Answer {
        value.map(|value| value.len() as u64)
    }

    #[inline]
    fn is_found(answer: &Self::Answer) -> bool {
        answer.is_some()
    }
}

impl Want for LastSeqno {
    type Answer = Option<Seqno>;

    #[inline]
    fn of_version(found: EntryVersion<'_>, _: ReadTier) -> Result<Self::Answer> {
        Ok(found.is_put().then(|| found.seqno()))
    }

    #[inline]
    fn of_slice(
        slice: &Slice,
        key: &[u8],
        hash: u64,
        tier: ReadTier,
    ) -> Result<Option<Self::Answer>> {
        let found = slice.handle().table(tier)?.probe(key, hash, tier)?;
        // Entries of tables from outside all have the number of the change that brought them in.
        let seqno = |seqno| slice.seqno.unwrap_or(seqno);
        Ok(found.map(|(own, kind)| (kind == Kind::Put).then(|| seqno(own))))
    }

    /// It has no number yet.
    fn of_own(_: Option<&Bytes>) -> Self::Answer {
        None
    }

    #[inline]
    fn is_found(answer: &Self::Answer) -> bool {
        answer.is_some()
    }
}
