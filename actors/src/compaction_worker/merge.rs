//! The disk work of a compaction.

use crate::failure::Failure;
use crate::version_manager::Files;
use crate::version_manager::outputs::Outputs;
use sluicedb_storage::compact::{Control, Job, Progress, run};
use std::sync::Arc;

/// Merges the job's inputs into new tables, or, for a move, names them again. `None` when `goes_on`, which
/// is asked now and then with the number of entries merged so far, says that nobody wants it.
pub(super) fn merge(
    files: &Arc<Files>,
    job: &Job,
    mut goes_on: impl FnMut(u64) -> bool,
) -> Result<Option<Outputs>, Failure> {
    if job.is_move {
        return Ok(Some(Outputs::new(files, Vec::new())));
    }
    let config = &files.environment.config;
    let sink = files.sink(config.level_table());
    let mut hook = |progress: Progress| {
        let stops = files.failures.is_stopped() || !goes_on(progress.entries_in);
        if stops { Control::Stop } else { Control::Continue }
    };
    let outcome = run::run(job, &config.compaction, sink, &mut hook)
        .inspect_err(|error| files.give_up_descriptors(error))?;
    match outcome {
        Some(outcome) => Ok(Some(Outputs::new(files, outcome.added))),
        None => files.failures.check().map(|()| None),
    }
}
