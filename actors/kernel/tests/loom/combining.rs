use super::poll_once;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use sluicedb_kernel::combining::{CombiningMailbox, Handler, Hooks, Spent, TURN_BYTES_MAX, Turn};
use sluicedb_kernel::mailbox::Capacity;
use sluicedb_kernel::reply::{Reply, reply};
use sluicedb_kernel::signal::Signal;
use sluicedb_kernel::sync::block_on;

/// Counts what it handles.
struct Sum(Arc<AtomicUsize>);

enum Message {
    Add,
    /// Fills a turn.
    Large,
    Mark(Arc<AtomicUsize>),
    Ask(Reply<()>),
    Panic,
}

impl Handler for Sum {
    type Message = Message;

    fn handle(&mut self, message: Message, _: &mut Turn) {
        match message {
            Message::Add | Message::Large => {}
            Message::Mark(mark) => mark.store(1, Ordering::Relaxed),
            Message::Ask(reply) => reply.send(()),
            Message::Panic => panic!("on purpose"),
        }
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn weight(message: &Message) -> usize {
        if matches!(message, Message::Large) { TURN_BYTES_MAX } else { 1 }
    }
}

fn mailbox() -> (Arc<CombiningMailbox<Sum>>, Arc<AtomicUsize>, Arc<Signal>) {
    mailbox_that_tells(|| ())
}

fn mailbox_that_tells(
    of_a_panic: impl Fn() + Send + Sync + 'static,
) -> (Arc<CombiningMailbox<Sum>>, Arc<AtomicUsize>, Arc<Signal>) {
    let handled = Arc::new(AtomicUsize::new(0));
    let kicked = Arc::new(Signal::new());
    let kick = kicked.clone();
    let hooks =
        Hooks { kick: Box::new(move || kick.set()), on_panic: Box::new(move |_| of_a_panic()) };
    let capacity = Capacity { messages: 3, bytes: 3 };
    let mailbox = CombiningMailbox::new(Sum(handled.clone()), capacity, hooks);
    (Arc::new(mailbox), handled, kicked)
}

fn inline<R>(mailbox: &CombiningMailbox<Sum>, f: impl FnOnce(&mut Sum) -> R) -> Option<R> {
    mailbox.try_enter_idle()?.attempt(f)
}

fn send(mailbox: &CombiningMailbox<Sum>, message: Message) {
    mailbox.send(mailbox.try_reserve(1).expect("there is room"), message);
}

/// Two senders and nobody else: both messages are handled once both have returned.
/// Catches: no look at the queue after the seat was freed.
#[test]
fn no_message_is_left_behind() {
    loom::model(|| {
        let (mailbox, handled, _) = mailbox();
        let other = mailbox.clone();
        let sender = thread::spawn(move || send(&other, Message::Add));
        send(&mailbox, Message::Add);
        sender.join().unwrap();
        assert_eq!((handled.load(Ordering::Relaxed), mailbox.len()), (2, 0));
    });
}

/// A question sent while another caller works inline is answered, by one of the two.
/// Catches: a guard whose drop does not look at the queue; a look by a plain load instead of a
/// read-modify-write (both: deadlock).
#[test]
fn an_inline_caller_sees_to_others() {
    loom::model(|| {
        let (mailbox, _, _) = mailbox();
        let other = mailbox.clone();
        let asker = thread::spawn(move || {
            let (reply, answer) = reply();
            send(&other, Message::Ask(reply));
            block_on(answer).unwrap();
        });
        // The load is where others can run: loom does not switch between the lock and the unlock.
        inline(&mailbox, |sum| sum.0.load(Ordering::Relaxed));
        asker.join().unwrap();
    });
}

/// An inline caller never overtakes what it sent itself, even while a third thread is inside a
/// send.
/// Catches: no look at the count; a count that is raised after the push, outside the queue's lock
/// (the third thread's message is handled in place of ours, and the count says zero).
#[test]
fn inline_never_passes_the_queue() {
    let mut model = loom::model::Builder::new();
    // Both bugs need a switch away from the occupant and back while a sender is inside its send.
    model.preemption_bound = Some(3);
    model.check(|| {
        let (mailbox, _, _) = mailbox();
        let (third, second) = (mailbox.clone(), mailbox.clone());
        let mine = Arc::new(AtomicUsize::new(0));
        let mark = mine.clone();
        let sender = thread::spawn(move || {
            assert!(third.try_reserve(1).unwrap().send(Message::Add).is_ok());
        });
        let caller = thread::spawn(move || {
            send(&second, Message::Mark(mark.clone()));
            // Seen under the seat: leaving it handles what is left.
            let seen = inline(&second, |_| mark.load(Ordering::Relaxed));
            assert_ne!(seen, Some(0));
        });
        // The occupant: it has the fewest switches to make, so it is this thread.
        inline(&mailbox, |sum| sum.0.load(Ordering::Relaxed));
        sender.join().unwrap();
        caller.join().unwrap();
        mailbox.settle(&mut Spent::default());
        assert_eq!((mine.load(Ordering::Relaxed), mailbox.len()), (1, 0));
    });
}

/// With turns of one message, what a turn leaves over reaches an engine thread.
/// Catches: a turn that ends at its bound without a kick.
#[test]
fn what_a_turn_leaves_over_is_kicked_on() {
    loom::model(|| {
        let (mailbox, handled, kicked) = mailbox();
        let other = mailbox.clone();
        let sender = thread::spawn(move || {
            send(&other, Message::Large);
            send(&other, Message::Large);
        });
        send(&mailbox, Message::Large);
        sender.join().unwrap();
        if poll_once(&mut kicked.wait()).is_ready() {
            mailbox.deliver_blocking();
        }
        assert_eq!((handled.load(Ordering::Relaxed), mailbox.len()), (3, 0));
    });
}

/// A handler panics while somebody asks: the question resolves, room is given back, nothing
/// unwinds.
/// Catches: a failed seat on which late senders do not empty the queue (deadlock).
#[test]
fn a_panic_answers_everybody() {
    loom::model(|| {
        let (mailbox, handled, _) = mailbox();
        let other = mailbox.clone();
        let asker = thread::spawn(move || {
            let (reply, answer) = reply();
            if let Ok(permit) = other.try_reserve(1) {
                other.send(permit, Message::Ask(reply));
            } else {
                drop(reply);
            }
            block_on(answer).is_ok()
        });
        send(&mailbox, Message::Panic);
        let answered = asker.join().unwrap();
        assert_eq!(handled.load(Ordering::Relaxed), usize::from(answered));
        assert!(mailbox.enter_blocking().is_none() && mailbox.try_reserve(1).is_err());
        assert_eq!(mailbox.len(), 0);
    });
}

/// Whoever finds that the mailbox has failed finds that the panic was reported: a thread that waits
/// for the seat, and one whose message was dropped.
/// Catches: a seat that is failed, or freed, before the report.
#[test]
fn a_panic_is_reported_before_anybody_finds_the_mailbox_failed() {
    loom::model(|| {
        let reported = Arc::new(AtomicUsize::new(0));
        let reports = reported.clone();
        let (mailbox, ..) = mailbox_that_tells(move || reports.store(1, Ordering::Relaxed));
        let (other, told) = (mailbox.clone(), reported.clone());
        let waits = thread::spawn(move || {
            if other.enter_blocking().is_none() {
                assert_eq!(told.load(Ordering::Relaxed), 1);
            }
        });
        let (other, told) = (mailbox.clone(), reported);
        let asks = thread::spawn(move || {
            let (reply, answer) = reply();
            let Ok(permit) = other.try_reserve(1) else { return };
            other.send(permit, Message::Ask(reply));
            if block_on(answer).is_err() {
                assert_eq!(told.load(Ordering::Relaxed), 1);
            }
        });
        send(&mailbox, Message::Panic);
        waits.join().unwrap();
        asks.join().unwrap();
    });
}
