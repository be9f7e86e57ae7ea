//! Where wakers are called. They are foreign code: a waker may panic, sleep, or use the same actors
//! itself.
//!
//! Guarantees: no waker is called while its thread has a [`Hold`], and every turn and every taken
//! seat has one. Wakers that become due meanwhile are called when the last hold ends, when this
//! thread owes others nothing more. A panic in a waker ends there. A thread that others need calls
//! no foreign waker: it hands them to its [`Courier`].
//!
//! Wakers of a kind that is known to wait for nothing ([`trust`]), such as those of
//! [`block_on`](crate::sync::block_on), are not foreign. They are called before all foreign ones,
//! on whatever thread they became due, and wait for none of them.
//!
//! Does not: order foreign wakers, or call each on a thread of its own. A slow one delays those
//! that became due in the same call. A [`Signal`](crate::signal::Signal) calls its waker at once.
//!
//! ```
//! use sluicedb_kernel::wake::{Courier, Hold, call, hand_on_to, trust, wake_all};
//! use std::{sync::Arc, task::Waker, thread};
//!
//! struct Spawns;
//! impl Courier for Spawns {
//!     fn carry(&self, wakers: Vec<Waker>) {
//!         thread::spawn(|| wakers.into_iter().for_each(call)); // nobody waits for this thread
//!     }
//! }
//!
//! hand_on_to(Arc::new(Spawns)); // others need the thread that runs this
//! let hold = Hold::new();
//! wake_all([Waker::noop().clone()]);
//! drop(hold); // now it is handed over
//! trust(Waker::noop()); // it waits for nobody: from now on this thread calls it itself
//! ```

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::task::{RawWakerVTable, Waker};

/// Calls wakers on a thread that nobody else waits for.
pub trait Courier: Send + Sync {
    /// Makes sure that they are called soon. Must not block.
    fn carry(&self, wakers: Vec<Waker>);
}

/// The trusted kinds of wakers. The code of a waker is its kind.
static TRUSTED: [OnceLock<&'static RawWakerVTable>; 8] = [const { OnceLock::new() }; 8];

/// From now on wakers of this kind are called on any thread, including threads that others need.
/// They must only unpark a thread or queue a task, and wait for nobody. Eight kinds are remembered.
/// Further ones count as foreign.
pub fn trust(waker: &Waker) {
    // The vtable of a clone may be at another address.
    for kind in [waker.vtable(), waker.clone().vtable()] {
        // Stops where the kind is known, or at the first free place, which it fills.
        let _known = TRUSTED.iter().find(|place| is_same(place.get_or_init(|| kind), kind));
    }
}

/// Is the waker of a kind that waits for nobody?
pub fn is_trusted(waker: &Waker) -> bool {
    let kind = waker.vtable();
    TRUSTED.iter().map_while(OnceLock::get).any(|known| is_same(known, kind))
}

/// Wakers with the same code do the same.
fn is_same(a: &'static RawWakerVTable, b: &'static RawWakerVTable) -> bool {
    std::ptr::eq(a, b) || a == b
}

/// Set while wakers are due. It is the highest bit of `HOLDS`, so that ending a hold is one look at
/// one word.
const DUE: u32 = 1 << 31;

/// Most foreign wakers inside one another, for the sake of the stack. A deeper one leaves the rest
/// to those above.
const INSIDE_MAX: u32 = 16;

/// What one thread knows of wakers.
struct Local {
    /// Due wakers.
    trusted: VecDeque<Waker>,
    foreign: VecDeque<Waker>,
    /// How many foreign wakers out of this list the thread is inside.
    inside: u32,
    courier: Option<Arc<dyn Courier>>,
}

const NOTHING_DUE: Local =
    Local { trusted: VecDeque::new(), foreign: VecDeque::new(), inside: 0, courier: None };

#[cfg(not(loom))]
thread_local! {
    /// This thread's holds, and `DUE` while wakers are due.
    static HOLDS: Cell<u32> = const { Cell::new(0) };
    static LOCAL: RefCell<Local> = const { RefCell::new(NOTHING_DUE) };
}

#[cfg(loom)]
loom::thread_local! {
    static HOLDS: Cell<u32> = Cell::new(0);
    static LOCAL: RefCell<Local> = RefCell::new(NOTHING_DUE);
}

/// `None` on a thread that is ending and has lost its list. It runs no turn any more.
fn local<T>(f: impl FnOnce(&mut Local) -> T) -> Option<T> {
    LOCAL.try_with(|local| f(&mut local.borrow_mut())).ok()
}

/// From now on this thread calls no foreign waker and hands them all to `courier`.
pub fn hand_on_to(courier: Arc<dyn Courier>) {
    // The former courier is foreign code: it is dropped outside.
    drop(local(|local| local.courier.replace(courier)));
}

/// While it exists, this thread calls no waker.
#[must_use = "wakers are held back only while it lives"]
#[derive(Debug)]
pub struct Hold(PhantomData<*const ()>);

impl Hold {
    /// Holds wakers back. Must not be kept while waiting for somebody who may need one of them.
    #[inline]
    #[expect(clippy::new_without_default, reason = "it does something")]
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
    let trusted = waker.as_ref().is_some_and(is_trusted);
    let courier = local(|local| {
        if HOLDS.with(Cell::get) & !DUE == 0 {
            return local.courier.clone();
        }
        let list = if trusted { &mut local.trusted } else { &mut local.foreign };
        list.extend(waker.take());
        HOLDS.with(|holds| holds.set(holds.get() | DUE));
        None
    });
    match (waker, courier.flatten()) {
        (None, _) => {}
        (Some(waker), Some(courier)) if !trusted => courier.carry(vec![waker]),
        (Some(waker), _) => call(waker),
    }
}

/// As `wake`, for many wakers.
pub fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    let _hold = Hold::new();
    wakers.into_iter().for_each(wake);
}

