//! redb, a copy-on-write B+ tree in one file.
//!
//! Set, everything else being a default: `cache_size`, which is for reads and writes, at cache and
//! write buffers together.
//!
//! *Buffered* is `Durability::None`. That is less than the others give: what was committed so is
//! gone when the process ends without a commit of the other kind. It has nothing between. *Synced*
//! is `Durability::Immediate`, the default.
//!
//! Each put is a transaction that opens the table, and so is each get and each scan.

use super::{Engine, Setup, look_at};
use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use sluicedb_bench_peers::Result;
use sluicedb_bench_peers::keys::Key;
use std::path::Path;
use std::sync::Arc;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("all");

#[derive(Clone)]
pub struct Redb {
    db: Arc<Database>,
    durability: Durability,
}

impl Redb {
    fn commit(&self, durability: Durability, entries: &[(Key, &[u8])]) -> Result<()> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(durability)?;
        {
            let mut table = txn.open_table(TABLE)?;
            for (key, value) in entries {
                table.insert(key.as_slice(), *value)?;
            }
        }
        Ok(txn.commit()?)
    }
}

impl Engine for Redb {
    async fn open(dir: &Path, setup: Setup) -> Result<Self> {
        let db = Database::builder()
            .set_cache_size(setup.memory_bytes() as usize)
            .create(dir.join("all.redb"))?;
        let durability = if setup.synced { Durability::Immediate } else { Durability::None };
        let engine = Self { db: Arc::new(db), durability };
        // The table is there from now on.
        engine.commit(Durability::Immediate, &[])?;
        Ok(engine)
    }

    async fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        self.commit(self.durability, &[(*key, value)])
    }

    async fn write(&self, entries: &[(Key, &[u8])]) -> Result<()> {
        self.commit(self.durability, entries)
    }

    async fn get(&self, key: &Key) -> Result<bool> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        let value = table.get(key.as_slice())?;
        Ok(value.inspect(|value| look_at(key, value.value())).is_some())
    }

    async fn scan(&self, from: &Key, limit: u64) -> Result<u64> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        let mut entries = 0;
        for entry in table.range(from.as_slice()..)?.take(limit as usize) {
            let (key, value) = entry?;
            look_at(key.value(), value.value());
            entries += 1;
        }
        Ok(entries)
    }

    async fn settle(&self) -> Result<()> {
        self.commit(Durability::Immediate, &[])
    }

    async fn close(self) -> Result<()> {
        self.commit(Durability::Immediate, &[])?;
        let db = Arc::into_inner(self.db).ok_or("a client still has a handle")?;
        Ok(db.close()?)
    }
}
