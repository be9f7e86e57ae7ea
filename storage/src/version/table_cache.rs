//! Which tables are open. Their number is bounded, and so are the bytes of their indexes and
//! filters.
//!
//! A table is opened by its first reader that may wait. It stays open until others need the room.
//! Then the clock's hand goes around and closes the first table that was not read since the hand
//! last came by. It passes over tables that a scan or a compaction is walking. If every open table
//! is being walked, the limits are exceeded rather than a reader refused. If the process has no
//! descriptor left, a quarter of the tables is closed and the open is tried once more
//! (INVARIANT(open-tables-bounded)).
//!
//! Readers of open tables never come by here: see `TableHandle::table`.

use super::handle::{ObsoleteFiles, TableHandle};
use crate::error::{Error, Result};
use crate::filename::FileKind;
use crate::table::{BlockCache, CacheName, ReadTier, Table, TableId, TableMeta};
use crate::vfs::Vfs;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What open tables may take.
#[derive(Clone, Debug)]
pub struct TableLimits {
    /// How many may be open at a time, at least 1.
    pub open_max: usize,
    /// What their indexes and filters may have in memory together, in bytes.
    pub memory_bytes_max: u64,
    /// Counts them, and caches their blocks.
    pub blocks: Arc<BlockCache>,
}

/// Opens and closes the tables of one database.
pub struct TableCache {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    db_id: [u8; 16],
    limits: TableLimits,
    obsolete_files: Arc<ObsoleteFiles>,
    /// Every handle that somebody may hold, and some that nobody does any more.
    handles: Mutex<Vec<Weak<TableHandle>>>,
    clock: Mutex<Clock>,
    opens: AtomicU64,
    evictions: AtomicU64,
}

/// The open tables, and some that were closed because nobody needs them any more.
#[derive(Default)]
struct Clock {
    tables: Vec<Weak<TableHandle>>,
    hand: usize,
    /// Tables that are being opened; each has been given room.
    opening: usize,
    /// The database has ended: nothing is closed any more.
    ended: bool,
}

impl fmt::Debug for TableCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableCache")
            .field("dir", &self.dir)
            .field("limits", &self.limits)
            .field("opens", &self.opens)
            .field("evictions", &self.evictions)
            .finish_non_exhaustive()
    }
}

impl TableCache {
    /// For the tables of database `db_id` in `dir`. Opens nothing.
    pub fn new(vfs: &Arc<dyn Vfs>, dir: &Path, db_id: [u8; 16], limits: TableLimits) -> Arc<Self> {
        Arc::new(Self {
            vfs: Arc::clone(vfs),
            dir: dir.to_owned(),
            db_id,
            limits,
            obsolete_files: ObsoleteFiles::new(),
            handles: Mutex::default(),
            clock: Mutex::default(),
            opens: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        })
    }

    /// A handle of the table with this `meta`, which is opened when it is read.
    pub fn handle(self: &Arc<Self>, meta: Arc<TableMeta>) -> Arc<TableHandle> {
        let handle =
            TableHandle::new(meta, Some(Arc::clone(self)), Arc::clone(&self.obsolete_files));
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if handles.len() == handles.capacity() {
            handles.retain(|handle| handle.strong_count() > 0);
            // Room for as many again: what this costs is spread over them.
            let more = handles.len().max(64);
            handles.reserve(more);
        }
        handles.push(Arc::downgrade(&handle));
        handle
    }

    /// The database ends while snapshots or scans are left. Whoever opens the directory next may
    /// remove any table: therefore all that somebody holds are opened now, however many, and stay
    /// open. Blocks on the disk. What cannot be opened its reader is told.
    pub fn outlive(&self) {
        self.lock().ended = true;
        let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for handle in handles.iter().filter_map(Weak::upgrade) {
            if let Err(error) = handle.table(ReadTier::Disk) {
                tracing::warn!(%error, "a table that a snapshot may need was not opened");
            }
        }
    }

    /// Where the numbers of unneeded tables gather.
    pub fn obsolete_files(&self) -> &Arc<ObsoleteFiles> {
        &self.obsolete_files
    }

