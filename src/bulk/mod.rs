//! Whole spans of keys at once: ingesting tables from outside, excising spans, and replacing spans
//! by what another database has.

mod plan;
mod table_writer;

pub use plan::IngestPlan;
pub use table_writer::{TableFile, TableWriter};

use crate::db::Db;
use crate::error::{Error, Result};
use crate::keyspaces::another_database;
use crate::snapshot::Snapshot;
use plan::Entry;
use sluicedb_actors::bulk_worker::message::{Content, ExternalFile};
use sluicedb_storage::key::Span;
use sluicedb_storage::key_range::KeyRange;
use sluicedb_storage::keyspace::KeyspaceSpan;
use std::path::Path;

/// A span with at most this many keys is deleted key by key.
const HANDFUL: u64 = 16;

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
    /// [`value_bytes_max`](crate::Options::value_bytes_max). `Corrupt` for a file that is damaged
    /// or not such a table. `Io`, `NoSpace`, `Closed`, or why the engine has stopped.
    /// [`Error::outcome`](crate::Error::outcome) says whether anything has happened. If there is no
    /// space to sync the log, the change is in force, and becomes durable once there is space.
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
    /// db.ingest_and_excise(IngestPlan::new().replace(sluicedb::prefix("user:"), [&path])).await?;
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
    /// `Io`, `NoSpace`, `Closed`, or why the engine has stopped;
    /// [`Error::outcome`](crate::Error::outcome) says whether the keys are gone.
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
    /// As [`excise`](Self::excise) and [`write`](Self::write). `Corrupt` or `Io` if the first keys
    /// of `range` cannot be read; `excise` does not read.
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
        while let Some(entries) = scan.next_chunk().await? {
            for (key, _) in entries.iter() {
                batch.delete(key);
            }
        }
        let is_small = batch.encoded_len() <= self.engine().batch_bytes_max();
        match batch.len() as u64 {
            0 => Ok(()),
            1..=HANDFUL if is_small => self.write(batch).await.map(drop),
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
    /// `Invalid` if the source has nothing there and `on_empty` is `Refuse`.
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
    /// let users = [sluicedb::prefix("user:")];
    /// let done = live.replace_from(&new.snapshot(), users, OnEmpty::Wipe).await?;
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
