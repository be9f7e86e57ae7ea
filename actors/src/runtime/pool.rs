//! Engine threads for reads that miss every cache and must not run on a caller's thread.

use crate::counter::Counter;
use crate::failure::Failure;
use crate::runtime::jobs::{JobPlace, Jobs, Worker};
use sluicedb_kernel::reply::reply;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Most jobs that are queued per thread. Further callers wait in line.
const JOBS_QUEUED_MAX: usize = 256;

/// Queues jobs for the threads of a pool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    jobs: Jobs,
    cold_reads: Arc<Counter>,
}

impl Pool {
    /// A pool and its `threads`. Run each of them on an OS thread of its own.
    pub fn new(threads: usize) -> (Self, Vec<Worker>) {
        let (jobs, workers) = Jobs::new(threads, threads * JOBS_QUEUED_MAX);
        (Self { jobs, cold_reads: Arc::default() }, workers)
    }

    /// Runs `job` on a thread of the pool. Waits while the queue is full.
    ///
    /// # Errors
    /// `Panicked` if the job panicked; that harms no other job. `Closed` if the engine has ended.
    ///
    /// # Cancellation
    /// If it is dropped early, the job may still run. Its result is thrown away.
    ///
    /// INVARIANT(no-block-on-executor): what may wait runs here.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let place = self.jobs.place().await;
        self.start(place, job).await
    }

    /// As [`Pool::run`], for a read that misses every cache. Counts it.
    ///
    /// # Errors
    /// As [`Pool::run`].
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        self.cold_reads.add(1);
        self.run(read).await
    }

    /// As [`Pool::run`], but `None` if the queue has no room now. Then `job` is dropped.
    pub fn try_run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<impl Future<Output = Result<T, Failure>>> {
        Some(self.start(self.jobs.try_place()?, job))
    }

    fn start<T: Send + 'static>(
        &self,
        place: JobPlace,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Failure>> {
        let (reply, answer) = reply();
        let job = move || {
            let ran = catch_unwind(AssertUnwindSafe(job));
            reply.send(ran.map_err(|panic| Failure::panicked("read thread", &*panic)));
        };
        self.jobs.push(place, Box::new(job));
        async { answer.await.map_err(|_| Failure::Closed)? }
    }

    /// Reads that needed a read thread.
    pub fn cold_reads(&self) -> u64 {
        self.cold_reads.get()
    }

    /// Jobs that wait for a thread.
    pub fn queued(&self) -> usize {
        self.jobs.queued()
    }

    /// Jobs that can wait before callers do.
    pub fn capacity(&self) -> usize {
        self.jobs.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::future::{Either, select};
    use std::pin::pin;

    /// Planted: `run` without `catch_unwind` (the second read says `Closed`).
    #[test]
    fn b11_a_read_that_panics_is_told_so_and_the_next_one_is_served() {
        let (pool, workers) = Pool::new(1);
        let workers = workers.into_iter().map(|worker| worker.run(|_| unreachable!("caught")));
        let serve = pin!(futures::future::join_all(workers));
        let reads = pin!(async {
            let broken: Result<(), _> = pool.run(|| panic!("on purpose")).await;
            let broken = broken.expect_err("it panicked").to_string();
            assert!(broken.contains("read thread") && broken.contains("on purpose"), "{broken}");
            assert_eq!(pool.run(|| 7).await.ok(), Some(7));
        });
        let Either::Right(((), _)) = block_on(select(serve, reads)) else {
            panic!("the thread ended")
        };
    }
}
