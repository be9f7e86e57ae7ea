//! Tables outside a database: an application writes sorted data to them, and ingests them as a
//! whole.
//!
//! Such a file is a table like any other (`table/`). Its identity is unique, and belongs to no
//! database. So no database takes it for its own, and a block of another such file does not pass.
//! It is never adopted as it is: it is verified completely, and its entries are written again. The
//! file itself is only read.

use crate::batch::check_entry;
use crate::error::{Error, Result};
use crate::filename::FileNumber;
use crate::iter::Cursor;
use crate::key::{Kind, Seqno};
use crate::limits::VALUE_BYTES_CAP;
use crate::table::{
    BlockCache, CursorOptions, ReadTier, Table, TableBuilder, TableId, TableMeta, TableOptions,
};
use crate::vfs::Vfs;
use std::cell::Cell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The identity of such a file starts with this, instead of a database's id; random bytes follow.
const OUTSIDE: [u8; 8] = *b"outside ";
/// The sequence number of its entries, which has no meaning: they get the number of the change that
/// ingests them.
const ENTRY_SEQNO: Seqno = Seqno(1);
/// How far a copy reads ahead, in bytes.
const READAHEAD_BYTES: usize = 1 << 20;

/// Writes a table outside a database. Blocks on the disk. If it is dropped before `finish`, it
/// removes the file.
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
    /// Creates the file `path`. `fresh_id` must be random bytes that no other file has.
    ///
    /// # Errors
    /// `Io`, also if the file exists; `Invalid` for invalid options.
    pub fn create(
        vfs: &Arc<dyn Vfs>,
        path: &Path,
        fresh_id: [u8; 8],
        options: TableOptions,
    ) -> Result<Self> {
        options.validate()?;
        let file = vfs.create(path).map_err(|error| Error::io("create", path, error))?;
        let mut db_id = [0; 16];
        db_id[..8].copy_from_slice(&OUTSIDE);
        db_id[8..].copy_from_slice(&fresh_id);
        let id = TableId { db_id, number: FileNumber(1) };
        let builder = TableBuilder::new(file, path.to_owned(), id, options);
        let (vfs, path) = (Arc::clone(vfs), path.to_owned());
        Ok(Self { vfs, path, builder: Some(builder), last_key: Vec::new() })
    }

    /// Adds an entry. Its key must be after the last one.
    ///
    /// # Errors
    /// `Invalid` if the key is not after the last one, empty or too long, or if the value is too
    /// long. The entry is left out, and others may follow. After `Io` nothing more can be added.
    pub fn add(&mut self, key: &[u8], kind: Kind, value: &[u8]) -> Result<()> {
        check_entry(key.len(), value.len(), VALUE_BYTES_CAP).map_err(Error::invalid)?;
        if key <= &self.last_key[..] {
            return Err(Error::invalid(format!(
                "the key, of {} bytes, is not after the one before, of {} bytes; add keys in byte \
                 order, each once",
                key.len(),
                self.last_key.len()
            )));
        }
        let builder = self.builder.as_mut().expect("it is there until `finish`");
        builder.add(key, ENTRY_SEQNO, kind, value)?;
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        Ok(())
    }

    /// The number of entries so far.
    pub fn entries(&self) -> u64 {
        self.builder.as_ref().map_or(0, TableBuilder::entries)
    }

    /// Finishes the table and makes it durable, including its name.
    ///
    /// # Errors
    /// `Invalid` if there is no entry; `Io`. The file is removed then.
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

/// A table outside a database, verified completely. It is not open, so any number of them costs
/// almost nothing.
#[derive(Debug)]
pub struct ExternalTable {
    path: PathBuf,
    id: TableId,
    meta: TableMeta,
}

