use super::poll_once;
use loom::thread;
use sluicedb_kernel::semaphore::{Refused, Semaphore};
use sluicedb_kernel::sync::block_on;

/// Requests of 2 and 1 of 2: both are served one after the other, the sum is conserved, the limit
/// is kept.
/// Catches: a waiter that queues up without setting `WAITING` on the state that it looked at
/// (deadlock); a `release` that looks at the flag before it subtracts (deadlock).
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

/// The head of the line, which is too large for what comes back, is dropped: the next waiter must
/// get it.
/// Catches: a `leave` that does not pass the wake on; an `Acquire` without a `Drop` (both:
/// deadlock).
#[test]
fn the_head_is_dropped() {
    loom::model(|| {
        let semaphore = Semaphore::new(2);
        let held = semaphore.try_acquire(1).unwrap();
        let kept = semaphore.try_acquire(1).unwrap();
        let mut head = Box::pin(semaphore.acquire(2));
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

/// The head of the line was woken and is never polled again: it keeps nothing from the next waiter.
/// Most of the limit stays taken.
/// Catches: freed room that is assigned to the head; waking only as many as the room suffices for.
#[test]
fn the_head_is_parked() {
    loom::model(|| {
        let semaphore = Semaphore::new(8);
        let kept = semaphore.try_acquire(7).unwrap();
        let held = semaphore.try_acquire(1).unwrap();
        let mut head = Box::pin(semaphore.acquire(1));
        assert!(poll_once(&mut head).is_pending());
        let other = semaphore.clone();
        let follower = thread::spawn(move || drop(block_on(other.acquire(1)).unwrap()));
        drop(held);
        follower.join().unwrap();
        assert_eq!((semaphore.used(), semaphore.is_short()), (7, false));
        drop(head);
        drop(semaphore.try_acquire(1).unwrap());
        drop(kept);
    });
}

/// Three futures that each need more than half are woken, or not, and never polled again. Not
/// everything that was taken comes back, and nothing more will. A waiter behind them is served all
/// the same, and so is a later one.
/// Catches: waking as many as the room suffices for, plus one spare (deadlock).
#[test]
fn a9_parked_futures_stand_in_nobodys_way() {
    loom::model(|| {
        let semaphore = Semaphore::new(8);
        let held = semaphore.try_acquire(7).unwrap();
        let kept = semaphore.try_acquire(1).unwrap();
        let mut parked = [(); 3].map(|()| Box::pin(semaphore.acquire(5)));
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

/// Closing answers those who wait and those who arrive. Permits can still be given back.
/// Catches: a `close` that sets its flag outside the lock and wakes nobody (deadlock).
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
