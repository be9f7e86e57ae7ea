//! Which spans get which tables.

use sluicedb_storage::batch::KeyspaceRef;
use sluicedb_storage::key::Span;
use sluicedb_storage::key_range::KeyRange;
use std::path::{Path, PathBuf};

/// What [`Db::ingest_and_excise`](crate::Db::ingest_and_excise) does: spans, each with the tables
/// that hold everything that will be in it.
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
    pub(super) entries: Vec<Entry>,
}

/// One span of a plan.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// `None` for the keyspace of the handle that carries the plan out.
    pub(super) keyspace: Option<KeyspaceRef>,
    pub(super) span: Span,
    pub(super) tables: Vec<PathBuf>,
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
    /// let plan = IngestPlan::new().replace(sluicedb::prefix("user:"), nothing);
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
