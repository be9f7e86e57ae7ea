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
//! Wakers and deferred actions run after the seat is free, the wakers last (see
//! [`wake`](crate::wake)).
//!
//! A panic in a handler is caught. It fails the mailbox for good and drops what is queued, so
//! replies say `Lost`. It never reaches the caller whose thread ran the turn.
//!
//! Does not: start the thread behind `kick`. That thread calls
//! [`CombiningMailbox::deliver_blocking`].

use crate::mailbox::{Capacity, Permit};
use crate::queue::Queue;
use crate::semaphore::{Amount, Refused};
use crate::sync::Arc;
use crate::wake::Hold;
use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

mod guard;
mod lock;
pub mod preempt;

pub use guard::TurnGuard;

use lock::Lock;

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

/// The bounds of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnLimits {
    /// Messages. At least 1.
    pub messages: usize,
    /// Weight. A single message may exceed it.
    pub bytes: usize,
}

impl Default for TurnLimits {
    fn default() -> Self {
        Self { messages: TURN_MESSAGES_MAX, bytes: TURN_BYTES_MAX }
    }
}

/// What a combining mailbox calls outside itself. Both run on any thread and must not block.
pub struct Hooks {
    /// Makes a thread of yours call [`CombiningMailbox::deliver_blocking`] soon, which handles the
    /// rest of the queue. A lost kick leaves messages behind for ever.
    pub kick: Box<dyn Fn() + Send + Sync>,
    /// Reports a panic's message. The seat has failed already.
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

/// Runs after the turn, within what is left of the further turn that all deferred actions share.
type Deferred = Box<dyn FnOnce(&mut Spent) + Send>;

opaque_debug!("Hooks", [] Hooks);
opaque_debug!("Turn", [] Turn);
opaque_debug!("CombiningMailbox", [A: Handler] CombiningMailbox<A>);

impl Turn {
    fn new(on_own_thread: bool) -> Self {
        Self { on_own_thread, messages: 0, bytes: 0, after: Vec::new() }
    }

    /// Runs `action` after the turn, on the same thread. An action that enters other seats must use
    /// [`CombiningMailbox::deliver_within`]. Costs an allocation.
    pub fn defer(&mut self, action: impl FnOnce(&mut Spent) + Send + 'static) {
        self.after.push(Box::new(action));
    }
}

/// How far a turn got.
enum End {
    Empty,
    /// The turn is used up, or the next message is heavy.
    Left,
    Panicked(String),
}

/// How much of a turn is used up. A turn may lead through several seats.
#[derive(Debug, Default)]
pub struct Spent {
    messages: usize,
    bytes: usize,
}

/// See the module. Share it by reference or in an `Arc`.
pub struct CombiningMailbox<A: Handler> {
    seat: Lock<A>,
    queue: Arc<Queue<A::Message>>,
    limits: TurnLimits,
    hooks: Hooks,
}

impl<A: Handler> CombiningMailbox<A> {
    /// An actor with an empty mailbox and a free seat. `limits` bound a caller's turn.
    pub fn new(actor: A, capacity: Capacity, limits: TurnLimits, hooks: Hooks) -> Self {
        assert!(limits.messages > 0, "a turn handles at least one message");
        let queue = Arc::new(Queue::new(capacity, None));
        Self { seat: Lock::new(actor), queue, limits, hooks }
    }

    /// Room for a message of `bytes`, if there is room now and nobody waits for it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn try_reserve(&self, bytes: u64) -> Result<Permit<A::Message>, Refused> {
        Permit::try_new(Arc::clone(&self.queue), bytes)
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
        Permit::anyway(Arc::clone(&self.queue), bytes)
    }

