//! The latest value, for many watchers.
//!
//! Guarantees: every watcher gets the newest value and skips those in between. A change wakes all
//! of them. Setting never waits for anybody. Does not: queue; use a mailbox for that.
//!
//! ```
//! use sluicedb_kernel::{sync::block_on, watch::Watch};
//!
//! let watch = Watch::new(1);
//! let mut watcher = watch.watcher();
//! watch.set(2);
//! watch.update(|value| (*value < 5).then_some(value + 1));
//! assert_eq!((block_on(watcher.changed()), watcher.get(), watch.get()), (3, 3, 3));
//! ```

use crate::sync::{Arc, Mutex, lock};
use crate::wake::wake_all;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::task::{Context, Poll, Waker};

struct Board<T> {
    value: T,
    /// How often it was set.
    edition: u64,
    next_id: u64,
    waiting: BTreeMap<u64, Waker>,
}

/// The latest value, for those who set it. Clones share it.
#[derive(Clone)]
pub struct Watch<T>(Arc<Mutex<Board<T>>>);

/// A watcher. It knows which edition it has seen.
pub struct Watcher<T> {
    board: Arc<Mutex<Board<T>>>,
    seen: u64,
}

opaque_debug!("Watch", [T] Watch<T>);
opaque_debug!("Watcher", [T] Watcher<T>);

impl<T: Clone> Watch<T> {
    /// A watch that shows `value`.
    pub fn new(value: T) -> Self {
        let board = Board { value, edition: 0, next_id: 0, waiting: BTreeMap::new() };
        Self(Arc::new(Mutex::new(board)))
    }

    /// The newest value.
    pub fn get(&self) -> T {
        lock(&self.0).value.clone()
    }

    /// Shows `value` and wakes every watcher.
    pub fn set(&self, value: T) {
        self.update(|_| Some(value));
    }

    /// Shows what `next` makes of the newest value, unless that is `None`. Returns whether it
    /// changed. `next` runs under the lock that orders all changes: it must be short and must not
    /// use this watch.
    pub fn update(&self, next: impl FnOnce(&T) -> Option<T>) -> bool {
        let (old, waiting) = {
            let mut board = lock(&self.0);
            let Some(value) = next(&board.value) else { return false };
            board.edition += 1;
            (std::mem::replace(&mut board.value, value), std::mem::take(&mut board.waiting))
        };
        drop(old);
        wake_all(waiting.into_values());
        true
    }

    /// A watcher. The newest value counts as seen by it.
    pub fn watcher(&self) -> Watcher<T> {
        Watcher { board: Arc::clone(&self.0), seen: lock(&self.0).edition }
    }
}

impl<T: Clone> Watcher<T> {
    /// The newest value, which counts as seen.
    pub fn get(&mut self) -> T {
        let board = lock(&self.board);
        self.seen = board.edition;
        board.value.clone()
    }

    /// Resolves to the newest value once it is one that this watcher has not seen.
    ///
    /// # Cancellation
    /// If it is dropped, nothing was seen.
    pub fn changed(&mut self) -> impl Future<Output = T> {
        let mut waiting = Waiting { watcher: self, id: None };
        poll_fn(move |context| waiting.poll(context))
    }
}

struct Waiting<'a, T> {
    watcher: &'a mut Watcher<T>,
    id: Option<u64>,
}

impl<T: Clone> Waiting<'_, T> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<T> {
        let waker = context.waker().clone();
        let mut board = lock(&self.watcher.board);
        if board.edition != self.watcher.seen {
            self.watcher.seen = board.edition;
            // Every change empties the list, so this future has no entry in it.
            self.id = None;
            return Poll::Ready(board.value.clone());
        }
        let id = *self.id.get_or_insert_with(|| {
            board.next_id += 1;
            board.next_id
        });
        let old = board.waiting.insert(id, waker);
        drop(board);
        drop(old);
        Poll::Pending
    }
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let old = lock(&self.watcher.board).waiting.remove(&id);
            drop(old);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::pin::Pin;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn a_watcher_sees_the_newest_value_only() {
        let watch = Watch::new(1);
        let mut watcher = watch.watcher();
        let mut other = watch.watcher();
        {
            let mut changed = watcher.changed();
            assert!(Pin::new(&mut changed).poll(&mut context()).is_pending());
            watch.set(2);
            watch.set(3);
            assert_eq!(Pin::new(&mut changed).poll(&mut context()), Poll::Ready(3));
        }
        assert!(Pin::new(&mut watcher.changed()).poll(&mut context()).is_pending());
        assert_eq!(Pin::new(&mut other.changed()).poll(&mut context()), Poll::Ready(3));
        assert_eq!((other.get(), watch.get()), (3, 3));
        assert!(!watch.update(|value| (*value > 5).then_some(9)));
        drop(watcher.changed());
        let mut changed = other.changed();
        assert!(Pin::new(&mut changed).poll(&mut context()).is_pending());
        drop(changed);
        assert!(lock(&watch.0).waiting.is_empty(), "a dropped watcher leaves nothing");
    }
}
