//! The encoding of a batch: consecutive operations on single keys.

use crate::codec::{Decoder, put_varint, write_varint};
use crate::key::Kind;
use crate::keyspace::KeyspaceId;
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_CAP};

/// The most bytes that an operation takes besides its key and value.
pub const OPERATION_OVERHEAD_MAX: usize = 1 + KEYSPACE_BYTES_MAX + 3 + 5;
/// The longest encoded number of a keyspace.
const KEYSPACE_BYTES_MAX: usize = 5;
/// The bit of an operation's kind that says that a keyspace follows.
const NAMES_KEYSPACE: u8 = 2;

/// Checks the lengths of one key and value. The error is a message for the user.
pub fn check_entry(key: usize, value: usize, value_bytes_max: usize) -> Result<(), String> {
    if key == 0 {
        return Err("the key is empty; keys are 1..=65535 bytes".to_owned());
    }
    check_lengths(key, value, value_bytes_max)
}

pub(super) fn check_lengths(
    key: usize,
    value: usize,
    value_bytes_max: usize,
) -> Result<(), String> {
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
pub(super) fn put_operation(
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

/// Encodes one operation at the start of `out`, and returns its length. `out` must have room for
/// the key, the value and `OPERATION_OVERHEAD_MAX` bytes. It is the counterpart of
/// `WriteBatch::put` without allocation, for single writes.
#[inline]
pub fn encode_operation(
    out: &mut [u8],
    keyspace: KeyspaceId,
    kind: Kind,
    key: &[u8],
    value: &[u8],
) -> usize {
    let at = encode_before_value(out, keyspace, kind, key, value.len());
    if kind != Kind::Put {
        return at;
    }
    out[at..at + value.len()].copy_from_slice(value);
    at + value.len()
}

/// Encodes one operation up to its value, which follows and has this length. Returns the length of
/// that. `out` must have room for the key and `OPERATION_OVERHEAD_MAX` bytes.
#[inline]
pub fn encode_before_value(
    out: &mut [u8],
    keyspace: KeyspaceId,
    kind: Kind,
    key: &[u8],
    value_length: usize,
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
        at += write_varint(&mut out[at..], value_length as u64);
    }
    out[at..at + key.len()].copy_from_slice(key);
    at + key.len()
}

/// A decoded operation on a single key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointOperation<'a> {
    /// The keyspace of the key.
    pub keyspace: KeyspaceId,
    /// Put or delete.
    pub kind: Kind,
    /// The key.
    pub key: &'a [u8],
    /// The value; empty for a delete.
    pub value: &'a [u8],
}

/// An operation, and the keyspace that its encoding names, if any.
pub(super) struct NamedOperation<'a> {
    pub(super) named: Option<KeyspaceId>,
    pub(super) operation: PointOperation<'a>,
}

/// The fields before an operation's key: the named keyspace, the kind, and the lengths of key and
/// value.
type Head = (Option<KeyspaceId>, Kind, usize, usize);

#[cfg(debug_assertions)]
thread_local! {
    static DECODED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// In debug builds, the number of operations that this thread has decoded, so that tests can
/// measure work.
#[cfg(debug_assertions)]
pub fn operations_decoded() -> u64 {
    DECODED.get()
}

/// Iterates over encoded operations. Ends at the first malformed one; see `malformed_at`.
#[derive(Clone, Debug)]
pub struct PointOperations<'a> {
    reader: Decoder<'a>,
    malformed_at: Option<usize>,
}

impl<'a> PointOperations<'a> {
    /// The encoded operations in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Decoder::new(bytes), malformed_at: None }
    }

    /// The offset of the malformed operation at which the iteration has ended, if any.
    pub fn malformed_at(&self) -> Option<usize> {
        self.malformed_at
    }

    /// The offset of the next operation.
    #[inline]
    pub fn position(&self) -> usize {
        self.reader.position()
    }

    /// Decodes the fields before a key; `None` if they exceed the limits of the format.
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

    /// Decodes the next operation, and the keyspace that it names.
    #[inline]
    pub(super) fn decode(&mut self) -> Option<NamedOperation<'a>> {
        #[cfg(debug_assertions)]
        DECODED.with(|decoded| decoded.set(decoded.get() + 1));
        let (named, kind, key_len, value_len) = self.head()?;
        let key = self.reader.take(key_len)?;
        let value = self.reader.take(value_len)?;
        let keyspace = named.unwrap_or_default();
        Some(NamedOperation { named, operation: PointOperation { keyspace, kind, key, value } })
    }
}

impl<'a> Iterator for PointOperations<'a> {
    type Item = PointOperation<'a>;

    #[inline]
    fn next(&mut self) -> Option<PointOperation<'a>> {
        if self.malformed_at.is_some() || self.reader.is_empty() {
            return None;
        }
        let start = self.reader.position();
        let decoded = self.decode();
        if decoded.is_none() {
            self.malformed_at = Some(start);
        }
        decoded.map(|decoded| decoded.operation)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KeyspaceRef, WriteBatch};
    use super::*;
    use crate::codec::extremes::extremes;

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
            assert_eq!(&out[..length], batch.within(KeyspaceRef::new(1, other)).encoded());
        }
    }

    #[test]
    fn malformed_bytes_end_the_operations() {
        for bytes in [&[2, 1, b'k'][..], &[1, 0, 0], &[1, 5, 1, b'k'], &[0, 1]] {
            let mut operations = PointOperations::new(bytes);
            assert_eq!(operations.next(), None);
            assert_eq!(operations.malformed_at(), Some(0));
        }
    }

    /// Planted: no limit for values; a limit that is one too high.
    #[test]
    fn c1_a_length_beyond_the_limits_is_malformed_before_its_bytes_are_looked_for() {
        let head = |kind: Kind, key: usize, value: usize| {
            let mut bytes = vec![kind as u8];
            put_varint(&mut bytes, key as u64);
            if kind == Kind::Put {
                put_varint(&mut bytes, value as u64);
            }
            let head = PointOperations::new(&bytes).head();
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
            let mut operations = PointOperations::new(&bytes);
            let sum: usize = operations.by_ref().map(|op| op.key.len() + op.value.len()).sum();
            assert!(sum < bytes.len());
            assert!(operations.malformed_at().is_none_or(|at| at < bytes.len()));
        });
    }
}
