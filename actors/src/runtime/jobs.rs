//! Jobs for a few engine threads: one queue, from which an idle thread takes the oldest.
//!
//! Guarantees: no job waits while a thread is idle. A job that panics harms no other. A [`Kick`] is
//! queued at most once, so there is always room for it. A look that begins after a ring sees
//! whatever the ringing caller did before, so no ring is lost. Room for other jobs is bounded;
//! callers wait for it in line.
//!
//! Does not: start the threads. Each of them runs [`Worker::run`].

use sluicedb_kernel::semaphore::{Semaphore, SemaphorePermit};
use sluicedb_kernel::signal::Signal;
use sluicedb_kernel::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use sluicedb_kernel::sync::{Arc, Mutex, lock};
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

enum Job {
    Once(Box<dyn FnOnce() + Send>, SemaphorePermit),
    Kick(Arc<Kicked>),
}

struct State {
    queue: VecDeque<Job>,
    /// Workers that found the queue empty and wait for their bell.
    idle: Vec<usize>,
    ended: bool,
}

struct Crew {
    places: Semaphore,
    /// How many kicks exist. Each may have one job in the queue.
    kicks: AtomicUsize,
    state: Mutex<State>,
    /// One bell for each worker.
    bells: Box<[Signal]>,
}

impl Crew {
    fn push(&self, job: Job) {
        let idle = {
            let mut state = lock(&self.state);
            state.queue.push_back(job);
            state.idle.pop()
        };
        if let Some(idle) = idle {
            self.bells[idle].set();
        }
    }
}

/// The last handle. Once it is dropped, no job can follow.
struct Handle(Arc<Crew>);

impl Drop for Handle {
    fn drop(&mut self) {
        lock(&self.0.state).ended = true;
        self.0.bells.iter().for_each(Signal::set);
    }
}

/// Queues jobs. Clones queue for the same threads.
#[derive(Clone)]
pub struct Jobs(Arc<Handle>);

/// One of the threads; see [`Worker::run`].
pub struct Worker {
    crew: Arc<Crew>,
    index: usize,
}

/// Room for one job. Dropping it gives the room back.
#[must_use = "a dropped place is given back"]
#[derive(Debug)]
pub struct JobPlace(SemaphorePermit);

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("queued", &self.queued()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

impl fmt::Debug for Kick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kick").field("kicked", &self.kicked.pending).finish_non_exhaustive()
    }
}

impl Jobs {
    /// A queue for `workers` threads, with room for `places` jobs besides the kicks.
    pub fn new(workers: usize, places: usize) -> (Self, Vec<Worker>) {
        let state = State { queue: VecDeque::new(), idle: Vec::new(), ended: false };
        let crew = Arc::new(Crew {
            places: Semaphore::new(places as u64),
            kicks: AtomicUsize::new(0),
            state: Mutex::new(state),
            bells: (0..workers).map(|_| Signal::new()).collect(),
        });
        let worker = |index| Worker { crew: Arc::clone(&crew), index };
        let workers = (0..workers).map(worker).collect();
        (Self(Arc::new(Handle(crew))), workers)
    }

    fn crew(&self) -> &Crew {
        &self.0.0
    }

    /// Waits in line for a place in the queue.
    ///
    /// # Cancellation
    /// If it is dropped while waiting, nothing is taken and the next waiter is woken.
    pub async fn place(&self) -> JobPlace {
        let permit = self.crew().places.acquire(1).await;
        JobPlace(permit.expect("the account is never closed, and every place is one"))
    }

    /// A place in the queue, if one is free now and nobody waits for it.
    pub fn try_place(&self) -> Option<JobPlace> {
        self.crew().places.try_acquire(1).ok().map(JobPlace)
    }

    /// Queues `job`.
    pub fn push(&self, place: JobPlace, job: Box<dyn FnOnce() + Send>) {
        self.crew().push(Job::Once(job, place.0));
    }

    /// Jobs that wait for a thread.
    pub fn queued(&self) -> usize {
        lock(&self.crew().state).queue.len()
    }

    /// Jobs that can wait in the queue.
    pub fn capacity(&self) -> usize {
        self.crew().places.limit() as usize + self.crew().kicks.load(Ordering::Relaxed)
    }
}

struct Kicked {
    /// Set while the look is queued and has not begun.
    pending: AtomicBool,
    look: Box<dyn Fn() + Send + Sync>,
}

/// A look that an engine thread takes on request. It has one place in the queue, however often it
/// is rung.
pub struct Kick {
    kicked: Arc<Kicked>,
    jobs: Jobs,
}

impl Kick {
    /// A kick that runs `look`, which must handle all work that it finds.
    pub fn new(jobs: &Jobs, look: impl Fn() + Send + Sync + 'static) -> Self {
        jobs.crew().kicks.fetch_add(1, Ordering::Relaxed);
        let kicked = Kicked { pending: AtomicBool::new(false), look: Box::new(look) };
        Self { kicked: Arc::new(kicked), jobs: jobs.clone() }
    }

    /// Makes sure that a look begins after this call. Was none due already?
    pub fn ring(&self) -> bool {
        // It swaps in any case, because the look's own swap must see what this thread did before.
        if self.kicked.pending.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.jobs.crew().push(Job::Kick(Arc::clone(&self.kicked)));
        true
    }
}