#[cold]
fn call_what_is_due() {
    // INVARIANT(no-waker-where-others-wait): the last seat is free, and the turn's work is done.
    while let Some(waker) = take(|local| local.trusted.pop_front()) {
        call(waker);
    }
    if let Some(courier) = local(|local| local.courier.clone()).flatten() {
        let foreign = take(|local| Some(std::mem::take(&mut local.foreign)));
        if let Some(wakers) = foreign.filter(|wakers| !wakers.is_empty()) {
            courier.carry(wakers.into());
        }
        return;
    }
    // Each waker is off the list before it is called, and `DUE` stays set while there are more. If
    // a waker uses the database and waits for one of them, they are called when its own hold ends.
    while let Some(waker) = take(|local| {
        let waker = (local.inside < INSIDE_MAX).then(|| local.foreign.pop_front()).flatten();
        local.inside += u32::from(waker.is_some());
        waker
    }) {
        call(waker);
        local(|local| local.inside -= 1);
    }
}

/// Takes something off the lists, and looks whether they are empty now.
fn take<T>(from: impl FnOnce(&mut Local) -> Option<T>) -> Option<T> {
    let (taken, is_empty) = local(|local| {
        let taken = from(local);
        (taken, local.trusted.is_empty() && local.foreign.is_empty())
    })?;
    if is_empty {
        HOLDS.with(|holds| holds.set(holds.get() & !DUE));
    }
    taken
}

/// Calls one waker here and now. Its panic ends here.
pub fn call(waker: Waker) {
    if let Err(message) = contain(|| waker.wake()) {
        tracing::error!(message, "a waker panicked");
    }
}

/// Runs foreign code. If it panics, the panic ends here, and its message is returned.
#[inline]
pub(crate) fn contain<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(message_of)
}

