//! One thread asks the commit queue everything that needs no second one.

use super::*;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn open(queue: &CommitQueue, seqno: u64, shares: u32) -> Ticket {
    queue.open(queue.try_reserve().expect("there is a slot"), Seqno(seqno), shares)
}

#[test]
fn visible_waits_for_the_oldest_commit() {
    let queue = CommitQueue::new(Seqno(10), 4);
    let (first, second) = (open(&queue, 11, 1), open(&queue, 13, 1));
    assert!(!second.finish());
    assert_eq!(queue.visible(), Seqno(10));
    assert!(first.finish());
    assert_eq!(queue.visible(), Seqno(13));
}

#[test]
fn the_last_share_raises() {
    let queue = CommitQueue::new(Seqno::ZERO, 4);
    let mut ticket = open(&queue, 1, 3);
    let (a, b) = (ticket.share(), ticket.share());
    assert!(!b.finish());
    assert!(!ticket.finish());
    assert_eq!(queue.visible(), Seqno::ZERO);
    assert!(a.finish());
    assert_eq!(queue.visible(), Seqno(1));
}

#[test]
fn slots_bound_what_is_in_flight_and_come_back() {
    let queue = CommitQueue::new(Seqno::ZERO, 2);
    let mut seqno = 0;
    for _ in 0..10 {
        let tickets = [1, 2].map(|n| open(&queue, seqno + n, 1));
        seqno += 2;
        assert_eq!(queue.try_reserve().map(|_| ()), Err(Refused::Full));
        let mut waiting = queue.reserve();
        assert!(poll(&mut waiting).is_pending());
        for ticket in tickets {
            ticket.finish();
        }
        assert!(poll(&mut waiting).is_ready());
        assert_eq!(queue.visible(), Seqno(seqno));
    }
}

#[test]
fn waiters_are_told_by_who_raises() {
    let queue = CommitQueue::new(Seqno::ZERO, 4);
    let [first, second] = [1, 2].map(|seqno| {
        queue.open(queue.try_reserve_ref().expect("there is a slot"), Seqno(seqno), 1)
    });
    let (mut near, mut far) = (queue.wait_visible(Seqno(2)), queue.wait_visible(Seqno(3)));
    assert!(poll(&mut near).is_pending() && poll(&mut far).is_pending());
    assert!(!second.finish());
    assert!(poll(&mut near).is_pending());
    assert!(first.finish());
    assert_eq!(poll(&mut near), Poll::Ready(Ok(())));
    assert!(poll(&mut far).is_pending());
    drop(far);
    assert!(lock(&queue.waiters).list.is_empty(), "a dropped waiter leaves nothing");
}

#[test]
fn a_failure_answers_everybody() {
    let queue = CommitQueue::new(Seqno::ZERO, 4);
    let (first, second) = (open(&queue, 1, 1), open(&queue, 2, 1));
    let mut waiting = queue.wait_visible(Seqno(2));
    assert!(poll(&mut waiting).is_pending());
    drop(second);
    assert_eq!(poll(&mut waiting), Poll::Ready(Err(Failed)));
    assert!(!first.finish(), "nothing is raised any more");
    assert_eq!(queue.visible(), Seqno::ZERO);
    assert_eq!(queue.try_reserve().map(|_| ()), Err(Refused::Closed));
    assert_eq!(poll(&mut queue.wait_visible(Seqno::ZERO)), Poll::Ready(Ok(())));
}
