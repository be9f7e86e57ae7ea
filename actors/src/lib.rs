//! The actors, and the engine that starts them. Their building blocks (mailboxes, semaphores,
//! replies, signals) are a crate of its own, `sluicedb-kernel`.
//!
//! `sluicedb` calls `engine`, which leads to everything else. The modules are layers, the lowest
//! first. No module names one above its own (`actors/tests/layers.rs` checks that):
//!
//! 1. `counter`: counters that anybody may read.
//! 2. `progress`: how far something long has come.
//! 3. `config`: capacities and thresholds.
//! 4. `failure`: which party cannot work, why, and when it tries again.
//! 5. `runtime`: threads, time, and the environment of an engine.
//! 6. `admission`: who may write now.
//! 7. `range_owner`: the only writer of a range; the topology that readers load.
//! 8. `group_commit`: who waits for the log, and what must be synced.
//! 9. `log_writer`: stamps and appends.
//! 10. `log_syncer`: writes and syncs the log.
//! 11. `version_manager`: makes edits durable and swaps what readers see.
//! 12. `range_planner`: splits ranges that are too large or too hot, and merges cold ones.
//! 13. `checkpointer`: makes checkpoints of what can be read.
//! 14. `log_keeper`: prepares segments and removes old ones.
//! 15. `reclaimer`: reclaims memory where no write does it.
//! 16. `flush_worker`: writes memtables as tables.
//! 17. `compaction_planner`: chooses what is merged.
//! 18. `compaction_worker`: does the merging.
//! 19. `bulk_worker`: writes the tables that replace spans of keys.
//! 20. `write`: the write path.
//! 21. `engine`: open, start, close.
//!
//! Under `--cfg loom` only what the models check exists: the kernel, group commit, the gate, the
//! queue of the engine's threads, and the failures that these name.

#[cfg(loom)]
pub mod admission {
    //! Who may write now.
    pub mod gate;
}
pub mod failure;
pub mod group_commit;

#[cfg(not(loom))]
pub mod admission;
#[cfg(not(loom))]
pub mod bulk_worker;
#[cfg(not(loom))]
pub mod checkpointer;
#[cfg(not(loom))]
pub mod compaction_planner;
#[cfg(not(loom))]
pub mod compaction_worker;
#[cfg(not(loom))]
pub mod config;
#[cfg(not(loom))]
pub mod counter;
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
pub mod progress;
#[cfg(not(loom))]
pub mod range_owner;
#[cfg(not(loom))]
pub mod range_planner;
#[cfg(not(loom))]
pub mod reclaimer;
#[cfg(loom)]
pub mod runtime {
    //! Threads.
    pub mod jobs;
}
#[cfg(not(loom))]
pub mod runtime;
#[cfg(all(test, not(loom)))]
mod testing;
#[cfg(not(loom))]
pub mod version_manager;
#[cfg(not(loom))]
pub mod write;
