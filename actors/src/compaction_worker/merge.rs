//! The disk work of a compaction.

use crate::failure::Failure;
use crate::version_manager::Files;
use crate::version_manager::outputs::Outputs;
use sluicedb_storage::compact::{Control, Job, run};
use std::sync::Arc;

/// Merges the job's inputs into new tables, or, for a move, names them again.
pub(super) fn merge(files: &Arc<Files>, job: &Job) -> Result<Outputs, Failure> {
    if job.is_move {
        return Ok(Outputs::new(files, Vec::new()));
    }
    let config = &files.environment.config;
    let sink = files.sink(config.level_table());
    let mut hook = |_| if files.failures.is_stopped() { Control::Stop } else { Control::Continue };
    let outcome = run::run(job, &config.compaction, sink, &mut hook)
        .inspect_err(|error| files.give_up_descriptors(error))?;
    Ok(Outputs::new(files, outcome.ok_or_else(|| files.failures.why_stopped())?.added))
}
