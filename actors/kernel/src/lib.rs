//! Concurrency primitives for services that must not block. They are bounded in messages and bytes,
//! fair, cancel-safe, independent of any runtime, and checked by loom.
//!
//! An actor here is state that one party at a time may touch, and a bounded mailbox. The two kinds
//! of mailbox differ in who does the work. Behind a [`combining::CombiningMailbox`] the sender does
//! it, on its own thread. Behind a [`mailbox::Mailbox`] the actor does it, on a thread or task of
//! its own. The other concepts support them:
//!
//! | concept | module | what it is for |
//! |---|---|---|
//! | combining mailbox | [`combining`] | an actor that its callers run: no hop to another thread |
//! | thread mailbox | [`mailbox`] | an actor that may block, on a thread of its own |
//! | semaphore | [`semaphore`] | a bound on bytes or jobs; waiters are served in order |
//! | sequencer | [`sequencer`] | work that ends in any order becomes visible in order |
//! | reply | [`reply`] | exactly one answer to one question |
//! | signal | [`signal`] | a wake-up that coalesces |
//! | watch | [`mod@watch`] | the latest value for many |
//! | published pointer | [`published`] | one writer swaps, readers load without waiting |
//!
//! Guarantees of all of them:
//!
//! * **Nothing blocks.** No method waits for another thread longer than a short internal lock,
//!   except those named `*_blocking` and [`sync::block_on`], which are for threads of your own.
//!   Everything else is tried at once, or is a future that any executor can run.
//! * **Wakers never run under a lock**, or while their thread has an actor's turn. A waker that
//!   panics harms nobody. See [`wake`].
//! * **Cancel safety.** Every future may be dropped at any point, and may never be polled again.
//!   What was not handed to it belongs to others: freed room is announced, not assigned.
//! * **Fairness.** Waiters are served first come, first served. Messages of one sender stay in
//!   order.
//! * **Bounds.** A mailbox is bounded in messages and in bytes. Room is taken before a message is
//!   made; after that sending cannot fail for lack of room, and cannot wait.
//! * **Panics are contained.** A handler that panics fails its own mailbox, and everybody who waits
//!   there is told.
//!
//! The uncontended path allocates nothing. There is no `unsafe` code here.
//!
//! # Loom
//!
//! In a build with `--cfg loom` every lock, atomic and queue in here is loom's, so a model of your
//! own actor explores the kernel's interleavings as well. `tests/loom/own_actor.rs` is such a
//! model. Your code must take its atomics and locks from [`sync`], and wait with
//! [`sync::block_on`].
//!
//! # Does not
//!
//! No timers, no spawning, no files, no network. The caller sets deadlines: race a future against a
//! timer and drop it.

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
mod queue;
pub mod reply;
pub mod semaphore;
pub mod sequencer;
pub mod signal;
pub mod sync;
pub mod wake;
pub mod watch;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
