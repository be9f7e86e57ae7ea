//! Tables that no version names any more and that somebody holds all the same.
//!
//! Superversions are numbered, and a table is in all of them from the one that brought it to the
//! last before it was dropped. So the number of a reader's superversion tells whether the reader
//! holds the table, and readers do nothing for it.

use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::version::TableHandle;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A table of earlier superversions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObsoleteTable {
    /// The size of its file.
    pub bytes: u64,
    /// The numbers of the superversions that it is in.
    pub superversions: Range<u64>,
}

/// See the module. One for an engine; changed by the version manager only.
#[derive(Debug, Default)]
pub struct ObsoleteTables {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The first superversion of each table that is named now. Those that the open found are in
    /// all.
    since: HashMap<FileNumber, u64>,
    /// Some of them nobody may hold any more.
    obsolete: Vec<(Weak<TableHandle>, ObsoleteTable)>,
}

impl ObsoleteTables {
    /// The superversion with this number is the first with these tables.
    pub(super) fn added(&self, tables: &[Arc<TableHandle>], superversion: u64) {
        let mut state = self.lock();
        for table in tables {
            state.since.entry(table.number()).or_insert(superversion);
        }
    }

    /// The superversion with this number is the first without these tables, and that is durable:
    /// their files are to go with their last readers.
    pub(super) fn dropped(&self, tables: &[Arc<TableHandle>], superversion: u64) {
        let mut state = self.lock();
        state.obsolete.retain(|(handle, _)| handle.strong_count() > 0);
        for table in tables {
            let since = state.since.remove(&table.number()).unwrap_or_default();
            let bytes = table.meta().file_bytes;
            let obsolete = ObsoleteTable { bytes, superversions: since..superversion };
            state.obsolete.push((Arc::downgrade(table), obsolete));
            table.mark_obsolete();
        }
    }

    /// Those that somebody holds now.
    pub fn list(&self) -> Vec<ObsoleteTable> {
        let state = self.lock();
        let held = state.obsolete.iter().filter(|(handle, _)| handle.strong_count() > 0);
        held.map(|(_, table)| table.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
