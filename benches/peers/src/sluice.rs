//! SluiceDB.
//!
//! Set, everything else being a default: `cache_bytes`, `memtable_bytes`, four times that as
//! `write_buffer_bytes`, no compression at any level, `durability`.
//!
//! Defaults that matter: blocks of 4 KiB, a filter of 10 bits per key, indexes and filters inside
//! the cache; L0 is merged from 4 runs on and holds flushes up from 20; one flush at a time and, on
//! two cores, two compactions.

use crate::Result;
use crate::engine::{Engine, MEMTABLES, Setup, look_at};
use crate::keys::Key;
use sluicedb::{Compression, Db, Durability, Options, WriteBatch};
use std::path::Path;

/// The defaults, but for what every program sets: no compression, and buffered.
pub fn plain_options() -> Options {
    let mut options = Options::default();
    options.compression = Compression::None;
    options.l0_compression = Compression::None;
    options.durability = Durability::Buffered;
    options
}

#[derive(Clone, Debug)]
pub struct Sluice(pub Db);

impl Sluice {
    /// How it is set beside other engines.
    pub fn options(setup: Setup) -> Options {
        let mut options = plain_options();
        options.cache_bytes = Some(setup.cache_bytes);
        options.memtable_bytes = Some(setup.memtable_bytes);
        options.write_buffer_bytes = Some(MEMTABLES * setup.memtable_bytes);
        options.durability = if setup.synced { Durability::Synced } else { Durability::Buffered };
        options
    }

    /// Opens it with these options.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn open_with(dir: &Path, options: Options) -> Result<Self> {
        Ok(Self(Db::builder(dir).options(options).open().await?))
    }
}

impl Engine for Sluice {
    async fn open(dir: &Path, setup: Setup) -> Result<Self> {
        Self::open_with(dir, Self::options(setup)).await
    }

    async fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        self.0.put(key, value).await?;
        Ok(())
    }

    async fn write(&self, entries: &[(Key, &[u8])]) -> Result<()> {
        let mut batch = WriteBatch::new();
        for (key, value) in entries {
            batch.put(key, value);
        }
        self.0.write(batch).await?;
        Ok(())
    }

    async fn get(&self, key: &Key) -> Result<bool> {
        let value = self.0.get(key).await?;
        Ok(value.inspect(|value| look_at(key, value)).is_some())
    }

    async fn scan(&self, from: &Key, limit: u64) -> Result<u64> {
        let (mut scan, mut entries) = (self.0.scan(from.as_slice()..).limit(limit), 0);
        while let Some(batch) = scan.next_chunk().await? {
            for (key, value) in batch.iter() {
                look_at(key, value);
                entries += 1;
            }
        }
        Ok(entries)
    }

    async fn settle(&self) -> Result<()> {
        Ok(self.0.flush().await?)
    }

    fn is_due(&self, at_rest: bool) -> bool {
        let levels = self.0.level_info();
        levels.iter().any(|level| level.score >= 1.0 || (at_rest && level.rest_ms.is_some()))
    }

    async fn close(self) -> Result<()> {
        Ok(self.0.close().await?)
    }
}
