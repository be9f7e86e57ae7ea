//! Which operations of the log were excised by a later change, and are not replayed.

use crate::key::Seqno;
use crate::keyspace::{KeyspaceId, KeyspaceSpan};
use std::collections::BTreeMap;

/// INVARIANT(mask-covers-replay): entries of these spans with lower sequence numbers are excised.
///
/// A change may have thousands of spans, and each operation is looked up. So the spans of a change
/// are in order and do not touch, and a look-up is a binary search for each change that came later.
#[derive(Debug, Default)]
pub(super) struct Masks(
    /// By the number of the change, the latest first.
    Vec<(Seqno, Vec<KeyspaceSpan>)>,
);

impl Masks {
    pub(super) fn new(masks: Vec<(KeyspaceSpan, Seqno)>) -> Self {
        let mut changes: BTreeMap<Seqno, Vec<KeyspaceSpan>> = BTreeMap::new();
        for (span, seqno) in masks {
            changes.entry(seqno).or_default().push(span);
        }
        let united = |(seqno, spans)| (seqno, KeyspaceSpan::united(spans));
        Self(changes.into_iter().rev().map(united).collect())
    }

    /// Is the operation `seqno` on `key` excised?
    #[inline]
    pub(super) fn hide(&self, keyspace: KeyspaceId, key: &[u8], seqno: Seqno) -> bool {
        self.0.iter().take_while(|(at, _)| seqno < *at).any(|(_, spans)| {
            let begins = |one: &KeyspaceSpan| (one.keyspace, &one.span.lo[..]) <= (keyspace, key);
            let before = spans.partition_point(begins).checked_sub(1);
            before.is_some_and(|at| spans[at].contains(keyspace, key))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Span;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn span() -> impl Strategy<Value = KeyspaceSpan> {
        let bound = || (0_u8..20).prop_map(|byte| Bytes::from(vec![byte]));
        (0_u32..3, bound(), proptest::option::of(bound())).prop_map(|(keyspace, lo, hi)| {
            KeyspaceSpan { keyspace: KeyspaceId(keyspace), span: Span { lo, hi } }
        })
    }

    proptest! {
        /// Planted: `<` for `<=` in the search; only the latest change is looked at.
        #[test]
        fn mask_covers_replay_whatever_the_spans_are(
            masks in proptest::collection::vec((span(), 1_u64..6), 0..30),
            keyspace in 0_u32..3,
            key in 0_u8..21,
            seqno in 0_u64..7,
        ) {
            let masks: Vec<_> = masks.into_iter().map(|(span, at)| (span, Seqno(at))).collect();
            let (keyspace, key, seqno) = (KeyspaceId(keyspace), [key], Seqno(seqno));
            let hidden =
                masks.iter().any(|(span, at)| seqno < *at && span.contains(keyspace, &key));
            prop_assert_eq!(Masks::new(masks).hide(keyspace, &key, seqno), hidden);
        }
    }
}
