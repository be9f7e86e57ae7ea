//! Tests of a combining mailbox that need only one thread.
//!
//! Long because nearly all of them share one actor and its probe.

use super::*;
use crate::reply::{Answer, Lost, Reply, reply};
use crate::sync::block_on;
use std::sync::Arc as StdArc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct Sum {
    seen: Vec<u32>,
    kept: Vec<Reply<()>>,
}

enum Message {
    Add(u32),
    Heavy(u32),
    HeavyAsk(Reply<Vec<u32>>),
    Ask(Reply<Vec<u32>>),
    Keep(Reply<()>),
    Defer(Box<dyn FnOnce() + Send>),
    Panic,
    Weightless,
}

impl Handler for Sum {
    type Message = Message;

    fn handle(&mut self, message: Message, turn: &mut Turn) {
        match message {
            Message::Add(n) | Message::Heavy(n) => self.seen.push(n),
            Message::Ask(reply) | Message::HeavyAsk(reply) => reply.send(self.seen.clone()),
            Message::Keep(reply) => self.kept.push(reply),
            Message::Defer(action) => turn.defer(move |_| action()),
            Message::Panic => panic!("on purpose"),
            Message::Weightless => unreachable!("it is not handled"),
        }
    }

    fn weight(message: &Message) -> usize {
        match message {
            Message::Add(n) => *n as usize,
            Message::Weightless => panic!("on purpose"),
            _ => 1,
        }
    }

    fn is_heavy(message: &Message) -> bool {
        matches!(message, Message::Heavy(_) | Message::HeavyAsk(_))
    }
}

struct Probe {
    kicks: AtomicUsize,
    panics: std::sync::Mutex<Vec<String>>,
}

fn mailbox() -> (CombiningMailbox<Sum>, StdArc<Probe>) {
    mailbox_of(8)
}

fn mailbox_of(messages: usize) -> (CombiningMailbox<Sum>, StdArc<Probe>) {
    let probe =
        StdArc::new(Probe { kicks: AtomicUsize::new(0), panics: std::sync::Mutex::default() });
    let (kicked, panicked) = (probe.clone(), probe.clone());
    let hooks = Hooks {
        kick: Box::new(move || {
            kicked.kicks.fetch_add(1, Ordering::SeqCst);
        }),
        on_panic: Box::new(move |words| panicked.panics.lock().expect("not poisoned").push(words)),
    };
    let capacity = Capacity { messages, bytes: 100 };
    (CombiningMailbox::new(Sum::default(), capacity, hooks), probe)
}

fn send(mailbox: &CombiningMailbox<Sum>, message: Message) {
    let permit = mailbox.try_reserve(1).expect("there is room");
    mailbox.send(permit, message);
}

/// Works on the state as a caller that takes the seat.
fn inline<R>(mailbox: &CombiningMailbox<Sum>, f: impl FnOnce(&mut Sum) -> R) -> Option<R> {
    mailbox.try_enter_idle()?.attempt(f)
}

fn has_failed(mailbox: &CombiningMailbox<Sum>) -> bool {
    mailbox.enter_blocking().is_none() && mailbox.try_reserve(0).map(drop) == Err(Refused::Closed)
}

