//! Every interleaving of two or three threads, one module per primitive.
//!
//! Run: `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release -p sluicedb-kernel
//! --test loom`. Each model names the bug that was planted to see it fail ("Catches").

#![cfg(loom)]

mod combining;
mod mailbox;
mod own_actor;
mod published;
mod reply;
mod semaphore;
mod sequencer;
mod signal;
mod watch;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Polls once with a waker that nobody listens to: the future is parked, or about to be dropped.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}
