//! No engine: what the machine does. A put appends as many bytes as an entry and its header have to
//! a file of zeros, and calls `fdatasync`, inline. Nothing is read.

use super::{Engine, Setup};
use sluicedb_bench_peers::Result;
use sluicedb_bench_peers::keys::Key;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const HEADER_BYTES: usize = 24;
/// It begins again from the start when so much is written.
const FILE_BYTES: u64 = 32 << 20;

#[derive(Clone)]
pub struct Fdatasync {
    file: Arc<File>,
    end: Arc<AtomicU64>,
}

impl Engine for Fdatasync {
    async fn open(dir: &Path, _: Setup) -> Result<Self> {
        let options = OpenOptions::new().write(true).create(true).truncate(true).to_owned();
        let file = options.open(dir.join("log"))?;
        file.write_all_at(&vec![0; FILE_BYTES as usize], 0)?;
        file.sync_all()?;
        Ok(Self { file: Arc::new(file), end: Arc::new(AtomicU64::new(0)) })
    }

    async fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        let mut record = vec![0; HEADER_BYTES];
        record.extend_from_slice(key);
        record.extend_from_slice(value);
        let bytes = record.len() as u64;
        let place = self.end.fetch_add(bytes, Ordering::Relaxed) % (FILE_BYTES - bytes);
        self.file.write_all_at(&record, place)?;
        Ok(self.file.sync_data()?)
    }

    async fn write(&self, entries: &[(Key, &[u8])]) -> Result<()> {
        for (key, value) in entries {
            self.put(key, value).await?;
        }
        Ok(())
    }

    async fn get(&self, _: &Key) -> Result<bool> {
        Ok(false)
    }

    async fn scan(&self, _: &Key, _: u64) -> Result<u64> {
        Ok(0)
    }

    async fn close(self) -> Result<()> {
        Ok(())
    }
}
