use loom::sync::{Arc, Mutex};
use loom::thread;
use sluicedb_actors::failure::health::{Down, Health};
use sluicedb_kernel::mailbox::{Capacity, Mailbox};
use sluicedb_kernel::reply::reply;
use sluicedb_kernel::semaphore::Semaphore;
use sluicedb_kernel::sync::block_on;

/// Two actors fail at once: one cause wins, and everybody is told that one.
/// Catches: storing the level before taking the lock that orders changes (`check` panics: the state
/// still says running).
#[test]
fn two_failures() {
    loom::model(|| {
        let health = Health::<(), u32>::new();
        let (one, two) = (health.clone(), health.clone());
        let watcher = thread::spawn(move || block_on(two.until_down()));
        let other = thread::spawn(move || one.fail(1));
        let mine = health.fail(2);
        let theirs = other.join().unwrap();
        assert!(mine != theirs, "exactly one decided");
        let first = if mine { 2 } else { 1 };
        assert_eq!(watcher.join().unwrap(), Down::Failed(first));
        assert_eq!(health.check(), Err(Down::Failed(first)));
    });
}

/// No acknowledgement after the failure was declared: it is checked behind the same lock as the
/// append.
/// Catches: checking before the lock is taken (an append is acknowledged after the failure).
#[test]
fn no_ack_after_failure() {
    loom::model(|| {
        let shared = Arc::new((Health::<(), &str>::new(), Mutex::new((0, None))));
        let failing = shared.clone();
        let syncer = thread::spawn(move || {
            let mut log = failing.1.lock().unwrap();
            failing.0.fail("sync");
            log.1 = Some(log.0);
        });
        {
            let mut log = shared.1.lock().unwrap();
            if shared.0.check().is_ok() {
                log.0 += 1;
            }
        }
        syncer.join().unwrap();
        let log = shared.1.lock().unwrap();
        assert_eq!(Some(log.0), log.1, "nothing was appended after the failure");
    });
}

/// A shutdown against a waiter of an account and a question on its way: both are answered.
/// Catches: leaving out either close (deadlock).
#[test]
fn everybody_is_answered_on_shutdown() {
    loom::model(|| {
        let credits = Semaphore::new(1);
        let held = credits.try_acquire(1).unwrap();
        let (mailbox, inbox) = Mailbox::new(Capacity { messages: 1, bytes: 0 });
        let waits = credits.clone();
        let writer = thread::spawn(move || assert!(block_on(waits.acquire(1)).is_err()));
        let asker = thread::spawn(move || {
            let (reply, answer) = reply::<()>();
            if let Ok(permit) = mailbox.try_reserve(0) {
                drop(permit.send(reply));
                assert!(block_on(answer).is_err());
            }
        });
        credits.close();
        drop(inbox);
        writer.join().unwrap();
        asker.join().unwrap();
        drop(held);
    });
}
