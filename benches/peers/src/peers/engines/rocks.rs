//! RocksDB, an LSM tree.
//!
//! Set beside what `rocks.rs` of this package sets for both programs: four memtables, everything
//! else being a default. `write_buffer_size` and the size of the cache are as for the others.
//!
//! Defaults that matter: L0 is merged from 4 tables on, slows writers down from 20 and stops them
//! at 36; L1 has 256 MiB, but with `level_compaction_dynamic_level_bytes` the last level decides.
//!
//! *Buffered* is `WriteOptions::sync` false, the default; *synced* is true. It groups writers that
//! wait at the same time, but a caller's thread is blocked meanwhile: on two threads there are
//! two.

use super::{Engine, MEMTABLES, Setup, look_at};
use rocksdb::{DB, WaitForCompactOptions, WriteBatch, WriteOptions};
use sluicedb_bench_peers::Result;
use sluicedb_bench_peers::keys::Key;
use sluicedb_bench_peers::rocks::{Sizes, options};
use std::path::Path;
use std::sync::Arc;

#[derive(Clone)]
pub struct Rocks(Arc<Open>);

struct Open {
    db: DB,
    write: WriteOptions,
}

impl Engine for Rocks {
    async fn open(dir: &Path, setup: Setup) -> Result<Self> {
        let Setup { cache_bytes, memtable_bytes, synced } = setup;
        let options = options(Sizes { memtable_bytes, memtables: MEMTABLES, cache_bytes });
        let mut write = WriteOptions::default();
        write.set_sync(synced);
        Ok(Self(Arc::new(Open { db: DB::open(&options, dir)?, write })))
    }

    async fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        Ok(self.0.db.put_opt(key, value, &self.0.write)?)
    }

    async fn write(&self, entries: &[(Key, &[u8])]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in entries {
            batch.put(key, value);
        }
        Ok(self.0.db.write_opt(batch, &self.0.write)?)
    }

    async fn get(&self, key: &Key) -> Result<bool> {
        let value = self.0.db.get_pinned(key)?;
        Ok(value.inspect(|value| look_at(key, value)).is_some())
    }

    async fn scan(&self, from: &Key, limit: u64) -> Result<u64> {
        let mut scan = self.0.db.raw_iterator();
        scan.seek(from);
        let mut entries = 0;
        while let Some((key, value)) = scan.item() {
            look_at(key, value);
            entries += 1;
            if entries == limit {
                break;
            }
            scan.next();
        }
        scan.status()?;
        Ok(entries)
    }

    async fn settle(&self) -> Result<()> {
        let mut wait = WaitForCompactOptions::default();
        wait.set_flush(true);
        Ok(self.0.db.wait_for_compact(&wait)?)
    }

    async fn close(self) -> Result<()> {
        drop(Arc::into_inner(self.0).ok_or("a client still has a handle")?);
        Ok(())
    }
}
