//! The file protocol of every table that the engine writes.
//!
//! Each table is created as `<n>.tmp`, written, synced, and renamed to `<n>.sst`. The directory is
//! synced once, in `finish`. Only then may the manifest name the tables. A sink that is dropped
//! before `finish` removes its files, as far as the disk allows. The next open removes the rest.
//!
//! A sink may also adopt an existing table unchanged. Then its file gets a second name.

use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::key::{Kind, Seqno};
use crate::table::{BlockCache, Table, TableBuilder, TableId, TableMeta, TableOptions};
use crate::vfs::Vfs;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Writes tables into a database directory. Blocks on the disk.
pub struct TableSink<'a> {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    db_id: [u8; 16],
    options: TableOptions,
    next_number: Box<dyn FnMut() -> FileNumber + Send + 'a>,
    created_at_ms: u64,
    tombstones_since_ms: Option<u64>,
    open: Option<OpenTable>,
    done: Vec<TableMeta>,
    finished: bool,
}

struct OpenTable {
    number: FileNumber,
    temp: PathBuf,
    builder: TableBuilder,
}

impl fmt::Debug for TableSink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableSink").field("done", &self.done).finish_non_exhaustive()
    }
}

impl<'a> TableSink<'a> {
    /// A sink that writes to `dir`. `next_number` must return file numbers that nobody else gets.
    pub fn new(
        vfs: &Arc<dyn Vfs>,
        dir: &Path,
        db_id: [u8; 16],
        options: TableOptions,
        next_number: impl FnMut() -> FileNumber + Send + 'a,
    ) -> Self {
        Self {
            vfs: Arc::clone(vfs),
            dir: dir.to_owned(),
            db_id,
            options,
            next_number: Box::new(next_number),
            created_at_ms: 0,
            tombstones_since_ms: None,
            open: None,
            done: Vec::new(),
            finished: false,
        }
    }

    /// Sets the creation time that is recorded in the tables, in milliseconds since 1970.
    pub fn created_at(mut self, unix_ms: u64) -> Self {
        self.created_at_ms = unix_ms;
        self
    }

    /// The tombstones that come in are this old: the creation time of a table that gets one is not
    /// later than `unix_ms`. `None` if they are new, or of unknown age.
    pub fn tombstones_since(mut self, unix_ms: Option<u64>) -> Self {
        self.tombstones_since_ms = unix_ms;
        self
    }

    /// Adds an entry to the open table. If none is open, creates one. Keys must ascend.
    ///
    /// # Errors
    /// `Io` if a file cannot be created; else as `TableBuilder::add`.
    pub fn add(&mut self, key: &[u8], seqno: Seqno, kind: Kind, value: &[u8]) -> Result<()> {
        if self.open.is_none() {
            self.open = Some(self.create()?);
        }
        let open = self.open.as_mut().expect("just opened");
        open.builder.add(key, seqno, kind, value)
    }

    fn create(&mut self) -> Result<OpenTable> {
        let number = (self.next_number)();
        let temp = FileKind::Temp(number).path(&self.dir);
        let file = self.vfs.create(&temp).map_err(|e| Error::io("create", &temp, e))?;
        let id = TableId { db_id: self.db_id, number };
        let builder = TableBuilder::new(file, temp.clone(), id, self.options.clone())
            .created_at(self.created_at_ms)
            .tombstones_since(self.tombstones_since_ms);
        Ok(OpenTable { number, temp, builder })
    }

    /// Adopts `table`, of this database or another one, by a second name for its file
    /// (INVARIANT(adopted-as-written)). All its bytes are checked first, and `goes_on` is called
    /// before each piece. Returns `false`, and changes nothing, where adoption is not possible: the
    /// file is in another file system, the new name turns out to be another file, the filter must
    /// be rebuilt, or `goes_on` returned false. Blocks on the disk.
    ///
    /// # Errors
    /// `Corrupt` or `Io` if the check of its bytes fails.
    pub fn adopt(&mut self, table: &Table, goes_on: &mut dyn FnMut() -> bool) -> Result<bool> {
        if table.filter_is_broken() {
            return Ok(false);
        }
        self.cut()?;
        let number = (self.next_number)();
        let path = FileKind::Table(number).path(&self.dir);
        if let Err(error) = self.vfs.hard_link(table.path(), &path) {
            tracing::debug!(%error, file = %table.path().display(), "a table is copied instead");
            return Ok(false);
        }
        let meta = TableMeta { number, ..table.meta().clone() };
        let id = TableId { db_id: self.db_id, number };
        let opened = Table::open(&self.vfs, path.clone(), id, Some(&meta), BlockCache::new(0));
        let adopted = match opened {
            // The filter is read again here, and may have been damaged since the table was opened.
            Ok(opened) if opened.filter_is_broken() => Ok(false),
            Ok(opened) => checked(&opened, table.path(), goes_on),
            Err(error) => {
                tracing::debug!(%error, "a table is copied instead");
                Ok(false)
            }
        };
        if matches!(adopted, Ok(true)) {
            self.done.push(meta);
        } else {
            let _ = self.vfs.remove(&path);
        }
        adopted
    }

    /// Removes the tables that were finished last, until `tables` are left.
    pub fn truncate_to(&mut self, tables: usize) {
        for meta in self.done.drain(tables..) {
            let _ = self.vfs.remove(&FileKind::Table(meta.number).path(&self.dir));
        }
    }

