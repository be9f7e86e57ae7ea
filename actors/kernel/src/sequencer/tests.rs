//! Tests of the sequencer that need only one thread.

use super::*;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn open(queue: &Sequencer, number: u64, shares: u32) -> CommitGuard {
    queue.open(queue.try_reserve().expect("there is a slot"), number, shares)
}

#[test]
fn visible_waits_for_the_oldest_commit() {
    let queue = Sequencer::new(10, 4);
    let (first, second) = (open(&queue, 11, 1), open(&queue, 13, 1));
    assert!(!second.finish());
    assert_eq!(queue.visible(), 10);
    assert!(first.finish());
    assert_eq!(queue.visible(), 13);
}

#[test]
fn the_last_share_raises() {
    let queue = Sequencer::new(0, 4);
    let mut ticket = open(&queue, 1, 3);
    let (a, b) = (ticket.share(), ticket.share());
    assert!(!b.finish());
    assert!(!ticket.finish());
    assert_eq!(queue.visible(), 0);
    assert!(a.finish());
    assert_eq!(queue.visible(), 1);
}

#[test]
fn slots_bound_what_is_in_flight_and_come_back() {
    let queue = Sequencer::new(0, 2);
    let mut number = 0;
    for _ in 0..10 {
        let tickets = [1, 2].map(|n| open(&queue, number + n, 1));
        number += 2;
        assert_eq!(queue.try_reserve().map(|_| ()), Err(Refused::Full));
        let mut waiting = Box::pin(queue.reserve());
        assert!(poll(&mut waiting).is_pending());
        for ticket in tickets {
            ticket.finish();
        }
        assert!(poll(&mut waiting).is_ready());
        assert_eq!(queue.visible(), number);
    }
}

#[test]
fn waiters_are_told_by_who_raises() {
    let queue = Sequencer::new(0, 4);
    let [first, second] = [1, 2]
        .map(|number| queue.open(queue.try_reserve_ref().expect("there is a slot"), number, 1));
    let (mut near, mut far) = (queue.wait_visible(2), queue.wait_visible(3));
    assert!(poll(&mut near).is_pending() && poll(&mut far).is_pending());
    assert!(!second.finish());
    assert!(poll(&mut near).is_pending());
    assert!(first.finish());
    assert_eq!(poll(&mut near), Poll::Ready(Ok(())));
    assert!(poll(&mut far).is_pending());
    drop(far);
    assert!(lock(&queue.0.waiters).list.is_empty(), "a dropped waiter leaves nothing");
}

#[test]
fn a_failure_answers_everybody() {
    let queue = Sequencer::new(0, 4);
    let (first, second) = (open(&queue, 1, 1), open(&queue, 2, 1));
    let mut waiting = queue.wait_visible(2);
    assert!(poll(&mut waiting).is_pending());
    drop(second);
    assert_eq!(poll(&mut waiting), Poll::Ready(Err(Failed)));
    assert!(!first.finish(), "nothing is raised any more");
    assert_eq!(queue.visible(), 0);
    assert_eq!(queue.try_reserve().map(|_| ()), Err(Refused::Closed));
    assert_eq!(poll(&mut queue.wait_visible(0)), Poll::Ready(Ok(())));
}

/// Planted: `open` takes the slot first (it never comes back).
#[test]
fn a_number_out_of_order_costs_no_slot() {
    let queue = Sequencer::new(5, 1);
    let slot = queue.try_reserve().expect("there is a slot");
    let opens = std::panic::AssertUnwindSafe(|| queue.open(slot, 4, 1));
    assert!(std::panic::catch_unwind(opens).is_err(), "numbers go up");
    assert!(open(&queue, 6, 1).finish());
}
