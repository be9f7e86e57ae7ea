//! The compactor's disk work.

use crate::failure::Failure;
use crate::shared::Shared;
use sluicedb_storage::Error;
use sluicedb_storage::compact::{Control, Job, TableSink, run};
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::table::{Table, TableMeta};
use std::sync::Arc;

/// What a job wrote.
pub(super) struct Written {
    pub(super) added: Vec<TableMeta>,
    pub(super) tables: Vec<Arc<Table>>,
}

/// Merges the job's inputs into new tables, or, for a move, names them again.
pub(super) fn write(shared: &Shared, job: &Job) -> Result<Written, Failure> {
    if job.is_move {
        let tables: Vec<_> = job.tables().map(|(_, handle)| Arc::clone(handle.table())).collect();
        return Ok(Written { added: Vec::new(), tables });
    }
    let config = &shared.config;
    let sink = TableSink::new(&shared.vfs, &config.dir, shared.db_id, config.level_table(), || {
        shared.file_numbers.take()
    });
    let mut hook = |_| if shared.is_stopped() { Control::Stop } else { Control::Continue };
    let outcome = run::run(job, &config.compaction, sink, &mut hook)?;
    let added = outcome.ok_or_else(|| shared.why_stopped())?.added;
    let tables = added.iter().map(|meta| shared.open_table(meta)).collect::<Result<_, _>>()?;
    Ok(Written { added, tables })
}

/// Removes tables that were never installed.
pub(super) fn discard(shared: &Shared, added: &[TableMeta]) {
    for meta in added {
        let path = FileKind::Table(meta.number).path(&shared.config.dir);
        if let Err(error) = shared.vfs.remove(&path) {
            let error = Error::io("remove", &path, error);
            tracing::warn!(%error, "a discarded table was left behind; the next open removes it");
        }
    }
}
