//! Permits, used by hand.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

#[test]
fn a_permit_gives_back_what_it_holds() {
    let semaphore = Semaphore::new(100);
    let permit = semaphore.try_acquire(60).expect("there is room");
    assert_eq!(semaphore.try_acquire(41).map(drop), Err(Refused::Full));
    assert_eq!(semaphore.used(), 60);
    drop(semaphore.try_acquire(40).expect("there is room"));
    let kept = permit.forget();
    assert_eq!((kept, semaphore.used()), (60, 60));
    semaphore.release(kept);
    assert_eq!(semaphore.used(), 0);
}

#[test]
fn what_is_taken_without_a_permit_counts_the_same() {
    let semaphore = Semaphore::new(10);
    assert_eq!(semaphore.try_take(10), Ok(()));
    assert_eq!(semaphore.try_take(1), Err(Refused::Full));
    assert_eq!(semaphore.try_take(11), Err(Refused::TooLarge));
    semaphore.release(10);
    assert_eq!(semaphore.try_take(u64::MAX), Err(Refused::TooLarge));
    assert_eq!(semaphore.used(), 0);
}

#[test]
fn the_hook_is_called_once_per_waiter() {
    let rung = std::sync::Arc::new(AtomicUsize::new(0));
    let bell = rung.clone();
    let hook = move || {
        bell.fetch_add(1, Ordering::SeqCst);
    };
    let semaphore = Semaphore::with_wait_hook(1, Box::new(hook));
    let held = semaphore.try_acquire(1);
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting = Box::pin(semaphore.acquire(1));
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    assert_eq!((rung.load(Ordering::SeqCst), semaphore.is_short()), (1, true));
    drop(held);
    assert!(waiting.as_mut().poll(&mut context).is_ready());
    assert_eq!(
        (semaphore.used(), semaphore.is_short()),
        (0, false),
        "the permit was dropped at once"
    );
}

#[test]
fn what_is_taken_anyway_may_exceed_the_limit() {
    let semaphore = Semaphore::new(10);
    let over = semaphore.acquire_anyway(25);
    assert_eq!(semaphore.used(), 25);
    let nothing = semaphore.try_acquire(0).map(drop);
    assert_eq!(nothing, Err(Refused::Full), "nothing goes while it is overdrawn");
    drop(over);
    assert!(semaphore.try_acquire(10).is_ok());
}

/// Planted: waiters are respected.
#[test]
fn who_may_pass_passes_who_waits_for_more() {
    let semaphore = Semaphore::new(10);
    let _held = semaphore.try_acquire(8).expect("there is room");
    let mut waiting = Box::pin(semaphore.acquire(5));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(semaphore.try_acquire(1).map(drop), Err(Refused::Full));
    assert!(semaphore.try_acquire_passing(1).is_ok());
}
