//! Numbers that stand for keys where several cursors are compared.
//!
//! Keys that are near each other begin alike: `user:00123...`. So what they have in common, the
//! *front*, is left out, and the number is made of the eight bytes behind it. The keys move on, and
//! some leave the front behind. They are only slower to compare then: whatever the front is, a
//! lower number means a lower key.

use crate::key::{common_prefix_len, head};

/// So many of the common bytes stay in the number. Behind them the keys can go on for long before
/// they leave the front: for a thousand times their distance, if these are digits.
const COMMON_KEPT: usize = 3;

/// How numbers are made of keys.
#[derive(Debug, Default)]
pub(super) struct Heads {
    front: Vec<u8>,
}

impl Heads {
    /// The number of `key`. Of keys with different numbers, the one with the lower number is lower.
    /// Equal numbers say nothing.
    #[inline]
    pub(super) fn of(&self, key: &[u8]) -> u64 {
        if self.front.is_empty() {
            return head(key);
        }
        match key.split_at_checked(self.front.len()) {
            Some((front, rest)) if front == self.front => head(rest),
            _ if key < &self.front[..] => 0,
            _ => u64::MAX,
        }
    }

    /// Fits the front to `keys`. Returns whether it is another one; then old numbers mean nothing.
    pub(super) fn fit<'a>(&mut self, mut keys: impl Iterator<Item = &'a [u8]>) -> bool {
        let first = keys.next().unwrap_or_default();
        let common = keys.map(|key| common_prefix_len(first, key)).min().unwrap_or(0);
        let front = &first[..common.saturating_sub(COMMON_KEPT)];
        let fits = front == self.front;
        if !fits {
            self.front.clear();
            self.front.extend_from_slice(front);
        }
        !fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0), Just(7), Just(0xFF)], 0..14)
    }

    proptest! {
        /// Planted: keys before the front count as behind it; a key that ends within the front
        /// counts as inside.
        #[test]
        fn lower_numbers_are_lower_keys_whatever_the_front_is(
            fitted in proptest::collection::vec(key(), 0..4),
            front in key(),
            a in key(),
            b in key(),
        ) {
            let behind = |end: &[u8]| [&front[..], end].concat();
            let fitted: Vec<_> = fitted.iter().map(|end| behind(end)).collect();
            let mut heads = Heads::default();
            heads.fit(fitted.iter().map(|key| &key[..]));
            let pairs = [(a.clone(), b.clone()), (behind(&a), behind(&b)), (a, behind(&b))];
            for (a, b) in pairs {
                let by_number = heads.of(&a).cmp(&heads.of(&b));
                prop_assert!(by_number.is_eq() || by_number == a.cmp(&b), "{a:?} {b:?} {heads:?}");
            }
        }
    }

    #[test]
    fn keys_that_begin_alike_have_different_numbers() {
        let mut heads = Heads::default();
        let keys = [b"user:00123456:f3", b"user:00123457:f1", b"user:00123459:f0"];
        assert!(heads.fit(keys.iter().map(|key| &key[..])));
        assert!(!heads.fit(keys.iter().map(|key| &key[..])));
        let numbers = keys.map(|key| heads.of(key));
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert!(heads.of(b"user:00123999:f0") > numbers[2]);
    }
}
