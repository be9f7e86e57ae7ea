//! How an engine ends: cleanly by `close`, or abandoned by drop.

use super::registry::Exit;
use super::{Engine, Parts};
use crate::failure::Failure;
use crate::runtime::Task;
use crate::version_manager::message::VersionMessage;
use futures::FutureExt;
use sluicedb_kernel::mailbox::Mailbox;
use sluicedb_kernel::reply::{Reply, reply};
use sluicedb_kernel::sync::lock;
use sluicedb_kernel::watch::Watch;
use sluicedb_storage::vfs::FileLock;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock};

/// The tasks of an engine, and how it ends.
#[derive(Debug)]
pub(crate) struct Closer {
    /// Taken by whoever ends the engine.
    tasks: Tasks,
    exit: Exit,
    /// How it ended. Set to `None` again if the attempt to end it failed.
    closed: Arc<Watch<Option<Result<(), Failure>>>>,
    /// Dropped with the engine. This is the engine's last part to go.
    gone: OnceLock<Reply<()>>,
}

type Tasks = Arc<Mutex<Option<Vec<Task>>>>;

/// Carries the tasks into the thread that ends the engine, and back if that thread cannot be
/// started.
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

impl Closer {
    pub(super) fn new(tasks: Vec<Task>, exit: Exit) -> Self {
        Self {
            tasks: Arc::new(Mutex::new(Some(tasks))),
            exit,
            closed: Arc::new(Watch::new(None)),
            gone: OnceLock::new(),
        }
    }

    /// Ends the engine cleanly. The first call starts a thread of the runtime that does the work;
    /// every call gets the result. If no thread can be started, nothing has happened and the caller
    /// may try again.
    pub(crate) async fn close(&self, engine: &Engine) -> Result<(), Failure> {
        let mut watcher = self.closed.watcher();
        loop {
            // Read before the attempt: if another caller's attempt fails, the watch changes.
            if let Some(result) = watcher.get() {
                return result;
            }
            self.begin_closing(engine)?;
            watcher.changed().await;
        }
    }

    /// Starts the closing thread, unless somebody has started it already.
    fn begin_closing(&self, engine: &Engine) -> Result<(), Failure> {
        if let Some(mut in_hand) = InHand::take(&self.tasks) {
            let parts = engine.parts.clone();
            let closed = Arc::clone(&self.closed);
            let closing_entry = self.exit.register_closing();
            let body = async move {
                let result = parts.close(std::mem::take(&mut in_hand.tasks)).await;
                closed.set(Some(result));
                drop(closing_entry);
            };
            let environment = &engine.parts.environment;
            if let Err(error) = environment.runtime.spawn("sluice-close", Box::pin(body)) {
                let error = environment.no_thread(error);
                // The tasks are back. Callers who waited for this attempt make their own.
                self.closed.set(None);
                return Err(Failure::storage(error));
            }
        }
        Ok(())
    }

    /// Ends the engine without waiting: the actors stop at their next look. For an engine that is
    /// being dropped.
    ///
    /// INVARIANT(no-block-on-executor): a thread of the runtime releases what the engine holds,
    /// even after a clean end: it unmaps memory and closes files.
    pub(crate) fn abandon(&self, engine: &Engine) {
        let running = lock(&self.tasks).take().map(|tasks| {
            let closing_entry = self.exit.register_closing();
            engine.parts.stop();
            (tasks, closing_entry)
        });
        let parts = engine.parts.clone();
        let (gone, dropped) = reply();
        let _ = self.gone.set(gone);
        let runtime = Arc::clone(&parts.environment.runtime);
        let body = async move {
            if let Some((tasks, closing_entry)) = running {
                for task in tasks {
                    task.join().await;
                }
                parts.leave_directory();
                drop(closing_entry);
            }
            // Never sent. The drop says that the engine's own share of all this is gone.
            let _ = dropped.await;
            drop(parts);
        };
        if let Err(error) = runtime.spawn("sluice-drop", Box::pin(body)) {
            tracing::warn!(%error, "nobody waits for the engine's threads to end");
        }
    }
}

/// Keeps others out of the directory until the last actor has ended. Each actor has a share of it.
/// The thread that has joined all of them releases it.
#[derive(Debug)]
pub(crate) struct DirectoryLock(Mutex<Option<Box<dyn FileLock>>>);

impl DirectoryLock {
    pub(super) fn new(guard: Box<dyn FileLock>) -> Self {
        Self(Mutex::new(Some(guard)))
    }

    fn release(&self) {
        drop(lock(&self.0).take());
    }
}

impl Parts {
    /// Stops the actors at their next look. Mailboxes are closed in the order of the data flow.
    fn stop(&self) {
        self.failures.shut();
        self.planner.close();
        self.bulk.close();
        self.checkpoints.close();
        self.compaction_jobs.iter().for_each(Mailbox::close);
        self.versions.close();
    }

    /// Lets others open the directory. Called after the last actor has ended.
    fn leave_directory(&self) {
        if !self.memory.points.is_empty() {
            self.files.tables.outlive();
        }
        self.directory.release();
    }

    /// Closes admission, in-flight commits, memtables, log, manifest, threads, lock: in this order.
    async fn close(self, tasks: Vec<Task>) -> Result<(), Failure> {
        let ended = AssertUnwindSafe(self.end_cleanly()).catch_unwind().await;
        let result = ended.unwrap_or_else(|panic| {
            let failure = Failure::panicked("close", &*panic);
            self.failures.fail(failure.clone());
            Err(failure)
        });
        // This does not overwrite a failure that stopped the engine earlier.
        self.stop();
        for task in tasks {
            task.join().await;
        }
        self.leave_directory();
        result
    }

    async fn end_cleanly(&self) -> Result<(), Failure> {
        self.topology.close_admission(&self.accounts);
        // Flushes may wait for room in L0, so compactions must not pause.
        self.compaction_pace.release();
        // Queued writes were admitted, also those that wait for a log segment. Each completes
        // exactly once.
        let last = self.wal.stop_stamping().await?;
        let visible = self.topology.commits.wait_visible(last.0).await;
        visible.map_err(|_| self.failures.why_stopped())?;
        let flushed = self.flush().await;
        if flushed.is_ok() {
            // Everything in the segments is in tables.
            self.wal.leave_segments().await?;
        }
        self.wal.close_log().await?;
        flushed?;
        self.failures.ask(&self.versions, |reply| VersionMessage::Close { reply }).await?;
        // If this fails, the next open removes them.
        let _ = self.wal.collect().await;
        Ok(())
    }
}
