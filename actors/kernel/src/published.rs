//! A cell that one writer swaps and many readers load.
//!
//! Guarantees: a load never waits for the writer and touches no reference count. A loaded value
//! stays alive while it is held. A load that begins after a store has returned sees that store or a
//! later one. Production uses arc-swap; the loom model uses a locked `Arc`. Does not: order two
//! writers. The users of the cell make sure that there is one (single-swapper).
//!
//! ```
//! use sluicedb_kernel::{published::Published, sync::Arc};
//!
//! let cell = Published::new(Arc::new(1));
//! let held = cell.load_full();
//! cell.store(Arc::new(2));
//! assert_eq!((*held, **cell.load()), (1, 2));
//! ```

use crate::sync::Arc;
use std::ops::Deref;

/// See the module.
pub struct Published<T> {
    #[cfg(not(loom))]
    cell: arc_swap::ArcSwap<T>,
    #[cfg(loom)]
    cell: crate::sync::Mutex<Arc<T>>,
}

opaque_debug!("Published", [T] Published<T>);

impl<T> Published<T> {
    /// A cell that holds `value`.
    pub fn new(value: Arc<T>) -> Self {
        #[cfg(not(loom))]
        let cell = arc_swap::ArcSwap::new(value);
        #[cfg(loom)]
        let cell = crate::sync::Mutex::new(value);
        Self { cell }
    }

    /// The newest value. It is cheap to get (about 10 ns) and meant to be short-lived: clone its
    /// `Arc` to keep it. Never waits.
    #[inline]
    pub fn load(&self) -> impl Deref<Target = Arc<T>> + use<T> {
        #[cfg(not(loom))]
        return self.cell.load();
        #[cfg(loom)]
        return Box::new(Arc::clone(&crate::sync::lock(&self.cell)));
    }

    /// The newest value, to keep.
    pub fn load_full(&self) -> Arc<T> {
        Arc::clone(&self.load())
    }

    /// Makes `value` the newest. The previous one is dropped here unless somebody holds it. For the
    /// one writer.
    pub fn store(&self, value: Arc<T>) {
        #[cfg(not(loom))]
        let old = self.cell.swap(value);
        #[cfg(loom)]
        let old = std::mem::replace(&mut *crate::sync::lock(&self.cell), value);
        drop(old);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_reader_keeps_what_it_loaded() {
        let cell = Published::new(Arc::new(1));
        let old = cell.load();
        cell.store(Arc::new(2));
        assert_eq!((**old, *cell.load_full()), (1, 2));
        let weak = Arc::downgrade(&old);
        drop(old);
        assert!(weak.upgrade().is_none(), "nobody holds it any more");
    }
}
