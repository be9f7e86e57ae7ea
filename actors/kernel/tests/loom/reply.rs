use super::poll_once;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use sluicedb_kernel::reply::{Lost, reply};
use sluicedb_kernel::sync::block_on;
use std::task::Poll;

/// Counts how often it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// The value arrives at a thread that waits for it.
/// Catches: storing the waker without a second look at the outcome (deadlock).
#[test]
fn sent_while_waiting() {
    loom::model(|| {
        let (reply, answer) = reply();
        let sender = thread::spawn(move || reply.send(7));
        assert_eq!(block_on(answer), Ok(7));
        sender.join().unwrap();
    });
}

/// An actor that is dropped answers, too.
/// Catches: a `Reply` whose drop stores nothing (deadlock).
#[test]
fn lost_while_waiting() {
    loom::model(|| {
        let (reply, answer) = reply::<u32>();
        let actor = thread::spawn(move || drop(reply));
        assert_eq!(block_on(answer), Err(Lost));
        actor.join().unwrap();
    });
}

/// There is one outcome, and the value is dropped once, whichever side acts first.
/// Catches: a `send` after which the drop stores `Lost` as well (the value is overwritten).
#[test]
fn sent_while_the_asker_leaves() {
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (reply, mut answer) = reply();
        let value = Counted(drops.clone());
        let sender = thread::spawn(move || reply.send(value));
        let taken = poll_once(&mut answer);
        assert!(!matches!(taken, Poll::Ready(Err(Lost))));
        drop(answer);
        drop(taken);
        sender.join().unwrap();
        assert_eq!(drops.load(Ordering::Acquire), 1);
    });
}
