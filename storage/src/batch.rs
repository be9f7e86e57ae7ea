//! A batch that is its own log record: operations are encoded once, when they are added.
//!
//! ```text
//! operation := kind u8 | key_len varint | [value_len varint, puts only] | key | [value]
//! batch     := operation*            (the log record around it carries length and checksum)
//! ```

use crate::codec::{Reader, put_varint, varint_len, write_varint};
use crate::key::{Kind, Span};
use crate::key_range::KeyRange;
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_CAP};
use std::collections::BTreeMap;
use std::ops::Bound;

/// The most bytes that an operation needs beside its key and value.
pub const OPERATION_OVERHEAD_MAX: usize = 1 + 3 + 5;

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
    /// Ranges that are deleted, each with the length of what was encoded before.
    deleted: Vec<(usize, Span)>,
    shortest_key: Option<usize>,
    longest_key: usize,
    longest_value: usize,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `bytes` of encoded operations.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { encoded: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Adds "set `key` to `value`".
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        let (key, value) = (key.as_ref(), value.as_ref());
        self.encoded.reserve(OPERATION_OVERHEAD_MAX + key.len() + value.len());
        self.encoded.push(Kind::Put as u8);
        put_varint(&mut self.encoded, key.len() as u64);
        put_varint(&mut self.encoded, value.len() as u64);
        self.encoded.extend_from_slice(key);
        self.encoded.extend_from_slice(value);
        self.note(key.len(), value.len())
    }

    /// Adds "remove `key`".
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        let key = key.as_ref();
        self.encoded.push(Kind::Delete as u8);
        put_varint(&mut self.encoded, key.len() as u64);
        self.encoded.extend_from_slice(key);
        self.note(key.len(), 0)
    }

    /// Adds "remove every key in `range`".
    #[allow(
        clippy::needless_pass_by_value,
        reason = "`delete_range(a..b)` reads better than `delete_range(&(a..b))`"
    )]
    pub fn delete_range(&mut self, range: impl KeyRange) -> &mut Self {
        let span = range.span();
        if !span.is_empty() {
            self.deleted.push((self.encoded.len(), span));
        }
        self
    }

    /// Adds "remove every key that starts with `prefix`".
    pub fn delete_prefix(&mut self, prefix: impl AsRef<[u8]>) -> &mut Self {
        self.delete_range(Span::prefix(prefix.as_ref()))
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
        *self = Self { encoded, ..Self::default() };
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

    /// All keys of which what was there before goes: ascending, and apart from each other.
    pub fn deleted_ranges(&self) -> Vec<Span> {
        Span::united(self.deleted.iter().map(|(_, span)| span.clone()).collect())
    }

    /// What the batch comes to beside deleting ranges: a value for each key that it puts, and none for one
    /// that it deletes.
    pub fn outcome(&self) -> BTreeMap<&[u8], Option<&[u8]>> {
        let mut outcome: BTreeMap<&[u8], Option<&[u8]>> = BTreeMap::new();
        let mut deleted = self.deleted.iter().peekable();
        let mut operations = self.operations();
        loop {
            while let Some((_, span)) = deleted.next_if(|(at, _)| *at <= operations.position()) {
                let end = span.hi.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                let inside = outcome.range::<[u8], _>((Bound::Included(&span.lo[..]), end));
                let gone: Vec<&[u8]> = inside.map(|(key, _)| *key).collect();
                for key in gone {
                    outcome.remove(key);
                }
            }
            let Some(Operation { kind, key, value }) = operations.next() else { return outcome };
            outcome.insert(key, (kind == Kind::Put).then_some(value));
        }
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

/// Length of one encoded operation.
pub fn operation_len(kind: Kind, key: &[u8], value: &[u8]) -> usize {
    let value_part = match kind {
        Kind::Put => varint_len(value.len() as u64) + value.len(),
        Kind::Delete => 0,
    };
    1 + varint_len(key.len() as u64) + key.len() + value_part
}

/// Encodes one operation at the start of `out`, which has `operation_len` bytes or more; returns
/// how many it took. The allocation-free twin of `WriteBatch::put` for the single-write path.
#[inline]
pub fn encode_operation(out: &mut [u8], kind: Kind, key: &[u8], value: &[u8]) -> usize {
    out[0] = kind as u8;
    let mut at = 1 + write_varint(&mut out[1..], key.len() as u64);
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
    /// Put or delete.
    pub kind: Kind,
    /// The key.
    pub key: &'a [u8],
    /// The value; empty for a delete.
    pub value: &'a [u8],
}

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

    /// The kind, and the lengths of key and value: within the limits of the format, whatever is there.
    #[inline]
    fn head(&mut self) -> Option<(Kind, usize, usize)> {
        let kind = Kind::from_u8(self.reader.u8()?)?;
        let key_len = usize::try_from(self.reader.varint()?).ok()?;
        if key_len == 0 || key_len > KEY_BYTES_MAX {
            return None;
        }
        let value_len = match kind {
            Kind::Put => usize::try_from(self.reader.varint()?).ok()?,
            Kind::Delete => 0,
        };
        (value_len <= VALUE_BYTES_CAP).then_some((kind, key_len, value_len))
    }

    #[inline]
    fn decode(&mut self) -> Option<Operation<'a>> {
        let (kind, key_len, value_len) = self.head()?;
        let key = self.reader.take(key_len)?;
        let value = self.reader.take(value_len)?;
        Some(Operation { kind, key, value })
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Operation<'a>;

    #[inline]
    fn next(&mut self) -> Option<Operation<'a>> {
        if self.malformed_at.is_some() || self.reader.is_empty() {
            return None;
        }
        #[cfg(debug_assertions)]
        DECODED.with(|decoded| decoded.set(decoded.get() + 1));
        let start = self.reader.position();
        let operation = self.decode();
        if operation.is_none() {
            self.malformed_at = Some(start);
        }
        operation
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
        assert_eq!(got[0], Operation { kind: Kind::Put, key: b"k1", value: b"v1" });
        assert_eq!(got[1], Operation { kind: Kind::Delete, key: b"k2", value: b"" });
        assert_eq!(got[2].value.len(), 300);
    }

    #[test]
    fn what_is_put_into_a_deleted_range_afterwards_stays() {
        let mut batch = WriteBatch::new();
        batch.put("a1", "gone").put("b", "1").delete("c");
        batch.delete_prefix("a").put("a1", "v").put("a2", "gone").delete_range("a2".."a3");
        batch.delete_range("z".."a");
        assert_eq!(batch.len(), 7, "an upside down range is none");
        let outcome: Vec<_> = batch.outcome().into_iter().collect();
        let wanted: [(&[u8], Option<&[u8]>); 3] =
            [(b"a1", Some(b"v")), (b"b", Some(b"1")), (b"c", None)];
        assert_eq!(outcome, wanted);
        assert_eq!(batch.deleted_ranges(), [Span::prefix(b"a")]);
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
            let mut out = vec![0; operation_len(kind, key, value)];
            assert_eq!(encode_operation(&mut out, kind, key, value), out.len());
            assert_eq!(out, batch.encoded());
        }
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
            Operations::new(&bytes).head()
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
