//! Keyspaces: parts of a database with their own keys, under one log and one order of writes.
//!
//! A range belongs to one keyspace, and so do its tables. Keys do not say to which keyspace they
//! belong. Only data that is not routed yet does: a batch, and the spans of a change. Every
//! database has the default keyspace, which costs no byte anywhere. The others have names.

use crate::error::Error;
use crate::key::Span;
use std::collections::BTreeMap;
use std::fmt;

/// The number of a keyspace. No other keyspace gets it while the database is open, or while a log
/// names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceId(pub u32);

impl KeyspaceId {
    /// The keyspace that always exists.
    pub const DEFAULT: Self = Self(0);

    /// Is it the default one?
    #[inline]
    pub fn is_default(self) -> bool {
        self == Self::DEFAULT
    }
}

impl fmt::Display for KeyspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A span of keys of one keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyspaceSpan {
    /// The keyspace of the keys.
    pub keyspace: KeyspaceId,
    /// The keys.
    pub span: Span,
}

impl KeyspaceSpan {
    /// A span of keys of the default keyspace.
    pub fn of_default(span: Span) -> Self {
        Self { keyspace: KeyspaceId::DEFAULT, span }
    }

    /// Does it contain `key` of `keyspace`?
    pub fn contains(&self, keyspace: KeyspaceId, key: &[u8]) -> bool {
        self.keyspace == keyspace && self.span.contains(key)
    }

    /// The union of `spans`, in order by keyspace and key, as spans that do not touch.
    pub fn united(spans: Vec<Self>) -> Vec<Self> {
        let mut by: BTreeMap<KeyspaceId, Vec<Span>> = BTreeMap::new();
        for Self { keyspace, span } in spans {
            by.entry(keyspace).or_default().push(span);
        }
        let united = by.into_iter().flat_map(|(keyspace, spans)| {
            Span::united(spans).into_iter().map(move |span| Self { keyspace, span })
        });
        united.collect()
    }

    /// The spans of `keyspace` among `spans`, in their order.
    pub fn of(spans: &[Self], keyspace: KeyspaceId) -> Vec<Span> {
        let theirs = spans.iter().filter(|one| one.keyspace == keyspace);
        theirs.map(|one| one.span.clone()).collect()
    }
}

/// The error for a caller whose handle names a keyspace that does not exist any more.
#[cold]
pub fn no_keyspace() -> Error {
    Error::invalid("the keyspace has been dropped; open it again to have an empty one")
}
