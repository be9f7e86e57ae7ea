//! The key ranges of a database: what there is in each, where they meet, and how that is changed.

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

/// One key range: the part of the keys that has an owner, memtables and levels of its own.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq)]
pub struct RangeInfo {
    /// Its number. Given to no other range as long as the database is open.
    pub range: u32,
    /// Whose keys it has: the name of a keyspace.
    pub keyspace: String,
    /// Its first key; empty for the first range. Serialized as text, other bytes than printable
    /// ASCII as `\xNN`.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub start: Vec<u8>,
    /// The first key after it; `None` for the last range. Serialized likewise.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_optional_text"))]
    pub end: Option<Vec<u8>>,
    /// Its tables. Those that another range has a part of count in both.
    pub tables: u64,
    /// Bytes of its tables, or about of its parts of them.
    pub table_bytes: u64,
    /// Entries in them, tombstones and overwritten ones included.
    pub entries: u64,
    /// Bytes in its memtables, as accounted.
    pub memtable_bytes: u64,
    /// Its memtables: the active one and those that wait for their flush.
    pub memtables: u64,
    /// Batches applied to it since it came to be or the database was opened.
    pub batches: u64,
    /// Batches per second of late, which is its heat. Looked at every ten seconds, or more often
    /// ([`Options::range_cooldown_ms`](crate::Options::range_cooldown_ms)); 0 where nobody has
    /// looked yet.
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
    /// The ranges of this handle's keyspace, in key order. They cover all keys, and none has keys
    /// of another one. None once the keyspace was dropped.
    ///
    /// A range is made by [`Options::initial_split_keys`](crate::Options::initial_split_keys), by
    /// [`split_at`](Self::split_at), or by the database itself when one has become too large
    /// ([`Options::range_bytes_max`](crate::Options::range_bytes_max)). One that is split goes, and
    /// two others take its place. Costs some loads per table; waits for nobody.
    pub fn ranges(&self) -> Vec<RangeInfo> {
        let superversion = self.engine().superversion();
        let ranges = superversion.ranges.iter();
        let theirs = ranges.filter(|range| range.stable.keyspace == self.keyspace_id());
        theirs.map(|range| RangeInfo::of(range, &superversion.keyspaces)).collect()
    }

    /// About how many bytes of tables the keys of `range` take. What is in memory only does not
    /// count. Reads the indexes of tables that are open; of one that is not, a share by its keys'
    /// range is taken as one half at each end. Waits for nobody.
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

    /// Parts the range that has `key` before it: from now on `key` and what follows have a range of
    /// their own, with its own memtables and levels. Nothing is copied: the two share what was in
    /// memory and in tables until it is flushed and compacted. `false` if a range begins with `key`
    /// already.
    ///
    /// Writers and readers go on. Survives a restart.
    ///
    /// # Errors
    /// `Invalid` for an empty key, or one that is too long. `NoSpace` and `Io` if it cannot be
    /// recorded: it has not happened. `Closed`, or why the engine has stopped.
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

    /// The ranges that meet at `key` become one again, after a flush. `false` if none do, or if
    /// both are written to meanwhile: ranges are merged when they have cooled down.
    ///
    /// # Errors
    /// As [`split_at`](Self::split_at), and those of [`flush`](Self::flush).
    ///
    /// # Cancellation
    /// Before the flush has ended nothing happens, afterwards it happens all the same.
    pub async fn merge_at(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let at = bound(key.as_ref())?;
        self.check_keyspace()?;
        self.flush().await?;
        let change = Change::Merge { keyspace: self.keyspace_id(), at };
        Ok(self.engine().change(change).await?.is_some())
    }
}

/// A key that ranges may meet at.
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