#[cold]
fn message_of(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("no message").to_owned();
    // What was thrown is foreign code, too. What that throws is leaked.
    let _next = catch_unwind(AssertUnwindSafe(|| drop(panic))).map_err(ManuallyDrop::new);
    text
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::block_on;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, channel};
    use std::task::{Poll, Wake};
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(20);

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

    /// A waker that uses the database again, with others behind it.
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

    /// A waker that runs a closure.
    struct Does<F>(F);

    impl<F: Fn() + Send + Sync + 'static> Wake for Does<F> {
        fn wake(self: Arc<Self>) {
            (self.0)();
        }
    }

    fn does(what: impl Fn() + Send + Sync + 'static) -> Waker {
        Waker::from(Arc::new(Does(what)))
    }

    /// An engine thread that ends when it is woken; its waker; and a message for each poll.
    fn parked() -> (std::thread::JoinHandle<()>, Waker, Receiver<Waker>) {
        let (told, polls) = channel();
        let mut woken = false;
        let thread = std::thread::spawn(move || {
            block_on(std::future::poll_fn(|context| {
                told.send(context.waker().clone()).expect("somebody listens");
                if std::mem::replace(&mut woken, true) { Poll::Ready(()) } else { Poll::Pending }
            }));
        });
        let waker = polls.recv().expect("it is polled");
        (thread, waker, polls)
    }

    #[test]
    fn o9_the_engines_wakers_are_told_from_foreign_ones() {
        for _ in 0..2 {
            let (thread, waker, _polls) = parked();
            assert!(is_trusted(&waker) && is_trusted(&waker.clone().clone()));
            waker.wake();
            thread.join().expect("it was woken");
        }
        assert!(!is_trusted(Waker::noop()) && !is_trusted(&does(|| ())));
        futures::executor::block_on(std::future::poll_fn(|context| {
            assert!(!is_trusted(context.waker()));
            Poll::Ready(())
        }));
    }

    /// A waker that uses the database and would then wait for those behind it. Planted: `DUE` is
    /// cleared before the first of them is called.
    #[test]
    fn o9_a_waker_that_uses_the_database_calls_those_behind_it() {
        let (count, seen) = (Arc::new(Count::default()), Arc::new(AtomicUsize::new(0)));
        let (counted, saw) = (count.clone(), seen.clone());
        let uses = does(move || {
            drop(Hold::new());
            saw.store(counted.0.load(Ordering::SeqCst), Ordering::SeqCst);
        });
        wake_all([uses, Waker::from(count.clone()), Waker::from(count.clone())]);
        assert_eq!((seen.load(Ordering::SeqCst), count.0.load(Ordering::SeqCst)), (2, 2));
        assert_eq!((HOLDS.with(Cell::get), local(|local| local.inside)), (0, Some(0)));
    }

    /// Planted: no bound.
    #[test]
    fn o9_any_number_of_wakers_that_use_the_database_fit_on_the_stack() {
        let [most, now, called] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
        let (high, inside, counted) = (most.clone(), now, called.clone());
        let uses = does(move || {
            high.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            drop(Hold::new());
            inside.fetch_sub(1, Ordering::SeqCst);
            counted.fetch_add(1, Ordering::SeqCst);
        });
        wake_all(vec![uses; 1_000]);
        assert_eq!(called.load(Ordering::SeqCst), 1_000);
        assert_eq!(most.load(Ordering::SeqCst), INSIDE_MAX as usize);
        assert_eq!((HOLDS.with(Cell::get), local(|local| local.inside)), (0, Some(0)));
    }

    /// The log's thread is behind a waker that waits for it. Planted: one list for all wakers.
    #[test]
    fn o9_engine_threads_are_woken_before_a_foreign_waker_is_called() {
        let (thread, engine, polls) = parked();
        let woken = Arc::new(AtomicUsize::new(0));
        let (polls, counted) = (Mutex::new(polls), woken.clone());
        let waits = does(move || {
            let polled = polls.lock().expect("unpoisoned").recv_timeout(PATIENCE);
            counted.fetch_add(polled.is_ok().into(), Ordering::SeqCst);
        });
        wake_all([waits, engine]);
        assert_eq!(woken.load(Ordering::SeqCst), 1, "it waited in vain");
        thread.join().expect("it was woken");
    }

    /// Planted: all wakers go to the courier.
    #[test]
    fn o9_engine_threads_are_woken_without_the_courier() {
        struct Loses;
        impl Courier for Loses {
            fn carry(&self, _: Vec<Waker>) {}
        }
        for held in [true, false] {
            let (thread, engine, polls) = parked();
            let waking = std::thread::spawn(move || {
                hand_on_to(Arc::new(Loses));
                if held {
                    wake_all([does(|| panic!("called")), engine]);
                } else {
                    wake(engine);
                }
            });
            waking.join().expect("the thread returns");
            polls.recv_timeout(PATIENCE).expect("it is polled again");
            thread.join().expect("it was woken");
        }
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