/// The answer, if it has been given.
fn now<T>(answer: &mut Answer<T>) -> Option<Result<T, Lost>> {
    match std::pin::Pin::new(answer).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

fn ask(mailbox: &CombiningMailbox<Sum>) -> Vec<u32> {
    let (reply, answer) = reply();
    send(mailbox, Message::Ask(reply));
    mailbox.deliver_blocking();
    block_on(answer).expect("answered")
}

#[test]
fn a_sender_runs_its_own_message() {
    let (mailbox, probe) = mailbox();
    send(&mailbox, Message::Add(1));
    assert!(mailbox.is_empty());
    assert_eq!(inline(&mailbox, |sum| sum.seen.push(2)), Some(()));
    assert_eq!(ask(&mailbox), [1, 2]);
    assert_eq!(probe.kicks.load(Ordering::SeqCst), 0);
    assert_eq!(mailbox.queue.room.used(), Amount::NOTHING);
}

#[test]
fn what_was_sent_while_the_seat_was_taken_is_seen_to_on_leaving() {
    let (mailbox, _probe) = mailbox();
    let mut guard = mailbox.try_enter_idle().expect("idle");
    send(&mailbox, Message::Add(2));
    assert_eq!(mailbox.len(), 1);
    assert!(mailbox.try_enter_idle().is_none());
    assert_eq!(guard.attempt(|sum| sum.seen.push(1)), Some(()));
    drop(guard);
    assert!(mailbox.is_empty());
    assert_eq!(ask(&mailbox), [1, 2]);
}

/// A caller finishes its own work before it works for others.
#[test]
fn b13_what_comes_during_a_callers_own_work_is_left_until_the_caller_settles() {
    let (mailbox, _probe) = mailbox();
    let mut guard = mailbox.try_enter_idle().expect("idle");
    let ran = guard.attempt(|sum| {
        sum.seen.push(1);
        send(&mailbox, Message::Add(2));
    });
    guard.release();
    assert_eq!((ran, mailbox.len()), (Some(()), 1), "not handled in passing");
    mailbox.settle(&mut Spent::default());
    assert!(mailbox.is_empty());
    assert_eq!(ask(&mailbox), [1, 2]);
}

/// What was done at another seat in the same turn counts.
#[test]
fn b13_two_seats_share_a_turn() {
    let third = TURN_BYTES_MAX as u32 / 3;
    let ((first, _), (second, probe)) = (mailbox(), mailbox());
    for mailbox in [&first, &second] {
        for _ in 0..2 {
            assert!(mailbox.try_reserve(1).expect("room").send(Message::Add(third)).is_ok());
        }
    }
    let mut spent = Spent::default();
    first.settle(&mut spent);
    second.settle(&mut spent);
    assert_eq!((first.len(), second.len(), probe.kicks.load(Ordering::SeqCst)), (0, 1, 1));
    second.deliver_blocking();
    assert_eq!(ask(&second), [third, third]);
}

#[test]
fn a_queued_message_keeps_others_from_passing_it() {
    let (mailbox, _probe) = mailbox();
    assert!(mailbox.try_reserve(1).expect("room").send(Message::Add(1)).is_ok());
    assert!(inline(&mailbox, |sum| sum.seen.push(2)).is_none());
    mailbox.settle(&mut Spent::default());
    assert_eq!(inline(&mailbox, |sum| sum.seen.push(2)), Some(()));
    assert_eq!(ask(&mailbox), [1, 2]);
}

#[test]
fn a_turn_is_bounded_and_the_rest_is_kicked_on() {
    let (mailbox, probe) = mailbox();
    let all = [9, 9, 1, 1, 50].map(|tenths| tenths * (TURN_BYTES_MAX as u32 / 10));
    for n in all {
        assert!(mailbox.try_reserve(1).expect("room").send(Message::Add(n)).is_ok());
    }
    mailbox.settle(&mut Spent::default());
    assert_eq!((mailbox.len(), probe.kicks.load(Ordering::SeqCst)), (4, 1), "9 + 9 > 10");
    mailbox.settle(&mut Spent::default());
    assert_eq!((mailbox.len(), probe.kicks.load(Ordering::SeqCst)), (2, 2), "9 + 1, then full");
    mailbox.settle(&mut Spent::default());
    mailbox.settle(&mut Spent::default());
    assert!(mailbox.is_empty(), "a single message may exceed the turn");
    assert_eq!(ask(&mailbox), all);
}

/// Planted: messages without weight do not count.
#[test]
fn a_turn_is_bounded_in_messages() {
    let left = 5;
    let (mailbox, probe) = mailbox_of(TURN_MESSAGES_MAX + left);
    for _ in 0..TURN_MESSAGES_MAX + left {
        assert!(mailbox.try_reserve(0).expect("room").send(Message::Add(0)).is_ok());
    }
    mailbox.settle(&mut Spent::default());
    assert_eq!((mailbox.len(), probe.kicks.load(Ordering::SeqCst)), (left, 1));
    mailbox.deliver_blocking();
    assert!(mailbox.is_empty());
}

#[test]
fn heavy_messages_wait_for_an_engine_thread_in_their_place() {
    let (mailbox, probe) = mailbox();
    send(&mailbox, Message::Add(1));
    send(&mailbox, Message::Heavy(2));
    assert_eq!((mailbox.len(), probe.kicks.load(Ordering::SeqCst)), (1, 1));
    send(&mailbox, Message::Add(3));
    assert_eq!(mailbox.len(), 2, "nothing passes it");
    assert!(inline(&mailbox, |_| ()).is_none());
    mailbox.deliver_blocking();
    assert_eq!(ask(&mailbox), [1, 2, 3]);
}

#[test]
fn a_panic_is_caught_reported_and_final() {
    for bad in [Message::Panic, Message::Weightless] {
        panics(bad);
    }
}

fn panics(bad: Message) {
    let (mailbox, probe) = mailbox();
    let (reply, answer) = reply();
    let push = |message| assert!(mailbox.try_reserve(1).expect("room").send(message).is_ok());
    push(Message::Add(1));
    push(bad);
    push(Message::Ask(reply));
    mailbox.settle(&mut Spent::default());
    assert!(has_failed(&mailbox) && mailbox.is_empty());
    assert_eq!(mailbox.queue.room.used(), Amount::NOTHING);
    assert_eq!(*probe.panics.lock().expect("not poisoned"), ["on purpose"]);
    assert!(block_on(answer).is_err(), "what was queued is dropped");
    assert!(mailbox.try_reserve(1).is_err());
    assert!(mailbox.try_enter_idle().is_none() && mailbox.enter_blocking().is_none());
    mailbox.deliver_blocking();
}

/// Planted: closing the mailbox stops only those who have no permit yet.
#[test]
fn what_a_failed_actor_holds_is_lost() {
    type Fail = fn(&CombiningMailbox<Sum>);
    let ways: [Fail; 4] = [
        |mailbox| send(mailbox, Message::Panic),
        |mailbox| assert!(inline(mailbox, |_| panic!("on purpose")).is_none()),
        |mailbox| assert!(mailbox.run_last(|_| panic!("on purpose")).is_none()),
        |mailbox| send(mailbox, Message::Defer(Box::new(|| panic!("on purpose")))),
    ];
    for fail in ways {
        let (mailbox, _) = mailbox();
        let (reply, mut answer) = reply();
        send(&mailbox, Message::Keep(reply));
        assert_eq!(now(&mut answer), None);
        fail(&mailbox);
        assert_eq!(now(&mut answer), Some(Err(Lost)));
    }
}

#[test]
fn an_occupant_that_outlasts_the_failure_is_waited_for_by_the_kicked_thread() {
    let (mailbox, probe) = mailbox();
    let (reply, mut answer) = reply();
    send(&mailbox, Message::Keep(reply));
    let guard = mailbox.try_enter_idle().expect("free");
    // What fails the seat is outside of it: here, a deferred action of somebody else's turn.
    mailbox.catch(|| panic!("on purpose"));
    mailbox.fall();
    assert_eq!((now(&mut answer), probe.kicks.load(Ordering::SeqCst)), (None, 1));
    drop(guard);
    mailbox.deliver_blocking();
    assert_eq!(now(&mut answer), Some(Err(Lost)));
}

#[test]
fn a_permit_that_outlives_its_mailbox_brings_nothing() {
    let (mailbox, _probe) = mailbox();
    let (first, second) = (mailbox.try_reserve(1), mailbox.try_reserve(1));
    drop(mailbox);
    let (reply, answer) = reply();
    let sent = first.expect("there is room").send(Message::Ask(reply));
    assert!(sent.is_err());
    drop(sent);
    assert!(block_on(answer).is_err());
    drop(second);
}

/// A deferred action runs while the seat may have another occupant. Its panic must not leave
/// messages to that one.
#[test]
fn a_panic_in_what_was_deferred_answers_also_what_was_held_back() {
    let (mailbox, probe) = mailbox();
    let (reply, mut answer) = reply();
    let push = |message| assert!(mailbox.try_reserve(1).expect("room").send(message).is_ok());
    push(Message::Defer(Box::new(|| panic!("on purpose"))));
    push(Message::HeavyAsk(reply));
    mailbox.settle(&mut Spent::default());
    assert!(matches!(now(&mut answer), Some(Err(Lost))));
    assert!(mailbox.is_empty() && has_failed(&mailbox));
    assert_eq!(mailbox.queue.room.used(), Amount::NOTHING);
    assert_eq!(*probe.panics.lock().expect("not poisoned"), ["on purpose"]);
}

#[test]
fn a_panic_of_an_inline_caller_is_caught_too() {
    let (mailbox, probe) = mailbox();
    assert!(inline(&mailbox, |_| -> u32 { panic!("inline") }).is_none());
    assert!(has_failed(&mailbox));
    assert_eq!(*probe.panics.lock().expect("not poisoned"), ["inline"]);
}

#[test]
fn deferred_actions_run_after_the_seat_is_free() {
    let (mailbox, _probe) = mailbox();
    let mailbox = StdArc::new(mailbox);
    let (inner, free) = (mailbox.clone(), StdArc::new(AtomicUsize::new(0)));
    let seen = free.clone();
    let action = Box::new(move || {
        seen.store(usize::from(inner.try_enter_idle().is_some()) + 1, Ordering::SeqCst);
    });
    send(&mailbox, Message::Defer(action));
    assert_eq!(free.load(Ordering::SeqCst), 2);
}

/// A waker may use the seat from which it is called, and may panic.
/// Planted: wakers are called where the reply is sent (the seat is found taken, and a panic fails
/// it).
#[test]
fn o9_wakers_run_after_the_seat_is_free_and_their_panics_fail_nothing() {
    struct Uses(StdArc<CombiningMailbox<Sum>>);
    impl std::task::Wake for Uses {
        fn wake(self: StdArc<Self>) {
            send(&self.0, Message::Add(7));
            assert!(self.0.is_empty(), "handled at once: the seat was free");
            panic!("on purpose");
        }
    }
    let (mailbox, probe) = mailbox();
    let mailbox = StdArc::new(mailbox);
    let waker = std::task::Waker::from(StdArc::new(Uses(mailbox.clone())));
    let mut answers = Vec::new();
    for _ in 0..2 {
        let (reply, mut answer) = reply();
        let mut context = std::task::Context::from_waker(&waker);
        assert!(std::pin::Pin::new(&mut answer).poll(&mut context).is_pending());
        answers.push((reply, answer));
    }
    let guard = mailbox.try_enter_idle().expect("idle");
    let mut answers: Vec<_> = answers
        .into_iter()
        .map(|(reply, answer)| {
            let permit = mailbox.try_reserve(1).expect("there is room");
            mailbox.send(permit, Message::Ask(reply));
            answer
        })
        .collect();
    drop(guard);
    assert!(answers.iter_mut().all(|answer| now(answer) == Some(Ok(vec![]))));
    assert_eq!(ask(&mailbox), [7, 7]);
    assert!(!has_failed(&mailbox) && probe.panics.lock().expect("not poisoned").is_empty());
}

/// Planted: the work of an inline turn runs outside of `catch_unwind`.
#[test]
fn b14_a_panic_in_an_attempt_fails_the_seat_and_does_not_unwind() {
    let (mailbox, probe) = mailbox();
    let mut guard = mailbox.try_enter_idle().expect("idle");
    let seen = guard.attempt(|sum| sum.seen.len()).expect("nothing panics");
    assert_eq!(seen, 0);
    assert!(mailbox.try_enter_idle().is_none(), "the seat is kept");
    assert!(guard.attempt(|_| panic!("on purpose")).is_none_or(|()| false));
    assert!(has_failed(&mailbox));
    assert_eq!(*probe.panics.lock().expect("not poisoned"), ["on purpose"]);
}

/// Planted: the turn ends at its limits.
#[test]
fn run_last_handles_everything_that_is_queued_and_then_runs() {
    let (mailbox, probe) = mailbox();
    let whole = TURN_BYTES_MAX as u32;
    let messages = [Message::Add(whole), Message::Heavy(2), Message::Add(whole), Message::Heavy(4)];
    for message in messages {
        assert!(mailbox.try_reserve(1).expect("room").send(message).is_ok());
    }
    assert_eq!(mailbox.run_last(|sum| sum.seen.clone()), Some(vec![whole, 2, whole, 4]));
    assert_eq!((mailbox.len(), probe.kicks.load(Ordering::SeqCst)), (0, 0));
    assert_eq!(mailbox.queue.room.used(), Amount::NOTHING);
}

#[test]
fn run_last_sees_to_what_was_sent_meanwhile() {
    let (mailbox, _probe) = mailbox();
    let seen = mailbox.run_last(|sum| {
        send(&mailbox, Message::Add(2));
        sum.seen.push(1);
        sum.seen.clone()
    });
    assert_eq!((seen, mailbox.len()), (Some(vec![1]), 0));
    assert_eq!(ask(&mailbox), [1, 2]);
}

#[test]
fn a_panic_in_a_message_or_in_what_runs_last_fails_the_mailbox() {
    for in_message in [true, false] {
        let (mailbox, probe) = mailbox();
        let (reply, answer) = reply();
        let push = |message| assert!(mailbox.try_reserve(1).expect("room").send(message).is_ok());
        push(Message::Add(1));
        if in_message {
            push(Message::Panic);
            push(Message::Ask(reply));
        } else {
            drop(reply);
        }
        let mut ran = false;
        let result = mailbox.run_last(|_| {
            ran = true;
            panic!("on purpose")
        });
        assert_eq!((result, ran), (None::<()>, !in_message));
        assert!(has_failed(&mailbox) && mailbox.is_empty());
        assert!(block_on(answer).is_err(), "what was queued is dropped");
        assert_eq!(*probe.panics.lock().expect("not poisoned"), ["on purpose"]);
        assert_eq!(mailbox.run_last(|_| ()), None);
        assert_eq!(mailbox.queue.room.used(), Amount::NOTHING);
    }
}

/// Planted: deferred actions run before it.
#[test]
fn what_was_deferred_is_done_after_what_runs_last_with_the_seat_free() {
    let (mailbox, _probe) = mailbox();
    let mailbox = StdArc::new(mailbox);
    let (inner, ran) = (mailbox.clone(), StdArc::new(AtomicUsize::new(0)));
    let before = ran.clone();
    let action = Box::new(move || {
        assert!(inner.try_enter_idle().is_some(), "the seat is free");
        assert_eq!(before.swap(2, Ordering::SeqCst), 1);
    });
    assert!(mailbox.try_reserve(1).expect("room").send(Message::Defer(action)).is_ok());
    assert_eq!(mailbox.run_last(|_| ran.swap(1, Ordering::SeqCst)), Some(0));
    assert_eq!(ran.load(Ordering::SeqCst), 2);
    assert!(!has_failed(&mailbox));
}

/// Planted: room is asked for, and refused.
#[test]
fn room_is_taken_anyway_where_there_is_none_and_after_the_end() {
    let (mailbox, _probe) = mailbox();
    let all: Vec<_> = (0..8).map(|_| mailbox.try_reserve(12).expect("room")).collect();
    assert!(mailbox.try_reserve(1).is_err());
    let over = mailbox.reserve_anyway(50);
    mailbox.close();
    let late = mailbox.reserve_anyway(1);
    assert_eq!(mailbox.queue.room.used(), Amount::new(10, 147));
    mailbox.send(over, Message::Add(1));
    assert_eq!(inline(&mailbox, |sum| sum.seen.clone()), Some(vec![1]), "it is handled");
    drop((all, late));
    assert_eq!(mailbox.queue.room.used(), Amount::NOTHING);
}

/// An actor that sends to itself from what it defers, and notes how deep these calls nest.
struct Echo {
    mailbox: StdArc<std::sync::OnceLock<CombiningMailbox<Echo>>>,
    depths: StdArc<[AtomicUsize; 2]>,
}

impl Handler for Echo {
    type Message = usize;

    fn handle(&mut self, left: usize, turn: &mut Turn) {
        let (mailbox, depths) = (self.mailbox.clone(), self.depths.clone());
        turn.defer(move |spent| {
            let depth = depths[0].fetch_add(1, Ordering::SeqCst) + 1;
            depths[1].fetch_max(depth, Ordering::SeqCst);
            if left > 0 {
                let mailbox = mailbox.get().expect("it is set");
                let permit = mailbox.try_reserve(0).expect("there is room");
                assert!(permit.send(left - 1).is_ok());
                mailbox.settle(spent);
            }
            depths[0].fetch_sub(1, Ordering::SeqCst);
        });
    }

    fn weight(_: &usize) -> usize {
        0
    }
}

/// Planted: what a deferred action leads to has a further turn of its own, without end.
#[test]
fn all_that_a_turn_leads_to_shares_one_further_turn() {
    let depths = StdArc::new([const { AtomicUsize::new(0) }; 2]);
    let mailbox = StdArc::new(std::sync::OnceLock::new());
    let kicks = StdArc::new(AtomicUsize::new(0));
    let kicked = kicks.clone();
    let hooks = Hooks {
        kick: Box::new(move || {
            kicked.fetch_add(1, Ordering::SeqCst);
        }),
        on_panic: Box::new(|told| panic!("{told}")),
    };
    let echo = Echo { mailbox: mailbox.clone(), depths: depths.clone() };
    let capacity = Capacity { messages: 4, bytes: 0 };
    let mailbox = mailbox.get_or_init(|| CombiningMailbox::new(echo, capacity, hooks));
    mailbox.send(mailbox.try_reserve(0).expect("there is room"), 1_000);
    assert_eq!((mailbox.len(), kicks.swap(0, Ordering::SeqCst)), (1, 1), "the rest is kicked on");
    while !mailbox.is_empty() {
        mailbox.deliver_blocking();
    }
    let deepest = depths[1].load(Ordering::SeqCst);
    assert!(deepest <= TURN_MESSAGES_MAX + 1, "{deepest} calls in one another");
}

/// Planted: the panic of the hook unwinds (the room of what was handled is lost).
#[test]
fn a_kick_that_panics_fails_the_mailbox() {
    let hooks = Hooks { kick: Box::new(|| panic!("on purpose")), on_panic: Box::new(|_| ()) };
    let capacity = Capacity { messages: 8, bytes: 100 };
    let mailbox = CombiningMailbox::new(Sum::default(), capacity, hooks);
    let (reply, answer) = reply();
    let push = |message| assert!(mailbox.try_reserve(1).expect("room").send(message).is_ok());
    push(Message::Add(1));
    push(Message::HeavyAsk(reply));
    mailbox.settle(&mut Spent::default());
    assert!(has_failed(&mailbox) && mailbox.is_empty());
    assert_eq!(block_on(answer), Err(Lost), "nobody will handle it");
    assert_eq!(mailbox.queue.room.used(), Amount::NOTHING);
}

/// Planted: what was thrown is dropped outside of `catch_unwind`.
#[test]
fn what_a_panic_throws_may_panic_itself() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(Bomb);
        }
    }
    let (mailbox, probe) = mailbox();
    assert_eq!(inline(&mailbox, |_| -> () { std::panic::panic_any(Bomb) }), None);
    assert!(has_failed(&mailbox));
    assert_eq!(*probe.panics.lock().expect("not poisoned"), ["no message"]);
}
