//! Places in the line, polled by hand.

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

fn bytes(n: u64) -> Amount {
    Amount::new(0, n)
}

fn poll(room: &Room, place: &mut Place, n: u64, flag: &Arc<Flag>) -> Poll<Result<(), Refused>> {
    let waker = Waker::from(Arc::clone(flag));
    room.poll_take(place, bytes(n), &mut Context::from_waker(&waker))
}

#[test]
fn both_dimensions_are_bounded() {
    let room = Room::new(Amount::new(2, 10), None);
    assert_eq!(room.try_take(Amount::new(1, 8)), Ok(()));
    assert_eq!(room.try_take(Amount::new(1, 3)), Err(Refused::Full));
    assert_eq!(room.try_take(Amount::new(1, 1)), Ok(()));
    assert_eq!(room.try_take(Amount::new(1, 0)), Err(Refused::Full));
    assert_eq!(room.try_take(Amount::new(1, 11)), Err(Refused::TooLarge));
    room.release(Amount::new(2, 9));
    assert_eq!(room.used(), Amount::NOTHING);
}

#[test]
fn newcomers_do_not_pass_a_waiter_that_still_sleeps() {
    let room = Room::new(bytes(10), None);
    let (flag, mut place) = (Arc::new(Flag::default()), Place::default());
    assert_eq!(room.try_take(bytes(8)), Ok(()));
    assert!(poll(&room, &mut place, 5, &flag).is_pending());
    assert_eq!(room.waiters(), 1);
    assert_eq!(room.try_take(bytes(1)), Err(Refused::Full), "the large one is first");
    room.release(bytes(1));
    assert_eq!(flag.wakes(), 0, "3 are not 5");
    room.release(bytes(2));
    assert_eq!(flag.wakes(), 1);
    assert_eq!(poll(&room, &mut place, 5, &flag), Poll::Ready(Ok(())));
    assert_eq!(room.used(), bytes(10));
    assert_eq!(room.waiters(), 0);
}

#[test]
fn a_woken_waiter_that_is_never_polled_keeps_nothing() {
    let room = Room::new(bytes(1), None);
    let flags = [Arc::new(Flag::default()), Arc::new(Flag::default())];
    let mut places = [Place::default(), Place::default()];
    assert_eq!(room.try_take(bytes(1)), Ok(()));
    assert!(poll(&room, &mut places[0], 1, &flags[0]).is_pending());
    assert!(poll(&room, &mut places[1], 1, &flags[1]).is_pending());
    room.release(bytes(1));
    assert_eq!((flags[0].wakes(), flags[1].wakes()), (1, 1), "the first may never come");
    assert_eq!(poll(&room, &mut places[1], 1, &flags[1]), Poll::Ready(Ok(())));
    // The first comes after all, finds nothing and sleeps again, still at the head.
    assert!(poll(&room, &mut places[0], 1, &flags[0]).is_pending());
    room.release(bytes(1));
    assert_eq!(flags[0].wakes(), 2);
    room.leave(&mut places[0]);
    assert_eq!(room.try_take(bytes(1)), Ok(()));
}

#[test]
fn a_dropped_waiter_passes_its_wake_on() {
    let room = Room::new(bytes(2), None);
    let flags = [Arc::new(Flag::default()), Arc::new(Flag::default())];
    let mut places = [Place::default(), Place::default()];
    assert_eq!(room.try_take(bytes(2)), Ok(()));
    assert!(poll(&room, &mut places[0], 2, &flags[0]).is_pending());
    assert!(poll(&room, &mut places[1], 1, &flags[1]).is_pending());
    room.release(bytes(1));
    assert_eq!((flags[0].wakes(), flags[1].wakes()), (0, 0), "the head needs both");
    room.leave(&mut places[0]);
    assert_eq!(flags[1].wakes(), 1);
    assert_eq!(poll(&room, &mut places[1], 1, &flags[1]), Poll::Ready(Ok(())));
}

/// So many places in one line, each asking for `need` with a flag of its own.
fn crowd(room: &Room, count: usize, need: u64) -> Vec<(Place, Arc<Flag>)> {
    let waiter = |_| {
        let (mut place, flag) = (Place::default(), Arc::new(Flag::default()));
        assert!(poll(room, &mut place, need, &flag).is_pending());
        (place, flag)
    };
    (0..count).map(waiter).collect()
}

fn woken(crowd: &[(Place, Arc<Flag>)]) -> usize {
    crowd.iter().filter(|(_, flag)| flag.wakes() > 0).count()
}

