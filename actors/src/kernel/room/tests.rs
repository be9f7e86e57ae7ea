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

#[test]
fn a_crowd_is_not_woken_at_once_and_parked_futures_keep_nobody_out() {
    let room = Room::new(bytes(1), None);
    assert_eq!(room.try_take(bytes(1)), Ok(()));
    let flags = [(); 40].map(|()| Arc::new(Flag::default()));
    let mut places = [(); 40].map(|()| Place::default());
    for (place, flag) in places.iter_mut().zip(&flags) {
        assert!(poll(&room, place, 1, flag).is_pending());
    }
    let woken = || flags.iter().filter(|flag| flag.wakes() > 0).count();
    room.release(bytes(1));
    assert_eq!(woken(), 1 + IDLE_SPARES);
    // None of those comes. The next who wants something finds out.
    let (late, mut place) = (Arc::new(Flag::default()), Place::default());
    assert!(poll(&room, &mut place, 1, &late).is_pending());
    assert_eq!((woken(), late.wakes()), (40, 1));
    assert_eq!(poll(&room, &mut place, 1, &late), Poll::Ready(Ok(())));
}

#[test]
fn closing_and_shrinking_answer_those_who_wait() {
    let room = Room::new(bytes(4), None);
    let flags = [Arc::new(Flag::default()), Arc::new(Flag::default())];
    let mut places = [Place::default(), Place::default()];
    assert_eq!(room.try_take(bytes(4)), Ok(()));
    assert!(poll(&room, &mut places[0], 3, &flags[0]).is_pending());
    assert!(poll(&room, &mut places[1], 1, &flags[1]).is_pending());
    room.set_limit(bytes(2));
    assert_eq!(poll(&room, &mut places[0], 3, &flags[0]), Poll::Ready(Err(Refused::TooLarge)));
    assert!(poll(&room, &mut places[1], 1, &flags[1]).is_pending());
    room.close();
    assert_eq!(poll(&room, &mut places[1], 1, &flags[1]), Poll::Ready(Err(Refused::Closed)));
    room.release(bytes(4));
    assert_eq!(room.try_take(bytes(1)), Err(Refused::Closed));
}
