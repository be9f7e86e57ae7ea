//! Keyspaces: parts of a database that have keys of their own, under one log and one order of writes.
//!
//! A range belongs to one keyspace, so its tables do as well, and no key says whose it is: only what comes
//! before the route does (a batch, a span of a change). Every database has the default keyspace, which costs
//! no byte anywhere. The others have names.

use crate::error::Error;
use crate::key::Span;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The longest name of a keyspace, in bytes.
pub const KEYSPACE_NAME_BYTES_MAX: usize = 255;
/// What the default keyspace is called, where it has to be called something.
pub const DEFAULT_KEYSPACE: &str = "default";

/// A keyspace's number. No other one gets it while the database is open, and no log that names it outlives that.
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

/// The keyspaces that a database has beside the default one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyspaces {
    names: BTreeMap<KeyspaceId, Arc<str>>,
    /// The last one that came. Numbers rise.
    last: KeyspaceId,
}

impl Keyspaces {
    /// The number of the one with this name, the default one included.
    pub fn find(&self, name: &str) -> Option<KeyspaceId> {
        if name == DEFAULT_KEYSPACE {
            return Some(KeyspaceId::DEFAULT);
        }
        self.names.iter().find(|(_, other)| &***other == name).map(|(id, _)| *id)
    }

    /// Is it there?
    pub fn has(&self, id: KeyspaceId) -> bool {
        id.is_default() || self.names.contains_key(&id)
    }

    /// Was it there once?
    pub fn has_gone(&self, id: KeyspaceId) -> bool {
        id <= self.last && !self.has(id)
    }

    /// The name of the one with this number, the default one included.
    pub fn name(&self, id: KeyspaceId) -> Option<&str> {
        if id.is_default() {
            Some(DEFAULT_KEYSPACE)
        } else {
            self.names.get(&id).map(|name| &**name)
        }
    }

    /// All but the default one, by number.
    pub fn named(&self) -> impl Iterator<Item = (KeyspaceId, &Arc<str>)> {
        self.names.iter().map(|(id, name)| (*id, name))
    }

    /// Can nobody name another one than the default one?
    pub fn only_default(&self) -> bool {
        self.last.is_default()
    }

    /// Adds one; `false` if number or name are taken, or nothing can have them.
    #[must_use]
    pub fn add(&mut self, id: KeyspaceId, name: Arc<str>) -> bool {
        let is_free = check_name(&name).is_ok() && !self.has(id) && self.find(&name).is_none();
        if is_free {
            self.names.insert(id, name);
            self.last = self.last.max(id);
        }
        is_free
    }

    /// Drops one; `false` if it is not there, or is the default one.
    #[must_use]
    pub fn remove(&mut self, id: KeyspaceId) -> bool {
        self.names.remove(&id).is_some()
    }
}

/// What is told to who names a keyspace that is not there: it was, when he opened it.
#[cold]
pub fn no_keyspace() -> Error {
    Error::invalid("the keyspace has been dropped; open it again to have an empty one")
}

/// Says what is wrong with the name of a keyspace, if anything is.
pub fn check_name(name: &str) -> Result<(), String> {
    let bytes = name.len();
    if bytes == 0 || bytes > KEYSPACE_NAME_BYTES_MAX {
        return Err(format!(
            "the name of the keyspace has {bytes} bytes; names have 1 to {KEYSPACE_NAME_BYTES_MAX}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_given_once() {
        let mut keyspaces = Keyspaces::default();
        assert!(keyspaces.only_default());
        assert!(keyspaces.add(KeyspaceId(7), "index".into()));
        for (id, name) in [(7, "other"), (8, "index"), (8, "default"), (0, "other"), (8, "")] {
            assert!(!keyspaces.add(KeyspaceId(id), name.into()), "{id} {name}");
        }
        assert_eq!(keyspaces.find("index"), Some(KeyspaceId(7)));
        assert_eq!(keyspaces.find("default"), Some(KeyspaceId::DEFAULT));
        assert_eq!(keyspaces.name(KeyspaceId(7)), Some("index"));
        assert!(keyspaces.remove(KeyspaceId(7)) && !keyspaces.remove(KeyspaceId(7)));
        assert!(!keyspaces.remove(KeyspaceId::DEFAULT));
        assert!(!keyspaces.has(KeyspaceId(7)) && keyspaces.has(KeyspaceId::DEFAULT));
        assert!(keyspaces.has_gone(KeyspaceId(7)) && !keyspaces.has_gone(KeyspaceId(8)));
        assert!(!keyspaces.only_default(), "somebody may name it still");
    }
}
