//! The key ranges of a database: what is in each, where they meet, and how that is changed.

use crate::db::Db;
use crate::error::{Error, Result};
use crate::keyspaces::name_of;
#[cfg(feature = "serde")]
use crate::stats::{as_optional_text, as_text};
use bytes::Bytes;
use sluicedb_actors::range_owner::RangeEntry;
use sluicedb_actors::version_manager::message::Change;
use sluicedb_storage::key_range::KeyRange;
use sluicedb_storage::limits::KEY_BYTES_MAX;
use sluicedb_storage::version::{Keyspaces, RangeVersion};

/// One key range: a part of the keys with an owner, memtables and levels of its own.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq)]
pub struct RangeInfo {
    /// Its number. No other range gets it while the database is open.
    pub range: u32,
    /// The name of its keyspace.
    pub keyspace: String,
    /// Its first key; empty for the first range. Serialized as text: bytes other than printable
    /// ASCII as `\xNN`.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub start: Vec<u8>,
    /// The first key after it; `None` for the last range. Serialized likewise.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_optional_text"))]
    pub end: Option<Vec<u8>>,
    /// Its tables. A table that two ranges share counts in both.
    pub tables: u64,
    /// Bytes of its tables. An estimate for parts of tables.
    pub table_bytes: u64,
    /// Entries in its tables, including tombstones and overwritten ones.
    pub entries: u64,
    /// Bytes in its memtables, as charged to the accounts.
    pub memtable_bytes: u64,
    /// Its memtables: the active one and those that wait for a flush.
    pub memtables: u64,
    /// Batches applied to it since it was created or the database was opened.
    pub batches: u64,
    /// Its heat: batches per second, smoothed. Measured every ten seconds, or more often
    /// ([`Options::range_cooldown_ms`](crate::Options::range_cooldown_ms)). 0 before the first
    /// measurement.
    pub batches_per_second: u64,
}

impl RangeInfo {
    pub(crate) fn of_stable(stable: &RangeVersion, keyspaces: &Keyspaces) -> Self {
        Self {
            range: stable.id.0,
            keyspace: name_of(stable, keyspaces),
            start: stable.span.lo.to_vec(),
            end: stable.span.hi.as_ref().map(|end| end.to_vec()),
            tables: stable.layers.slices().count() as u64,
            table_bytes: stable.bytes(),
            entries: stable.entries(),
            memtable_bytes: 0,
            memtables: 0,
            batches: 0,
            batches_per_second: 0,
        }
    }

    fn of(entry: &RangeEntry, keyspaces: &Keyspaces) -> Self {
        let RangeEntry { stable, sealed, owner, .. } = entry;
        Self {
            memtable_bytes: (owner.sizes.active_bytes() + owner.sizes.sealed_bytes()) as u64,
            memtables: sealed.len() as u64 + 1,
            batches: owner.sizes.batches(),
            batches_per_second: owner.sizes.batches_per_second(),
            ..Self::of_stable(stable, keyspaces)
        }
    }
}

impl Db {
    /// The ranges of this handle's keyspace, in key order. They cover all keys and are disjoint.
    /// Empty once the keyspace was dropped.
    ///
    /// Ranges come from [`Options::initial_split_keys`](crate::Options::initial_split_keys), from
    /// [`split_at`](Self::split_at), and from the database itself when a range has become too large
    /// ([`Options::range_bytes_max`](crate::Options::range_bytes_max)). A split replaces a range by
    /// two others. Costs some loads per table. Waits for nobody.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let ranges = db.ranges();
    /// assert_eq!(ranges.len(), 1);
    /// assert!(ranges[0].start.is_empty() && ranges[0].end.is_none());
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn ranges(&self) -> Vec<RangeInfo> {
        let superversion = self.engine().superversion();
        let ranges = superversion.ranges.iter();
        let theirs = ranges.filter(|range| range.stable.keyspace == self.keyspace_id());
        theirs.map(|range| RangeInfo::of(range, &superversion.keyspaces)).collect()
    }

    /// About how many bytes of tables the keys of `range` take. Memtables do not count. A table
    /// that has only some of its keys in `range` counts by its index if it is open, and half
    /// otherwise. Waits for nobody.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.put("photo:1", vec![0; 50_000]).await?;
    /// assert_eq!(db.approximate_size("photo:".."photo;"), 0, "it is in memory");
    /// db.flush().await?;
    /// assert!(db.approximate_size("photo:".."photo;") > 0);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    #[allow(
        clippy::needless_pass_by_value,
        reason = "`approximate_size(a..b)` reads better than `approximate_size(&(a..b))`"
    )]
    pub fn approximate_size(&self, range: impl KeyRange) -> u64 {
        let span = range.span();
        let superversion = self.engine().superversion();
        let ranges = superversion.ranges.iter();
        let theirs = ranges.filter(|range| range.stable.keyspace == self.keyspace_id());
        let slices = theirs.flat_map(|range| range.stable.layers.slices());
        slices.fold(0, |sum, (_, slice)| sum.saturating_add(slice.bytes_in(&span)))
    }

    /// Splits the range of `key` before `key`: from now on `key` and what follows it are a range of
    /// their own, with its own memtables and levels. Nothing is copied: the two ranges share what
    /// was in memory and in tables until that is flushed and compacted. Returns `false` if a range
    /// begins with `key` already.
    ///
    /// Writers and readers go on. Waits for two syncs of the disk, and survives a power cut then.
    ///
    /// # Errors
    /// `Invalid` for an empty key, or one that is too long. `NoSpace` and `Io` if it cannot be
    /// recorded: then it has not happened. `Closed`, or why the engine has stopped.
    ///
    /// # Cancellation
    /// It happens all the same.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// assert!(db.split_at("m").await?);
    /// assert_eq!(db.ranges()[1].start, b"m");
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn split_at(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let at = bound(key.as_ref())?;
        let change = Change::Split { keyspace: self.keyspace_id(), at };
        Ok(self.engine().change(change).await?.is_some())
    }

    /// Flushes, then merges the ranges that meet at `key`. Returns `false` if none meet there, or
    /// if both are written to meanwhile: ranges can be merged once they have cooled down.
    ///
    /// # Errors
    /// As [`split_at`](Self::split_at) and [`flush`](Self::flush).
    ///
    /// # Cancellation
    /// If it is dropped before the flush has ended, nothing happens. Afterwards it happens all the
    /// same.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// db.split_at("m").await?;
    /// assert!(db.merge_at("m").await?);
    /// assert_eq!(db.ranges().len(), 1);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn merge_at(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let at = bound(key.as_ref())?;
        self.check_keyspace()?;
        self.flush().await?;
        let change = Change::Merge { keyspace: self.keyspace_id(), at };
        Ok(self.engine().change(change).await?.is_some())
    }
}

/// A key at which ranges may meet.
fn bound(key: &[u8]) -> Result<Bytes> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let what = format!(
            "ranges cannot meet at a key of {} bytes; give one of 1 to {KEY_BYTES_MAX}",
            key.len()
        );
        return Err(Error::invalid(what));
    }
    Ok(Bytes::copy_from_slice(key))
}
