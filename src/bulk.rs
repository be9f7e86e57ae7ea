//! Whole spans of keys at once: ingesting tables from outside, excising spans, and replacing spans
//! by what another database has.
//!
//! Long because each call has its rules and an example beside it.

use crate::db::Db;
use crate::error::{Error, Result};
use crate::keyspaces::another_database;
use crate::options;
use crate::options::{Compression, Options};
use crate::snapshot::Snapshot;
use sluicedb_actors::bulk_worker::message::{Content, ExternalFile};
use sluicedb_storage::batch::KeyspaceRef;
use sluicedb_storage::external::ExternalWriter;
use sluicedb_storage::key::{Kind, Span};
use sluicedb_storage::key_range::KeyRange;
use sluicedb_storage::keyspace::KeyspaceSpan;
use sluicedb_storage::table::TableOptions;
use sluicedb_storage::vfs::Vfs;
use sluicedb_storage::vfs::disk::DiskVfs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A span with at most this many keys is deleted key by key.
const HANDFUL: u64 = 16;

/// Writes a table outside a database, with entries in key order, to be ingested with
/// [`Db::ingest`].
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

/// What [`Db::ingest_and_excise`] does: spans, each with the tables that hold everything that will
/// be in it.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use sluicedb::{Db, IngestPlan, TableWriter};
///
/// let path = dir.path().join("words.table");
/// let mut table = TableWriter::create(&path)?;
/// table.put("word:ant", "new")?;
/// table.finish()?;
///
/// let db = Db::open(dir.path().join("db")).await?;
/// db.put("word:bee", "old").await?;
/// let plan = IngestPlan::new().replace("word:".."word;", [&path]);
/// assert_eq!(db.ingest_and_excise(plan).await?, 1);
/// assert_eq!(db.get("word:bee").await?, None);
/// assert!(db.contains_key("word:ant").await?);
/// # Ok::<_, sluicedb::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a plan does nothing by itself"]
pub struct IngestPlan {
    entries: Vec<Entry>,
}

/// One span of a plan.
#[derive(Clone, Debug)]
struct Entry {
    /// `None` for the keyspace of the handle that carries the plan out.
    keyspace: Option<KeyspaceRef>,
    span: Span,
    tables: Vec<PathBuf>,
}

impl IngestPlan {
    /// A plan that changes nothing yet.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let plan = sluicedb::IngestPlan::new();
    /// assert_eq!(db.ingest_and_excise(plan).await?, 0, "nothing happens");
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a span. Afterwards it holds what `tables` have and nothing else; without tables it is
    /// empty. All keys of the tables must be in the span. The span belongs to the keyspace of the
    /// handle that carries the plan out.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// use sluicedb::IngestPlan;
    /// db.put("a:1", "old").await?;
    /// db.put("b:1", "old").await?;
    /// let nothing: [&str; 0] = [];
    /// let plan = IngestPlan::new().replace("a:".."a;", nothing).replace("b:".."b;", nothing);
    /// db.ingest_and_excise(plan).await?;
    /// assert!(!db.contains_key("a:1").await? && !db.contains_key("b:1").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    #[allow(
        clippy::needless_pass_by_value,
        reason = "`replace(a..b, tables)` reads better than `replace(&(a..b), tables)`"
    )]
    pub fn replace<P: AsRef<Path>>(
        self,
        span: impl KeyRange,
        tables: impl IntoIterator<Item = P>,
    ) -> Self {
        self.with(None, span.span(), tables)
    }

    /// As [`replace`](Self::replace), for a span of the keyspace of this handle.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// use sluicedb::IngestPlan;
    /// let index = db.keyspace("index").await?;
    /// db.put("user:1", "Ada").await?;
    /// index.put("Ada", "user:1").await?;
    /// let nothing: [&str; 0] = [];
    /// let plan = IngestPlan::new().replace("user:".."user;", nothing);
    /// let plan = plan.replace_in(&index, .., nothing);
    /// db.ingest_and_excise(plan).await?;
    /// assert!(!db.contains_key("user:1").await? && !index.contains_key("Ada").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    #[allow(
        clippy::needless_pass_by_value,
        reason = "`replace_in(&index, a..b, tables)` reads better than with `&(a..b)`"
    )]
    pub fn replace_in<P: AsRef<Path>>(
        self,
        keyspace: impl Into<KeyspaceRef>,
        span: impl KeyRange,
        tables: impl IntoIterator<Item = P>,
    ) -> Self {
        self.with(Some(keyspace.into()), span.span(), tables)
    }

    fn with<P: AsRef<Path>>(
        mut self,
        keyspace: Option<KeyspaceRef>,
        span: Span,
        tables: impl IntoIterator<Item = P>,
    ) -> Self {
        let tables = tables.into_iter().map(|path| path.as_ref().to_owned()).collect();
        self.entries.push(Entry { keyspace, span, tables });
        self
    }
}

