//! Which stripe a thread uses of what is striped.
//!
//! Whatever many threads write to is one cache line that travels between their cores. So it is cut
//! into stripes, each on cache lines of its own, and a thread writes to one of them. Readers add
//! the stripes up. That is rare, so it may cost more.
//!
//! Guarantees: a thread always gets the same number, and threads get numbers in turn, so any few of
//! them use different stripes.
//! Does not: keep a stripe to one thread. What is in it must bear several writers.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// The number of this thread: take it modulo the number of stripes.
#[inline]
pub fn of_this_thread() -> usize {
    // While a thread ends its locals may be gone; any stripe will do.
    MINE.try_with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        mine.get()
    })
    .unwrap_or(0)
}
