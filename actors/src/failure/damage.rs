//! Which tables were found damaged.

use super::Failure;
use sluicedb_kernel::sync::lock;
use sluicedb_storage::Error;
use sluicedb_storage::filename::FileNumber;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The tables that were found damaged or missing. Each has the error of its last check.
#[derive(Debug, Default)]
pub struct Damage(Mutex<BTreeMap<FileNumber, Arc<Error>>>);

impl Damage {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<FileNumber, Arc<Error>>> {
        lock(&self.0)
    }

    /// Remembers the failure if it says that a table is damaged or missing.
    pub fn note(&self, failure: &Failure) {
        if let Failure::Storage(error) = failure
            && failure.is_damage()
            && let Some(number) = failure.table()
        {
            self.lock().insert(number, Arc::clone(error));
        }
    }

    /// Does the same for the error of a read.
    #[cold]
    pub fn note_read(&self, error: &Error) {
        if !matches!(error, Error::WouldBlock(_)) {
            self.note(&Failure::storage(error.duplicate()));
        }
    }

    /// Forgets the table. It is gone, or all of it could be read.
    pub fn forget(&self, number: FileNumber) {
        self.lock().remove(&number);
    }

    /// The last error of each damaged table.
    pub fn list(&self) -> Vec<Arc<Error>> {
        self.lock().values().cloned().collect()
    }
}
