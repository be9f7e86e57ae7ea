//! Entries in the wait list, polled by hand.

use super::*;
use std::sync::Arc;
use std::task::Wake;

#[derive(Default)]
struct Flag(std::sync::atomic::AtomicUsize);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Flag {
    fn wakes(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn waiters(core: &Core) -> usize {
    lock(&core.list).waiting.len()
}

fn bytes(n: u64) -> Amount {
    Amount::new(0, n)
}

fn poll(core: &Core, entry: &mut Entry, n: u64, flag: &Arc<Flag>) -> Poll<Result<(), Refused>> {
    let waker = Waker::from(Arc::clone(flag));
    core.poll_take(entry, bytes(n), &mut Context::from_waker(&waker))
}

#[test]
fn both_dimensions_are_bounded() {
    let core = Core::new(Amount::new(2, 10), None);
    assert_eq!(core.try_take(Amount::new(1, 8)), Ok(()));
    assert_eq!(core.try_take(Amount::new(1, 3)), Err(Refused::Full));
    assert_eq!(core.try_take(Amount::new(1, 1)), Ok(()));
    assert_eq!(core.try_take(Amount::new(1, 0)), Err(Refused::Full));
    assert_eq!(core.try_take(Amount::new(1, 11)), Err(Refused::TooLarge));
    core.release(Amount::new(2, 9));
    assert_eq!(core.used(), Amount::NOTHING);
}

#[test]
fn newcomers_do_not_pass_a_waiter_that_still_sleeps() {
    let core = Core::new(bytes(10), None);
    let (flag, mut entry) = (Arc::new(Flag::default()), None);
    assert_eq!(core.try_take(bytes(8)), Ok(()));
    assert!(poll(&core, &mut entry, 5, &flag).is_pending());
    assert_eq!(waiters(&core), 1);
    assert_eq!(core.try_take(bytes(1)), Err(Refused::Full), "the large one is first");
    core.release(bytes(1));
    assert_eq!(flag.wakes(), 0, "3 are not 5");
    core.release(bytes(2));
    assert_eq!(flag.wakes(), 1);
    assert_eq!(poll(&core, &mut entry, 5, &flag), Poll::Ready(Ok(())));
    assert_eq!(core.used(), bytes(10));
    assert_eq!(waiters(&core), 0);
}

#[test]
fn a_woken_waiter_that_is_never_polled_keeps_nothing() {
    let core = Core::new(bytes(1), None);
    let flags = [Arc::new(Flag::default()), Arc::new(Flag::default())];
    let mut entries = [None, None];
    assert_eq!(core.try_take(bytes(1)), Ok(()));
    assert!(poll(&core, &mut entries[0], 1, &flags[0]).is_pending());
    assert!(poll(&core, &mut entries[1], 1, &flags[1]).is_pending());
    core.release(bytes(1));
    assert_eq!((flags[0].wakes(), flags[1].wakes()), (1, 1), "the first may never come");
    assert_eq!(poll(&core, &mut entries[1], 1, &flags[1]), Poll::Ready(Ok(())));
    // The first one polls after all, finds nothing and sleeps again, still at the head.
    assert!(poll(&core, &mut entries[0], 1, &flags[0]).is_pending());
    core.release(bytes(1));
    assert_eq!(flags[0].wakes(), 2);
    core.leave(&mut entries[0]);
    assert_eq!(core.try_take(bytes(1)), Ok(()));
}

#[test]
fn a_dropped_waiter_passes_its_wake_on() {
    let core = Core::new(bytes(2), None);
    let flags = [Arc::new(Flag::default()), Arc::new(Flag::default())];
    let mut entries = [None, None];
    assert_eq!(core.try_take(bytes(2)), Ok(()));
    assert!(poll(&core, &mut entries[0], 2, &flags[0]).is_pending());
    assert!(poll(&core, &mut entries[1], 1, &flags[1]).is_pending());
    core.release(bytes(1));
    assert_eq!((flags[0].wakes(), flags[1].wakes()), (0, 0), "the head needs both");
    core.leave(&mut entries[0]);
    assert_eq!(flags[1].wakes(), 1);
    assert_eq!(poll(&core, &mut entries[1], 1, &flags[1]), Poll::Ready(Ok(())));
}

/// This many entries in one line. Each asks for `need` and has a flag of its own.
fn crowd(core: &Core, count: usize, need: u64) -> Vec<(Entry, Arc<Flag>)> {
    let waiter = |_| {
        let (mut entry, flag) = (None, Arc::new(Flag::default()));
        assert!(poll(core, &mut entry, need, &flag).is_pending());
        (entry, flag)
    };
    (0..count).map(waiter).collect()
}

fn woken(crowd: &[(Entry, Arc<Flag>)]) -> usize {
    crowd.iter().filter(|(_, flag)| flag.wakes() > 0).count()
}

/// A memtable was sealed: most of the room is back, but not all, and nothing else comes back by
/// itself. Planted: a return wakes as many as the room suffices for plus one spare (the last one
/// sleeps for ever).
#[test]
fn a9_while_much_is_free_everybody_who_fits_alone_is_woken() {
    let core = Core::new(bytes(100), None);
    assert_eq!(core.try_take(bytes(100)), Ok(()));
    let mut waiting = crowd(&core, 40, 30);
    core.release(bytes(70));
    assert_eq!(woken(&waiting), 40);
    // Only the last one polls. Then a newcomer arrives and is not refused.
    let (entry, flag) = waiting.last_mut().expect("there are forty");
    assert_eq!(poll(&core, entry, 30, flag), Poll::Ready(Ok(())));
    assert_eq!(core.try_take(bytes(30)), Ok(()));
    for (mut entry, flag) in waiting.drain(..39) {
        assert!(poll(&core, &mut entry, 30, &flag).is_pending());
        core.leave(&mut entry);
    }
    assert_eq!((waiters(&core), core.has(WAITING)), (0, false));
}

/// What is taken will come back by itself, so a return wakes for what it is worth, plus one spare.
/// Planted: every return wakes everybody.
#[test]
fn a_crowd_is_not_woken_for_a_little_room() {
    let core = Core::new(bytes(100), None);
    assert_eq!(core.try_take(bytes(100)), Ok(()));
    let mut waiting = crowd(&core, 40, 10);
    core.release(bytes(20));
    assert_eq!(woken(&waiting), 3);
    core.release(bytes(4));
    assert_eq!(woken(&waiting), 4, "a spare for each return while none of them comes");
    core.release(bytes(1));
    assert_eq!(woken(&waiting), 40, "a quarter is free");
    for (entry, _) in &mut waiting {
        core.leave(entry);
    }
}

/// Whoever is unpolled around it, a large request gets in as soon as there is room and it is
/// polled. A poll in vain bars everybody else until there is room.
#[test]
fn a9_a_large_request_is_passed_between_its_wake_and_its_poll_only() {
    let core = Core::new(bytes(100), None);
    assert_eq!(core.try_take(bytes(100)), Ok(()));
    let parked = crowd(&core, 5, 10);
    let (large, mut entry) = (Arc::new(Flag::default()), None);
    assert!(poll(&core, &mut entry, 90, &large).is_pending());
    let mut behind = crowd(&core, 5, 10);
    core.release(bytes(60));
    assert_eq!((woken(&parked), large.wakes(), woken(&behind)), (5, 0, 0), "40 are out");
    assert_eq!(core.try_take(bytes(1)), Err(Refused::Full), "it is next");
    core.release(bytes(40));
    assert_eq!((large.wakes(), woken(&behind)), (1, 5));
    // A newcomer takes in between.
    assert_eq!(core.try_take(bytes(20)), Ok(()));
    assert!(poll(&core, &mut entry, 90, &large).is_pending());
    assert_eq!(core.try_take(bytes(1)), Err(Refused::Full), "and nobody after that");
    for (entry, flag) in &mut behind {
        assert!(poll(&core, entry, 10, flag).is_pending());
    }
    core.release(bytes(20));
    assert_eq!(large.wakes(), 2);
    assert_eq!(poll(&core, &mut entry, 90, &large), Poll::Ready(Ok(())));
    for (mut entry, _) in parked.into_iter().chain(behind) {
        core.leave(&mut entry);
    }
    assert_eq!(core.try_take(bytes(10)), Ok(()));
}

/// A waiter that polls and finds too little again asks for help again.
#[test]
fn a9_a_wait_that_begins_again_is_reported_again() {
    let asked = Arc::new(Flag::default());
    let hook = asked.clone();
    let core = Core::new(bytes(10), Some(Box::new(move || hook.clone().wake())));
    assert_eq!(core.try_take(bytes(10)), Ok(()));
    let mut waiting = crowd(&core, 2, 6);
    assert_eq!(asked.wakes(), 2);
    core.release(bytes(10));
    assert_eq!(core.try_take(bytes(6)), Ok(()));
    for (entry, flag) in &mut waiting {
        assert!(poll(&core, entry, 6, flag).is_pending());
    }
    assert_eq!(asked.wakes(), 3, "once for both");
    for (entry, _) in &mut waiting {
        core.leave(entry);
    }
}

/// Planted: a waiter for nothing is woken while more is taken than there is.
#[test]
fn a_poll_in_vain_does_not_wake_its_own_future() {
    let core = Core::new(bytes(10), None);
    core.take_anyway(bytes(11));
    let (flag, mut entry) = (Arc::new(Flag::default()), None);
    for _ in 0..10 {
        assert!(poll(&core, &mut entry, 0, &flag).is_pending());
    }
    assert_eq!(flag.wakes(), 0);
    core.release(bytes(1));
    assert_eq!(flag.wakes(), 1);
    assert_eq!(poll(&core, &mut entry, 0, &flag), Poll::Ready(Ok(())));
}

#[test]
fn closing_answers_those_who_wait() {
    let core = Core::new(bytes(4), None);
    let flags = [Arc::new(Flag::default()), Arc::new(Flag::default())];
    let mut entries = [None, None];
    assert_eq!(core.try_take(bytes(4)), Ok(()));
    assert!(poll(&core, &mut entries[0], 3, &flags[0]).is_pending());
    assert!(poll(&core, &mut entries[1], 1, &flags[1]).is_pending());
    core.close();
    assert_eq!(poll(&core, &mut entries[0], 3, &flags[0]), Poll::Ready(Err(Refused::Closed)));
    assert_eq!(poll(&core, &mut entries[1], 1, &flags[1]), Poll::Ready(Err(Refused::Closed)));
    core.release(bytes(4));
    assert_eq!(core.try_take(bytes(1)), Err(Refused::Closed));
}
