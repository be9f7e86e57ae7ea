//! Tables outside a database: written by whoever has sorted data, and brought in as a whole.
//!
//! Such a file is a table like any other (`table/`), under an identity that belongs to no database. So no
//! database takes it for one of its own, and it is never adopted as it is: it is checked completely, and what
//! it has is written anew. The file itself is only read.

use crate::batch::check_entry;
use crate::error::{Error, Result};
use crate::filename::FileNumber;
use crate::iter::Cursor;
use crate::key::{Kind, Seqno};
use crate::limits::VALUE_BYTES_CAP;
use crate::table::{
    BlockCache, CursorOptions, Table, TableBuilder, TableId, TableMeta, TableOptions, Wait,
};
use crate::vfs::Vfs;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The identity of every table outside a database.
const IDENTITY: TableId = TableId { db_id: *b"sluicedb outside", number: FileNumber(1) };
/// The number of its entries, which counts for nothing: they get that of the change that brings them in.
const ENTRY_SEQNO: Seqno = Seqno(1);
/// Read ahead while a table is checked or copied.
const READAHEAD_BYTES: usize = 1 << 20;

/// Writes a table outside a database. Blocks on the disk. Dropped before it is finished, it removes the file.
pub struct ExternalWriter {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    builder: Option<TableBuilder>,
    last_key: Vec<u8>,
}

impl fmt::Debug for ExternalWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ExternalWriter {
    /// Into a new file.
    ///
    /// # Errors
    /// `Io`, also where there is a file already; `Invalid` for bad options.
    pub fn create(vfs: &Arc<dyn Vfs>, path: &Path, options: TableOptions) -> Result<Self> {
        options.validate()?;
        let file = vfs.create(path).map_err(|error| Error::io("create", path, error))?;
        let builder = TableBuilder::new(file, path.to_owned(), IDENTITY, options);
        let (vfs, path) = (Arc::clone(vfs), path.to_owned());
        Ok(Self { vfs, path, builder: Some(builder), last_key: Vec::new() })
    }

    /// Adds an entry, whose key is after the last one.
    ///
    /// # Errors
    /// `Invalid` for a key that is not, or one that is empty or too long, or a value that is too long: the entry
    /// is left out, and others may follow. `Io`: nothing more can be added.
    pub fn add(&mut self, key: &[u8], kind: Kind, value: &[u8]) -> Result<()> {
        check_entry(key.len(), value.len(), VALUE_BYTES_CAP).map_err(Error::invalid)?;
        if key <= &self.last_key[..] {
            return Err(Error::invalid(format!(
                "the key \"{}\" is not after \"{}\"; add keys in byte order, each once",
                key.escape_ascii(),
                self.last_key.escape_ascii()
            )));
        }
        let builder = self.builder.as_mut().expect("it is there until `finish`");
        builder.add(key, ENTRY_SEQNO, kind, value)?;
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        Ok(())
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.builder.as_ref().map_or(0, TableBuilder::entries)
    }

    /// Ends the table and makes it durable, its name included.
    ///
    /// # Errors
    /// `Invalid` if it has no entry; `Io`. The file is removed.
    pub fn finish(mut self) -> Result<TableMeta> {
        let builder = self.builder.take_if(|builder| builder.entries() > 0);
        let Some(builder) = builder else {
            return Err(Error::invalid("a table without entries cannot be made; leave it out"));
        };
        let durable = builder.finish().and_then(|meta| {
            let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
            let dir = dir.unwrap_or(Path::new("."));
            self.vfs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
            Ok(meta)
        });
        if durable.is_err() {
            let _ = self.vfs.remove(&self.path);
        }
        durable
    }
}

impl Drop for ExternalWriter {
    fn drop(&mut self) {
        if self.builder.take().is_some() {
            let _ = self.vfs.remove(&self.path);
        }
    }
}

/// A table outside a database, checked from end to end.
#[derive(Debug)]
pub struct ExternalTable(Arc<Table>);