impl ExternalTable {
    /// Reads every byte of the file at `path` and verifies checksums, order, bounds, counts and
    /// sizes. Calls `goes_on` before each block, and returns `None` if that returned false. Blocks
    /// on the disk.
    ///
    /// # Errors
    /// `Corrupt`, with the first problem, if the file is no such table or is damaged;
    /// `Unsupported`; `Io`.
    pub fn check(
        vfs: &Arc<dyn Vfs>,
        path: &Path,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Self>> {
        let table = Table::open_any(vfs, path.to_owned(), BlockCache::new(0))?;
        let (id, meta) = (table.id(), table.meta().clone());
        if !id.db_id.starts_with(&OUTSIDE) {
            let what = format!("file is table {} of a database", id.number);
            return Err(Error::corrupt(path, 0, what));
        }
        let first = Cell::new(None);
        let is_sound = || {
            let error = first.take();
            let is_sound = error.is_none();
            first.set(error);
            is_sound
        };
        let checked = table.verify_while(&mut || is_sound() && goes_on(), &mut |error| {
            first.set(Some(first.take().unwrap_or(error)));
        });
        match first.take() {
            Some(error) => Err(error),
            None => Ok(checked.map(|_| Self { path: path.to_owned(), id, meta })),
        }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its metadata, which was verified.
    pub fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// Passes its entries to `each`, in order. Blocks on the disk.
    ///
    /// # Errors
    /// As `each`; `Corrupt` if the file has changed since it was checked; `Io`.
    pub fn read<E: From<Error>>(
        &self,
        vfs: &Arc<dyn Vfs>,
        mut each: impl FnMut(&[u8], Kind, &[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let cache = BlockCache::new(0);
        let table = Table::open(vfs, self.path.clone(), self.id, Some(&self.meta), cache)?;
        let (tier, readahead_bytes) = (ReadTier::Disk, READAHEAD_BYTES);
        let how = CursorOptions { tier, fill_cache: false, readahead_bytes };
        let (mut cursor, mut entries) = (table.cursor(how), 0);
        cursor.seek_first()?;
        while cursor.valid() {
            each(cursor.key(), cursor.kind(), cursor.value())?;
            entries += 1;
            cursor.next()?;
        }
        if entries != self.meta.entries {
            let what = format!("it had {} entries, and has {entries} now", self.meta.entries);
            return Err(Error::corrupt(&self.path, 0, what).into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::MemVfs;

    fn vfs() -> Arc<dyn Vfs> {
        Arc::new(MemVfs::new())
    }

    fn create(vfs: &Arc<dyn Vfs>, path: &Path, id: u8) -> ExternalWriter {
        ExternalWriter::create(vfs, path, [id; 8], TableOptions::default()).unwrap()
    }

    /// A table of `count` entries with values of five bytes, all `value`.
    fn write(vfs: &Arc<dyn Vfs>, path: &Path, count: u32, value: u8) -> TableMeta {
        let mut writer = create(vfs, path, value);
        for n in 0..count {
            let kind = if n % 7 == 0 { Kind::Delete } else { Kind::Put };
            let value = if n % 7 == 0 { vec![] } else { vec![value; 5] };
            writer.add(format!("{n:05}").as_bytes(), kind, &value).unwrap();
        }
        writer.finish().unwrap()
    }

    fn check(vfs: &Arc<dyn Vfs>, path: &str) -> Result<ExternalTable> {
        let checked = ExternalTable::check(vfs, Path::new(path), &mut || true)?;
        Ok(checked.expect("nobody ends it"))
    }

    fn bytes_of(vfs: &Arc<dyn Vfs>, path: &Path) -> Vec<u8> {
        let file = vfs.open(path).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
        bytes
    }

    fn put(vfs: &Arc<dyn Vfs>, path: &str, bytes: &[u8]) {
        let _ = vfs.remove(Path::new(path));
        vfs.create(Path::new(path)).unwrap().write_all_at(bytes, 0).unwrap();
    }

    #[test]
    fn what_was_written_is_read() {
        let (vfs, path) = (vfs(), Path::new("/t"));
        let meta = write(&vfs, path, 3000, 7);
        let table = check(&vfs, "/t").unwrap();
        assert_eq!((table.meta().entries, meta.entries), (3000, 3000));
        let mut n = 0;
        let read: Result<()> = table.read(&vfs, |key, _, _| {
            assert_eq!(key, format!("{n:05}").as_bytes());
            n += 1;
            Ok(())
        });
        read.unwrap();
        assert_eq!(n, 3000);
    }

    /// Planted: all files have the same identity.
    #[test]
    fn blocks_of_another_table_outside_are_refused() {
        let vfs = vfs();
        for (path, value) in [("/a", 7), ("/b", 8)] {
            write(&vfs, Path::new(path), 3000, value);
        }
        let (a, b) = (bytes_of(&vfs, Path::new("/a")), bytes_of(&vfs, Path::new("/b")));
        assert_eq!(a.len(), b.len());
        let spliced = [&a[..a.len() / 2], &b[b.len() / 2..]].concat();
        put(&vfs, "/c", &spliced);
        assert!(matches!(check(&vfs, "/c"), Err(Error::Corrupt { .. })));
        // Also between the check and the copy, and if the file becomes another table as a whole.
        let table = check(&vfs, "/a").unwrap();
        for bytes in [spliced, b] {
            put(&vfs, "/a", &bytes);
            let read: Result<()> = table.read(&vfs, |_, _, _| Ok(()));
            assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
        }
    }

    #[test]
    fn a_table_of_a_database_is_refused() {
        let (vfs, path) = (vfs(), PathBuf::from("/t"));
        let id = TableId { db_id: [7; 16], number: FileNumber(3) };
        let file = vfs.create(&path).unwrap();
        let mut builder = TableBuilder::new(file, path, id, TableOptions::default());
        builder.add(b"a", Seqno(1), Kind::Put, b"v").unwrap();
        builder.finish().unwrap();
        let refused = check(&vfs, "/t");
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    }

    #[test]
    fn a_check_ends_when_it_is_told() {
        let vfs = vfs();
        write(&vfs, Path::new("/t"), 3000, 7);
        let mut blocks = 3;
        let checked = ExternalTable::check(&vfs, Path::new("/t"), &mut || {
            blocks -= 1;
            blocks > 0
        });
        assert!(checked.unwrap().is_none());
    }

    #[test]
    fn t004_19_keys_that_do_not_ascend_are_refused_and_the_table_goes_on() {
        let (vfs, path) = (vfs(), Path::new("/t"));
        let mut writer = create(&vfs, path, 1);
        writer.add(b"b", Kind::Put, b"1").unwrap();
        let long = vec![7; 65_536];
        for key in [&b"a"[..], b"b", b"", &long] {
            let refused = writer.add(key, Kind::Put, b"2");
            assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
        }
        writer.add(b"c sesame", Kind::Put, b"2").unwrap();
        let told = writer.add(b"b sesame", Kind::Put, b"3").unwrap_err().to_string();
        assert!(told.contains("of 8 bytes") && !told.contains("sesame"), "{told}");
        assert_eq!(writer.finish().unwrap().entries, 2);
    }

    #[test]
    fn what_is_not_finished_leaves_no_file() {
        let (vfs, path) = (vfs(), Path::new("/t"));
        let empty = create(&vfs, path, 1);
        assert!(matches!(empty.finish(), Err(Error::Invalid { .. })));
        let mut dropped = create(&vfs, path, 1);
        dropped.add(b"a", Kind::Put, b"1").unwrap();
        drop(dropped);
        assert!(vfs.open(path).is_err());
    }

    /// Goal: one flipped bit in every byte is found.
    /// Planted: only the footer is checked.
    #[test]
    fn t004_19_a_table_with_a_flipped_bit_is_refused() {
        let (vfs, path) = (vfs(), Path::new("/t"));
        write(&vfs, path, 40, 7);
        let bytes = bytes_of(&vfs, path);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            put(&vfs, "/d", &damaged);
            assert!(check(&vfs, "/d").is_err(), "byte {at} of {}", bytes.len());
        }
    }
}
