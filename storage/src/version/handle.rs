//! A table as the versions share it, and what happens when nobody needs it any more.
//!
//! Whoever drops the last handle of an obsolete table may be a reader on an executor thread. So the
//! drop does no disk work. It adds the file's number to the list of obsolete files, and the version
//! manager removes the file (INVARIANT(delete-only-by-version-manager)).

use super::table_cache::TableCache;
use crate::error::{Error, Result};
use crate::filename::FileNumber;
use crate::table::{CacheName, ReadTier, Table, TableMeta};
use arc_swap::{ArcSwapOption, Guard};
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Numbers of tables that no version, view or job holds any more. Shared by all versions of one
/// database.
#[derive(Default)]
pub struct ObsoleteFiles {
    numbers: Mutex<Vec<FileNumber>>,
    bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl ObsoleteFiles {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Has `bell` called after each new one, on the thread that dropped the last handle; it must be
    /// short and must not wait. The first bell stays; returns whether this one was it.
    pub fn on_obsolete(&self, bell: impl Fn() + Send + Sync + 'static) -> bool {
        self.bell.set(Box::new(bell)).is_ok()
    }

    /// Takes the numbers whose files may now be removed.
    pub fn take(&self) -> Vec<FileNumber> {
        std::mem::take(&mut *self.numbers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, number: FileNumber) {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).push(number);
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

/// One table of one or more versions. Everybody holds it by `Arc`.
///
/// It is opened when somebody reads it, and closed by the table cache when others need the room;
/// what the manifest knows about it is always here.
#[derive(Debug)]
pub struct TableHandle {
    meta: Arc<TableMeta>,
    name: CacheName,
    /// The table while it is open. A reader's load is no shared write; what it loaded stays open
    /// while it is held.
    table: ArcSwapOption<Table>,
    /// Was it read since the table cache last looked? Written only where it changes.
    read: AtomicBool,
    /// Held while the table is opened, so that only one thread does.
    opening: Mutex<()>,
    /// Absent in versions that are only inspected (`verify`, policy tests).
    cache: Option<Arc<TableCache>>,
    obsolete: AtomicBool,
    obsolete_files: Arc<ObsoleteFiles>,
}

/// An open table, to be read and let go of soon. Clone the `Arc` in it to keep the table open.
///
/// If the table cache closes the table meanwhile, the file is closed here, on the reader's thread.
/// That may be an executor's: closing a descriptor that was only read from writes nothing and waits
/// for no disk while the file has its name. It has: whoever reads holds the handle, and the file is
/// removed after that has gone. (The clone must therefore be dropped before the handle is.)
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
    /// A handle of a table that `cache` opens when it is read.
    pub(super) fn new(
        meta: Arc<TableMeta>,
        cache: Option<Arc<TableCache>>,
        obsolete_files: Arc<ObsoleteFiles>,
    ) -> Arc<Self> {
        Arc::new(Self {
            meta,
            name: CacheName::fresh(),
            table: ArcSwapOption::empty(),
            read: AtomicBool::new(false),
            opening: Mutex::new(()),
            cache,
            obsolete: AtomicBool::new(false),
            obsolete_files,
        })
    }

    /// A handle that can be planned with but not read.
    pub fn unopened(meta: Arc<TableMeta>, obsolete_files: Arc<ObsoleteFiles>) -> Arc<Self> {
        Self::new(meta, None, obsolete_files)
    }

    /// What the manifest knows about the table.
    #[inline]
    pub fn meta(&self) -> &Arc<TableMeta> {
        &self.meta
    }

    /// The table, opened if it is not. No disk work if it is open.
    ///
    /// # Errors
    /// `WouldBlock` under `ReadTier::Memory` if it is not open; what `Table::open` says of the
    /// file, and what `TableCache` says about file descriptors.
    /// INVARIANT(open-tables-bounded): who holds what this returns keeps it open.
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

    /// The table if it is open; to look at it does not count as a read.
    pub fn if_open(&self) -> Option<OpenTable> {
        let table = self.table.load();
        table.is_some().then_some(OpenTable(table))
    }

    #[cold]
    fn open(self: &Arc<Self>, tier: ReadTier) -> Result<OpenTable> {
        if tier == ReadTier::Memory {
            return Err(Error::WouldBlock);
        }
        let Some(cache) = &self.cache else {
            return Err(Error::invalid(format!("table {} is only planned with", self.meta.number)));
        };
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = self.table.load_full();
        if table.is_none() {
            table = Some(cache.open(self.name, &self.meta)?);
            self.table.store(table.clone());
            cache.opened(self);
        }
        self.read.store(true, Ordering::Relaxed);
        Ok(OpenTable(Guard::from_inner(table)))
    }

    /// Opens the table if the table cache has room without closing another one. For tables that
    /// were just written and will be read soon; their first reader meets what goes wrong.
    pub fn open_early(self: &Arc<Self>) {
        if self.cache.as_ref().is_some_and(|cache| cache.has_room())
            && let Err(error) = self.table(ReadTier::Disk)
        {
            tracing::warn!(%error, "a new table is not opened yet");
        }
    }

    /// Closes the table unless it was read since the last call or is being walked; returns whether
    /// it did.
    pub(super) fn close_if_idle(&self) -> bool {
        if self.read.swap(false, Ordering::Relaxed) {
            return false;
        }
        // Whoever walks it keeps it open: to close it would only mean to open it twice.
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

    /// No newer version will hold it: its file goes when the last handle does. Call it only after
    /// the edit that drops the table is durable.
    pub fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }

    /// Was `mark_obsolete` called?
    pub fn is_obsolete(&self) -> bool {
        self.obsolete.load(Ordering::Acquire)
    }
}

impl Drop for TableHandle {
    fn drop(&mut self) {
        if *self.obsolete.get_mut() {
            // Closes the file first: the version manager may remove it at once.
            self.table.store(None);
            self.obsolete_files.add(self.meta.number);
        }
    }
}
