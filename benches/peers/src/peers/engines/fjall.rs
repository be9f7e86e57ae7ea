//! fjall, an LSM tree.
//!
//! Set, everything else being a default: `cache_size`, `max_memtable_size`, no compression (feature
//! `lz4` is off, and journals are not compressed), `max_journaling_size` at four memtables and at
//! least its smallest, 64 MiB. It has no limit on how many memtables wait for a flush but that one.
//!
//! Defaults that matter: blocks of 4 KiB, a filter with a rate of 0.0001 in L0 and of 10 bits per
//! key below, two threads for flushes and compactions on two cores.
//!
//! *Buffered* is its default: a write is handed to the operating system. *Synced* is
//! `persist(PersistMode::SyncData)` after each write, which syncs for the caller alone.

use super::{Engine, MEMTABLES, Setup, look_at};
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use sluicedb_bench_peers::Result;
use sluicedb_bench_peers::keys::Key;
use std::path::Path;

const JOURNAL_BYTES_MIN: u64 = 64 << 20;

#[derive(Clone)]
pub struct Fjall {
    db: Database,
    keyspace: Keyspace,
    synced: bool,
}

impl Fjall {
    fn done(&self) -> Result<()> {
        if self.synced {
            self.db.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Engine for Fjall {
    async fn open(dir: &Path, setup: Setup) -> Result<Self> {
        let journal = (MEMTABLES * setup.memtable_bytes).max(JOURNAL_BYTES_MIN);
        let db = Database::builder(dir)
            .cache_size(setup.cache_bytes)
            .journal_compression(CompressionType::None)
            .max_journaling_size(journal)
            .open()?;
        let keyspace = db.keyspace("all", || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(setup.memtable_bytes)
                .data_block_compression_policy(CompressionPolicy::disabled())
        })?;
        Ok(Self { db, keyspace, synced: setup.synced })
    }

    async fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        self.keyspace.insert(key, value)?;
        self.done()
    }

    async fn write(&self, entries: &[(Key, &[u8])]) -> Result<()> {
        let mut batch = self.db.batch();
        for (key, value) in entries {
            batch.insert(&self.keyspace, key, *value);
        }
        batch.commit()?;
        self.done()
    }

    async fn get(&self, key: &Key) -> Result<bool> {
        let value = self.keyspace.get(key)?;
        Ok(value.inspect(|value| look_at(key, value)).is_some())
    }

    async fn scan(&self, from: &Key, limit: u64) -> Result<u64> {
        let mut entries = 0;
        for entry in self.keyspace.range(from.as_slice()..).take(limit as usize) {
            let (key, value) = entry.into_inner()?;
            look_at(&key, &value);
            entries += 1;
        }
        Ok(entries)
    }

    async fn settle(&self) -> Result<()> {
        Ok(self.keyspace.rotate_memtable_and_wait()?)
    }

    fn is_due(&self, _: bool) -> bool {
        self.db.outstanding_flushes() > 0 || self.db.active_compactions() > 0
    }

    async fn close(self) -> Result<()> {
        self.db.persist(PersistMode::SyncAll)?;
        Ok(())
    }
}
