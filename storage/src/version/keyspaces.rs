//! The keyspaces of a database: their names, and the options in which they differ from it.

use super::check::Conflict;
use super::{KeyspaceOptions, VersionEdit};
use crate::keyspace::KeyspaceId;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// The longest name of a keyspace, in bytes.
pub(super) const KEYSPACE_NAME_BYTES_MAX: usize = 255;
/// The name of the default keyspace in messages and interfaces.
pub const DEFAULT_KEYSPACE: &str = "default";

/// A named keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyspace {
    /// The name.
    pub name: Box<str>,
    /// The options in which it differs from the database.
    pub options: Arc<KeyspaceOptions>,
}

/// All keyspaces of a database except the default one, which always exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyspaces {
    named: BTreeMap<KeyspaceId, Keyspace>,
    /// The largest number set so far. Numbers only rise.
    last: KeyspaceId,
}

impl Keyspaces {
    /// The keyspaces after `edit`.
    pub(super) fn after(&self, edit: &VersionEdit) -> Result<Self, Conflict> {
        let mut next = self.clone();
        for id in &edit.keyspaces_removed {
            if !next.remove(*id) {
                let what = format!("keyspace {id} is not there to be removed");
                return Err(Conflict::new("ranges-cover-everything", what));
            }
        }
        for (id, keyspace) in &edit.keyspaces_set {
            if !next.set(*id, keyspace.clone()) {
                let what = format!("keyspace {id} cannot be called {:?}", keyspace.name);
                return Err(Conflict::new("ranges-cover-everything", what));
            }
        }
        Ok(next)
    }

    /// The number of the keyspace with this name; also finds the default one.
    pub fn find(&self, name: &str) -> Option<KeyspaceId> {
        if name == DEFAULT_KEYSPACE {
            return Some(KeyspaceId::DEFAULT);
        }
        self.named.iter().find(|(_, other)| &*other.name == name).map(|(id, _)| *id)
    }

    /// Does this keyspace exist?
    pub fn has(&self, id: KeyspaceId) -> bool {
        id.is_default() || self.named.contains_key(&id)
    }

    /// Was this keyspace dropped? Every number up to the largest one counts as given.
    pub fn has_gone(&self, id: KeyspaceId) -> bool {
        id <= self.last && !self.has(id)
    }

    /// The name of the keyspace with this number; also of the default one.
    pub fn name(&self, id: KeyspaceId) -> Option<&str> {
        if id.is_default() {
            Some(DEFAULT_KEYSPACE)
        } else {
            self.named.get(&id).map(|of| &*of.name)
        }
    }

    /// The options in which the keyspace differs from the database; empty for the default one.
    pub fn options(&self, id: KeyspaceId) -> &Arc<KeyspaceOptions> {
        static NONE: LazyLock<Arc<KeyspaceOptions>> = LazyLock::new(Arc::default);
        self.named.get(&id).map_or(&NONE, |of| &of.options)
    }

    /// All keyspaces except the default one, by number.
    pub fn named(&self) -> impl Iterator<Item = (KeyspaceId, &Keyspace)> {
        self.named.iter().map(|(id, keyspace)| (*id, keyspace))
    }

    /// Can no caller hold a number but the default one? True until a named keyspace is first set.
    pub fn only_default(&self) -> bool {
        self.last.is_default()
    }

    /// Adds a keyspace, or replaces the options of the one with this number and name. Returns
    /// `false` if the number or the name is taken, or if the name is not valid.
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

    /// Drops a keyspace; `false` if it does not exist or is the default one.
    #[must_use]
    pub fn remove(&mut self, id: KeyspaceId) -> bool {
        self.named.remove(&id).is_some()
    }
}

/// Checks the length of a keyspace name. The error is a message for the user.
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
