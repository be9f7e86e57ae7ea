//! Who does the work: the kernel, the actors and their supervisor.
//!
//! `sluicedb` calls `engine`; everything else is reached through it. Data flows one way:
//! `write` -> `log_writer` -> `range_owner` -> `flush_worker` -> `version_manager`, with
//! `compaction_planner` -> `compaction_worker` -> `version_manager` beside. Under `--cfg loom` only the
//! kernel and group commit exist.

pub mod failure;
pub mod group_commit;
pub mod kernel;

#[cfg(not(loom))]
pub mod admission;
#[cfg(not(loom))]
pub mod compaction_planner;
#[cfg(not(loom))]
pub mod compaction_worker;
#[cfg(not(loom))]
pub mod config;
#[cfg(not(loom))]
pub mod engine;
#[cfg(not(loom))]
pub mod flush_worker;
#[cfg(not(loom))]
pub mod log_keeper;
#[cfg(not(loom))]
pub mod log_syncer;
#[cfg(not(loom))]
pub mod log_writer;
#[cfg(not(loom))]
pub mod range_owner;
#[cfg(not(loom))]
pub mod reclaimer;
#[cfg(not(loom))]
pub mod runtime;
#[cfg(not(loom))]
pub mod shared;
#[cfg(all(test, not(loom)))]
mod testing;
#[cfg(not(loom))]
pub mod version_manager;
#[cfg(not(loom))]
pub mod write;
