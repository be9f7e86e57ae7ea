//! Keys, sequence numbers and spans, which all formats share.

use crate::limits::{KEY_BYTES_MAX, SEQNO_MAX, SPANS_BYTES_MAX, SPANS_MAX};
use bytes::Bytes;
use std::fmt;
use std::ops::Bound;

/// The sequence number that the log writer stamps on every entry. It orders all entries. 0 is
/// before any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seqno(pub u64);

impl Seqno {
    /// Before every entry.
    pub const ZERO: Self = Self(0);
    /// After every entry.
    pub const MAX: Self = Self(SEQNO_MAX);

    /// The next sequence number.
    ///
    /// # Panics
    /// After `MAX`.
    pub fn next(self) -> Self {
        assert!(self.0 < SEQNO_MAX, "56 bits of sequence numbers are spent");
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seqno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The kind of an entry. The numbers are part of every format.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A tombstone: the key is deleted.
    Delete = 0,
    /// The key has this value.
    Put = 1,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Delete),
            1 => Some(Self::Put),
            _ => None,
        }
    }
}

/// A borrowed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// The user's key.
    pub key: &'a [u8],
    /// Its sequence number.
    pub seqno: Seqno,
    /// Put or delete.
    pub kind: Kind,
    /// The user's value; empty for a delete.
    pub value: &'a [u8],
}

/// A half-open key interval `[lo, hi)`. Without `hi` it extends to the end of the key space.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first key inside.
    pub lo: Bytes,
    /// The first key behind it; `None` if there is no upper bound.
    pub hi: Option<Bytes>,
}

impl Span {
    /// The whole key space.
    pub fn all() -> Self {
        Self { lo: Bytes::new(), hi: None }
    }

    /// Is `key` inside?
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.lo[..] && self.hi.as_ref().is_none_or(|hi| key < &hi[..])
    }

    /// Is it certain that no key is inside?
    pub fn is_empty(&self) -> bool {
        self.hi.as_ref().is_some_and(|hi| hi <= &self.lo)
    }

    /// Does it have a key in common with the closed interval `[min, max]`?
    pub fn overlaps_closed(&self, min: &[u8], max: &[u8]) -> bool {
        max >= &self.lo[..] && self.hi.as_ref().is_none_or(|hi| min < &hi[..])
    }

    /// The same keys, with bounds that the formats can store: none is longer than the successor of
    /// the longest key.
    #[must_use]
    pub fn on_disk(&self) -> Self {
        let bound = |bound: &Bytes| match bound.get(..KEY_BYTES_MAX) {
            // No valid key lies between this bound and the longer one.
            Some(key) if bound.len() > KEY_BYTES_MAX + 1 => Bytes::from([key, &[0]].concat()),
            _ => bound.clone(),
        };
        Self { lo: bound(&self.lo), hi: self.hi.as_ref().map(bound) }
    }

    /// The union of `spans`, as spans that ascend and do not touch.
    pub fn united(mut spans: Vec<Self>) -> Vec<Self> {
        spans.sort_by(|a, b| a.lo.cmp(&b.lo));
        let mut united: Vec<Self> = Vec::with_capacity(spans.len());
        for span in spans {
            match united.last_mut() {
                Some(last) if last.hi.as_ref().is_none_or(|hi| *hi >= span.lo) => {
                    if last.hi.is_some()
                        && span.hi.as_ref().is_none_or(|hi| Some(hi) > last.hi.as_ref())
                    {
                        last.hi = span.hi;
                    }
                }
                _ => united.push(span),
            }
        }
        united
    }

    /// All bounds of `spans`, in their order.
    pub fn ends<'a>(spans: impl IntoIterator<Item = &'a Self>) -> impl Iterator<Item = &'a Bytes> {
        spans.into_iter().flat_map(|span| [Some(&span.lo), span.hi.as_ref()]).flatten()
    }

    /// Checks that one change may cut out so many spans of this size.
    ///
    /// # Errors
    /// What is wrong, in words for the caller.
    pub fn check_size<'a>(spans: impl ExactSizeIterator<Item = &'a Self>) -> Result<(), String> {
        let count = spans.len();
        let bytes: usize = Self::ends(spans).map(Bytes::len).sum();
        if count <= SPANS_MAX && bytes <= SPANS_BYTES_MAX {
            return Ok(());
        }
        Err(format!(
            "{count} spans with {bytes} bytes of bounds; one change takes at most {SPANS_MAX} with \
             {SPANS_BYTES_MAX}, so use several"
        ))
    }

    /// The keys that both contain.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let lo = self.lo.clone().max(other.lo.clone());
        let hi = match (&self.hi, &other.hi) {
            (Some(a), Some(b)) => Some(a.min(b).clone()),
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        Self { lo, hi }
    }

    /// Splits the span at `at`, the first key of the second part. `None` if one part would be
    /// empty.
    pub fn parted(&self, at: &Bytes) -> Option<[Self; 2]> {
        if !self.contains(at) || *at == self.lo {
            return None;
        }
        let left = Self { lo: self.lo.clone(), hi: Some(at.clone()) };
        let right = Self { lo: at.clone(), hi: self.hi.clone() };
        Some([left, right])
    }

    /// The span of all keys that start with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { lo: Bytes::copy_from_slice(prefix), hi: prefix_end(prefix).map(Bytes::from) }
    }

    /// The span between two bounds, as in `std::ops::RangeBounds`.
    pub fn from_bounds(lo: Bound<&[u8]>, hi: Bound<&[u8]>) -> Self {
        let after = |key: &[u8]| {
            let mut next = Vec::with_capacity(key.len() + 1);
            next.extend_from_slice(key);
            next.push(0);
            Bytes::from(next)
        };
        let lo = match lo {
            Bound::Included(key) => Bytes::copy_from_slice(key),
            Bound::Excluded(key) => after(key),
            Bound::Unbounded => Bytes::new(),
        };
        let hi = match hi {
            Bound::Included(key) => Some(after(key)),
            Bound::Excluded(key) => Some(Bytes::copy_from_slice(key)),
            Bound::Unbounded => None,
        };
        Self { lo, hi }
    }
}

