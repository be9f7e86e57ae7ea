//! An actor that its callers run: state behind a combining lock, and a bounded mailbox. Whoever
//! gets the lock drains the mailbox.
//!
//! This is flat combining (D. Hendler, I. Incze, N. Shavit, M. Tzafrir: Flat Combining and the
//! Synchronization-Parallelism Tradeoff, SPAA 2010). The holder of the lock does the work of those
//! who found it taken. So a call needs no other thread, and many callers pass the state around less
//! often. Unlike in the paper the publication list is a bounded queue, nobody spins or sleeps for
//! the lock, and the work that a caller does for others is bounded. The lock is called the *seat*,
//! and its holder the *occupant*.
//!
//! Guarantees: messages are handled one at a time, in the order in which they were sent. No message
//! is left behind while the seat is free: a sender counts its message and *then* tries the seat,
//! and an occupant frees the seat and *then* looks at the count. Both are read-modify-writes, so
//! one of the two sees the other.
//!
//! A turn on a caller's thread is bounded. Whatever it leads to in other seats shares the bounds of
//! one further turn. The rest, and every heavy message, is left to a thread behind the `kick` hook.
//! Deferred actions run after the seat is free, and wakers after those (see [`wake`](crate::wake)).
//!
//! A panic in a handler is caught. It fails the mailbox for good and drops the actor and what is
//! queued, so replies say `Lost`. It never reaches the caller whose thread ran the turn. Does not:
//! start the thread behind `kick`. The crate's front page has an example.

use crate::mailbox::{Capacity, Permit, Queue};
use crate::semaphore::{Amount, Refused};
use crate::sync::Arc;
use crate::wake::{Hold, contain};
use std::future::Future;

pub mod preempt;
mod seat;

pub use seat::TurnGuard;

use seat::Lock;

/// Most messages of a turn on a caller's thread: about 100 us at 300 ns each.
pub const TURN_MESSAGES_MAX: usize = 256;
/// Most weight of a turn on a caller's thread. One message may exceed it.
pub const TURN_BYTES_MAX: usize = 256 << 10;

/// What an actor does with its messages.
pub trait Handler {
    /// The messages that it understands.
    type Message: Send;

    /// Handles one message. Runs under the seat: it must not await, use a disk, call a waker or
    /// take another seat.
    fn handle(&mut self, message: Self::Message, turn: &mut Turn);

    /// The share of a turn's bytes that this message uses up.
    fn weight(message: &Self::Message) -> usize;

    /// Must this message be left to the thread behind [`Hooks::kick`]?
    fn is_heavy(message: &Self::Message) -> bool {
        let _ = message;
        false
    }
}

/// What a combining mailbox calls outside itself. Both run on any thread and must not block.
pub struct Hooks {
    /// Makes a thread of yours call [`CombiningMailbox::deliver_blocking`] soon, which handles the
    /// rest of the queue. A lost kick leaves messages behind for ever.
    pub kick: Box<dyn Fn() + Send + Sync>,
    /// Told a panic's message before anybody can find the mailbox failed. Must not use the mailbox,
    /// whose seat may be taken.
    pub on_panic: Box<dyn Fn(String) + Send + Sync>,
}

/// The running turn: what to do once the seat is free again.
pub struct Turn {
    on_own_thread: bool,
    /// Room of the handled messages. It is given back in one step.
    messages: u64,
    bytes: u64,
    after: Vec<Deferred>,
}

type Deferred = Box<dyn FnOnce(&mut Spent) + Send>;

opaque_debug!("Hooks", [] Hooks);
opaque_debug!("Turn", [] Turn);
opaque_debug!("CombiningMailbox", [A: Handler] CombiningMailbox<A>);

impl Turn {
    fn new(on_own_thread: bool) -> Self {
        Self { on_own_thread, messages: 0, bytes: 0, after: Vec::new() }
    }

    /// Runs `action` after the turn, on the same thread. An action that enters other seats must use
    /// [`CombiningMailbox::settle`] with what it is given. Costs an allocation.
    pub fn defer(&mut self, action: impl FnOnce(&mut Spent) + Send + 'static) {
        self.after.push(Box::new(action));
    }
}

/// How much of a turn is used up. A turn may lead through several seats.
#[derive(Debug, Default)]
pub struct Spent {
    messages: usize,
    bytes: usize,
    /// Of the further turn, which all deferred actions share, and all that those lead to.
    is_further: bool,
}

