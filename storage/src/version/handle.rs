//! A table as the versions share it, and what happens when nobody needs it any more.
//!
//! Dropping the last handle of an obsolete table does no disk work: whoever drops it may be a reader
//! on an executor thread. It only leaves the file's number in the graveyard, and the version manager
//! removes the file (INVARIANT(delete-only-by-version-manager)).

use crate::error::Error;
use crate::filename::FileNumber;
use crate::table::{Table, TableMeta};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Numbers of tables that no version, view or job holds any more. Shared by all versions of one
/// database.
#[derive(Default)]
pub struct Graveyard {
    dead: Mutex<Vec<FileNumber>>,
    bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Graveyard {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Has `bell` called after each burial, on the thread that dropped the last handle; it must be
    /// short and must not wait. The first bell stays; returns whether this one was it.
    pub fn on_burial(&self, bell: impl Fn() + Send + Sync + 'static) -> bool {
        self.bell.set(Box::new(bell)).is_ok()
    }

    /// Takes the numbers whose files may now be removed.
    pub fn take(&self) -> Vec<FileNumber> {
        std::mem::take(&mut *self.dead.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn bury(&self, number: FileNumber) {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).push(number);
        if let Some(bell) = self.bell.get() {
            bell();
        }
    }
}

impl fmt::Debug for Graveyard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graveyard").field("dead", &self.dead).finish_non_exhaustive()
    }
}

/// One table of one or more versions. Everybody holds it by `Arc`.
#[derive(Debug)]
pub struct TableHandle {
    meta: TableMeta,
    /// Absent in versions that are only inspected (`verify`, policy tests).
    table: Option<Arc<Table>>,
    obsolete: AtomicBool,
    graveyard: Arc<Graveyard>,
}

impl TableHandle {
    /// A handle of an open table.
    pub fn new(table: Arc<Table>, graveyard: Arc<Graveyard>) -> Arc<Self> {
        let meta = table.meta().clone();
        Arc::new(Self { meta, table: Some(table), obsolete: AtomicBool::new(false), graveyard })
    }

    /// A handle that can be planned with but not read.
    pub fn unopened(meta: TableMeta, graveyard: Arc<Graveyard>) -> Arc<Self> {
        Arc::new(Self { meta, table: None, obsolete: AtomicBool::new(false), graveyard })
    }

    /// What the manifest knows about the table.
    #[inline]
    pub fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// The open table. Panics for an unopened handle, which no reader can reach.
    #[inline]
    pub fn table(&self) -> &Arc<Table> {
        self.table.as_ref().expect("a version that is read has its tables open")
    }

    /// The open table, or why there is none.
    pub fn try_table(&self) -> Result<&Arc<Table>, Error> {
        self.table
            .as_ref()
            .ok_or_else(|| Error::invalid(format!("table {} is not open", self.meta.number)))
    }

    /// The file's number.
    #[inline]
    pub fn number(&self) -> FileNumber {
        self.meta.number
    }

    /// No newer version will hold it: bury the file when the last handle goes. Call it only after
    /// the edit that drops the table is durable.
    pub fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }

    /// Was `mark_obsolete` called?
    pub fn is_obsolete(&self) -> bool {
        self.obsolete.load(Ordering::Acquire)
    }

    /// Is there a key inside both the table's bounds and the closed interval `[min, max]`?
    #[inline]
    pub fn overlaps(&self, min: &[u8], max: &[u8]) -> bool {
        max >= &self.meta.min_key[..] && min <= &self.meta.max_key[..]
    }
}

impl Drop for TableHandle {
    fn drop(&mut self) {
        if *self.obsolete.get_mut() {
            // Closes the file first: the version manager may remove it at once.
            self.table = None;
            self.graveyard.bury(self.meta.number);
        }
    }
}
