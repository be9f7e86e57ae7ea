//! Which tables are open. Their number is bounded, and so are the bytes of their indexes and
//! filters (INVARIANT(open-tables-bounded)).
//!
//! A table is opened by its first reader that may block. It stays open until the cache needs the
//! room. Then a clock hand advances and closes the first table that was not read since the hand
//! last passed it. Tables that a scan or a compaction holds are skipped. If all open tables are
//! held, the limits are exceeded instead of refusing a reader. If the process is out of file
//! descriptors, a quarter of the tables is closed and the open is tried once more.
//!
//! Readers of open tables do not enter the cache: see `TableHandle::table`.

use super::handle::{ObsoleteFiles, TableHandle};
use crate::error::{Error, Result};
use crate::filename::FileKind;
use crate::sync::lock;
use crate::table::{BlockCache, BlockPlaces, ReadTier, Table, TableId, TableMeta};
use crate::vfs::Vfs;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// Limits of the open tables.
#[derive(Clone, Debug)]
pub struct TableLimits {
    /// The most tables that may be open at a time; at least 1.
    pub open_max: usize,
    /// The most bytes that their indexes and filters may take in memory together.
    pub memory_bytes_max: u64,
    /// The block cache, which also counts open tables and their memory.
    pub blocks: Arc<BlockCache>,
}

/// Opens and closes the tables of one database.
pub struct TableCache {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    db_id: [u8; 16],
    limits: TableLimits,
    obsolete_files: Arc<ObsoleteFiles>,
    /// All live handles, and some dead ones.
    handles: Mutex<Vec<Weak<TableHandle>>>,
    clock: Mutex<Clock>,
    opens: AtomicU64,
    evictions: AtomicU64,
}

/// The open tables, and some whose handles are dropped.
#[derive(Default)]
struct Clock {
    tables: Vec<Weak<TableHandle>>,
    hand: usize,
    /// Tables that are being opened. Room has been made for each of them.
    opening: usize,
    /// The database has been closed: no table is closed any more.
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
    /// A cache of the tables of database `db_id` in `dir`. Opens nothing.
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

    /// A handle of the table with this `meta`. The table is opened when it is read.
    pub fn handle(self: &Arc<Self>, meta: Arc<TableMeta>) -> Arc<TableHandle> {
        let handle =
            TableHandle::new(meta, Some(Arc::clone(self)), Arc::clone(&self.obsolete_files));
        let mut handles = lock(&self.handles);
        if handles.len() == handles.capacity() {
            handles.retain(|handle| handle.strong_count() > 0);
            // Doubling spreads the cost of the sweep over the handles that are added.
            let more = handles.len().max(64);
            handles.reserve(more);
        }
        handles.push(Arc::downgrade(&handle));
        handle
    }

    /// Prepares for the end of the database while snapshots or scans are alive. Whoever opens the
    /// directory next may remove any table. Therefore this opens all tables that have a live
    /// handle, however many, and keeps them open. Blocks on the disk. An error is only logged: the
    /// reader of that table will meet it again.
    pub fn outlive(&self) {
        self.lock().ended = true;
        let handles = lock(&self.handles).clone();
        for handle in handles.iter().filter_map(Weak::upgrade) {
            if let Err(error) = handle.table(ReadTier::Disk) {
                tracing::warn!(%error, "a table that a snapshot may need was not opened");
            }
        }
    }

    /// The list of tables that no version, view or job needs any more.
    pub fn obsolete_files(&self) -> &Arc<ObsoleteFiles> {
        &self.obsolete_files
    }

    /// The limits.
    pub fn limits(&self) -> &TableLimits {
        &self.limits
    }

    /// Checks that the table's file exists and has the right length. Does not open it.
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

    /// The number of tables opened since the database was opened.
    pub fn opens(&self) -> u64 {
        self.opens.load(Relaxed)
    }

    /// The number of tables closed to make room since the database was opened.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    /// Can another table be opened without closing one?
    pub(super) fn has_room(&self) -> bool {
        self.fits(self.lock().opening + 1)
    }

    /// Would the limits hold with `more` tables open? The memory of those is not known yet.
    fn fits(&self, more: usize) -> bool {
        let TableLimits { open_max, memory_bytes_max, blocks } = &self.limits;
        blocks.open_tables() + more as u64 <= *open_max as u64
            && blocks.index_bytes() + blocks.filter_bytes() <= *memory_bytes_max
    }

    /// Opens the table, after making room for it.
    pub(super) fn open(&self, places: &BlockPlaces, meta: &TableMeta) -> Result<Arc<Table>> {
        let mut clock = self.lock();
        clock.opening += 1;
        while !self.fits(clock.opening) && self.evict(&mut clock) {}
        drop(clock);
        let open = || {
            let path = FileKind::Table(meta.number).path(&self.dir);
            let id = TableId { db_id: self.db_id, number: meta.number };
            let blocks = Arc::clone(&self.limits.blocks);
            Table::open_in(places, &self.vfs, path, id, Some(meta), blocks)
        };
        let opened = match open() {
            Err(error) if error.is_out_of_descriptors() && self.close_some() => open(),
            opened => opened,
        };
        let mut clock = self.lock();
        clock.opening -= 1;
        let table = opened?;
        self.opens.fetch_add(1, Relaxed);
        // The size of the table is known now, so the memory limit is enforced. This table is not in
        // the clock yet, so it is not evicted itself.
        while !self.fits(clock.opening) && self.evict(&mut clock) {}
        Ok(table)
    }

    /// Adds the handle, whose table is now open, to the clock.
    pub(super) fn opened(&self, handle: &Arc<TableHandle>) {
        let mut clock = self.lock();
        if clock.tables.len() as u64 > 2 * self.limits.blocks.open_tables() + 64 {
            clock.tables.retain(|table| table.strong_count() > 0);
        }
        clock.tables.push(Arc::downgrade(handle));
    }

    /// Closes a quarter of the open tables, at least one, because the process is out of file
    /// descriptors. Returns whether any could be closed.
    pub fn close_some(&self) -> bool {
        let mut clock = self.lock();
        let quarter = (clock.tables.len() / 4).max(1);
        (0..quarter).filter(|_| self.evict(&mut clock)).count() > 0
    }

    /// Closes one table; `false` if none can be closed.
    fn evict(&self, clock: &mut Clock) -> bool {
        if clock.ended {
            return false;
        }
        // Two rounds: in the first one the hand may find only tables that were read, and clears
        // their marks.
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
        lock(&self.clock)
    }
}

#[cfg(test)]
mod tests;
