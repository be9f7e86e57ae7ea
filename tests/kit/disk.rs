//! Tests' operations on a database's whole content, and their simulated disks.

use super::oracle::{Entries, Map};
use futures::TryStreamExt;
use sluicedb::{Db, Result, Scan, VerifySummary};
use sluicedb_storage::vfs::{MemVfs, Vfs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory on simulated disks that no other test uses: an engine that is leaving a directory
/// delays others of this process that open a directory of the same name.
pub fn fresh_dir() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Every other one is nested, in directories that the database has to create.
    let nested = if number.is_multiple_of(2) { "" } else { "/x/y" };
    format!("{nested}/db{number}").into()
}

/// A simulated disk as the engine takes it.
pub fn shared(vfs: &MemVfs) -> Arc<dyn Vfs> {
    Arc::new(vfs.clone())
}

/// Verifies a closed database.
pub fn verify(dir: &Path) -> Result<VerifySummary> {
    sluicedb::verify(dir, |_, _| {})
}

/// All entries of a scan.
pub async fn collect(scan: Scan) -> Result<Entries> {
    scan.map_ok(|(key, value)| (key.to_vec(), value.to_vec())).try_collect().await
}

/// The whole content.
pub async fn content(db: &Db) -> Result<Map> {
    let entries = collect(db.scan(..)).await?;
    let count = entries.len();
    assert!(entries.is_sorted_by(|a, b| a.0 < b.0), "a scan is sorted and free of duplicates");
    let map: Map = entries.into_iter().collect();
    assert_eq!(map.len(), count);
    Ok(map)
}
