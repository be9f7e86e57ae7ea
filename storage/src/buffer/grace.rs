//! When memory that readers may be looking at can be used again.
//!
//! A reader pins the present phase, reads, and unpins. That costs two atomic additions on a counter
//! that few others use: no lock, no waiting. The writer makes memory unreachable first. Then it
//! asks, now and then, whether the readers of that time are gone. It never waits either.
//!
//! INVARIANT(grace-before-reuse): memory is used again only after the counters of *both* phases
//! were seen at zero, after the memory had become unreachable.
//!
//! Why both: a reader picks its counter by a phase that it may have read long ago. So it can be in
//! either.
//!
//! Why that is enough: take a reader that can still see the memory. Either it raised one of the
//! counters before the memory became unreachable; then that counter is not zero. Or the fence
//! between its addition and its first load shows it the new state. The phase is turned only so that
//! the counter that is waited for gets no new readers.
//!
//! The method is that of sleepable RCU (McKenney, 2006), without the waiting. Rejected:
//! * Epochs per thread, as in crossbeam-epoch: a scan keeps its pin while its task moves between
//!   threads.
//! * The superversion's reference count as the pin: then the version manager, which waits for the
//!   disk, would decide how soon memory comes back.

use crate::sync::atomic::{AtomicUsize, Ordering, fence};

#[cfg(not(loom))]
const SHARDS: usize = 4;
/// Models have few threads, and every counter multiplies the orders to try.
#[cfg(loom)]
const SHARDS: usize = 1;

/// A counter on cache lines of its own, two because processors fetch them in pairs.
#[repr(align(128))]
#[derive(Debug)]
struct Pinned(AtomicUsize);

/// Which readers may still be looking. One per memtable.
#[derive(Debug)]
pub struct Grace {
    phase: AtomicUsize,
    pinned: [[Pinned; SHARDS]; 2],
}

/// A pin: which counter it raised. It must be given back with `unpin`, on whatever thread.
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
    /// Until `unpin`, nothing that the caller reaches from now on is used again.
    #[inline]
    pub fn pin(&self) -> Phase {
        let parity = self.phase.load(Ordering::Relaxed) & 1;
        let shard = shard();
        self.pinned[parity][shard].0.fetch_add(1, Ordering::SeqCst);
        // The addition comes before everything that the caller reads next.
        heavy_fence_after_add();
        Phase { parity: parity as u8, shard: shard as u8 }
    }

    /// The caller holds no pointer any more.
    #[inline]
    #[allow(clippy::needless_pass_by_value, reason = "a pin is given back once")]
    pub fn unpin(&self, pin: Phase) {
        let counter = &self.pinned[usize::from(pin.parity)][usize::from(pin.shard)].0;
        // Everything that the caller read was read before.
        counter.fetch_sub(1, Ordering::Release);
    }

    /// For the writer alone. True: the readers of the previous phase are gone and a new phase has
    /// begun; what was unreachable before the *last* such call can be used again, because both
    /// counters were at zero since. False: ask again later.
    pub fn turn(&self) -> bool {
        // What was made unreachable comes before the look at the counters.
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

/// On x86-64 the addition is a full fence already.
#[inline(always)]
fn heavy_fence_after_add() {
    #[cfg(any(not(target_arch = "x86_64"), loom, miri))]
    fence(Ordering::SeqCst);
    #[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// Threads are dealt out over the counters.
#[cfg(not(loom))]
#[inline]
fn shard() -> usize {
    use std::cell::Cell;
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    // While a thread ends its locals may be gone; any counter will do.
    SHARD
        .try_with(|shard| {
            if shard.get() == usize::MAX {
                shard.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
            }
            shard.get()
        })
        .unwrap_or(0)
}

#[cfg(loom)]
fn shard() -> usize {
    0
}
