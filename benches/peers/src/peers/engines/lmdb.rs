//! LMDB, by heed: a copy-on-write B+ tree in one mapped file.
//!
//! Set, everything else being a default: a map of 64 GiB, 1024 readers, read transactions that are
//! not bound to threads. It has no cache of its own: what it reads is the page cache of the system,
//! all of it. So no limit of memory holds for it here, which favours it where the others get less
//! cache than data.
//!
//! *Buffered* is `NO_SYNC`: pages are written with `pwrite` at each commit and survive the process,
//! but a power cut may damage the file, which none of the others risks. *Synced* is the default.
//!
//! Each put is a transaction, and so is each get and each scan. Values are lent from the map.

use super::{Engine, Setup, look_at};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, WithoutTls};
use sluicedb_bench_peers::Result;
use sluicedb_bench_peers::keys::Key;
use std::ops::Bound;
use std::path::Path;

const MAP_BYTES: usize = 64 << 30;

#[derive(Clone)]
pub struct Lmdb {
    env: Env<WithoutTls>,
    database: Database<'static, Bytes, Bytes>,
}

impl Engine for Lmdb {
    async fn open(dir: &Path, setup: Setup) -> Result<Self> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_BYTES).max_readers(1024);
        let flags = if setup.synced { EnvFlags::empty() } else { EnvFlags::NO_SYNC };
        // SAFETY: of these flags none but the durability of what is written depends on.
        unsafe { options.flags(flags) };
        // SAFETY: the directory is this process's own, and nothing else opens or changes the file.
        let env = unsafe { options.open(dir)? };
        let txn = env.write_txn()?;
        let created = env.create_databases_and_commit(txn, |opener, txn| {
            let database = opener.create_database(txn, None)?;
            Result::Ok(CommitOrAbort::<_, ()>::Commit(database))
        })?;
        let database = created.commit();
        Ok(Self { database: database.ok_or("it was not created")?, env })
    }

    async fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        self.database.put(&mut txn, key, value)?;
        Ok(txn.commit()?)
    }

    async fn write(&self, entries: &[(Key, &[u8])]) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        for (key, value) in entries {
            self.database.put(&mut txn, key, value)?;
        }
        Ok(txn.commit()?)
    }

    async fn get(&self, key: &Key) -> Result<bool> {
        let txn = self.env.read_txn()?;
        let value = self.database.get(&txn, key)?;
        Ok(value.inspect(|value| look_at(key, value)).is_some())
    }

    async fn scan(&self, from: &Key, limit: u64) -> Result<u64> {
        let txn = self.env.read_txn()?;
        let range = (Bound::Included(from.as_slice()), Bound::Unbounded);
        let mut entries = 0;
        for entry in self.database.range(&txn, &range)?.take(limit as usize) {
            let (key, value) = entry?;
            look_at(key, value);
            entries += 1;
        }
        Ok(entries)
    }

    async fn settle(&self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    async fn close(self) -> Result<()> {
        self.env.force_sync()?;
        self.env.prepare_for_closing();
        Ok(())
    }
}
