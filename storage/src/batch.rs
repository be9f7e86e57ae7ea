//! A batch that is its own log record: operations are encoded once, when they are added.
//!
//! ```text
//! operation := kind u8 | [keyspace varint] | key_len varint | [value_len varint, puts only] | key | [value]
//! batch     := operation*            (the log record around it carries length and checksum)
//! ```
//! The kind has one bit more where a keyspace follows. Where none does the operation is of the default one.
//!
//! Long because encoding and decoding of an operation are kept side by side.

use crate::codec::{Reader, put_varint, write_varint};
use crate::key::{Kind, Span};
use crate::key_range::KeyRange;
use crate::keyspace::{KeyspaceId, KeyspaceSpan};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_CAP};
use std::collections::BTreeMap;

/// The most bytes that an operation needs beside its key and value.
pub const OPERATION_OVERHEAD_MAX: usize = 1 + KEYSPACE_BYTES_MAX + 3 + 5;
/// The longest number of a keyspace.
const KEYSPACE_BYTES_MAX: usize = 5;
/// This bit of an operation's kind says that the number of a keyspace follows.
const NAMES_KEYSPACE: u8 = 2;

/// A keyspace of an open database, as a batch is told of it: made of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyspaceRef {
    /// Which of the databases that this process has open, or had.
    database: u64,
    id: KeyspaceId,
}

#[doc(hidden)]
impl KeyspaceRef {
    /// Of the database with this number.
    pub fn new(database: u64, id: KeyspaceId) -> Self {
        Self { database, id }
    }

    /// Which of the databases that this process has open, or had.
    pub fn database(self) -> u64 {
        self.database
    }

    /// Which keyspace of it.
    pub fn id(self) -> KeyspaceId {
        self.id
    }
}

