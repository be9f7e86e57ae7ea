use loom::sync::Arc;
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use sluicedb_kernel::sequencer::{CommitGuard, Failed, Sequencer};
use sluicedb_kernel::sync::block_on;

fn open(queue: &Sequencer, number: u64, shares: u32) -> CommitGuard {
    queue.open(queue.try_reserve().expect("a slot is free"), number, shares)
}

/// Two ranges apply one batch: a reader sees both halves or none.
/// Catches: a first share that raises `visible`; a share that is finished with `Relaxed`.
#[test]
fn both_halves_or_none() {
    loom::model(|| {
        let queue = Sequencer::new(0, 2);
        let halves = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let mut commit = open(&queue, 1, 2);
        let share = commit.share();
        let applied = halves.clone();
        let range = thread::spawn(move || {
            applied[1].store(1, Ordering::Relaxed);
            share.finish()
        });
        let (watched, seen) = (queue.clone(), halves.clone());
        let reader = thread::spawn(move || {
            if watched.visible() >= 1 {
                assert_eq!(seen[0].load(Ordering::Relaxed), 1);
                assert_eq!(seen[1].load(Ordering::Relaxed), 1);
            }
        });
        halves[0].store(1, Ordering::Relaxed);
        let mine = commit.finish();
        let theirs = range.join().unwrap();
        reader.join().unwrap();
        assert!(mine || theirs);
        assert_eq!(queue.visible(), 1);
    });
}

/// Two commits finish at once, in either order. In the end `visible` covers both, and never the
/// second without the first. A thread that could not raise is told by the one that does.
/// Catches: a raising thread that stops without a second look when another finished meanwhile
/// (`visible` stays behind: deadlock); a raise to the newest finished commit instead of over a
/// prefix.
#[test]
fn no_gaps() {
    loom::model(|| {
        let queue = Sequencer::new(0, 2);
        let applied = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let (first, second) = (open(&queue, 1, 1), open(&queue, 2, 1));
        let (other, writes) = (queue.clone(), applied.clone());
        let range = thread::spawn(move || {
            writes[1].store(1, Ordering::Relaxed);
            if !second.finish() {
                block_on(other.wait_visible(2)).unwrap();
            }
            assert!(other.visible() >= 2);
            assert_eq!(writes[0].load(Ordering::Relaxed), 1, "the first came before");
        });
        applied[0].store(1, Ordering::Relaxed);
        if !first.finish() {
            block_on(queue.wait_visible(1)).unwrap();
        }
        assert!(queue.visible() >= 1);
        range.join().unwrap();
        assert_eq!(queue.visible(), 2);
    });
}

/// A waiter for a commit is told when the commit is visible, and not before.
/// Catches: a raising thread that does not look for waiters (deadlock).
#[test]
fn told_after_visible() {
    loom::model(|| {
        let queue = Sequencer::new(0, 2);
        let ranges = [1, 2].map(|number| {
            let commit = open(&queue, number, 1);
            thread::spawn(move || commit.finish())
        });
        block_on(queue.wait_visible(2)).unwrap();
        assert!(queue.visible() >= 2);
        for range in ranges {
            range.join().unwrap();
        }
        // Both places are free again.
        let _both = [queue.try_reserve().unwrap(), queue.try_reserve().unwrap()];
    });
}

/// A ring of one: the next commit uses its place again, from another thread.
/// Catches: a slot that is given back before its commit was passed (a cell is overwritten while in
/// use).
#[test]
fn a_slot_is_used_again() {
    loom::model(|| {
        let queue = Sequencer::new(0, 1);
        let seat = Arc::new(Mutex::new(0));
        let write = |queue: &Sequencer, seat: &Mutex<u64>| {
            let slot = loom::future::block_on(queue.reserve()).unwrap();
            let (commit, number) = {
                let mut last = seat.lock().unwrap();
                *last += 1;
                (queue.open(slot, *last, 1), *last)
            };
            assert!(commit.finish(), "nobody else is in flight");
            assert!(queue.visible() >= number);
        };
        let (other, same) = (queue.clone(), seat.clone());
        let writer = thread::spawn(move || write(&other, &same));
        write(&queue, &seat);
        writer.join().unwrap();
        assert_eq!(queue.visible(), 2);
    });
}

/// The sequencer fails while one thread waits for `visible` and another opens a commit and waits:
/// both are told.
/// Catches: a failure that does not empty the list of waiters; a waiter that does not look for a
/// failure after it is in the list (deadlock).
#[test]
fn failed_while_waiting() {
    loom::model(|| {
        let queue = Sequencer::new(0, 2);
        let stuck = open(&queue, 1, 1);
        let waits = queue.clone();
        let waiter = thread::spawn(move || {
            assert_eq!(block_on(waits.wait_visible(1)), Err(Failed));
        });
        let slot = queue.try_reserve().unwrap();
        let opens = queue.clone();
        let opener = thread::spawn(move || {
            assert!(!opens.open(slot, 2, 1).finish());
            assert_eq!(block_on(opens.wait_visible(2)), Err(Failed));
        });
        drop(stuck);
        waiter.join().unwrap();
        opener.join().unwrap();
        assert_eq!(queue.visible(), 0);
    });
}
