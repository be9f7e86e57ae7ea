//! The keyspaces of a database: their names, and what each does in another way than the database.

use super::KeyspaceOptions;
use crate::keyspace::KeyspaceId;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// The longest name of a keyspace, in bytes.
pub(super) const KEYSPACE_NAME_BYTES_MAX: usize = 255;
/// What the default keyspace is called, where it has to be called something.
pub const DEFAULT_KEYSPACE: &str = "default";

/// A keyspace that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyspace {
    /// The name.
    pub name: Box<str>,
    /// What it does in another way.
    pub options: Arc<KeyspaceOptions>,
}

/// The keyspaces that a database has beside the default one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyspaces {
    named: BTreeMap<KeyspaceId, Keyspace>,
    /// The last one that came. Numbers rise.
    last: KeyspaceId,
}

impl Keyspaces {
    /// The number of the one with this name, the default one included.
    pub fn find(&self, name: &str) -> Option<KeyspaceId> {
        if name == DEFAULT_KEYSPACE {
            return Some(KeyspaceId::DEFAULT);
        }
        self.named.iter().find(|(_, other)| &*other.name == name).map(|(id, _)| *id)
    }

    /// Is it there?
    pub fn has(&self, id: KeyspaceId) -> bool {
        id.is_default() || self.named.contains_key(&id)
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
            self.named.get(&id).map(|of| &*of.name)
        }
    }

    /// What this one does in another way than the database; the default one does nothing so.
    pub fn options(&self, id: KeyspaceId) -> &Arc<KeyspaceOptions> {
        static NONE: LazyLock<Arc<KeyspaceOptions>> = LazyLock::new(Arc::default);
        self.named.get(&id).map_or(&NONE, |of| &of.options)
    }

    /// All but the default one, by number.
    pub fn named(&self) -> impl Iterator<Item = (KeyspaceId, &Keyspace)> {
        self.named.iter().map(|(id, keyspace)| (*id, keyspace))
    }

    /// Can nobody name another one than the default one?
    pub fn only_default(&self) -> bool {
        self.last.is_default()
    }

    /// Adds one, or gives the one of this number and name other options; `false` if number or name
    /// are taken, or nothing can have them.
    #[must_use]
    pub fn set(&mut self, id: KeyspaceId, keyspace: Keyspace) -> bool {
        let found = self.find(&keyspace.name);
        let is_free = found.is_none() && !self.has(id) || found == Some(id) && !id.is_default();
        let may_be = is_free && check_name(&keyspace.name).is_ok();
        if may_be {
            self.named.insert(id, keyspace);
            self.last = self.last.max(id);
        }
        may_be
    }

    /// Drops one; `false` if it is not there, or is the default one.
    #[must_use]
    pub fn remove(&mut self, id: KeyspaceId) -> bool {
        self.named.remove(&id).is_some()
    }
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
        let called = |name: &str| Keyspace { name: name.into(), options: Arc::default() };
        let mut keyspaces = Keyspaces::default();
        assert!(keyspaces.only_default());
        assert!(keyspaces.set(KeyspaceId(7), called("index")));
        for (id, name) in [(7, "other"), (8, "index"), (8, "default"), (0, "other"), (0, "default")]
        {
            assert!(!keyspaces.set(KeyspaceId(id), called(name)), "{id} {name}");
        }
        assert!(!keyspaces.set(KeyspaceId(8), called("")));
        assert_eq!(keyspaces.find("index"), Some(KeyspaceId(7)));
        assert_eq!(keyspaces.find("default"), Some(KeyspaceId::DEFAULT));
        assert_eq!(keyspaces.name(KeyspaceId(7)), Some("index"));
        let options = Arc::new(KeyspaceOptions { shards: Some(2), ..KeyspaceOptions::default() });
        let other = Keyspace { options: Arc::clone(&options), ..called("index") };
        assert!(keyspaces.set(KeyspaceId(7), other));
        assert_eq!(*keyspaces.options(KeyspaceId(7)), options);
        assert!(keyspaces.remove(KeyspaceId(7)) && !keyspaces.remove(KeyspaceId(7)));
        assert!(!keyspaces.remove(KeyspaceId::DEFAULT));
        assert!(!keyspaces.has(KeyspaceId(7)) && keyspaces.has(KeyspaceId::DEFAULT));
        assert!(keyspaces.has_gone(KeyspaceId(7)) && !keyspaces.has_gone(KeyspaceId(8)));
        assert!(!keyspaces.only_default(), "somebody may name it still");
    }
}
