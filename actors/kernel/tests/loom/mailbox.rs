use super::poll_once;
use loom::thread;
use sluicedb_kernel::mailbox::{Capacity, Mailbox};
use sluicedb_kernel::reply::reply;
use sluicedb_kernel::semaphore::Refused;
use sluicedb_kernel::sync::block_on;

const ONE: Capacity = Capacity { messages: 1, bytes: 1 };

/// One sender, one receiver, room for one: order is kept, and the end comes after the last message.
/// Catches: a bell that is rung before the message is in the queue (deadlock).
#[test]
fn in_order_and_then_the_end() {
    loom::model(|| {
        let (mailbox, mut inbox) = Mailbox::new(ONE);
        let sender = thread::spawn(move || {
            block_on(mailbox.reserve(1)).unwrap().send(1).unwrap();
            block_on(mailbox.reserve(1)).unwrap().send(2).unwrap();
        });
        assert_eq!((block_on(inbox.recv()), block_on(inbox.recv())), (Some(1), Some(2)));
        assert_eq!(block_on(inbox.recv()), None);
        sender.join().unwrap();
    });
}

/// Two senders, one receiver, room for one: nothing is lost or duplicated.
/// Catches: a `try_recv` that does not give room back (deadlock).
#[test]
fn two_senders_one_receiver() {
    loom::model(|| {
        let (mailbox, mut inbox) = Mailbox::new(ONE);
        let senders = [1, 2].map(|n| {
            let mailbox = mailbox.clone();
            thread::spawn(move || block_on(mailbox.reserve(1)).unwrap().send(n).unwrap())
        });
        let mut got = [block_on(inbox.recv()), block_on(inbox.recv())];
        got.sort_unstable();
        assert_eq!(got, [Some(1), Some(2)]);
        for sender in senders {
            sender.join().unwrap();
        }
        drop(mailbox);
        assert_eq!(block_on(inbox.recv()), None);
    });
}

/// A sender is dropped while it waits for room: the room is not leaked, and the next sender gets
/// it.
/// Catches: a `Take` without a `Drop` (the dead waiter stays at the head of the line: deadlock).
#[test]
fn a_waiting_sender_is_dropped() {
    loom::model(|| {
        let (mailbox, mut inbox) = Mailbox::new(Capacity { messages: 2, bytes: 2 });
        let kept = mailbox.try_reserve(1).unwrap();
        mailbox.try_reserve(1).unwrap().send(1).unwrap();
        let mut leaves = Box::pin(mailbox.reserve(2));
        assert!(poll_once(&mut leaves).is_pending());
        let other = mailbox.clone();
        let sender = thread::spawn(move || {
            block_on(other.reserve(1)).unwrap().send(2).unwrap();
        });
        let receiver = thread::spawn(move || {
            assert_eq!(block_on(inbox.recv()), Some(1));
            assert_eq!(block_on(inbox.recv()), Some(2));
            inbox
        });
        drop(leaves);
        sender.join().unwrap();
        let _inbox = receiver.join().unwrap();
        drop(kept);
        assert!(mailbox.try_reserve(2).is_ok(), "all room is back");
    });
}

/// The mailbox is closed while a permit exists. Its message is received before the end or returned
/// to its sender.
/// Catches: a push that looks at `closed` before it takes the lock under which it adds the message
/// (the message arrives after the end and is lost).
#[test]
fn closed_while_sending() {
    loom::model(|| {
        let (mailbox, mut inbox) = Mailbox::new(ONE);
        let permit = mailbox.try_reserve(1).unwrap();
        let sender = thread::spawn(move || permit.send(1).is_ok());
        mailbox.close();
        let got = block_on(inbox.recv());
        let sent = sender.join().unwrap();
        assert_eq!(got.is_some(), sent);
        assert_eq!(block_on(inbox.recv()), None);
        assert_eq!(mailbox.try_reserve(1).map(drop), Err(Refused::Closed));
    });
}

/// The actor is dropped while somebody sends it a question: the question is answered.
/// Catches: an inbox that empties the queue before it closes it (the reply stays in the queue for
/// as long as a mailbox exists: deadlock).
#[test]
fn the_inbox_is_dropped_while_sending() {
    loom::model(|| {
        let (mailbox, inbox) = Mailbox::new(ONE);
        let (reply, answer) = reply::<()>();
        let permit = mailbox.try_reserve(1).unwrap();
        let sender = thread::spawn(move || drop(permit.send(reply)));
        drop(inbox);
        assert!(block_on(answer).is_err());
        sender.join().unwrap();
    });
}