/// A memtable was sealed: most of the room is back, not all, and nothing follows by itself.
/// Planted: wakes for as many as the room is enough for and one spare (the last one sleeps for ever).
#[test]
fn a9_while_much_is_free_everybody_who_fits_alone_is_woken() {
    let room = Room::new(bytes(100), None);
    assert_eq!(room.try_take(bytes(100)), Ok(()));
    let mut waiting = crowd(&room, 40, 30);
    room.release(bytes(70));
    assert_eq!(woken(&waiting), 40);
    // Nobody but the last one comes; then a newcomer, who is not turned away.
    let (place, flag) = waiting.last_mut().expect("there are forty");
    assert_eq!(poll(&room, place, 30, flag), Poll::Ready(Ok(())));
    assert_eq!(room.try_take(bytes(30)), Ok(()));
    for (mut place, flag) in waiting.drain(..39) {
        assert!(poll(&room, &mut place, 30, &flag).is_pending());
        room.leave(&mut place);
    }
    assert_eq!((room.waiters(), room.is_short()), (0, false));
}

/// What is out will come back by itself, so a return wakes for what it is worth, and one spare.
/// Planted: waking everybody at every return.
#[test]
fn a_crowd_is_not_woken_for_a_little_room() {
    let room = Room::new(bytes(100), None);
    assert_eq!(room.try_take(bytes(100)), Ok(()));
    let mut waiting = crowd(&room, 40, 10);
    room.release(bytes(20));
    assert_eq!(woken(&waiting), 3);
    room.release(bytes(4));
    assert_eq!(woken(&waiting), 4, "a spare for each return while none of them comes");
    room.release(bytes(1));
    assert_eq!(woken(&waiting), 40, "a quarter is free");
    for (place, _) in &mut waiting {
        room.leave(place);
    }
}

/// Whoever sits unpolled around it: a large request gets in as soon as there is room and it is polled,
/// and a poll in vain bars everybody else until there is.
#[test]
fn a9_a_large_request_is_passed_between_its_wake_and_its_poll_only() {
    let room = Room::new(bytes(100), None);
    assert_eq!(room.try_take(bytes(100)), Ok(()));
    let parked = crowd(&room, 5, 10);
    let (large, mut place) = (Arc::new(Flag::default()), Place::default());
    assert!(poll(&room, &mut place, 90, &large).is_pending());
    let mut behind = crowd(&room, 5, 10);
    room.release(bytes(60));
    assert_eq!((woken(&parked), large.wakes(), woken(&behind)), (5, 0, 0), "40 are out");
    assert_eq!(room.try_take(bytes(1)), Err(Refused::Full), "it is next");
    room.release(bytes(40));
    assert_eq!((large.wakes(), woken(&behind)), (1, 5));
    // Somebody comes in between.
    assert_eq!(room.try_take(bytes(20)), Ok(()));
    assert!(poll(&room, &mut place, 90, &large).is_pending());
    assert_eq!(room.try_take(bytes(1)), Err(Refused::Full), "and nobody after that");
    for (place, flag) in &mut behind {
        assert!(poll(&room, place, 10, flag).is_pending());
    }
    room.release(bytes(20));
    assert_eq!(large.wakes(), 2);
    assert_eq!(poll(&room, &mut place, 90, &large), Poll::Ready(Ok(())));
    for (mut place, _) in parked.into_iter().chain(behind) {
        room.leave(&mut place);
    }
    assert_eq!(room.try_take(bytes(10)), Ok(()));
}

/// Who comes and finds too little again asks for more again.
#[test]
fn a9_a_wait_that_begins_again_is_reported_again() {
    let asked = Arc::new(Flag::default());
    let hook = asked.clone();
    let room = Room::new(bytes(10), Some(Box::new(move || hook.clone().wake())));
    assert_eq!(room.try_take(bytes(10)), Ok(()));
    let mut waiting = crowd(&room, 2, 6);
    assert_eq!(asked.wakes(), 2);
    room.release(bytes(10));
    assert_eq!(room.try_take(bytes(6)), Ok(()));
    for (place, flag) in &mut waiting {
        assert!(poll(&room, place, 6, flag).is_pending());
    }
    assert_eq!(asked.wakes(), 3, "once for both");
    for (place, _) in &mut waiting {
        room.leave(place);
    }
}

#[test]
fn closing_answers_those_who_wait() {
    let room = Room::new(bytes(4), None);
    let flags = [Arc::new(Flag::default()), Arc::new(Flag::default())];
    let mut places = [Place::default(), Place::default()];
    assert_eq!(room.try_take(bytes(4)), Ok(()));
    assert!(poll(&room, &mut places[0], 3, &flags[0]).is_pending());
    assert!(poll(&room, &mut places[1], 1, &flags[1]).is_pending());
    room.close();
    assert_eq!(poll(&room, &mut places[0], 3, &flags[0]), Poll::Ready(Err(Refused::Closed)));
    assert_eq!(poll(&room, &mut places[1], 1, &flags[1]), Poll::Ready(Err(Refused::Closed)));
    room.release(bytes(4));
    assert_eq!(room.try_take(bytes(1)), Err(Refused::Closed));
}
