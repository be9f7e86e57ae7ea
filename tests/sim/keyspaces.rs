//! A second keyspace in a history: keys that begin with `@` are in it, and all others in the
//! default one. So the content of both together is one map, and every rule about a history holds
//! for it unchanged.

use crate::history::{Driver, Step};
use crate::kit::disk::content;
use crate::kit::oracle::{Change, Map};
use sluicedb::{Db, Durability, Error, WriteBatch};

const OTHER: &str = "other";

/// Is this key in the second keyspace?
pub fn is_other(key: &[u8]) -> bool {
    key.starts_with(b"@")
}

/// Moves every second hot key there.
pub fn part(steps: &mut [Step]) {
    let move_key = |change: &mut Change| {
        let (Change::Put(key, _) | Change::Delete(key)) = change;
        if key.starts_with(b"hot/") && key.last().is_some_and(|last| last % 2 == 1) {
            *key = [b"@", &key[..]].concat();
        }
    };
    for step in steps {
        match step {
            Step::Write(changes, _) | Step::Submit(changes, _) => {
                changes.iter_mut().for_each(move_key);
            }
            Step::Split(at) if at.last().is_some_and(|last| last % 2 == 1) => {
                *at = [b"@", &at[..]].concat();
            }
            _ => {}
        }
    }
}

/// The content of both keyspaces.
pub async fn whole(db: &Db) -> Result<Map, Error> {
    let mut whole = content(db).await?;
    if db.keyspaces().iter().any(|name| name == OTHER) {
        whole.extend(content(&db.keyspace(OTHER).await?).await?);
    }
    Ok(whole)
}

impl Driver {
    /// The second keyspace, created if it does not exist.
    pub fn other(&self, db: &Db) -> Result<Db, Error> {
        self.simulator.run(db.keyspace(OTHER))
    }

    /// A handle of the keyspace that has `key`.
    pub fn home_of(&self, db: &Db, key: &[u8]) -> Result<Db, Error> {
        if is_other(key) { self.other(db) } else { Ok(db.clone()) }
    }

    /// `changes` as a batch.
    pub fn batch(&self, db: &Db, changes: &[Change]) -> Result<WriteBatch, Error> {
        let any_other = changes.iter().any(|change| is_other(change.key()));
        let other = if any_other { self.other(db)? } else { db.clone() };
        let mut batch = WriteBatch::new();
        for change in changes {
            let of = if is_other(change.key()) { &other } else { db };
            match change {
                Change::Put(key, value) => batch.put_in(of, key, value),
                Change::Delete(key) => batch.delete_in(of, key),
            };
        }
        Ok(batch)
    }

    /// Merges all tables of both.
    pub fn compact(&self, db: &Db) -> Result<(), Error> {
        self.simulator.run(async {
            for name in db.keyspaces() {
                db.keyspace(name).await?.compact().await?;
            }
            Ok(())
        })
    }

    /// Drops the second keyspace. This counts as a batch that deletes all keys that were ever put
    /// into it.
    pub fn drop_other(&self, db: &Db) {
        let number = self.history.begin_drop(is_other);
        match self.simulator.run(db.drop_keyspace(OTHER)) {
            Ok(dropped) => {
                self.history.dropped(dropped);
                // Without a keyspace to drop there is nothing to sync.
                let level = if dropped { Durability::Synced } else { Durability::Buffered };
                self.history.end(number, level, Ok(()));
            }
            Err(error) => {
                let happened = !db.keyspaces().iter().any(|name| name == OTHER);
                self.history.end_badly(number, error, happened);
            }
        }
    }
}
