#![doc = include_str!("../README.md")]

/// A `Debug` that prints only the type's name, because the fields are locks and wakers.
macro_rules! opaque_debug {
    ($name:literal, [$($generics:tt)*] $type:ty) => {
        impl<$($generics)*> std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct($name).finish_non_exhaustive()
            }
        }
    };
}

pub mod combining;
pub mod mailbox;
pub mod published;
pub mod reply;
pub mod semaphore;
pub mod sequencer;
pub mod signal;
pub mod sync;
pub mod wake;
pub mod watch;
