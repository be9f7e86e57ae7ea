//! Keyspaces: parts of a database with keys of their own. Batches and snapshots span all of them.

use crate::coop;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::options::{Compression, table_compression, told_compression};
use crate::read_only::ReadOnlyDb;
use crate::snapshot::Snapshot;
use bytes::Bytes;
use sluicedb_actors::version_manager::message::Change;
use sluicedb_storage::batch::{KeyspaceRef, WriteBatch};
use sluicedb_storage::keyspace::{KeyspaceId, no_keyspace};
use sluicedb_storage::points::Holder;
use sluicedb_storage::version::KeyspaceOptions as Own;
use sluicedb_storage::version::{DEFAULT_KEYSPACE, Keyspaces, RangeVersion, check_name};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number for a database that is being opened. No other one of this process has it.
pub(crate) fn next_database() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The names of all keyspaces: the default one first, the others in the order of their creation.
pub(crate) fn names(keyspaces: &Keyspaces) -> Vec<String> {
    let named = keyspaces.named().map(|(_, keyspace)| keyspace.name.to_string());
    std::iter::once(DEFAULT_KEYSPACE.to_owned()).chain(named).collect()
}

/// The options in which a keyspace differs from its database: see the options of the same names in
/// [`Options`](crate::Options). An option that is not set is as in the [`Options`](crate::Options)
/// of each open.
///
/// They are stored in the database, and may be changed whenever the keyspace is opened. New tables
/// and new decisions follow the new ones.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceOptions {
    /// See [`Options::compression`](crate::Options::compression).
    pub compression: Option<Compression>,
    /// See [`Options::filter_bits_per_key`](crate::Options::filter_bits_per_key).
    pub filter_bits_per_key: Option<usize>,
    /// See [`Options::shards_per_range`](crate::Options::shards_per_range).
    pub shards_per_range: Option<usize>,
    /// See [`Options::level_base_bytes`](crate::Options::level_base_bytes).
    pub level_base_bytes: Option<u64>,
    /// See [`Options::level_ratio`](crate::Options::level_ratio).
    pub level_ratio: Option<u64>,
    /// See [`Options::landing_runs_max`](crate::Options::landing_runs_max).
    pub landing_runs_max: Option<usize>,
    /// See [`Options::range_bytes_max`](crate::Options::range_bytes_max).
    pub range_bytes_max: Option<u64>,
    /// See [`Options::range_entries_max`](crate::Options::range_entries_max).
    pub range_entries_max: Option<u64>,
    /// See [`Options::range_heat_max`](crate::Options::range_heat_max).
    pub range_heat_max: Option<u64>,
}

impl From<KeyspaceOptions> for Own {
    fn from(options: KeyspaceOptions) -> Self {
        Self {
            compression: options.compression.map(table_compression),
            filter_bits_per_key: options.filter_bits_per_key,
            shards: options.shards_per_range,
            level_base_bytes: options.level_base_bytes,
            level_ratio: options.level_ratio,
            landing_runs_max: options.landing_runs_max,
            range_bytes_max: options.range_bytes_max,
            range_entries_max: options.range_entries_max,
            range_heat_max: options.range_heat_max,
        }
    }
}

impl From<&Own> for KeyspaceOptions {
    fn from(own: &Own) -> Self {
        Self {
            compression: own.compression.map(told_compression),
            filter_bits_per_key: own.filter_bits_per_key,
            shards_per_range: own.shards,
            level_base_bytes: own.level_base_bytes,
            level_ratio: own.level_ratio,
            landing_runs_max: own.landing_runs_max,
            range_bytes_max: own.range_bytes_max,
            range_entries_max: own.range_entries_max,
            range_heat_max: own.range_heat_max,
        }
    }
}

/// The name of the range's keyspace.
pub(crate) fn name_of(range: &RangeVersion, keyspaces: &Keyspaces) -> String {
    keyspaces.name(range.keyspace).unwrap_or_default().to_owned()
}

impl From<&Db> for KeyspaceRef {
    fn from(db: &Db) -> Self {
        db.keyspace_ref()
    }
}

impl From<&ReadOnlyDb> for KeyspaceRef {
    fn from(db: &ReadOnlyDb) -> Self {
        db.keyspace_ref()
    }
}

