//! Makes tokio's own wakers known to the engine as wakers that wait for nobody.
//!
//! The engine's threads call no waker that may be slow, or may even wait for the database: they
//! hand it to a thread that does nothing else. Tokio's wakers only queue a task and unpark a
//! thread. Handing them over would cost each synced put two more thread switches, about a sixth of
//! its time.
//!
//! Tokio does not name its kinds of wakers, so this module makes one of each and looks at it: the
//! waker of a task, and those with which the `block_on` of a runtime and of a handle poll. A
//! combinator that polls with a waker of its own (`FuturesUnordered`) is not among them, because
//! its waker may call anything.

use sluicedb_actors::runtime::Runtime;
use sluicedb_kernel::wake::trust;
use std::future::poll_fn;
use std::sync::Once;
use std::task::Poll;

static MADE_KNOWN: Once = Once::new();

/// Makes them known, on a thread of `runtime`. Only the first call in this process does anything.
/// INVARIANT(no-waker-where-others-wait): these wakers wait for nobody.
pub(crate) fn make_known(runtime: &dyn Runtime) {
    MADE_KNOWN.call_once(|| {
        // Without that thread they are called as foreign wakers.
        let _started = runtime.spawn("sluice-tokio", Box::pin(async { look() }));
    });
}

fn look() {
    let one = || {
        poll_fn(|context| {
            trust(context.waker());
            Poll::Ready(())
        })
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    let task = runtime.spawn(one());
    runtime.block_on(async {
        one().await;
        // A task that does nothing else does not fail.
        let _ended = task.await;
    });
    runtime.handle().block_on(one());
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicedb_kernel::wake::{Courier, hand_on_to, wake_all};
    use std::sync::mpsc::{Sender, channel};
    use std::sync::{Arc, Mutex};
    use std::task::{Wake, Waker};

    /// Tells of what is handed over, and calls nothing.
    struct Tells(Mutex<Sender<()>>);
    impl Courier for Tells {
        fn carry(&self, _: Vec<Waker>) {
            let told = self.0.lock().expect("nothing panics under it").send(());
            told.expect("somebody listens");
        }
    }

    /// Would an engine's thread call this waker itself?
    fn is_trusted(waker: Waker) -> bool {
        let (tells, handed_over) = channel();
        let engine = std::thread::spawn(|| {
            hand_on_to(Arc::new(Tells(Mutex::new(tells))));
            wake_all([waker]);
        });
        engine.join().expect("no waker panics");
        handed_over.try_recv().is_err()
    }

    async fn polled_with_a_trusted_one() -> bool {
        poll_fn(|context| Poll::Ready(is_trusted(context.waker().clone()))).await
    }

    struct Foreign;
    impl Wake for Foreign {
        fn wake(self: Arc<Self>) {}
    }

    /// Planted: `look` without the task, or without one of the two `block_on`s.
    #[test]
    fn the_wakers_of_tasks_and_of_block_on_are_known_and_no_others() {
        std::thread::spawn(look).join().expect("it only looks");
        let one = tokio::runtime::Builder::new_current_thread().build().expect("it starts");
        let many = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        for runtime in [one, many.expect("it starts")] {
            assert!(runtime.block_on(polled_with_a_trusted_one()), "block_on");
            assert!(runtime.handle().block_on(polled_with_a_trusted_one()), "a handle's");
            let task = runtime.spawn(polled_with_a_trusted_one());
            assert!(runtime.block_on(task).expect("it ends"), "a task");
            let among_others =
                futures::future::join_all((0..40).map(|_| polled_with_a_trusted_one()));
            assert!(!runtime.block_on(among_others)[0], "a combinator's");
        }
        assert!(!is_trusted(Waker::from(Arc::new(Foreign))));
        assert!(!futures::executor::block_on(polled_with_a_trusted_one()));
    }
}
