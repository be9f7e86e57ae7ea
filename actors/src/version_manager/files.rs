//! The files of tables: how they are numbered, which are open, and how new ones come about.

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

/// Hands out file numbers, each once (INVARIANT(never-reuse-a-file-number): the high-water mark is
/// part of every version edit, and opening starts above every number seen on disk).
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

/// See the module. One for an engine.
#[derive(Debug)]
pub struct Files {
    /// The directory they are in.
    pub environment: Arc<Environment>,
    /// Told when the engine stops, and which tables are damaged.
    pub failures: Arc<Failures>,
    /// Which tables are open, and their cached blocks.
    pub tables: Arc<TableCache>,
    /// Those that no version names any more.
    pub obsolete: ObsoleteTables,
    /// The source of file numbers.
    pub numbers: FileNumbers,
}

impl Files {
    /// Where a job writes its tables.
    pub(crate) fn sink(&self, options: TableOptions) -> TableSink<'_> {
        let environment = &self.environment;
        let (vfs, dir, db_id) = (&environment.vfs, environment.dir(), environment.db_id);
        let sink = TableSink::new(vfs, dir, db_id, options, || self.numbers.take());
        sink.created_at(environment.unix_ms())
    }

    /// Removes a table.
    pub(crate) fn remove(&self, number: FileNumber) -> Result<(), Error> {
        let path = FileKind::Table(number).path(self.environment.dir());
        self.environment.vfs.remove(&path).map_err(|error| Error::io("remove", &path, error))
    }

    /// If a job failed for want of file descriptors: closes tables, so that its next attempt has
    /// some.
    pub(crate) fn give_up_descriptors(&self, error: &Error) {
        if error.is_out_of_descriptors() {
            self.tables.close_some();
        }
    }

    /// What is on disk, as far as it may be merged.
    pub fn version(&self, superversion: &Superversion) -> Version {
        superversion.version(self.tables.obsolete_files()).without_ahead()
    }
}
