//! Reads at one pinned instant: inline if everything is in memory, otherwise on a read thread.

use crate::coop;
use crate::error::Result;
use crate::read_counts::{ReadCounts, Reads};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use sluicedb_actors::engine::Kept;
use sluicedb_actors::failure::damage::Damage;
use sluicedb_actors::runtime::pool::Pool;
use sluicedb_storage::batch::{KeyspaceRef, WriteBatch};
use sluicedb_storage::keyspace::KeyspaceId;
use sluicedb_storage::table::ReadTier;
use sluicedb_storage::view::{OwnWrites, Value, View, Want};
use sluicedb_storage::{Error as StorageError, Lacks, Result as StorageResult};
use std::sync::Arc;
use std::task::Poll;

/// So many cold keys of one call are read at a time. The other callers keep their places in the
/// queue of the read threads, and a turn begins no more reads than that.
const COLD_KEYS_MAX: usize = 64;

/// What all readers of a database share: the threads for cold reads, the report of damaged tables,
/// and the counts of reads. Holds neither the engine nor its lock. A clone costs one count.
#[derive(Clone, Debug)]
pub(crate) struct Cold(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: Pool,
    damage: Arc<Damage>,
    counts: ReadCounts,
    /// Of a database that is open for reading only: nobody writes while somebody reads. Holders of
    /// a view drop it first.
    _kept: Option<Arc<Kept>>,
}

impl Cold {
    /// Reads on the threads of `pool`. `kept` keeps writers out as long as it lives.
    pub(crate) fn new(pool: Pool, damage: Arc<Damage>, kept: Option<Arc<Kept>>) -> Self {
        Self(Arc::new(Shared { pool, damage, counts: ReadCounts::default(), _kept: kept }))
    }

    /// How much was read since the database was opened.
    pub(crate) fn counts(&self) -> &ReadCounts {
        &self.0.counts
    }

    /// The result of a finished read. A damaged table is reported, whoever met it.
    pub(crate) fn told<T>(&self, read: StorageResult<T>) -> Result<T> {
        Ok(read.inspect_err(|error| self.0.damage.note_read(error))?)
    }

    /// The result of a finished lookup, which counts.
    #[inline]
    pub(crate) fn counted<W: Want>(&self, read: Result<W::Answer>) -> Result<W::Answer> {
        read.inspect(|answer| self.0.counts.looked_up(W::is_found(answer)))
    }

    /// What `look_up`, a lookup in memory, says soon, because the pages that it has just lacked are
    /// being read. `None` if a read thread is needed.
    pub(crate) async fn soon<T>(
        &self,
        lacks: Lacks,
        mut look_up: impl FnMut() -> StorageResult<T>,
    ) -> Option<StorageResult<T>> {
        if lacks == Lacks::Thread {
            return None;
        }
        let attempt = || match look_up() {
            Err(StorageError::WouldBlock(Lacks::Pages)) => Poll::Pending,
            Err(StorageError::WouldBlock(Lacks::Thread)) => Poll::Ready(None),
            read => Poll::Ready(Some(read)),
        };
        self.0.pool.soon(attempt).await
    }

    pub(crate) async fn on_read_thread<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        Ok(self.0.pool.read(read).await?)
    }
}

/// A pinned view, and the threads for its cold reads. It may outlive the database handle.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    view: View,
    /// The keyspace that it reads, and its database.
    keyspace: KeyspaceRef,
    cold: Cold,
}

impl Reader {
    pub(crate) fn new(view: View, keyspace: KeyspaceRef, cold: Cold) -> Self {
        Self { view, keyspace, cold }
    }

    /// Its parts, for a scan.
    pub(crate) fn into_parts(self) -> (View, Cold) {
        (self.view, self.cold)
    }

    /// A reader of another keyspace, at the same instant.
    pub(crate) fn of(&self, keyspace: KeyspaceRef) -> Self {
        Self { keyspace, ..self.clone() }
    }

    /// A reader of the same instant with the writes of `batch` over it. Operations that name no
    /// keyspace belong to this reader's keyspace.
    pub(crate) fn with(&self, batch: WriteBatch) -> Result<Self> {
        let own = OwnWrites::new(&batch.within(self.keyspace));
        Ok(Self { view: self.view.with(own)?, ..self.clone() })
    }

    pub(crate) fn keyspace(&self) -> KeyspaceRef {
        self.keyspace
    }

    /// How much was read of its database, by all readers.
    pub(crate) fn counts(&self) -> Reads {
        self.cold.counts().sum()
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// What `W` wants to know of `key`: at once if it is in memory, otherwise soon, or from a read
    /// thread.
    pub(crate) async fn look_up<W: Want>(&self, key: &[u8]) -> Result<W::Answer> {
        let look_up = || self.view.look_up::<W>(self.keyspace.id(), key, ReadTier::Memory);
        let read = match look_up() {
            Err(StorageError::WouldBlock(lacks)) => match self.cold.soon(lacks, look_up).await {
                Some(read) => read,
                None => return self.look_up_cold::<W>(key).await,
            },
            read => read,
        };
        self.cold.counted::<W>(self.cold.told(read))
    }

    /// As `look_up`, on a read thread.
    pub(crate) async fn look_up_cold<W: Want>(&self, key: &[u8]) -> Result<W::Answer> {
        self.cold.counted::<W>(self.on_disk::<W>(self.keyspace.id(), key).await)
    }

    async fn on_disk<W: Want>(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<W::Answer> {
        let (view, key) = (self.view.clone(), Bytes::copy_from_slice(key));
        let read = move || view.look_up::<W>(keyspace, &key, ReadTier::Disk);
        self.cold.told(self.cold.on_read_thread(read).await?)
    }

    /// These keys, in the keyspace of this reader.
    pub(crate) fn of_mine<'a, K: AsRef<[u8]>>(
        &self,
        keys: &'a [K],
    ) -> impl ExactSizeIterator<Item = (KeyspaceId, &'a [u8])> + use<'a, K> {
        let keyspace = self.keyspace.id();
        keys.iter().map(move |key| (keyspace, key.as_ref()))
    }

    /// The values of all keys at this instant. Those in memory are read at once, the cold ones side
    /// by side, a few at a time.
    pub(crate) async fn multi_get<'a>(
        &self,
        keys: impl ExactSizeIterator<Item = (KeyspaceId, &'a [u8])>,
    ) -> Result<Vec<Option<Bytes>>> {
        let mut values = Vec::with_capacity(keys.len());
        let mut cold = Vec::new();
        for (index, (keyspace, key)) in keys.enumerate() {
            match self.view.look_up::<Value>(keyspace, key, ReadTier::Memory) {
                Err(StorageError::WouldBlock(_)) => {
                    values.push(None);
                    cold.push((index, keyspace, key));
                }
                read => values.push(self.cold.counted::<Value>(self.cold.told(read))?),
            }
            coop::one().await;
        }
        let (mut cold, mut reads) = (cold.into_iter(), FuturesUnordered::new());
        loop {
            while reads.len() < COLD_KEYS_MAX
                && let Some((index, keyspace, key)) = cold.next()
            {
                coop::one().await;
                reads.push(async move { (index, self.on_disk::<Value>(keyspace, key).await) });
            }
            let Some((index, read)) = reads.next().await else { return Ok(values) };
            values[index] = self.cold.counted::<Value>(read)?;
            coop::one().await;
        }
    }
}
