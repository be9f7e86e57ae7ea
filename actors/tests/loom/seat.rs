use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use sluicedb_actors::kernel::sync::block_on;
use sluicedb_actors::kernel::{
    Capacity, Handler, Hooks, Jobs, Kick, Reply, SeatMailbox, Signal, Turn, TurnLimits, reply,
};

/// Counts what it handles.
struct Sum(Arc<AtomicUsize>);

enum Message {
    Add,
    Mark(Arc<AtomicUsize>),
    Ask(Reply<()>),
    Panic,
}

impl Handler for Sum {
    type Message = Message;

    fn handle(&mut self, message: Message, _: &mut Turn) {
        match message {
            Message::Add => {}
            Message::Mark(mark) => mark.store(1, Ordering::Relaxed),
            Message::Ask(reply) => reply.send(()),
            Message::Panic => panic!("on purpose"),
        }
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn weight(_: &Message) -> usize {
        1
    }
}

fn mailbox(limits: TurnLimits) -> (Arc<SeatMailbox<Sum>>, Arc<AtomicUsize>, Arc<Signal>) {
    let handled = Arc::new(AtomicUsize::new(0));
    let kicked = Arc::new(Signal::new());
    let kick = kicked.clone();
    let hooks = Hooks { kick: Box::new(move || kick.set()), on_panic: Box::new(|_| ()) };
    let capacity = Capacity { messages: 3, bytes: 3 };
    let mailbox = SeatMailbox::new(Sum(handled.clone()), capacity, limits, hooks);
    (Arc::new(mailbox), handled, kicked)
}

fn inline<R>(mailbox: &SeatMailbox<Sum>, f: impl FnOnce(&mut Sum) -> R) -> Option<R> {
    mailbox.try_enter_idle()?.attempt(f)
}

fn send(mailbox: &SeatMailbox<Sum>, message: Message) {
    mailbox.send(mailbox.try_reserve(1).expect("there is room"), message);
}

/// Two senders, nobody else: both messages are handled when both have returned.
/// Catches: no look at the queue after the seat was freed.
#[test]
fn no_message_is_left_behind() {
    loom::model(|| {
        let (mailbox, handled, _) = mailbox(TurnLimits::default());
        let other = mailbox.clone();
        let sender = thread::spawn(move || send(&other, Message::Add));
        send(&mailbox, Message::Add);
        sender.join().unwrap();
        assert_eq!((handled.load(Ordering::Relaxed), mailbox.len()), (2, 0));
    });
}

/// A question sent while another caller works inline is answered, by one of the two.
/// Catches: a guard whose drop does not look at the queue; a look by a plain load instead of a
/// read-modify-write (deadlock both).
#[test]
fn an_inline_caller_sees_to_others() {
    loom::model(|| {
        let (mailbox, _, _) = mailbox(TurnLimits::default());
        let other = mailbox.clone();
        let asker = thread::spawn(move || {
            let (reply, answer) = reply();
            send(&other, Message::Ask(reply));
            block_on(answer).unwrap();
        });
        // The load is where others get their chance: loom does not switch between lock and unlock.
        inline(&mailbox, |sum| sum.0.load(Ordering::Relaxed));
        asker.join().unwrap();
    });
}

/// An inline caller never passes what it sent itself, also while a third thread's send is half done.
/// Catches: no look at the count; one count for both questions, added after the push (the third
/// thread's message is handled in place of ours, the count says zero).
#[test]
fn inline_never_passes_the_queue() {
    let mut model = loom::model::Builder::new();
    // Both bugs need the occupant to be left and found again while a sender is half done.
    model.preemption_bound = Some(3);
    model.check(|| {
        let (mailbox, _, _) = mailbox(TurnLimits::default());
        let (third, second) = (mailbox.clone(), mailbox.clone());
        let sender = thread::spawn(move || {
            assert!(third.try_reserve(1).unwrap().send(Message::Add).is_ok());
        });
        let occupant = thread::spawn(move || {
            inline(&second, |sum| sum.0.load(Ordering::Relaxed));
        });
        let mine = Arc::new(AtomicUsize::new(0));
        send(&mailbox, Message::Mark(mine.clone()));
        if inline(&mailbox, |_| ()).is_some() {
            assert_eq!(mine.load(Ordering::Relaxed), 1);
        }
        sender.join().unwrap();
        occupant.join().unwrap();
        mailbox.deliver();
        assert_eq!((mine.load(Ordering::Relaxed), mailbox.len()), (1, 0));
    });
}

/// With turns of one message, what a turn leaves over reaches an engine thread.
/// Catches: a turn that ends at its bound without a kick.
#[test]
fn what_a_turn_leaves_over_is_kicked_on() {
    loom::model(|| {
        let (mailbox, handled, kicked) = mailbox(TurnLimits { messages: 1, bytes: 1 });
        let other = mailbox.clone();
        let sender = thread::spawn(move || {
            send(&other, Message::Add);
            send(&other, Message::Add);
        });
        send(&mailbox, Message::Add);
        sender.join().unwrap();
        if kicked.take() {
            mailbox.deliver_blocking();
        }
        assert_eq!((handled.load(Ordering::Relaxed), mailbox.len()), (3, 0));
    });
}

/// Two seats with turns of one message share the thread behind them, which looks at each as often as
/// it is asked to and no oftener: every question is answered.
/// Catches: one flag for both seats; a kick that is dropped because something is queued already.
#[test]
fn a5_two_seats_share_the_thread_that_they_hand_turns_to() {
    loom::model(|| {
        let (jobs, mut workers) = Jobs::new(1, 0);
        // Not loom's: it has no weak references. Nothing is decided by these counts.
        let seats = [(); 2].map(|()| {
            std::sync::Arc::new_cyclic(|seat: &std::sync::Weak<SeatMailbox<Sum>>| {
                let seat = seat.clone();
                let kick = Kick::new(&jobs, move || {
                    if let Some(seat) = seat.upgrade() {
                        seat.deliver_blocking();
                    }
                });
                let hooks = Hooks {
                    kick: Box::new(move || {
                        kick.ring();
                    }),
                    on_panic: Box::new(|_| ()),
                };
                let limits = TurnLimits { messages: 1, bytes: 1 };
                let sum = Sum(Arc::new(AtomicUsize::new(0)));
                SeatMailbox::new(sum, Capacity { messages: 3, bytes: 3 }, limits, hooks)
            })
        });
        drop(jobs);
        let worker = workers.pop().unwrap();
        let engine = thread::spawn(move || block_on(worker.run(|_| panic!("a look panicked"))));
        let [mine, other] = seats;
        // Under the seat, so that both are left to the end of a turn that has room for one.
        let ask_twice = |seat: &SeatMailbox<Sum>| {
            let (reply, answer) = reply();
            let guard = seat.try_enter_idle();
            send(seat, Message::Add);
            send(seat, Message::Ask(reply));
            drop(guard);
            block_on(answer).unwrap();
        };
        let asker = thread::spawn(move || ask_twice(&other));
        ask_twice(&mine);
        drop(mine);
        asker.join().unwrap();
        engine.join().unwrap();
    });
}

/// Whoever rings again may do so before, during and after the look that it rang for: what it did before is
/// seen by one of the looks.
/// Catches: a look that clears its flag after it has looked; a ring that only loads the flag.
#[test]
fn a5_no_ring_is_lost_around_the_end_of_a_look() {
    loom::model(|| {
        let (jobs, mut workers) = Jobs::new(1, 0);
        let worker = workers.pop().unwrap();
        let [work, seen] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let (found, saw) = (work.clone(), seen.clone());
        let kick = Kick::new(&jobs, move || {
            saw.store(found.load(Ordering::Relaxed), Ordering::Relaxed);
        });
        drop(jobs);
        let engine = thread::spawn(move || block_on(worker.run(|_| panic!("a look panicked"))));
        for step in 1..=2 {
            work.store(step, Ordering::Relaxed);
            kick.ring();
        }
        drop(kick);
        engine.join().unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 2);
    });
}

/// A handler panics while somebody asks: the question resolves, room comes back, nothing unwinds.
/// Catches: a failed seat whose late senders do not empty the queue (deadlock).
#[test]
fn a_panic_answers_everybody() {
    loom::model(|| {
        let (mailbox, handled, _) = mailbox(TurnLimits::default());
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
