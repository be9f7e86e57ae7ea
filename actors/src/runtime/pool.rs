//! Engine threads for reads that miss every cache and must not run on a caller's thread.

use crate::failure::Failure;
use crate::kernel::jobs::{JobPlace, Jobs, Worker};
use crate::kernel::reply::reply;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Jobs queued per thread, at most; more of them wait in line.
const JOBS_QUEUED_MAX: usize = 256;

/// Sends jobs to the threads of a pool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    jobs: Jobs,
}

impl Pool {
    /// A pool and its `threads`, each to be run on an OS thread of its own.
    pub fn new(threads: usize) -> (Self, Vec<Worker>) {
        let (jobs, workers) = Jobs::new(threads, threads * JOBS_QUEUED_MAX);
        (Self { jobs }, workers)
    }

    /// Runs `job` on a thread of the pool. Waits while the queue is full.
    ///
    /// # Errors
    /// `Panicked` when the job did: nobody else has to do with that. `Closed` when the engine has ended.
    ///
    /// # Cancellation
    /// Dropped early, the job may still run; its result is thrown away.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let place = self.jobs.place().await;
        self.start(place, job).await
    }

    /// As [`Pool::run`], but `None` if there is no room in the queue now: then `job` is dropped.
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

    /// Jobs waiting for a thread.
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
