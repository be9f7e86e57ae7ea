//! Ranges of keys, in every notation Rust has for them.

use crate::key::Span;
use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// An interval of keys, as scans and whatever else is about one take it: `..`, `a..b`, `a..`,
/// `..b`, `a..=b`, `..=b` or a pair of [`Bound`]s, over anything that is bytes. An interval that is
/// empty or upside down holds nothing.
pub trait KeyRange {
    /// The same interval, half-open.
    #[doc(hidden)]
    fn span(&self) -> Span;
}

impl KeyRange for RangeFull {
    fn span(&self) -> Span {
        Span::all()
    }
}

#[doc(hidden)]
impl KeyRange for Span {
    fn span(&self) -> Span {
        self.clone()
    }
}

fn span<K: AsRef<[u8]>>(lo: Bound<&K>, hi: Bound<&K>) -> Span {
    Span::from_bounds(lo.map(AsRef::as_ref), hi.map(AsRef::as_ref))
}

impl<K: AsRef<[u8]>> KeyRange for Range<K> {
    fn span(&self) -> Span {
        span(Bound::Included(&self.start), Bound::Excluded(&self.end))
    }
}

impl<K: AsRef<[u8]>> KeyRange for RangeFrom<K> {
    fn span(&self) -> Span {
        span(Bound::Included(&self.start), Bound::Unbounded)
    }
}

impl<K: AsRef<[u8]>> KeyRange for RangeTo<K> {
    fn span(&self) -> Span {
        span(Bound::Unbounded, Bound::Excluded(&self.end))
    }
}

impl<K: AsRef<[u8]>> KeyRange for RangeInclusive<K> {
    fn span(&self) -> Span {
        span(Bound::Included(self.start()), Bound::Included(self.end()))
    }
}

impl<K: AsRef<[u8]>> KeyRange for RangeToInclusive<K> {
    fn span(&self) -> Span {
        span(Bound::Unbounded, Bound::Included(&self.end))
    }
}

impl<K: AsRef<[u8]>> KeyRange for (Bound<K>, Bound<K>) {
    fn span(&self) -> Span {
        span(self.0.as_ref(), self.1.as_ref())
    }
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
    }
}