/// Writes that become visible, durable and recoverable together or not at all.
///
/// Later operations on a key win over earlier ones. Adding never fails; an empty or oversized key is
/// remembered and refused when the batch is written.
///
/// A batch that deletes ranges of keys does not go through log and memory: what it puts is written into a table,
/// and all of it is one change, as a replacement of spans is. It costs two syncs of the disk, whatever the
/// durability asked for, and is meant for ranges of many keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    encoded: Vec<u8>,
    count: u32,
    /// Ranges that are deleted, each with the length of what was encoded before, and with its keyspace if that
    /// was named.
    deleted: Vec<(usize, Option<KeyspaceId>, Span)>,
    /// The database whose keyspaces it names.
    database: Option<u64>,
    /// What is added without a keyspace is of this one.
    keyspace: Option<KeyspaceRef>,
    /// Does anything in it name no keyspace, and is of that which it will be written by?
    is_open: bool,
    /// Does anything in it name the default keyspace? Nothing that is written does.
    names_default: bool,
    /// Does it name keyspaces of several?
    is_mixed: bool,
    shortest_key: Option<usize>,
    longest_key: usize,
    longest_value: usize,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch whose operations are of the keyspace of this handle unless they name another one.
    pub fn new_in(keyspace: impl Into<KeyspaceRef>) -> Self {
        let keyspace = keyspace.into();
        Self { database: Some(keyspace.database), keyspace: Some(keyspace), ..Self::default() }
    }

    /// An empty batch with room for `bytes` of encoded operations.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { encoded: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Adds "set `key` to `value`", in the batch's keyspace: that of [`new_in`](Self::new_in), or else of the handle
    /// that it is written by.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        let keyspace = self.unnamed();
        self.add(keyspace, Kind::Put, key.as_ref(), value.as_ref())
    }

    /// Adds "set `key` to `value`" in the keyspace of this handle.
    pub fn put_in(
        &mut self,
        keyspace: impl Into<KeyspaceRef>,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> &mut Self {
        let keyspace = self.name(keyspace.into());
        self.add(Some(keyspace), Kind::Put, key.as_ref(), value.as_ref())
    }

    /// Adds "remove `key`", in the batch's keyspace: that of [`new_in`](Self::new_in), or else of the handle
    /// that it is written by.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        let keyspace = self.unnamed();
        self.add(keyspace, Kind::Delete, key.as_ref(), &[])
    }

    /// Adds "remove `key`" in the keyspace of this handle.
    pub fn delete_in(
        &mut self,
        keyspace: impl Into<KeyspaceRef>,
        key: impl AsRef<[u8]>,
    ) -> &mut Self {
        let keyspace = self.name(keyspace.into());
        self.add(Some(keyspace), Kind::Delete, key.as_ref(), &[])
    }

    /// Adds "remove every key in `range`", in the batch's keyspace: that of [`new_in`](Self::new_in), or else of the handle
    /// that it is written by.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "`delete_range(a..b)` reads better than `delete_range(&(a..b))`"
    )]
    pub fn delete_range(&mut self, range: impl KeyRange) -> &mut Self {
        let keyspace = self.unnamed();
        self.delete_span(keyspace, range.span())
    }

    /// Adds "remove every key in `range`" in the keyspace of this handle.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "`delete_range_in(&index, a..b)` reads better than `delete_range_in(&index, &(a..b))`"
    )]
    pub fn delete_range_in(
        &mut self,
        keyspace: impl Into<KeyspaceRef>,
        range: impl KeyRange,
    ) -> &mut Self {
        let keyspace = self.name(keyspace.into());
        self.delete_span(Some(keyspace), range.span())
    }

    /// Adds "remove every key that starts with `prefix`", in the batch's keyspace: that of [`new_in`](Self::new_in), or else of the handle
    /// that it is written by.
    pub fn delete_prefix(&mut self, prefix: impl AsRef<[u8]>) -> &mut Self {
        self.delete_range(Span::prefix(prefix.as_ref()))
    }

    fn delete_span(&mut self, keyspace: Option<KeyspaceId>, span: Span) -> &mut Self {
        if !span.is_empty() {
            self.deleted.push((self.encoded.len(), keyspace, span));
        }
        self
    }

    fn unnamed(&mut self) -> Option<KeyspaceId> {
        let Some(keyspace) = self.keyspace else {
            self.is_open = true;
            return None;
        };
        Some(keyspace.id).filter(|id| !id.is_default())
    }

    fn name(&mut self, keyspace: KeyspaceRef) -> KeyspaceId {
        self.is_mixed |= self.database.is_some_and(|other| other != keyspace.database);
        self.database = Some(keyspace.database);
        self.names_default |= keyspace.id.is_default();
        keyspace.id
    }

    fn add(
        &mut self,
        keyspace: Option<KeyspaceId>,
        kind: Kind,
        key: &[u8],
        value: &[u8],
    ) -> &mut Self {
        put_operation(&mut self.encoded, keyspace, kind, key, value);
        self.note(key.len(), value.len())
    }

    fn note(&mut self, key_len: usize, value_len: usize) -> &mut Self {
        self.count += 1;
        self.shortest_key = Some(self.shortest_key.map_or(key_len, |s| s.min(key_len)));
        self.longest_key = self.longest_key.max(key_len);
        self.longest_value = self.longest_value.max(value_len);
        self
    }

    /// Removes all operations and keeps the allocation.
    pub fn clear(&mut self) {
        let mut encoded = std::mem::take(&mut self.encoded);
        encoded.clear();
        let (keyspace, database) = (self.keyspace, self.keyspace.map(|of| of.database));
        *self = Self { encoded, database, keyspace, ..Self::default() };
    }

    /// How many operations it has.
    pub fn len(&self) -> usize {
        self.count as usize + self.deleted.len()
    }

    /// Has it no operation?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does it delete ranges of keys?
    pub fn deletes_ranges(&self) -> bool {
        !self.deleted.is_empty()
    }

    /// All keys of which what was there before goes: in order, and apart from each other.
    pub fn deleted_ranges(&self) -> Vec<KeyspaceSpan> {
        let spans = self.deleted.iter().map(|(_, keyspace, span)| KeyspaceSpan {
            keyspace: keyspace.unwrap_or_default(),
            span: span.clone(),
        });
        KeyspaceSpan::united(spans.collect())
    }

    /// What the batch comes to beside deleting ranges: a value for each key that it puts, and none for one
    /// that it deletes.
    pub fn outcome(&self) -> BTreeMap<(KeyspaceId, &[u8]), Option<&[u8]>> {
        let mut outcome: BTreeMap<(KeyspaceId, &[u8]), Option<&[u8]>> = BTreeMap::new();
        let mut deleted = self.deleted.iter().peekable();
        let mut operations = self.operations();
        loop {
            let is_next = |(at, _, _): &&(usize, _, _)| *at <= operations.position();
            while let Some((_, keyspace, span)) = deleted.next_if(is_next) {
                let keyspace = keyspace.unwrap_or_default();
                let inside = outcome.range((keyspace, &span.lo[..])..);
                let inside = inside.map(|(key, _)| *key);
                let inside = inside.take_while(|(other, key)| {
                    *other == keyspace && span.hi.as_ref().is_none_or(|hi| *key < &hi[..])
                });
                for key in inside.collect::<Vec<_>>() {
                    outcome.remove(&key);
                }
            }
            let Some(Operation { keyspace, kind, key, value }) = operations.next() else {
                return outcome;
            };
            outcome.insert((keyspace, key), (kind == Kind::Put).then_some(value));
        }
    }

    /// The database whose keyspaces it names, if it names any.
    pub fn database(&self) -> Option<u64> {
        self.database
    }

    /// Is it as it will be in the log, when it is written by a handle on this keyspace? Else `within` makes it so.
    pub fn is_within(&self, keyspace: KeyspaceId) -> bool {
        (keyspace.is_default() || !self.is_open) && !self.names_default
    }

    /// The same batch as it will be in the log: what names no keyspace is of this one, and what is of the default
    /// one names none. Copies it, if it is not so.
    #[must_use]
    pub fn within(mut self, keyspace: KeyspaceId) -> Self {
        if self.is_within(keyspace) {
            return self;
        }
        let home = self.keyspace.map_or(keyspace, |of| of.id);
        let name = |named: Option<KeyspaceId>| {
            Some(named.unwrap_or(home)).filter(|keyspace| !keyspace.is_default())
        };
        let mut encoded = Vec::with_capacity(self.encoded.len() + self.count as usize);
        let (mut deleted, mut next) = (Vec::with_capacity(self.deleted.len()), 0);
        let mut operations = Operations::new(&self.encoded);
        loop {
            while let Some((at, named, span)) = self.deleted.get(next)
                && *at <= operations.position()
            {
                deleted.push((encoded.len(), name(*named), span.clone()));
                next += 1;
            }
            let Some((named, operation)) = operations.decode() else { break };
            let Operation { kind, key, value, .. } = operation;
            put_operation(&mut encoded, name(named), kind, key, value);
        }
        (self.encoded, self.deleted) = (encoded, deleted);
        (self.is_open, self.names_default) = (false, false);
        self
    }

    /// Length of the encoded operations, in bytes: all but the deleted ranges.
    pub fn encoded_len(&self) -> usize {
        self.encoded.len()
    }

    /// The encoded operations.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The encoded operations, given away.
    pub fn into_encoded(self) -> Vec<u8> {
        self.encoded
    }

    /// The operations in the order they were added.
    pub fn operations(&self) -> Operations<'_> {
        Operations::new(&self.encoded)
    }

    /// Says what is wrong with the keys or values, if anything is.
    pub fn check(&self, value_bytes_max: usize) -> Result<(), String> {
        if self.is_mixed {
            return Err("the batch names keyspaces of two databases; write one for each".to_owned());
        }
        if self.shortest_key == Some(0) {
            return Err("the key is empty; keys are 1..=65535 bytes".to_owned());
        }
        check_lengths(self.longest_key, self.longest_value, value_bytes_max)
    }
}

