//! Tests with both ends on one thread, and one with an actor on a thread.

use super::*;
use crate::sync::block_on;

fn small() -> (Mailbox<u32>, Inbox<u32>) {
    Mailbox::new(Capacity { messages: 2, bytes: 10 })
}

fn send(mailbox: &Mailbox<u32>, bytes: u64, message: u32) -> Result<(), Refused> {
    mailbox.try_reserve(bytes)?.send(message).map_err(|_| Refused::Closed)
}

#[test]
fn room_comes_back_when_a_message_is_received() {
    let (mailbox, mut inbox) = small();
    assert_eq!(send(&mailbox, 4, 1), Ok(()));
    assert_eq!(send(&mailbox, 4, 2), Ok(()));
    assert_eq!(send(&mailbox, 1, 3), Err(Refused::Full));
    assert_eq!(send(&mailbox, 11, 3), Err(Refused::TooLarge));
    assert_eq!((mailbox.len(), inbox.try_recv()), (2, Some(1)));
    assert_eq!(send(&mailbox, 7, 3), Err(Refused::Full), "one message, but 4 bytes are left");
    drop(mailbox.try_reserve(6).expect("6 bytes are free"));
    assert_eq!(send(&mailbox, 6, 3), Ok(()));
    assert_eq!((block_on(inbox.recv()), block_on(inbox.recv())), (Some(2), Some(3)));
    assert_eq!(inbox.try_recv(), None);
}

/// Planted: a message that is not wanted is dropped; the room of one that is taken stays in use; a
/// wanted message behind another is taken.
#[test]
fn a_message_that_is_not_wanted_stays_the_next_one() {
    let (mailbox, mut inbox) = small();
    assert_eq!(inbox.try_recv_if(|_| true), None);
    assert_eq!(send(&mailbox, 5, 1), Ok(()));
    assert_eq!(send(&mailbox, 5, 2), Ok(()));
    assert_eq!(inbox.try_recv_if(|message| *message == 2), None);
    assert_eq!((mailbox.len(), send(&mailbox, 1, 3)), (2, Err(Refused::Full)));
    assert_eq!(inbox.try_recv_if(|message| *message == 1), Some(1));
    assert_eq!((mailbox.len(), send(&mailbox, 5, 3)), (1, Ok(())));
    assert_eq!((inbox.try_recv(), inbox.try_recv()), (Some(2), Some(3)));
}

#[test]
fn closing_refuses_senders_and_keeps_what_was_queued() {
    let (mailbox, mut inbox) = small();
    assert_eq!(send(&mailbox, 1, 1), Ok(()));
    let permit = mailbox.try_reserve(1).expect("there is room");
    mailbox.close();
    assert_eq!(permit.send(2), Err(2));
    assert_eq!(send(&mailbox, 1, 3), Err(Refused::Closed));
    assert_eq!((block_on(inbox.recv()), block_on(inbox.recv())), (Some(1), None));
}

#[test]
fn the_last_sender_closes_and_a_lost_inbox_drops_messages() {
    let (mailbox, mut inbox) = small();
    drop(mailbox.clone());
    assert_eq!(send(&mailbox, 1, 1), Ok(()));
    drop(mailbox);
    assert_eq!((block_on(inbox.recv()), block_on(inbox.recv())), (Some(1), None));

    let (mailbox, inbox) = Mailbox::new(Capacity { messages: 1, bytes: 0 });
    let (reply, answer) = crate::reply::reply::<()>();
    assert!(mailbox.try_reserve(0).expect("there is room").send(reply).is_ok());
    drop(inbox);
    assert_eq!(block_on(answer), Err(crate::reply::Lost));
    assert_eq!(mailbox.try_reserve(0).map(|_| ()), Err(Refused::Closed));
}

#[test]
fn a_thread_drives_an_inbox() {
    let (mailbox, mut inbox) = Mailbox::new(Capacity { messages: 4, bytes: 4 });
    let thread = std::thread::spawn(move || {
        let mut sum = 0;
        while let Some(n) = block_on(inbox.recv()) {
            sum += n;
        }
        sum
    });
    for n in 0..1_000_u64 {
        block_on(mailbox.reserve(1)).expect("open").send(n).expect("open");
    }
    drop(mailbox);
    assert_eq!(thread.join().expect("the thread returns"), 499_500);
}

/// Planted: the panic ends the loop that empties the queue (the second question is never answered,
/// and the third message's room is lost).
#[test]
fn an_inbox_is_emptied_even_if_a_messages_drop_panics() {
    struct Message(Option<crate::reply::Reply<()>>);
    impl Drop for Message {
        fn drop(&mut self) {
            assert!(self.0.is_some(), "on purpose");
        }
    }
    let (mailbox, inbox) = Mailbox::new(Capacity { messages: 3, bytes: 3 });
    let (reply, answer) = crate::reply::reply();
    for message in [Message(None), Message(Some(reply)), Message(None)] {
        assert!(mailbox.try_reserve(1).expect("there is room").send(message).is_ok());
    }
    drop(inbox);
    assert_eq!(block_on(answer), Err(crate::reply::Lost));
    assert_eq!(mailbox.0.room.used(), Amount::NOTHING);
}
