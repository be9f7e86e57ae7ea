//! A table as the versions share it, and what happens when nobody needs it any more.
//!
//! The last handle of an obsolete table may be dropped by a reader on an executor's thread. So the
//! drop does no disk work. It adds the file's number to the list of obsolete files, and the version
//! manager removes the file (INVARIANT(delete-only-by-version-manager)).

use super::table_cache::TableCache;
use crate::error::{Error, Lacks, Result};
use crate::filename::FileNumber;
use crate::sync::lock;
use crate::table::{BlockPlaces, ReadTier, Table, TableMeta};
use arc_swap::{ArcSwapOption, Guard};
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// The numbers of the tables that no version, view or job holds any more. All versions of one
/// database share it.
#[derive(Default)]
pub struct ObsoleteFiles {
    numbers: Mutex<Vec<FileNumber>>,
    bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl ObsoleteFiles {
    /// An empty list.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Registers `bell`, which is called after each new number, on the thread that dropped the last
    /// handle. It must be short and must not wait. Only the first call registers; returns whether
    /// it did.
    pub fn on_obsolete(&self, bell: impl Fn() + Send + Sync + 'static) -> bool {
        self.bell.set(Box::new(bell)).is_ok()
    }

    /// Takes the numbers whose files may now be removed.
    pub fn take(&self) -> Vec<FileNumber> {
        std::mem::take(&mut *lock(&self.numbers))
    }

    fn add(&self, number: FileNumber) {
        lock(&self.numbers).push(number);
        if let Some(bell) = self.bell.get() {
            bell();
        }
    }
}

impl fmt::Debug for ObsoleteFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObsoleteFiles").field("numbers", &self.numbers).finish_non_exhaustive()
    }
}

/// One table of one or more versions, shared by `Arc`.
///
/// A reader opens the table, and the table cache closes it when it needs the room. The metadata
/// from the manifest is always in memory.
#[derive(Debug)]
pub struct TableHandle {
    meta: Arc<TableMeta>,
    places: BlockPlaces,
    /// The table while it is open. A load writes to no shared memory. A loaded table stays open as
    /// long as it is held.
    table: ArcSwapOption<Table>,
    /// Was the table read since the table cache last looked? Stored only when the value changes, so
    /// that readers do not contend for the cache line.
    read: AtomicBool,
    /// Held while the table is being opened, so that only one thread opens it.
    opening: Mutex<()>,
    /// Absent in versions that are only inspected (`verify`, policy tests).
    cache: Option<Arc<TableCache>>,
    obsolete: AtomicBool,
    obsolete_files: Arc<ObsoleteFiles>,
}

/// An open table, for a short read. Clone the inner `Arc` to keep the table open.
///
/// If the table cache closes the table meanwhile, this guard closes the file when it is dropped, on
/// the reader's thread. That may be an executor's thread. Closing a file that was only read writes
/// nothing, and waits for no disk as long as the file still has its name. It has: the reader holds
/// the handle, and the file is removed only after the last handle is dropped. Therefore a clone of
/// the `Arc` must be dropped before the handle is.
#[derive(Debug)]
pub struct OpenTable(Guard<Option<Arc<Table>>>);

impl Deref for OpenTable {
    type Target = Arc<Table>;

    #[inline]
    fn deref(&self) -> &Arc<Table> {
        self.0.as_ref().expect("made only of a table that is open")
    }
}

impl TableHandle {
    /// A handle whose table `cache` opens at the first read.
    pub(super) fn new(
        meta: Arc<TableMeta>,
        cache: Option<Arc<TableCache>>,
        obsolete_files: Arc<ObsoleteFiles>,
    ) -> Arc<Self> {
        Arc::new(Self {
            meta,
            places: BlockPlaces::default(),
            table: ArcSwapOption::empty(),
            read: AtomicBool::new(false),
            opening: Mutex::new(()),
            cache,
            obsolete: AtomicBool::new(false),
            obsolete_files,
        })
    }

    /// A handle for planning only: it has metadata, but the table cannot be opened.
    pub fn unopened(meta: Arc<TableMeta>, obsolete_files: Arc<ObsoleteFiles>) -> Arc<Self> {
        Self::new(meta, None, obsolete_files)
    }

    /// The metadata that the manifest records.
    #[inline]
    pub fn meta(&self) -> &Arc<TableMeta> {
        &self.meta
    }

    /// The table, which is opened if necessary. Without disk work if it is open; otherwise it
    /// blocks on the disk.
    ///
    /// INVARIANT(open-tables-bounded): the table stays open as long as the result is held.
    ///
    /// # Errors
    /// `WouldBlock` under `ReadTier::Memory` if the table is not open. Else as `Table::open`, and
    /// as `TableCache` reports about file descriptors.
    #[inline]
    pub fn table(self: &Arc<Self>, tier: ReadTier) -> Result<OpenTable> {
        let table = self.table.load();
        if table.is_none() {
            return self.open(tier);
        }
        if !self.read.load(Ordering::Relaxed) {
            self.read.store(true, Ordering::Relaxed);
        }
        Ok(OpenTable(table))
    }

    /// The table if it is open. This does not count as a read.
    pub fn if_open(&self) -> Option<OpenTable> {
        let table = self.table.load();
        table.is_some().then_some(OpenTable(table))
    }

    #[cold]
    fn open(self: &Arc<Self>, tier: ReadTier) -> Result<OpenTable> {
        if tier == ReadTier::Memory {
            return Err(Error::WouldBlock(Lacks::Thread));
        }
        let Some(cache) = &self.cache else {
            return Err(Error::invalid(format!("table {} is only planned with", self.meta.number)));
        };
        let _one = lock(&self.opening);
        let mut table = self.table.load_full();
        if table.is_none() {
            table = Some(cache.open(&self.places, &self.meta)?);
            self.table.store(table.clone());
            cache.opened(self);
        }
        self.read.store(true, Ordering::Relaxed);
        Ok(OpenTable(Guard::from_inner(table)))
    }

    /// Opens the table if the table cache has room for it without closing another. For tables that
    /// were just written and will be read soon. An error is only logged: the first reader will meet
    /// it again.
    pub fn open_early(self: &Arc<Self>) {
        if self.cache.as_ref().is_some_and(|cache| cache.has_room())
            && let Err(error) = self.table(ReadTier::Disk)
        {
            tracing::warn!(%error, "a new table is not opened yet");
        }
    }

    /// Closes the table unless it was read since the last call, or is in use. Returns whether it
    /// closed the table.
    pub(super) fn close_if_idle(&self) -> bool {
        if self.read.swap(false, Ordering::Relaxed) {
            return false;
        }
        // A cursor keeps the table open anyway. To close it here would only open it a second time.
        if self.table.load().as_ref().is_some_and(|table| Arc::strong_count(table) > 1) {
            return false;
        }
        self.table.store(None);
        true
    }

    /// The file's number.
    #[inline]
    pub fn number(&self) -> FileNumber {
        self.meta.number
    }

    /// Declares that no newer version will name the table: its file is removed when the last handle
    /// is dropped. Call it only after the edit that drops the table is durable.
    pub fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

impl Drop for TableHandle {
    fn drop(&mut self) {
        if *self.obsolete.get_mut() {
            // Close the file first: the version manager may remove it as soon as the number is
            // listed.
            self.table.store(None);
            self.obsolete_files.add(self.meta.number);
        }
    }
}