impl ExternalTable {
    /// Opens it and reads every byte: checksums, order, bounds, counts, sizes. Blocks on the disk.
    ///
    /// # Errors
    /// `Corrupt` for a file that is not such a table, or is damaged: the first problem; `Unsupported`; `Io`.
    pub fn open(vfs: &Arc<dyn Vfs>, path: &Path) -> Result<Self> {
        let cache = BlockCache::new(0);
        let table = Table::open(vfs, path.to_owned(), IDENTITY, None, cache)?;
        let mut first = None;
        table.verify(&mut |error| {
            first.get_or_insert(error);
        });
        first.map_or(Ok(Self(table)), Err)
    }

    /// What it says about itself, which has been checked.
    pub fn meta(&self) -> &TableMeta {
        self.0.meta()
    }

    /// A walk over its entries.
    pub fn cursor(&self) -> impl Cursor {
        let (wait, readahead_bytes) = (Wait::Allowed, READAHEAD_BYTES);
        self.0.cursor(CursorOptions { wait, fill_cache: false, readahead_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::MemVfs;

    fn vfs() -> Arc<dyn Vfs> {
        Arc::new(MemVfs::new())
    }

    fn write(vfs: &Arc<dyn Vfs>, path: &Path, count: u32) -> TableMeta {
        let mut writer = ExternalWriter::create(vfs, path, TableOptions::default()).unwrap();
        for n in 0..count {
            let kind = if n % 7 == 0 { Kind::Delete } else { Kind::Put };
            let value = if n % 7 == 0 { &b""[..] } else { b"value" };
            writer.add(format!("{n:05}").as_bytes(), kind, value).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        let (vfs, path) = (vfs(), Path::new("/t"));
        let meta = write(&vfs, path, 3000);
        let table = ExternalTable::open(&vfs, path).unwrap();
        assert_eq!((table.meta().entries, meta.entries), (3000, 3000));
        let mut cursor = table.cursor();
        cursor.seek_first().unwrap();
        for n in 0..3000_u32 {
            assert_eq!(cursor.key(), format!("{n:05}").as_bytes());
            cursor.next().unwrap();
        }
        assert!(!cursor.valid());
    }

    #[test]
    fn t004_19_keys_that_do_not_ascend_are_refused_and_the_table_goes_on() {
        let (vfs, path) = (vfs(), Path::new("/t"));
        let mut writer = ExternalWriter::create(&vfs, path, TableOptions::default()).unwrap();
        writer.add(b"b", Kind::Put, b"1").unwrap();
        let long = vec![7; 65_536];
        for key in [&b"a"[..], b"b", b"", &long] {
            let refused = writer.add(key, Kind::Put, b"2");
            assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
        }
        writer.add(b"c", Kind::Put, b"2").unwrap();
        assert_eq!(writer.finish().unwrap().entries, 2);
    }

    #[test]
    fn what_is_not_finished_leaves_no_file() {
        let (vfs, path) = (vfs(), Path::new("/t"));
        let empty = ExternalWriter::create(&vfs, path, TableOptions::default()).unwrap();
        assert!(matches!(empty.finish(), Err(Error::Invalid { .. })));
        let mut dropped = ExternalWriter::create(&vfs, path, TableOptions::default()).unwrap();
        dropped.add(b"a", Kind::Put, b"1").unwrap();
        drop(dropped);
        assert!(vfs.open(path).is_err());
    }

    /// Every byte, one bit of it. Planted: a check of the footer alone.
    #[test]
    fn t004_19_a_table_with_a_flipped_bit_is_refused() {
        let (vfs, path) = (vfs(), Path::new("/t"));
        write(&vfs, path, 40);
        let file = vfs.open(path).unwrap();
        let len = file.len().unwrap() as usize;
        let mut bytes = vec![0; len];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), len);
        for at in 0..len {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let _ = vfs.remove(Path::new("/d"));
            let copy = vfs.create(Path::new("/d")).unwrap();
            copy.write_all_at(&damaged, 0).unwrap();
            let opened = ExternalTable::open(&vfs, Path::new("/d"));
            assert!(opened.is_err(), "byte {at} of {len}");
        }
    }
}
