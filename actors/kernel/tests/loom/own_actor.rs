//! How to check an actor of your own: write it with the kernel, and let a model run it.
//!
//! The actor sells seats for concerts: `Book` takes some if enough are free. Its callers run it,
//! each on its own thread. The model tries every interleaving of two of them. That includes the
//! kernel's locks, atomics and queue, because all of them are loom's here.

use loom::thread;
use sluicedb_kernel::combining::{CombiningMailbox, Handler, Hooks, Turn};
use sluicedb_kernel::mailbox::Capacity;
use sluicedb_kernel::reply::{Answer, Reply, reply};
use sluicedb_kernel::sync::{Arc, block_on};

/// The state. Only the actor's turns touch it, so it needs no lock of its own.
struct Hall {
    free: u32,
}

/// The messages.
struct Book {
    seats: u32,
    /// Told how many are left, or how many there were.
    reply: Reply<Result<u32, u32>>,
}

impl Handler for Hall {
    type Message = Book;

    fn handle(&mut self, Book { seats, reply }: Book, _: &mut Turn) {
        reply.send(match self.free.checked_sub(seats) {
            Some(left) => {
                self.free = left;
                Ok(left)
            }
            None => Err(self.free),
        });
    }

    fn weight(_: &Book) -> usize {
        1
    }
}

fn hall(free: u32) -> Arc<CombiningMailbox<Hall>> {
    // A service hands `kick` to a thread that calls `deliver_blocking`.
    let hooks = Hooks {
        kick: Box::new(|| panic!("two messages fit into a turn")),
        on_panic: Box::new(|message| panic!("{message}")),
    };
    let capacity = Capacity { messages: 2, bytes: 2 };
    Arc::new(CombiningMailbox::new(Hall { free }, capacity, hooks))
}

fn book(hall: &CombiningMailbox<Hall>, seats: u32) -> Answer<Result<u32, u32>> {
    let permit = block_on(hall.reserve(1)).expect("it is open");
    let (reply, answer) = reply();
    hall.send(permit, Book { seats, reply });
    answer
}

/// Two callers want more seats than there are: one gets them, both are answered, nothing is sold
/// twice.
#[test]
fn no_seat_is_sold_twice() {
    loom::model(|| {
        let hall = hall(3);
        let other = hall.clone();
        let theirs = thread::spawn(move || block_on(book(&other, 2)).unwrap());
        let mine = block_on(book(&hall, 2)).unwrap();
        let answers = [mine, theirs.join().unwrap()];
        assert!(answers == [Ok(1), Err(1)] || answers == [Err(1), Ok(1)], "{answers:?}");
        assert!(hall.is_empty());
    });
}
