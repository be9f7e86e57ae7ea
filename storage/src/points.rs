//! Read points: the sequence numbers at which somebody reads for longer than one lookup.
//!
//! A memtable retires an overwritten entry when nobody can need it any more. That is so when two
//! things hold: its successor is visible, so no new reader needs it, and no read point lies between
//! the two. (Two entries of one batch never have a read point between them, because every read
//! point is the end of a batch.)
//!
//! Snapshots and scans hold a point. A lookup at the newest instant does not. In the rare case that
//! the entry was retired meanwhile, it looks again (`Memtable::get`).
//!
//! Each point knows its holder. That is for reports; no decision depends on it.
//!
//! Points are in *stripes*. A thread takes its points in one stripe, which few others use. So scans
//! on several cores share no lock, and write to no common cache line. A point is given back to its
//! own stripe, by whichever thread.
//!
//! INVARIANT(points-before-death): a point is announced before `visible` is read for it. Whoever
//! takes a point first announces it (`oldest` of its stripe), and then reads `visible`. Whoever
//! wants to retire an entry first reads `visible`, and then looks for announcements in every
//! stripe. Both have a full fence between the two steps, so one of them sees the other. The stripes
//! are looked at one after the other. That is enough: a point that is taken in a stripe after the
//! look is at or above the `visible` that was read before.

use crate::key::Seqno;
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

/// Nobody holds a point.
const NOBODY: u64 = u64::MAX;

#[cfg(not(loom))]
const STRIPES: usize = 8;
/// Models have few threads, and every stripe multiplies the orders to try.
#[cfg(loom)]
const STRIPES: usize = 2;

/// The points of one engine.
pub struct ReadPoints {
    stripes: [Stripe; STRIPES],
    /// Points are dealt out in turn, because loom's threads have no numbers.
    #[cfg(loom)]
    dealt: crate::sync::atomic::AtomicUsize,
}

/// Some of the points, on two cache lines of their own. Two, because processors fetch them in
/// pairs.
#[repr(align(128))]
struct Stripe {
    /// At or below every point held here; `NOBODY` without one.
    oldest: AtomicU64,
    /// Counts the points that were given back.
    released: AtomicU64,
    held: Mutex<Points>,
}

#[derive(Default)]
struct Points {
    /// Ascending. Numbers rise, so a new one usually goes to the end.
    seqnos: Vec<Seqno>,
    /// Their holders, in no order. A holder keeps its place as long as it holds the point.
    holdings: Vec<Holding>,
    /// The first vacant place; `NOWHERE` without one.
    vacant: usize,
    /// The labels of those who have one, by place.
    labels: HashMap<usize, Arc<str>>,
}

/// No place.
const NOWHERE: usize = usize::MAX;

/// Plain data. To take or to give back a point writes a few words here, and frees nothing.
#[derive(Clone, Copy)]
struct Holding {
    /// `None` while it is vacant.
    holder: Option<Holder>,
    seqno: Seqno,
    superversion: u64,
    noticed: Option<Instant>,
    /// While it is vacant: the next such place.
    next: usize,
}

/// What a point is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A snapshot, its clones and its scans.
    Snapshot,
    /// A scan by itself.
    Scan,
    /// Lookups at one instant, or one that waits for the disk.
    Lookup,
    /// A checkpoint that is being made.
    Checkpoint,
}

/// What is known of a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What it is held for.
    pub holder: Holder,
    /// Its label.
    pub label: Option<Arc<str>>,
    /// The last sequence number that is read.
    pub seqno: Seqno,
    /// The number of the superversion that is read.
    pub superversion: u64,
    /// When it was first noticed to be held; `None` before.
    pub noticed: Option<Instant>,
}

impl Points {
    /// Puts a number in its order.
    #[inline]
    fn insert(&mut self, seqno: Seqno) {
        if self.seqnos.last().is_none_or(|last| *last <= seqno) {
            return self.seqnos.push(seqno);
        }
        // Not always the last one: whoever reads what a change has just published holds the number
        // of the change, which may not be visible yet.
        let at = self.seqnos.partition_point(|point| *point <= seqno);
        self.seqnos.insert(at, seqno);
    }

