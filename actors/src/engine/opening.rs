//! What all opens of a directory have in common, those for reading too.

use super::registry::{self, Exit};
use crate::admission::RangeBudget;
use crate::config::EngineConfig;
use crate::failure::Failure;
use crate::runtime::Runtime;
use sluicedb_kernel::reply::reply;
use sluicedb_storage::Error;
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::recover::RecoverOptions;
use sluicedb_storage::table::BlockCache;
use sluicedb_storage::version::TableLimits;
use sluicedb_storage::vfs::LockError;
use std::path::Path;
use std::sync::Arc;

/// Has a thread of the runtime do `open`, which blocks on the disk. An engine of this process that
/// is just closing may still have the directory's lock, so it waits for that one first.
pub(super) async fn on_a_thread<T: Send + 'static>(
    dir: &Path,
    runtime: &Arc<dyn Runtime>,
    open: impl FnOnce(Exit) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (reply, answer) = reply();
    let of_thread = dir.to_owned();
    let body = async move {
        let registration = registry::register_opening(&of_thread).await;
        let opened = open(registration.exit());
        // If the caller is gone, what was opened is dropped right here, and closes again.
        reply.send(opened);
        drop(registration);
    };
    runtime
        .spawn("sluice-open", Box::pin(body))
        .map_err(|error| Error::io("start a thread for", dir, error))?;
    answer.await.unwrap_or(Err(Failure::Closed))
}

/// How the configuration wants a directory to be recovered.
pub(super) fn recover_options(config: &EngineConfig, runtime: &Arc<dyn Runtime>) -> RecoverOptions {
    RecoverOptions {
        create_if_missing: config.create_if_missing,
        fresh_id: config.fresh_id,
        split_keys: config.initial_split_keys.clone(),
        replay_bytes_max: config.write_buffer_bytes,
        table: config.l0_table.clone(),
        now_ms: runtime.unix_ms(),
        // The ranges of an existing database are not known yet.
        shard_cut_bytes_min: RangeBudget::of(config, config.initial_split_keys.len() + 1)
            .shard_cut_bytes_min(),
        shards: config.compaction.shards,
        tables: TableLimits {
            open_max: config.open_tables_max,
            memory_bytes_max: config.open_tables_bytes_max,
            blocks: BlockCache::new(config.cache_bytes),
        },
        side_by_side: Arc::<dyn Runtime>::clone(runtime),
    }
}

/// Why the lock of `dir` was not taken.
pub(super) fn not_locked(dir: &Path, error: LockError) -> Error {
    match error {
        LockError::Held { pid } => Error::Locked { path: dir.to_owned(), pid },
        LockError::Io(error) => Error::io("lock", &FileKind::Lock.path(dir), error),
    }
}