/// What [`Db::replace_from`] does if the source has nothing in any of the spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnEmpty {
    /// The spans become empty, as they are in the source.
    #[default]
    Wipe,
    /// Nothing changes, and the call fails with `Invalid`.
    Refuse,
}

/// What [`Db::replace_from`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// The spans hold what the source has there, and nothing else.
    Replaced {
        /// Entries that were written, or that are in tables that were taken over. If such tables
        /// overlap, a key may count more than once: they are not read just for this number.
        entries: u64,
    },
    /// The source had nothing there, so the spans are empty now.
    Emptied,
}

impl Db {
    /// Ingests tables from outside, all of them in one change. They are newer than everything that
    /// was written before. Each is checked from end to end and written anew; the files are only
    /// read. Returns the number of entries.
    ///
    /// The entries become tables without passing through the log and memory, so this causes no
    /// merge. When it returns, the change survives a power cut. A thread of the engine does the
    /// work; writers and readers go on.
    ///
    /// # Errors
    /// `Invalid` for tables whose key ranges overlap, and for a value longer than
    /// [`value_bytes_max`](Options::value_bytes_max). `Corrupt` for a file that is damaged or not
    /// such a table. `Io`, `NoSpace`, `Closed`, or why the engine has stopped. Nothing has happened
    /// then, with one exception: if there is no space to sync the log, the change is in force, and
    /// becomes durable once there is space.
    ///
    /// # Cancellation
    /// If it is dropped before the tables are written, nothing happens, and the writing ends soon.
    /// If it is dropped later, the change happens all the same.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, TableWriter};
    /// let path = dir.path().join("words.table");
    /// let mut table = TableWriter::create(&path)?;
    /// table.put("ant", "an animal")?;
    /// table.finish()?;
    ///
    /// let db = Db::open(dir.path().join("db")).await?;
    /// db.put("ant", "old").await?;
    /// assert_eq!(db.ingest([&path]).await?, 1);
    /// assert_eq!(db.get("ant").await?.as_deref(), Some(&b"an animal"[..]));
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn ingest<P: AsRef<Path>>(&self, tables: impl IntoIterator<Item = P>) -> Result<u64> {
        let keyspace = self.keyspace_id();
        let file =
            |path: P| ExternalFile { path: path.as_ref().to_owned(), keyspace, within: None };
        let files: Vec<_> = tables.into_iter().map(file).collect();
        if files.is_empty() {
            return Ok(0);
        }
        let (_, entries) = self.engine().replace(Vec::new(), Content::Tables(files)).await?;
        Ok(entries)
    }

