//! Who does the work: the kernel, the actors and their supervisor.
//!
//! `sluicedb` calls `engine`; everything else is reached through it. Data flows one way:
//! `write` -> `wal_writer` -> `range_owner` -> `flush_worker` -> `version_manager`, with
//! `compaction_planner` -> `compaction_worker` -> `version_manager` beside. Under `--cfg loom` only the
//! kernel and group commit exist.

pub mod failure;
pub mod group_commit;
pub mod kernel;

#[cfg(not(loom))]
pub mod backoff;
#[cfg(not(loom))]
pub mod compaction_planner;
#[cfg(not(loom))]
pub mod compaction_worker;
#[cfg(not(loom))]
pub mod config;
#[cfg(not(loom))]
pub mod cooldown;
#[cfg(not(loom))]
pub mod engine;
#[cfg(not(loom))]
pub mod flush_worker;
#[cfg(not(loom))]
mod outputs;
#[cfg(not(loom))]
pub mod pool;
#[cfg(not(loom))]
pub mod pressure;
#[cfg(not(loom))]
pub mod range_owner;
#[cfg(not(loom))]
#[cfg(not(loom))]
pub mod runtime;
#[cfg(not(loom))]
pub mod shared;
#[cfg(not(loom))]
pub mod space;
#[cfg(not(loom))]
mod supervisor;
#[cfg(all(test, not(loom)))]
mod testing;
#[cfg(not(loom))]
pub mod trouble;
#[cfg(not(loom))]
pub mod version_manager;
#[cfg(not(loom))]
pub mod waits;
#[cfg(not(loom))]
mod waking;
#[cfg(not(loom))]
pub mod wal_writer;
#[cfg(not(loom))]
pub mod write;
