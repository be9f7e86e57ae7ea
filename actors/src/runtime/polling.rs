//! Who waits for the disk alone polls for the answer, for a short time.
//!
//! Where a sync or a read takes as long as two changes of threads, a thread that goes to sleep for
//! it makes the wait half as long again. So the only one who waits asks to be polled again at once.
//! Its executor runs its other tasks and timers in between, and never sleeps: when the answer
//! comes, it is there. The log's thread then gets the next record before it goes to sleep, either.
//! Who waits for a read needs no thread of the engine meanwhile: the system reads.
//!
//! Polling takes a core's time. Now and then the thread offers its core to others, because the
//! engine's thread may be one of them: a scheduler would let it wait for a tick. Polling is given
//! up where the disk is slow, or where somebody else keeps the core: at the limit, and as soon as
//! much time has passed between two polls. Then the next waits sleep, twice as many after each
//! attempt in vain (binary exponential backoff). So a busy machine or a slow disk sees one attempt
//! in a thousand waits, and one slow sync among many quick ones makes few waits sleep.
//!
//! Guarantees: nobody polls while two wait for the same thing, nor for longer than the limit, nor
//! with a waker that may do more than queue a task. A wait that has polled in vain goes on as any
//! other. Dropping it changes nothing. Does not: read a clock for a wait that is shared or sleeps.

use sluicedb_kernel::sync::atomic::{AtomicU32, Ordering};
use sluicedb_kernel::wake::is_trusted;
use std::future::poll_fn;
use std::hint;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// A longer time between two polls means that somebody else had the core.
const GAP_MAX: Duration = Duration::from_micros(200);
/// How long the core is kept before it is offered to others.
const GIVES_WAY_AFTER: Duration = Duration::from_micros(30);
/// So many waits sleep after attempts in vain that a wait polls in vain for at most this long on
/// average. Where the disk was slower than 300 us, the next nine sleep; where somebody else had the
/// core for a tick of 4 ms, the next 128.
const IN_VAIN_PER_WAIT: Duration = Duration::from_micros(31);
const ASLEEP_MAX: u32 = 1024;
/// A success makes the next pause shorter by this part.
const FORGOTTEN: u32 = 16;
/// How often the processor pauses between two polls. That takes less time than a get. Without it
/// there would be a thousand polls for each sync, and who traces a task would see all of them.
const PAUSES: u32 = 8;

/// Whether waits of one kind poll. Its users need no order among each other.
#[derive(Debug)]
pub struct Polling {
    /// Zero: nobody polls.
    limit: Duration,
    /// So many waits sleep before the next attempt.
    asleep: AtomicU32,
    /// So many waits slept after the last attempt in vain; fewer after each success.
    pause: AtomicU32,
}

/// How a wait goes on.
#[derive(Clone, Copy, Debug)]
enum Wait {
    Begins,
    Polls { begun: Instant, last: Instant, gave_way: Instant },
    Sleeps,
}

impl Polling {
    /// Nobody polls for longer than `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { limit, asleep: AtomicU32::new(0), pause: AtomicU32::new(0) }
    }

    /// Resolves as `poll` does, which is one of `awaited` waits. `now` is the clock.
    ///
    /// # Cancellation
    /// As that of `poll`.
    pub async fn along<T>(
        &self,
        awaited: impl Fn() -> usize,
        now: impl Fn() -> Instant,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> T {
        let mut wait = Wait::Begins;
        poll_fn(|context| {
            let polled = poll(context);
            if polled.is_ready() {
                self.ends(wait, &now);
            } else {
                wait = self.go_on(wait, &awaited, context.waker(), &now);
            }
            polled
        })
        .await
    }

    /// What `attempt` finds soon, which nobody else reports: it is asked at each poll but the
    /// first, for the caller has just tried. `None` if it gives up, if this is not the only one of
    /// `awaited` waits, or if it takes long.
    ///
    /// # Cancellation
    /// No effect.
    pub async fn attempts<T>(
        &self,
        awaited: impl Fn() -> usize,
        now: impl Fn() -> Instant,
        mut attempt: impl FnMut() -> Poll<Option<T>>,
    ) -> Option<T> {
        let mut wait = Wait::Begins;
        poll_fn(|context| {
            if matches!(wait, Wait::Polls { .. })
                && let Poll::Ready(found) = attempt()
            {
                if found.is_some() {
                    self.ends(wait, &now);
                }
                return Poll::Ready(found);
            }
            wait = self.go_on(wait, &awaited, context.waker(), &now);
            if matches!(wait, Wait::Polls { .. }) { Poll::Pending } else { Poll::Ready(None) }
        })
        .await
    }

    /// A wait ends with what it waited for.
    fn ends(&self, wait: Wait, now: impl Fn() -> Instant) {
        let Wait::Polls { begun, last, .. } = wait else { return };
        let at = now();
        if at.saturating_duration_since(last) > GAP_MAX {
            self.was_in_vain(at.saturating_duration_since(begun));
        } else {
            let pause = self.pause.load(Ordering::Relaxed);
            self.pause.store(pause - pause.div_ceil(FORGOTTEN), Ordering::Relaxed);
        }
    }

    /// How a wait goes on that is not answered yet. One that polls asks for its next poll.
    fn go_on(
        &self,
        wait: Wait,
        awaited: impl Fn() -> usize,
        waker: &Waker,
        now: impl Fn() -> Instant,
    ) -> Wait {
        // A foreign waker may do anything, and would do it many times.
        let may_poll = || awaited() == 1 && is_trusted(waker) && self.is_awake();
        let wait = match wait {
            Wait::Begins if !self.limit.is_zero() && may_poll() => {
                let begun = now();
                thread::yield_now();
                Wait::Polls { begun, last: begun, gave_way: begun }
            }
            Wait::Begins | Wait::Sleeps => return Wait::Sleeps,
            // It was alone before, or another task polls it now. Its attempt was not in vain.
            Wait::Polls { .. } if awaited() > 1 || !is_trusted(waker) => return Wait::Sleeps,
            Wait::Polls { begun, last, gave_way } => {
                let at = now();
                let gap = at.saturating_duration_since(last);
                let polled_for = at.saturating_duration_since(begun);
                // The clock of a simulator stands still while somebody polls.
                if polled_for >= self.limit || gap > GAP_MAX || gap.is_zero() {
                    self.was_in_vain(polled_for);
                    return Wait::Sleeps;
                }
                let keeps_core = at.saturating_duration_since(gave_way) < GIVES_WAY_AFTER;
                if !keeps_core {
                    thread::yield_now();
                }
                Wait::Polls { begun, last: at, gave_way: if keeps_core { gave_way } else { at } }
            }
        };
        (0..PAUSES).for_each(|_| hint::spin_loop());
        waker.wake_by_ref();
        wait
    }

    /// May a wait that begins poll? Otherwise it is one of those that sleep.
    fn is_awake(&self) -> bool {
        let asleep = self.asleep.load(Ordering::Relaxed);
        self.asleep.store(asleep.saturating_sub(1), Ordering::Relaxed);
        asleep == 0
    }

    fn was_in_vain(&self, polled_for: Duration) {
        let asleep = u32::try_from(polled_for.as_micros() / IN_VAIN_PER_WAIT.as_micros())
            .unwrap_or(u32::MAX);
        let twice = self.pause.load(Ordering::Relaxed).saturating_mul(2);
        let pause = twice.max(asleep).clamp(1, ASLEEP_MAX);
        self.pause.store(pause, Ordering::Relaxed);
        self.asleep.store(pause, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
