//! How much is read: counters for [`Stats`](crate::Stats).
//!
//! A counter that all readers share would be written by every get, and its cache line would travel
//! between their cores. So the counters are in stripes: a get adds one to a counter that few other
//! threads use. To read them all takes a load of each stripe.

use sluicedb_storage::stripe;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const STRIPES: usize = 16;

/// Counts since the database was opened, of all its handles, snapshots and scans.
#[derive(Debug, Default)]
pub(crate) struct ReadCounts([Stripe; STRIPES]);

/// On cache lines of its own: two, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    found: AtomicU64,
    absent: AtomicU64,
    scans: AtomicU64,
    scanned: AtomicU64,
}

/// The counters of all stripes, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    pub(crate) found: u64,
    pub(crate) absent: u64,
    pub(crate) scans: u64,
    pub(crate) scanned: u64,
}

impl ReadCounts {
    #[inline]
    fn mine(&self) -> &Stripe {
        &self.0[stripe::of_this_thread() % STRIPES]
    }

    /// A key was looked up.
    #[inline]
    pub(crate) fn looked_up(&self, is_found: bool) {
        let mine = self.mine();
        let counter = if is_found { &mine.found } else { &mine.absent };
        counter.fetch_add(1, Relaxed);
    }

    /// A scan was created.
    #[inline]
    pub(crate) fn begun(&self) {
        self.mine().scans.fetch_add(1, Relaxed);
    }

    /// Scans handed out so many entries.
    #[inline]
    pub(crate) fn scanned(&self, entries: u64) {
        self.mine().scanned.fetch_add(entries, Relaxed);
    }

    /// All of them, each as of some moment of this call.
    pub(crate) fn sum(&self) -> Reads {
        let sum = |of: fn(&Stripe) -> &AtomicU64| {
            self.0.iter().map(|stripe| of(stripe).load(Relaxed)).sum()
        };
        Reads {
            found: sum(|stripe| &stripe.found),
            absent: sum(|stripe| &stripe.absent),
            scans: sum(|stripe| &stripe.scans),
            scanned: sum(|stripe| &stripe.scanned),
        }
    }
}
