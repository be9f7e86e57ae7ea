//! Who does the work: the kernel, the actors, and the engine that starts them.
//!
//! `sluicedb` calls `engine`; everything else is reached through it. The modules are layers, the
//! lowest first. None names one above its own (`actors/tests/layers.rs` checks that):
//!
//! 1. `kernel`: mailboxes, seats, accounts, replies, signals. Names no engine type.
//! 2. `counter`: counts that anybody may read.
//! 3. `config`: capacities and thresholds.
//! 4. `failure`: who cannot do its work, why, and when it tries again.
//! 5. `runtime`: threads, time, and the environment that an engine is put into.
//! 6. `admission`: who may write now.
//! 7. `range_owner`: the only writer of a range; the topology that readers load.
//! 8. `group_commit`: who waits for the log, and what is synced.
//! 9. `log_writer`: stamps and appends.
//! 10. `log_syncer`: writes and syncs the log.
//! 11. `version_manager`: makes edits durable and swaps what readers see.
//! 12. `range_planner`: splits ranges that are too large or too hot, and merges cold ones.
//! 13. `checkpointer`: makes checkpoints of what can be read.
//! 14. `log_keeper`: prepares segments and removes old ones.
//! 15. `reclaimer`: takes memory back where no write does it.
//! 16. `flush_worker`: memtables become tables.
//! 17. `compaction_planner`: chooses what is merged.
//! 18. `compaction_worker`: merges it.
//! 19. `bulk_worker`: writes the tables that replace spans of keys.
//! 20. `write`: the way of a write.
//! 21. `engine`: open, start, close.
//!
//! Under `--cfg loom` only what models check exists: the kernel, group commit, the gate in front of
//! the accounts, the queue of the engine's threads, and the failures that these name.

#[cfg(loom)]
pub mod admission {
    //! Who may write now.
    pub mod gate;
}
pub mod failure;
pub mod group_commit;
pub mod kernel;

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