impl Db {
    /// The same database, seen from the keyspace of this name, which is created if there is none.
    /// `"default"` is the one that every database has.
    ///
    /// A keyspace has keys of its own, with ranges, memtables and levels of their own. It shares
    /// the log, memory, the cache and the order of writes with the others: a [`WriteBatch`] may
    /// write to several at once, and a [`Snapshot`] shows all of them. An empty one takes a few KiB
    /// of memory. Each keyspace has at least one range, and the memtables of all ranges share the
    /// write buffer ([`Options::memtable_bytes`](crate::Options::memtable_bytes)). With hundreds of
    /// keyspaces, give the database a larger one
    /// ([`Options::write_buffer_bytes`](crate::Options::write_buffer_bytes)).
    ///
    /// Opening an existing one costs a lookup. Creating one waits for two syncs of the disk, and
    /// survives a power cut then. Nobody else waits.
    ///
    /// # Errors
    /// `Invalid` for a name that is empty or longer than 255 bytes; `NoSpace`, `Io`, `Closed`, or
    /// why the engine has stopped.
    ///
    /// # Cancellation
    /// The keyspace is created all the same.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let emails = db.keyspace("emails").await?;
    /// let mut batch = sluicedb::WriteBatch::new();
    /// batch.put("user:1", "Ada").put_in(&emails, "ada@example.org", "user:1");
    /// db.write(batch).await?;
    /// assert_eq!(emails.get("ada@example.org").await?.as_deref(), Some(&b"user:1"[..]));
    /// assert_eq!(db.get("ada@example.org").await?, None);
    /// assert_eq!(db.keyspaces(), ["default", "emails"]);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn keyspace(&self, name: impl AsRef<str>) -> Result<Self> {
        self.open_keyspace(name.as_ref(), None).await
    }

    /// [`keyspace`](Self::keyspace) with options of its own. An existing keyspace gets them from
    /// now on.
    ///
    /// # Errors
    /// As [`keyspace`](Self::keyspace). `Invalid` for an option out of its limits, and for the
    /// default keyspace, which always has the options of the database.
    ///
    /// # Cancellation
    /// As [`keyspace`](Self::keyspace).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, KeyspaceOptions};
    /// let db = Db::open(dir.path()).await?;
    /// let options =
    ///     KeyspaceOptions { filter_bits_per_key: Some(0), ..KeyspaceOptions::default() };
    /// let log = db.keyspace_with("log", options).await?;
    /// assert_eq!(log.keyspace_options(), Some(options));
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn keyspace_with(
        &self,
        name: impl AsRef<str>,
        options: KeyspaceOptions,
    ) -> Result<Self> {
        let own = Own::from(options);
        own.check().map_err(Error::invalid)?;
        if name.as_ref() == DEFAULT_KEYSPACE {
            let what = "the default keyspace has the options that the database is opened with";
            return Err(Error::invalid(what));
        }
        self.open_keyspace(name.as_ref(), Some(Arc::new(own))).await
    }

    async fn open_keyspace(&self, name: &str, own: Option<Arc<Own>>) -> Result<Self> {
        check_name(name).map_err(Error::invalid)?;
        Ok(self.seen_from(self.engine().keyspace(name, own).await?))
    }

    /// The options in which this handle's keyspace differs from the database. `None` once it was
    /// dropped.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let index = db.keyspace("index").await?;
    /// assert!(index.keyspace_options().is_some());
    /// db.drop_keyspace("index").await?;
    /// assert!(index.keyspace_options().is_none());
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn keyspace_options(&self) -> Option<KeyspaceOptions> {
        let superversion = self.engine().superversion();
        let (keyspaces, id) = (&superversion.keyspaces, self.keyspace_id());
        keyspaces.has(id).then(|| KeyspaceOptions::from(&**keyspaces.options(id)))
    }

    /// The name of this handle's keyspace. `None` once it was dropped.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let index = db.keyspace("index").await?;
    /// assert_eq!(index.keyspace_name().as_deref(), Some("index"));
    /// assert_eq!(db.keyspace_name().as_deref(), Some("default"));
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn keyspace_name(&self) -> Option<String> {
        let superversion = self.engine().superversion();
        superversion.keyspaces.name(self.keyspace_id()).map(str::to_owned)
    }

    /// The names of the keyspaces: the default one first, the others in the order of their
    /// creation.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.keyspace("index").await?;
    /// assert_eq!(db.keyspaces(), ["default", "index"]);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn keyspaces(&self) -> Vec<String> {
        names(&self.engine().superversion().keyspaces)
    }

    /// Drops a keyspace with everything in it, in one change: tables are dropped as a whole and
    /// unread, and its memory is released. Returns `false` if there is none of this name.
    ///
    /// From then on, reads and writes through its handles are refused, and so is each batch that
    /// names it, as a whole. Snapshots and scans that began before still see it, and hold its
    /// files. A keyspace that is created later under the same name is another one.
    ///
    /// # Errors
    /// `Invalid` for the default keyspace, which [`excise`](Self::excise) empties; otherwise as
    /// [`keyspace`](Self::keyspace). [`Error::outcome`] says whether it has happened: if there is
    /// no space to sync the log, it is in force, and becomes durable once there is space.
    ///
    /// # Cancellation
    /// The keyspace is dropped all the same.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let emails = db.keyspace("emails").await?;
    /// assert!(db.drop_keyspace("emails").await?);
    /// assert!(emails.put("ada@example.org", "user:1").await.is_err());
    /// assert_eq!(db.keyspaces(), ["default"]);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn drop_keyspace(&self, name: impl AsRef<str>) -> Result<bool> {
        let found = self.engine().superversion().keyspaces.find(name.as_ref());
        match found {
            None => Ok(false),
            Some(KeyspaceId::DEFAULT) => {
                let what = "the default keyspace cannot be dropped; `excise(..)` empties it";
                Err(Error::invalid(what))
            }
            Some(id) => Ok(self.engine().change(Change::DropKeyspace { id }).await?.is_some()),
        }
    }

    /// An empty batch for this handle's keyspace. It may be written through any handle of the
    /// database. A [`WriteBatch::new`] that is written through a handle of another keyspace than
    /// the default one is copied once more.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let emails = db.keyspace("emails").await?;
    /// let mut batch = emails.batch();
    /// batch.put("ada@example.org", "user:1");
    /// db.write(batch).await?;
    /// assert!(emails.contains_key("ada@example.org").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn batch(&self) -> WriteBatch {
        WriteBatch::new_in(self)
    }

    /// The values of `keys`, in their order and all at one instant. Each key belongs to the
    /// keyspace of the handle beside it. Waits as [`multi_get`](Self::multi_get) does.
    ///
    /// # Errors
    /// As [`get`](Self::get). One failure fails all. `Invalid` for a handle of another database.
    ///
    /// # Cancellation
    /// No effect.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let emails = db.keyspace("emails").await?;
    /// db.put("user:1", "Ada").await?;
    /// let values = db.multi_get_in(&[(&db, "user:1"), (&emails, "ada@example.org")]).await?;
    /// assert_eq!(values[0].as_deref(), Some(&b"Ada"[..]));
    /// assert_eq!(values[1], None);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn multi_get_in<K: AsRef<[u8]>>(
        &self,
        keys: &[(&Self, K)],
    ) -> Result<Vec<Option<Bytes>>> {
        coop::one().await;
        if keys.iter().any(|(of, _)| !self.is_same(of.keyspace_ref())) {
            return Err(another_database());
        }
        let keys = keys.iter().map(|(of, key)| (of.keyspace_id(), key.as_ref()));
        self.reader(Holder::Lookup).multi_get(keys).await
    }

    /// Does this handle's keyspace still exist?
    pub(crate) fn check_keyspace(&self) -> Result<()> {
        let is_there = self.engine().superversion().keyspaces.has(self.keyspace_id());
        if is_there { Ok(()) } else { Err(no_keyspace().into()) }
    }

    /// Is this a keyspace of the same open database?
    pub(crate) fn is_same(&self, keyspace: KeyspaceRef) -> bool {
        keyspace.database() == self.keyspace_ref().database()
    }
}

impl Snapshot {
    /// The same instant, seen from the keyspace of this handle. A keyspace that was created later
    /// is empty there.
    ///
    /// # Errors
    /// `Invalid` for a handle of another database.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let emails = db.keyspace("emails").await?;
    /// emails.put("ada@example.org", "user:1").await?;
    /// let snapshot = db.snapshot();
    /// assert!(snapshot.of(&emails)?.contains_key("ada@example.org").await?);
    /// assert!(!snapshot.contains_key("ada@example.org").await?);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn of(&self, keyspace: impl Into<KeyspaceRef>) -> Result<Self> {
        let keyspace = keyspace.into();
        let reader = self.reader();
        if keyspace.database() != reader.keyspace().database() {
            return Err(another_database());
        }
        Ok(Self::new(reader.of(keyspace)))
    }
}

pub(crate) fn another_database() -> Error {
    Error::invalid("the handle is of another database, or of one that was closed and opened again")
}