    /// Takes the seat for the caller's own message, but only if nothing is queued and the seat is
    /// free. Dropping the guard frees the seat and handles what was queued meanwhile. This call
    /// never runs other messages, so it may be made under the seat that comes before this one in
    /// log order.
    #[inline]
    pub fn try_enter_idle(&self) -> Option<TurnGuard<'_, A>> {
        // The count includes whatever anybody can know to have been sent before this call. A later
        // message is not overtaken: its sender finds the seat free, or the dropped guard handles
        // it.
        if self.queue.unhandled() > 0 {
            return None;
        }
        let seat = self.seat.try_enter()?;
        Some(TurnGuard::new(self, seat, false))
    }

    /// Takes the seat whatever is queued, and waits for its occupant. `None` if it has failed.
    /// Dropping the guard handles the queue. For threads of your own, to look at the state or to
    /// repair it.
    pub fn enter_blocking(&self) -> Option<TurnGuard<'_, A>> {
        let seat = self.seat.enter_blocking()?;
        Some(TurnGuard::new(self, seat, true))
    }

    /// Makes sure that what was sent is handled: by this thread in a bounded turn if the seat is
    /// free, otherwise by the occupant. What does not fit into the turn is left to [`Hooks::kick`].
    pub fn deliver(&self) {
        self.deliver_within(&mut Spent::default());
    }

    /// As [`CombiningMailbox::deliver`], as a part of a turn of which `spent` is used up.
    pub fn deliver_within(&self, spent: &mut Spent) {
        self.run(Turn::new(false), spent);
    }

    /// The second half of [`TurnGuard::release`]: handles what was queued while the seat was taken.
    #[inline]
    pub fn settle(&self, spent: &mut Spent) {
        if !self.queue.is_settled() {
            self.deliver_within(spent);
        }
    }

    /// As [`Permit::send`], then [`CombiningMailbox::deliver`].
    pub fn send(&self, permit: Permit<A::Message>, message: A::Message) {
        // A permit always fits. If the mailbox has failed, `deliver` drops the message.
        let _ = permit.send(message);
        self.deliver();
    }

    /// Handles everything queued, including heavy messages. Waits for the seat. Only for threads of
    /// your own.
    pub fn deliver_blocking(&self) {
        loop {
            let _hold = Hold::new();
            let mut turn = Turn::new(true);
            let Some(mut seat) = self.seat.enter_blocking() else { return self.discard() };
            let end = self.drain(&mut seat.state, &mut turn, &mut Spent::default());
            drop(seat);
            let settled = match end {
                End::Empty => self.queue.is_settled(),
                End::Left => false,
                End::Panicked(message) => {
                    self.fall(message);
                    true
                }
            };
            self.finish(&mut turn);
            if settled {
                return;
            }
        }
    }

    /// Takes the seat, waiting for its occupant. Handles everything queued, including heavy
    /// messages, and then runs `f` with nothing in between. What the messages deferred runs after
    /// `f`, with the seat free. `None` if the mailbox has failed, or fails here. Only for threads
    /// of your own.
    pub fn run_last<R>(&self, f: impl FnOnce(&mut A) -> R) -> Option<R> {
        let _hold = Hold::new();
        let mut turn = Turn::new(true);
        let Some(mut seat) = self.seat.enter_blocking() else {
            self.discard();
            return None;
        };
        let actor = &mut *seat.state;
        let result = loop {
            match self.drain(actor, &mut turn, &mut Spent::default()) {
                // Nothing is heavy here, and this turn has no bounds.
                End::Left => {}
                End::Empty => break self.catch(|| f(actor)),
                End::Panicked(message) => break Err(message),
            }
        };
        drop(seat);
        let result = result.map_err(|message| self.fall(message)).ok();
        self.finish(&mut turn);
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

    fn run(&self, mut turn: Turn, spent: &mut Spent) {
        let _hold = Hold::new();
        loop {
            let Some(mut seat) = self.seat.try_enter() else {
                // If the seat is taken, the occupant looks at the queue after leaving. If it has
                // failed, nobody does.
                if self.seat.is_failed() {
                    self.discard();
                }
                break;
            };
            let end = self.drain(&mut seat.state, &mut turn, spent);
            drop(seat);
            if self.seat.is_failed() && !matches!(end, End::Panicked(_)) {
                // Another party failed the seat meanwhile. Nobody will handle what is left.
                self.discard();
                break;
            }
            match end {
                // INVARIANT(no message is left behind while the seat is free): checked after the
                // seat was freed, for those who found it taken.
                End::Empty if self.queue.is_settled() => break,
                End::Empty => {}
                End::Left => {
                    (self.hooks.kick)();
                    break;
                }
                End::Panicked(message) => {
                    self.fall(message);
                    break;
                }
            }
        }
        self.finish(&mut turn);
    }

    fn drain(&self, actor: &mut A, turn: &mut Turn, spent: &mut Spent) -> End {
        let mut handled = 0;
        let end = loop {
            if handled >= self.queue.unhandled() {
                break End::Empty;
            }
            let Some((message, bytes)) = self.queue.pop() else { break End::Empty };
            let looked = self.catch(|| {
                let weight = A::weight(&message);
                let full = spent.messages >= self.limits.messages
                    || spent.messages > 0 && spent.bytes.saturating_add(weight) > self.limits.bytes;
                (weight, full || !turn.on_own_thread && A::is_heavy(&message))
            });
            if let Ok((_, true)) = looked {
                self.queue.put_back(message, bytes);
                break End::Left;
            }
            handled += 1;
            spent.messages += 1;
            turn.messages += 1;
            turn.bytes += bytes;
            match looked {
                Ok((weight, _)) => spent.bytes = spent.bytes.saturating_add(weight),
                Err(message) => break End::Panicked(message),
            }
            if let Err(message) = self.catch(|| actor.handle(message, turn)) {
                break End::Panicked(message);
            }
        };
        if handled > 0 {
            self.queue.handled(handled);
        }
        end
    }

    /// Runs `f`. If it panics, fails the seat and returns the panic's message.
    #[inline]
    fn catch<R>(&self, f: impl FnOnce() -> R) -> Result<R, String> {
        catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
            self.seat.fail();
            panic_message(&*panic)
        })
    }

    /// The work after the seat is free: gives room back and runs deferred actions.
    #[inline]
    fn finish(&self, turn: &mut Turn) {
        if turn.messages > 0 || !turn.after.is_empty() {
            self.finish_busy(turn);
        }
    }

    fn finish_busy(&self, turn: &mut Turn) {
        let room = Amount::new(std::mem::take(&mut turn.messages), std::mem::take(&mut turn.bytes));
        let after = std::mem::take(&mut turn.after);
        let done = self.catch(|| {
            self.queue.room.release(room);
            let mut spent = Spent::default();
            for action in after {
                action(&mut spent);
            }
        });
        if let Err(message) = done {
            self.fall(message);
        }
    }

    /// The work after a panic. The seat is failed and free.
    #[cold]
    fn fall(&self, message: String) {
        self.queue.room.close();
        self.discard();
        (self.hooks.on_panic)(message);
    }

    /// Drops what is queued on a failed seat, so replies say `Lost`.
    #[cold]
    fn discard(&self) {
        // A panic in a message's drop has nobody to be reported to. The mailbox has failed already.
        while catch_unwind(AssertUnwindSafe(|| self.queue.discard())).is_err() {}
    }
}

impl<A: Handler> Drop for CombiningMailbox<A> {
    fn drop(&mut self) {
        // Permits that still exist cannot send any more.
        self.queue.close();
        self.queue.discard();
    }
}

#[cold]
fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(message) = panic.downcast_ref::<&str>() {
        (*message).to_owned()
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message.clone()
    } else {
        "no message".to_owned()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
