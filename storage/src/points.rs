//! Read points: the sequence numbers at which somebody reads for longer than one lookup.
//!
//! A memtable gives up an overwritten entry once nobody can need it: when its successor is visible, so
//! that no new reader stands before it, and no read point lies between the two. (If both are of one
//! batch, at once: what is visible, and so every read point, is the end of a batch.) Snapshots and scans
//! hold a point; a lookup at the newest instant does not, and looks again in the rare case that it came
//! too late (`Memtable::get`).
//!
//! INVARIANT(points-before-death): a point is held from before `visible` was read for it. Whoever takes
//! one says so (`oldest`) first, then reads `visible`; whoever wants to bury an entry reads
//! `visible` first and then asks who says so; with a full fence between the two steps on both sides, one
//! of them sees the other.

use crate::key::Seqno;
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::{Mutex, MutexGuard};
use std::fmt;
use std::sync::{Arc, PoisonError};

/// Nobody holds a point.
const NOBODY: u64 = u64::MAX;

/// The points of one engine.
pub struct ReadPoints {
    /// At or below every held point; `NOBODY` without one.
    oldest: AtomicU64,
    /// Counts the points that were given back.
    released: AtomicU64,
    /// Ascending. Taken at rising numbers, so a new one goes to the end.
    held: Mutex<Vec<Seqno>>,
}

/// What can be buried, as of one look.
#[derive(Debug)]
pub(crate) enum Reach {
    /// Everything that was overwritten at or below the number.
    Everything,
    /// What no point lies in; ascending.
    Around(Vec<Seqno>),
    /// Somebody is taking or giving back a point right now: ask later.
    Unknown,
}

impl Reach {
    /// Does nobody stand in `[written, overwritten)`?
    #[inline]
    pub(crate) fn frees(&self, written: impl FnOnce() -> Seqno, overwritten: Seqno) -> bool {
        match self {
            Self::Everything => true,
            Self::Around(held) => {
                let written = written();
                let after = held.partition_point(|point| *point < written);
                held.get(after).is_none_or(|point| *point >= overwritten)
            }
            Self::Unknown => false,
        }
    }
}

impl ReadPoints {
    /// Nobody holds one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            oldest: AtomicU64::new(NOBODY),
            released: AtomicU64::new(0),
            held: Mutex::new(Vec::new()),
        })
    }

    /// Takes a point at what `visible` says. It is called with a lock held for a few instructions.
    pub fn hold(self: &Arc<Self>, visible: impl FnOnce() -> Seqno) -> ReadPoint {
        let mut held = self.lock();
        // Before `visible` is read, everything is to be kept.
        self.oldest.store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let seqno = visible();
        // Nearly always the last one. Who reads what a change has just published holds its number, which may
        // not be called visible yet, and others hold lower ones after that.
        let at = held.partition_point(|point| *point <= seqno);
        held.insert(at, seqno);
        self.oldest.store(held[0].0, Ordering::Relaxed);
        drop(held);
        ReadPoint { points: Arc::clone(self), seqno }
    }

    /// What can be buried of what was overwritten at or below `visible`, which was read before.
    #[inline]
    pub(crate) fn reach(&self) -> Reach {
        fence(Ordering::SeqCst);
        if self.oldest.load(Ordering::Relaxed) == NOBODY {
            return Reach::Everything;
        }
        self.reach_around()
    }

    #[cold]
    fn reach_around(&self) -> Reach {
        match self.held.try_lock() {
            Ok(held) => Reach::Around(held.clone()),
            Err(_) => Reach::Unknown,
        }
    }

    /// How often a point was given back: what could not be buried before may be buried after it changes.
    pub(crate) fn released(&self) -> u64 {
        self.released.load(Ordering::Relaxed)
    }

    /// Points held now.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Is none held?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Seqno>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ReadPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadPoints").field("held", &self.len()).finish_non_exhaustive()
    }
}

/// While it is held, what was visible at its number stays readable.
pub struct ReadPoint {
    points: Arc<ReadPoints>,
    seqno: Seqno,
}

impl ReadPoint {
    /// The last sequence number that is read.
    pub fn seqno(&self) -> Seqno {
        self.seqno
    }
}

impl Drop for ReadPoint {
    fn drop(&mut self) {
        let mut held = self.points.lock();
        let at = held.partition_point(|point| *point < self.seqno);
        debug_assert_eq!(held.get(at), Some(&self.seqno), "a point is given back once");
        held.remove(at);
        let oldest = held.first().map_or(NOBODY, |oldest| oldest.0);
        self.points.oldest.store(oldest, Ordering::Relaxed);
        self.points.released.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for ReadPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadPoint").field("seqno", &self.seqno).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Planted: points that are kept in the order in which they are taken.
    #[test]
    fn a_point_may_be_lower_than_one_that_was_taken_before() {
        let points = ReadPoints::new();
        let frees =
            |points: &ReadPoints, of: u64, by: u64| points.reach().frees(|| Seqno(of), Seqno(by));
        let born = points.hold(|| Seqno(10));
        let before = points.hold(|| Seqno(5));
        assert!(!frees(&points, 4, 6) && !frees(&points, 7, 12) && frees(&points, 6, 9));
        drop(before);
        assert!(frees(&points, 4, 6) && !frees(&points, 7, 12));
        drop(born);
        assert!(points.is_empty() && frees(&points, 7, 12));
    }
}
