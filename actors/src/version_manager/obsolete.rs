//! Tables that no version names any more but that somebody still holds.
//!
//! Superversions are numbered. A table is in all of them from the first that named it to the last
//! before it was dropped. So the number of a reader's superversion tells whether the reader holds
//! the table, and readers do nothing for it.

use sluicedb_kernel::sync::lock;
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::version::TableHandle;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// A table of earlier superversions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObsoleteTable {
    /// The size of its file.
    pub bytes: u64,
    /// The numbers of the superversions that have it.
    pub superversions: Range<u64>,
}

/// See the module. There is one per engine. Only the version manager changes it.
#[derive(Debug, Default)]
pub struct ObsoleteTables {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The first superversion of each table that is named now. A table that the open found has
    /// none, and counts from 0.
    since: HashMap<FileNumber, u64>,
    /// Obsolete tables. Some of them nobody may hold any more.
    obsolete: Vec<(Weak<TableHandle>, ObsoleteTable)>,
}

impl ObsoleteTables {
    /// The superversion with this number is the first that has these tables.
    pub(super) fn added(&self, tables: &[Arc<TableHandle>], superversion: u64) {
        let mut state = self.lock();
        for table in tables {
            state.since.entry(table.number()).or_insert(superversion);
        }
    }

    /// The superversion with this number is the first without these tables, and that is durable.
    /// Their files are deleted once their last readers are gone.
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

    /// The obsolete tables that somebody holds now.
    pub fn list(&self) -> Vec<ObsoleteTable> {
        let state = self.lock();
        let held = state.obsolete.iter().filter(|(handle, _)| handle.strong_count() > 0);
        held.map(|(_, table)| table.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
