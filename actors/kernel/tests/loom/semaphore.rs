use super::poll_once;
use loom::thread;
use sluicedb_kernel::semaphore::{Refused, Semaphore};
use sluicedb_kernel::sync::block_on;

/// 2 + 1 of 2: both are served one after the other, the sum is conserved, nothing is over-granted.
/// Catches: a waiter that queues up without setting `WAITING` on the state it looked at (deadlock);
/// `repermit` that looks at the flag before it subtracts (deadlock).
#[test]
fn two_and_one_of_two() {
    loom::model(|| {
        let semaphore = Semaphore::new(2);
        let other = semaphore.clone();
        let taker = thread::spawn(move || {
            let permit = block_on(other.acquire(1)).unwrap();
            assert!(other.used() <= 2);
            drop(permit);
        });
        let permit = block_on(semaphore.acquire(2)).unwrap();
        assert_eq!(semaphore.used(), 2);
        drop(permit);
        taker.join().unwrap();
        assert_eq!((semaphore.used(), semaphore.is_short()), (0, false));
    });
}

/// The head of the line, too large for what comes back, is dropped: the follower must get it.
/// Catches: `leave` that does not pass the wake on; an `Acquire` without a `Drop` (deadlock both).
#[test]
fn the_head_is_dropped() {
    loom::model(|| {
        let semaphore = Semaphore::new(2);
        let held = semaphore.try_acquire(1).unwrap();
        let kept = semaphore.try_acquire(1).unwrap();
        let mut head = semaphore.acquire(2);
        assert!(poll_once(&mut head).is_pending());
        let other = semaphore.clone();
        let follower = thread::spawn(move || drop(block_on(other.acquire(1)).unwrap()));
        let repermitr = thread::spawn(move || drop(held));
        drop(head);
        follower.join().unwrap();
        repermitr.join().unwrap();
        drop(kept);
        assert_eq!((semaphore.used(), semaphore.is_short()), (0, false));
    });
}

/// The head of the line was woken and is never polled again: it keeps nothing from the follower.
/// Catches: assigning freed room to the head; waking only as many as the room is enough for.
#[test]
fn the_head_is_parked() {
    loom::model(|| {
        let semaphore = Semaphore::new(1);
        let held = semaphore.try_acquire(1).unwrap();
        let mut head = semaphore.acquire(1);
        assert!(poll_once(&mut head).is_pending());
        let other = semaphore.clone();
        let follower = thread::spawn(move || drop(block_on(other.acquire(1)).unwrap()));
        drop(held);
        follower.join().unwrap();
        assert_eq!((semaphore.used(), semaphore.is_short()), (0, false));
        drop(head);
        drop(semaphore.try_acquire(1).unwrap());
    });
}

/// Three futures that need more than half are woken, or not, and never polled again. What comes
/// back is not all that was out, and nothing more will: who waits behind them is served all the
/// same, and so is who comes later. Catches: waking as many as the room is enough for, and one
/// spare (deadlock).
#[test]
fn a9_parked_futures_stand_in_nobodys_way() {
    loom::model(|| {
        let semaphore = Semaphore::new(8);
        let held = semaphore.try_acquire(7).unwrap();
        let kept = semaphore.try_acquire(1).unwrap();
        let mut parked = [semaphore.acquire(5), semaphore.acquire(5), semaphore.acquire(5)];
        for parked in &mut parked {
            assert!(poll_once(parked).is_pending());
        }
        let other = semaphore.clone();
        let follower = thread::spawn(move || drop(block_on(other.acquire(5)).unwrap()));
        drop(held);
        drop(block_on(semaphore.acquire(5)).unwrap());
        follower.join().unwrap();
        drop(parked);
        assert_eq!((semaphore.used(), semaphore.is_short()), (1, false));
        drop(kept);
    });
}

/// Closing answers who waits and who comes; permits still come back.
/// Catches: `close` that sets its flag outside the lock and wakes nobody (deadlock).
#[test]
fn closed_while_waiting() {
    loom::model(|| {
        let semaphore = Semaphore::new(1);
        let held = semaphore.try_acquire(1).unwrap();
        let other = semaphore.clone();
        let waiter = thread::spawn(move || {
            assert_eq!(block_on(other.acquire(1)).map(drop), Err(Refused::Closed));
        });
        semaphore.close();
        waiter.join().unwrap();
        drop(held);
        assert_eq!(semaphore.used(), 0);
    });
}
