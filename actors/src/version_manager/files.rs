//! The files of tables: their numbers, which are open, and where new ones are written.

use super::obsolete::ObsoleteTables;
use crate::failure::Failures;
use crate::range_owner::Superversion;
use crate::runtime::Environment;
use sluicedb_storage::Error;
use sluicedb_storage::compact::TableSink;
use sluicedb_storage::filename::{FileKind, FileNumber};
use sluicedb_storage::table::TableOptions;
use sluicedb_storage::version::{TableCache, Version};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Gives each file number once. INVARIANT(never-reuse-a-file-number): the high-water mark is part
/// of every version edit, and an open starts above every number seen on disk.
#[derive(Debug)]
pub struct FileNumbers(AtomicU64);

impl FileNumbers {
    /// Starts at `next`.
    pub fn starting_at(next: FileNumber) -> Self {
        Self(AtomicU64::new(next.0))
    }

    /// A fresh number.
    pub fn take(&self) -> FileNumber {
        FileNumber(self.0.fetch_add(1, Ordering::Relaxed))
    }

    /// The number that `take` would return: above every number taken so far.
    pub fn high_water(&self) -> FileNumber {
        FileNumber(self.0.load(Ordering::Relaxed))
    }
}

/// See the module. There is one per engine.
#[derive(Debug)]
pub struct Files {
    /// The engine's directory and disk.
    pub environment: Arc<Environment>,
    /// Knows when the engine stops, and which tables are damaged.
    pub failures: Arc<Failures>,
    /// The open tables and their cached blocks.
    pub tables: Arc<TableCache>,
    /// Tables that no version names any more.
    pub obsolete: ObsoleteTables,
    /// The source of file numbers.
    pub numbers: FileNumbers,
}

impl Files {
    /// A sink for the tables of a job.
    pub(crate) fn sink(&self, options: TableOptions) -> TableSink<'_> {
        let environment = &self.environment;
        let (vfs, dir, db_id) = (&environment.vfs, environment.dir(), environment.db_id);
        let sink = TableSink::new(vfs, dir, db_id, options, || self.numbers.take());
        sink.created_at(environment.unix_ms())
    }

    /// Removes a table's file.
    pub(crate) fn remove(&self, number: FileNumber) -> Result<(), Error> {
        let path = FileKind::Table(number).path(self.environment.dir());
        self.environment.vfs.remove(&path).map_err(|error| Error::io("remove", &path, error))
    }

    /// Closes some tables if a job failed for want of file descriptors, so that its next attempt
    /// has some.
    pub(crate) fn give_up_descriptors(&self, error: &Error) {
        if error.is_out_of_descriptors() {
            self.tables.close_some();
        }
    }

    /// The tables on disk that compactions may merge.
    pub fn version(&self, superversion: &Superversion) -> Version {
        superversion.version(self.tables.obsolete_files()).without_ahead()
    }
}
