//! Atomics and locks, from std or from loom. All concurrent code of this crate uses only these.

#[cfg(not(loom))]
pub use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, atomic};

#[cfg(loom)]
pub use loom::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, atomic};

/// Locks a mutex of std, also if somebody has panicked while it was locked: what a mutex guards
/// here is whole between any two statements. This is the one rule for poison.
pub(crate) fn lock<T: ?Sized>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
