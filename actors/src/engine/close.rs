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
use sluicedb_storage::vfs::LockGuard;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock};

/// The tasks of an engine and the way it ends.
#[derive(Debug)]
pub(crate) struct Closer {
    /// Taken by whoever ends the engine.
    tasks: Tasks,
    exit: Exit,
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

impl Closer {
    pub(super) fn new(tasks: Vec<Task>, exit: Exit) -> Self {
        Self {
            tasks: Arc::new(Mutex::new(Some(tasks))),
            exit,
            closed: Arc::new(Watch::new(None)),
            gone: OnceLock::new(),
        }
    }

    /// The clean end. The first caller's request does the work, on a thread of the runtime;
    /// everybody gets its result. If no thread can be had nothing has happened: it may be asked for
    /// again.
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
                // The tasks are back; those who joined this attempt make one of their own.
                self.closed.set(None);
                return Err(Failure::storage(error));
            }
        }
        Ok(())
    }

    /// The end without ceremony: actors stop when they look up next; nobody waits for them here.
    /// For an engine that is being dropped.
    ///
    /// INVARIANT(no-block-on-executor): what it holds is given back by a thread of the runtime,
    /// also after a clean end: memory is unmapped, and files are closed.
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
            // Never sent: the engine's own share of all this is gone.
            let _ = dropped.await;
            drop(parts);
        };
        if let Err(error) = runtime.spawn("sluice-drop", Box::pin(body)) {
            tracing::warn!(%error, "nobody waits for the engine's threads to end");
        }
    }
}

/// Keeps others out of the directory until the last actor has ended: each has a share of it, and
/// whoever waits for all of them lets go of it then.
#[derive(Debug)]
pub(crate) struct DirectoryLock(Mutex<Option<Box<dyn LockGuard>>>);

impl DirectoryLock {
    pub(super) fn new(guard: Box<dyn LockGuard>) -> Self {
        Self(Mutex::new(Some(guard)))
    }

    fn release(&self) {
        drop(lock(&self.0).take());
    }
}

impl Parts {
    /// Actors stop when they look up next. Mailboxes are closed in the order of the flow.
    fn stop(&self) {
        self.failures.shut();
        self.planner.close();
        self.bulk.close();
        self.checkpoints.close();
        self.compaction_jobs.iter().for_each(Mailbox::close);
        self.versions.close();
    }

    /// Lets others open the directory, after the last actor has ended.
    fn leave_directory(&self) {
        if !self.memory.points.is_empty() {
            self.files.tables.outlive();
        }
        self.directory.release();
    }

    /// Admission, in-flight commits, memtables, log, manifest, threads, lock: in this order.
    async fn close(self, tasks: Vec<Task>) -> Result<(), Failure> {
        let ended = AssertUnwindSafe(self.end_cleanly()).catch_unwind().await;
        let result = ended.unwrap_or_else(|panic| {
            let failure = Failure::panicked("close", &*panic);
            self.failures.fail(failure.clone());
            Err(failure)
        });
        // A failure that stopped the engine earlier is not overwritten by this.
        self.stop();
        for task in tasks {
            task.join().await;
        }
        self.leave_directory();
        result
    }

    async fn end_cleanly(&self) -> Result<(), Failure> {
        self.topology.close_admission(&self.accounts);
        // Flushes may wait for room in L0.
        self.compaction_pace.release();
        // What is queued was admitted, and completes exactly once.
        let last = self.wal.stop_stamping()?;
        let visible = self.topology.commits.wait_visible(last.0).await;
        visible.map_err(|_| self.failures.why_stopped())?;
        let flushed = self.flush().await;
        if flushed.is_ok() {
            // What is in the segments is in tables.
            self.wal.leave_segments().await?;
        }
        self.wal.close_log().await?;
        flushed?;
        self.failures.ask(&self.versions, |reply| VersionMessage::Close { reply }).await?;
        // If this fails the next open removes them.
        let _ = self.wal.collect().await;
        Ok(())
    }
}