    /// Takes it out again.
    #[inline]
    fn remove(&mut self, seqno: Seqno) {
        if self.seqnos.last() == Some(&seqno) {
            self.seqnos.pop();
            return;
        }
        let at = self.seqnos.partition_point(|point| *point < seqno);
        debug_assert_eq!(self.seqnos.get(at), Some(&seqno), "a point is given back once");
        self.seqnos.remove(at);
    }

    /// Notes who holds one; returns where.
    #[inline]
    fn note(&mut self, holder: Holder, seqno: Seqno, superversion: u64) -> usize {
        let noted =
            Holding { holder: Some(holder), seqno, superversion, noticed: None, next: NOWHERE };
        let at = self.vacant;
        if let Some(place) = self.holdings.get_mut(at) {
            self.vacant = place.next;
            *place = noted;
            return at;
        }
        self.holdings.push(noted);
        self.holdings.len() - 1
    }

    /// The holder at this place is gone.
    #[inline]
    fn vacate(&mut self, at: usize) {
        let place = &mut self.holdings[at];
        place.holder = None;
        place.next = self.vacant;
        self.vacant = at;
    }
}

/// What can be retired, as of one look.
#[derive(Debug)]
pub(crate) enum Retirable<'a> {
    /// Everything that was overwritten at or below the number.
    Everything,
    /// What no point is in. These are the points, ascending, each once.
    Around(&'a [Seqno]),
    /// Somebody is taking or giving back a point right now: ask later.
    Unknown,
}

impl Retirable<'_> {
    /// Is no point in `[written, overwritten)`?
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

impl Stripe {
    fn new() -> Self {
        Self {
            oldest: AtomicU64::new(NOBODY),
            released: AtomicU64::new(0),
            held: Mutex::new(Points { vacant: NOWHERE, ..Points::default() }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Points> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadPoints {
    /// Nobody holds one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            stripes: std::array::from_fn(|_| Stripe::new()),
            #[cfg(loom)]
            dealt: crate::sync::atomic::AtomicUsize::new(0),
        })
    }

    /// Takes a point at the number that `visible` returns, to read a superversion with this number.
    /// `visible` is called with the stripe's lock held, for a few instructions.
    pub fn hold(
        self: &Arc<Self>,
        holder: Holder,
        superversion: u64,
        visible: impl FnOnce() -> Seqno,
    ) -> ReadPoint {
        let at = self.mine();
        let stripe = &self.stripes[at];
        let mut held = stripe.lock();
        // Until `visible` is read, everything is kept.
        stripe.oldest.store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let seqno = visible();
        held.insert(seqno);
        stripe.oldest.store(held.seqnos[0].0, Ordering::Relaxed);
        let place = held.note(holder, seqno, superversion);
        drop(held);
        ReadPoint { points: Arc::clone(self), seqno, stripe: at, place, labelled: false }
    }

    /// Notes `now` for each holder that was not noticed before. Returns when the first of all
    /// holders was.
    pub fn notice(&self, now: Instant) -> Option<Instant> {
        let notice = |stripe: &Stripe| {
            let mut held = stripe.lock();
            let taken = held.holdings.iter_mut().filter(|place| place.holder.is_some());
            taken.map(|place| *place.noticed.get_or_insert(now)).min()
        };
        self.stripes.iter().filter_map(notice).min()
    }

    /// Who holds a point now, in no order.
    pub fn holders(&self) -> Vec<Held> {
        let mut holders = Vec::new();
        for stripe in &self.stripes {
            let held = stripe.lock();
            let holder = |(at, place): (usize, &Holding)| {
                let Holding { holder, seqno, superversion, noticed, .. } = *place;
                let label = held.labels.get(&at).cloned();
                Some(Held { holder: holder?, label, seqno, superversion, noticed })
            };
            holders.extend(held.holdings.iter().enumerate().filter_map(holder));
        }
        holders
    }

    /// What can be retired of what was overwritten at or below `visible`, which was read before.
    /// `kept` is memory for the points, which the caller keeps for the next time.
    #[inline]
    pub(crate) fn reach<'a>(&self, kept: &'a mut Vec<Seqno>) -> Retirable<'a> {
        fence(Ordering::SeqCst);
        let is_free = |stripe: &Stripe| stripe.oldest.load(Ordering::Relaxed) == NOBODY;
        if self.stripes.iter().all(is_free) {
            return Retirable::Everything;
        }
        self.reach_around(kept)
    }

    #[cold]
    fn reach_around<'a>(&self, kept: &'a mut Vec<Seqno>) -> Retirable<'a> {
        kept.clear();
        for stripe in &self.stripes {
            if stripe.oldest.load(Ordering::Relaxed) == NOBODY {
                continue;
            }
            match stripe.held.try_lock() {
                Ok(held) => merge(kept, &held.seqnos),
                Err(_) => return Retirable::Unknown,
            }
        }
        kept.dedup();
        Retirable::Around(kept)
    }

    /// How often a point was given back. When it changes, more may be retired than before.
    pub(crate) fn released(&self) -> u64 {
        let released = |stripe: &Stripe| stripe.released.load(Ordering::Relaxed);
        self.stripes.iter().map(released).sum()
    }

    /// Points held now.
    pub fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.lock().seqnos.len()).sum()
    }

    /// Is none held?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stripe for a point that this thread takes.
    #[cfg(not(loom))]
    #[inline]
    #[allow(clippy::unused_self, reason = "loom's points are dealt out by the engine")]
    fn mine(&self) -> usize {
        crate::stripe::of_this_thread() % STRIPES
    }

    #[cfg(loom)]
    fn mine(&self) -> usize {
        self.dealt.fetch_add(1, Ordering::Relaxed) % STRIPES
    }
}