    /// Estimated bytes of the open table; 0 if none is open.
    #[inline]
    pub fn table_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.builder.estimated_bytes())
    }

    /// Sets the options of all tables that are created from now on.
    pub fn set_options(&mut self, options: TableOptions) {
        self.options = options;
    }

    /// The number of finished tables.
    pub fn tables(&self) -> usize {
        self.done.len()
    }

    /// Bytes of all tables so far.
    pub fn total_bytes(&self) -> u64 {
        self.done.iter().map(|meta| meta.file_bytes).sum::<u64>() + self.table_bytes()
    }

    /// Finishes the open table, if there is one. Its contents are durable then, but not yet its
    /// name.
    ///
    /// # Errors
    /// As `TableBuilder::finish`; `Io` if the file cannot be renamed. The table is removed then.
    pub fn cut(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let path = FileKind::Table(open.number).path(&self.dir);
        let finished = open.builder.finish().and_then(|meta| {
            self.vfs.rename(&open.temp, &path).map_err(|e| Error::io("rename", &path, e))?;
            Ok(meta)
        });
        match finished {
            Ok(meta) => {
                self.done.push(meta);
                Ok(())
            }
            Err(error) => {
                let _ = self.vfs.remove(&open.temp);
                Err(error)
            }
        }
    }

    /// Finishes the open table and makes the names of all tables durable. Only now may an edit name
    /// them. Blocks on the disk.
    ///
    /// # Errors
    /// As `cut`; `Io` if the directory cannot be synced.
    pub fn finish(self) -> Result<Vec<TableMeta>> {
        Self::finish_all(vec![self])
    }

    /// As `finish`, for several sinks of one directory, which is synced once.
    ///
    /// # Errors
    /// As `finish`. The tables of all sinks are removed then.
    pub fn finish_all(mut sinks: Vec<Self>) -> Result<Vec<TableMeta>> {
        sinks.iter_mut().try_for_each(Self::cut)?;
        if let Some(Self { vfs, dir, .. }) = sinks.iter().find(|sink| !sink.done.is_empty()) {
            vfs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
        }
        let finish = |sink: &mut Self| {
            sink.finished = true;
            std::mem::take(&mut sink.done)
        };
        Ok(sinks.iter_mut().flat_map(finish).collect())
    }
}

impl Drop for TableSink<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if let Some(open) = self.open.take() {
            let _ = self.vfs.remove(&open.temp);
        }
        self.truncate_to(0);
    }
}

/// Checks every byte of the table; `false` if `goes_on` stopped the check. Errors name the file as
/// `path`.
fn checked(table: &Table, path: &Path, goes_on: &mut dyn FnMut() -> bool) -> Result<bool> {
    table.check_bytes(goes_on).map_err(|error| match error {
        Error::Corrupt { offset, what, .. } => Error::corrupt(path, offset, what),
        error => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::hash64;
    use crate::table::ReadTier;
    use crate::vfs::MemVfs;

    const OPTIONS: fn() -> TableOptions = TableOptions::default;

    /// A table of database `db` in `dir`.
    fn table(vfs: &Arc<dyn Vfs>, dir: &str, db: u8, value: &[u8]) -> Arc<Table> {
        vfs.create_dir_all(Path::new(dir)).unwrap();
        let number = FileNumber(5);
        let mut sink = TableSink::new(vfs, Path::new(dir), [db; 16], OPTIONS(), || number);
        sink.add(b"key", Seqno(7), Kind::Put, value).unwrap();
        let meta = sink.finish().unwrap().remove(0);
        let path = FileKind::Table(number).path(Path::new(dir));
        let id = TableId { db_id: [db; 16], number };
        Table::open(vfs, path, id, Some(&meta), BlockCache::new(0)).unwrap()
    }

    /// Planted: the file behind the name is not checked; its number is taken for the one here; a
    /// foreign table passes for any other.
    #[test]
    fn a_table_is_taken_over_only_if_the_file_is_the_one_that_is_meant() {
        let (here, elsewhere) = (MemVfs::new(), MemVfs::new());
        let (here, elsewhere): (Arc<dyn Vfs>, Arc<dyn Vfs>) = (Arc::new(here), Arc::new(elsewhere));
        let wanted = table(&here, "/a", 1, b"wanted");
        let (dir, number) = (Path::new("/b"), FileNumber(9));
        let path = FileKind::Table(number).path(dir);
        let adopt = |vfs: &Arc<dyn Vfs>| {
            vfs.create_dir_all(dir).unwrap();
            let mut sink = TableSink::new(vfs, dir, [2; 16], OPTIONS(), || number);
            (sink.adopt(&wanted, &mut || true).unwrap(), sink.finish().unwrap())
        };
        // The other disk has no such file, and then another one.
        assert_eq!(adopt(&elsewhere), (false, vec![]));
        let other = table(&elsewhere, "/a", 3, b"other!");
        assert_eq!(other.path(), wanted.path());
        assert_eq!(adopt(&elsewhere), (false, vec![]));
        assert!(elsewhere.list(dir).unwrap().is_empty(), "nothing stays of it");
        let (done, metas) = adopt(&here);
        let meta = TableMeta { number, ..wanted.meta().clone() };
        assert_eq!((done, &metas[..]), (true, &[meta.clone()][..]));
        let id = TableId { db_id: [2; 16], number };
        let open =
            |meta: &TableMeta| Table::open(&here, path.clone(), id, Some(meta), BlockCache::new(0));
        let again = open(&meta).unwrap();
        assert_eq!(again.meta(), &meta);
        let found =
            again.get(b"key", hash64(b"key"), ReadTier::Disk).unwrap().expect("it has the key");
        assert_eq!(&found.value[..], b"wanted");
        // The manifest expects another table.
        for unique_id in [id.unique_id(), other.meta().unique_id] {
            let error = open(&TableMeta { unique_id, ..meta.clone() }).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        }
    }
}
