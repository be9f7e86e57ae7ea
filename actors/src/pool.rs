//! Engine threads for what must not run on a caller's thread: reads that miss every cache, and turns
//! that are too long for an executor.

use crate::failure::Failure;
use crate::kernel::mailbox::{Capacity, Inbox, Mailbox};
use crate::kernel::reply::reply;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Jobs queued for one thread, at most; more of them wait at the mailbox.
const JOBS_QUEUED_MAX: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// Sends jobs to the threads of a pool. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    threads: Arc<[Mailbox<Job>]>,
    turn: Arc<AtomicUsize>,
}

impl Pool {
    /// A pool and its `threads`, each to be run on an OS thread of its own.
    pub fn new(threads: usize) -> (Self, Vec<PoolThread>) {
        let capacity = Capacity { messages: JOBS_QUEUED_MAX, bytes: JOBS_QUEUED_MAX as u64 };
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) =
            (0..threads).map(|_| Mailbox::new(capacity)).unzip();
        let pool = Self { threads: mailboxes.into(), turn: Arc::default() };
        (pool, inboxes.into_iter().map(|inbox| PoolThread { inbox }).collect())
    }

    /// Runs `job` on a thread of the pool. Waits while the queues are full.
    ///
    /// # Errors
    /// `Closed` when the engine has ended.
    ///
    /// # Cancellation
    /// Dropped early, the job may still run; its result is thrown away.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = reply();
        let job: Job = Box::new(move || reply.send(job()));
        let permit = self.shortest().reserve(1).await.map_err(|_| Failure::Closed)?;
        permit.send(job).map_err(|_| Failure::Closed)?;
        answer.await.map_err(|_| Failure::Closed)
    }

    /// Runs `job` on a thread of the pool some time soon, unless so many are queued already that one
    /// more makes no difference: for jobs that look for work themselves.
    pub fn kick(&self, job: impl FnOnce() + Send + 'static) {
        if let Ok(permit) = self.shortest().try_reserve(1) {
            // Closed: the engine has ended, and nobody waits for the work.
            let _ = permit.send(Box::new(job));
        }
    }

    /// The thread with the fewest jobs waiting, beginning at a different one each time.
    fn shortest(&self) -> &Mailbox<Job> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.threads.len();
        (0..count)
            .map(|step| &self.threads[(first + step) % count])
            .min_by_key(|mailbox| mailbox.len())
            .expect("options ask for at least one read thread")
    }

    /// Jobs waiting for a thread.
    pub fn queued(&self) -> usize {
        self.threads.iter().map(Mailbox::len).sum()
    }

    /// Jobs that can wait before callers do.
    pub fn capacity(&self) -> usize {
        self.threads.len() * JOBS_QUEUED_MAX
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

/// What one thread of a pool drains.
pub struct PoolThread {
    inbox: Inbox<Job>,
}

impl fmt::Debug for PoolThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolThread").finish_non_exhaustive()
    }
}

impl PoolThread {
    /// Runs jobs until every `Pool` is gone.
    pub async fn run(mut self) {
        while let Some(job) = self.inbox.recv().await {
            job();
        }
    }
}