    /// The limits.
    pub fn limits(&self) -> &TableLimits {
        &self.limits
    }

    /// Is the table's file there, with the length that it should have? Does not open it.
    ///
    /// # Errors
    /// `Missing`, `Corrupt` or `Io`, naming the file.
    pub fn check_presence(&self, meta: &TableMeta) -> Result<()> {
        let path = FileKind::Table(meta.number).path(&self.dir);
        match self.vfs.len(&path) {
            Ok(bytes) if bytes == meta.file_bytes => Ok(()),
            Ok(bytes) => {
                let what = format!("file has {bytes} bytes, expected {}", meta.file_bytes);
                Err(Error::corrupt(&path, bytes.min(meta.file_bytes), what))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::Missing { path }),
            Err(error) => Err(Error::io("stat", &path, error)),
        }
    }

    /// Tables that were opened, since the database was.
    pub fn opens(&self) -> u64 {
        self.opens.load(Relaxed)
    }

    /// Tables that were closed to make room, since the database was opened.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    /// Could another table be opened without closing one?
    pub(super) fn has_room(&self) -> bool {
        self.fits(self.lock().opening + 1)
    }

    /// Are the limits kept if so many more tables are opened, of unknown size?
    fn fits(&self, more: usize) -> bool {
        let TableLimits { open_max, memory_bytes_max, blocks } = &self.limits;
        blocks.open_tables() + more as u64 <= *open_max as u64
            && blocks.index_bytes() + blocks.filter_bytes() <= *memory_bytes_max
    }

    /// Opens the table, after making room for it.
    pub(super) fn open(&self, name: CacheName, meta: &TableMeta) -> Result<Arc<Table>> {
        let mut clock = self.lock();
        clock.opening += 1;
        while !self.fits(clock.opening) && self.evict(&mut clock) {}
        drop(clock);
        let open = || {
            let path = FileKind::Table(meta.number).path(&self.dir);
            let id = TableId { db_id: self.db_id, number: meta.number };
            let blocks = Arc::clone(&self.limits.blocks);
            Table::open_as(name, &self.vfs, path, id, Some(meta), blocks)
        };
        let opened = match open() {
            Err(error) if error.is_out_of_descriptors() && self.close_some() => open(),
            opened => opened,
        };
        let mut clock = self.lock();
        clock.opening -= 1;
        let table = opened?;
        self.opens.fetch_add(1, Relaxed);
        // Its size is known now. It is not in the clock yet, so it is not closed itself.
        while !self.fits(clock.opening) && self.evict(&mut clock) {}
        Ok(table)
    }

    /// The handle has its table: the clock's hand will come by.
    pub(super) fn opened(&self, handle: &Arc<TableHandle>) {
        let mut clock = self.lock();
        if clock.tables.len() as u64 > 2 * self.limits.blocks.open_tables() + 64 {
            clock.tables.retain(|table| table.strong_count() > 0);
        }
        clock.tables.push(Arc::downgrade(handle));
    }

    /// The process has no file descriptor left: closes a quarter of the open tables, at least one;
    /// false if none can be closed.
    pub fn close_some(&self) -> bool {
        let mut clock = self.lock();
        let quarter = (clock.tables.len() / 4).max(1);
        (0..quarter).filter(|_| self.evict(&mut clock)).count() > 0
    }

    /// Closes one table; false if there is none that can be closed.
    fn evict(&self, clock: &mut Clock) -> bool {
        if clock.ended {
            return false;
        }
        // Twice around: the first time the hand may find nothing but tables that were read.
        for _ in 0..2 * clock.tables.len() {
            if clock.hand >= clock.tables.len() {
                clock.hand = 0;
            }
            match clock.tables.get(clock.hand).map(Weak::upgrade) {
                None => return false,
                Some(None) => {
                    clock.tables.swap_remove(clock.hand);
                }
                Some(Some(table)) if table.close_if_idle() => {
                    clock.tables.swap_remove(clock.hand);
                    self.evictions.fetch_add(1, Relaxed);
                    return true;
                }
                Some(Some(_)) => clock.hand += 1,
            }
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
