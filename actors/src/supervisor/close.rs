//! How an engine ends: cleanly by `close`, or abandoned by drop.

use super::departures::Departure;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::kernel::mailbox::Mailbox;
use crate::kernel::reply::reply;
use crate::kernel::signal::Watch;
use crate::runtime::Task;
use crate::shared::Shared;
use crate::version_manager::message::VersionMessage;
use crate::wal_writer::WalWriter;
use std::sync::{Arc, Mutex, PoisonError};

/// The tasks of an engine and the way it ends.
#[derive(Debug)]
pub(crate) struct Supervisor {
    tasks: Arc<Mutex<Option<Vec<Task>>>>,
    departure: Departure,
    closed: Arc<Watch<Option<Result<(), Failure>>>>,
}

impl Supervisor {
    pub(super) fn new(tasks: Vec<Task>, departure: Departure) -> Self {
        Self {
            tasks: Arc::new(Mutex::new(Some(tasks))),
            departure,
            closed: Arc::new(Watch::new(None)),
        }
    }

    fn take_tasks(&self) -> Option<Vec<Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The clean end. The first caller's request does the work, on a thread of the runtime; everybody
    /// gets its result.
    pub(crate) async fn close(&self, engine: &Engine) -> Result<(), Failure> {
        let mut watcher = self.closed.watcher();
        if let Some(tasks) = self.take_tasks() {
            let closing = Closing {
                shared: Arc::clone(&engine.shared),
                wal: Arc::clone(&engine.wal),
                versions: engine.versions.clone(),
                mailboxes: Mailboxes::of(engine),
            };
            let closed = Arc::clone(&self.closed);
            let leaving = self.departure.leave();
            let body = async move {
                let result = closing.run(tasks).await;
                closed.set(Some(result));
                drop(leaving);
            };
            if let Err(error) = engine.shared.runtime.spawn("sluice-close", Box::pin(body)) {
                let dir = engine.dir();
                let error = sluicedb_storage::Error::io("start a thread for", dir, error);
                self.closed.set(Some(Err(Failure::storage(error))));
            }
        }
        loop {
            if let Some(result) = watcher.get() {
                return result;
            }
            watcher.changed().await;
        }
    }

    /// The end without ceremony: actors stop when they look up next; nobody waits for them here.
    pub(crate) fn abandon(&self, engine: &Engine) {
        let Some(tasks) = self.take_tasks() else { return };
        let leaving = self.departure.leave();
        engine.shared.shut();
        Mailboxes::of(engine).close();
        let shared = Arc::clone(&engine.shared);
        let runtime = Arc::clone(&shared.runtime);
        let body = async move {
            for task in tasks {
                task.join().await;
            }
            shared.release_lock();
            drop(leaving);
        };
        if let Err(error) = runtime.spawn("sluice-drop", Box::pin(body)) {
            tracing::warn!(%error, "nobody waits for the engine's threads to end");
        }
    }
}

/// The mailboxes of the thread-driven actors, to be closed in the order of the flow.
struct Mailboxes {
    versions: Mailbox<VersionMessage>,
    compactor: Mailbox<crate::compactor::message::CompactorMessage>,
}

impl Mailboxes {
    fn of(engine: &Engine) -> Self {
        Self { versions: engine.versions.clone(), compactor: engine.compactor.clone() }
    }

    fn close(&self) {
        self.compactor.close();
        self.versions.close();
    }
}

struct Closing {
    shared: Arc<Shared>,
    wal: Arc<WalWriter>,
    versions: Mailbox<VersionMessage>,
    mailboxes: Mailboxes,
}

impl Closing {
    /// Admission, in-flight commits, memtables, log, manifest, threads, lock: in this order.
    async fn run(self, tasks: Vec<Task>) -> Result<(), Failure> {
        let result = self.end_cleanly().await;
        // A failure that stopped the engine earlier is not overwritten by this.
        self.shared.shut();
        self.mailboxes.close();
        for task in tasks {
            task.join().await;
        }
        self.shared.release_lock();
        result
    }

    async fn end_cleanly(&self) -> Result<(), Failure> {
        self.shared.close_admission();
        // What is queued was admitted, and completes exactly once.
        let last = self.wal.stop_stamping(&self.shared)?;
        self.shared.commits.wait_visible(last).await.map_err(|_| self.shared.why_stopped())?;
        let flushed = super::flush(&self.versions, &self.wal, &self.shared).await;
        self.wal.close_log(&self.shared).await?;
        flushed?;
        let (reply, answer) = reply();
        let permit = self.versions.reserve(1).await.map_err(|_| self.shared.why_stopped())?;
        let sent = permit.send(VersionMessage::Close { reply });
        sent.map_err(|_| self.shared.why_stopped())?;
        answer.await.unwrap_or_else(|_| Err(self.shared.why_stopped()))
    }
}
