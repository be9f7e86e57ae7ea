//! Reads over one pinned instant: inline when everything is in memory, else on a read thread.

use crate::error::Result;
use bytes::Bytes;
use sluicedb_actors::failure::damage::Damage;
use sluicedb_actors::runtime::pool::Pool;
use sluicedb_storage::table::Wait;
use sluicedb_storage::vfs::LockGuard;
use sluicedb_storage::view::View;
use sluicedb_storage::{Error as StorageError, Result as StorageResult};
use std::sync::Arc;

/// A pinned view and the threads for its cold reads. Holds neither the engine nor its lock: it may
/// outlive the database handle.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    view: View,
    pool: Pool,
    damage: Arc<Damage>,
    /// Of a database that is open for reading only: nobody writes to it as long as somebody reads.
    _lock: Option<Arc<dyn LockGuard>>,
}

impl Reader {
    pub(crate) fn new(view: View, pool: Pool, damage: Arc<Damage>) -> Self {
        Self { view, pool, damage, _lock: None }
    }

    /// One that keeps writers out.
    pub(crate) fn locking(self, lock: Option<Arc<dyn LockGuard>>) -> Self {
        Self { _lock: lock, ..self }
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.view.get(key, Wait::Never) {
            Err(StorageError::WouldBlock) => {}
            result => return self.told(result),
        }
        let (view, key) = (self.view.clone(), Bytes::copy_from_slice(key));
        self.told(self.on_read_thread(move || view.get(&key, Wait::Allowed)).await?)
    }

    pub(crate) async fn contains_key(&self, key: &[u8]) -> Result<bool> {
        match self.view.contains_key(key, Wait::Never) {
            Err(StorageError::WouldBlock) => {}
            result => return self.told(result),
        }
        let (view, key) = (self.view.clone(), Bytes::copy_from_slice(key));
        self.told(self.on_read_thread(move || view.contains_key(&key, Wait::Allowed)).await?)
    }

    /// All keys at this one instant: what is in memory at once, the cold ones side by side.
    pub(crate) async fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>> {
        let mut values = Vec::with_capacity(keys.len());
        let mut cold = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            match self.view.get(key.as_ref(), Wait::Never) {
                Ok(value) => values.push(value),
                Err(StorageError::WouldBlock) => {
                    values.push(None);
                    let (view, key) = (self.view.clone(), Bytes::copy_from_slice(key.as_ref()));
                    cold.push(async move {
                        let read = self.on_read_thread(move || view.get(&key, Wait::Allowed));
                        read.await.map(|value| (index, value))
                    });
                }
                failed => return self.told(failed.map(|_| Vec::new())),
            }
            if index % COOPERATE_EVERY == COOPERATE_EVERY - 1 {
                tokio::task::coop::consume_budget().await;
            }
        }
        for read in futures::future::join_all(cold).await {
            let (index, value) = read?;
            values[index] = self.told(value)?;
        }
        Ok(values)
    }

    /// What a read that is over brought. Whoever meets a damaged table, it is shown.
    pub(crate) fn told<T>(&self, read: StorageResult<T>) -> Result<T> {
        Ok(read.inspect_err(|error| self.damage.note_read(error))?)
    }

    pub(crate) async fn on_read_thread<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        Ok(self.pool.read(read).await?)
    }
}

/// Keys looked up between two chances for other tasks to run.
const COOPERATE_EVERY: usize = 16;
