//! Grace periods: when memory that may have readers can be reused.
//!
//! A reader pins the current phase, reads, and unpins. That costs two atomic additions on a counter
//! with few other users: no lock, no waiting. The writer first makes memory unreachable. Then it
//! asks from time to time whether the readers of that time have left. It never waits, either.
//!
//! INVARIANT(grace-before-reuse): memory is reused only after the counters of *both* phases were
//! seen at zero, after the memory had become unreachable.
//!
//! Why both: a reader selects its counter by a phase that it may have loaded long ago. So it can be
//! in either.
//!
//! Why that is enough: take a reader that can still reach the memory. Either it raised one of the
//! counters before the memory became unreachable; then that counter is not zero. Or the fence
//! between its addition and its first load shows it the new state. The phase is turned only so that
//! the counter that is waited for gets no new readers.
//!
//! The method is that of sleepable RCU (McKenney, 2006), without the waiting. Rejected:
//! * Epochs per thread, as in crossbeam-epoch: a scan keeps its pin while its task moves between
//!   threads.
//! * The superversion's reference count as the pin: then the version manager, which waits for the
//!   disk, would decide how soon memory is free.

use crate::stripe;
use crate::sync::atomic::{AtomicUsize, Ordering, fence};

#[cfg(not(loom))]
const SHARDS: usize = 4;
/// Models have few threads, and every counter multiplies the interleavings.
#[cfg(loom)]
const SHARDS: usize = 1;

/// A counter on its own cache lines. Two lines, because processors fetch them in pairs.
#[repr(align(128))]
#[derive(Debug)]
struct Pinned(AtomicUsize);

/// The readers that may still be in memory. One per memtable.
#[derive(Debug)]
pub struct Grace {
    phase: AtomicUsize,
    pinned: [[Pinned; SHARDS]; 2],
}

/// A pin: the counter that it raised. It must be returned to `unpin`, on any thread.
#[derive(Debug)]
#[must_use = "memory is held until it is unpinned"]
pub struct Phase {
    parity: u8,
    shard: u8,
}

impl Default for Grace {
    fn default() -> Self {
        let counters = || std::array::from_fn(|_| Pinned(AtomicUsize::new(0)));
        Self { phase: AtomicUsize::new(0), pinned: [counters(), counters()] }
    }
}

impl Grace {
    /// Pins: until `unpin`, no memory that the caller reaches from now on is reused.
    #[inline]
    pub fn pin(&self) -> Phase {
        let parity = self.phase.load(Ordering::Relaxed) & 1;
        let shard = stripe::of_this_thread() % SHARDS;
        self.pinned[parity][shard].0.fetch_add(1, Ordering::SeqCst);
        // Orders the addition before everything that the caller reads next.
        heavy_fence_after_add();
        Phase { parity: parity as u8, shard: shard as u8 }
    }

    /// Unpins. The caller must not hold any pointer any more.
    #[inline]
    #[allow(clippy::needless_pass_by_value, reason = "a pin is given back once")]
    pub fn unpin(&self, pin: Phase) {
        let counter = &self.pinned[usize::from(pin.parity)][usize::from(pin.shard)].0;
        // Release: orders everything that the caller has read before this.
        counter.fetch_sub(1, Ordering::Release);
    }

    /// Tries to begin a new phase. Only for the writer.
    ///
    /// Returns true if the readers of the previous phase have left and a new phase has begun.
    /// Memory that was unreachable before the *last* such call can be reused then, because both
    /// counters have been at zero since. Returns false if a reader is left: ask again later.
    pub fn turn(&self) -> bool {
        // Orders the stores that made memory unreachable before the loads of the counters.
        fence(Ordering::SeqCst);
        let phase = self.phase.load(Ordering::Relaxed);
        let previous = &self.pinned[(phase & 1) ^ 1];
        if previous.iter().any(|pinned| pinned.0.load(Ordering::Acquire) != 0) {
            return false;
        }
        self.phase.store(phase.wrapping_add(1), Ordering::Relaxed);
        true
    }
}

/// On x86-64 the addition already is a full fence.
#[inline(always)]
fn heavy_fence_after_add() {
    #[cfg(any(not(target_arch = "x86_64"), loom, miri))]
    fence(Ordering::SeqCst);
    #[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
}
