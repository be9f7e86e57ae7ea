//! Every interleaving of two or three threads, one module per primitive.
//!
//! Run: `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release -p sluicedb-actors --test
//! loom`. Each model names the bug that was planted to see it fail ("Catches"). The queue inside a
//! mailbox is flume in production and a locked deque here; what is checked is everything around it.

#![cfg(loom)]

mod change;
mod commit;
mod credits;
mod durable;
mod gate;
mod health;
mod jobs;
mod mailbox;
mod published;
mod replacement;
mod reply;
mod rotation;
mod seat;
mod signal;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Polls once with a waker that nobody listens to: a future that is parked or about to be dropped.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}
