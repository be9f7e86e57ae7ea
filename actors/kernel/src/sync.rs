//! The switch between std and loom, and waiting on a thread.
//!
//! Guarantees: everything in this crate that two threads share is built from the types named here,
//! so a loom model sees all of it.

use crate::wake::trust;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc as StdArc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

#[cfg(loom)]
pub use loom::sync::{Arc, Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub use std::sync::{Arc, Condvar, Mutex, MutexGuard, atomic};

/// Locks a mutex under which no foreign code runs. A panic cannot leave its state half changed, so
/// poison is ignored.
///
/// ```
/// use sluicedb_kernel::sync::{Mutex, lock};
///
/// assert_eq!(*lock(&Mutex::new(7)), 7);
/// ```
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A value on cache lines of its own, so two threads that write neighbours do not slow each other
/// down. 128, because x86 fetches lines in pairs.
#[repr(align(128))]
pub(crate) struct Lane<T>(pub(crate) T);

/// Wakes one parked thread.
struct Parker {
    rung: Mutex<bool>,
    bell: Condvar,
}

impl Wake for Parker {
    fn wake(self: StdArc<Self>) {
        if !std::mem::replace(&mut *lock(&self.rung), true) {
            self.bell.notify_one();
        }
    }
}

/// Runs `future` to its end on this thread, and parks the thread between polls. For threads of your
/// own, never on an executor.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let parker = StdArc::new(Parker { rung: Mutex::new(false), bell: Condvar::new() });
    let waker = Waker::from(StdArc::clone(&parker));
    trust(&waker);
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        let mut rung = lock(&parker.rung);
        while !std::mem::take(&mut *rung) {
            rung = parker.bell.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
