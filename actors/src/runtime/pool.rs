//! Engine threads for reads that miss every cache and must not run on a caller's thread.

use crate::counter::Counter;
use crate::failure::Failure;
use crate::runtime::Runtime;
use crate::runtime::jobs::{JobPlace, Jobs, Worker};
use crate::runtime::polling::Polling;
use futures::future::{Either, pending, select};
use sluicedb_kernel::reply::reply;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

/// Most jobs that are queued per thread. Further callers wait in line.
const JOBS_QUEUED_MAX: usize = 256;

/// Queues jobs for the threads of a pool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    jobs: Jobs,
    reads: Arc<ColdReads>,
}

/// The reads that miss every cache.
#[derive(Debug)]
struct ColdReads {
    begun: Counter,
    /// How many callers wait for one.
    awaited: AtomicUsize,
    polling: Polling,
    /// The clock of those who poll.
    runtime: Arc<dyn Runtime>,
}

impl ColdReads {
    fn awaited(&self) -> usize {
        self.awaited.load(Ordering::Relaxed)
    }
}

/// A cold read that is awaited, until this is dropped.
struct Awaited(Arc<ColdReads>);

impl Awaited {
    fn new(reads: &Arc<ColdReads>) -> Self {
        reads.awaited.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(reads))
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.awaited.fetch_sub(1, Ordering::Relaxed);
    }
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
    /// A pool and its `threads`. Run each of them on an OS thread of its own. Who waits alone for a
    /// read polls for it for at most `polling`.
    pub fn new(
        threads: usize,
        polling: Duration,
        runtime: &Arc<dyn Runtime>,
    ) -> (Self, Vec<Worker>) {
        let (jobs, workers) = Jobs::new(threads, threads * JOBS_QUEUED_MAX);
        let reads = ColdReads {
            begun: Counter::default(),
            awaited: AtomicUsize::new(0),
            polling: Polling::new(polling),
            runtime: Arc::clone(runtime),
        };
        (Self { jobs, reads: Arc::new(reads) }, workers)
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
        self.reads.begun.add(1);
        let awaited = Awaited::new(&self.reads);
        let read = move || {
            let result = read();
            // Whoever has the result may poll for the next one at once.
            drop(awaited);
            result
        };
        self.run(read).await
    }

    /// What `attempt` finds soon in memory, because the system is reading it. `None` if a thread
    /// has to read: the attempt gives up, or others wait for a read, too, or it takes long.
    ///
    /// No thread is woken for a read that takes as long as waking two. A read that was found counts
    /// as one of `read`.
    ///
    /// # Cancellation
    /// No effect.
    pub async fn soon<T>(&self, attempt: impl FnMut() -> Poll<Option<T>>) -> Option<T> {
        let reads = &*self.reads;
        let _awaited = Awaited::new(&self.reads);
        let now = || reads.runtime.now();
        let found = reads.polling.attempts(|| reads.awaited(), now, attempt).await;
        found.inspect(|_| reads.begun.add(1))
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

    /// Reads that waited for the disk, or for a read thread.
    pub fn cold_reads(&self) -> u64 {
        self.reads.begun.get()
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
    use crate::testing::Stepped;
    use futures::executor::block_on;
    use futures::future::ready;
    use sluicedb_kernel::wake::trust;
    use std::sync::mpsc;
    use std::task::{Context, Poll, Wake, Waker};

    /// With one thread.
    fn pool(polling: Duration) -> (Pool, Vec<Worker>) {
        let runtime: Arc<dyn Runtime> = Arc::new(Stepped::new());
        Pool::new(1, polling, &runtime)
    }

    /// Planted: a job that owns its input (it does not come back).
    #[test]
    fn the_input_of_work_that_is_not_done_comes_back() {
        let (pool, mut workers) = pool(Duration::ZERO);
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
        let (pool, mut workers) = pool(Duration::ZERO);
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

    struct Quick;

    impl Wake for Quick {
        fn wake(self: Arc<Self>) {}
    }

    /// Planted: a read on a thread that is not counted as awaited; one that counts after it was
    /// dropped, or until its result is taken; an attempt at the first poll; one that gives up and
    /// counts.
    #[test]
    fn one_who_waits_alone_looks_again_and_two_go_to_a_thread() {
        let (pool, mut workers) = pool(Duration::from_micros(200));
        let mut worker = Box::pin(workers.pop().expect("there is one").run(|_| ()));
        let waker = Waker::from(Arc::new(Quick));
        trust(&waker);
        let context = &mut Context::from_waker(&waker);
        let is_there = std::cell::Cell::new(true);
        let look = || if is_there.get() { Poll::Ready(Some(7)) } else { Poll::Pending };
        let mut alone = Box::pin(pool.soon(look));
        assert_eq!(alone.as_mut().poll(context), Poll::Pending, "it has just looked");
        assert_eq!(alone.as_mut().poll(context), Poll::Ready(Some(7)));
        drop(alone);
        let mut read = Box::pin(pool.read(|| 1));
        assert!(read.as_mut().poll(context).is_pending());
        let mut second = Box::pin(pool.soon(look));
        assert_eq!(second.as_mut().poll(context), Poll::Ready(None), "the other one waits, too");
        drop(second);
        assert!(worker.as_mut().poll(context).is_pending());
        let mut third = Box::pin(pool.soon(look));
        assert_eq!(third.as_mut().poll(context), Poll::Pending, "the other one has its result");
        drop((read, third));
        let mut late = Box::pin(pool.read(|| 1));
        assert!(late.as_mut().poll(context).is_pending());
        drop(late);
        assert!(worker.as_mut().poll(context).is_pending(), "it is run, and nobody wants it");
        let mut gives_up = Box::pin(pool.soon(|| Poll::Ready(None::<i32>)));
        assert_eq!(gives_up.as_mut().poll(context), Poll::Pending);
        assert_eq!(gives_up.as_mut().poll(context), Poll::Ready(None));
        drop(gives_up);
        is_there.set(false);
        let mut again = Box::pin(pool.soon(look));
        assert_eq!(again.as_mut().poll(context), Poll::Pending, "it is alone again");
        // The clock stands still.
        assert_eq!(again.as_mut().poll(context), Poll::Ready(None));
        assert_eq!(pool.cold_reads(), 3, "one was found, and two were read on a thread");
    }

    /// Planted: `run` without `catch_unwind` (the second read says `Closed`).
    #[test]
    fn b11_a_read_that_panics_is_told_so_and_the_next_one_is_served() {
        let (pool, workers) = pool(Duration::ZERO);
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
