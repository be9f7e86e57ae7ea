use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use sluicedb_actors::runtime::jobs::{Jobs, Kick};
use sluicedb_kernel::combining::{CombiningMailbox, Handler, Hooks, TURN_BYTES_MAX, Turn};
use sluicedb_kernel::mailbox::Capacity;
use sluicedb_kernel::reply::{Reply, reply};
use sluicedb_kernel::sync::block_on;

struct Asked;

impl Handler for Asked {
    type Message = Option<Reply<()>>;

    fn handle(&mut self, question: Option<Reply<()>>, _: &mut Turn) {
        question.into_iter().for_each(|reply| reply.send(()));
    }

    fn weight(_: &Option<Reply<()>>) -> usize {
        TURN_BYTES_MAX
    }
}

fn send(seat: &CombiningMailbox<Asked>, question: Option<Reply<()>>) {
    seat.send(seat.try_reserve(1).expect("there is room"), question);
}

/// Two seats with turns of one message share the thread behind them. It looks at each as often as
/// it is asked to, and no more often: every question is answered.
/// Catches: one flag for both seats; a kick that is dropped because something is queued already.
#[test]
fn a5_two_seats_share_the_thread_that_they_hand_turns_to() {
    loom::model(|| {
        let (jobs, mut workers) = Jobs::new(1, 0);
        // These are not loom's, which has no weak references. No decision depends on these counts.
        let seats = [(); 2].map(|()| {
            std::sync::Arc::new_cyclic(|seat: &std::sync::Weak<CombiningMailbox<Asked>>| {
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
                CombiningMailbox::new(Asked, Capacity { messages: 3, bytes: 3 }, hooks)
            })
        });
        drop(jobs);
        let worker = workers.pop().unwrap();
        let engine = thread::spawn(move || block_on(worker.run(|_| panic!("a look panicked"))));
        let [mine, other] = seats;
        // Sent under the seat, so that both are left to the end of a turn that has room for one.
        let ask_twice = |seat: &CombiningMailbox<Asked>| {
            let (reply, answer) = reply();
            let guard = seat.try_enter_idle();
            send(seat, None);
            send(seat, Some(reply));
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

/// Somebody may ring again before, during and after the look that it rang for: one of the looks
/// sees what it did before.
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
