//! A batch is its own log record: each operation is encoded once, when it is added.
//!
//! ```text
//! batch     := operation*     (the log record around it has length and checksum)
//! operation := kind u8 | [keyspace varint] | key_len varint
//!              | [value_len varint, puts only] | key | [value]
//! ```
//! A bit of the kind says whether a keyspace follows. If none does, the operation is of the default
//! keyspace.

mod encoded;
mod read;

#[cfg(debug_assertions)]
pub use encoded::operations_decoded;
use encoded::{NamedOperation, check_lengths, put_operation};
pub use encoded::{
    OPERATION_OVERHEAD_MAX, PointOperation, PointOperations, check_entry, encode_before_value,
    encode_operation,
};
pub use read::{Operation, Operations};

use crate::key::{Kind, Span};
use crate::key_range::KeyRange;
use crate::keyspace::{KeyspaceId, KeyspaceSpan};
use crate::limits::ENTRY_OVERHEAD_BYTES;
use std::collections::BTreeMap;

/// A keyspace of an open database, as batches refer to it. It is made from a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyspaceRef {
    /// The number of the database, among all that this process has opened.
    database: u64,
    id: KeyspaceId,
}

#[doc(hidden)]
impl KeyspaceRef {
    /// The keyspace `id` of the database with this number.
    pub fn new(database: u64, id: KeyspaceId) -> Self {
        Self { database, id }
    }

    /// The number of the database, among all that this process has opened.
    #[doc(hidden)]
    pub fn database(self) -> u64 {
        self.database
    }

    /// The keyspace within that database.
    pub fn id(self) -> KeyspaceId {
        self.id
    }
}

/// Writes that become visible, durable and recoverable together or not at all.
///
/// Later operations on a key override earlier ones. Adding never fails: an empty or oversized key
/// is recorded, and refused when the batch is written.
///
/// A batch that deletes ranges of keys does not pass through the log and memory. Its puts are
/// written to a table, and the whole batch is one change, like a replacement of spans. It costs two
/// syncs of the disk, whatever durability is asked for, and is meant for ranges of many keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    encoded: Vec<u8>,
    count: u32,
    /// Deleted ranges. Each has the length of the operations encoded before it, and the keyspace
    /// that it names, if any.
    deleted: Vec<(usize, Option<KeyspaceId>, Span)>,
    /// The database whose keyspaces the batch names.
    database: Option<u64>,
    /// The keyspace of operations that are added without one.
    keyspace: Option<KeyspaceRef>,
    /// Is there an operation without a keyspace, so that the writing handle decides it?
    is_open: bool,
    /// Does an operation name the default keyspace? In the log that keyspace is never named.
    names_default: bool,
    /// Does the batch name keyspaces of several databases?
    is_mixed: bool,
    shortest_key: Option<usize>,
    longest_key: usize,
    longest_value: usize,
}

