//! Where wakers are called. They are foreign code: one may panic, sleep, or use the database itself.
//!
//! Guarantees: none is called while its thread has a [`Hold`], as every turn and every taken seat has:
//! what becomes due meanwhile is called when the last one ends, when this thread owes others nothing
//! more. A panic in a waker ends there. A thread that others need calls none at all: it hands them to
//! its [`Courier`].
//!
//! Does not: order wakes. Signals that engine threads wait for call their wakers at once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

/// Calls wakers on a thread that nobody else waits for.
pub trait Courier: Send + Sync {
    /// Sees to it that they are called soon. Must not block.
    fn carry(&self, wakers: Vec<Waker>);
}

/// Wakers are due: the highest bit of `HOLDS`, so that ending a hold is one look at one word.
const DUE: u32 = 1 << 31;

#[cfg(not(loom))]
thread_local! {
    /// How many holds this thread has, and `DUE`.
    static HOLDS: Cell<u32> = const { Cell::new(0) };
    static WAITING: RefCell<VecDeque<Waker>> = const { RefCell::new(VecDeque::new()) };
    static COURIER: RefCell<Option<Arc<dyn Courier>>> = const { RefCell::new(None) };
}

#[cfg(loom)]
loom::thread_local! {
    static HOLDS: Cell<u32> = Cell::new(0);
    static WAITING: RefCell<VecDeque<Waker>> = RefCell::new(VecDeque::new());
    static COURIER: RefCell<Option<Arc<dyn Courier>>> = RefCell::new(None);
}

/// From now on this thread calls no waker but hands all of them to `courier`.
pub fn hand_on_to(courier: Arc<dyn Courier>) {
    COURIER.with(|slot| slot.replace(Some(courier)));
}

/// While it lives, this thread calls no waker.
#[must_use = "wakers are held back only while it lives"]
#[derive(Debug)]
pub struct Hold(PhantomData<*const ()>);

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}

impl Hold {
    /// Holds wakers back. Must not be kept over a wait for somebody who may need one of them.
    #[inline]
    pub fn new() -> Self {
        HOLDS.with(|holds| holds.set(holds.get() + 1));
        Self(PhantomData)
    }
}

impl Drop for Hold {
    #[inline]
    fn drop(&mut self) {
        let left = HOLDS.with(|holds| {
            holds.set(holds.get() - 1);
            holds.get()
        });
        if left == DUE {
            call_what_is_due();
        }
    }
}

/// Calls `waker` now, or when this thread's last hold ends, or on another thread.
pub(crate) fn wake(waker: Waker) {
    let mut waker = Some(waker);
    if HOLDS.with(Cell::get) != 0 {
        // A thread that is ending has lost its list, and has no turn under way.
        let kept = WAITING.try_with(|waiting| waiting.borrow_mut().extend(waker.take()));
        if kept.is_ok() {
            HOLDS.with(|holds| holds.set(holds.get() | DUE));
        }
    }
    if let Some(waker) = waker {
        match courier() {
            Some(courier) => courier.carry(vec![waker]),
            None => call(waker),
        }
    }
}

/// As [`wake`], many at once.
pub(crate) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    let _hold = Hold::new();
    wakers.into_iter().for_each(wake);
}

#[cold]
fn call_what_is_due() {
    // INVARIANT(no-waker-where-others-wait): the last seat is free, and the turn's work done.
    HOLDS.with(|holds| holds.set(0));
    if let Some(courier) = courier() {
        let wakers = WAITING.try_with(RefCell::take).unwrap_or_default();
        return courier.carry(wakers.into());
    }
    // One by one: a waker that uses the database sees to the rest when its own holds end.
    while let Ok(Some(waker)) = WAITING.try_with(|waiting| waiting.borrow_mut().pop_front()) {
        call(waker);
    }
}

fn courier() -> Option<Arc<dyn Courier>> {
    COURIER.try_with(|slot| slot.borrow().clone()).ok().flatten()
}

/// Calls one waker here and now. What it panics with is nobody's business but its own.
pub fn call(waker: Waker) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        tracing::error!("a waker panicked");
        // The payload is foreign, too.
        drop(catch_unwind(AssertUnwindSafe(|| drop(panic))));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("on purpose");
        }
    }

    /// Planted: a hold that ends at the first drop; `call` without `catch_unwind`.
    #[test]
    fn o9_wakers_are_called_when_the_last_hold_ends_and_panics_end_there() {
        let count = Arc::new(Count::default());
        let called = || count.0.load(Ordering::SeqCst);
        let outer = Hold::new();
        {
            let _inner = Hold::new();
            wake(Waker::from(Arc::new(Panics)));
            wake(Waker::from(count.clone()));
        }
        assert_eq!(called(), 0);
        drop(outer);
        assert_eq!(called(), 1);
        wake_all([Waker::from(Arc::new(Panics)), Waker::from(count.clone())]);
        wake(Waker::from(count.clone()));
        assert_eq!(called(), 3);
    }

    /// A waker that uses the database again, and others behind it.
    #[test]
    fn o9_a_waker_may_hold_and_wake_in_turn() {
        struct Nested(Arc<Count>);
        impl Wake for Nested {
            fn wake(self: Arc<Self>) {
                let _hold = Hold::new();
                wake(Waker::from(self.0.clone()));
            }
        }
        let count = Arc::new(Count::default());
        let nested = Arc::new(Nested(count.clone()));
        wake_all([Waker::from(nested.clone()), Waker::from(count.clone()), Waker::from(nested)]);
        assert_eq!(count.0.load(Ordering::SeqCst), 3);
        assert_eq!(HOLDS.with(Cell::get), 0);
    }

    #[test]
    fn o9_a_thread_with_a_courier_calls_nothing() {
        #[derive(Default)]
        struct Bag(Mutex<Vec<Vec<Waker>>>);
        impl Courier for Bag {
            fn carry(&self, wakers: Vec<Waker>) {
                self.0.lock().expect("nothing panics under it").push(wakers);
            }
        }
        let (bag, count) = (Arc::new(Bag::default()), Arc::new(Count::default()));
        let (theirs, counted) = (bag.clone(), count.clone());
        let thread = std::thread::spawn(move || {
            hand_on_to(theirs);
            wake(Waker::from(counted.clone()));
            wake_all([Waker::from(counted.clone()), Waker::from(counted)]);
        });
        thread.join().expect("the thread returns");
        let lens: Vec<_> = bag.0.lock().expect("unpoisoned").iter().map(Vec::len).collect();
        assert_eq!((lens, count.0.load(Ordering::SeqCst)), (vec![1, 2], 0));
    }
}
