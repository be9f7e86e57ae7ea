use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use sluicedb_kernel::signal::Signal;
use sluicedb_kernel::sync::block_on;

/// Two setters, one waiter: what was done before the sets is seen, and no set is lost.
/// Catches: a `set` that skips the swap when the signal is set already (stale count, then
/// deadlock); a waiter that stores its waker after it changed the state (deadlock); a waiter that
/// clears the signal with a plain store and loses a set (this last one was not planted).
#[test]
fn two_setters() {
    loom::model(|| {
        let shared = Arc::new((Signal::new(), AtomicUsize::new(0)));
        let setters = [(); 2].map(|()| {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.1.fetch_add(1, Ordering::Relaxed);
                shared.0.set();
            })
        });
        while shared.1.load(Ordering::Relaxed) < 2 {
            block_on(shared.0.wait());
        }
        for setter in setters {
            setter.join().unwrap();
        }
    });
}
