//! A cell that one writer swaps and many readers load.
//!
//! Guarantees: a load never waits for the writer and touches no reference count. A loaded value
//! stays alive while it is held. A load that begins after a store has returned sees that store or a
//! later one. Production uses arc-swap; the loom model uses a locked `Arc`. Does not: order two
//! writers. The users of the cell make sure that there is one (single-swapper).

use crate::sync::Arc;
use std::ops::Deref;

/// See the module.
pub struct Published<T> {
    #[cfg(not(loom))]
    cell: arc_swap::ArcSwap<T>,
    #[cfg(loom)]
    cell: crate::sync::Mutex<Arc<T>>,
}

/// A loaded value. It is cheap to get and meant to be short-lived. Clone its `Arc` to keep it.
pub struct PublishedRef<T> {
    #[cfg(not(loom))]
    guard: arc_swap::Guard<Arc<T>>,
    #[cfg(loom)]
    guard: Arc<T>,
}

opaque_debug!("Published", [T] Published<T>);
opaque_debug!("PublishedRef", [T] PublishedRef<T>);

impl<T> Deref for PublishedRef<T> {
    type Target = Arc<T>;

    #[inline]
    fn deref(&self) -> &Arc<T> {
        &self.guard
    }
}

impl<T> Published<T> {
    /// A cell that holds `value`.
    pub fn new(value: Arc<T>) -> Self {
        #[cfg(not(loom))]
        let cell = arc_swap::ArcSwap::new(value);
        #[cfg(loom)]
        let cell = crate::sync::Mutex::new(value);
        Self { cell }
    }

    /// The newest value. Never waits. About 10 ns.
    #[inline]
    pub fn load(&self) -> PublishedRef<T> {
        #[cfg(not(loom))]
        let guard = self.cell.load();
        #[cfg(loom)]
        let guard = Arc::clone(&crate::sync::lock(&self.cell));
        PublishedRef { guard }
    }

    /// The newest value, to keep.
    pub fn load_full(&self) -> Arc<T> {
        Arc::clone(&self.load())
    }

    /// Makes `value` the newest. Returns the previous one. For the one writer.
    pub fn swap(&self, value: Arc<T>) -> Arc<T> {
        #[cfg(not(loom))]
        return self.cell.swap(value);
        #[cfg(loom)]
        return std::mem::replace(&mut *crate::sync::lock(&self.cell), value);
    }

    /// Makes `value` the newest. The previous one is dropped here unless somebody holds it.
    pub fn store(&self, value: Arc<T>) {
        drop(self.swap(value));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_reader_keeps_what_it_loaded() {
        let cell = Published::new(Arc::new(1));
        let old = cell.load();
        let before = cell.swap(Arc::new(2));
        assert_eq!((**old, *before, *cell.load_full()), (1, 1, 2));
        let weak = Arc::downgrade(&before);
        drop((old, before));
        assert!(weak.upgrade().is_none(), "nobody holds it any more");
    }
}
