//! Keyspaces: parts of a database with keys of their own, under one log and one order of writes.
//!
//! A range belongs to one keyspace, and so do its tables. No key says to which keyspace it belongs;
//! only what is not routed yet does: a batch, and the spans of a change. Every database has the
//! default keyspace, which costs no byte anywhere. The others have names.

use crate::error::Error;
use crate::key::Span;
use std::collections::BTreeMap;
use std::fmt;

/// A keyspace's number. No other one gets it while the database is open, and no log that names it
/// outlives that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceId(pub u32);

impl KeyspaceId {
    /// The keyspace that is always there.
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

/// Keys of one keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyspaceSpan {
    /// Whose keys.
    pub keyspace: KeyspaceId,
    /// Which.
    pub span: Span,
}

impl KeyspaceSpan {
    /// Keys of the default keyspace.
    pub fn of_default(span: Span) -> Self {
        Self { keyspace: KeyspaceId::DEFAULT, span }
    }

    /// Is `key` of `keyspace` in it?
    pub fn contains(&self, keyspace: KeyspaceId, key: &[u8]) -> bool {
        self.keyspace == keyspace && self.span.contains(key)
    }

    /// The same keys in spans that are in order, by keyspace and key, and do not touch.
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

    /// Those of `spans`, which are in order, that are of `keyspace`.
    pub fn of(spans: &[Self], keyspace: KeyspaceId) -> Vec<Span> {
        let theirs = spans.iter().filter(|one| one.keyspace == keyspace);
        theirs.map(|one| one.span.clone()).collect()
    }
}

/// What is told to who names a keyspace that is not there: it was, when he opened it.
#[cold]
pub fn no_keyspace() -> Error {
    Error::invalid("the keyspace has been dropped; open it again to have an empty one")
}
