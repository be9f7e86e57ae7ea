//! Whole spans of keys at once: tables from outside, spans cut out, spans that become what another
//! database has.

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

/// A span with no more keys than this is deleted key by key.
const HANDFUL: u64 = 16;

/// Writes a table outside a database, of entries in key order, to be brought in with
/// [`Db::ingest`].
///
/// It needs no database, and any number of them can be written side by side. Blocks on the disk: in
/// an async program use it on a thread that may wait.
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
    /// Into a new file, compressed as a database's tables are by default.
    ///
    /// # Errors
    /// `Io`, also where there is a file already.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::create_with(path, Options::default().compression)
    }

    /// The same, compressed like this.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_with(path: impl AsRef<Path>, compression: Compression) -> Result<Self> {
        let vfs: Arc<dyn Vfs> = Arc::new(DiskVfs::new());
        let path = path.as_ref().to_owned();
        let compression = options::table_compression(compression);
        let options = TableOptions { compression, ..TableOptions::default() };
        let writer = ExternalWriter::create(&vfs, &path, options::fresh_bytes(), options)?;
        Ok(Self { path, writer })
    }

    /// Adds an entry. Its key comes after the last one's in byte order.
    ///
    /// # Errors
    /// `Invalid` for a key that does not, for one that is empty or longer than 65,535 bytes, and
    /// for a value that is too long: the table goes on without the entry. `Io`: it is to be
    /// dropped.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.writer.add(key.as_ref(), Kind::Put, value.as_ref())?)
    }

    /// Adds a delete: brought in, it hides what the database has under the key.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.writer.add(key.as_ref(), Kind::Delete, &[])?)
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.writer.entries()
    }

    /// Ends the table. It is durable, its name included, when this returns.
    ///
    /// # Errors
    /// `Invalid` for a table without entries; `Io`. The file is removed.
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

/// What [`Db::ingest_and_excise`] does: spans, each with the tables that have all that will be in
/// it.
#[derive(Clone, Debug, Default)]
#[must_use = "a plan does nothing by itself"]
pub struct IngestPlan {
    entries: Vec<Entry>,
}

/// One span of a plan.
#[derive(Clone, Debug)]
struct Entry {
    /// `None`: that of the handle which carries the plan out.
    keyspace: Option<KeyspaceRef>,
    span: Span,
    tables: Vec<PathBuf>,
}

impl IngestPlan {
    /// A plan that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// After it nothing is in `span` but what is in `tables`, of which all keys lie in it. Without
    /// a table: nothing. The span is of the keyspace of the handle that carries the plan out.
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

    /// The same for a span of the keyspace of this handle.
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

/// What [`Db::replace_from`] does when the source has nothing in any of the spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnEmpty {
    /// The spans become empty: they are what the source has.
    #[default]
    Wipe,
    /// Nothing is changed, and the call fails with `Invalid`.
    Refuse,
}

/// What [`Db::replace_from`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// The spans have what the source has there, and nothing else.
    Replaced {
        /// So many entries were written, or are in tables that were taken over. Where such tables
        /// lie over each other a key may count more than once: they are not read for the sake of
        /// this number.
        entries: u64,
    },
    /// The source had nothing there, and so has this database now.
    Emptied,
}

impl Db {
    /// Brings in tables from outside: all of them in one change, newer than all that was written
    /// before. Each is checked from end to end and written anew; the files are only read. Returns
    /// the number of entries.
    ///
    /// They come as tables, not through the log and memory: nothing is merged because of it.
    /// Survives a power cut when it returns. Runs on a thread of the engine; writers and readers go
    /// on.
    ///
    /// # Errors
    /// `Invalid` for tables that have keys in common between their first and last ones, and for a
    /// value longer than [`value_bytes_max`](Options::value_bytes_max); `Corrupt` for a file that
    /// is damaged or no such table; `Io`, `NoSpace`, `Closed`, or why the engine has stopped.
    /// Nothing has happened then; but where there is no space to sync the log, all is in force, and
    /// durable once there is space.
    ///
    /// # Cancellation
    /// Dropped before the tables are written, nothing happens, and the writing ends soon. Dropped
    /// later, it happens all the same.
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

    /// Replaces what is in spans of keys by tables from outside, in one change over all of them:
    /// readers see all of the old or all of the new, and snapshots and scans that were begun before
    /// keep the old. What was acknowledged in the spans before the call is gone, what is written
    /// after it stays, and a restart agrees. Returns the number of entries that came in.
    ///
    /// Otherwise as [`ingest`](Self::ingest). Nothing waits for a flush: what memory has in the
    /// spans is passed over.
    ///
    /// # Errors
    /// As [`ingest`](Self::ingest); `Invalid` as well for spans that overlap, and for a table with
    /// a key outside its span.
    ///
    /// # Cancellation
    /// As [`ingest`](Self::ingest).
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

    /// Cuts all keys of `range` out, in one change and without looking at them: tables that lie in
    /// it go as a whole, others are cut. Costs the same for a thousand keys as for a billion.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Closed`, or why the engine has stopped.
    ///
    /// # Cancellation
    /// As [`ingest`](Self::ingest).
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

    /// Deletes all keys of `range`: one by one in a batch where there is a handful of them, or else
    /// as [`excise`](Self::excise). Returns when that is acknowledged.
    ///
    /// All that was acknowledged before the call is gone. A handful is looked for first and deleted
    /// then, so of what others write into `range` during the call some may stay and some may go.
    /// Where that matters use [`excise`](Self::excise), which has one place in the order of writes.
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
        while let Some(chunk) = scan.next_chunk().await? {
            for (key, _) in chunk.iter() {
                batch.delete(key);
            }
        }
        match batch.len() as u64 {
            0 => Ok(()),
            1..=HANDFUL => self.write(batch).await.map(drop),
            _ => self.excise_span(span).await,
        }
    }

    /// Makes the keys in `spans` exactly what `source` has there, in one change over all of them: a
    /// snapshot of another database, or of this one, seen from whatever keyspace. All else stays as
    /// it is. As with [`ingest_and_excise`](Self::ingest_and_excise), readers see all of the old or
    /// all of the new.
    ///
    /// Tables of the source that lie in a span, with no deletion in them and nothing in memory
    /// between their keys, are not copied: their files get a second name in this directory, where
    /// that is in the same file system, after every byte of them was checked. So they take no more
    /// space while both have them. They stay as they were written, compression and filters
    /// included, until they are merged. Tables that lie over each other come into a landing and are
    /// merged from there, if they hide little of each other; of a source that was filled in key
    /// order, or [compacted](Self::compact), nothing is left to do.
    ///
    /// # Errors
    /// As [`ingest_and_excise`](Self::ingest_and_excise); what reading the source finds; `Invalid`
    /// if it has nothing there and `on_empty` says to refuse that. Nothing has happened then.
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
                is_empty &= source.scan(span.clone()).limit(1).next_chunk().await?.is_none();
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
