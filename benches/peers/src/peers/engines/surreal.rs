//! SurrealKV, an LSM tree with an asynchronous commit.
//!
//! Set, everything else being a default: `block_cache_capacity`, `max_memtable_size`, stalls from
//! three sealed memtables on (one more is written to, so there are four), blocks of 4 KiB instead
//! of 64 KiB, no compression, no value log. Its memtable size counts keys and structure, not
//! values: so it gets more memory than the others.
//!
//! Defaults that matter: a filter of 10 bits per key, L0 is merged from 4 tables on.
//!
//! *Buffered* is `Durability::Eventual`, the default; *synced* is `Durability::Immediate`. Its own
//! synced commits are grouped, and awaited.
//!
//! Each put is a write-only transaction, each get and scan a read-only one. Writers of the same
//! key may conflict; then the transaction is done again.

use super::{Engine, MEMTABLES, Setup, look_at};
use sluicedb_bench_peers::Result;
use sluicedb_bench_peers::keys::Key;
use std::path::Path;
use std::sync::Arc;
use surrealkv::{
    CompactRangeOptions, Durability, Error, LSMIterator, Mode, Options, Tree, TreeBuilder,
};

#[derive(Clone)]
pub struct Surreal {
    tree: Arc<Tree>,
    durability: Durability,
}

impl Engine for Surreal {
    async fn open(dir: &Path, setup: Setup) -> Result<Self> {
        let mut options = Options::new()
            .with_path(dir.to_owned())
            .with_block_size(4096)
            .with_block_cache_capacity(setup.cache_bytes)
            .with_max_memtable_size(setup.memtable_bytes as usize)
            .without_compression();
        options.memtable_stall_threshold = MEMTABLES as usize - 1;
        let tree = TreeBuilder::with_options(options).build_async().await?;
        let durability = if setup.synced { Durability::Immediate } else { Durability::Eventual };
        Ok(Self { tree: Arc::new(tree), durability })
    }

    async fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        self.write(&[(*key, value)]).await
    }

    async fn write(&self, entries: &[(Key, &[u8])]) -> Result<()> {
        loop {
            let mut txn = self.tree.begin_with_mode(Mode::WriteOnly)?;
            txn.set_durability(self.durability);
            for (key, value) in entries {
                txn.set(key, *value)?;
            }
            match txn.commit().await {
                Err(Error::TransactionWriteConflict) => {}
                done => return Ok(done?),
            }
        }
    }

    async fn get(&self, key: &Key) -> Result<bool> {
        let txn = self.tree.begin_with_mode(Mode::ReadOnly)?;
        let value = txn.get(key)?;
        Ok(value.inspect(|value| look_at(key, value)).is_some())
    }

    async fn scan(&self, from: &Key, limit: u64) -> Result<u64> {
        let txn = self.tree.begin_with_mode(Mode::ReadOnly)?;
        let mut scan = txn.scan(from.as_slice()..)?;
        let mut entries = 0;
        let mut valid = scan.seek_first()?;
        while valid && entries < limit {
            look_at(scan.key().user_key(), &scan.value_ref()?);
            entries += 1;
            // After the last one nothing is looked for.
            valid = entries < limit && scan.next()?;
        }
        Ok(entries)
    }

    async fn settle(&self) -> Result<()> {
        // Down to L0: that is a flush.
        let flush = CompactRangeOptions { target_level: Some(0), ..Default::default() };
        Ok(self.tree.compact_range(None, None, &flush)?)
    }

    async fn close(self) -> Result<()> {
        Ok(self.tree.close().await?)
    }
}