/// Says what is wrong with the lengths of one key and value, if anything is.
pub fn check_entry(key: usize, value: usize, value_bytes_max: usize) -> Result<(), String> {
    if key == 0 {
        return Err("the key is empty; keys are 1..=65535 bytes".to_owned());
    }
    check_lengths(key, value, value_bytes_max)
}

fn check_lengths(key: usize, value: usize, value_bytes_max: usize) -> Result<(), String> {
    if key > KEY_BYTES_MAX {
        return Err(format!("the key has {key} bytes; keys are 1..={KEY_BYTES_MAX} bytes"));
    }
    if value > value_bytes_max {
        return Err(format!(
            "the value has {value} bytes; the limit is {value_bytes_max} (option value_bytes_max)"
        ));
    }
    Ok(())
}

/// Appends one operation to a batch.
fn put_operation(
    out: &mut Vec<u8>,
    keyspace: Option<KeyspaceId>,
    kind: Kind,
    key: &[u8],
    value: &[u8],
) {
    out.reserve(OPERATION_OVERHEAD_MAX + key.len() + value.len());
    match keyspace {
        None => out.push(kind as u8),
        Some(keyspace) => {
            out.push(kind as u8 | NAMES_KEYSPACE);
            put_varint(out, u64::from(keyspace.0));
        }
    }
    put_varint(out, key.len() as u64);
    if kind == Kind::Put {
        put_varint(out, value.len() as u64);
    }
    out.extend_from_slice(key);
    if kind == Kind::Put {
        out.extend_from_slice(value);
    }
}