/// See the module. Share it by reference or in an `Arc`.
pub struct CombiningMailbox<A: Handler> {
    seat: Lock<A>,
    queue: Arc<Queue<A::Message>>,
    hooks: Hooks,
}

impl<A: Handler> CombiningMailbox<A> {
    /// An actor with an empty mailbox and a free seat.
    pub fn new(actor: A, capacity: Capacity, hooks: Hooks) -> Self {
        Self { seat: Lock::new(actor), queue: Arc::new(Queue::new(capacity, None)), hooks }
    }

    /// Room for a message of `bytes`, if there is room now and nobody waits for it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn try_reserve(&self, bytes: u64) -> Result<Permit<A::Message>, Refused> {
        Permit::try_new(&self.queue, bytes)
    }

    /// Room for a message of `bytes`. Waits in line, as
    /// [`Mailbox::reserve`](crate::mailbox::Mailbox::reserve) does.
    pub fn reserve(
        &self,
        bytes: u64,
    ) -> impl Future<Output = Result<Permit<A::Message>, Refused>> + use<A> {
        Permit::reserve(Arc::clone(&self.queue), bytes)
    }

    /// Room for a message of `bytes`, above the capacity if needed. For a message that has room in
    /// another mailbox and must go through this one instead. The caller makes sure that the queue
    /// never holds more messages than the mailbox may count.
    pub fn reserve_anyway(&self, bytes: u64) -> Permit<A::Message> {
        Permit::anyway(&self.queue, bytes)
    }

    /// Takes the seat for the caller's own work, but only if nothing is queued and the seat is
    /// free. This call runs no messages, so it may be made under another seat.
    #[inline]
    pub fn try_enter_idle(&self) -> Option<TurnGuard<'_, A>> {
        // The count includes whatever anybody can know to have been sent before this call. Who
        // sends later finds the seat free, or the dropped guard handles it.
        if self.queue.unhandled() > 0 {
            return None;
        }
        Some(TurnGuard::new(self, self.seat.enter(false)?))
    }

    /// Takes the seat whatever is queued, and waits for its occupant. `None` if it has failed.
    /// Dropping the guard handles the queue as a caller does. For threads of your own, to look at
    /// the state or to repair it.
    pub fn enter_blocking(&self) -> Option<TurnGuard<'_, A>> {
        Some(TurnGuard::new(self, self.seat.enter(true)?))
    }

    /// As [`Permit::send`], and makes sure that the message is handled, as
    /// [`CombiningMailbox::settle`] does.
    pub fn send(&self, permit: Permit<A::Message>, message: A::Message) {
        // A permit always fits. If the mailbox has failed, `run` drops the message.
        let _ = permit.send(message);
        self.run(false, &mut Spent::default());
    }

    /// Makes sure that what was sent is handled: by this thread in a bounded turn, of which `spent`
    /// is used up, if the seat is free; otherwise by the occupant. What does not fit into the turn
    /// is left to [`Hooks::kick`].
    #[inline]
    pub fn settle(&self, spent: &mut Spent) {
        if !self.queue.is_settled() {
            self.run(false, spent);
        }
    }

    /// Handles everything queued, including heavy messages, in as many turns as that takes. Waits
    /// for the seat. Only for threads of your own.
    pub fn deliver_blocking(&self) {
        self.run(true, &mut Spent::default());
    }

    /// Takes the seat, waiting for its occupant. Handles everything queued, including heavy
    /// messages, and then runs `f` with nothing in between. What the messages deferred runs after
    /// `f`, with the seat free. `None` if the mailbox has failed, or fails here. Only for threads
    /// of your own.
    pub fn run_last<R>(&self, f: impl FnOnce(&mut A) -> R) -> Option<R> {
        let _hold = Hold::new();
        let mut turn = Turn::new(true);
        let mut result = None;
        if let Some(mut seat) = self.seat.enter(true) {
            // Nothing is heavy here, and this turn has no bounds.
            loop {
                if self.drain(seat.state(), &mut turn, &mut Spent::default()) {
                    result = self.catch(|| f(seat.state()));
                    break;
                }
                if self.seat.is_failed() {
                    break;
                }
            }
        }
        if self.seat.is_failed() {
            self.fall();
        }
        self.finish(&mut turn, &mut Spent::default());
        self.settle(&mut Spent::default());
        result
    }

    /// Messages that are sent and not yet handled.
    pub fn len(&self) -> usize {
        self.queue.unhandled()
    }

    /// Is no message waiting to be handled?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Refuses new reservations; those who wait for one get `Closed`. Existing permits may still
    /// send, and everything sent is handled.
    pub fn close(&self) {
        self.queue.room.close();
    }

    /// Takes turns until nothing is left to this thread.
    fn run(&self, on_own_thread: bool, spent: &mut Spent) {
        let mut hold = Hold::new();
        let mut turn = Turn::new(on_own_thread);
        loop {
            let Some(mut seat) = self.seat.enter(on_own_thread) else {
                // The occupant looks at the queue after leaving. In a failed seat there is none.
                if self.seat.is_failed() {
                    self.fall();
                }
                break;
            };
            let is_empty = self.drain(seat.state(), &mut turn, spent);
            drop(seat);
            if self.seat.is_failed() {
                break self.fall();
            } else if is_empty {
                // INVARIANT(no message is left behind while the seat is free): checked after the
                // seat was freed, for those who found it taken.
                if self.queue.is_settled() {
                    break;
                }
            } else if on_own_thread {
                *spent = Spent::default();
            } else {
                if self.catch(|| (self.hooks.kick)()).is_none() {
                    self.fall();
                }
                break;
            }
            if on_own_thread {
                self.finish(&mut turn, spent);
                drop(hold);
                hold = Hold::new();
            }
        }
        self.finish(&mut turn, spent);
    }

    /// Handles what is queued. Returns false if the turn is used up, if the next message is heavy,
    /// or after a panic.
    fn drain(&self, actor: &mut A, turn: &mut Turn, spent: &mut Spent) -> bool {
        let mut handled = 0;
        let is_empty = loop {
            if handled >= self.queue.unhandled() {
                break true;
            }
            let Some((message, bytes)) = self.queue.pop() else { break true };
            let done = self.catch(|| {
                let weight = A::weight(&message);
                let is_full = spent.messages >= TURN_MESSAGES_MAX
                    || spent.messages > 0 && spent.bytes.saturating_add(weight) > TURN_BYTES_MAX;
                if is_full || !turn.on_own_thread && A::is_heavy(&message) {
                    return Some(message);
                }
                spent.messages += 1;
                spent.bytes = spent.bytes.saturating_add(weight);
                actor.handle(message, turn);
                None
            });
            if let Some(Some(message)) = done {
                self.queue.put_back(message, bytes);
                break false;
            }
            handled += 1;
            turn.messages += 1;
            turn.bytes += bytes;
            if done.is_none() {
                break false;
            }
        };
        if handled > 0 {
            self.queue.handled(handled);
        }
        is_empty
    }

    /// Runs `f`. If it panics, reports that and fails the seat, in this order.
    #[inline]
    fn catch<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        let report = |message| {
            let _ = contain(|| (self.hooks.on_panic)(message));
            self.seat.fail();
        };
        contain(f).map_err(report).ok()
    }

    /// The work after the seat is free.
    #[inline]
    fn finish(&self, turn: &mut Turn, spent: &mut Spent) {
        if turn.messages == 0 {
            return;
        }
        let next = Turn::new(turn.on_own_thread);
        let Turn { messages, bytes, after, .. } = std::mem::replace(turn, next);
        let mut further = Spent { is_further: true, ..Spent::default() };
        let spent = if spent.is_further { spent } else { &mut further };
        let done = self.catch(|| {
            self.queue.room.release(Amount::taken(messages, bytes));
            for action in after {
                action(spent);
            }
        });
        if done.is_none() {
            self.fall();
        }
    }

    /// The seat has failed, and this thread is not in it. Nobody handles what is queued or what the
    /// actor holds, so replies say `Lost`.
    #[cold]
    fn fall(&self) {
        self.queue.room.close();
        self.queue.discard();
        let _ = contain(|| {
            if !self.seat.clear() {
                // An occupant that entered before the failure need not look. Your thread waits for
                // it.
                (self.hooks.kick)();
            }
        });
    }
}

impl<A: Handler> Drop for CombiningMailbox<A> {
    fn drop(&mut self) {
        // Permits that still exist cannot send any more.
        self.queue.close();
        self.queue.discard();
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
