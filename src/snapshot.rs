//! Snapshots: one instant, for as long as it is wanted.

use crate::error::Result;
use crate::reader::Reader;
use crate::scan::Scan;
use bytes::Bytes;
use sluicedb_storage::key::{Seqno, Span};
use sluicedb_storage::key_range::KeyRange;

/// One instant of the database: later writes, flushes and compactions do not change what it shows.
///
/// Cheap to take and to clone (a few reference counts). It holds the memtables and files it reads:
/// a snapshot kept for hours keeps memory and disk space of that age. [`Db::pins`](crate::Db::pins)
/// tells how much of the disk, and whose it is if it was [labelled](crate::Db::snapshot_labelled).
#[derive(Clone, Debug)]
pub struct Snapshot {
    reader: Reader,
}

impl Snapshot {
    pub(crate) fn new(reader: Reader) -> Self {
        Self { reader }
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The value of `key` at this instant; see [`Db::get`](crate::Db::get).
    ///
    /// # Errors
    /// `Corrupt` or `Io` when a block cannot be read.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        tokio::task::coop::consume_budget().await;
        self.reader.get(key.as_ref()).await
    }

    /// Is `key` there at this instant?
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        tokio::task::coop::consume_budget().await;
        self.reader.contains_key(key.as_ref()).await
    }

    /// The values of `keys`, in their order.
    ///
    /// # Errors
    /// As [`get`](Self::get); one failure fails all.
    pub async fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>> {
        tokio::task::coop::consume_budget().await;
        self.reader.multi_get(self.reader.of_mine(keys)).await
    }

    /// The entries in `range` at this instant; see [`Db::scan`](crate::Db::scan).
    #[allow(
        clippy::needless_pass_by_value,
        reason = "`scan(a..b)` reads better than `scan(&(a..b))`"
    )]
    pub fn scan(&self, range: impl KeyRange) -> Scan {
        Scan::new(self.reader.clone(), range.span())
    }

    /// The entries whose keys start with `prefix`, at this instant.
    pub fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        Scan::new(self.reader.clone(), Span::prefix(prefix.as_ref()))
    }

    /// The sequence number of the last write that this snapshot shows.
    pub fn seqno(&self) -> u64 {
        let Seqno(number) = self.reader.view().upto;
        number
    }
}
