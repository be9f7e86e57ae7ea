//! A counter that anybody may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count or a gauge. Orders nothing.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds `n` without a locked instruction. Only for the one writer, who holds the seat that
    /// guards the counter.
    #[inline]
    pub fn bump(&self, n: u64) {
        self.set(self.get() + n);
    }

    /// Sets it to `n`.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The current value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