/// The number of leading bytes that two keys share.
#[inline]
pub(crate) fn common_prefix_len(a: &[u8], b: &[u8]) -> usize {
    let limit = a.len().min(b.len());
    let (a, b) = (&a[..limit], &b[..limit]);
    let mut at = 0;
    while let (Some(x), Some(y)) = (a[at..].first_chunk::<8>(), b[at..].first_chunk::<8>()) {
        let differ = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differ != 0 {
            return at + differ.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while at < limit && a[at] == b[at] {
        at += 1;
    }
    at
}

/// The first eight bytes as a number that sorts like them. Missing bytes count as 0. So a short key
/// ties with keys that continue with zeros, and the caller must resolve ties by comparing the keys.
#[inline]
pub(crate) fn head(key: &[u8]) -> u64 {
    if let Some(bytes) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*bytes);
    }
    let mut padded = [0; 8];
    padded[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(padded)
}

/// The first key after all keys that start with `prefix`; `None` if there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xFF)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_span_ends_before_the_next_prefix() {
        assert_eq!(Span::prefix(b"ab").hi.as_deref(), Some(&b"ac"[..]));
        assert_eq!(Span::prefix(b"a\xFF").hi.as_deref(), Some(&b"b"[..]));
        assert_eq!(Span::prefix(b"\xFF\xFF").hi, None);
        assert_eq!(Span::prefix(b"").hi, None);
        assert!(Span::prefix(b"a\xFF").contains(b"a\xFF\xFF\xFF"));
        assert!(!Span::prefix(b"a\xFF").contains(b"b"));
    }

    #[test]
    fn bounds_longer_than_keys_are_shortened_and_mean_the_same() {
        let long = Bytes::from(vec![7; KEY_BYTES_MAX + 9]);
        let span = Span { lo: Bytes::new(), hi: Some(long.clone()) }.on_disk();
        assert_eq!(span.hi.as_ref().map(Bytes::len), Some(KEY_BYTES_MAX + 1));
        assert!(span.contains(&long[..KEY_BYTES_MAX]), "the longest key before it");
        let mut next = long[..KEY_BYTES_MAX].to_vec();
        next[KEY_BYTES_MAX - 1] += 1;
        assert!(!span.contains(&next));
        let span = Span { lo: long.clone(), hi: None }.on_disk();
        assert!(!span.contains(&long[..KEY_BYTES_MAX]) && span.contains(&next));
        let successor = Span { lo: long.slice(..=KEY_BYTES_MAX), hi: None };
        assert_eq!(successor.on_disk(), successor);
    }

    #[test]
    fn bounds_become_half_open() {
        let span = Span::from_bounds(Bound::Excluded(b"a"), Bound::Included(b"c"));
        assert!(!span.contains(b"a"));
        assert!(span.contains(b"a\0"));
        assert!(span.contains(b"c"));
        assert!(!span.contains(b"c\0"));
    }
}
