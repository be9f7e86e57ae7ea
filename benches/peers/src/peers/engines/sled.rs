//! sled 1.0 alpha: a tree in memory whose nodes are written to slabs.
//!
//! Set, everything else being a default: `cache_capacity_bytes`, which is for reads and writes, at
//! cache and write buffers together; `zstd_compression_level` 1. It always compresses, and 3 is
//! the default.
//!
//! *Buffered* is its default: a thread flushes every 200 ms. That is less than the others give:
//! what was written since is gone when the process ends. *Synced* is a `flush` after each write.
//!
//! A handle may be sent to another thread, not shared by two. So each client has one of its own,
//! in a mutex that nobody else locks.

use super::{Engine, Setup, look_at};
use sled::{Batch, Config, Db};
use sluicedb_bench_peers::Result;
use sluicedb_bench_peers::keys::Key;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub struct Sled {
    db: Mutex<Db>,
    synced: bool,
}

impl Sled {
    fn db(&self) -> MutexGuard<'_, Db> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for Sled {
    fn clone(&self) -> Self {
        Self { db: Mutex::new(self.db().clone()), synced: self.synced }
    }
}

impl Engine for Sled {
    async fn open(dir: &Path, setup: Setup) -> Result<Self> {
        let config = Config::new()
            .path(dir)
            .cache_capacity_bytes(setup.memory_bytes() as usize)
            .zstd_compression_level(1);
        Ok(Self { db: Mutex::new(config.open()?), synced: setup.synced })
    }

    async fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        let db = self.db();
        db.insert(key, value)?;
        if self.synced {
            db.flush()?;
        }
        Ok(())
    }

    async fn write(&self, entries: &[(Key, &[u8])]) -> Result<()> {
        let mut batch = Batch::default();
        for (key, value) in entries {
            batch.insert(key, *value);
        }
        self.db().apply_batch(batch)?;
        if self.synced {
            self.settle().await?;
        }
        Ok(())
    }

    async fn get(&self, key: &Key) -> Result<bool> {
        let value = self.db().get(key)?;
        Ok(value.inspect(|value| look_at(key, value)).is_some())
    }

    async fn scan(&self, from: &Key, limit: u64) -> Result<u64> {
        let mut entries = 0;
        for entry in self.db().range(from.as_slice()..).take(limit as usize) {
            let (key, value) = entry?;
            look_at(&key, &value);
            entries += 1;
        }
        Ok(entries)
    }

    async fn settle(&self) -> Result<()> {
        self.db().flush()?;
        Ok(())
    }

    async fn close(self) -> Result<()> {
        self.settle().await
    }
}