/// Encodes one operation at the start of `out`, which has room for key, value and `OPERATION_OVERHEAD_MAX`
/// bytes; returns how many it took. The allocation-free twin of `WriteBatch::put` for the single-write path.
#[inline]
pub fn encode_operation(
    out: &mut [u8],
    keyspace: KeyspaceId,
    kind: Kind,
    key: &[u8],
    value: &[u8],
) -> usize {
    let mut at = 1;
    if keyspace.is_default() {
        out[0] = kind as u8;
    } else {
        out[0] = kind as u8 | NAMES_KEYSPACE;
        at += write_varint(&mut out[1..], u64::from(keyspace.0));
    }
    at += write_varint(&mut out[at..], key.len() as u64);
    if kind == Kind::Put {
        at += write_varint(&mut out[at..], value.len() as u64);
    }
    out[at..at + key.len()].copy_from_slice(key);
    at += key.len();
    if kind == Kind::Put {
        out[at..at + value.len()].copy_from_slice(value);
        at += value.len();
    }
    at
}

/// One decoded operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation<'a> {
    /// Whose key.
    pub keyspace: KeyspaceId,
    /// Put or delete.
    pub kind: Kind,
    /// The key.
    pub key: &'a [u8],
    /// The value; empty for a delete.
    pub value: &'a [u8],
}

/// What comes before an operation's key: the keyspace, if it is named, and the lengths of key and value.
type Head = (Option<KeyspaceId>, Kind, usize, usize);

#[cfg(debug_assertions)]
thread_local! {
    static DECODED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Operations that this thread has decoded, in debug builds: a test counts work by it.
#[cfg(debug_assertions)]
pub fn operations_decoded() -> u64 {
    DECODED.get()
}

/// The operations of encoded bytes. Ends at the first malformed one; `malformed_at` tells.
#[derive(Clone, Debug)]
pub struct Operations<'a> {
    reader: Reader<'a>,
    malformed_at: Option<usize>,
}

