//! How an engine ends: cleanly by `close`, or abandoned by drop.

use super::closing::Departure;
use crate::compaction_planner::message::PlannerMessage;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::kernel::mailbox::Mailbox;
use crate::kernel::reply::{Reply, reply};
use crate::kernel::signal::Watch;
use crate::kernel::sync::lock;
use crate::log_writer::WalWriter;
use crate::runtime::Task;
use crate::shared::Shared;
use crate::version_manager::message::VersionMessage;
use sluicedb_storage::compact::ClaimedJob;
use std::sync::{Arc, Mutex, OnceLock};

/// The tasks of an engine and the way it ends.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// Taken by whoever ends the engine.
    tasks: Tasks,
    departure: Departure,
    /// How it ended; set to `None` again when nobody ends it after all.
    closed: Arc<Watch<Option<Result<(), Failure>>>>,
    /// Dropped with the engine, of which this is the last part.
    gone: OnceLock<Reply<()>>,
}

type Tasks = Arc<Mutex<Option<Vec<Task>>>>;

/// Carries the tasks into the thread that ends the engine, and back if there is no such thread.
struct InHand {
    tasks: Vec<Task>,
    back: Tasks,
}

impl InHand {
    fn take(from: &Tasks) -> Option<Self> {
        let tasks = lock(from).take()?;
        Some(Self { tasks, back: Arc::clone(from) })
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let tasks = std::mem::take(&mut self.tasks);
        if !tasks.is_empty() {
            *lock(&self.back) = Some(tasks);
        }
    }
}

impl Supervisor {
    pub(super) fn new(tasks: Vec<Task>, departure: Departure) -> Self {
        Self {
            tasks: Arc::new(Mutex::new(Some(tasks))),
            departure,
            closed: Arc::new(Watch::new(None)),
            gone: OnceLock::new(),
        }
    }

    /// The clean end. The first caller's request does the work, on a thread of the runtime; everybody
    /// gets its result. If no thread can be had nothing has happened: it may be asked for again.
    pub(crate) async fn close(&self, engine: &Engine) -> Result<(), Failure> {
        let mut watcher = self.closed.watcher();
        loop {
            // Before the attempt: if somebody else's comes to nothing, that is a change.
            if let Some(result) = watcher.get() {
                return result;
            }
            self.begin_closing(engine)?;
            watcher.changed().await;
        }
    }

    /// Unless somebody else has begun already.
    fn begin_closing(&self, engine: &Engine) -> Result<(), Failure> {
        if let Some(mut in_hand) = InHand::take(&self.tasks) {
            let closing = Closing {
                shared: Arc::clone(&engine.shared),
                wal: Arc::clone(&engine.wal),
                versions: engine.versions.clone(),
                mailboxes: Mailboxes::of(engine),
            };
            let closed = Arc::clone(&self.closed);
            let leaving = self.departure.leave();
            let body = async move {
                let result = closing.run(std::mem::take(&mut in_hand.tasks)).await;
                closed.set(Some(result));
                drop(leaving);
            };
            if let Err(error) = engine.shared.runtime.spawn("sluice-close", Box::pin(body)) {
                let dir = engine.dir();
                let error = sluicedb_storage::Error::io("start a thread for", dir, error);
                // The tasks are back; those who joined this attempt make one of their own.
                self.closed.set(None);
                return Err(Failure::storage(error));
            }
        }
        Ok(())
    }

    /// The end without ceremony: actors stop when they look up next; nobody waits for them here. For an
    /// engine that is being dropped.
    ///
    /// INVARIANT(no-block-on-executor): what it holds is given back by a thread of the runtime, also after
    /// a clean end: memory is unmapped, and files are closed.
    pub(crate) fn abandon(&self, engine: &Engine) {
        let running = lock(&self.tasks).take().map(|tasks| {
            let leaving = self.departure.leave();
            engine.shared.shut();
            Mailboxes::of(engine).close();
            (tasks, leaving)
        });
        let (shared, wal) = (Arc::clone(&engine.shared), Arc::clone(&engine.wal));
        let (gone, dropped) = reply();
        let _ = self.gone.set(gone);
        let runtime = Arc::clone(&shared.runtime);
        let body = async move {
            if let Some((tasks, leaving)) = running {
                for task in tasks {
                    task.join().await;
                }
                leave_directory(&shared);
                drop(leaving);
            }
            // Never sent: the engine's own share of all this is gone.
            let _ = dropped.await;
            drop((wal, shared));
        };
        if let Err(error) = runtime.spawn("sluice-drop", Box::pin(body)) {
            tracing::warn!(%error, "nobody waits for the engine's threads to end");
        }
    }
}

/// Lets others open the directory, after the last actor has ended.
fn leave_directory(shared: &Shared) {
    if !shared.points.is_empty() {
        shared.tables.outlive();
    }
    shared.release_lock();
}

/// The mailboxes of the thread-driven actors, to be closed in the order of the flow.
struct Mailboxes {
    versions: Mailbox<VersionMessage>,
    planner: Mailbox<PlannerMessage>,
    compaction_jobs: Vec<Mailbox<ClaimedJob>>,
}

impl Mailboxes {
    fn of(engine: &Engine) -> Self {
        Self {
            versions: engine.versions.clone(),
            planner: engine.planner.clone(),
            compaction_jobs: engine.compaction_jobs.clone(),
        }
    }

    fn close(&self) {
        self.planner.close();
        self.compaction_jobs.iter().for_each(Mailbox::close);
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
        leave_directory(&self.shared);
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