impl Drop for Kick {
    fn drop(&mut self) {
        self.jobs.crew().kicks.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Worker {
    /// Runs jobs until every [`Jobs`] is dropped and the queue is empty. `on_panic` gets the
    /// payload of a job that panicked. The next job runs all the same.
    pub async fn run(self, on_panic: impl Fn(Box<dyn Any + Send>)) {
        loop {
            let next = {
                let mut state = lock(&self.crew.state);
                let next = state.queue.pop_front();
                if next.is_none() {
                    if state.ended {
                        return;
                    }
                    state.idle.push(self.index);
                }
                next
            };
            let ran = match next {
                None => {
                    self.crew.bells[self.index].wait().await;
                    continue;
                }
                Some(Job::Once(job, place)) => {
                    drop(place);
                    catch_unwind(AssertUnwindSafe(job))
                }
                Some(Job::Kick(kicked)) => {
                    // INVARIANT(no-kick-is-lost): cleared before the look begins. A later ring is
                    // seen by this look, or queues another one.
                    kicked.pending.swap(false, Ordering::AcqRel);
                    catch_unwind(AssertUnwindSafe(|| (kicked.look)()))
                }
            };
            if let Err(panic) = ran {
                on_panic(panic);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use sluicedb_kernel::combining::{CombiningMailbox, Handler, Hooks, Turn};
    use sluicedb_kernel::mailbox::Capacity;
    use sluicedb_kernel::sync::block_on;

    fn push(jobs: &Jobs, job: impl FnOnce() + Send + 'static) {
        jobs.push(block_on(jobs.place()), Box::new(job));
    }

    fn count(counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::SeqCst);
    }

    fn poll(worker: &mut std::pin::Pin<Box<impl Future<Output = ()>>>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        worker.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn b11_a_job_that_panics_costs_nobody_else_anything() {
        let (jobs, mut workers) = Jobs::new(1, 8);
        let worker = workers.pop().expect("there is one");
        let (ran, panics) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        push(&jobs, || panic!("on purpose"));
        let counted = ran.clone();
        push(&jobs, move || count(&counted));
        drop(jobs);
        block_on(worker.run(|_| count(&panics)));
        assert_eq!((ran.load(Ordering::SeqCst), panics.into_inner()), (1, 1));
    }

    /// Planted: each worker has its own queue, and the shortest one is chosen by its length alone.
    #[test]
    fn b11_no_job_waits_behind_a_busy_thread_while_another_is_idle() {
        let (jobs, workers) = Jobs::new(2, 8);
        let [busy, idle] = <[Worker; 2]>::try_from(workers).expect("there are two");
        let mut idle = Box::pin(idle.run(|_| ()));
        assert!(!poll(&mut idle));
        let ran = Arc::new(AtomicUsize::new(0));
        let (inside, counted) = (jobs.clone(), ran.clone());
        // While the first thread runs this job, four more are queued.
        push(&jobs, move || {
            for _ in 0..4 {
                let counted = counted.clone();
                push(&inside, move || count(&counted));
            }
            assert!(!poll(&mut idle));
            assert_eq!(counted.load(Ordering::SeqCst), 4);
        });
        drop(jobs);
        block_on(busy.run(|panic| std::panic::resume_unwind(panic)));
        assert_eq!(ran.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn a5_a_kick_is_queued_once_however_often_it_is_rung() {
        let (jobs, mut workers) = Jobs::new(1, 0);
        let looks = Arc::new(AtomicUsize::new(0));
        let kicks = [(); 3].map(|()| {
            let looks = looks.clone();
            Kick::new(&jobs, move || count(&looks))
        });
        for round in 0..1_000 {
            assert_eq!(kicks[round % 3].ring(), round < 3);
        }
        assert_eq!((jobs.queued(), jobs.capacity()), (3, 3));
        let mut worker = Box::pin(workers.pop().expect("there is one").run(|_| ()));
        assert!(!poll(&mut worker));
        assert_eq!(looks.load(Ordering::SeqCst), 3);
        assert!(kicks[0].ring());
        drop((kicks, jobs));
        block_on(worker);
        assert_eq!(looks.load(Ordering::SeqCst), 4, "what was rung for is looked at, last of all");
    }

    struct Count(usize);

    impl Handler for Count {
        type Message = bool;

        fn handle(&mut self, _: bool, _: &mut Turn) {
            self.0 += 1;
        }

        fn weight(_: &bool) -> usize {
            1
        }

        fn is_heavy(heavy: &bool) -> bool {
            *heavy
        }
    }

    /// Two seats hand their turns to one thread, which has not started yet. Planted: kicks share a
    /// queue of 256 places, and each call of a kick takes a place.
    #[test]
    fn a5_no_seats_kick_is_lost_however_often_another_seat_kicks() {
        let (jobs, workers) = Jobs::new(1, 0);
        let seat = || {
            Arc::new_cyclic(|seat: &std::sync::Weak<CombiningMailbox<Count>>| {
                let seat = seat.clone();
                let kick = Kick::new(&jobs, move || {
                    if let Some(seat) = seat.upgrade() {
                        seat.deliver_blocking();
                    }
                });
                let hooks = Hooks {
                    kick: Box::new(move || {
                        kick.ring();
                    }),
                    on_panic: Box::new(|words| panic!("{words}")),
                };
                let capacity = Capacity { messages: 300, bytes: 300 };
                CombiningMailbox::new(Count(0), capacity, hooks)
            })
        };
        let send = |seat: &CombiningMailbox<Count>, heavy| {
            seat.send(seat.try_reserve(1).expect("there is room"), heavy);
        };
        let (busy, other) = (seat(), seat());
        send(&busy, true);
        for _ in 0..256 {
            send(&busy, false);
        }
        send(&other, true);
        assert_eq!((jobs.queued(), busy.len(), other.len()), (2, 257, 1));
        for worker in workers {
            assert!(!poll(&mut Box::pin(worker.run(|_| ()))));
        }
        assert_eq!((busy.len(), other.len()), (0, 0));
    }
}
