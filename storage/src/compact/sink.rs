//! Where finished tables come from: the file protocol of every table the engine writes.
//!
//! Each table is created as `<n>.tmp`, written, synced, renamed to `<n>.sst`; the directory is synced
//! once when the job finishes. Only then may the manifest name the tables. A sink that is dropped
//! before `finish` removes what it made, as far as the disk lets it; the rest is swept at the next
//! open.

use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::key::{Kind, Seqno};
use crate::table::{TableBuilder, TableId, TableMeta, TableOptions};
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
    /// A sink into `dir`. `next_number` hands out file numbers that nobody else gets.
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
            open: None,
            done: Vec::new(),
            finished: false,
        }
    }

    /// What its tables say about when they were made, in milliseconds since 1970.
    pub fn created_at(mut self, unix_ms: u64) -> Self {
        self.created_at_ms = unix_ms;
        self
    }

    /// Adds an entry to the open table, opening one if there is none. Keys ascend.
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
            .created_at(self.created_at_ms);
        Ok(OpenTable { number, temp, builder })
    }

    /// Bytes of the open table so far; 0 if none is open.
    #[inline]
    pub fn table_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.builder.estimated_bytes())
    }

    /// How the tables that begin from here on are written.
    pub fn set_options(&mut self, options: TableOptions) {
        self.options = options;
    }

    /// How many tables have ended.
    pub fn tables(&self) -> usize {
        self.done.len()
    }

    /// Bytes of all tables so far.
    pub fn total_bytes(&self) -> u64 {
        self.done.iter().map(|meta| meta.file_bytes).sum::<u64>() + self.table_bytes()
    }

    /// Ends the open table, if there is one: its content is durable, its name not yet.
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

    /// Ends the open table and makes all names durable. Only now may an edit name the tables.
    pub fn finish(mut self) -> Result<Vec<TableMeta>> {
        self.cut()?;
        if !self.done.is_empty() {
            self.vfs.sync_dir(&self.dir).map_err(|e| Error::io("sync", &self.dir, e))?;
        }
        self.finished = true;
        Ok(std::mem::take(&mut self.done))
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
        for meta in &self.done {
            let _ = self.vfs.remove(&FileKind::Table(meta.number).path(&self.dir));
        }
    }
}
