use super::poll_once;
use loom::thread;
use sluicedb_actors::kernel::sync::block_on;
use sluicedb_actors::kernel::{Credits, Refused};

/// 2 + 1 of 2: both are served one after the other, the sum is conserved, nothing is over-granted.
/// Catches: a waiter that queues up without setting `WAITING` on the state it looked at (deadlock);
/// `release` that looks at the flag before it subtracts (deadlock).
#[test]
fn two_and_one_of_two() {
    loom::model(|| {
        let credits = Credits::new(2);
        let other = credits.clone();
        let taker = thread::spawn(move || {
            let lease = block_on(other.take(1)).unwrap();
            assert!(other.used() <= 2);
            drop(lease);
        });
        let lease = block_on(credits.take(2)).unwrap();
        assert_eq!(credits.used(), 2);
        drop(lease);
        taker.join().unwrap();
        assert_eq!((credits.used(), credits.waiters()), (0, 0));
    });
}

/// The head of the line, too large for what comes back, is dropped: the follower must get it.
/// Catches: `leave` that does not pass the wake on; a `Take` without a `Drop` (deadlock both).
#[test]
fn the_head_is_dropped() {
    loom::model(|| {
        let credits = Credits::new(2);
        let held = credits.try_take(1).unwrap();
        let kept = credits.try_take(1).unwrap();
        let mut head = credits.take(2);
        assert!(poll_once(&mut head).is_pending());
        let other = credits.clone();
        let follower = thread::spawn(move || drop(block_on(other.take(1)).unwrap()));
        let releaser = thread::spawn(move || drop(held));
        drop(head);
        follower.join().unwrap();
        releaser.join().unwrap();
        drop(kept);
        assert_eq!((credits.used(), credits.waiters()), (0, 0));
    });
}

/// The head of the line was woken and is never polled again: it keeps nothing from the follower.
/// Catches: assigning freed room to the head; waking only as many as the room is enough for.
#[test]
fn the_head_is_parked() {
    loom::model(|| {
        let credits = Credits::new(1);
        let held = credits.try_take(1).unwrap();
        let mut head = credits.take(1);
        assert!(poll_once(&mut head).is_pending());
        let other = credits.clone();
        let follower = thread::spawn(move || drop(block_on(other.take(1)).unwrap()));
        drop(held);
        follower.join().unwrap();
        assert_eq!((credits.used(), credits.waiters()), (0, 1));
        drop(head);
        assert_eq!(credits.waiters(), 0);
    });
}

/// Three futures that need more than half are woken, or not, and never polled again. What comes back
/// is not all that was out, and nothing more will: who waits behind them is served all the same, and so
/// is who comes later.
/// Catches: waking as many as the room is enough for, and one spare (deadlock).
#[test]
fn a9_parked_futures_stand_in_nobodys_way() {
    loom::model(|| {
        let credits = Credits::new(8);
        let held = credits.try_take(7).unwrap();
        let kept = credits.try_take(1).unwrap();
        let mut parked = [credits.take(5), credits.take(5), credits.take(5)];
        for parked in &mut parked {
            assert!(poll_once(parked).is_pending());
        }
        let other = credits.clone();
        let follower = thread::spawn(move || drop(block_on(other.take(5)).unwrap()));
        drop(held);
        drop(block_on(credits.take(5)).unwrap());
        follower.join().unwrap();
        drop(parked);
        assert_eq!((credits.used(), credits.waiters()), (1, 0));
        drop(kept);
    });
}

/// Closing answers who waits and who comes; leases still come back.
/// Catches: `close` that sets its flag outside the lock and wakes nobody (deadlock).
#[test]
fn closed_while_waiting() {
    loom::model(|| {
        let credits = Credits::new(1);
        let held = credits.try_take(1).unwrap();
        let other = credits.clone();
        let waiter = thread::spawn(move || {
            assert_eq!(block_on(other.take(1)).map(drop), Err(Refused::Closed));
        });
        credits.close();
        waiter.join().unwrap();
        drop(held);
        assert_eq!(credits.used(), 0);
    });
}
