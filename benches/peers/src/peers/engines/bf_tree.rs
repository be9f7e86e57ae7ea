//! Bf-Tree: a B+ tree whose leaves have small pages in memory for what is new or hot.
//!
//! Set, everything else being a default: the circular buffer at cache and write buffers together,
//! up to the next power of two, which favours it; the file as backend; snapshots on.
//!
//! It is an index more than a database. Its log can be written but not recovered from yet, and an
//! insert waits up to a millisecond for it; so the log is off here. *Buffered* means nothing then:
//! what is not in a snapshot is gone with the process. Synced writes there are none, and no values
//! of 64 KiB, so it has no such rows. Closing takes a snapshot, opening reads it.

use super::{Engine, Setup, look_at};
use bf_tree::{BfTree, Config, LeafInsertResult, LeafReadResult, ScanReturnField};
use sluicedb_bench_peers::Result;
use sluicedb_bench_peers::keys::{KEY_BYTES, Key};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longer values it is not asked to take: what is read is copied to a place of this size.
const VALUE_BYTES_MAX: usize = 1024;

#[derive(Clone)]
pub struct Bf {
    tree: Arc<BfTree>,
    snapshot: PathBuf,
}

impl Engine for Bf {
    async fn open(dir: &Path, setup: Setup) -> Result<Self> {
        if setup.synced {
            return Err("it has no synced writes".into());
        }
        let snapshot = dir.join("snapshot");
        let tree = if snapshot.exists() {
            BfTree::new_from_cpr_snapshot(&snapshot, true, None, None, None)
        } else {
            let buffer = setup.memory_bytes().next_power_of_two() as usize;
            let mut config = Config::new(dir.join("all.bftree"), buffer);
            config.use_snapshot(true);
            BfTree::with_config(config, None)
        };
        let tree = tree.map_err(|e| format!("{e:?}"))?;
        Ok(Self { tree: Arc::new(tree), snapshot })
    }

    async fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        if value.len() > VALUE_BYTES_MAX {
            return Err("the value is too long for it".into());
        }
        match self.tree.insert(key, value) {
            LeafInsertResult::Success => Ok(()),
            LeafInsertResult::InvalidKV(why) => Err(why.into()),
        }
    }

    async fn write(&self, entries: &[(Key, &[u8])]) -> Result<()> {
        for (key, value) in entries {
            self.put(key, value).await?;
        }
        Ok(())
    }

    async fn get(&self, key: &Key) -> Result<bool> {
        let mut value = [0; VALUE_BYTES_MAX];
        match self.tree.read(key, &mut value) {
            LeafReadResult::Found(bytes) => {
                look_at(key, &value[..bytes as usize]);
                Ok(true)
            }
            LeafReadResult::NotFound | LeafReadResult::Deleted => Ok(false),
            LeafReadResult::InvalidKey => Err("it does not take the key".into()),
        }
    }

    async fn scan(&self, from: &Key, limit: u64) -> Result<u64> {
        let mut entry = [0; KEY_BYTES + VALUE_BYTES_MAX];
        let limit = limit.min(u64::from(u32::MAX)) as usize;
        let scan = self.tree.scan_with_count(from, limit, ScanReturnField::KeyAndValue);
        let mut scan = scan.map_err(|e| format!("{e:?}"))?;
        let mut entries = 0;
        while let Some((key, value)) = scan.next(&mut entry) {
            look_at(&entry[..key], &entry[key..key + value]);
            entries += 1;
        }
        Ok(entries)
    }

    async fn close(self) -> Result<()> {
        self.tree.cpr_snapshot(&self.snapshot);
        Ok(())
    }
}