/// Merges the numbers of `more` into `all`. Both ascend. Whoever holds a range's seat calls this,
/// so it takes no memory but what `all` lacks, and moves no number twice.
fn merge(all: &mut Vec<Seqno>, more: &[Seqno]) {
    let (mut left, mut right) = (all.len(), more.len());
    all.resize(left + right, Seqno::ZERO);
    // From the largest on: the place of a number is behind all that are still to be placed.
    while right > 0 {
        let at = left + right - 1;
        if left > 0 && all[left - 1] > more[right - 1] {
            left -= 1;
            all[at] = all[left];
        } else {
            right -= 1;
            all[at] = more[right];
        }
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
    /// Its stripe.
    stripe: usize,
    /// The place of its holder in the stripe.
    place: usize,
    labelled: bool,
}

impl ReadPoint {
    /// The last sequence number that is read.
    pub fn seqno(&self) -> Seqno {
        self.seqno
    }

    /// Gives its holder this label.
    pub fn label(&mut self, label: &str) {
        let label = Arc::from(label);
        self.points.stripes[self.stripe].lock().labels.insert(self.place, label);
        self.labelled = true;
    }
}

impl Drop for ReadPoint {
    fn drop(&mut self) {
        let stripe = &self.points.stripes[self.stripe];
        let mut held = stripe.lock();
        held.remove(self.seqno);
        let oldest = held.seqnos.first().map_or(NOBODY, |oldest| oldest.0);
        stripe.oldest.store(oldest, Ordering::Relaxed);
        // Only the holder of the lock writes it.
        let released = stripe.released.load(Ordering::Relaxed);
        stripe.released.store(released + 1, Ordering::Relaxed);
        held.vacate(self.place);
        let label = if self.labelled { held.labels.remove(&self.place) } else { None };
        // Freed after the lock is released.
        drop(held);
        drop(label);
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
    use std::time::Duration;

    /// Planted: points that are kept in the order in which they are taken.
    #[test]
    fn a_point_may_be_lower_than_one_that_was_taken_before() {
        let points = ReadPoints::new();
        let frees = |points: &ReadPoints, of: u64, by: u64| {
            points.reach(&mut Vec::new()).frees(|| Seqno(of), Seqno(by))
        };
        let born = points.hold(Holder::Scan, 1, || Seqno(10));
        let before = points.hold(Holder::Scan, 1, || Seqno(5));
        assert!(!frees(&points, 4, 6) && !frees(&points, 7, 12) && frees(&points, 6, 9));
        drop(before);
        assert!(frees(&points, 4, 6) && !frees(&points, 7, 12));
        drop(born);
        assert!(points.is_empty() && frees(&points, 7, 12));
    }

    /// Planted: a place that keeps the age, or the label, of who was there before.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn each_holder_is_noted_as_long_as_it_holds_its_point() {
        let points = ReadPoints::new();
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut one = points.hold(Holder::Snapshot, 1, || Seqno(5));
        one.label("one");
        assert_eq!(points.notice(begin), Some(begin));
        let two = points.hold(Holder::Snapshot, 1, || Seqno(5));
        assert_eq!(points.notice(begin + second), Some(begin), "the first is the oldest");
        let scan = points.hold(Holder::Scan, 2, || Seqno(7));
        let held = |holder, label: Option<&str>, seqno, superversion, noticed| Held {
            holder,
            label: label.map(Arc::from),
            seqno: Seqno(seqno),
            superversion,
            noticed,
        };
        let (first, later) = (Some(begin), Some(begin + second));
        let one_held = held(Holder::Snapshot, Some("one"), 5, 1, first);
        let two_held = held(Holder::Snapshot, None, 5, 1, later);
        let scan_held = held(Holder::Scan, None, 7, 2, None);
        assert_eq!(points.holders(), [one_held, two_held.clone(), scan_held]);
        drop(one);
        drop(scan);
        assert_eq!(points.holders(), vec![two_held.clone()]);
        // In the places of others.
        let kept: Vec<_> = (0..2).map(|_| points.hold(Holder::Lookup, 3, || Seqno(9))).collect();
        let lookup = held(Holder::Lookup, None, 9, 3, None);
        assert_eq!(points.holders(), [lookup.clone(), two_held, lookup]);
        assert_eq!(points.notice(begin + 2 * second), later);
        drop((two, kept));
        assert_eq!((points.notice(begin), points.holders()), (None, vec![]));
    }

    /// Planted: a look at the stripe of the thread that looks, and at no other; points that are
    /// collected without being put in order.
    #[test]
    fn a_point_of_any_thread_is_seen() {
        let points = ReadPoints::new();
        let hold = |seqno: u64| {
            let points = Arc::clone(&points);
            let held = std::thread::spawn(move || points.hold(Holder::Scan, 1, || Seqno(seqno)));
            held.join().unwrap()
        };
        // More threads than stripes, the later ones with the lower points.
        let mut held: Vec<_> = (0..40).map(|at| hold(1000 - at * 10)).collect();
        while let Some(point) = held.pop() {
            let (seqno, next) = (point.seqno().0, point.seqno().0 + 10);
            let frees = |of, by| points.reach(&mut Vec::new()).frees(|| Seqno(of), Seqno(by));
            assert_eq!(points.len(), held.len() + 1);
            assert_eq!(points.holders().len(), held.len() + 1);
            assert!(!frees(seqno, seqno + 1) && frees(seqno + 1, next) && frees(1, seqno));
            assert_eq!(frees(seqno + 1, next + 1), held.is_empty());
            let released = points.released();
            drop(point);
            assert_eq!(points.released(), released + 1);
            assert!(frees(seqno, next), "what was given back is in nobody's way");
        }
        assert!(points.is_empty());
        assert!(matches!(points.reach(&mut Vec::new()), Retirable::Everything));
    }

    /// Planted: a look that collects the points anew; equal points that are kept.
    #[test]
    fn a_look_puts_each_point_once_into_the_memory_of_the_last_look() {
        let points = ReadPoints::new();
        let hold = |first: u64| {
            let points = Arc::clone(&points);
            let take = move |at: u64| points.hold(Holder::Scan, 1, || Seqno(first + at / 10 * 40));
            std::thread::spawn(move || (0..100).map(take).collect::<Vec<_>>()).join().unwrap()
        };
        // Ten of each number in a stripe, and the numbers of the stripes lie between each other.
        let held: Vec<_> = (0..40).map(hold).collect();
        let (mut kept, mut memory) = (Vec::new(), None);
        for _ in 0..3 {
            let Retirable::Around(found) = points.reach(&mut kept) else { panic!("some are held") };
            assert!(found.iter().copied().eq((0..400).map(Seqno)));
            let now = (kept.as_ptr(), kept.capacity());
            assert_eq!(*memory.get_or_insert(now), now);
        }
        drop(held);
    }
}