/// What operations of this many encoded bytes take of the write buffer. They are charged for it at
/// admission.
#[inline]
pub fn memory_bytes(encoded_bytes: usize, operations: u32) -> u64 {
    encoded_bytes as u64 + u64::from(operations) * ENTRY_OVERHEAD_BYTES as u64
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch. Its operations are in the keyspace of this handle unless they name another
    /// one.
    pub fn new_in(keyspace: impl Into<KeyspaceRef>) -> Self {
        let keyspace = keyspace.into();
        Self { database: Some(keyspace.database), keyspace: Some(keyspace), ..Self::default() }
    }

    /// An empty batch with room for `bytes` of encoded operations.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { encoded: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Adds "set `key` to `value`" in the batch's keyspace: that of [`new_in`](Self::new_in), or
    /// else that of the handle which writes the batch.
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

    /// Adds "remove `key`" in the batch's keyspace: that of [`new_in`](Self::new_in), or else that
    /// of the handle which writes the batch.
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

    /// Adds "remove every key in `range`" in the batch's keyspace: that of
    /// [`new_in`](Self::new_in), or else that of the handle which writes the batch.
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
        reason = "`delete_range_in(&index, a..b)` reads better than with `&(a..b)`"
    )]
    pub fn delete_range_in(
        &mut self,
        keyspace: impl Into<KeyspaceRef>,
        range: impl KeyRange,
    ) -> &mut Self {
        let keyspace = self.name(keyspace.into());
        self.delete_span(Some(keyspace), range.span())
    }

    /// Adds "remove every key that starts with `prefix`" in the batch's keyspace: that of
    /// [`new_in`](Self::new_in), or else that of the handle which writes the batch.
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

    /// The number of operations.
    pub fn len(&self) -> usize {
        self.count as usize + self.deleted.len()
    }

    /// Does it have no operation?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does it delete ranges of keys?
    pub fn deletes_ranges(&self) -> bool {
        !self.deleted.is_empty()
    }

    /// The deleted ranges, in order and united.
    #[doc(hidden)]
    pub fn deleted_ranges(&self) -> Vec<KeyspaceSpan> {
        let spans = self.deleted.iter().map(|(_, keyspace, span)| KeyspaceSpan {
            keyspace: keyspace.unwrap_or_default(),
            span: span.clone(),
        });
        KeyspaceSpan::united(spans.collect())
    }

    /// The result of the batch, apart from the deletion of existing keys in ranges: a value for
    /// each key that it puts, and none for each key that it deletes.
    #[doc(hidden)]
    pub fn outcome(&self) -> BTreeMap<(KeyspaceId, &[u8]), Option<&[u8]>> {
        let mut outcome: BTreeMap<(KeyspaceId, &[u8]), Option<&[u8]>> = BTreeMap::new();
        let mut deleted = self.deleted.iter().peekable();
        let mut operations = self.points();
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
            let Some(PointOperation { keyspace, kind, key, value }) = operations.next() else {
                return outcome;
            };
            outcome.insert((keyspace, key), (kind == Kind::Put).then_some(value));
        }
    }

    /// The database whose keyspaces the batch names, if it names any.
    pub fn database(&self) -> Option<u64> {
        self.database
    }

    /// Is it encoded as the log needs it, if a handle on this keyspace writes it? Otherwise
    /// `within` makes it so.
    #[doc(hidden)]
    pub fn is_within(&self, keyspace: KeyspaceId) -> bool {
        (keyspace.is_default() || !self.is_open) && !self.names_default
    }

    /// The batch, encoded as the log needs it. Operations without a keyspace are in this one, and
    /// the default keyspace is not named. Copies the batch only if it must change.
    #[must_use]
    #[doc(hidden)]
    pub fn within(self, keyspace: KeyspaceRef) -> Self {
        if self.is_within(keyspace.id) { self } else { self.copied_within(keyspace) }
    }

    /// A copy of the batch, encoded as the log needs it; see `within`.
    #[must_use]
    #[doc(hidden)]
    pub fn copied_within(&self, keyspace: KeyspaceRef) -> Self {
        let home = if self.keyspace.is_some() { KeyspaceId::DEFAULT } else { keyspace.id };
        let name = |named: Option<KeyspaceId>| {
            Some(named.unwrap_or(home)).filter(|keyspace| !keyspace.is_default())
        };
        let mut encoded = Vec::with_capacity(self.encoded.len() + self.count as usize);
        let (mut deleted, mut next) = (Vec::with_capacity(self.deleted.len()), 0);
        let mut operations = self.points();
        loop {
            while let Some((at, named, span)) = self.deleted.get(next)
                && *at <= operations.position()
            {
                deleted.push((encoded.len(), name(*named), span.clone()));
                next += 1;
            }
            let Some(NamedOperation { named, operation }) = operations.decode() else { break };
            let PointOperation { kind, key, value, .. } = operation;
            put_operation(&mut encoded, name(named), kind, key, value);
        }
        Self {
            encoded,
            count: self.count,
            deleted,
            database: Some(keyspace.database),
            keyspace: self.keyspace.or(Some(keyspace)),
            is_open: false,
            names_default: false,
            is_mixed: self.is_mixed,
            shortest_key: self.shortest_key,
            longest_key: self.longest_key,
            longest_value: self.longest_value,
        }
    }

    /// Length of the encoded operations in bytes, without the deleted ranges.
    pub fn encoded_len(&self) -> usize {
        self.encoded.len()
    }

    /// The bytes of the write buffer that the batch takes until it is flushed: its encoded bytes,
    /// and 72 for each operation. `Limits::batch_memory_bytes_max` says how many a database
    /// accepts.
    pub fn memory_bytes(&self) -> u64 {
        memory_bytes(self.encoded.len(), self.count)
    }

    /// The encoded operations.
    #[doc(hidden)]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Takes the encoded operations out. Everything else stays, for `put_back`.
    #[doc(hidden)]
    pub fn take_encoded(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.encoded)
    }

    /// Puts back what `take_encoded` returned.
    #[doc(hidden)]
    pub fn put_back(&mut self, encoded: Vec<u8>) {
        self.encoded = encoded;
    }

    /// The operations on single keys, in the order in which they were added.
    #[doc(hidden)]
    pub fn points(&self) -> PointOperations<'_> {
        PointOperations::new(&self.encoded)
    }

    /// Checks keys and values. The error is a message for the user.
    #[doc(hidden)]
    pub fn check(&self, value_bytes_max: usize) -> Result<(), String> {
        if self.is_mixed {
            return Err("the batch names keyspaces of two databases; write one for each".to_owned());
        }
        if self.shortest_key == Some(0) {
            return Err("the key is empty; keys are 1..=65535 bytes".to_owned());
        }
        Span::check_size(self.deleted.iter().map(|(_, _, span)| span))?;
        check_lengths(self.longest_key, self.longest_value, value_bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_back_in_order() {
        let mut batch = WriteBatch::new();
        batch.put("k1", "v1").delete("k2").put("k3", vec![7; 300]);
        let got: Vec<_> = batch.points().collect();
        assert_eq!(got.len(), 3);
        let keyspace = KeyspaceId::DEFAULT;
        assert_eq!(got[0], PointOperation { keyspace, kind: Kind::Put, key: b"k1", value: b"v1" });
        assert_eq!(got[1], PointOperation { keyspace, kind: Kind::Delete, key: b"k2", value: b"" });
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
    fn what_names_no_keyspace_is_of_the_handle_that_it_is_written_by() {
        let of = |id| KeyspaceRef::new(1, KeyspaceId(id));
        let mut batch = WriteBatch::new();
        batch.put("k", "gone").put_in(of(0), "k", "default").put_in(of(300), "k", "other");
        batch.delete_range("a".."z").delete_range_in(of(300), "x"..).put("k", "mine");
        batch.delete_in(of(9), "k");
        let (mine, len) = (KeyspaceId(7), batch.len());
        let batch = batch.within(of(7));
        assert_eq!((batch.len(), batch.points().count()), (len, 5));
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
        assert_eq!(bound.points().next().unwrap().keyspace, mine);
        assert_eq!(bound.clone().within(KeyspaceRef::new(1, KeyspaceId(8))), bound);
        assert_eq!(bound.deleted_ranges()[0].keyspace, mine);
    }

    /// Older builds, and the log, know nothing of keyspaces as long as a database has only the
    /// default one.
    #[test]
    fn the_default_keyspace_costs_no_byte() {
        let default = KeyspaceRef::new(1, KeyspaceId::DEFAULT);
        let mut plain = WriteBatch::new();
        plain.put("k", "v").delete("d").delete_prefix("x");
        let mut named = WriteBatch::new_in(default);
        named.put("k", "v").delete_in(default, "d").delete_range_in(default, Span::prefix(b"x"));
        let named = named.within(KeyspaceRef::new(1, KeyspaceId(7)));
        assert_eq!(named.encoded(), plain.encoded());
        assert_eq!(named.deleted_ranges(), plain.deleted_ranges());
        let mut other = WriteBatch::new();
        other.put_in(default, "k", "v").delete_in(default, "d");
        assert_eq!(other.within(KeyspaceRef::new(1, KeyspaceId(7))).encoded(), plain.encoded());
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
}
