//! Ranges of keys, in every notation that Rust has for them.

use crate::key::{Span, prefix_end};
use std::ops::{
    Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive,
};

/// An interval of keys, as scans and other methods take it: `..`, `a..b`, `a..`, `..b`, `a..=b`,
/// `..=b` or a pair of [`Bound`]s, over any type that is bytes; a reference to one of these; or
/// your own type that tells its bounds. An interval whose end is before its start contains nothing.
///
/// For another `R: RangeBounds<K>`, pass its two bounds: `(range.start_bound(),
/// range.end_bound())`.
///
/// # Examples
/// ```
/// # use sluicedb_storage::key_range::KeyRange;
/// use std::ops::Bound;
/// /// All events since a day.
/// struct Since([u8; 4]);
///
/// impl KeyRange for Since {
///     fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
///         (Bound::Included(&self.0), Bound::Unbounded)
///     }
/// }
/// ```
pub trait KeyRange {
    /// Its lower and its upper bound.
    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>);

    /// The same interval as a half-open span.
    #[doc(hidden)]
    fn span(&self) -> Span {
        let (lo, hi) = self.bounds();
        Span::from_bounds(lo, hi)
    }
}

impl<T: KeyRange + ?Sized> KeyRange for &T {
    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (**self).bounds()
    }

    fn span(&self) -> Span {
        (**self).span()
    }
}

impl KeyRange for RangeFull {
    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

#[doc(hidden)]
impl KeyRange for Span {
    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let hi = self.hi.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        (Bound::Included(&self.lo), hi)
    }

    fn span(&self) -> Span {
        self.clone()
    }
}

macro_rules! of_std {
    ($($range:ident),*) => {
        $(impl<K: AsRef<[u8]>> KeyRange for $range<K> {
            fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
                (self.start_bound().map(AsRef::as_ref), self.end_bound().map(AsRef::as_ref))
            }
        })*
    };
}

of_std!(Range, RangeFrom, RangeTo, RangeInclusive, RangeToInclusive);

impl<K: AsRef<[u8]>> KeyRange for (Bound<K>, Bound<K>) {
    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.0.as_ref().map(AsRef::as_ref), self.1.as_ref().map(AsRef::as_ref))
    }
}

/// The interval of all keys that begin with `prefix`, for every method that takes an interval.
///
/// # Examples
/// ```
/// # use sluicedb_storage::key_range::{KeyRange, prefix};
/// use std::ops::Bound;
/// let [first, end] = [b"user:", b"user;"].map(|key| key.to_vec());
/// assert_eq!(prefix("user:"), (Bound::Included(first), Bound::Excluded(end)));
/// // No key is after all that begin with these.
/// assert_eq!(prefix([255]), (Bound::Included(vec![255]), Bound::Unbounded));
/// ```
pub fn prefix(prefix: impl AsRef<[u8]>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let prefix = prefix.as_ref();
    let end = prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded);
    (Bound::Included(prefix.to_vec()), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_means_what_it_says() {
        assert_eq!((..).span(), Span::all());
        let half_open = ("a".."c").span();
        assert!(
            half_open.contains(b"a") && half_open.contains(b"b\xFF") && !half_open.contains(b"c")
        );
        let closed = ("a"..="c").span();
        assert!(closed.contains(b"c") && !closed.contains(b"c\0"));
        assert!(!(..vec![5_u8]).span().contains(&[5]));
        assert!((..=[5_u8]).span().contains(&[5]));
        assert!((String::from("b")..).span().contains(b"b"));
        let excluded = (Bound::Excluded("a"), Bound::<&str>::Unbounded).span();
        assert!(!excluded.contains(b"a") && excluded.contains(b"a\0"));
        assert!(("c".."a").span().is_empty());
        let of = |range: &dyn KeyRange| range.span();
        assert_eq!(of(&&("a".."c")), half_open, "a reference is one, too");
        assert_eq!(half_open.span(), half_open);
        assert_eq!(
            ((..).bounds(), (..).span()),
            ((Bound::Unbounded, Bound::Unbounded), Span::all())
        );
        fn of_any(range: impl RangeBounds<String>) -> Span {
            (range.start_bound(), range.end_bound()).span()
        }
        assert_eq!(of_any(String::from("a")..String::from("c")), half_open);
    }
}
