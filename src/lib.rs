#![doc = include_str!("../README.md")]

mod bulk;
mod checkpoint;
mod compaction;
mod coop;
mod db;
mod error;
mod health;
mod keyspaces;
mod levels;
mod open;
mod options;
mod pins;
mod pressure;
mod progress;
mod ranges;
mod read;
mod read_counts;
mod read_only;
mod reader;
mod scan;
mod snapshot;
mod stats;
mod tokio_wakers;
mod verify;
mod write;

pub use bulk::{IngestPlan, OnEmpty, Replacement, TableFile, TableWriter};
pub use checkpoint::{Checkpoint, CheckpointInfo};
pub use compaction::Compaction;
pub use db::{Db, Limits};
pub use error::{Error, ErrorKind, Outcome, Result, Scope};
pub use health::{Health, HealthState, Party, Trouble};
pub use keyspaces::KeyspaceOptions;
pub use levels::{Decision, LandingStats, LevelInfo, LevelStats, ShardInfo};
pub use open::Builder;
pub use options::{Compression, Durability, Options, Preset};
pub use pins::{Pin, PinHolder};
pub use pressure::{Pressure, PressureCause, PressureWatch, StallStats};
pub use progress::{Progress, ProgressWatch};
pub use ranges::RangeInfo;
pub use read_only::ReadOnlyDb;
pub use scan::{Scan, ScanBatch};
pub use sluicedb_storage::batch::{KeyspaceRef, Operation, Operations, WriteBatch};
pub use sluicedb_storage::key_range::{KeyRange, prefix};
pub use snapshot::Snapshot;
pub use stats::{ActorStats, BufferStats, DamagedTable, RangeStats, Stats, TroubleStats};
pub use verify::{Finding, VerifySummary, verify};
pub use write::{Ticket, WriteOptions};

/// Opens the database in `path`, and creates it if there is none: [`Db::open`].
///
/// # Errors
/// As [`Db::open`].
///
/// # Cancellation
/// As [`Db::open`].
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let db = sluicedb::open(dir.path()).await?;
/// db.put("user:1", "Ada").await?;
/// # Ok::<_, sluicedb::Error>(()) }).unwrap();
/// ```
pub async fn open(path: impl AsRef<std::path::Path>) -> Result<Db> {
    Db::open(path).await
}
