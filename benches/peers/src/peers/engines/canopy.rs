//! canopydb, a B+ tree with a log and checkpoints.
//!
//! Set, everything else being a default: `page_cache_size`; checkpoints from as much as one
//! memtable on (`checkpoint_target_size`), throttled and stalled from four on; a checkpoint when
//! it is closed (`checkpoint_db_on_drop`), as the others do; no compression of large values.
//!
//! *Buffered* is a commit that does not wait for its sync, the default; *synced* is `commit_with`.
//!
//! Each put is a transaction that opens the tree, and so is each get and each scan.

use super::{Engine, MEMTABLES, Setup, look_at};
use canopydb::{Database, DbOptions, EnvOptions, TreeOptions};
use sluicedb_bench_peers::Result;
use sluicedb_bench_peers::keys::Key;
use std::path::Path;
use std::sync::Arc;

const TREE: &[u8] = b"all";

#[derive(Clone)]
pub struct Canopy {
    db: Arc<Database>,
    synced: bool,
}

impl Engine for Canopy {
    async fn open(dir: &Path, setup: Setup) -> Result<Self> {
        let mut environment = EnvOptions::new(dir);
        environment.page_cache_size = setup.cache_bytes as usize;
        let mut options = DbOptions::new();
        options.checkpoint_target_size = setup.memtable_bytes as usize;
        options.throttle_memory_limit = (MEMTABLES * setup.memtable_bytes) as usize;
        options.stall_memory_limit = (MEMTABLES * setup.memtable_bytes) as usize;
        options.checkpoint_db_on_drop = true;
        let db = Database::with_options(environment, options)?;
        let txn = db.begin_write()?;
        let mut tree = TreeOptions::new();
        tree.compress_overflow_values = None;
        txn.get_or_create_tree_with(TREE, tree)?;
        txn.commit()?;
        Ok(Self { db: Arc::new(db), synced: setup.synced })
    }

    async fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        self.write(&[(*key, value)]).await
    }

    async fn write(&self, entries: &[(Key, &[u8])]) -> Result<()> {
        let txn = self.db.begin_write()?;
        {
            let mut tree = txn.get_or_create_tree(TREE)?;
            for (key, value) in entries {
                tree.insert(key, value)?;
            }
        }
        txn.commit_with(self.synced)?;
        Ok(())
    }

    async fn get(&self, key: &Key) -> Result<bool> {
        let txn = self.db.begin_read()?;
        let tree = txn.get_tree(TREE)?.ok_or("the tree is not there")?;
        let value = tree.get(key)?;
        Ok(value.inspect(|value| look_at(key, value)).is_some())
    }

    async fn scan(&self, from: &Key, limit: u64) -> Result<u64> {
        let txn = self.db.begin_read()?;
        let tree = txn.get_tree(TREE)?.ok_or("the tree is not there")?;
        let mut entries = 0;
        for entry in tree.range(from.as_slice()..)?.take(limit as usize) {
            let (key, value) = entry?;
            look_at(&key, &value);
            entries += 1;
        }
        Ok(entries)
    }

    async fn settle(&self) -> Result<()> {
        Ok(self.db.checkpoint()?)
    }

    async fn close(self) -> Result<()> {
        self.db.checkpoint()?;
        drop(Arc::into_inner(self.db).ok_or("a client still has a handle")?);
        Ok(())
    }
}