impl<'a> Operations<'a> {
    /// Over the encoded operations in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes), malformed_at: None }
    }

    /// Where decoding stopped short, once it has.
    pub fn malformed_at(&self) -> Option<usize> {
        self.malformed_at
    }

    /// Where the next operation begins.
    #[inline]
    pub fn position(&self) -> usize {
        self.reader.position()
    }

    /// Within the limits of the format, whatever is there.
    #[inline]
    fn head(&mut self) -> Option<Head> {
        let byte = self.reader.u8()?;
        let kind = Kind::from_u8(byte & !NAMES_KEYSPACE)?;
        let keyspace = if byte & NAMES_KEYSPACE == 0 {
            None
        } else {
            Some(KeyspaceId(u32::try_from(self.reader.varint()?).ok()?))
        };
        let key_len = usize::try_from(self.reader.varint()?).ok()?;
        if key_len == 0 || key_len > KEY_BYTES_MAX {
            return None;
        }
        let value_len = match kind {
            Kind::Put => usize::try_from(self.reader.varint()?).ok()?,
            Kind::Delete => 0,
        };
        (value_len <= VALUE_BYTES_CAP).then_some((keyspace, kind, key_len, value_len))
    }

    /// The next operation, and its keyspace if it names one.
    #[inline]
    fn decode(&mut self) -> Option<(Option<KeyspaceId>, Operation<'a>)> {
        #[cfg(debug_assertions)]
        DECODED.with(|decoded| decoded.set(decoded.get() + 1));
        let (named, kind, key_len, value_len) = self.head()?;
        let key = self.reader.take(key_len)?;
        let value = self.reader.take(value_len)?;
        let keyspace = named.unwrap_or_default();
        Some((named, Operation { keyspace, kind, key, value }))
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Operation<'a>;

    #[inline]
    fn next(&mut self) -> Option<Operation<'a>> {
        if self.malformed_at.is_some() || self.reader.is_empty() {
            return None;
        }
        let start = self.reader.position();
        let decoded = self.decode();
        if decoded.is_none() {
            self.malformed_at = Some(start);
        }
        decoded.map(|(_, operation)| operation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::extremes::extremes;

    #[test]
    fn operations_come_back_in_order() {
        let mut batch = WriteBatch::new();
        batch.put("k1", "v1").delete("k2").put("k3", vec![7; 300]);
        let got: Vec<_> = batch.operations().collect();
        assert_eq!(got.len(), 3);
        let keyspace = KeyspaceId::DEFAULT;
        assert_eq!(got[0], Operation { keyspace, kind: Kind::Put, key: b"k1", value: b"v1" });
        assert_eq!(got[1], Operation { keyspace, kind: Kind::Delete, key: b"k2", value: b"" });
        assert_eq!(got[2].value.len(), 300);
    }

    #[test]
    fn what_is_put_into_a_deleted_range_afterwards_stays() {
        let mut batch = WriteBatch::new();
        batch.put("a1", "gone").put("b", "1").delete("c");
        batch.delete_prefix("a").put("a1", "v").put("a2", "gone").delete_range("a2".."a3");
        batch.delete_range("z".."a");
        assert_eq!(batch.len(), 7, "an upside down range is none");
        let outcome = batch.outcome().into_iter().map(|((_, key), value)| (key, value));
        let outcome: Vec<_> = outcome.collect();
        let wanted: [(&[u8], Option<&[u8]>); 3] =
            [(b"a1", Some(b"v")), (b"b", Some(b"1")), (b"c", None)];
        assert_eq!(outcome, wanted);
        assert_eq!(batch.deleted_ranges(), [KeyspaceSpan::of_default(Span::prefix(b"a"))]);
        batch.clear();
        assert!(batch.is_empty() && !batch.deletes_ranges());
    }

    #[test]
    fn the_single_write_path_encodes_the_same_bytes() {
        for (kind, key, value) in
            [(Kind::Put, &b"key"[..], &[9; 200][..]), (Kind::Delete, &[1; 300][..], &[][..])]
        {
            let mut batch = WriteBatch::new();
            match kind {
                Kind::Put => batch.put(key, value),
                Kind::Delete => batch.delete(key),
            };
            let mut out = vec![0; OPERATION_OVERHEAD_MAX + key.len() + value.len()];
            let length = encode_operation(&mut out, KeyspaceId::DEFAULT, kind, key, value);
            assert_eq!(&out[..length], batch.encoded());
            let other = KeyspaceId(u32::MAX);
            let length = encode_operation(&mut out, other, kind, key, value);
            assert_eq!(&out[..length], batch.within(other).encoded());
        }
    }

    #[test]
    fn what_names_no_keyspace_is_of_the_handle_that_it_is_written_by() {
        let of = |id| KeyspaceRef::new(1, KeyspaceId(id));
        let mut batch = WriteBatch::new();
        batch.put("k", "gone").put_in(of(0), "k", "default").put_in(of(300), "k", "other");
        batch.delete_range("a".."z").delete_range_in(of(300), "x"..).put("k", "mine");
        batch.delete_in(of(9), "k");
        let (mine, len) = (KeyspaceId(7), batch.len());
        let batch = batch.within(mine);
        assert_eq!((batch.len(), batch.operations().count()), (len, 5));
        let outcome: Vec<_> = batch.outcome().into_iter().collect();
        let entry = |id, value: Option<&'static str>| {
            ((KeyspaceId(id), &b"k"[..]), value.map(str::as_bytes))
        };
        let wanted = [(0, Some("default")), (7, Some("mine")), (9, None), (300, Some("other"))];
        assert_eq!(outcome, wanted.map(|(id, value)| entry(id, value)));
        let spans = batch.deleted_ranges();
        let whose: Vec<u32> = spans.iter().map(|span| span.keyspace.0).collect();
        assert_eq!(whose, [7, 300]);
        assert_eq!(batch.check(10), Ok(()));
        let mut bound = WriteBatch::new_in(of(7));
        bound.put("k", "mine").clear();
        bound.put("k", "mine").delete_prefix("x");
        assert_eq!(bound.operations().next().unwrap().keyspace, mine);
        assert_eq!(bound.clone().within(KeyspaceId(8)), bound);
        assert_eq!(bound.deleted_ranges()[0].keyspace, mine);
    }

    /// Former builds, and the log, know nothing of it as long as nobody has another one.
    #[test]
    fn the_default_keyspace_costs_no_byte() {
        let default = KeyspaceRef::new(1, KeyspaceId::DEFAULT);
        let mut plain = WriteBatch::new();
        plain.put("k", "v").delete("d").delete_prefix("x");
        let mut named = WriteBatch::new_in(default);
        named.put("k", "v").delete_in(default, "d").delete_range_in(default, Span::prefix(b"x"));
        let named = named.within(KeyspaceId(7));
        assert_eq!(named.encoded(), plain.encoded());
        assert_eq!(named.deleted_ranges(), plain.deleted_ranges());
        let mut other = WriteBatch::new();
        other.put_in(default, "k", "v").delete_in(default, "d");
        assert_eq!(other.within(KeyspaceId(7)).encoded(), plain.encoded());
    }

    #[test]
    fn a_batch_names_keyspaces_of_one_database() {
        let of = |database| KeyspaceRef::new(database, KeyspaceId(1));
        let mut batch = WriteBatch::new();
        batch.put_in(of(1), "k", "v").put_in(of(2), "k", "v");
        assert!(batch.check(10).unwrap_err().contains("two databases"));
    }

    #[test]
    fn bad_lengths_are_named() {
        let mut batch = WriteBatch::new();
        batch.put("", "v");
        assert!(batch.check(10).unwrap_err().contains("empty"));
        batch.clear();
        batch.put("k", "0123456789A");
        assert!(batch.check(10).unwrap_err().contains("11 bytes"));
        batch.clear();
        batch.delete(vec![0; 65_536]);
        assert!(batch.check(10).unwrap_err().contains("65536"));
        batch.clear();
        assert_eq!(batch.check(10), Ok(()));
    }

    #[test]
    fn malformed_bytes_end_the_operations() {
        for bytes in [&[2, 1, b'k'][..], &[1, 0, 0], &[1, 5, 1, b'k'], &[0, 1]] {
            let mut operations = Operations::new(bytes);
            assert_eq!(operations.next(), None);
            assert_eq!(operations.malformed_at(), Some(0));
        }
    }

    /// Planted: no limit for values; one too many.
    #[test]
    fn c1_a_length_beyond_the_limits_is_malformed_before_its_bytes_are_looked_for() {
        let head = |kind: Kind, key: usize, value: usize| {
            let mut bytes = vec![kind as u8];
            put_varint(&mut bytes, key as u64);
            if kind == Kind::Put {
                put_varint(&mut bytes, value as u64);
            }
            let head = Operations::new(&bytes).head();
            head.map(|(_, kind, key_len, value_len)| (kind, key_len, value_len))
        };
        let (key_max, value_max) = (KEY_BYTES_MAX, VALUE_BYTES_CAP);
        assert_eq!(head(Kind::Put, 1, value_max), Some((Kind::Put, 1, value_max)));
        assert_eq!(head(Kind::Put, key_max, 0), Some((Kind::Put, key_max, 0)));
        assert_eq!(head(Kind::Delete, key_max, 0), Some((Kind::Delete, key_max, 0)));
        for (key, value) in [(1, value_max + 1), (1, usize::MAX), (key_max + 1, 0), (0, 0)] {
            assert_eq!(head(Kind::Put, key, value), None, "{key}, {value}");
        }
        assert_eq!(head(Kind::Delete, key_max + 1, 0), None);
    }

    #[test]
    fn c4_made_up_numbers_are_refused_or_harmless() {
        let mut batch = WriteBatch::new();
        batch.put("k1", "v1").delete("k2").put("k3", vec![7; 300]);
        extremes(batch.encoded(), |bytes| {
            let mut operations = Operations::new(&bytes);
            let sum: usize = operations.by_ref().map(|op| op.key.len() + op.value.len()).sum();
            assert!(sum < bytes.len());
            assert!(operations.malformed_at().is_none_or(|at| at < bytes.len()));
        });
    }
}
