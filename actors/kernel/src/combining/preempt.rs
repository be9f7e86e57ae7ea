//! Where a simulator may switch to other actors: before a seat is taken, and after it is free.
//!
//! A simulator that switches at awaits alone never gets between two visits of seats in one poll. So
//! it installs a hook here, for its own thread. The hook is called while this thread holds no seat.
//! A build without debug assertions contains none of this.
//!
//! ```
//! use sluicedb_kernel::combining::preempt;
//!
//! let former = preempt::install(Some(std::rc::Rc::new(|| println!("others run"))));
//! preempt::point(); // the kernel calls it; a simulated disk may, too
//! preempt::install(former);
//! ```

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Lets others run.
pub type Hook = Rc<dyn Fn()>;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    static SEATS_HELD: Cell<usize> = const { Cell::new(0) };
}

/// Sets this thread's hook. Returns the previous one.
pub fn install(hook: Option<Hook>) -> Option<Hook> {
    HOOK.with(|slot| slot.replace(hook))
}

/// Lets others run here, if a hook is installed and this thread holds no seat.
#[inline]
pub fn point() {
    if cfg!(debug_assertions) && SEATS_HELD.get() == 0 && !std::thread::panicking() {
        let hook = HOOK.with(|slot| slot.borrow().clone());
        if let Some(hook) = hook {
            hook();
        }
    }
}

/// Marks a seat as held until it is dropped, which happens after the seat is free, on the thread
/// that took it: a std lock allows nothing else.
pub(super) struct Occupied(());

impl Occupied {
    #[inline]
    pub(super) fn new() -> Self {
        if cfg!(debug_assertions) {
            SEATS_HELD.set(SEATS_HELD.get() + 1);
        }
        Self(())
    }
}

impl Drop for Occupied {
    #[inline]
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            SEATS_HELD.set(SEATS_HELD.get() - 1);
            point();
        }
    }
}

#[cfg(all(test, debug_assertions, not(loom)))]
mod tests {
    use super::*;
    use crate::combining::seat::Lock;

    #[test]
    fn others_run_before_a_seat_is_taken_and_after_it_is_free() {
        let (outer, inner) = (Lock::new(()), Rc::new(Lock::new(())));
        let runs = Rc::new(Cell::new(0));
        let (seen, free) = (Rc::clone(&runs), Rc::clone(&inner));
        install(Some(Rc::new(move || {
            // What the hook runs has no hook itself, and finds the seats free.
            let hook = install(None);
            assert!(free.enter(false).is_some());
            install(hook);
            seen.set(seen.get() + 1);
        })));
        let guard = outer.enter(false);
        assert_eq!(runs.get(), 1);
        drop(inner.enter(true));
        assert_eq!(runs.get(), 1, "not under another seat");
        drop(guard);
        assert_eq!(runs.get(), 2);
        install(None);
    }
}