    /// Replaces what is in spans of keys by tables from outside, in one change for all spans.
    /// Readers see all of the old or all of the new; snapshots and scans that began before keep the
    /// old. What was acknowledged in the spans before the call is gone, and what is written after
    /// it stays, also after a restart. Returns the number of entries that were ingested.
    ///
    /// Otherwise it works as [`ingest`](Self::ingest). It waits for no flush: what memory holds in
    /// the spans is masked.
    ///
    /// # Errors
    /// As [`ingest`](Self::ingest). Also `Invalid` for spans that overlap, and for a table with a
    /// key outside its span.
    ///
    /// # Cancellation
    /// As [`ingest`](Self::ingest).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, IngestPlan, TableWriter};
    /// let path = dir.path().join("users.table");
    /// let mut table = TableWriter::create(&path)?;
    /// table.put("user:2", "Bob")?;
    /// table.finish()?;
    ///
    /// let db = Db::open(dir.path().join("db")).await?;
    /// db.put("user:1", "Ada").await?;
    /// let before = db.snapshot();
    /// db.ingest_and_excise(IngestPlan::new().replace("user:".."user;", [&path])).await?;
    /// assert_eq!(db.get("user:1").await?, None);
    /// assert!(db.contains_key("user:2").await?);
    /// assert!(before.contains_key("user:1").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn ingest_and_excise(&self, plan: IngestPlan) -> Result<u64> {
        let (mut spans, mut files) = (Vec::new(), Vec::new());
        for Entry { keyspace, span, tables } in plan.entries {
            let keyspace = keyspace.unwrap_or(self.keyspace_ref());
            if !self.is_same(keyspace) {
                return Err(another_database());
            }
            let keyspace = keyspace.id();
            let within = Some(span.clone());
            let file = |path| ExternalFile { path, keyspace, within: within.clone() };
            files.extend(tables.into_iter().map(file));
            if !span.is_empty() {
                spans.push(KeyspaceSpan { keyspace, span });
            }
        }
        if spans.is_empty() && files.is_empty() {
            return Ok(0);
        }
        let (_, entries) = self.engine().replace(spans, Content::Tables(files)).await?;
        Ok(entries)
    }

    /// Excises all keys of `range`, in one change and without reading them: tables inside the range
    /// are dropped as a whole, others are cut. Costs the same for a thousand keys as for a billion.
    /// Waits for two syncs of the disk.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Closed`, or why the engine has stopped.
    ///
    /// # Cancellation
    /// As [`ingest`](Self::ingest).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("session:1", "a").await?;
    /// db.put("user:1", "b").await?;
    /// db.excise("session:".."session;").await?;
    /// assert!(!db.contains_key("session:1").await?);
    /// assert!(db.contains_key("user:1").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    #[allow(
        clippy::needless_pass_by_value,
        reason = "`excise(a..b)` reads better than `excise(&(a..b))`"
    )]
    pub async fn excise(&self, range: impl KeyRange) -> Result<()> {
        let span = range.span();
        if !span.is_empty() {
            self.excise_span(span).await?;
        }
        Ok(())
    }

    /// Deletes all keys of `range`: in a batch if there are only a few, otherwise as
    /// [`excise`](Self::excise). Returns when that is acknowledged.
    ///
    /// Everything that was acknowledged before the call is gone. If there are only a few keys, they
    /// are first looked for and then deleted. So of what others write into `range` during the call,
    /// some may stay and some may be deleted. Use [`excise`](Self::excise) where that matters: it
    /// has one place in the order of writes.
    ///
    /// # Errors
    /// As [`excise`](Self::excise) and [`write`](Self::write).
    ///
    /// # Cancellation
    /// As [`excise`](Self::excise).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "a").await?;
    /// db.put("user:2", "b").await?;
    /// db.delete_range("user:".."user:2").await?;
    /// assert_eq!(db.get("user:1").await?, None);
    /// assert!(db.contains_key("user:2").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn delete_range(&self, range: impl KeyRange) -> Result<()> {
        self.delete_span(range.span()).await
    }

    /// Deletes all keys that start with `prefix`; see [`delete_range`](Self::delete_range).
    ///
    /// # Errors
    /// As [`delete_range`](Self::delete_range).
    ///
    /// # Cancellation
    /// As [`delete_range`](Self::delete_range).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("user:1", "a").await?;
    /// db.put("user:2", "b").await?;
    /// db.delete_prefix("user:").await?;
    /// assert_eq!(db.get("user:2").await?, None);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<()> {
        self.delete_span(Span::prefix(prefix.as_ref())).await
    }

    async fn excise_span(&self, span: Span) -> Result<()> {
        let spans = vec![KeyspaceSpan { keyspace: self.keyspace_id(), span }];
        self.engine().replace(spans, Content::Nothing).await?;
        Ok(())
    }

    async fn delete_span(&self, span: Span) -> Result<()> {
        if span.is_empty() {
            return Ok(());
        }
        let mut scan = self.scan(span.clone()).keys_only().limit(HANDFUL + 1);
        let mut batch = self.batch();
        while let Some(entries) = scan.next_batch().await? {
            for (key, _) in entries.iter() {
                batch.delete(key);
            }
        }
        match batch.len() as u64 {
            0 => Ok(()),
            1..=HANDFUL => self.write(batch).await.map(drop),
            _ => self.excise_span(span).await,
        }
    }

    /// Makes the keys in `spans` exactly what `source` has there, in one change for all spans. The
    /// source is a snapshot of another database, or of this one, seen from any keyspace. Everything
    /// outside the spans stays as it is. As with [`ingest_and_excise`](Self::ingest_and_excise),
    /// readers see all of the old or all of the new.
    ///
    /// Some tables of the source are not copied: those that are inside a span, contain no deletion,
    /// and have nothing of memory between their keys. Every byte of such a table is checked. Then
    /// its file gets a second name in this directory, if that is on the same file system. So the
    /// table takes no more space while both databases have it. It stays as it was written,
    /// compression and filters included, until it is merged. Tables that overlap each other go into
    /// a landing and are merged from there, if they hide few of each other's entries. If the source
    /// was filled in key order, or [compacted](Self::compact), nothing is left to merge.
    ///
    /// # Errors
    /// As [`ingest_and_excise`](Self::ingest_and_excise); the errors of reading the source;
    /// `Invalid` if the source has nothing there and `on_empty` is `Refuse`. Nothing has happened
    /// then.
    ///
    /// # Cancellation
    /// As [`ingest`](Self::ingest).
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, OnEmpty, Replacement};
    ///
    /// let new = Db::open(dir.path().join("a")).await?;
    /// let live = Db::open(dir.path().join("b")).await?;
    /// live.put("user:1", "old").await?;
    /// new.put("user:2", "new").await?;
    /// let done = live.replace_from(&new.snapshot(), ["user:".."user;"], OnEmpty::Wipe).await?;
    /// assert_eq!(done, Replacement::Replaced { entries: 1 });
    /// assert_eq!(live.get("user:1").await?, None);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn replace_from<R: KeyRange>(
        &self,
        source: &Snapshot,
        spans: impl IntoIterator<Item = R>,
        on_empty: OnEmpty,
    ) -> Result<Replacement> {
        let spans: Vec<Span> = spans.into_iter().map(|span| span.span()).collect();
        let spans: Vec<Span> = spans.into_iter().filter(|span| !span.is_empty()).collect();
        if spans.is_empty() {
            return Ok(Replacement::Replaced { entries: 0 });
        }
        if on_empty == OnEmpty::Refuse {
            let mut is_empty = true;
            for span in &spans {
                is_empty &= source.scan(span.clone()).limit(1).next_batch().await?.is_none();
            }
            if is_empty {
                let what = "the source has no key in any of the spans, and on_empty is Refuse";
                return Err(Error::invalid(what));
            }
        }
        let from = source.reader();
        let content = Content::View(Box::new(from.view().clone()), from.keyspace().id());
        let keyspace = self.keyspace_id();
        let spans = spans.into_iter().map(|span| KeyspaceSpan { keyspace, span }).collect();
        let (_, entries) = self.engine().replace(spans, content).await?;
        Ok(if entries == 0 { Replacement::Emptied } else { Replacement::Replaced { entries } })
    }
}
