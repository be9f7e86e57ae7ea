//! Threads on which the wakers of waiting callers are called, for engine threads that others need.
//!
//! Guarantees (no-waker-where-others-wait): while wakers are due, some thread here is inside none of
//! them: a waker that sleeps, or that waits for a write of its own, holds up nobody else, however many
//! there are of them. There is one thread, normally; one more for each waker that does not come back.
//! Where none can be started, wakers are called by whoever wanted to hand them on.
//!
//! Does not: bound the time a waker takes, nor catch what it panics with (see `kernel::wake`).

use crate::kernel::sync::lock;
use crate::kernel::wake::{Courier, call};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread;

/// Threads that stay although they have nothing to do.
const IDLE_MAX: usize = 2;

#[derive(Debug, Default)]
struct State {
    due: VecDeque<Waker>,
    threads: usize,
    /// Those that sleep and were not called.
    idle: usize,
    /// Those that were called and still sleep.
    called: usize,
    /// Those that are inside a waker.
    inside: usize,
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    called: Condvar,
}

/// The threads. Dropped, they call what is due and end.
#[derive(Debug, Default)]
pub(crate) struct WakingThreads(Arc<Shared>);

impl WakingThreads {
    /// What engine threads hand their wakers to.
    pub(crate) fn courier(&self) -> Arc<dyn Courier> {
        Arc::new(Carrier(Arc::clone(&self.0)))
    }
}

impl Drop for WakingThreads {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.called.notify_all();
    }
}

struct Carrier(Arc<Shared>);

impl Courier for Carrier {
    fn carry(&self, wakers: Vec<Waker>) {
        let mut state = self.0.lock();
        if state.ended {
            drop(state);
            return wakers.into_iter().for_each(call);
        }
        state.due.extend(wakers);
        Shared::see_to_it(&self.0, &mut state);
        if state.threads == 0 {
            let due = std::mem::take(&mut state.due);
            drop(state);
            due.into_iter().for_each(call);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under it.
        lock(&self.state)
    }

    /// INVARIANT(no-waker-where-others-wait): if wakers are due, one thread is awake and inside none.
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
        let shared = Arc::clone(this);
        let started = thread::Builder::new()
            .name("sluice-wake".to_owned())
            .spawn(move || Self::serve(&shared));
        match started {
            Ok(_) => state.threads += 1,
            Err(error) => tracing::warn!(%error, "no further thread for wakers"),
        }
    }

    fn serve(this: &Arc<Self>) {
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

    /// Waits for a word, then says one.
    struct Waits(Mutex<(Receiver<()>, Sender<()>)>);

    impl Wake for Waits {
        fn wake(self: Arc<Self>) {
            let held = self.0.lock().expect("unpoisoned");
            held.0.recv().expect("somebody lets it go");
            held.1.send(()).expect("somebody listens");
        }
    }

    /// Each waker waits for the one behind it. Planted: one thread for all; a look at `idle` alone.
    #[test]
    fn o9_wakers_that_wait_for_one_another_are_all_called() {
        for batch in [1, 3, 20] {
            let threads = WakingThreads::default();
            let courier = threads.courier();
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

    #[test]
    fn o9_what_is_handed_on_after_the_end_is_called_at_once() {
        struct Says(Sender<()>);
        impl Wake for Says {
            fn wake(self: Arc<Self>) {
                self.0.send(()).expect("somebody listens");
            }
        }
        let threads = WakingThreads::default();
        let courier = threads.courier();
        let (said, heard) = channel();
        let waker = Waker::from(Arc::new(Says(said)));
        courier.carry(vec![waker.clone()]);
        drop(threads);
        heard.recv_timeout(Duration::from_secs(60)).expect("what was due is called");
        courier.carry(vec![waker]);
        assert_eq!(heard.try_recv(), Ok(()));
    }
}
