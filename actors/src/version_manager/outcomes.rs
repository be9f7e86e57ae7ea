//! What became of changes, until an edit records it.

use super::obsolete::ObsoleteTables;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::version::{ChangeId, RangeId, TableHandle, VersionEdit};
use std::sync::Arc;

/// The outcomes of changes that the next edit must record.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    pub(super) settled: Vec<(ChangeId, Seqno)>,
    pub(super) abandoned: Vec<ChangeId>,
    /// Ranges that had nothing in memory at a change with this number.
    pub(super) flushed: Vec<(RangeId, Seqno)>,
    /// Tables that no slice names once the outcomes are recorded, with the first superversion
    /// without them.
    pub(super) dropped: Vec<(u64, Vec<Arc<TableHandle>>)>,
    /// The same of outcomes that an edit has which is not durable yet.
    unsynced: Vec<(u64, Vec<Arc<TableHandle>>)>,
}

impl Outcomes {
    /// Can files be deleted once these are recorded?
    pub(super) fn let_files_go(&self) -> bool {
        self.dropped.iter().any(|(_, tables)| !tables.is_empty())
    }

    /// Adds the outcomes to `edit`.
    pub(super) fn put_into(&self, edit: &mut VersionEdit) {
        edit.settled.extend_from_slice(&self.settled);
        edit.abandoned.extend_from_slice(&self.abandoned);
        // They go before the edit's own entries, which are later.
        edit.flushed.splice(..0, self.flushed.iter().copied());
        let last = self.settled.iter().map(|(_, seqno)| *seqno).max();
        edit.last_seqno = edit.last_seqno.max(last);
    }

    /// An edit has them, which is not durable yet.
    pub(super) fn appended(&mut self) {
        self.settled.clear();
        self.abandoned.clear();
        self.flushed.clear();
        self.unsynced.append(&mut self.dropped);
    }

    /// Every edit that has some of them is durable.
    pub(super) fn synced(&mut self, tables: &ObsoleteTables) {
        for (superversion, dropped) in self.unsynced.drain(..) {
            tables.dropped(&dropped, superversion);
        }
    }
}
