//! Every interleaving of two or three threads, for what the engine builds on the kernel. The
//! kernel's own models are in `actors/kernel/tests/loom/`.
//!
//! Run: `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release -p sluicedb-actors
//! --test loom`. Each model names the bug that was planted to see it fail ("Catches").

#![cfg(loom)]

mod change;
mod durable;
mod gate;
mod health;
mod jobs;
mod replacement;
mod rotation;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Polls once with a waker that nobody listens to: the future is parked, or about to be dropped.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}
