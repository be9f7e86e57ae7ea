//! A count that anybody may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// Rises, or is set: a count or a gauge. Orders nothing.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds `n` where only the caller writes, because it holds the seat that guards the counter: no
    /// locked instruction.
    #[inline]
    pub fn bump(&self, n: u64) {
        self.set(self.get() + n);
    }

    /// Makes it `n`.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// How much it is.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
