//! The latest value, for many who watch.
//!
//! Guarantees: every watcher gets the newest value, skipping those in between; a change wakes all
//! of them; setting never waits for anybody and wakes outside locks. Does not: queue; use a mailbox
//! for that.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, lock};
use crate::wake::wake_all;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

struct Board<T> {
    /// How often the value was set; written under the lock.
    edition: AtomicU64,
    inside: Mutex<Inside<T>>,
}

struct Inside<T> {
    value: T,
    next_id: u64,
    waiting: BTreeMap<u64, Waker>,
}

/// The latest value, for those who set it. Clones share it.
pub struct Watch<T>(Arc<Board<T>>);

/// One who watches: knows which edition it has seen.
pub struct Watcher<T> {
    board: Arc<Board<T>>,
    seen: u64,
}

opaque_debug!("Watch", [T] Watch<T>);
opaque_debug!("Watcher", [T] Watcher<T>);
opaque_debug!("Changed", [T] Changed<'_, T>);

impl<T> Clone for Watch<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Clone for Watcher<T> {
    fn clone(&self) -> Self {
        Self { board: Arc::clone(&self.board), seen: self.seen }
    }
}

impl<T: Clone> Watch<T> {
    /// A watch that shows `value`.
    pub fn new(value: T) -> Self {
        let inside = Inside { value, next_id: 0, waiting: BTreeMap::new() };
        Self(Arc::new(Board { edition: AtomicU64::new(0), inside: Mutex::new(inside) }))
    }

    /// The newest value.
    pub fn get(&self) -> T {
        lock(&self.0.inside).value.clone()
    }

    /// Shows `value` and wakes every watcher.
    pub fn set(&self, value: T) {
        self.update(|_| Some(value));
    }

    /// Shows what `next` makes of the newest value, unless that is `None`; was it changed? `next`
    /// runs under the lock that orders all changes: it must be short and must not use this watch.
    pub fn update(&self, next: impl FnOnce(&T) -> Option<T>) -> bool {
        let (old, waiting) = {
            let mut inside = lock(&self.0.inside);
            let Some(value) = next(&inside.value) else { return false };
            let edition = self.0.edition.load(Ordering::Relaxed) + 1;
            self.0.edition.store(edition, Ordering::Release);
            (std::mem::replace(&mut inside.value, value), std::mem::take(&mut inside.waiting))
        };
        drop(old);
        wake_all(waiting.into_values());
        true
    }

    /// A watcher that has seen the newest value.
    pub fn watcher(&self) -> Watcher<T> {
        let seen = self.0.edition.load(Ordering::Acquire);
        Watcher { board: Arc::clone(&self.0), seen }
    }
}

impl<T: Clone> Watcher<T> {
    /// The newest value, which counts as seen.
    pub fn get(&mut self) -> T {
        let inside = lock(&self.board.inside);
        self.seen = self.board.edition.load(Ordering::Relaxed);
        inside.value.clone()
    }

    /// Resolves to the newest value once it is one this watcher has not seen. May be dropped.
    pub fn changed(&mut self) -> Changed<'_, T> {
        Changed { watcher: self, id: None }
    }
}

/// See [`Watcher::changed`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Changed<'a, T> {
    watcher: &'a mut Watcher<T>,
    id: Option<u64>,
}

impl<T: Clone> Future for Changed<'_, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        let waker = context.waker().clone();
        let mut inside = lock(&this.watcher.board.inside);
        let edition = this.watcher.board.edition.load(Ordering::Relaxed);
        if edition != this.watcher.seen {
            this.watcher.seen = edition;
            // Every change empties the list, so there is nothing of ours in it.
            this.id = None;
            let value = inside.value.clone();
            drop(inside);
            return Poll::Ready(value);
        }
        let id = *this.id.get_or_insert_with(|| {
            inside.next_id += 1;
            inside.next_id
        });
        let old = inside.waiting.insert(id, waker);
        drop(inside);
        drop(old);
        Poll::Pending
    }
}

impl<T> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let old = lock(&self.watcher.board.inside).waiting.remove(&id);
            drop(old);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn a_watcher_sees_the_newest_value_only() {
        let watch = Watch::new(1);
        let mut watcher = watch.watcher();
        let mut other = watcher.clone();
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
        assert!(lock(&watch.0.inside).waiting.is_empty(), "a dropped watcher leaves nothing");
    }
}
