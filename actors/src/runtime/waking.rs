//! Threads that call the wakers of waiting callers, in place of the engine threads that made them
//! due.
//!
//! Guarantees (no-waker-where-others-wait): an engine thread hands its wakers over here and never
//! runs one. One thread exists before the first engine thread does, and it stays. While wakers are
//! due, some thread here is inside none. So a waker that sleeps, or that waits for a write of its
//! own, delays no other waker, however many such wakers there are. One more thread is started for
//! each waker that does not return. If no further thread can be started, wakers wait for those
//! before them.
//!
//! Does not: bound the time that a waker takes, or catch its panics (see `sluicedb_kernel::wake`).
//! Wakers of engine threads are not handed over here.

use super::cores;
use sluicedb_kernel::sync::lock;
use sluicedb_kernel::wake::{Courier, call};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread;

/// Idle threads that are kept.
const IDLE_MAX: usize = 2;

#[derive(Debug, Default)]
struct State {
    due: VecDeque<Waker>,
    threads: usize,
    /// Threads that sleep and were not called.
    idle: usize,
    /// Threads that were called and still sleep.
    called: usize,
    /// Threads that are inside a waker.
    inside: usize,
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    called: Condvar,
    /// Where the threads stay; empty: anywhere.
    cores: Arc<[usize]>,
}

/// Held by whoever may hand wakers over. After the last one is dropped, the threads call what is
/// due and end.
#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.called.notify_all();
    }
}

/// The threads. They are started for the first courier.
#[derive(Debug)]
pub(crate) struct WakingThreads {
    first: Mutex<Option<Arc<Handle>>>,
    cores: Arc<[usize]>,
}

impl WakingThreads {
    pub(crate) fn new(cores: &Arc<[usize]>) -> Self {
        Self { first: Mutex::default(), cores: Arc::clone(cores) }
    }

    /// The courier to which an engine thread hands its wakers.
    ///
    /// # Errors
    /// When no thread exists yet and the operating system cannot start one.
    pub(crate) fn courier(&self) -> io::Result<Arc<dyn Courier>> {
        let mut first = lock(&self.first);
        let handle = if let Some(handle) = &*first {
            Arc::clone(handle)
        } else {
            let shared = Arc::new(Shared { cores: Arc::clone(&self.cores), ..Shared::default() });
            Shared::start_thread(&shared, &mut shared.lock())?;
            Arc::clone(first.insert(Arc::new(Handle(shared))))
        };
        Ok(Arc::new(Carrier(handle)))
    }
}

struct Carrier(Arc<Handle>);

impl Courier for Carrier {
    fn carry(&self, wakers: Vec<Waker>) {
        let shared = &self.0.0;
        let mut state = shared.lock();
        state.due.extend(wakers);
        Shared::see_to_it(shared, &mut state);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under it.
        lock(&self.state)
    }

    /// INVARIANT(no-waker-where-others-wait): if wakers are due, makes sure that one thread is
    /// awake and inside none.
    fn see_to_it(this: &Arc<Self>, state: &mut State) {
        if state.due.is_empty() || state.threads - state.idle > state.inside {
            return;
        }
        if state.idle > 0 {
            state.idle -= 1;
            state.called += 1;
            this.called.notify_one();
            return;
        }
        if let Err(error) = Self::start_thread(this, state) {
            // The existing threads go on when they return from their wakers.
            tracing::warn!(%error, "no further thread for wakers");
        }
    }

    fn start_thread(this: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let shared = Arc::clone(this);
        thread::Builder::new()
            .name("sluice-wake".to_owned())
            .spawn(move || Self::serve(&shared))?;
        state.threads += 1;
        Ok(())
    }

    fn serve(this: &Arc<Self>) {
        cores::stay_on(&this.cores);
        let mut state = this.lock();
        loop {
            if let Some(waker) = state.due.pop_front() {
                state.inside += 1;
                Self::see_to_it(this, &mut state);
                drop(state);
                call(waker);
                state = this.lock();
                state.inside -= 1;
                continue;
            }
            if state.ended || state.idle >= IDLE_MAX {
                state.threads -= 1;
                return;
            }
            state.idle += 1;
            while state.called == 0 && !state.ended {
                state = this.called.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.called > 0 {
                state.called -= 1;
            } else {
                state.idle -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::task::Wake;
    use std::time::Duration;

    /// A waker that waits for a message and then sends one.
    struct Waits(Mutex<(Receiver<()>, Sender<()>)>);

    impl Wake for Waits {
        fn wake(self: Arc<Self>) {
            let held = self.0.lock().expect("unpoisoned");
            held.0.recv().expect("somebody lets it go");
            held.1.send(()).expect("somebody listens");
        }
    }

    /// Each waker waits for the one behind it. Planted: one thread for all; a check of `idle`
    /// alone.
    #[test]
    fn o9_wakers_that_wait_for_one_another_are_all_called() {
        for batch in [1, 3, 20] {
            let threads = WakingThreads::new(&Arc::default());
            let courier = threads.courier().expect("there is a thread to have");
            let (done, ended) = channel();
            let mut answers = done;
            let mut wakers = Vec::new();
            for _ in 0..20 {
                let (let_go, wait) = channel();
                let waits = Waits(Mutex::new((wait, std::mem::replace(&mut answers, let_go))));
                wakers.push(Waker::from(Arc::new(waits)));
            }
            answers.send(()).expect("the last one listens");
            for wakers in wakers.chunks(batch) {
                courier.carry(wakers.to_vec());
            }
            ended.recv_timeout(Duration::from_secs(60)).expect("all were called");
        }
    }

    /// Engine threads may outlive the runtime that started them. Planted: the threads end with
    /// `WakingThreads`; a fallback to this thread (the waker waits for it).
    #[test]
    fn o9_what_is_handed_on_after_the_end_is_called_at_once() {
        let threads = WakingThreads::new(&Arc::default());
        let courier = threads.courier().expect("there is a thread to have");
        drop(threads);
        for _ in 0..2 {
            let ((let_go, wait), (said, heard)) = (channel(), channel());
            courier.carry(vec![Waker::from(Arc::new(Waits(Mutex::new((wait, said)))))]);
            let_go.send(()).expect("it waits on another thread");
            heard.recv_timeout(Duration::from_secs(60)).expect("what was due is called");
        }
        let ((let_go, wait), (said, heard)) = (channel(), channel());
        courier.carry(vec![Waker::from(Arc::new(Waits(Mutex::new((wait, said)))))]);
        drop(courier);
        let_go.send(()).expect("it waits on another thread");
        heard.recv_timeout(Duration::from_secs(60)).expect("what was due is called");
    }

    /// Planted: the first waker starts the threads.
    #[test]
    fn o9_there_is_a_thread_before_the_first_waker_is_due_and_it_stays() {
        let threads = WakingThreads::new(&Arc::default());
        let couriers = [(); 3].map(|()| threads.courier().expect("there is a thread to have"));
        let shared = Arc::clone(&lock(&threads.first).as_ref().expect("somebody is served").0);
        assert_eq!(shared.lock().threads, 1);
        let noop = vec![Waker::noop().clone(); 100];
        for courier in couriers {
            courier.carry(noop.clone());
        }
        assert!((1..=IDLE_MAX + 1).contains(&shared.lock().threads));
    }
}
