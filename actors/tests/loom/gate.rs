use super::poll_once;
use loom::thread;
use sluicedb_actors::admission::gate::{Admit, Charge, Gate};
use sluicedb_kernel::semaphore::Semaphore;
use sluicedb_kernel::sync::block_on;

fn admit(gate: &Gate, local: &Semaphore, bytes: u64) -> Admit {
    let account = local.clone();
    gate.admit_many(vec![Charge { range: 0, account, bytes, local_bytes: bytes }])
}

/// Two ranges, and a global account with room for only one of them: both are admitted in turn.
/// Catches: taking the global account first (the hot range's waiter starves the other: deadlock).
#[test]
fn both_ranges_get_in() {
    loom::model(|| {
        let gate = Gate::new(Semaphore::new(1));
        let other = gate.clone();
        let writer = thread::spawn(move || {
            let local = Semaphore::new(1);
            drop(block_on(admit(&other, &local, 1)).unwrap());
            assert_eq!(local.used(), 0);
        });
        let local = Semaphore::new(1);
        drop(block_on(admit(&gate, &local, 1)).unwrap());
        writer.join().unwrap();
        assert_eq!((local.used(), gate.global().used()), (0, 0));
    });
}

/// A waiter of a full range holds no global bytes, whether or not it is polled.
/// Catches: taking the global account first (the other range waits for a parked future: deadlock).
#[test]
fn a_parked_local_waiter_is_in_nobodys_way() {
    loom::model(|| {
        let gate = Gate::new(Semaphore::new(1));
        let full = Semaphore::new(1);
        let held = full.try_acquire(1).unwrap();
        let mut parked = admit(&gate, &full, 1);
        assert!(poll_once(&mut parked).is_pending());
        assert_eq!(parked.waiting_range(), Some(0));
        let other = gate.clone();
        let writer = thread::spawn(move || {
            let local = Semaphore::new(1);
            drop(block_on(admit(&other, &local, 1)).unwrap());
        });
        drop(held);
        writer.join().unwrap();
        drop(parked);
        assert_eq!((full.used(), gate.global().used()), (0, 0));
    });
}

/// A waiter for the global account that is never polled again keeps none of its range's room:
/// another writer of the range gets in.
/// Catches: keeping the range's bytes while waiting for the global account (deadlock).
#[test]
fn a_parked_global_waiter_keeps_no_room_of_its_range() {
    loom::model(|| {
        let gate = Gate::new(Semaphore::new(1));
        let local = Semaphore::new(1);
        let hog = gate.global().try_acquire(1).unwrap();
        let mut parked = admit(&gate, &local, 1);
        assert!(poll_once(&mut parked).is_pending());
        assert_eq!(parked.waiting_range(), None);
        let (other, same) = (gate.clone(), local.clone());
        let writer = thread::spawn(move || drop(block_on(admit(&other, &same, 1)).unwrap()));
        drop(hog);
        writer.join().unwrap();
        drop(parked);
        assert_eq!((local.used(), gate.global().used()), (0, 0));
    });
}

/// Two batches over the same two ranges. Each range has room for one batch, and both get in,
/// wherever they wait.
/// Catches: holding one range while waiting for another in a different order (deadlock); giving up
/// a range without waking the next waiter in its line (deadlock).
#[test]
fn batches_over_two_ranges_take_turns() {
    loom::model(|| {
        let gate = Gate::new(Semaphore::new(4));
        let (low, high) = (Semaphore::new(1), Semaphore::new(1));
        let charges = move || {
            let charge = |range, account: &Semaphore| {
                let account = account.clone();
                Charge { range, account, bytes: 1, local_bytes: 1 }
            };
            vec![charge(1, &low), charge(2, &high)]
        };
        let (other, theirs) = (gate.clone(), charges());
        let writer = thread::spawn(move || drop(block_on(other.admit_many(theirs)).unwrap()));
        drop(block_on(gate.admit_many(charges())).unwrap());
        writer.join().unwrap();
        assert_eq!(gate.global().used(), 0);
    });
}

/// A waiter for the global account is dropped: the next one is woken.
/// Catches: a `Take` without a `Drop` (the dead waiter stays at the head of the line: deadlock).
#[test]
fn a_dropped_global_waiter_gives_everything_back() {
    loom::model(|| {
        let gate = Gate::new(Semaphore::new(2));
        let local = Semaphore::new(2);
        let hog = gate.global().try_acquire(1).unwrap();
        let kept = gate.global().try_acquire(1).unwrap();
        let mut leaves = admit(&gate, &local, 2);
        assert!(poll_once(&mut leaves).is_pending());
        assert_eq!(leaves.waiting_range(), None);
        let (other, same) = (gate.clone(), local.clone());
        let writer = thread::spawn(move || drop(block_on(admit(&other, &same, 1)).unwrap()));
        drop(hog);
        drop(leaves);
        writer.join().unwrap();
        drop(kept);
        assert_eq!((local.used(), gate.global().used()), (0, 0));
    });
}
