//! The disk work of a compaction.

use crate::failure::Failure;
use crate::shared::Shared;
use crate::version_manager::outputs::Outputs;
use sluicedb_storage::compact::{Control, Job, TableSink, run};
use std::sync::Arc;

/// Merges the job's inputs into new tables, or, for a move, names them again.
pub(super) fn merge(shared: &Arc<Shared>, job: &Job) -> Result<Outputs, Failure> {
    if job.is_move {
        return Ok(Outputs::new(shared, Vec::new()));
    }
    let config = &shared.config;
    let sink = TableSink::new(&shared.vfs, &config.dir, shared.db_id, config.level_table(), || {
        shared.file_numbers.take()
    });
    let mut hook = |_| if shared.is_stopped() { Control::Stop } else { Control::Continue };
    let outcome = run::run(job, &config.compaction, sink, &mut hook)
        .inspect_err(|error| shared.give_up_descriptors(error))?;
    Ok(Outputs::new(shared, outcome.ok_or_else(|| shared.why_stopped())?.added))
}
