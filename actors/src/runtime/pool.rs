//! Engine threads for reads that miss every cache and must not run on a caller's thread.

use crate::counter::Counter;
use crate::failure::Failure;
use crate::runtime::jobs::{JobPlace, Jobs, Worker};
use futures::future::{Either, pending, select};
use sluicedb_kernel::reply::reply;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;

/// Most jobs that are queued per thread. Further callers wait in line.
const JOBS_QUEUED_MAX: usize = 256;

/// Queues jobs for the threads of a pool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    jobs: Jobs,
    cold_reads: Arc<Counter>,
}

/// Why work on an input was not done.
#[derive(Debug)]
pub enum NotRun<W> {
    /// The caller gave up before the work began, for this reason.
    GivenUp(W),
    /// It panicked, or the engine has ended.
    Failed(Failure),
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

    /// Runs `work` on `input` on a thread of the pool, unless `give_up` resolves first, while the
    /// queue is full or before the work has begun. Work that has begun is waited for.
    ///
    /// The caller keeps `input`, and the queue only refers to it. So what is given up costs no
    /// memory, however long the queue, and no copy.
    ///
    /// # Errors
    /// Why the work was not done, and `input`.
    ///
    /// # Cancellation
    /// If it is dropped before the work begins, `input` is dropped and the work is not done.
    pub async fn run_on<I, T, W>(
        &self,
        input: I,
        work: impl FnOnce(&I) -> T + Send + 'static,
        give_up: impl Future<Output = W>,
    ) -> Result<T, (I, NotRun<W>)>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let mut give_up = pin!(give_up);
        let place = match select(pin!(self.jobs.place()), give_up.as_mut()).await {
            Either::Left((place, _)) => place,
            Either::Right((why, _)) => return Err((input, NotRun::GivenUp(why))),
        };
        self.start_on(place, input, work, give_up).await
    }

    /// As [`Pool::run_on`], but gives up if the queue has no room now. If it has, the work is
    /// waited for.
    ///
    /// # Errors
    /// As `run_on`.
    ///
    /// # Cancellation
    /// As `run_on`.
    pub async fn try_run_on<I, T>(
        &self,
        input: I,
        work: impl FnOnce(&I) -> T + Send + 'static,
    ) -> Result<T, (I, NotRun<()>)>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let Some(place) = self.jobs.try_place() else {
            return Err((input, NotRun::GivenUp(())));
        };
        self.start_on(place, input, work, pin!(pending())).await
    }

    async fn start_on<I, T, W>(
        &self,
        place: JobPlace,
        input: I,
        work: impl FnOnce(&I) -> T + Send + 'static,
        give_up: Pin<&mut impl Future<Output = W>>,
    ) -> Result<T, (I, NotRun<W>)>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let mut kept = Arc::new(input);
        let queued = Arc::downgrade(&kept);
        let run = pin!(self.start(place, move || queued.upgrade().map(|input| work(&input))));
        let ran = match select(run, give_up).await {
            Either::Left((ran, _)) => ran,
            Either::Right((why, run)) => {
                match Arc::try_unwrap(kept) {
                    Ok(input) => return Err((input, NotRun::GivenUp(why))),
                    // The work has begun.
                    Err(in_use) => kept = in_use,
                }
                run.await
            }
        };
        match ran {
            Ok(done) => Ok(done.expect("the input is kept while the work is waited for")),
            Err(failure) => {
                let input = Arc::into_inner(kept).expect("the work has ended or never begins");
                Err((input, NotRun::Failed(failure)))
            }
        }
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
    use futures::future::ready;
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};

    /// Planted: a job that owns its input (it does not come back).
    #[test]
    fn the_input_of_work_that_is_not_done_comes_back() {
        let (pool, mut workers) = Pool::new(1);
        let mut worker = Box::pin(workers.pop().expect("there is one").run(|_| ()));
        let context = &mut Context::from_waker(Waker::noop());
        let mut given_up = Box::pin(pool.run_on([1], |_| (), ready("late")));
        let given_up = given_up.as_mut().poll(context);
        assert!(matches!(given_up, Poll::Ready(Err(([1], NotRun::GivenUp("late"))))));
        let mut broken = Box::pin(pool.try_run_on([2], |_| panic!("on purpose")));
        assert!(broken.as_mut().poll(context).is_pending());
        assert!(worker.as_mut().poll(context).is_pending());
        let broken: Poll<Result<(), _>> = broken.as_mut().poll(context);
        assert!(matches!(broken, Poll::Ready(Err(([2], NotRun::Failed(_))))), "{broken:?}");
    }

    /// Planted: work that has begun is given up.
    #[test]
    fn work_that_has_begun_is_waited_for() {
        let (pool, mut workers) = Pool::new(1);
        let worker = workers.pop().expect("there is one");
        let thread = std::thread::spawn(move || block_on(worker.run(|_| ())));
        let (begun, has_begun) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let (late, is_late) = reply();
        let work = move |input: &[u8; 1]| {
            begun.send(()).expect("the test waits");
            goes_on.recv().expect("the test goes on");
            input[0]
        };
        let mut done = Box::pin(pool.run_on([7], work, is_late));
        let context = &mut Context::from_waker(Waker::noop());
        assert!(done.as_mut().poll(context).is_pending());
        has_begun.recv().expect("the thread runs");
        late.send(());
        assert!(done.as_mut().poll(context).is_pending(), "its input is in use");
        go_on.send(()).expect("it waits");
        assert!(matches!(block_on(done), Ok(7)));
        drop(pool);
        thread.join().expect("nothing panics there");
    }

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
