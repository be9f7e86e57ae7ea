//! A write on its way, for a writer that waits for it.

use crate::error::{Error, Result};
use sluicedb_actors::log_writer::SyncRequest;
use sluicedb_actors::log_writer::message::Committed;
use sluicedb_actors::write::Submitted;
use sluicedb_storage::key::Seqno;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A batch that was [submitted](crate::Db::submit). Its place in the order of writes is fixed. Its
/// progress can be waited for in stages.
///
/// * [`visible`](Self::visible): reads see it.
/// * The ticket itself, which is a future: the write is acknowledged. It is visible, and as durable
///   as its [`WriteOptions`](crate::WriteOptions) or the database demand.
/// * [`durable`](Self::durable): it survives a power cut, whatever they demand.
///
/// All three return its sequence number, as [`Db::write`](crate::Db::write) does. A ticket holds
/// neither the database nor its lock, and may outlive both.
///
/// # Cancellation
/// Dropping it changes nothing: the write completes.
#[must_use = "the write may still fail"]
#[derive(Debug)]
pub struct Ticket {
    state: Submitted,
    /// Set for a write whose acknowledgement does not wait for the disk.
    sync: Option<SyncRequest>,
}

impl Ticket {
    pub(super) fn new(state: Submitted, sync: Option<SyncRequest>) -> Self {
        Self { state, sync }
    }

    pub(super) fn done(seqno: Seqno, sync: SyncRequest) -> Self {
        Self::new(Submitted::Done(seqno), Some(sync))
    }

    /// Waits until every read that begins from then on sees the whole batch. A `Synced` write needs
    /// no disk for this stage. A `Buffered` write is acknowledged at this stage.
    ///
    /// # Errors
    /// Why reads will never see it: it was refused after all (`NoSpace` when no log segment can be
    /// prepared, `Invalid` when a keyspace was dropped), or the engine has stopped.
    ///
    /// # Cancellation
    /// No effect. It may be called again, even after it has returned.
    ///
    /// # Examples
    /// A log that answers its readers at once, and its peers when it is durable:
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, Durability, WriteBatch, WriteOptions};
    /// let db = Db::open(dir.path()).await?;
    /// let mut batch = WriteBatch::new();
    /// batch.put("log:7", "an entry");
    /// let synced = WriteOptions::durability(Durability::Synced);
    /// let mut ticket = db.submit_with(batch, synced).await?;
    /// let seqno = ticket.visible().await?;
    /// assert!(db.contains_key("log:7").await?);
    /// let peers = tokio::spawn(ticket.durable());
    /// assert_eq!(peers.await.unwrap()?, seqno);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn visible(&mut self) -> Result<u64> {
        Ok(self.state.visible().await?.0)
    }

    /// Waits until the batch survives a power cut, with everything before it in the order of
    /// writes. For a `Synced` write that is its acknowledgement. For a `Buffered` write this
    /// requests a sync, which it shares with others who wait.
    ///
    /// # Errors
    /// As [`visible`](Self::visible). `Io`, or why the engine has stopped, if the log cannot be
    /// synced; [`outcome`](Error::outcome) says whether it is known what became of the write.
    ///
    /// # Cancellation
    /// The sync goes on.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// use sluicedb::{Durability, WriteBatch, WriteOptions};
    /// let mut batch = WriteBatch::new();
    /// batch.put("a", "1");
    /// let ticket = db.submit_with(batch, WriteOptions::durability(Durability::Buffered)).await?;
    /// let seqno = ticket.durable().await?;
    /// assert!(db.durable_seqno() >= seqno);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn durable(mut self) -> Result<u64> {
        let seqno = (&mut self).await?;
        if let Some(sync) = &self.sync {
            sync.upto(Seqno(seqno)).await?;
        }
        Ok(seqno)
    }
}

impl Future for Ticket {
    type Output = Result<u64>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<u64>> {
        let committed: Committed = ready!(self.state.poll(context));
        Poll::Ready(committed.map(|seqno| seqno.0).map_err(Error::from))
    }
}
