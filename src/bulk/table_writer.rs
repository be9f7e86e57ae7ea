//! Tables outside of any database.

use crate::error::Result;
use crate::options::{self, Compression, Options};
use sluicedb_storage::external::ExternalWriter;
use sluicedb_storage::key::Kind;
use sluicedb_storage::table::TableOptions;
use sluicedb_storage::vfs::Vfs;
use sluicedb_storage::vfs::disk::DiskVfs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Writes a table outside a database, with entries in key order, to be ingested with
/// [`Db::ingest`](crate::Db::ingest).
///
/// It needs no database, and any number of tables can be written side by side. Blocks on the disk:
/// in an async program use it on a thread that may wait.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("words.table");
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let mut table = sluicedb::TableWriter::create(&path)?;
/// for word in ["ant", "bee", "cat"] {
///     table.put(word, "an animal")?;
/// }
/// assert_eq!(table.finish()?.entries, 3);
///
/// let db = sluicedb::Db::open(dir.path().join("db")).await?;
/// db.ingest([&path]).await?;
/// assert_eq!(db.get("bee").await?.as_deref(), Some(&b"an animal"[..]));
/// # Ok::<_, sluicedb::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
#[must_use = "a table that is not finished is removed"]
pub struct TableWriter {
    path: PathBuf,
    writer: ExternalWriter,
}

/// A table outside a database.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its entries, deletes included.
    pub entries: u64,
    /// Its bytes on disk.
    pub bytes: u64,
    /// Its first key.
    pub first_key: Vec<u8>,
    /// Its last key.
    pub last_key: Vec<u8>,
}

impl TableWriter {
    /// Creates a table in a new file. It is compressed as a database's tables are by default.
    ///
    /// # Errors
    /// `Io`, including when the file exists already.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let mut table = sluicedb::TableWriter::create(dir.path().join("words.table"))?;
    /// table.put("ant", "an animal")?;
    /// table.finish()?;
    /// let again = sluicedb::TableWriter::create(dir.path().join("words.table"));
    /// assert_eq!(again.unwrap_err().kind(), sluicedb::ErrorKind::Io);
    /// # Ok::<_, sluicedb::Error>(())
    /// ```
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::create_with(path, Options::default().compression)
    }

    /// As [`create`](Self::create), with this compression.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use sluicedb::{Compression, TableWriter};
    /// let path = dir.path().join("photos.table");
    /// let mut table = TableWriter::create_with(&path, Compression::None)?;
    /// table.put("photo:1", vec![7; 50_000])?;
    /// assert!(table.finish()?.bytes > 50_000);
    /// # Ok::<_, sluicedb::Error>(())
    /// ```
    pub fn create_with(path: impl AsRef<Path>, compression: Compression) -> Result<Self> {
        let vfs: Arc<dyn Vfs> = Arc::new(DiskVfs::new());
        let path = path.as_ref().to_owned();
        let compression = options::table_compression(compression);
        let options = TableOptions { compression, ..TableOptions::default() };
        let writer = ExternalWriter::create(&vfs, &path, options::fresh_bytes(), options)?;
        Ok(Self { path, writer })
    }

    /// Adds an entry. Its key must be greater than the last one, in byte order. Blocks on the disk
    /// when a block is full.
    ///
    /// # Errors
    /// `Invalid` for a key that is not greater, for an empty key or one longer than 65,535 bytes,
    /// and for a value that is too long: the table goes on without the entry. `Io`: drop the table.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let mut table = sluicedb::TableWriter::create(dir.path().join("words.table"))?;
    /// table.put("bee", "an animal")?;
    /// assert_eq!(table.put("ant", "late").unwrap_err().kind(), sluicedb::ErrorKind::Invalid);
    /// table.put("cat", "an animal")?;
    /// assert_eq!(table.finish()?.entries, 2);
    /// # Ok::<_, sluicedb::Error>(())
    /// ```
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.writer.add(key.as_ref(), Kind::Put, value.as_ref())?)
    }

    /// Adds a delete. Once ingested, it hides what the database has for the key.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, TableWriter};
    /// let db = Db::open(dir.path().join("db")).await?;
    /// db.put("user:1", "Ada").await?;
    /// let path = dir.path().join("gone.table");
    /// let mut table = TableWriter::create(&path)?;
    /// table.delete("user:1")?;
    /// table.finish()?;
    /// db.ingest([&path]).await?;
    /// assert_eq!(db.get("user:1").await?, None);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.writer.add(key.as_ref(), Kind::Delete, &[])?)
    }

    /// Entries added so far.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let mut table = sluicedb::TableWriter::create(dir.path().join("words.table"))?;
    /// table.put("ant", "an animal")?;
    /// table.delete("bee")?;
    /// assert_eq!(table.entries(), 2);
    /// # Ok::<_, sluicedb::Error>(())
    /// ```
    pub fn entries(&self) -> u64 {
        self.writer.entries()
    }

    /// Finishes the table. When this returns, the table and its name are durable.
    ///
    /// # Errors
    /// `Invalid` for a table without entries; `Io`. The file is removed then.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let mut table = sluicedb::TableWriter::create(dir.path().join("words.table"))?;
    /// table.put("ant", "an animal")?;
    /// table.put("bee", "an animal")?;
    /// let file = table.finish()?;
    /// assert_eq!((file.entries, &file.last_key[..]), (2, &b"bee"[..]));
    /// # Ok::<_, sluicedb::Error>(())
    /// ```
    pub fn finish(self) -> Result<TableFile> {
        let meta = self.writer.finish()?;
        Ok(TableFile {
            path: self.path,
            entries: meta.entries,
            bytes: meta.file_bytes,
            first_key: meta.min_key.to_vec(),
            last_key: meta.max_key.to_vec(),
        })
    }
}
