//! The disk work of a compaction, slice by slice.

use super::CompactionWorker;
use super::pace::Worked;
use crate::failure::Failure;
use crate::version_manager::outputs::Outputs;
use sluicedb_storage::Error;
use sluicedb_storage::compact::{Job, Merge};
use std::sync::Arc;

impl CompactionWorker {
    /// Merges the job's inputs into new tables, at the pace for this `debt`. Writes none if nothing
    /// is to be merged. Asks `goes_on` after each slice, with the number of entries merged so far;
    /// returns `None` when it says that nobody wants the rest.
    pub(super) async fn merge(
        &mut self,
        job: &mut Job,
        debt: f64,
        mut goes_on: impl FnMut(u64) -> bool + Send,
    ) -> Result<Option<Outputs>, Failure> {
        let files = Arc::clone(&self.files);
        let environment = &files.environment;
        let failed = |error: Error| {
            files.give_up_descriptors(&error);
            Failure::from(error)
        };
        job.cut().map_err(failed)?;
        if job.is_metadata_only() || job.inputs.is_empty() {
            return Ok(Some(Outputs::new(&files, Vec::new())));
        }
        let config = &environment.config;
        let options = job.own.level_table(&config.level_table());
        let sink = files.sink(if job.lies_above() { options.above() } else { options });
        let sink = sink.tombstones_since(job.tombstones_since_ms());
        let mut merge = Merge::new(job, &job.own.compaction(&config.compaction), sink);
        let (mut began, mut bytes_before) = (environment.now(), 0);
        while merge.step().map_err(failed)? {
            let (entries, bytes) = (merge.entries_in(), merge.bytes_out());
            let time = environment.now().saturating_duration_since(began);
            let worked = Worked { time, bytes: bytes.saturating_sub(bytes_before), debt };
            bytes_before = bytes;
            self.pacer.rest(worked, &mut || goes_on(entries)).await;
            files.failures.check()?;
            if !goes_on(entries) {
                return Ok(None);
            }
            began = environment.now();
        }
        let entries = merge.entries_in();
        let outcome = merge.finish().map_err(failed)?;
        let bytes = outcome.added.iter().map(|table| table.file_bytes).sum::<u64>();
        let time = environment.now().saturating_duration_since(began);
        // The next job pays for this pause: a finished merge is installed at once.
        self.pacer.owe(Worked { time, bytes: bytes.saturating_sub(bytes_before), debt });
        let outputs = Outputs::new(&files, outcome.added);
        files.failures.check()?;
        Ok(goes_on(entries).then_some(outputs))
    }
}
